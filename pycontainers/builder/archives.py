"""ADD of an archive: what is in it becomes a part of the layer.

A tar, as it is or packed by gzip, bzip2, xz or zstd, told by its content and never by its name (Docker). Every entry is placed beneath
the destination: as if that were the root of a file system, links in the archive and in the image below lead nowhere else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import BinaryIO

from ..images import compression, tar
from ..images.tar import shown
from .layer_writer import LayerWriter
from .sources import CopyError, CopyItem, is_kept

_LINKS = 40  # as the kernel (ELOOP)
_ROOT = (0, 0)


def marked(items: Iterable[CopyItem], unpack: bool | None = None) -> list[CopyItem]:
    """``items`` with archives marked as such. ``unpack``: False for none of them, None and True for those that are archives."""
    return [replace(item, unpack=unpack is not False and is_archive(item)) for item in items]


def is_archive(item: CopyItem) -> bool:
    """A regular file that begins as a tar does. :raises OSError: it cannot be read."""
    if not stat.S_ISREG(item.node.stat.st_mode):
        return False
    with open(item.source.open(item.node), "rb", buffering=0) as file:
        try:
            plain, _ = compression.open_reader(file)
            return next(iter(tar.Reader(plain.read)), None) is not None
        except (tar.ArchiveError, compression.CompressionError):
            return False


def unpack(writer: LayerWriter, item: CopyItem, real: str, check: Callable[[], None]) -> None:
    """The archive ``item`` into the folder ``real``.

    :raises CopyError: what is wrong with the archive, with its name. :raises OSError: the disk's.
    """
    found = writer.existing(real)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        raise CopyError(f"{real} is not a folder in the image, so {item.name} cannot be unpacked there", "choose another destination")
    writer.make_folder(real, writer.started)
    with open(item.source.open(item.node), "rb", buffering=0) as file:
        unpacking = _Unpacking(writer, real.rstrip("/"), check)
        try:
            unpacking.all(file)
        except CopyError as error:
            raise CopyError(f"{item.name}: {error.message}", error.hint) from None
        except (tar.ArchiveError, compression.CompressionError) as error:
            raise CopyError(f"{item.name} cannot be unpacked: {error.message}", error.hint or "get it again") from None


class _Unpacking:
    def __init__(self, writer: LayerWriter, top: str, check: Callable[[], None]) -> None:
        self.writer, self.top, self.check = writer, top, check
        self.known: dict[tuple[bytes, ...], str] = {}  # folder of the archive → where it is
        self.folders: dict[str, tar.Entry] = {}

    def all(self, file: BinaryIO) -> None:
        plain, _ = compression.open_reader(file)
        reader = tar.Reader(plain.read, defaults=False)
        for entry in reader:
            self.check()
            parts = _parts(entry.name)
            if parts:
                self.one(reader, entry, self.place(parts))
        reader.drain()
        for real, entry in self.folders.items():  # after what lies in them, which may need them writable
            if self.writer.is_folder(real):
                self.writer.finish_folder(real, self.owner(entry), entry.mode & 0o7777, entry.mtime, self.kept(entry))

    # -- where an entry belongs

    def place(self, parts: list[bytes]) -> str:
        """Where the last of ``parts`` belongs: links on the way to it are followed, as long as they stay beneath the top."""
        above = tuple(parts[:-1])
        folder = self.known.get(above)
        if folder is None:
            folder = self.known[above] = self.resolve(list(above))
        return f"{folder}/{os.fsdecode(parts[-1])}"

    def resolve(self, rest: list[bytes]) -> str:
        way, links = list(rest), 0
        done: list[str] = []
        while rest:
            part = os.fsdecode(rest.pop(0))
            if part == "..":
                if not done:
                    what = f"a link on the way to {shown(b'/'.join(way))}"
                    raise CopyError(f"{what} leads out of where it is unpacked", "nothing was written there")
                done.pop()
                continue
            node = self.writer.merged.lookup(self.top + "/" + "/".join([*done, part]))
            if node is not None and stat.S_ISLNK(node.stat.st_mode):
                links += 1
                if links > _LINKS:
                    raise CopyError(f"more than {_LINKS} links on the way to {part!r}", "a link points to itself")
                target = os.fsencode(os.readlink(node.path))
                rest = [step for step in target.split(b"/") if step not in (b"", b".")] + rest
                if target.startswith(b"/"):
                    done = []
                continue
            done.append(part)
        return "/".join([self.top, *done])

    # -- what it becomes

    def one(self, reader: tar.Reader, entry: tar.Entry, real: str) -> None:
        writer = self.writer
        writer.make_folder(os.path.dirname(real), writer.started, _ROOT)
        if entry.kind == tar.FOLDER:
            if not writer.is_folder(real):
                writer.new_folder(real, _ROOT)
                self.known.clear()
            self.folders.pop(real, None)
            self.folders[real] = entry
            return
        if writer.is_folder(real):
            self.known.clear()
            self.folders = {path: kept for path, kept in self.folders.items() if not (path + "/").startswith(real + "/")}
        if entry.kind == tar.LINK:
            self.link(entry, real)
            return
        if entry.kind not in (tar.FILE, tar.SYMLINK, tar.FIFO, tar.CHARACTER, tar.BLOCK_DEVICE):
            raise CopyError(f"{shown(entry.name)} is of a type that is not known: {entry.kind!r}", "pack it again without")
        path = writer.vacate(real, replace=True)
        mode: int | None = entry.mode & 0o7777
        if entry.kind == tar.FILE:
            self.content(reader, entry, path)
        elif entry.kind == tar.SYMLINK:
            os.symlink(entry.target, path)
            self.known.clear()
            mode = None
        elif entry.kind == tar.FIFO:
            os.mkfifo(path, 0o600)
        else:
            kind = stat.S_IFCHR if entry.kind == tar.CHARACTER else stat.S_IFBLK
            try:
                writer.device(path, real, kind | 0o600, os.makedev(*entry.device))
            except CopyError:
                if kind == stat.S_IFCHR and entry.device == (0, 0):
                    raise
                return  # mknod(2) is root's: Docker leaves devices out, too, where it is not
        writer.finish_file(path, self.owner(entry), mode, entry.mtime, self.kept(entry) if mode is not None else ())

    def content(self, reader: tar.Reader, entry: tar.Entry, path: str) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            for offset, piece in reader.content():
                self.check()
                while piece:
                    count = os.pwrite(fd, piece, offset)
                    piece, offset = piece[count:], offset + count
            if entry.parts is not None:
                os.ftruncate(fd, entry.size)  # its end is a hole
        finally:
            os.close(fd)

    def link(self, entry: tar.Entry, real: str) -> None:
        parts = _parts(entry.target)
        target = self.place(parts) if parts else self.top
        found = self.writer.existing(target)
        if found is None or stat.S_ISDIR(found.st_mode):
            what = "a folder" if found else "nothing"
            raise CopyError(f"{shown(entry.name)} is a hard link to {shown(entry.target)}, which is {what}", "pack it again")
        if target == real:
            return
        source = self.writer.raised(target)
        path = self.writer.vacate(real, replace=True)
        os.link(source, path, follow_symlinks=False)
        self.writer.date_file(path, entry.mtime)  # the last of its names tells a file's time, as with Docker
        self.known.clear()

    def owner(self, entry: tar.Entry) -> tuple[int, int]:
        return self.writer.owner or (entry.uid, entry.gid)

    def kept(self, entry: tar.Entry) -> list[tuple[str, bytes]]:
        return [(os.fsdecode(name), value) for name, value in sorted(entry.attributes.items()) if is_kept(os.fsdecode(name))]


def _parts(name: bytes) -> list[bytes]:
    """The parts of a name, cleaned as Go's ``path.Clean`` does. :raises CopyError: it leads out."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise CopyError(f"{shown(name)} leads out of where it is unpacked", "it was not made for that")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return parts
