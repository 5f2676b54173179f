"""Who has which address. A lease is a symbolic link ``leases/<address>`` that points to the id of its container.

Making a symbolic link is atomic, carries its content, and fails with EEXIST when the name is taken: two helpers cannot give
away one address, and no power cut leaves half a lease. The folder is all there is: whoever runs a container gives its address back
(:func:`.leases.free`) without asking anybody.
"""

from __future__ import annotations

import ipaddress
import os
import time

from ..errors import NetworkError
from . import leases


class Leases:
    """The leases of one network. The first host address is the gateway's and is never leased."""

    def __init__(self, folder: str, subnet: ipaddress.IPv4Network) -> None:
        self.folder, self.subnet = folder, subnet
        self._last = 0
        os.makedirs(folder, mode=0o700, exist_ok=True)

    @property
    def gateway(self) -> ipaddress.IPv4Address:
        return self.subnet.network_address + 1

    def take(self, container: str) -> ipaddress.IPv4Address:
        """The next free address for ``container``.

        Addresses go round, so that one just given back is not given away while an old connection still speaks to it. Which are free
        is found out by taking them: with hundreds of containers, reading who has which would be most of a start.

        :raises NetworkError: all are taken.
        """
        free = self.subnet.num_addresses - 3  # network, gateway, broadcast
        last = self._last or max((int(address) - int(self.subnet.network_address) for address in self.all()), default=1)
        for step in range(1, free + 1):
            offset = 2 + (last - 2 + step) % free
            address = self.subnet.network_address + offset
            try:
                os.symlink(container, f"{self.folder}/{address}")
            except FileExistsError:
                continue
            self._last = offset
            return address
        raise NetworkError(
            f"no free address in {self.subnet}: {len(self.all())} containers have one", "remove containers, or run with --network none"
        )

    def all(self) -> dict[ipaddress.IPv4Address, str]:
        """Address → id of its container. A file that is no lease is left alone."""
        return {ipaddress.IPv4Address(name): owner for name, owner in leases.listed(self.folder)}

    def sweep(self, alive: set[str], grace: float) -> list[str]:
        """Free the leases of containers that are not in ``alive``; returns their ids.

        :param grace: seconds; a younger lease stays: its container may have started after ``alive`` was written down.
        """
        gone = []
        for name, owner in leases.listed(self.folder):
            try:
                age = abs(time.time() - os.lstat(f"{self.folder}/{name}").st_mtime)  # of the future: the clock was set back since
            except FileNotFoundError:
                continue
            if owner not in alive and age >= grace and leases.drop(self.folder, name, owner):
                gone.append(owner)
        return gone


def mac(address: ipaddress.IPv4Address) -> str:
    """A locally administered address made from ``address``: a neighbour's ARP entry stays true when the address goes round."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed)
