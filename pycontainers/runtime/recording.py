"""What a container uses, sampled into its ring file for as long as it lives."""

from __future__ import annotations

import os
import time
from typing import Any

from ..metrics import history
from ..metrics.sample import ProcessSampler, Sampler, sampler
from .loop import Loop

_SAMPLES = 3600  # records in the ring file
_FIRST = 0.02  # seconds after the start: its first output comes first


class Recording:
    """Over all runs of one container. ``path``: its ring file, made with the first sample."""

    def __init__(self, path: str, loop: Loop) -> None:
        self._path, self._loop = path, loop
        self._ring: history.Ring | None = None
        self._sampler: Sampler | ProcessSampler | None = None
        self._pid, self._begun = 0, 0.0
        self._net: int | None = None

    def begin(self, group: Any, pid: int, *, own_network: bool) -> None:
        """A run has begun. ``group``: its cgroup; ``own_network``: it does not share this machine's links, so they are counted."""
        self._pid, self._begun = pid, time.monotonic()
        self._net = self._open_net() if own_network else None
        self._loop.at("sample", time.monotonic() + _FIRST, lambda: self._first(group))

    def end(self, group: Any, *, keep: bool) -> None:
        """The run has ended; a cgroup keeps its counters until it is removed, so the last record is whole. ``keep``: also of a run that
        was over before its first sample."""
        if self._sampler is None and keep:
            self._first(group)
        self._sample()
        self._loop.cancel("sample")

    def rest(self) -> None:
        self._loop.cancel("sample")
        if self._net is not None:
            os.close(self._net)
            self._net = None

    def close(self) -> None:
        self.rest()
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def _first(self, group: Any) -> None:
        if self._sampler is None:
            self._sampler = sampler(group, self._pid)
            try:
                self._ring = history.Ring.create(self._path, _SAMPLES)
            except OSError:
                pass  # a full disk: it runs without a history
        else:
            self._sampler.follow(self._pid)
        self._tick()

    def _tick(self) -> None:
        self._sample()
        self._loop.at("sample", time.monotonic() + history.interval(time.monotonic() - self._begun), self._tick)

    def _open_net(self) -> int | None:
        """The counters of the container's own links, kept open."""
        try:
            return os.open(f"/proc/{self._pid}/net/dev", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None

    def _sample(self) -> None:
        if self._ring is None or self._sampler is None:
            return  # it ended before its first sample; or the disk was full
        try:
            self._ring.append(self._sampler.read(self._net))
        except (OSError, ValueError):
            pass  # the container is ending under our hands; what was recorded stays
