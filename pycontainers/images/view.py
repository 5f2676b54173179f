"""A read-only look into stacked layers, without mounting anything.

Honours what overlayfs honours: whiteouts (character device 0:0), opaque folders (``trusted.overlay.opaque`` = y), and the borders of
a root file system's listed folders. Links are resolved here, inside the image: no path of an image is ever followed by the kernel on
the host.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ImageError
from ..linux import idmap

_LINKS = 40  # as the kernel (ELOOP)


@dataclass(frozen=True)
class Rootfs:
    """What a container's root file system is made of.

    layers: diff folders of snapshots, lowest first. folders: one overlay each, "/" first (an ordinary image has only "/").
    base: folder -> host folder below all layers.
    """

    layers: tuple[str, ...]
    folders: tuple[str, ...]
    base: dict[str, str]


@dataclass(frozen=True)
class Node:
    """The entry that wins: ``path`` on the host, ``real`` inside the image, ``stat`` of the entry itself (never followed)."""

    path: str
    real: str
    stat: os.stat_result


def is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def opaque_attribute() -> str:
    """Where overlayfs keeps the mark: ``trusted.*`` is for the first user namespace's root alone (``userxattr``)."""
    return "trusted.overlay.opaque" if os.geteuid() == 0 and idmap.initial() else "user.overlay.opaque"


def is_opaque(path: str | int) -> bool:
    """Of a folder, by path or descriptor."""
    try:
        return os.getxattr(path, opaque_attribute(), follow_symlinks=isinstance(path, int)) == b"y"
    except OSError:
        return False


def visible(layers: Sequence[str]) -> tuple[str, ...]:
    """Of layers, lowest first, those that can be seen: what lies below one whose root is opaque cannot. overlayfs heeds that mark on any
    folder but the roots of its layers, so whoever mounts leaves the others out.
    """
    for index in range(len(layers) - 1, 0, -1):
        if is_opaque(layers[index]):
            return tuple(layers[index:])
    return tuple(layers)


class View:
    """Look-ups in a :class:`Rootfs`. Cheap to make; keeps nothing."""

    def __init__(self, rootfs: Rootfs) -> None:
        self.rootfs = rootfs

    def lookup(self, path: str, follow: bool = False) -> Node | None:
        """The entry at ``path`` (absolute, inside), None when there is none. Links in the parents are resolved; the last one too
        with ``follow``.
        """
        real = self.resolve(path) if follow else self._parent(path)
        return self._at(real)

    def resolve(self, path: str) -> str:
        """``path`` with every link resolved inside the image; parts that do not exist are kept. :raises ImageError: a loop."""
        done = "/"
        rest = [part for part in path.split("/") if part not in ("", ".")]
        links = 0
        while rest:
            part = rest.pop(0)
            if part == "..":
                done = os.path.dirname(done)
                continue
            candidate = f"{done.rstrip('/')}/{part}"
            node = self._at(candidate)
            if node is not None and stat.S_ISLNK(node.stat.st_mode):
                links += 1
                if links > _LINKS:
                    raise ImageError(f"{path}: more than {_LINKS} links in the image", "a link points to itself")
                target = os.readlink(node.path)
                rest = [p for p in target.split("/") if p not in ("", ".")] + rest
                if target.startswith("/"):
                    done = "/"
                continue
            done = candidate
        return done

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        """Content of a regular file, at most ``limit`` bytes. :raises FileNotFoundError: none there, or not a regular file."""
        node = self.lookup(path, follow=True)
        if node is None or not stat.S_ISREG(node.stat.st_mode):
            raise FileNotFoundError(2, "no such file in the image", path)
        fd = os.open(node.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return os.read(fd, limit)
        finally:
            os.close(fd)

    def listdir(self, path: str) -> list[str]:
        """Names in a folder, sorted. :raises FileNotFoundError: no folder there."""
        real = self.resolve(path)
        node = self._at(real)
        if node is None or not stat.S_ISDIR(node.stat.st_mode):
            raise FileNotFoundError(2, "no such folder in the image", path)
        hidden: set[str] = set()
        names: set[str] = set()
        for place in self._stack(real):
            entry, ended = place.find(real)
            if entry is not None and not stat.S_ISDIR(entry.stat.st_mode):
                break
            for item in os.scandir(place.path) if entry is not None else ():
                if item.name not in hidden and item.name not in names:
                    (hidden if is_whiteout(item.stat(follow_symlinks=False)) else names).add(item.name)
            if ended:
                break
        return sorted(names)

    def whole(self, node: Node) -> str | None:
        """Where on the host all of a file or folder lies, with nothing of it in another layer; None where several have a part."""
        if not stat.S_ISDIR(node.stat.st_mode):
            return node.path
        if any(folder.startswith(node.real.rstrip("/") + "/") for folder in self.rootfs.folders if folder != "/"):
            return None
        found = 0
        for place in self._stack(node.real):
            entry, ended = place.find(node.real)
            found += entry is not None
            if ended:
                break
        return node.path if found == 1 else None

    def _parent(self, path: str) -> str:
        clean = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
        folder, name = os.path.split(clean)
        return clean if clean == "/" or name == ".." else f"{self.resolve(folder).rstrip('/')}/{name}"

    def _stack(self, real: str) -> list[_Place]:
        """Where an entry can lie on the host, newest layer first; below each, the roots down to it can hide it."""
        folder = "/"
        for candidate in self.rootfs.folders:
            if candidate != "/" and (real == candidate or real.startswith(candidate + "/")) and len(candidate) > len(folder):
                folder = candidate
        inside = real if folder == "/" else real[len(folder) :]
        prefix = "" if folder == "/" else folder
        roots = [layer + prefix for layer in reversed(self.rootfs.layers)]
        if folder in self.rootfs.base:
            roots.append(self.rootfs.base[folder].rstrip("/") or "/")
        return [_Place(root, inside.strip("/")) for root in roots]

    def _at(self, real: str) -> Node | None:
        """Walk the layers from the newest; within one, a whiteout, a non-folder or an opaque folder on the way ends the search."""
        for place in self._stack(real):
            node, ended = place.find(real)
            if node is not None or ended:
                return node
        return None


@dataclass(frozen=True)
class _Place:
    root: str
    inside: str

    @property
    def path(self) -> str:
        return f"{self.root}/{self.inside}" if self.inside else self.root

    def find(self, real: str) -> tuple[Node | None, bool]:
        """(entry, whether what lies in older layers is hidden)."""
        current = self.root
        parts = self.inside.split("/") if self.inside else []
        ended = False
        for index in range(len(parts) + 1):
            try:
                found = os.lstat(current)
            except (FileNotFoundError, NotADirectoryError):
                return None, ended
            if is_whiteout(found):
                return None, True
            if index == len(parts):
                return Node(current, real, found), ended or not stat.S_ISDIR(found.st_mode) or is_opaque(current)
            if not stat.S_ISDIR(found.st_mode):
                return None, True
            ended = ended or is_opaque(current)
            current = f"{current}/{parts[index]}"
        return None, ended
