"""What a dashboard asks once a second: files are looked at by their times, and read only when those have changed.

A container's folder changes its time with every file that is renamed into it, and that is how all but the log and the samples are
written (:mod:`..runtime.state`). So one stat(2) says that nothing has happened to it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import NotFound
from ..metrics.sample import Sample
from ..paths import Paths
from ..protocol import ContainerInfo, ImageInfo, LogLine, LogPart
from ..runtime import logs
from . import information
from .folders import Folders

_SWEEP = 5.0
"""Seconds between two looks for what a killed supervisor left; each also reads everything anew."""
_SETTLED = 50_000_000
"""Nanoseconds. A file's time moves in steps of the kernel's clock (4 ms, or 10): younger than this, it may change without a new time."""
_NEWEST = 120

Stamp = tuple[int, ...]


class Watch:
    """See :class:`pycontainers.protocol.Watch`."""

    def __init__(
        self,
        paths: Paths,
        folders: Folders,
        everything: Callable[[bool], list[ContainerInfo]],
        images: Callable[[], list[ImageInfo]],
    ) -> None:
        self._paths, self._folders, self._everything, self._read_images = paths, folders, everything, images
        self._known: dict[str, tuple[Stamp, ContainerInfo]] = {}
        self._swept = 0.0
        self._stirred: Stamp = ()
        self._images: tuple[Stamp, list[ImageInfo]] = ((), [])
        self._numbers: dict[str, int] = {}

    def stirred(self) -> bool:
        # Everything that happens to a container is journalled; names of images are files of their own.
        now = (*_stamp(f"{self._paths.home}/events.log", size=True), *_stamp(str(self._paths.containers)), *self._image_stamp())
        before, self._stirred = self._stirred, now
        return now != before

    def containers(self) -> list[ContainerInfo]:
        if time.monotonic() - self._swept > _SWEEP:
            self._swept = time.monotonic()
            # Read before their times are known: each is looked at once more the next time.
            self._known = {info.id: ((), self._same(info)) for info in self._everything(True)}
        else:
            self._known = dict(filter(None, map(self._look, self._folders.ids())))
        self._numbers = {name: number for name, number in self._numbers.items() if name in self._known}
        return sorted((info for _, info in self._known.values()), key=lambda info: -info.created)

    def _look(self, container_id: str) -> tuple[str, tuple[Stamp, ContainerInfo]] | None:
        folder = self._folders.path(container_id)
        stamp = _stamp(folder)
        before = self._known.get(container_id)
        if before is not None and stamp and before[0] == stamp:
            return container_id, before
        with contextlib.suppress(NotFound):
            info = information.info(folder)
            return container_id, (stamp if _settled(stamp) else (), self._same(info))
        return None

    def _same(self, info: ContainerInfo) -> ContainerInfo:
        before = self._known.get(info.id)
        return before[1] if before is not None and before[1] == info else info

    def images(self) -> list[ImageInfo]:
        stamp = self._image_stamp()
        if not stamp or stamp != self._images[0]:
            self._images = (stamp if _settled(stamp) else (), self._read_images())
        return self._images[1]

    def _image_stamp(self) -> Stamp:
        return _stamp(f"{self._paths.images}/refs") + _stamp(f"{self._paths.images}/manifests")

    def samples(self, container: str) -> Sequence[Sample]:
        from ..metrics import history

        after = self._numbers.get(container, 0)
        found: list[Any] = history.newest(f"{self._folders.path(container)}/samples.ring", after, 16 if after else _NEWEST)
        if found:
            self._numbers[container] = found[-1][0]
        return [sample for _, sample in found]

    def log(self, container: str, after: int | None = None, before: int | None = None) -> LogPart:
        folder = self._folders.path(container)
        if not os.path.isdir(folder):
            raise NotFound(f"no container {container[:12]}", "it was removed")
        lines, start, end = logs.part(f"{folder}/log", after, before)
        read = (LogLine(when, stream, text.decode("utf-8", "replace"), partial) for when, stream, partial, text in lines)
        return LogPart(tuple(read), start, end)


def _stamp(path: str, size: bool = False) -> Stamp:
    """When it was last changed, in nanoseconds; () where it is not."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size) if size else (found.st_mtime_ns,)


def _settled(stamp: Stamp) -> bool:
    return bool(stamp) and time.time_ns() - max(stamp) > _SETTLED
