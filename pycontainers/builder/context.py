"""Where COPY takes files from: the context folder, or the root file system of an image; and the digest of what it takes.

Links in a source's path are resolved inside the source (:class:`pycontainers.images.view.View`), never by the kernel on the host,
so nothing outside the context can be reached. Links *below* a source are copied as links.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ..errors import NotFound
from ..images.view import Node, Rootfs, View
from .ignore import Ignore, Matched, matcher


@dataclass(frozen=True)
class Entry:
    """One file below a source: ``relative`` to it ("" is the source itself), ``node`` where it lies on the host."""

    relative: str
    node: Node


class Source(Protocol):
    """A tree that COPY reads. Paths are absolute inside it."""

    keeps_owners: bool

    def find(self, path: str) -> Node | None:
        """What is at ``path``, links resolved inside; None where there is nothing."""
        ...

    def names(self, real: str) -> list[str]:
        """Names in a folder, sorted."""
        ...

    def entries(self, node: Node) -> Iterator[Entry]:
        """``node`` and everything below it, folders before what is in them, in a fixed order."""
        ...


class ImageSource:
    """``COPY --from``: owners are kept, as Docker does."""

    keeps_owners = True

    def __init__(self, view: View) -> None:
        self.view = view

    def find(self, path: str) -> Node | None:
        return self.view.lookup(path, follow=True)

    def names(self, real: str) -> list[str]:
        return self.view.listdir(real)

    def entries(self, node: Node) -> Iterator[Entry]:
        pending = [Entry("", node)]
        while pending:
            entry = pending.pop()
            yield entry
            if stat.S_ISDIR(entry.node.stat.st_mode):
                real = entry.node.real.rstrip("/")
                for name in reversed(self.view.listdir(entry.node.real)):
                    child = self.view.lookup(f"{real}/{name}")
                    if child is not None:
                        pending.append(Entry(f"{entry.relative}/{name}" if entry.relative else name, child))


class Context:
    """The context folder without what ``.dockerignore`` excludes. Owners are not kept: files become root's, as in Docker."""

    keeps_owners = False

    def __init__(self, folder: str) -> None:
        """:raises NotFound: no such folder. :raises BuildError: a malformed .dockerignore."""
        self.folder = os.path.realpath(folder)
        if not os.path.isdir(self.folder):
            raise NotFound(f"the build context {folder!r} is not a folder", "name a folder, or - for no context")
        self.view = View(Rootfs((), ("/",), {"/": self.folder}))
        try:
            text = self.view.read("/.dockerignore").decode("utf-8", "replace")
        except FileNotFoundError:
            text = ""
        self.ignore = Ignore(text)

    def find(self, path: str) -> Node | None:
        node = self.view.lookup(path, follow=True)
        if node is None:
            return None
        inside = node.real.strip("/")
        matched = self.ignore.start(inside)
        return node if not inside or self._visible(node.path, inside, matched, stat.S_ISDIR(node.stat.st_mode)) else None

    def ignored(self, path: str) -> bool:
        """Is there something at ``path`` that .dockerignore hides?"""
        return self.view.lookup(path, follow=True) is not None and self.find(path) is None

    def names(self, real: str) -> list[str]:
        inside = real.strip("/")
        return [child.name for child, _ in self._children(self._host(inside), inside, self.ignore.start(inside))]

    def entries(self, node: Node) -> Iterator[Entry]:
        yield Entry("", node)
        if not stat.S_ISDIR(node.stat.st_mode):
            return
        top = node.real.strip("/")
        pending = [(top, "", self.ignore.start(top))]
        while pending:
            inside, relative, matched = pending.pop()
            folders = []
            for child, child_matched in self._children(self._host(inside), inside, matched):
                child_inside = f"{inside}/{child.name}" if inside else child.name
                child_relative = f"{relative}/{child.name}" if relative else child.name
                yield Entry(child_relative, Node(child.path, "/" + child_inside, child.stat(follow_symlinks=False)))
                if child.is_dir(follow_symlinks=False):
                    folders.append((child_inside, child_relative, child_matched))
            pending.extend(reversed(folders))

    def _host(self, inside: str) -> str:
        return f"{self.folder}/{inside}" if inside else self.folder

    def _children(self, host: str, inside: str, matched: Matched) -> list[tuple[os.DirEntry[str], Matched]]:
        """What is in a folder (``host`` has no links in it) and not excluded, with what matched."""
        with os.scandir(host) as found:
            children = sorted(found, key=lambda child: os.fsencode(child.name))
        if not self.ignore.patterns:
            return [(child, matched) for child in children]
        kept = []
        for child in children:
            path = f"{inside}/{child.name}" if inside else child.name
            child_matched = self.ignore.step(matched, path)
            if self._visible(child.path, path, child_matched, child.is_dir(follow_symlinks=False)):
                kept.append((child, child_matched))
        return kept

    def _visible(self, host: str, inside: str, matched: Matched, folder: bool) -> bool:
        """Not excluded; or an excluded folder with something in it that a later ``!`` includes again."""
        if not self.ignore.excluded(matched):
            return True
        return folder and self.ignore.has_exceptions and bool(self._children(host, inside, matched))


