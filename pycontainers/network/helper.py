"""The network helper: a small resident process that makes links, forked from the launcher when the first one is wanted.

Single-threaded, one request at a time; the files under ``home/networks`` and the kernel are its only memory, so it may be killed at any
moment. It lives beside the launcher, not under it: either may be replaced without the other.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import socket
from collections.abc import Sequence
from typing import Any

from ..errors import NetworkError, NotFound, StateError, UsageError
from ..linux import helper, holder, server, sockets
from . import addresses, leases, links, wayout
from .batch import Netlink, NetlinkError
from .bridge import DEFAULT, SUBNETS, Network, facts, forwarding, names, orphans, refused
from .rules import Rules

NAME = "network"
IDLE_SECONDS = 120.0
GRACE_SECONDS = 30.0
_ID = re.compile(r"[0-9a-f]{12,64}")


class Helper(server.Server):
    """Answers the requests of :mod:`pycontainers.runtime.network`. ``held``: the folder that says who holds an ordinary user's namespaces,
    "" with root; ``subnets``: candidates for a new network's."""

    def __init__(self, listener: socket.socket, version: str, path: str, home: str, held: str, subnets: Sequence[str]) -> None:
        super().__init__(listener, NAME, version, path, IDLE_SECONDS)
        self.held = held
        self.networks = f"{home}/networks"
        self.bridge, self.table = names(home)
        self.subnets = tuple(ipaddress.IPv4Network(text) for text in subnets or SUBNETS)
        self.netlink, self.no_rules = Netlink(), ""
        try:
            self.rules: Rules | None = Rules(self.table, own=bool(held))
        except OSError as error:  # EPROTONOSUPPORT: a kernel without nfnetlink
            self.rules, self.no_rules = None, error.strerror or str(error)
        self.dropping: list[str] = []
        self._network: Network | None = None
        self._collect()

    def _collect(self) -> None:
        """Once a life: take down the networks of homes that are gone."""
        for bridge, table in orphans():
            with contextlib.suppress(OSError, NetworkError):
                links.delete(self.netlink, bridge)
                rules = Rules(table)
                rules.remove()
                rules.close()

    def handle(self, conn: socket.socket, message: dict[str, Any], fds: list[int]) -> bool:
        operations = {"attach": self.attach, "sweep": self.sweep, "check": self.check, "remove": self.remove}
        operation = operations.get(str(message.get("op")))
        if operation is None:
            raise UsageError(f"the network helper cannot {message.get('op')!r}", f"it can {', '.join(operations)}")
        sockets.send(conn, operation(message, fds))
        return True

    def attach(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Give a container its link: lease, veth pair, address, route."""
        container = _container(message)
        if len(fds) != 1:
            raise UsageError(f"attach takes the descriptor of one network namespace, not {len(fds)}")
        if os.path.samestat(os.fstat(fds[0]), os.stat("/proc/self/ns/net")):
            raise UsageError("the host's own network namespace cannot be attached to a bridge")
        network = self.network(message)
        network.ensure()
        notes = forwarding() + self.way_out()
        address = network.leases.take(container)
        try:
            try:
                links.create(self.netlink, container, network.index, fds[0], address)
            except NetlinkError as error:
                if error.errno != errno.EEXIST:
                    raise
                # What an earlier start of this container left: its namespace is still alive, or has not been taken down yet.
                links.delete(self.netlink, links.host_name(container))
                leases.free(network.leases.folder, container, but=str(address))
                links.create(self.netlink, container, network.index, fds[0], address)
            links.configure(fds[0], address, network.leases.subnet, network.leases.gateway)
        except BaseException as error:
            with contextlib.suppress(OSError):
                links.delete(self.netlink, links.host_name(container))
            leases.free(network.leases.folder, container, str(address))
            if isinstance(error, OSError):
                raise refused(error, f"the link of container {container[:12]}") from None
            raise
        return {
            "interface": links.INTERFACE, "address": str(address), "prefix": network.leases.subnet.prefixlen,
            "gateway": str(network.leases.gateway), "mac": addresses.mac(address), "notes": notes,
        }

    def sweep(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Free leases and links of containers that are not in ``alive``. A link without a lease belongs to nobody."""
        alive = {str(name) for name in message.get("alive", [])}
        network = self.network(message)
        if network.saved() is None:
            return {"leases": [], "links": []}
        gone = network.leases.sweep(alive, float(message.get("grace", GRACE_SECONDS)))
        index = links.index_of(self.netlink, network.bridge)
        keep = {links.host_name(owner) for owner in network.leases.all().values()}
        orphans = [name for name in links.ports_of(self.netlink, index) if name not in keep] if index else []
        deleted = [name for name in orphans if links.delete(self.netlink, name)]
        return {"leases": gone, "links": deleted}

    def check(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Facts for doctor. Changes nothing. Empty strings mean that all is well."""
        network = self.network(message)
        found = facts(network)
        subnet = network.saved() or self.subnets[0]
        found["nftables"], found["dropping"] = "", []
        try:
            if self.rules is None:
                raise OSError(errno.EPROTONOSUPPORT, self.no_rules)
            self.rules.probe([(network.bridge, subnet)])
            found["dropping"] = self.rules.dropping()
        except OSError as error:
            found["nftables"] = error.strerror or str(error)
        found["net_admin"] = _has_net_admin()
        found["ip_forward"] = _forwards()
        return found

    def remove(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Take the whole network down: bridge, rules, folder. Refused while a container has an address."""
        network = self.network(message)
        taken = network.leases.all() if network.saved() else {}
        if taken:
            raise StateError(
                f"the network {network.name} is in use by {len(taken)} containers, {next(iter(taken.values()))[:12]} among them",
                "stop them first",
            )
        existed = network.remove()
        if self.rules is not None and self.has_nftables():
            self.rules.remove()
        return {"removed": existed}

    def network(self, message: dict[str, Any]) -> Network:
        """The network that a request speaks of."""
        name = str(message.get("network", DEFAULT))
        if name != DEFAULT:
            raise NotFound(f"no network {name!r}", f"networks: {DEFAULT}, host, none")
        if self._network is None:
            self._network = Network(f"{self.networks}/{name}", self.bridge, self.netlink, self.subnets)
        return self._network

    def way_out(self) -> list[str]:
        """Have the rules in place. Returns notes that say why there is no way out."""
        assert self._network is not None
        network = self._network
        try:
            if self.rules is None:
                raise OSError(errno.EPROTONOSUPPORT, self.no_rules)
            if self.rules.ensure([(network.bridge, network.leases.subnet)]):
                self.dropping = self.rules.dropping()
        except OSError as error:
            return [f"no way out of the bridge: nftables: {error.strerror}"]
        return (wayout.explain(self.held) if self.held else []) + [
            f"the chain {chain!r} drops forwarded packets; the way out needs: nft insert rule ip {chain} iifname {network.bridge} accept"
            for chain in self.dropping
        ]

    def has_nftables(self) -> bool:
        """Whether this kernel has nftables at all."""
        try:
            return self.rules is not None and self.rules.generation() >= 0
        except OSError:
            return False


def _container(message: dict[str, Any]) -> str:
    """The id in a request. It becomes a link's name and a symbolic link's target, so its form is checked."""
    container = message.get("container")
    if not isinstance(container, str) or not _ID.fullmatch(container):
        raise UsageError(f"{container!r} is not the id of a container")
    return container


def _has_net_admin() -> bool:
    """CAP_NET_ADMIN (12) in the effective set."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> 12 & 1)


def _forwards() -> bool:
    with open("/proc/sys/net/ipv4/ip_forward") as file:
        return file.read(1) == "1"


def main(home: str, run: str, version: str, subnets: Sequence[str], listener: int, starter: socket.socket) -> None:
    """In a fork of the launcher: serve ``listener`` until nobody has asked for a while. ``starter``: who is told that it does, and closed.

    :raises ContainersError, OSError: it cannot.
    """
    os.setsid()
    path = f"{run}/{NAME}.sock"
    log = helper.open_log(helper.log_path(path, NAME))
    os.dup2(log, 2)
    os.close(log)
    held = run if holder.alive(run) else ""
    if held:
        holder.join_network(held)
    serving = Helper(socket.socket(fileno=os.dup(listener)), version, path, home, held, subnets)
    os.close(listener)
    sockets.send(starter, {"started": os.getpid()})
    starter.close()
    serving.run()
