"""A tar of a tree that somebody else may be changing: walked by descriptors, no link followed, nothing opened that could block.

Deterministic: bytewise path order, PAX, empty user and group names, sorted attributes, the first path holds a hard link's data.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..linux import idmap, owners

_CHUNK = 1 << 20
BLOCK = 512
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
        info = tarfile.TarInfo(inside)
        info.mode, info.uid, info.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
        if fd >= 0 and idmap.single():
            info.uid, info.gid = owners.recorded(fd) or (info.uid, info.gid)
        info.mtime = found.st_mtime_ns // 1_000_000_000
        kind, key = stat.S_IFMT(found.st_mode), (found.st_dev, found.st_ino)
        if kind == stat.S_IFREG and found.st_nlink > 1 and key in self._links:
            info.type, info.linkname = tarfile.LNKTYPE, self._links[key]
        elif kind == stat.S_IFREG:
            if found.st_nlink > 1:
                self._links[key] = inside
            info.size = found.st_size
        elif kind == stat.S_IFDIR:
            info.type = tarfile.DIRTYPE
        elif kind == stat.S_IFLNK:
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=parent)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            info.type = tarfile.CHRTYPE if kind == stat.S_IFCHR else tarfile.BLKTYPE
            info.devmajor, info.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
        elif kind == stat.S_IFIFO:
            info.type = tarfile.FIFOTYPE
        else:
            return  # a socket has no meaning in an archive (Docker and tar leave it out as well)
        if info.type in (tarfile.REGTYPE, tarfile.DIRTYPE):
            info.pax_headers = self.attributes(fd)  # xattr(7): links and special files have none that an archive could carry
        yield from self.encoded(info, found, fd)

    def attributes(self, fd: int) -> dict[str, str]:
        """Extended attributes as PAX records (``SCHILY.xattr.``)."""
        try:
            names = sorted(os.listxattr(fd))
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            names = []  # a file system without extended attributes
        return {f"SCHILY.xattr.{name}": os.getxattr(fd, name).decode("utf-8", "surrogateescape") for name in names if self.keeps(name)}

    def keeps(self, attribute: str) -> bool:
        """overlayfs's own attributes, recorded owners and the security module's labels stay here."""
        return not attribute.startswith(("trusted.overlay.", "user.overlay.", owners.ATTRIBUTE, "security.selinux"))

    def encoded(self, info: tarfile.TarInfo, found: os.stat_result, fd: int) -> Iterator[bytes]:
        """Header and content, with the time to the nanosecond and holes left out."""
        if found.st_mtime_ns % 1_000_000_000:
            info.pax_headers = {**info.pax_headers, "mtime": f"{info.mtime}.{found.st_mtime_ns % 1_000_000_000:09d}"}
        parts = data_parts(fd, found) if info.isreg() else None
        if parts is None:
            yield from self.plain(info, fd)
            return
        # GNU.sparse 1.0 (the tar manual, "PAX Format, Version 1.0"): the map stands before the data.
        self.bytes += sum(length for _, length in parts)
        text = "".join(f"{number}\n" for number in (len(parts), *[number for part in parts for number in part])).encode()
        text += b"\0" * (-len(text) % BLOCK)
        total, name = sum(length for _, length in parts), info.name
        sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name, "GNU.sparse.realsize": str(info.size)}
        info.pax_headers, info.size = {**info.pax_headers, **sparse}, len(text) + total
        info.name = f"GNUSparseFile.0/{name.rpartition('/')[2]}"
        yield header(info)
        yield text
        for offset, length in parts:
            yield from _bytes(fd, offset, length)
        yield b"\0" * (-total % BLOCK)

    def plain(self, info: tarfile.TarInfo, fd: int) -> Iterator[bytes]:
        """Header and content as they are."""
        yield header(info)
        if info.isreg():
            self.bytes += info.size
            yield from _bytes(fd, 0, info.size)
            yield b"\0" * (-info.size % BLOCK)


def header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


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
