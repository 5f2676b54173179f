"""Files that hold images, opened by what is in them: a tar (plain or compressed, a file or a stream) or a folder, read by name.

An archive's list of contents stands at its end, so it is read in any order: a file is where it lies; a stream, and a compressed file,
are unpacked into a file without a name in the store's workshop first. What lies in an archive is trusted with nothing: names are looked
up and never opened, links lead to other names in it, sizes are limited by whoever reads.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import stat
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from ..errors import ImageError, NotFound
from . import compression, tar
from .source import Reader, Source

_CHUNK = 1 << 20
_MEMBERS = 100_000  # names of an archive that are kept in memory; an image has one for each layer, and old ones three
_LINKS = 10


@dataclass(frozen=True)
class Found:
    """One image of an archive, and the names that it has there."""

    source: Source
    names: tuple[str, ...]


class Place(Protocol):
    """What holds an image's files. ``name`` is for messages."""

    name: str

    def has(self, path: str) -> bool: ...

    def size(self, path: str) -> int:
        """:raises NotFound: no such file."""
        ...

    def open(self, path: str, offset: int = 0) -> Reader: ...

    def close(self) -> None: ...


def read(place: Place, path: str, limit: int) -> bytes:
    """A small file, whole. :raises NotFound: it is not there. :raises ImageError: it is larger than ``limit`` bytes."""
    if place.size(path) > limit:
        raise ImageError(f"{place.name}: {path} has {place.size(path)} bytes", f"at most {limit} make sense")
    with contextlib.closing(place.open(path)) as file:
        data = b""
        while piece := file.read(limit + 1 - len(data)):
            data += piece
        return data


def open_place(source: str | BinaryIO, workshop: str) -> Place:
    """A file, a folder or a stream with images in it. :raises NotFound: no such file. :raises ImageError: it is neither tar nor folder."""
    if not isinstance(source, str):
        return Archive(source, "the archive", workshop)
    try:
        if os.path.isdir(source):
            return Folder(source)
        file = open(source, "rb", 0)
    except FileNotFoundError:
        raise NotFound(f"{source} does not exist", "give the path of an archive or of an OCI layout") from None
    except OSError as error:
        raise ImageError(f"{source} cannot be read: {error.strerror}", "") from None
    with file:
        return Archive(file, source, workshop)


class Archive:
    """A tar. :param file: is read from where it stands; stays the caller's."""

    def __init__(self, file: BinaryIO, name: str, workshop: str) -> None:
        self.name = name
        self._fd = _plain(file, name, workshop)
        try:
            self._members = _index(self._fd, name)
        except BaseException:
            os.close(self._fd)
            raise

    def has(self, path: str) -> bool:
        return self._member(path) is not None

    def size(self, path: str) -> int:
        return self._there(path)[1]

    def open(self, path: str, offset: int = 0) -> Reader:
        start, size = self._there(path)
        return _Window(self._fd, start + offset, size - offset)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _there(self, path: str) -> tuple[int, int]:
        found = self._member(path)
        if found is None:
            raise NotFound(f"{self.name} has no file {path}", "the archive is not whole: make it again")
        return found

    def _member(self, path: str) -> tuple[int, int] | None:
        for _ in range(_LINKS):
            path = posixpath.normpath(path).lstrip("/")
            found = self._members.get(path)
            if not isinstance(found, str):
                return found
            path = found  # docker save writes a layer that several images have once, and links to it
        return None


class Folder:
    """An OCI layout on disk. It may belong to somebody else: what is in it is opened following no link that leads elsewhere."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._root = path.rstrip("/") or "/"

    def has(self, path: str) -> bool:
        with contextlib.suppress(NotFound):
            return self.size(path) >= 0
        return False

    def size(self, path: str) -> int:
        try:
            found = os.stat(f"{self._root}/{path}")
        except (FileNotFoundError, NotADirectoryError):
            found = None
        if found is None or not stat.S_ISREG(found.st_mode):
            raise NotFound(f"{self.name} has no file {path}", "is it an OCI layout, and whole?")
        return found.st_size

    def open(self, path: str, offset: int = 0) -> Reader:
        self.size(path)  # or it is said that it is not there
        file = io.FileIO(os.open(f"{self._root}/{path}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        file.seek(offset)
        return file

    def close(self) -> None:
        pass


class _Window:
    """A part of a file, for one reader among several."""

    def __init__(self, fd: int, start: int, size: int) -> None:
        self._fd, self._place, self._end = os.dup(fd), start, start + max(0, size)

    def read(self, size: int = -1, /) -> bytes:
        left = self._end - self._place
        piece = os.pread(self._fd, left if size < 0 else min(size, left), self._place) if self._fd >= 0 and left > 0 else b""
        self._place += len(piece)
        return piece

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _plain(file: BinaryIO, name: str, workshop: str) -> int:
    """A descriptor of the tar itself, uncompressed and seekable."""
    try:
        fd = file.fileno()
        seekable = stat.S_ISREG(os.fstat(fd).st_mode) and os.lseek(fd, 0, os.SEEK_CUR) == 0
        if seekable and compression.kind_of(os.pread(fd, 10, 0)) == "none":
            return os.dup(fd)
    except (OSError, AttributeError, io.UnsupportedOperation):
        pass  # nothing that the kernel knows: read it
    spool = os.open(workshop, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        reader, _ = compression.open_reader(file)
        while piece := reader.read(_CHUNK):
            view = memoryview(piece)
            while view:
                view = view[os.write(spool, view) :]
    except BaseException:
        os.close(spool)
        raise
    return spool


def _index(fd: int, name: str) -> dict[str, tuple[int, int] | str]:
    """Path → (offset, size) of a file, or the path that a link leads to."""
    found: dict[str, tuple[int, int] | str] = {}
    try:
        tape = _Tape(fd)
        reader = tar.Reader(tape.read, pass_over=tape.pass_over)
        for entry in reader:
            path = posixpath.normpath(os.fsdecode(entry.name)).lstrip("/")
            if entry.kind == tar.FILE and entry.parts is None:
                found[path] = (reader.position, entry.stored)
            elif entry.kind == tar.SYMLINK:
                found[path] = posixpath.join(posixpath.dirname(path), os.fsdecode(entry.target))
            elif entry.kind == tar.LINK:
                found[path] = os.fsdecode(entry.target)
            if len(found) > _MEMBERS:
                raise ImageError(f"{name} holds more than {_MEMBERS} files", "it is no archive of images; import takes a root file system")
    except tar.ArchiveError as error:
        hint = "docker save, podman save and skopeo make archives of images"
        raise ImageError(f"{name} is no whole tar archive: {error.message}", hint) from None
    size = os.fstat(fd).st_size
    cut = next((path for path, at in found.items() if not isinstance(at, str) and at[0] + at[1] > size), "")
    if cut:
        raise ImageError(f"{name} ends in the middle of {cut}", "it is not whole: make it again")
    return found


class _Tape:
    """A file from its beginning, in which content need not be read to come to what follows it."""

    _AHEAD = 1 << 14  # bytes: headers are small, and far from each other

    def __init__(self, fd: int) -> None:
        self._fd, self._place, self._size = fd, 0, os.fstat(fd).st_size

    def read(self, size: int) -> bytes:
        if self._place >= self._size:  # perhaps further than any file reaches: what a header says is not believed
            return b""
        piece = os.pread(self._fd, min(size, self._AHEAD), self._place)
        self._place += len(piece)
        return piece

    def pass_over(self, size: int) -> None:
        self._place += size
