"""What COPY reads from: trees of files, whose links are resolved inside of them and never by the kernel on the host.

A :class:`Source` says what is where; :func:`walk` lists a part of it without what a pattern excludes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..errors import ContainersError
from ..images.view import Node, View
from ..linux import idmap, owners
from .digests import DigestCache, in_memory
from .ignore import DROP, KEEP, Filter, Matched

OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class CopyError(ContainersError):
    """A copy that cannot be done. The caller knows the line."""


@dataclass(frozen=True)
class Entry:
    """One file below a source: ``relative`` to it ("" is the source itself), ``node`` where it lies."""

    relative: str
    node: Node


class Source(Protocol):
    """A tree that COPY reads. Paths are absolute inside it."""

    keeps_owners: bool
    known: DigestCache

    def find(self, path: str) -> Node | None:
        """What is at ``path``, links resolved inside; None where there is nothing, or nothing to be seen."""
        ...

    def children(self, node: Node) -> list[Node]:
        """All that lies in a folder, sorted by name, whether excluded or not."""
        ...

    def filters(self, node: Node) -> list[Filter]:
        """What hides a part of what is below ``node``."""
        ...

    def entries(self, node: Node) -> Iterator[Entry]:
        """``node`` and everything to be seen below it, folders before what is in them, in a fixed order."""
        ...

    def open(self, node: Node) -> int:
        """A regular file's content, or a folder, as a descriptor. :raises OSError: it is not what it was, or cannot be read."""
        ...

    def link(self, node: Node) -> str:
        """Where a symbolic link leads. :raises OSError: it is none any more."""
        ...

    def owner(self, node: Node) -> tuple[int, int]:
        """To whom a copy belongs unless somebody else is named."""
        ...


@dataclass(frozen=True)
class CopyItem:
    """One source of a COPY, found.

    :param name: its last part as it is called in the source (a link's own name). :param unpack: add it as an archive's content.
    :param keep: with ``--parents`` the path that is kept below the destination, its own name included. :param above: the source's folders
        on that path.
    """

    name: str
    node: Node
    source: Source
    unpack: bool = False
    keep: str = ""
    above: tuple[Node, ...] = ()


class ImageSource:
    """``COPY --from``: owners are kept, as Docker does."""

    keeps_owners = True
    known = in_memory

    def __init__(self, view: View) -> None:
        self.view = view

    def find(self, path: str) -> Node | None:
        return self.view.lookup(path, follow=True)

    def children(self, node: Node) -> list[Node]:
        real = node.real.rstrip("/")
        found = (self.view.lookup(f"{real}/{name}") for name in self.view.listdir(node.real))
        return [child for child in found if child is not None]

    def filters(self, node: Node) -> list[Filter]:
        return []

    def entries(self, node: Node) -> Iterator[Entry]:
        return walk(self, node, [])

    def open(self, node: Node) -> int:
        return os.open(node.path, OPEN)

    def link(self, node: Node) -> str:
        return os.readlink(node.path)

    def owner(self, node: Node) -> tuple[int, int]:
        recorded = owners.recorded(node.path) if idmap.single() and not stat.S_ISLNK(node.stat.st_mode) else None
        return recorded or (node.stat.st_uid, node.stat.st_gid)


class Excluding:
    """``source`` without what ``--exclude`` matches."""

    def __init__(self, source: Source, filter: Filter) -> None:
        self._source, self._filter = source, filter
        self.keeps_owners, self.known = source.keeps_owners, source.known
        self.find, self.children, self.open = source.find, source.children, source.open
        self.link, self.owner = source.link, source.owner

    def filters(self, node: Node) -> list[Filter]:
        return [*self._source.filters(node), self._filter]

    def entries(self, node: Node) -> Iterator[Entry]:
        return walk(self, node, self.filters(node))


def walk(source: Source, node: Node, filters: Sequence[Filter]) -> Iterator[Entry]:
    """``node`` and what is below it. An excluded folder is there all the same if something in it is included again, and only then."""
    top = Entry("", node)
    yield top
    if not stat.S_ISDIR(node.stat.st_mode):
        return
    # A folder, what matched it, and the excluded folders on the way to it: each with whether it was given out meanwhile.
    pending: list[tuple[Entry, list[Matched], list[_Waiting]]] = [(top, [filter.start() for filter in filters], [])]
    while pending:
        above, matched, waiting = pending.pop()
        folders = []
        for child in source.children(above.node):
            name = child.real.rpartition("/")[2]
            entry = Entry(f"{above.relative}/{name}" if above.relative else name, child)
            folder = stat.S_ISDIR(child.stat.st_mode)
            verdict, after = KEEP, matched
            if filters:
                after = []
                for filter, before in zip(filters, matched, strict=True):
                    state, found = filter.step(before, entry.relative, folder)
                    after.append(state)
                    verdict = max(verdict, found)
            if verdict == DROP:
                continue
            if verdict != KEEP:
                folders.append((entry, after, [*waiting, _Waiting(entry)]))
                continue
            for late in waiting:
                if not late.given:
                    late.given = True
                    yield late.entry
            waiting = []
            yield entry
            if folder:
                folders.append((entry, after, []))
        pending.extend(reversed(folders))


@dataclass
class _Waiting:
    entry: Entry
    given: bool = False


def anything(source: Source, node: Node) -> bool:
    """Is there anything to be seen below a folder?"""
    entries = source.entries(node)
    next(entries)
    return next(entries, None) is not None


def attributes(path: str | int) -> list[tuple[str, bytes]]:
    """The extended attributes that an image keeps: ``user.*`` and file capabilities, never overlayfs's own marks nor a recorded owner.

    ``user.overlay.*`` and ``trusted.overlay.*`` in a layer would hide or redirect files below it. ``path`` may be a descriptor.
    """
    follow = isinstance(path, int)
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError:  # a file system without them
        return []
    kept = [name for name in names if is_kept(name)]
    return [(name, os.getxattr(path, name, follow_symlinks=follow)) for name in sorted(kept)] if kept else []


def is_kept(name: str) -> bool:
    """Does an image keep the extended attribute of this name?"""
    return name == "security.capability" or (
        name.startswith("user.") and not name.startswith("user.overlay.") and name != owners.ATTRIBUTE
    )
