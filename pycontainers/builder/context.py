"""The build context: a folder without what ``.dockerignore`` excludes, and the files that were given with the build, laid over it.

Nothing outside of the folder is ever opened: links are resolved inside it when a path is looked up
(:class:`pycontainers.images.view.View`), and what is opened is opened beneath it without following any
(openat2(2)), so that a link swapped in meanwhile leads nowhere. Links *below* a source are copied as links.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import time
import weakref
from collections.abc import Iterator, Mapping

from ..errors import NotFound, UsageError
from ..images.view import Known, Node, Rootfs, View
from ..linux import mounts
from .digests import DigestCache
from .ignore import DROP, KEEP, Filter, Ignore, has_wildcard
from .selecting import digest, digests, glob, select
from .sources import OPEN, CopyItem, Entry, ImageSource, Source, anything, attributes, walk

_MOST_PATTERNS = 1 << 20  # bytes of a .dockerignore
_BENEATH = mounts.RESOLVE_BENEATH | mounts.RESOLVE_NO_SYMLINKS | mounts.RESOLVE_NO_MAGICLINKS


class Context:
    """Owners are not kept: files become root's, as in Docker.

    :param folder: "" for none. :param dockerfile_path: ``<dockerfile_path>.dockerignore``, where it exists, comes before ``.dockerignore``.
    :param files: path → content, laid over the folder; no pattern of .dockerignore hides them.
    :param digests_file: what is known of files' content is kept there (see :class:`.digests.DigestCache`); written by :meth:`close` at the
        latest, which happens by itself when the object goes.
    """

    keeps_owners = False

    def __init__(self, folder: str, dockerfile_path: str = "", files: Mapping[str, bytes] | None = None, digests_file: str = "") -> None:
        """:raises NotFound: no such folder. :raises BuildError: a malformed .dockerignore. :raises UsageError: a file's name leads out."""
        self.folder = os.path.realpath(folder) if folder else ""
        if folder and not os.path.isdir(self.folder):
            raise NotFound(f"the build context {folder!r} is not a folder", "name a folder, or - for no context")
        self.view = _Laid(self.folder, {_inside(name): content for name, content in (files or {}).items()})
        self.known = DigestCache(digests_file)
        self._root = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if self.folder else -1
        self.close = weakref.finalize(self, _close, self.known, self._root)
        self.ignore_name, text = self._patterns(dockerfile_path)
        self.ignore = Ignore(text, self.ignore_name)
        self._filters = bool(self.ignore.patterns)
        self._spared = frozenset(path.lstrip("/") for path in self.view.files)

    def _patterns(self, dockerfile_path: str) -> tuple[str, str]:
        if dockerfile_path:
            path = os.path.abspath(f"{dockerfile_path}.dockerignore")
            name = os.path.basename(path)
            # In the context it is looked up as everything there is: a link in it leads nowhere else.
            above = os.path.realpath(os.path.dirname(path))
            inside = f"{above}/{name}".removeprefix(self.folder) if self.folder and f"{above}/".startswith(f"{self.folder}/") else ""
            node = self.view.lookup(inside, follow=True) if inside else None
            if node is not None:
                return name, _text(self.open(node), name)
            if os.path.lexists(path):
                return name, _text(_opened(path, name), name)
        node = self.view.lookup("/.dockerignore", follow=True)
        if node is None or not stat.S_ISREG(node.stat.st_mode):
            return ".dockerignore", ""
        return ".dockerignore", _text(self.open(node), ".dockerignore")

    def find(self, path: str) -> Node | None:
        node = self.view.lookup(path, follow=True)
        if node is None or not self._filters or node.real == "/":
            return node
        inside = node.real.strip("/")
        filter = Filter(self.ignore, "", self._spared)
        verdict = filter.verdict(self.ignore.start(inside), inside, stat.S_ISDIR(node.stat.st_mode))
        return node if verdict == KEEP or (verdict != DROP and anything(self, node)) else None

    def ignored(self, path: str) -> bool:
        """Is there something at ``path`` that .dockerignore hides?"""
        return self.view.lookup(path, follow=True) is not None and self.find(path) is None

    def names(self, real: str) -> list[str]:
        """Names to be seen in a folder, sorted."""
        node = self.view.lookup(real)
        if node is None or not stat.S_ISDIR(node.stat.st_mode):
            return []
        return [entry.relative for entry in self.entries(node) if entry.relative and "/" not in entry.relative]

    def children(self, node: Node) -> list[Node]:
        base = node.real.rstrip("/")
        found: dict[str, Node] = {}
        if node.path:
            fd = self._beneath(node, os.O_RDONLY | os.O_DIRECTORY)
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        try:
                            name = entry.name
                            found[name] = Node(f"{node.path}/{name}", f"{base}/{name}", entry.stat(follow_symlinks=False))
                        except FileNotFoundError:
                            pass  # removed meanwhile
            finally:
                os.close(fd)
        for name in self.view.laid.get(node.real, ()):
            child = self.view.lookup(f"{base}/{name}")
            if child is not None:
                found[name] = child
        return [found[name] for name in sorted(found)]

    def filters(self, node: Node) -> list[Filter]:
        return [Filter(self.ignore, node.real, self._spared)] if self._filters else []

    def entries(self, node: Node) -> Iterator[Entry]:
        return walk(self, node, self.filters(node))

    def open(self, node: Node) -> int:
        if node.path:
            return self._beneath(node, OPEN)
        fd = os.memfd_create("context", os.MFD_CLOEXEC)
        with open(fd, "wb", closefd=False) as file:
            file.write(self.view.files[node.real])
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def link(self, node: Node) -> str:
        fd = self._beneath(node, os.O_PATH | os.O_NOFOLLOW)
        try:
            return os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)

    def owner(self, node: Node) -> tuple[int, int]:
        return 0, 0

    def _beneath(self, node: Node, flags: int) -> int:
        """:raises OSError: there is a link or nothing where ``node`` was."""
        try:
            return mounts.openat2(self._root, node.real.lstrip("/") or ".", flags, _BENEATH)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EXDEV, errno.ENOTDIR):
                raise OSError(error.errno, "a link was put there while it was read", node.real) from None
            raise


