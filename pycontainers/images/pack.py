"""A tar of a tree that somebody else may be changing: walked by descriptors, no link followed, nothing opened that could block.

Deterministic: bytewise path order, PAX, empty user and group names, sorted attributes, the first path holds a hard link's data.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..linux import idmap, owners
from . import tar
from .tar import BLOCK, Entry

_CHUNK = 1 << 20
_SWAPPED = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
#: Where a file's own attributes are opened: O_NONBLOCK, for a FIFO may have taken its place since it was looked at.
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Frame = tuple[int, Iterator[tuple[str, str]]]
"""An open folder, and what is still to be packed of it: (name in it, path in the archive)."""


class Packer:
    """Makes one archive.

    :param others: path in the archive -> descriptor of the folder to go on with there (a file system that is mounted in its place).
    :param empty: asked for each folder's descriptor: whether it is packed without what is in it.
    :ivar bytes: of regular files so far.
    """

    def __init__(self, others: Mapping[str, int] | None = None, empty: Callable[[int], bool] | None = None) -> None:
        self._others = others or {}
        self._empty = empty or (lambda fd: False)
        self._links: dict[tuple[int, int], str] = {}
        self._size = 0
        self.bytes = 0
        self.closed = 0  # files and folders left out because this machine does not let its user read them

    def item(self, parent: int, name: str, inside: str) -> Iterator[bytes]:
        """The archive of ``name`` in the folder ``parent`` (``.``: the folder itself), called ``inside``, with all that is below it."""
        return self._archive([(os.dup(parent), iter([(name, inside)]))])

    def content(self, folder: int) -> Iterator[bytes]:
        """The archive of what is in ``folder``."""
        return self._archive([self._frame(folder, "")])

    def _archive(self, stack: list[Frame]) -> Iterator[bytes]:
        """With a stack of its own instead of recursion: how deep a tree is, is for whoever made it to say."""
        try:
            while stack:
                folder, items = stack[-1]
                name, inside = next(items, ("", ""))
                if not name:
                    os.close(stack.pop()[0])
                    continue
                for piece in self._one(folder, name, inside, stack):
                    self._size += len(piece)
                    yield piece
        finally:
            for folder, _ in stack:
                os.close(folder)
        yield b"\0" * (2 * BLOCK + -(self._size + 2 * BLOCK) % (20 * BLOCK))  # POSIX: two empty blocks, records of 20 blocks

    def _frame(self, folder: int, prefix: str) -> Frame:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        return fd, iter([(name, prefix + name) for name in sorted(os.listdir(fd), key=os.fsencode)])

    def _one(self, parent: int, name: str, inside: str, stack: list[Frame]) -> Iterator[bytes]:
        try:
            looked = _look(parent, name)
        except PermissionError:
            if idmap.initial():
                raise
            self.closed += 1  # the machine's own, below an ordinary user's container: nobody in it may read that either
            return
        if looked is None:
            return
        found, fd = looked
        try:
            if inside in self._others:
                if fd >= 0:
                    os.close(fd)
                fd = os.open(".", _OPEN | os.O_DIRECTORY, dir_fd=self._others[inside])
                found = os.fstat(fd)
            yield from self.entry(parent, name, inside, found, fd)
            if stat.S_ISDIR(found.st_mode) and not self._empty(fd):
                stack.append(self._frame(fd, inside.rstrip("/") + "/"))
        finally:
            if fd >= 0:
                os.close(fd)

    def entry(self, parent: int, name: str, inside: str, found: os.stat_result, fd: int) -> Iterator[bytes]:
        """Header and content of one entry; ``fd`` is open for a file or a folder, -1 for anything else."""
        info = Entry(os.fsencode(inside))
        info.mode, info.uid, info.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
        if fd >= 0 and idmap.single():
            info.uid, info.gid = owners.recorded(fd) or (info.uid, info.gid)
        info.mtime = found.st_mtime_ns
        kind, key = stat.S_IFMT(found.st_mode), (found.st_dev, found.st_ino)
        if kind == stat.S_IFREG and found.st_nlink > 1 and key in self._links:
            info.kind, info.target = tar.LINK, os.fsencode(self._links[key])
        elif kind == stat.S_IFREG:
            if found.st_nlink > 1:
                self._links[key] = inside
            info.size = found.st_size
        elif kind == stat.S_IFDIR:
            info.kind = tar.FOLDER
        elif kind == stat.S_IFLNK:
            info.kind, info.target = tar.SYMLINK, os.readlink(os.fsencode(name), dir_fd=parent)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            info.kind = tar.CHARACTER if kind == stat.S_IFCHR else tar.BLOCK_DEVICE
            info.device = os.major(found.st_rdev), os.minor(found.st_rdev)
        elif kind == stat.S_IFIFO:
            info.kind = tar.FIFO
        else:
            return  # a socket has no meaning in an archive (Docker and tar leave it out as well)
        if fd >= 0:
            # A hard link's too: whoever unpacks it as Docker does gives the file its owner anew, which drops capabilities (chown(2)).
            info.attributes = self.attributes(fd)
        else:
            info.attributes = self.attributes_of_special(parent, name)
        yield from self.encoded(info, found, fd)

    def attributes(self, place: int | str) -> dict[bytes, bytes]:
        """Extended attributes of what is open, or of what has a path (a link's own)."""
        follow = isinstance(place, int)
        try:
            names = sorted(os.listxattr(place, follow_symlinks=follow))
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            names = []  # a file system without extended attributes
        return {os.fsencode(name): os.getxattr(place, name, follow_symlinks=follow) for name in names if self.keeps(name)}

    def attributes_of_special(self, parent: int, name: str) -> dict[bytes, bytes]:
        """Those of a link, device or FIFO: in a container's root they have none that can be read (xattr(7): no ``user.`` ones)."""
        return {}

    def keeps(self, attribute: str) -> bool:
        """overlayfs's own attributes, recorded owners and the security module's labels stay here."""
        return not attribute.startswith(("trusted.overlay.", "user.overlay.", owners.ATTRIBUTE, "security.selinux"))

    def encoded(self, info: Entry, found: os.stat_result, fd: int) -> Iterator[bytes]:
        """Header and content, with the time to the nanosecond and holes left out."""
        parts = data_parts(fd, found) if info.kind == tar.FILE else None
        if parts is None:
            yield from self.plain(info, fd)
            return
        # GNU.sparse 1.0 (the tar manual, "PAX Format, Version 1.0"): the map stands before the data.
        self.bytes += sum(length for _, length in parts)
        text = "".join(f"{number}\n" for number in (len(parts), *[number for part in parts for number in part])).encode()
        text += b"\0" * (-len(text) % BLOCK)
        total, name = sum(length for _, length in parts), info.name
        sparse = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": name, b"GNU.sparse.realsize": b"%d" % info.size}
        info.size = len(text) + total
        info.name = b"GNUSparseFile.0/" + name.rpartition(b"/")[2]
        yield header(info, sparse)
        yield text
        for offset, length in parts:
            yield from _bytes(fd, offset, length)
        yield b"\0" * (-total % BLOCK)

    def plain(self, info: Entry, fd: int) -> Iterator[bytes]:
        """Header and content as they are."""
        yield header(info)
        if info.kind == tar.FILE:
            self.bytes += info.size
            yield from _bytes(fd, 0, info.size)
            if info.size % BLOCK:
                yield b"\0" * (-info.size % BLOCK)


def header(entry: Entry, more: Mapping[bytes, bytes] | None = None) -> bytes:
    """An entry's header, extended by PAX where ustar cannot say it; always the same bytes, as Python's tarfile of 3.11 wrote them.

    :param more: records beside those that follow from the entry.
    """
    records = {b"SCHILY.xattr." + name: value for name, value in entry.attributes.items()} if entry.attributes else {}
    seconds, nanoseconds = divmod(entry.mtime, 1_000_000_000)
    if nanoseconds:
        records[b"mtime"] = _time(entry.mtime)
    if more:
        records |= more
    name = entry.name + b"/" if entry.kind == tar.FOLDER else entry.name
    for key, value in ((b"path", name), (b"linkpath", entry.target)):
        if len(value) > 100 or not value.isascii():
            records[key] = value
    if not name.isascii() or not entry.target.isascii():
        name, target = (os.fsdecode(value).encode("ascii", "replace") for value in (name, entry.target))
    else:
        target = entry.target
    numbers = [entry.uid, entry.gid, entry.size, seconds]
    for index, (key, digits) in enumerate(((b"uid", 7), (b"gid", 7), (b"size", 11), (b"mtime", 11))):
        if not 0 <= numbers[index] < 8**digits:
            records.setdefault(key, b"%d" % numbers[index])
            numbers[index] = 0
    made = _ustar(name, entry.mode, numbers, entry.kind, target, entry.device)
    if not records:
        return made
    body = b"".join(_record(key, value) for key, value in records.items())
    if not all(_is_utf8(value) for value in records.values()):
        body = b"21 hdrcharset=BINARY\n" + body
    return _ustar(b"././@PaxHeader", 0, [0, 0, len(body), 0], b"x", b"", (0, 0)) + body + b"\0" * (-len(body) % BLOCK) + made


_USTAR = struct.Struct("100s8s8s8s12s12s8sc100s8s64s8s8s155s12x")


def _ustar(name: bytes, mode: int, numbers: list[int], kind: bytes, target: bytes, device: tuple[int, int]) -> bytes:
    uid, gid, size, seconds = numbers
    devices = [b"%07o\0" % number for number in device] if kind in b"34" else [b"", b""]
    fields = (name, b"%07o\0" % mode, b"%07o\0" % uid, b"%07o\0" % gid, b"%011o\0" % size, b"%011o\0" % seconds)
    rest = (kind, target, b"ustar\x0000", b"", *devices, b"")
    total = tar.sum_of(_USTAR.pack(*fields, b" " * 8, *rest))
    return _USTAR.pack(*fields, b"%06o\0 " % total, *rest)


def _record(key: bytes, value: bytes) -> bytes:
    """With its own length before it, which the digits of that length are part of."""
    size = len(key) + len(value) + 3
    digits = len(str(size))
    while len(str(size + digits)) != digits:
        digits += 1
    return b"%d %s=%s\n" % (size + digits, key, value)


def _time(nanoseconds: int) -> bytes:
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return b"%s%d.%09d" % (b"-" if nanoseconds < 0 else b"", seconds, rest)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
        return True
    except UnicodeDecodeError:
        return False


def data_parts(fd: int, found: os.stat_result) -> list[tuple[int, int]] | None:
    """(offset, length) of what is not a hole, ended by (size, 0) after a hole; None for a file without holes."""
    if found.st_blocks * 512 >= found.st_size:
        return None
    parts, place, size = [], 0, found.st_size
    while place < size:
        try:
            start = os.lseek(fd, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                return None  # this file system does not tell
            break  # a hole to the end
        place = os.lseek(fd, start, os.SEEK_HOLE)
        if start >= size:
            break
        parts.append((start, min(place, size) - start))
    if parts == [(0, size)]:
        return None
    if not parts or sum(parts[-1]) < size:
        parts.append((size, 0))
    return parts


def _look(parent: int, name: str) -> tuple[os.stat_result, int] | None:
    """What is there now, and an open descriptor for a file or folder. None when it has gone, or changes too fast to be caught."""
    for _ in range(16):
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
                return found, -1
            fd = os.open(name, _OPEN, dir_fd=parent)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _SWAPPED:
                continue  # it has become a link since: looked at again
            raise
        opened = os.fstat(fd)
        if stat.S_IFMT(opened.st_mode) == stat.S_IFMT(found.st_mode):
            return opened, fd
        os.close(fd)
    return None


def _bytes(fd: int, offset: int, size: int) -> Iterator[bytes]:
    """Exactly ``size`` bytes: a file that changes meanwhile may not shift what follows."""
    while size:
        piece = os.pread(fd, min(_CHUNK, size), offset) or b"\0" * min(_CHUNK, size)
        size -= len(piece)
        offset += len(piece)
        yield piece


class Stream(io.RawIOBase):
    """An archive in pieces, as a file to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count
