"""Which files a COPY means: wildcards, ``--parents``, ``--exclude``; and digests of what it would copy."""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence

from ..images.view import Node
from . import digests as remembered
from .ignore import DROP, KEEP, Filter, Ignore, has_wildcard, matcher, path_matcher, reaches
from .sources import CopyError, CopyItem, Entry, Excluding, Source, anything, attributes


def select(source: Source, pattern: str, *, parents: bool = False, exclude: Sequence[str] = ()) -> list[CopyItem]:
    """What ``pattern`` means in ``source``, in order; nothing found is an empty list.

    A pattern that leads up ends at the root. ``exclude`` is about what is in each folder that is copied, by its path there, and never about
    what the pattern itself means (BuildKit; the reference says otherwise).

    :raises PatternError: a pattern is malformed.
    """
    excluded = Ignore.of(exclude)
    if parents:
        return _with_parents(source, pattern, excluded)
    items = []
    for name, node in glob(source, pattern):
        folder = stat.S_ISDIR(node.stat.st_mode)
        items.append(CopyItem(name, node, Excluding(source, Filter(excluded)) if excluded.patterns and folder else source))
    return items


def glob(source: Source, pattern: str) -> list[tuple[str, Node]]:
    """(name, node) of what matches, in order. ``name`` is the last part as it is called there, before links are resolved.

    Semantics of Go's ``filepath.Match`` (https://pkg.go.dev/path/filepath#Match): a wildcard never crosses a slash. Links are followed
    on the way to the first wildcard and at the end, and not between: BuildKit looks for matches without following any.

    :raises PatternError: a malformed pattern.
    """
    parts = _parts(pattern)
    first = next((index for index, part in enumerate(parts) if has_wildcard(part)), len(parts))
    base = "/" + "/".join(parts[:first])
    node = source.find(base)
    if node is None:
        return []
    if first == len(parts):
        return [(parts[-1] if parts else "", node)]
    found = [node]
    for part in parts[first:]:
        matches = matcher(part, crossing=False)
        found = [child for folder in found if stat.S_ISDIR(folder.stat.st_mode) for child in _seen(source, folder) if matches(_name(child))]
    followed = [(_name(child), _followed(source, child)) for child in found]
    return followed


def _followed(source: Source, node: Node) -> Node:
    if not stat.S_ISLNK(node.stat.st_mode):
        return node
    found = source.find(node.real)
    if found is None:
        raise CopyError(f"{node.real.lstrip('/')} is a link to {source.link(node)}, which is not there", "mend it, or exclude it")
    return found


def _seen(source: Source, folder: Node) -> list[Node]:
    """What is to be seen in one folder."""
    children = source.children(folder)
    filters = [(filter, filter.start()) for filter in source.filters(folder)]
    if not filters:
        return children
    kept = []
    for child in children:
        below = stat.S_ISDIR(child.stat.st_mode)
        verdict = max(filter.step(above, _name(child), below)[1] for filter, above in filters)
        if verdict == KEEP or (verdict != DROP and anything(source, child)):
            kept.append(child)
    return kept


def _with_parents(source: Source, pattern: str, excluded: Ignore) -> list[CopyItem]:
    """``--parents``: what is after ``/./`` is kept below the destination; there ``**`` crosses folders, and no link is followed."""
    before, pivot, after = pattern.partition("/./")
    if not pivot:
        before, after = "", pattern
    wanted = posixpath.normpath("/" + after).strip("/")
    matches = path_matcher(wanted)
    items = []
    for name, top in glob(source, before or "/"):
        hidden = Filter(excluded)
        shown = Excluding(source, hidden) if excluded.patterns else source
        if not stat.S_ISDIR(top.stat.st_mode):
            continue
        if not wanted:
            items.append(CopyItem(name, top, shown))
            continue
        above: dict[str, Node] = {}
        taken: list[str] = []
        for entry in _below(source, top, wanted):
            folder = stat.S_ISDIR(entry.node.stat.st_mode)
            if folder:
                above[entry.relative] = entry.node
            if not entry.relative or any(entry.relative.startswith(path + "/") for path in taken) or not matches(entry.relative):
                continue
            if hidden.verdict(excluded.start(entry.relative), entry.relative, folder) == DROP:
                continue
            parts = entry.relative.split("/")
            ways = tuple(above["/".join(parts[:count])] for count in range(1, len(parts)))
            below = Excluding(source, Filter(excluded, entry.relative)) if excluded.patterns and folder else source
            items.append(CopyItem(parts[-1], entry.node, below, keep=entry.relative, above=ways))
            if folder:
                taken.append(entry.relative)
    return items


def _below(source: Source, top: Node, wanted: str) -> Iterator[Entry]:
    """What is below ``top``, without folders in which nothing can match."""
    parts = wanted.split("/")
    pending = [Entry("", top)]
    while pending:
        entry = pending.pop()
        yield entry
        if not stat.S_ISDIR(entry.node.stat.st_mode) or (entry.relative and not reaches(parts, entry.relative.split("/"))):
            continue
        prefix = f"{entry.relative}/" if entry.relative else ""
        pending.extend(reversed([Entry(prefix + _name(child), child) for child in _seen(source, entry.node)]))


