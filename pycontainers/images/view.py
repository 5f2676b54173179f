"""A read-only look into stacked layers, without mounting anything.

Honours what overlayfs honours: whiteouts (character device 0:0), opaque folders (``trusted.overlay.opaque`` = y), and the borders of
a root file system's listed folders. Links are resolved here, inside the image: no path of an image is ever followed by the kernel on
the host.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ImageError
from ..linux import idmap

#: Folder inside → where on the host its parts lie, newest first.
Known = dict[str, list[str]]
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
        #: Folders that are an overlay each, and where on the host their parts lie, newest first.
        self._roots: dict[str, list[str]] = {}
        for folder in {"/", *rootfs.folders}:
            places = [layer + folder.rstrip("/") for layer in reversed(rootfs.layers)]
            base = [rootfs.base[folder].rstrip("/") or "/"] if folder in rootfs.base else []
            self._roots[folder] = [*places, *base]

    def lookup(self, path: str, follow: bool = False) -> Node | None:
        """The entry at ``path`` (absolute, inside), None when there is none. Links in the parents are resolved; the last one too
        with ``follow``.
        """
        known: Known = {}
        real = self._resolve(path, known) if follow else self._parent(path, known)
        return self.at(real, known)

    def resolve(self, path: str) -> str:
        """``path`` with every link resolved inside the image; parts that do not exist are kept. :raises ImageError: a loop."""
        return self._resolve(path, {})

    def at(self, real: str, known: Known | None = None) -> Node | None:
        """The entry at a path without links in its parents.

        :param known: what was looked at on the way; the caller gives it again for what lies below, as long as nothing changes there.
        """
        known = {} if known is None else known
        if real in self._roots or os.path.dirname(real) in known:
            return self._one(real, known)
        node = self._one("/", known)
        path = ""
        for part in real.strip("/").split("/"):
            path = f"{path}/{part}"
            if path in known and path != real:
                continue
            node = self._one(path, known)
            if node is None and self._nothing_below(path):
                return None
        return node

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
        known: Known = {}
        real = self._resolve(path, known)
        node = self.at(real, known)
        if node is None or not stat.S_ISDIR(node.stat.st_mode):
            raise FileNotFoundError(2, "no such folder in the image", path)
        hidden: set[str] = set()
        names: set[str] = set()
        for folder in known.get(real, ()):
            for item in os.scandir(folder):
                if item.name not in hidden and item.name not in names:
                    (hidden if is_whiteout(item.stat(follow_symlinks=False)) else names).add(item.name)
        return sorted(names)

    def whole(self, node: Node) -> str | None:
        """Where on the host all of a file or folder lies, with nothing of it in another layer; None where several have a part."""
        if not stat.S_ISDIR(node.stat.st_mode):
            return node.path
        if any(folder.startswith(node.real.rstrip("/") + "/") for folder in self.rootfs.folders if folder != "/"):
            return None
        known: Known = {}
        self.at(node.real, known)
        return node.path if len(known.get(node.real, ())) == 1 else None

    def _resolve(self, path: str, known: Known) -> str:
        done = "/"
        rest = deque(part for part in path.split("/") if part not in ("", "."))
        links = 0
        while rest:
            part = rest.popleft()
            if part == "..":
                done = os.path.dirname(done)
                continue
            candidate = f"{done.rstrip('/')}/{part}"
            node = self.at(candidate, known)
            if node is None and ".." not in rest and self._nothing_below(candidate):
                return "/".join([candidate, *rest])
            if node is not None and stat.S_ISLNK(node.stat.st_mode):
                links += 1
                if links > _LINKS:
                    raise ImageError(f"{path}: more than {_LINKS} links in the image", "a link points to itself")
                target = os.readlink(node.path)
                rest.extendleft(reversed([p for p in target.split("/") if p not in ("", ".")]))
                if target.startswith("/"):
                    done = "/"
                continue
            done = candidate
        return done

    def _parent(self, path: str, known: Known) -> str:
        clean = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
        folder, name = os.path.split(clean)
        if clean == "/" or name == "..":
            return self._resolve(clean, known)
        return f"{self._resolve(folder, known).rstrip('/')}/{name}"

    def _nothing_below(self, missing: str) -> bool:
        """Is nothing below what is not there? Another overlay may be."""
        return not any(folder.startswith(f"{missing}/") for folder in self._roots)

    def _one(self, real: str, known: Known) -> Node | None:
        """One step of the way down, in all layers at once, newest first: a whiteout, a non-folder or an opaque folder hides older ones."""
        if real in self._roots:
            places = self._roots[real]
        else:
            above, name = os.path.split(real)
            places = [f"{folder}/{name}" for folder in known[above]]
        node, folders = None, []
        for place in places:
            try:
                found = os.lstat(place)
            except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in its name
                continue
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                continue
            if is_whiteout(found):
                break
            folder = stat.S_ISDIR(found.st_mode)
            if node is None:
                node = Node(place, real, found)
            if not folder:
                break
            folders.append(place)
            if place is not places[-1] and is_opaque(place):
                break
        known[real] = folders
        return node
