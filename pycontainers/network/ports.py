"""Published ports: bind the host's side before a container starts, find out who holds a busy one. Standard library only.

The relay behind the bound sockets is in :mod:`pycontainers.network.relay`.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import PortInUse, UsageError

if TYPE_CHECKING:
    from ..protocol import Port as _Port

__all__ = ["Bound", "Published", "bind", "close", "holder"]


class Published:
    """:class:`pycontainers.protocol.Port` for processes that stay small: a dataclass brings ``inspect`` and ``ast`` with it."""

    def __init__(self, container_port: int, host_port: int = 0, host_ip: str = "127.0.0.1", protocol: str = "tcp") -> None:
        self.container_port, self.host_port, self.host_ip, self.protocol = container_port, host_port, host_ip, protocol

    def __str__(self) -> str:
        return f"{self.host_ip}:{self.host_port}->{self.container_port}/{self.protocol}"


Bound = tuple["_Port | Published", socket.socket]
"""A published port and the socket that is bound for it."""

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_TCP_LISTEN, _UDP_UNCONNECTED = "0A", "07"


def bind(ports: Iterable[_Port | Published]) -> list[Bound]:
    """Bind every port (TCP ones listen already, so that early clients wait in the backlog); all of them or none.

    :returns: the ports with the host ports that they got (where ``host_port`` was 0), and their sockets, close-on-exec.
    :raises PortInUse: busy, or not allowed. :raises UsageError: an address or protocol that makes no sense.
    """
    bound: list[Bound] = []
    try:
        for port in ports:
            bound.append(_bind(port))
    except BaseException:
        close(bound)
        raise
    return bound


def close(bound: Iterable[Bound]) -> None:
    """Close the sockets of ``bound``."""
    for _, sock in bound:
        sock.close()


def _bind(port: _Port | Published) -> Bound:
    kind = _KINDS.get(port.protocol)
    if kind is None:
        raise UsageError(f"port {port}: protocol {port.protocol!r} cannot be published", "tcp and udp can")
    if not 0 <= port.host_port <= 65535 or not 1 <= port.container_port <= 65535:
        raise UsageError(f"port {port} is out of range", "ports are 1 to 65535; a host port of 0 takes any free one")
    family = socket.AF_INET6 if ":" in port.host_ip else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            # Without it a port stays busy for a minute after its last connection (TIME_WAIT). Never for UDP: there it would let
            # two programs share a port, and one would silently get nothing.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((port.host_ip, port.host_port))
        if kind == socket.SOCK_STREAM:
            sock.listen(512)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _refused(port, error) from None
    return type(port)(port.container_port, sock.getsockname()[1], port.host_ip, port.protocol), sock


def _refused(port: _Port | Published, error: OSError) -> PortInUse | UsageError:
    where = f"{port.host_ip}:{port.host_port}/{port.protocol}"
    if error.errno == errno.EADDRINUSE:
        by = holder(port.host_port, port.protocol)
        return PortInUse(
            f"port {where} is in use{f' by {by}' if by else ''}",
            f"publish another one (-p {port.host_port + 1 if port.host_port < 65535 else 8080}:{port.container_port}), "
            f"or any free one (-p 0:{port.container_port})",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return PortInUse(
            f"port {where} needs a privilege that this user lacks (CAP_NET_BIND_SERVICE)",
            f"use a port from {_first_unprivileged()} on, for example -p {8000 + port.container_port % 1000}:{port.container_port}",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return PortInUse(f"{port.host_ip} is not an address of this machine", "use 127.0.0.1, or 0.0.0.0 for all addresses")
    if isinstance(error, socket.gaierror):
        return UsageError(f"port {where}: {port.host_ip!r} is not an IP address", "use 127.0.0.1, or 0.0.0.0 for all addresses")
    return PortInUse(f"port {where} cannot be bound: {error.strerror}", f"try any free one: -p 0:{port.container_port}")


def _first_unprivileged() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1024


def holder(port: int, protocol: str = "tcp") -> str:
    """Which process has this local port: ``nginx (pid 123)``; "" where it cannot be seen (another user's, another namespace's)."""
    inodes = set()
    for suffix in ("", "6"):
        try:
            with open(f"/proc/net/{protocol}{suffix}") as file:
                rows = [line.split() for line in file][1:]
        except OSError:
            continue
        state = _TCP_LISTEN if protocol == "tcp" else _UDP_UNCONNECTED
        inodes |= {row[9] for row in rows if row[3] == state and int(row[1].rpartition(":")[2], 16) == port}
    inodes.discard("0")
    if not inodes:
        return ""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for fd in os.scandir(f"/proc/{pid}/fd"):
                found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(fd.path))
                if found and found[1] in inodes:
                    with open(f"/proc/{pid}/comm") as file:
                        return f"{file.read().strip()} (pid {pid})"
        except OSError:
            continue  # ended meanwhile, or not ours to see
    return ""
