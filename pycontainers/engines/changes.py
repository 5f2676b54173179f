"""``diff``: what a container has changed, read from its overlays' upper folders; nothing is mounted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from ..images.layers import named_by_paths
from ..images.view import Node, Rootfs, View, is_opaque, is_whiteout
from ..protocol import Change
from ..runtime import state


@named_by_paths()
def changes(folder: str) -> list[Change]:
    """Sorted by path, bytewise. A folder is changed when its owner, mode or anything in it is (Docker's rule)."""
    record = state.read(folder, "container.json") or {}
    roots = record["rootfs"]
    below = View(Rootfs(tuple(roots["layers"]), tuple(roots["folders"]), roots["base"]))
    made = set((state.read(folder, "made.json") or {}).get("made", []))
    found: dict[str, str] = {}
    for index, place in enumerate(roots["folders"]):
        inside = "" if place == "/" else place
        upper = f"{roots['upper']}/{index}"
        for path, kind in _Comparison(below, made).folder(upper, inside):
            found[path] = kind
        if inside and _differs(upper, os.lstat(upper), below.lookup(inside)):
            found[inside] = "C"
        if inside and any(path.startswith(inside + "/") for path in found):
            for parent in _parents(inside + "/x"):
                found.setdefault(parent, "C")
    return [Change(kind, path) for path, kind in sorted(found.items(), key=lambda item: os.fsencode(item[0]))]


def _parents(path: str) -> Iterator[str]:
    while (path := os.path.dirname(path)) != "/":
        yield path


class _Comparison:
    def __init__(self, below: View, made: set[str]) -> None:
        self._below, self._made = below, made

    def folder(self, upper: str, inside: str) -> Iterator[tuple[str, str]]:
        """(path, kind) of what is changed in the folder ``inside`` of the root file system, whose changes lie in ``upper``."""
        try:
            names = sorted(os.listdir(upper), key=os.fsencode)
        except (FileNotFoundError, NotADirectoryError):
            return  # the container goes on: it has gone meanwhile
        for name in names:
            yield from self._entry(f"{upper}/{name}", f"{inside}/{name}")
        if is_opaque(upper):
            for name in self._names_below(inside or "/"):
                if name not in names:
                    yield f"{inside}/{name}", "D"

    def _entry(self, path: str, inside: str) -> Iterator[tuple[str, str]]:
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return
        below = self._below.lookup(inside)
        if is_whiteout(found):
            if below is not None:
                yield inside, "D"
            return
        if inside in self._made and _untouched(path, found):
            return  # a mount point that the runtime had to make
        deeper = list(self.folder(path, inside)) if stat.S_ISDIR(found.st_mode) else []
        if below is None:
            if deeper or inside not in self._made:
                yield inside, "A"
        elif deeper or _differs(path, found, below):
            yield inside, "C"
        yield from deeper

    def _names_below(self, inside: str) -> list[str]:
        node = self._below.lookup(inside)  # never followed: a link that has become a folder had nothing in it
        return self._below.listdir(inside) if node is not None and stat.S_ISDIR(node.stat.st_mode) else []


def _untouched(path: str, found: os.stat_result) -> bool:
    if stat.S_ISDIR(found.st_mode):
        return not os.listdir(path)
    return stat.S_ISREG(found.st_mode) and found.st_size == 0


def _differs(path: str, found: os.stat_result, below: Node | None) -> bool:
    """By what can be seen without reading content: a file that was copied up and never written is as it was, as Docker has it."""
    if below is None:
        return True
    old = below.stat
    if (found.st_mode, found.st_uid, found.st_gid, found.st_rdev) != (old.st_mode, old.st_uid, old.st_gid, old.st_rdev):
        return True
    if not stat.S_ISDIR(found.st_mode) and (found.st_size, found.st_mtime_ns) != (old.st_size, old.st_mtime_ns):
        return True
    return _capabilities(path) != _capabilities(below.path)


def _capabilities(path: str) -> bytes | None:
    try:
        return os.getxattr(path, "security.capability", follow_symlinks=False)
    except OSError:
        return None