def glob(source: Source, pattern: str) -> list[tuple[str, Node]]:
    """(name, node) of what matches, in order. ``name`` is the last part as it is called there, before links are resolved.

    Semantics of Go's ``filepath.Match`` (https://pkg.go.dev/path/filepath#Match): a wildcard never crosses a slash.

    :raises re.error: a malformed pattern.
    """
    found = [""]
    for part in pattern.split("/"):
        if part in ("", "."):
            continue
        if not has_wildcard(part):
            found = [f"{path}/{part}" for path in found]
            continue
        matches = matcher(part, crossing=False)
        following = []
        for path in found:
            node = source.find(path or "/")
            if node is not None and stat.S_ISDIR(node.stat.st_mode):
                following += [f"{path}/{name}" for name in source.names(node.real) if matches(name)]
        found = following
    nodes = [(path.rpartition("/")[2], source.find(path or "/")) for path in found]
    return [(name, node) for name, node in nodes if node is not None]


def has_wildcard(pattern: str) -> bool:
    return any(char in pattern for char in "*?[\\")


def attributes(path: str) -> list[tuple[str, bytes]]:
    """The extended attributes that an image keeps: ``user.*`` and file capabilities, never overlayfs's own marks.

    ``user.overlay.*`` and ``trusted.overlay.*`` in a layer would hide or redirect files below it.
    """
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:  # a file system without them
        return []
    kept = [name for name in names if name == "security.capability" or (name.startswith("user.") and not name.startswith("user.overlay."))]
    return [(name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(kept)]


def digest(source: Source, node: Node) -> str:
    """What a copy of ``node`` would contain, in hex: path, type, mode, owner (where kept), size, link, attributes and content of
    every file, and no times (a fresh checkout must hit the cache)."""
    state = hashlib.sha256()
    for entry in source.entries(node):
        found, path = entry.node.stat, entry.node.path
        regular = stat.S_ISREG(found.st_mode)
        link = os.readlink(path) if stat.S_ISLNK(found.st_mode) else ""
        line = (
            os.fsencode(entry.relative), found.st_mode, *((found.st_uid, found.st_gid) if source.keeps_owners else (0, 0)),
            found.st_size if regular else 0, os.fsencode(link), found.st_rdev, [] if link else attributes(path),
            _content_digest(path, found) if regular else b"",
        )
        state.update(repr(line).encode())
    return state.hexdigest()


_known_digests: dict[tuple[int, int, int, int, int], bytes] = {}
_KNOWN_LIMIT = 200_000
_SETTLED = 2_000_000_000
"""Nanoseconds. A file that changed less than this ago may change again within one tick of its file system's clock (2 s on FAT, jiffies
elsewhere), so its digest is not remembered: the index of git has the same rule ("racy git")."""


def _content_digest(path: str, found: os.stat_result) -> bytes:
    key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    known = _known_digests.get(key)
    if known is not None:
        return known
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as file:
        value = hashlib.file_digest(file, "sha256").digest()
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED:
        if len(_known_digests) >= _KNOWN_LIMIT:
            _known_digests.clear()
        _known_digests[key] = value
    return value
