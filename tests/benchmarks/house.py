"""Everything that a part of the benchmarks works with: a private state, a notebook kernel, the peers, the report."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import peers
from .dockerd import Dockerd, unmount
from .kernel import Kernel
from .report import Report
from .state import State


class House:
    """:attr:`kernel` has this state's environment; docker and the peers are started when they are first asked for."""

    def __init__(self, runs: int) -> None:
        self.runs, self.report = runs, Report()
        self.state = State()
        self.image = self.state.image
        self._docker: Dockerd | None = None
        self._kernel: Kernel | None = None

    def __enter__(self) -> House:
        return self

    @property
    def kernel(self) -> Kernel:
        if self._kernel is None:
            self.state.engine  # noqa: B018  builds the image, once, from here
            self._kernel = Kernel()
        return self._kernel

    @property
    def docker(self) -> Dockerd:
        if self._docker is None:
            self._docker = Dockerd(self.state.folder, self.state.root)
            if self._docker.refusal:
                self.report.note(f"not here: docker: {self._docker.refusal}")
        return self._docker

    @functools.cached_property
    def peers(self) -> list[peers.Peer]:
        """Those that work here. Ask for it inside :func:`.peers.without_v2`."""
        found = peers.all_peers(self.state.folder, self.state.root, self.docker)
        for peer in found:
            if peer.refusal:
                self.report.note(f"not here: {peer.name}: {peer.refusal}")
        return [peer for peer in found if not peer.refusal]

    def processes(self) -> Iterator[int]:
        """Every process that works for this state: launcher, supervisors, network helper, forwarders; not the kernel."""
        mark = os.fsencode(self.state.folder)
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    line = Path(f"/proc/{name}/cmdline").read_bytes()
                except OSError:
                    continue
                if mark in line and line.split(b"\0")[0].rpartition(b"/")[2].startswith(b"python"):
                    yield int(name)

    def __exit__(self, *exception: Any) -> None:
        if self._kernel is not None:
            self._kernel.__exit__()
        if self._docker is not None:
            self._docker.close()
        unmount(self.state.folder)
        self.state.__exit__()
