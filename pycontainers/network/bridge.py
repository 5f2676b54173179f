"""A network: its folder, its bridge, its subnet, its way out."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

try:
    from _blake2 import blake2b  # what hashlib gives, without OpenSSL, which would be 3 MB more
except ImportError:
    from hashlib import blake2b

from ..errors import NetworkError, NotFound
from ..linux import files
from . import links, messages
from .addresses import Leases, mac
from .batch import NLM_F_ACK, Netlink, NetlinkError

DEFAULT = "bridge"
"""The network that containers get (Docker's name)."""

SUBNETS = (
    "10.89.0.0/16", "10.90.0.0/16", "10.91.0.0/16", "10.92.0.0/16", "10.93.0.0/16", "10.94.0.0/16", "10.95.0.0/16",
    "10.189.0.0/16", "172.29.0.0/16", "172.30.0.0/16", "172.31.0.0/16",
    *(f"192.168.{third}.0/24" for third in range(128, 160)),
)
"""Tried in this order: away from Docker's 172.17.0.0/16 and on, and from Podman's 10.88.0.0/16."""

_RTN_BROADCAST, _RTN_MULTICAST = 3, 5
_IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"


def names(home: str) -> tuple[str, str]:
    """``(bridge, table)`` of the state under ``home``: each home has its own, so that tests and second homes do not meet."""
    if home == "/var/lib/pycontainers":
        return "pyct0", "pycontainers"
    mark = blake2b(os.fsencode(home), digest_size=3).hexdigest()
    return f"pyctb-{mark}", f"pycontainers_{mark}"


def orphans(links_folder: str = "/sys/class/net") -> list[tuple[str, str]]:
    """``(bridge, table)`` of homes that do not exist any more: somebody deleted the folder before the network was taken down.

    Each bridge carries its home as its alias.
    """
    found = []
    for link in os.listdir(links_folder):
        if not link.startswith("pyctb-"):
            continue
        with contextlib.suppress(OSError):
            with open(f"{links_folder}/{link}/ifalias", "rb") as alias:
                home = os.fsdecode(alias.read().strip())
            bridge, table = names(home)
            if os.path.isabs(home) and bridge == link and not os.path.exists(home):
                found.append((bridge, table))
    return found


class Network:
    """One bridge network. ``folder`` holds ``network.json`` (name, bridge, subnet) and ``leases/``.

    :param subnets: the candidates for a network that has none yet.
    """

    def __init__(
        self, folder: str, bridge: str, netlink: Netlink, subnets: tuple[ipaddress.IPv4Network, ...]
    ) -> None:
        self.folder, self.name, self.bridge, self.netlink, self.subnets = folder, os.path.basename(folder), bridge, netlink, subnets
        self.index = 0
        self._leases: Leases | None = None

    @property
    def file(self) -> str:
        return f"{self.folder}/network.json"

    def saved(self) -> ipaddress.IPv4Network | None:
        """The subnet that this network has on disk, None for a new one (or one whose file a power cut emptied)."""
        try:
            with open(self.file, "rb") as file:
                return ipaddress.IPv4Network(json.loads(file.read())["subnet"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    @property
    def leases(self) -> Leases:
        if self._leases is None:
            subnet = self.saved()
            if subnet is None:
                raise NotFound(f"the network {self.name} has no bridge yet")
            self._leases = Leases(f"{self.folder}/leases", subnet)
        return self._leases

    def ensure(self) -> None:
        """Make the bridge, or find it as it should be. Costs little when it is there.

        :raises NetworkError: no right to do it, or no subnet is free.
        """
        if self.index and links.index_of(self.netlink, self.bridge) == self.index:
            return
        with namespace_lock():  # two helpers must not choose the same subnet
            index = links.index_of(self.netlink, self.bridge)
            subnet = self.saved()
            if subnet is not None and index is None and not self._is_free(subnet) and not self.leases.all():
                subnet = None  # somebody else has it now and no container of ours does: move
            if subnet is None:
                subnet = self._choose()
                self._save(subnet)
            self._leases = Leases(f"{self.folder}/leases", subnet)
            try:
                self.index = index or self._create()
                self._address(subnet)
            except NetlinkError as error:
                raise refused(error, f"the bridge {self.bridge}") from None

    def remove(self) -> bool:
        """Delete the bridge and the folder. True when there was a bridge. The caller has seen that there are no leases."""
        with namespace_lock():
            index = links.index_of(self.netlink, self.bridge)
            for name in links.ports_of(self.netlink, index) if index else []:
                links.delete(self.netlink, name)  # its container has given its address back, but its namespace is still there
            gone = links.delete(self.netlink, self.bridge)
            self.index, self._leases = 0, None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.file)
            for folder in (f"{self.folder}/leases", self.folder):
                with contextlib.suppress(OSError):  # something else lies in it: leave it
                    os.rmdir(folder)
        return gone

    def _create(self) -> int:
        # A bridge without a fixed address takes the lowest of its ports' and changes it when they come and go.
        subnet = self.leases.subnet
        message = messages.link(
            messages.attribute(messages.IFLA_IFNAME, self.bridge),
            messages.hardware(mac(subnet.network_address + 1)),
            messages.link_info("bridge"),
        )
        try:
            self.netlink.run([("making it", self.netlink.encode(message, messages.RTM_NEWLINK, links.CREATE))])
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
        index = links.index_of(self.netlink, self.bridge)
        if index is None:
            raise NetworkError(f"the bridge {self.bridge} vanished while it was made", "try again")
        return index

    def _address(self, subnet: ipaddress.IPv4Network) -> None:
        message = links.address_message(self.index, subnet.network_address + 1, subnet)
        # The alias says whose it is, see orphans(); the kernel takes it for a link that is there, not while it is made.
        alias = messages.attribute(messages.IFLA_IFALIAS, os.fsencode(os.path.dirname(os.path.dirname(self.folder))))
        quiet = messages.link(messages.without_link_local(), index=self.index)
        up = messages.link(alias, index=self.index, flags=links.IFF_UP)
        parts = [(f"address {subnet.network_address + 1}", self.netlink.encode(message, messages.RTM_NEWADDR, links.CREATE), True),
                 (links.NO_IPV6, self.netlink.encode(quiet, messages.RTM_NEWLINK, NLM_F_ACK), True),
                 ("up", self.netlink.encode(up, messages.RTM_NEWLINK, NLM_F_ACK), True)]
        for error in self.netlink.send(parts):
            if error is not None and error.errno not in (errno.EEXIST, errno.EAFNOSUPPORT):
                raise error

    def _choose(self) -> ipaddress.IPv4Network:
        used = self._used()
        for subnet in self.subnets:
            if not any(subnet.overlaps(other) for other in used):
                return subnet
        raise NetworkError(
            f"all {len(self.subnets)} subnets for containers overlap with routes of this machine",
            "see: ip -4 route; set PYCONTAINERS_SUBNETS, or run with --network none",
        )

    def _is_free(self, subnet: ipaddress.IPv4Network) -> bool:
        return not any(subnet.overlaps(other) for other in self._used())

    def _used(self) -> list[ipaddress.IPv4Network]:
        """Subnets of all routes (the default one aside) and addresses of this machine, but for those of our own bridge."""
        own = links.index_of(self.netlink, self.bridge)
        used = []
        for body in self.netlink.dump("listing routes", messages.any_route(), messages.RTM_GETROUTE):
            prefix, kind, found = messages.parsed_route(body)
            through = int.from_bytes(found.get(messages.RTA_OIF, b""), sys.byteorder)
            target = found.get(messages.RTA_DST)
            if target and prefix and kind not in (_RTN_BROADCAST, _RTN_MULTICAST) and through != own:
                used.append(ipaddress.IPv4Network((target, prefix), strict=False))
        for body in self.netlink.dump("listing addresses", messages.any_address(), messages.RTM_GETADDR):
            index, prefix, found = messages.parsed_address(body)
            if index != own:
                used.append(ipaddress.IPv4Network((found[messages.IFA_ADDRESS], prefix), strict=False))
        return used

    def _save(self, subnet: ipaddress.IPv4Network) -> None:
        os.makedirs(self.folder, mode=0o711, exist_ok=True)
        files.replace(self.file, json.dumps({"name": self.name, "bridge": self.bridge, "subnet": str(subnet)}).encode())


@contextlib.contextmanager
def namespace_lock() -> Iterator[None]:
    """A lock on this network namespace itself, whoever uses it from wherever: flock(2) works on its nsfs file."""
    fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def refused(error: OSError, what: str) -> NetworkError:
    """The kernel's refusal as an error that names what is missing."""
    if error.errno in (errno.EPERM, errno.EACCES):
        return NetworkError(
            f"{what} cannot be made: this process lacks CAP_NET_ADMIN", "run with --network host or --network none"
        )
    if error.errno == errno.EOPNOTSUPP:
        return NetworkError(
            f"{what} cannot be made: the kernel has no support for it ({error.strerror})",
            "load the modules bridge and veth (modprobe bridge veth), or run with --network host",
        )
    return NetworkError(f"{what} cannot be made: {error.strerror}", "run with --network host or --network none")


def forwarding() -> list[str]:
    """Have the kernel forward IPv4 packets. Returns notes: that it was changed, or why it could not be."""
    try:
        with open(_IP_FORWARD, "rb+", buffering=0) as file:
            if file.read(1) != b"0":
                return []
            file.seek(0)
            file.write(b"1\n")
    except OSError as error:
        try:
            with open(_IP_FORWARD) as readable:
                if readable.read(1) != "0":
                    return []
        except OSError:
            pass
        return [f"no way out: net.ipv4.ip_forward is 0 and cannot be set ({error.strerror})"]
    return ["net.ipv4.ip_forward was 0 and is 1 now"]


def facts(network: Network) -> dict[str, Any]:
    """What doctor shows of a network: the bridge's name, whether it is there, subnet, number of leases."""
    subnet = network.saved()
    index = links.index_of(network.netlink, network.bridge)
    return {
        "bridge": network.bridge, "exists": index is not None, "subnet": str(subnet or ""),
        "leases": len(network.leases.all()) if subnet else 0,
    }
