"""The network helper, as starter, supervisor and engine ask it (:mod:`pycontainers.network.helper`). Each call opens a connection (0.1 ms).

Where none runs, the launcher forks one, on a socket that the client has bound: it shares the launcher's pages (4 to 5 MB of its own,
against 11 MB of an interpreter started for it) and is there in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..linux import helper, holder, sockets
from ..network import leases
from .places import Places
from .stamp import VERSION

if TYPE_CHECKING:
    from ..paths import Paths as _Paths

NAME = "network"
SUBNETS_VARIABLE = "PYCONTAINERS_SUBNETS"
"""Candidates for the subnet of a new network, separated by commas: for sites whose own networks the defaults would shadow."""


def version(run: str) -> str:
    """With what the helper greets. One in the network namespace of a holder that was killed is replaced."""
    held = holder.alive(run)
    return f"{VERSION}/{holder.name(held)}" if held else VERSION


def connect(paths: _Paths | Places, timeout: float = 15.0) -> socket.socket:
    """A connection to the helper, started where needed; useful ahead of need, too."""

    def start(listener: socket.socket, log: str) -> Callable[[], int]:
        from . import client  # only here: most calls find the helper running

        subnets = [subnet.strip() for subnet in os.environ.get(SUBNETS_VARIABLE, "").split(",") if subnet.strip()]
        with client.request(paths, {"op": "network", "subnets": subnets}, [listener.fileno()]) as conn:
            conn.settimeout(timeout)
            client.reply(conn, "the network helper's start")
        return lambda: 0

    return helper.connect(paths.network_socket, NAME, start, version(str(paths.run)), paths.locks, timeout)


def enter_bridge(paths: _Paths | Places) -> None:
    """Move this single-threaded process to where the bridge is: an ordinary user's lies in a network namespace of his own."""
    if holder.read(str(paths.run)):
        holder.join_network(str(paths.run))


def attach(
    paths: _Paths | Places, container: str, namespace: int, network: str = "bridge", hostname: str = ""
) -> dict[str, Any]:
    """Give the network namespace behind the descriptor ``namespace`` an ``eth0`` in ``network``.

    :returns: ``{"interface", "address", "prefix", "gateway", "mac", "notes"}``; ``notes`` are lines for the user.
    :raises NetworkError: no right, no free address, no support in the kernel.
    """
    message = {"op": "attach", "container": container, "network": network, "hostname": hostname}
    return _ask(paths, message, [namespace])


def detach(paths: _Paths | Places, container: str, address: str = "", network: str = "bridge") -> None:
    """Free the address of ``container``; nothing when it has none. Its link goes with its namespace. Nobody is asked.

    :param address: what it is known to have: then nobody else's lease is looked at.
    """
    leases.free(f"{paths.networks}/{network}/leases", container, address)


def sweep(
    paths: _Paths | Places, alive: Iterable[str], grace: float = 30.0, network: str = "bridge"
) -> dict[str, list[str]]:
    """Free leases and links of containers that are not in ``alive`` (full ids).

    :param grace: seconds; younger leases stay, their containers may have started after ``alive`` was read.
    :returns: ``{"leases": ids, "links": interface names}`` of what went.
    """
    if not os.path.exists(os.path.join(paths.networks, network)):
        return {"leases": [], "links": []}
    message = {"op": "sweep", "alive": sorted(alive), "grace": grace, "network": network}
    return _ask(paths, message, ())


def check(paths: _Paths | Places) -> dict[str, Any]:
    """Facts for doctor: ``net_admin``, ``ip_forward``, ``exists`` (bools), ``nftables`` ("" or what is wrong), ``bridge``,
    ``subnet``, ``leases`` (number), ``dropping`` (chains of others that drop forwarded packets).
    """
    return _ask(paths, {"op": "check"}, ())


def remove(paths: _Paths | Places, network: str = "bridge") -> bool:
    """Take the network down entirely. True when there was a bridge.

    :raises StateError: a container has an address in it.
    """
    return bool(_ask(paths, {"op": "remove", "network": network}, ())["removed"])


def leave(paths: _Paths | Places) -> None:
    """Ask a running helper to leave; nothing when none runs."""
    with contextlib.suppress(OSError), sockets.connect(paths.network_socket, 5.0) as sock:
        sockets.receive(sock)
        sockets.send(sock, {"op": "leave"})
        while sockets.receive(sock)[0] is not None:
            pass


def _ask(paths: _Paths | Places, message: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
    reply, received, sock = helper.request(lambda: connect(paths), message, fds)
    sock.close()
    sockets.close_all(received)
    return reply
