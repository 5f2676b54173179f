"""Who has which address. A lease is a symbolic link ``leases/<address>`` that points to the id of its container.

Making a symbolic link is atomic, carries its content, and fails with EEXIST when the name is taken: two helpers cannot give
away one address, and no power cut leaves half a lease. Standard library only.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import NetworkError


class Leases:
    """The leases of one network. The first host address is the gateway's and is never leased."""

    def __init__(self, folder: Path, subnet: ipaddress.IPv4Network) -> None:
        self.folder, self.subnet = folder, subnet
        self._last = 0
        self._known: dict[ipaddress.IPv4Address, str] = {}
        self._seen = 0  # the folder's mtime (ns) for which _known holds; 0 is never
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def gateway(self) -> ipaddress.IPv4Address:
        return self.subnet.network_address + 1

    def take(self, container: str) -> ipaddress.IPv4Address:
        """The address of ``container``; the one that it has, or the next free one.

        Addresses go round, so that one just given back is not given away while an old connection still speaks to it.

        :raises NetworkError: all are taken.
        """
        taken = self.all()
        for address, owner in taken.items():
            if owner == container:
                return address
        size = self.subnet.num_addresses
        free = size - 3  # network, gateway, broadcast
        last = self._last or max((int(a) - int(self.subnet.network_address) for a in taken), default=1)
        for step in range(1, free + 1):
            offset = 2 + (last - 2 + step) % free
            address = self.subnet.network_address + offset
            if address in taken:
                continue
            try:
                with self._changing():
                    os.symlink(container, f"{self.folder}/{address}")
            except FileExistsError:
                continue  # another helper was faster
            self._known[address] = container
            self._last = offset
            return address
        raise NetworkError(
            f"no free address in {self.subnet}: {len(taken)} containers have one", "remove containers, or run with --network none"
        )

    def free(self, container: str) -> list[ipaddress.IPv4Address]:
        """Give back what ``container`` has."""
        mine = [address for address, owner in self.all().items() if owner == container]
        mine = mine or [address for address, owner in self._read().items() if owner == container]
        for address in mine:
            self._drop(address)
        return mine

    def all(self) -> dict[ipaddress.IPv4Address, str]:
        """Address → id of its container. A file that is no lease is left alone.

        Kept as long as nobody but us has changed the folder: with hundreds of containers reading every link would be most of a start.
        A change of another helper within the same tick of the clock as ours stays unseen: making a lease then fails with EEXIST, and
        who finds none to free, or sweeps, reads the folder itself.
        """
        before = os.stat(self.folder).st_mtime_ns
        if before != self._seen:
            self._known, self._seen = self._read(), before
        return dict(self._known)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """One change of ours: what is known stays valid when the folder was as we know it before."""
        valid = os.stat(self.folder).st_mtime_ns == self._seen
        yield
        self._seen = os.stat(self.folder).st_mtime_ns if valid else 0

    def _drop(self, address: ipaddress.IPv4Address) -> None:
        with self._changing(), contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.folder}/{address}")
        self._known.pop(address, None)

    def _read(self) -> dict[ipaddress.IPv4Address, str]:
        found: dict[ipaddress.IPv4Address, str] = {}
        for name in os.listdir(self.folder):
            try:
                found[ipaddress.IPv4Address(name)] = os.readlink(self.folder / name)
            except (ValueError, OSError):
                continue
        return found

    def sweep(self, alive: set[str], grace: float) -> list[str]:
        """Free the leases of containers that are not in ``alive``; returns their ids.

        :param grace: seconds; a younger lease stays: its container may have started after ``alive`` was written down.
        """
        gone = []
        for address, owner in self._read().items():
            path = self.folder / str(address)
            try:
                age = time.time() - path.lstat().st_mtime
            except FileNotFoundError:
                continue
            if owner not in alive and age >= grace:
                self._drop(address)
                gone.append(owner)
        return gone


def mac(address: ipaddress.IPv4Address) -> str:
    """A locally administered address made from ``address``: a neighbour's ARP entry stays true when the address goes round."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed)
