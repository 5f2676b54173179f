"""What supervisor and engine call. Cheap: standard library only; the work is done in the network helper.

Each call opens a connection (0.1 ms) and starts the helper where none runs (0.4 s, once).
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..linux import helper, holder, sockets
from ..version import stamp

if TYPE_CHECKING:
    from ..paths import Paths as _Paths

NAME = "network"
SUBNETS_VARIABLE = "PYCONTAINERS_SUBNETS"
"""Candidates for the subnet of a new network, separated by commas: for sites whose own networks the defaults would shadow."""


_START = "import sys; sys.path.insert(0, sys.argv[2]); from pycontainers.network.helper import main; main(sys.argv[3:])"


class Places:
    """What the calls here need of :class:`pycontainers.paths.Paths`, as text: a supervisor stays smaller without pathlib."""

    __slots__ = ("home", "locks", "network_socket", "networks", "run")

    def __init__(self, home: str, run: str) -> None:
        self.home, self.run = home, run
        self.networks, self.network_socket, self.locks = f"{home}/networks", f"{run}/network.sock", f"{run}/locks"


def command(paths: _Paths | Places, python: str = "") -> list[str]:
    """How the helper is started. ``python``: an interpreter that finds pyroute2 (default: this one).

    It gets the folder of *this* pycontainers: with ``-m`` it might find another one, and the two would replace each other forever.
    """
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    argv = [python or sys.executable, "-I", "-c", _START, "pycontainers-network", package]
    argv += ["--home", str(paths.home), "--socket", str(paths.network_socket)]
    if held := holder.alive(str(paths.run)):
        argv += ["--holder", str(paths.run), "--of", holder.name(held)]
    for subnet in filter(None, os.environ.get(SUBNETS_VARIABLE, "").split(",")):
        argv += ["--subnet", subnet.strip()]
    return argv


def connect(paths: _Paths | Places, python: str = "", timeout: float = 15.0) -> socket.socket:
    """A connection to the helper, started where needed; useful ahead of need, too."""
    version = stamp("linux", "network")
    if held := holder.alive(str(paths.run)):
        version += "/" + holder.name(held)  # one in the network namespace of a holder that was killed is replaced
    return helper.connect(paths.network_socket, NAME, command(paths, python), version, paths.locks, timeout)


def enter_bridge(paths: _Paths | Places) -> None:
    """Move this single-threaded process to where the bridge is: an ordinary user's lies in a network namespace of his own."""
    if holder.read(str(paths.run)):
        holder.join_network(str(paths.run))


def attach(
    paths: _Paths | Places, container: str, namespace: int, network: str = "bridge", hostname: str = "", python: str = ""
) -> dict[str, Any]:
    """Give the network namespace behind the descriptor ``namespace`` an ``eth0`` in ``network``.

    :returns: ``{"interface", "address", "prefix", "gateway", "mac", "notes"}``; ``notes`` are lines for the user.
    :raises NetworkError: no right, no free address, no support in the kernel.
    """
    message = {"op": "attach", "container": container, "network": network, "hostname": hostname}
    return _ask(paths, message, [namespace], python)


def detach(paths: _Paths | Places, container: str, network: str = "bridge", python: str = "") -> None:
    """Free the address of ``container``; nothing when it has none. Its link goes with its namespace.

    Without a folder of the network nothing can be leased, and no helper is started to find that out.
    """
    if os.path.exists(os.path.join(paths.networks, network)):
        _ask(paths, {"op": "detach", "container": container, "network": network}, (), python)


def sweep(
    paths: _Paths | Places, alive: Iterable[str], grace: float = 30.0, network: str = "bridge", python: str = ""
) -> dict[str, list[str]]:
    """Free leases and links of containers that are not in ``alive`` (full ids).

    :param grace: seconds; younger leases stay, their containers may have started after ``alive`` was read.
    :returns: ``{"leases": ids, "links": interface names}`` of what went.
    """
    if not os.path.exists(os.path.join(paths.networks, network)):
        return {"leases": [], "links": []}
    message = {"op": "sweep", "alive": sorted(alive), "grace": grace, "network": network}
    return _ask(paths, message, (), python)


def check(paths: _Paths | Places, python: str = "") -> dict[str, Any]:
    """Facts for doctor: ``net_admin``, ``ip_forward``, ``exists`` (bools), ``nftables`` ("" or what is wrong), ``bridge``,
    ``subnet``, ``leases`` (number), ``dropping`` (chains of others that drop forwarded packets).
    """
    return _ask(paths, {"op": "check"}, (), python)


def remove(paths: _Paths | Places, network: str = "bridge", python: str = "") -> bool:
    """Take the network down entirely. True when there was a bridge.

    :raises StateError: a container has an address in it.
    """
    return bool(_ask(paths, {"op": "remove", "network": network}, (), python)["removed"])


def leave(paths: _Paths | Places) -> None:
    """Ask a running helper to leave; nothing when none runs."""
    with contextlib.suppress(OSError), sockets.connect(paths.network_socket, 5.0) as sock:
        sockets.receive(sock)
        sockets.send(sock, {"op": "leave"})
        while sockets.receive(sock)[0] is not None:
            pass


def _ask(paths: _Paths | Places, message: dict[str, Any], fds: Sequence[int], python: str) -> dict[str, Any]:
    reply, received, sock = helper.request(lambda: connect(paths, python), message, fds)
    sock.close()
    sockets.close_all(received)
    return reply
