"""The network helper: a small resident process that makes links. ``python -m pycontainers.network.helper --help``.

Single-threaded, one request at a time; the files under ``home/networks`` and the kernel are its only memory, so it may be killed at any
moment.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import ipaddress
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

from ..errors import ContainersError, NetworkError, NotFound, StateError, UsageError
from ..linux import holder, server, sockets
from ..version import stamp
from . import wayout

NAME = "network"
IDLE_SECONDS = 120.0
GRACE_SECONDS = 30.0
_ID = re.compile(r"[0-9a-f]{12,64}")


class Helper(server.Server):
    """Answers the requests of :mod:`pycontainers.network.client`."""

    def __init__(self, listener: socket.socket, options: argparse.Namespace) -> None:
        from .batch import Netlink
        from .bridge import SUBNETS, names
        from .rules import Rules

        super().__init__(listener, NAME, stamp("linux", "network") + (f"/{options.of}" if options.of else ""), options.socket, options.idle)
        self.holder = options.holder
        self.networks = Path(options.home) / "networks"
        self.bridge, self.table = names(Path(options.home))
        self.subnets = tuple(ipaddress.IPv4Network(text) for text in options.subnet) or SUBNETS
        self.netlink, self.no_rules = Netlink(), ""
        try:
            self.rules: Rules | None = Rules(self.table, own=bool(options.holder))
        except OSError as error:  # EPROTONOSUPPORT: a kernel without nfnetlink
            self.rules, self.no_rules = None, error.strerror or str(error)
        self.dropping: list[str] = []
        self._network: Any = None
        self._collect()

    def _collect(self) -> None:
        """Once a life: take down the networks of homes that are gone."""
        from . import links
        from .bridge import orphans
        from .rules import Rules

        for bridge, table in orphans():
            with contextlib.suppress(OSError, NetworkError):
                links.delete(self.netlink, bridge)
                rules = Rules(table)
                rules.remove()
                rules.close()

    def handle(self, conn: socket.socket, message: dict[str, Any], fds: list[int]) -> bool:
        operations = {"attach": self.attach, "detach": self.detach, "sweep": self.sweep, "check": self.check, "remove": self.remove}
        operation = operations.get(str(message.get("op")))
        if operation is None:
            raise UsageError(f"the network helper cannot {message.get('op')!r}", f"it can {', '.join(operations)}")
        sockets.send(conn, operation(message, fds))
        return True

    def attach(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Give a container its link: lease, veth pair, address, route."""
        from . import addresses, links
        from .batch import NetlinkError
        from .bridge import forwarding, refused

        container = _container(message)
        if len(fds) != 1:
            raise UsageError(f"attach takes the descriptor of one network namespace, not {len(fds)}")
        if os.path.samestat(os.fstat(fds[0]), os.stat("/proc/self/ns/net")):
            raise UsageError("the host's own network namespace cannot be attached to a bridge")
        network = self.network(message)
        network.ensure()
        notes = forwarding() + self.way_out()
        leases = network.leases
        address = leases.take(container)
        try:
            try:
                links.create(self.netlink, container, network.index, fds[0], address)
            except NetlinkError as error:
                if error.errno != errno.EEXIST:
                    raise
                # What an earlier start of this container left: its namespace is still alive, or has not been taken down yet.
                links.delete(self.netlink, links.host_name(container))
                links.create(self.netlink, container, network.index, fds[0], address)
            links.configure(fds[0], address, leases.subnet, leases.gateway)
        except BaseException as error:
            with contextlib.suppress(OSError):
                links.delete(self.netlink, links.host_name(container))
            leases.free(container)
            if isinstance(error, OSError):
                raise refused(error, f"the link of container {container[:12]}") from None
            raise
        return {
            "interface": links.INTERFACE, "address": str(address), "prefix": leases.subnet.prefixlen,
            "gateway": str(leases.gateway), "mac": addresses.mac(address), "notes": notes,
        }

    def detach(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Free the lease. The link goes with its namespace: deleting it here would keep everybody waiting for 20 ms."""
        network = self.network(message)
        freed = network.leases.free(_container(message)) if network.saved() else []
        return {"freed": [str(address) for address in freed]}

    def sweep(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Free leases and links of containers that are not in ``alive``. A link without a lease belongs to nobody."""
        from . import links

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
        from .bridge import facts

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
        found["ip_forward"] = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
        return found

    def remove(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Take the whole network down: bridge, rules, folder. Refused while a container has an address."""
        network = self.network(message)
        taken = network.leases.all() if network.saved() else {}
        if taken:
            raise StateError(
                f"the network {network.folder.name} is in use by {len(taken)} containers, {next(iter(taken.values()))[:12]} among them",
                "stop them first",
            )
        existed = network.remove()
        if self.rules is not None and self.has_nftables():
            self.rules.remove()
        return {"removed": existed}

    def network(self, message: dict[str, Any]) -> Any:
        """The :class:`~pycontainers.network.bridge.Network` that a request speaks of."""
        from .bridge import DEFAULT, Network

        name = str(message.get("network", DEFAULT))
        if name != DEFAULT:
            raise NotFound(f"no network {name!r}", f"networks: {DEFAULT}, host, none")
        if self._network is None:
            self._network = Network(self.networks / name, self.bridge, self.netlink, self.subnets)
        return self._network

    def way_out(self) -> list[str]:
        """Have the rules in place. Returns notes that say why there is no way out."""
        network = self._network
        try:
            if self.rules is None:
                raise OSError(errno.EPROTONOSUPPORT, self.no_rules)
            if self.rules.ensure([(network.bridge, network.leases.subnet)]):
                self.dropping = self.rules.dropping()
        except OSError as error:
            return [f"no way out of the bridge: nftables: {error.strerror}"]
        return (wayout.explain(self.holder) if self.holder else []) + [
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


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="pycontainers.network.helper", description="The network helper of pycontainers.")
    parser.add_argument("--home", required=True, help="folder of the state; networks/ lies in it")
    parser.add_argument("--socket", required=True, help="where the inherited listening socket can be found")
    parser.add_argument("--holder", default="", help="folder that says who holds an ordinary user's namespaces: they are joined")
    parser.add_argument("--of", default="", help="which holder is meant; part of the version")
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS, help="leave after so many idle seconds (%(default)s)")
    parser.add_argument("--subnet", action="append", default=[], help="candidate for a new network's subnet; may be repeated")
    options = parser.parse_args(argv)
    server.daemonize()
    try:
        listener = server.inherited_listener()
        if options.holder:
            holder.join_network(options.holder)
        Helper(listener, options).run()
    except (ContainersError, NetworkError, OSError) as error:
        server.fail(error)
    sys.exit(0)


if __name__ == "__main__":
    main()