def _parts(pattern: str) -> list[str]:
    """The parts of a path from the root, ``..`` resolved as Go's ``filepath.Join`` does."""
    parts: list[str] = []
    for part in pattern.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return parts


def _name(node: Node) -> str:
    return node.real.rpartition("/")[2]


# -- digests


def digest(item: CopyItem, check: Callable[[], None] = lambda: None) -> str:
    """What a copy of ``item`` would contain, in hex: path, type, mode, owner (where kept), link, attributes and content of every file,
    and no times (a fresh checkout must hit the cache).

    :param check: called all the while; it raises when the build was cancelled.
    :raises CopyError: a file changed meanwhile, or cannot be read.
    """
    rows = [b"%b\0%d\0%b\0" % (os.fsencode(item.name), item.unpack, os.fsencode(item.keep))]
    looks = Looks(item)
    with _readable():
        rows += [_row(item.source, Entry(str(depth), node), check) for depth, node in enumerate(item.above)]
        for entry in item.source.entries(item.node):
            rows.append(_row(item.source, entry, check))
            looks.add(entry)
            check()
    looks.keep()
    item.source.known.settle()
    return hashlib.sha256(b"".join(rows)).hexdigest()


class Looks:
    """What files looked like in one walk over what ``item`` brings: the copy, which may wait long for its turn, must see the same as the
    digest did, or the digest of what was would name what is.

    Of folders no times count: whatever is excluded moves those. A file's ctime nobody can set back.
    """

    _NAME = "_looks"  # of this very item, which equals another's that was looked at earlier or later

    def __init__(self, item: CopyItem) -> None:
        self._item, self._state = item, hashlib.sha256()
        self._wanted = item.source.known is not remembered.in_memory  # the store's layers never change

    def add(self, entry: Entry) -> None:
        if not self._wanted:
            return
        found = entry.node.stat
        if stat.S_ISDIR(found.st_mode):
            look = _row(self._item.source, entry, lambda: None)
        else:
            what = (found.st_mode, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            look = b"%b\0%b" % (os.fsencode(entry.relative), repr(what).encode())
        self._state.update(b"%d\0%b" % (len(look), look))

    def keep(self) -> None:
        """For :meth:`compare`, after another walk."""
        vars(self._item)[self._NAME] = self._state.digest()

    def compare(self) -> None:
        """:raises CopyError: it is not what it was. Nothing is compared where no digest was taken."""
        if vars(self._item).get(self._NAME, self._state.digest()) != self._state.digest():
            what = self._item.node.real.strip("/") or "the folder"
            raise CopyError(f"{what} changed after its digest was taken", "build again, or exclude what changes in .dockerignore")


def digests(item: CopyItem) -> dict[str, str]:
    """A short digest of each file that ``item`` brings, by its path in the source: what an explanation names."""
    with _readable():
        rows = ((entry.node.real.strip("/"), _row(item.source, entry, lambda: None)) for entry in item.source.entries(item.node))
        return {path or ".": hashlib.sha256(row).hexdigest()[:16] for path, row in rows}


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CopyError(f"{error.filename}: {error.strerror}", "it must be readable, or excluded in .dockerignore") from None


def _row(source: Source, entry: Entry, check: Callable[[], None]) -> bytes:
    node = entry.node
    found = node.stat
    mode = found.st_mode
    uid, gid = source.owner(node) if source.keeps_owners else (0, 0)
    size = 0
    if stat.S_ISREG(mode):
        size, content = found.st_size, source.known.get(found) or _read(source, node, check)
    elif stat.S_ISDIR(mode):
        content = source.known.get(found) or _read(source, node, check)
    else:
        content = os.fsencode(source.link(node)) if stat.S_ISLNK(mode) else b"%d" % found.st_rdev
    return b"%b\0%d %d %d %d %d\0%b" % (os.fsencode(entry.relative), mode, uid, gid, size, len(content), content)


def _whole(source: Source, node: Node) -> bytes:
    with open(source.open(node), "rb") as file:
        return file.read()


def _read(source: Source, node: Node, check: Callable[[], None]) -> bytes:
    """The digest of a file's content and of its attributes, or of a folder's attributes."""
    if not node.path:  # laid over the context
        return hashlib.sha256(_whole(source, node)).digest() if stat.S_ISREG(node.stat.st_mode) else remembered.NOTHING
    fd = source.open(node)
    try:
        found, began = source.known.settled(fd, os.fstat(fd))
        if stat.S_IFMT(found.st_mode) != stat.S_IFMT(node.stat.st_mode):
            raise CopyError(f"{node.real} changed while it was read", "build again")
        value = remembered.read(fd, check) if stat.S_ISREG(found.st_mode) else b""
        kept = attributes(fd)
        if kept:
            value = hashlib.sha256(value + repr(kept).encode()).digest()
        value = value or remembered.NOTHING
        if not remembered.same(found, node.stat) or not remembered.same(found, os.fstat(fd)):
            if stat.S_ISREG(found.st_mode):
                raise CopyError(f"{node.real} changed while it was read", "build again, or exclude it in .dockerignore")
        else:
            source.known.put(fd, found, began, value)
        return value
    finally:
        os.close(fd)
