"""What each layer of an image adds, changes and removes, and what it carries that nobody sees. Reads snapshots; follows no link.

The layers are read from the lowest up and laid over each other, as overlayfs would: a whiteout removes, an opaque folder hides all that
lay below it, a file or link replaces whatever had its name. Folders are opened by descriptor from the layer's root, so that nothing
outside of a snapshot is ever looked at, whatever its links say.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import datetime

from ..contents import Contents, FileChange, LayerContents, Waste
from ..linux import mounts, owners
from .store import Image
from .view import Rootfs, View, is_opaque, is_whiteout

_BENEATH = mounts.RESOLVE_BENEATH | mounts.RESOLVE_NO_SYMLINKS | mounts.RESOLVE_NO_MAGICLINKS
_PATH_LIMIT = 2000  # bytes of a path that is opened at once: PATH_MAX is 4096, names may be 255
_TYPES = {
    stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device", stat.S_IFBLK: "device",
}  # fmt: skip


class _Data:
    """What a regular file of a layer carries, under so many names that are still seen."""

    __slots__ = ("names", "size")

    def __init__(self, size: int) -> None:
        self.size, self.names = size, 0


class _Entry:
    """A path of the layers so far."""

    __slots__ = ("children", "data", "group", "mode", "owner")

    def __init__(self, mode: int, owner: int, group: int, data: _Data | None = None) -> None:
        self.mode, self.owner, self.group, self.data = mode, owner, group, data
        self.children: dict[str, _Entry] | None = {} if stat.S_ISDIR(mode) else None


def contents(image: Image) -> Contents:
    """Read all layers of an image. A few microseconds a file."""
    host = View(Rootfs(image.rootfs.layers[: len(image.rootfs.layers) - len(image.layers)], image.rootfs.folders, image.rootfs.base))
    reader = _Reader(host if image.host else None)
    steps = [step for step in image.config.get("history") or [] if not step.get("empty_layer")]
    found = []
    for number, layer in enumerate(image.layers, 1):
        step = steps[number - 1] if number <= len(steps) else {}
        changes = reader.read(layer.path)
        size = sum(change.size for change in changes)
        found.append(
            LayerContents(number, layer.diff_id, size, str(step.get("created_by", "")), _seconds(step.get("created")), tuple(changes))
        )
    wasted = sorted((Waste(path, size, times) for path, (size, times) in reader.wasted.items()), key=lambda one: (-one.size, one.path))
    return Contents(image.id, image.names, tuple(found), bool(image.host), tuple(wasted))


class _Reader:
    """Lays one layer after the other over what is there. ``host``: a system below them that is no layer, and costs nothing."""

    def __init__(self, host: View | None) -> None:
        self._host = host
        self._top = _Entry(stat.S_IFDIR | 0o755, 0, 0)
        self.wasted: dict[str, tuple[int, int]] = {}

    def read(self, folder: str) -> list[FileChange]:
        """The changes of the layer in ``folder``, sorted by path."""
        self._changes: list[FileChange] = []
        self._inodes: dict[int, _Data] = {}
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # A list, not recursion: folders may be nested deeper than Python's stack.
            waiting: list[tuple[list[str], _Entry, bool]] = [([], self._top, False)]
            while waiting:
                parts, entry, hides = waiting.pop()
                waiting += self._folder(root, parts, entry, hides)
        finally:
            os.close(root)
        return sorted(self._changes)

    def _folder(self, root: int, parts: list[str], entry: _Entry, hides: bool) -> Iterator[tuple[list[str], _Entry, bool]]:
        """One folder of the layer over ``entry``; ``hides``: what lay there before is seen no more. Yields its folders."""
        assert entry.children is not None
        before = dict(entry.children)
        fd = _open(root, parts)
        try:
            hides = hides or is_opaque(fd)
            for name in sorted(os.listdir(fd)):
                info = os.lstat(name, dir_fd=fd)
                path = "/" + "/".join([*parts, name])
                lower = before.pop(name, None)
                if is_whiteout(info):
                    self._removed(path, lower, entry.children, name)
                elif stat.S_ISDIR(info.st_mode):
                    here = self._directory(path, name, info, fd, lower, entry.children)
                    yield [*parts, name], here, hides
                else:
                    self._file(path, name, info, fd, lower, entry.children)
            if hides:
                for name, lower in before.items():
                    self._removed("/" + "/".join([*parts, name]), lower, entry.children, name)
        finally:
            os.close(fd)

    def _removed(self, path: str, lower: _Entry | None, siblings: dict[str, _Entry], name: str) -> None:
        siblings.pop(name, None)
        if lower is not None or self._on_host(path):
            self._changes.append(FileChange(path, "D", 0, "", self._hide(path, lower)))

    def _directory(
        self, path: str, name: str, info: os.stat_result, parent: int, lower: _Entry | None, siblings: dict[str, _Entry]
    ) -> _Entry:
        owner, group = _owner(parent, name, info)
        if lower is not None and lower.children is not None:
            if (lower.mode, lower.owner, lower.group) != (info.st_mode, owner, group):
                self._changes.append(self._change(path, "C", 0, info, owner, group))
                lower.mode, lower.owner, lower.group = info.st_mode, owner, group
            return lower
        kind = "C" if lower is not None else "A"
        if lower is not None or not self._on_host(path, folder=True):
            self._changes.append(self._change(path, kind, 0, info, owner, group, self._hide(path, lower)))
        siblings[name] = found = _Entry(info.st_mode, owner, group)
        return found

    def _file(self, path: str, name: str, info: os.stat_result, parent: int, lower: _Entry | None, siblings: dict[str, _Entry]) -> None:
        owner, group = _owner(parent, name, info)
        size, data = 0, None
        if stat.S_ISREG(info.st_mode):
            data = self._inodes.get(info.st_ino)
            if data is None:  # a hard link's data is in the layer once, under its first name
                data, size = _Data(info.st_size), info.st_size
                if info.st_nlink > 1:
                    self._inodes[info.st_ino] = data
            data.names += 1
        target = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(info.st_mode) else ""
        kind = "C" if lower is not None or self._on_host(path) else "A"
        self._changes.append(self._change(path, kind, size, info, owner, group, self._hide(path, lower), target))
        siblings[name] = _Entry(info.st_mode, owner, group, data)

    @staticmethod
    def _change(
        path: str, kind: str, size: int, info: os.stat_result, owner: int, group: int, hidden: int = 0, target: str = ""
    ) -> FileChange:
        kept = stat.S_IMODE(info.st_mode)
        return FileChange(path, kind, size, _TYPES.get(stat.S_IFMT(info.st_mode), ""), hidden, kept, owner, group, target)

    def _hide(self, path: str, lower: _Entry | None) -> int:
        """Note what older layers carry for ``path`` and below it in vain from now on. How many bytes that is."""
        total = 0
        waiting = [(path, lower)] if lower is not None else []
        while waiting:
            place, entry = waiting.pop()
            if entry.data is not None:
                entry.data.names -= 1
                if entry.data.names == 0 and entry.data.size:  # with its last name, nobody sees it any more
                    size, times = self.wasted.get(place, (0, 0))
                    self.wasted[place] = (size + entry.data.size, times + 1)
                    total += entry.data.size
            waiting += [(f"{place}/{name}", below) for name, below in (entry.children or {}).items()]
        return total

    def _on_host(self, path: str, folder: bool = False) -> bool:
        if self._host is None:
            return False
        node = self._host.lookup(path)
        return node is not None and (not folder or stat.S_ISDIR(node.stat.st_mode))


def _open(root: int, parts: list[str]) -> int:
    """The folder ``parts`` below ``root``, in steps that the kernel takes (PATH_MAX)."""
    here = os.dup(root)
    while parts:
        count, size = 1, len(os.fsencode(parts[0]))
        while count < len(parts) and size + len(os.fsencode(parts[count])) < _PATH_LIMIT:
            size += len(os.fsencode(parts[count])) + 1
            count += 1
        try:
            below = mounts.openat2(here, "/".join(parts[:count]), os.O_RDONLY | os.O_DIRECTORY, _BENEATH)
        finally:
            os.close(here)
        here, parts = below, parts[count:]
    return here


def _owner(parent: int, name: str, info: os.stat_result) -> tuple[int, int]:
    """Whose it is; where a single id cannot give files away, whose it would be."""
    if stat.S_ISLNK(info.st_mode):
        return info.st_uid, info.st_gid
    return owners.recorded(f"/proc/self/fd/{parent}/{name}") or (info.st_uid, info.st_gid)


def _seconds(text: object) -> float:
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
