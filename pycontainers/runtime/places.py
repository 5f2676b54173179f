"""Where the helpers of a home are, for those who have two paths as text and no more."""

from __future__ import annotations


class Places:
    """What the calls here need of :class:`pycontainers.paths.Paths`, as text: a supervisor stays smaller without pathlib."""

    __slots__ = ("home", "launcher_socket", "locks", "network_socket", "networks", "run")

    def __init__(self, home: str, run: str) -> None:
        self.home, self.run = home, run
        self.networks, self.locks = f"{home}/networks", f"{run}/locks"
        self.launcher_socket, self.network_socket = f"{run}/launcher.sock", f"{run}/network.sock"
