"""A private house for measuring: its own home, run folder, bridge, and an image made of the small root that the peers run too."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from . import peers

IMAGE = "bench-root"


class State:
    """``folder`` and what lies in it; :attr:`engine` works on it, and so does every process that is started with this environment."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pyct-bench-", dir="/var/tmp"))
        os.environ.update(PYCONTAINERS_HOME=str(self.folder / "home"), PYCONTAINERS_RUN=str(self.folder / "run"))
        self.image = IMAGE
        self.root = peers.small_root(self.folder / "context")
        self._engine: Any = None

    def __enter__(self) -> State:
        return self

    @property
    def engine(self) -> Any:
        if self._engine is None:
            from pycontainers.engines.native import engine
            from pycontainers.events import finish
            from pycontainers.protocol import BuildRequest

            self._engine = engine()
            finish(self._engine.build(BuildRequest("FROM scratch\nCOPY rootfs/ /\n", str(self.folder / "context"), (IMAGE,))))
        return self._engine

    def __exit__(self, *exception: object) -> None:
        """End everything of ours: containers, helpers, links, folders."""
        if self._engine is not None:
            for info in self._engine.containers(all=True):
                with contextlib.suppress(Exception):
                    self._engine.remove(info.id, force=True)
            end_helpers(self._engine.paths)
        shutil.rmtree(self.folder, ignore_errors=True)


def end_helpers(paths: Any) -> None:
    from pycontainers.runtime import network

    if (paths.networks / "bridge").exists():
        network.sweep(paths, [], grace=0)
        network.remove(paths)
    network.leave(paths)
    leave(paths.launcher_socket)


def greeting_pid(path: Path) -> int:
    """The pid of the helper that listens at ``path``."""
    from pycontainers.linux import sockets

    with sockets.connect(path, 5) as conn:
        return int((sockets.receive(conn)[0] or {})["pid"])


def leave(path: Path) -> None:
    """Ask a helper to leave and wait until its process is gone; nothing when none runs."""
    from pycontainers.linux import sockets

    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(greeting_pid(path))
        with sockets.connect(path, 5) as conn:
            sockets.receive(conn)
            sockets.send(conn, {"op": "leave"})
        import select

        select.select([pidfd], [], [], 10)
        os.close(pidfd)