def _close(known: DigestCache, root: int) -> None:
    known.settle(always=True)
    if root >= 0:
        os.close(root)


def _opened(path: str, name: str) -> int:
    try:
        return os.open(path, OPEN)
    except OSError as error:
        reason = "a link that leads out of the context" if error.errno == errno.ELOOP else error.strerror
        raise UsageError(f"{name} cannot be read: {reason}", "put a regular file there, or remove it") from None


def _text(fd: int, name: str) -> str:
    """All of a file of patterns. It comes with the context, so it may be anything: a pipe that nobody writes to, or without an end."""
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError(f"{name} is not a regular file", "put a regular file there, or remove it")
        content = file.read(_MOST_PATTERNS + 1)
    if len(content) > _MOST_PATTERNS:
        raise UsageError(f"{name} is larger than {_MOST_PATTERNS >> 20} MiB", "shorten it: one pattern can stand for many files")
    return content.decode("utf-8", "replace")


def _inside(name: str) -> str:
    path = posixpath.normpath(name.lstrip("/") or ".")
    if path in (".", "..") or path.startswith("../") or name.endswith("/") or "\0" in name:
        raise UsageError(f"{name!r} is not the name of a file in the build context", "for example: src/app.py")
    return f"/{path}"


class _Laid(View):
    """A folder with files from memory over it: their ``path`` is "". What lies in their way below is not seen."""

    def __init__(self, folder: str, files: Mapping[str, bytes]) -> None:
        super().__init__(Rootfs((), ("/",), {"/": folder} if folder else {}))
        self.files = dict(files)
        self.laid: dict[str, list[str]] = {} if folder else {"/": []}
        for path in files:
            while path != "/":
                above, name = posixpath.split(path)
                names = self.laid.setdefault(above, [])
                if above in self.files:
                    raise UsageError(f"{above[1:]!r} is a file and cannot have {name!r} in it", "name another path")
                if name not in names:
                    names.append(name)
                path = above
        self._stamp = time.time_ns()

    def at(self, real: str, known: Known | None = None) -> Node | None:
        content = self.files.get(real)
        if content is not None:
            return Node("", real, self._status(stat.S_IFREG | 0o644, len(content)))
        node = super().at(real, known)
        if real in self.laid and (node is None or not stat.S_ISDIR(node.stat.st_mode)):
            return Node("", real, self._status(stat.S_IFDIR | 0o755, 0))
        if node is not None and self.files and self._covered(real):
            return None
        return node

    def _covered(self, real: str) -> bool:
        """Does a file of ours, or a folder of ours instead of a link, stand on the way?"""
        above = posixpath.dirname(real)
        while above != "/":
            if above in self.files:
                return True
            above = posixpath.dirname(above)
        return False

    def _status(self, mode: int, size: int) -> os.stat_result:
        seconds = self._stamp // 1_000_000_000
        exact = {"st_mtime_ns": self._stamp, "st_ctime_ns": 0, "st_rdev": 0}
        return os.stat_result((mode, 0, 0, 1, 0, 0, size, seconds, seconds, seconds), exact)


__all__ = [
    "Context", "CopyItem", "Entry", "ImageSource", "Source", "attributes", "digest", "digests", "glob", "has_wildcard", "select",
]
