"""A layer's tar into overlay's form, in an empty folder of its own: what OCI image-spec's layer.md says, as Docker's overlay2 does it.

A whiteout ``.wh.x`` becomes a character device 0:0 called ``x``, ``.wh..wh..opq`` a mark on its folder. Each layer stands alone: what
lies in the layers below is not asked, so a folder here takes the place of a link there.

Nothing is written outside of the folder (CVE-2020-27833, CVE-2021-29136): every step goes from one folder's descriptor to a name in it
that is no link. Links that the layer itself has made on the way are resolved here, with the folder as their root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from ..linux import idmap, owners, trees
from . import tar
from .compression import open_reader
from .readahead import ReadAhead
from .tar import shown
from .unpack import UnpackError
from .view import is_whiteout, opaque_attribute

WHITEOUT, METADATA, OPAQUE = b".wh.", b".wh..wh.", b".wh..wh..opq"

_OPEN_FOLDERS = 64  # descriptors
_LONGEST = 1 << 14  # bytes of a path: four times what one system call takes
_LINKS = 40  # as the kernel (ELOOP)
_NOTES = 50
_REPORT = 1 << 20  # bytes between two calls of ``moved``
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_INHERITED = b"system.posix_acl_default"  # what is made in its folder would get entries of it


@dataclass(frozen=True)
class Applied:
    """What a layer was.

    diff_id: ``sha256:…`` of the plain tar. size: bytes of regular files, hard links counted once. tar_size: bytes of the plain tar.
    compression: ``gzip``, ``zstd``, … or ``none``. notes: what could not be kept here, a line each.
    """

    diff_id: str
    size: int
    tar_size: int
    compression: str
    notes: tuple[str, ...]


def apply(file: BinaryIO, tree: str, *, limit: int | None = None, moved: Callable[[int], None] | None = None) -> Applied:
    """Unpack a layer, compressed or not, into the empty folder ``tree``; all of ``file`` is read, in a thread of its own.

    :param limit: bytes that the plain tar may have; None: what fits the disk.
    :param moved: called now and then with the bytes of plain tar that are done.
    :raises UnpackError: and its like (:class:`.tar.ArchiveError`, :class:`.compression.CompressionError`): what is wrong, with which entry.
    :raises OSError: the disk's. After any error ``tree`` is empty again.
    """
    plain, compression = open_reader(file)
    ahead = ReadAhead(plain.read, limit)
    try:
        layer = _Layer(tree)
        try:
            _entries(layer, ahead, moved)
            layer.finish()
        finally:
            layer.close()
        return Applied(ahead.digest, layer.size, ahead.size, compression, tuple(layer.notes))
    except BaseException:
        for name in os.listdir(os.fsencode(tree)):
            trees.remove(os.fsdecode(os.path.join(os.fsencode(tree), name)))
        raise
    finally:
        ahead.close()


def _entries(layer: _Layer, ahead: ReadAhead, moved: Callable[[int], None] | None) -> None:
    reader, reported = tar.Reader(ahead.read, defaults=False), 0
    for entry in reader:
        try:
            layer.add(entry, reader)
        except OSError as error:
            if error is ahead.error:
                raise
            raise _told(error, entry) from None
        if moved is not None and reader.position - reported >= _REPORT:
            reported = reader.position
            moved(reported)
    reader.drain()
    if moved is not None:
        moved(reader.position)


def _told(error: OSError, entry: tar.Entry) -> Exception:
    """What the entry is to blame for, with its name; what the disk is to blame for, as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return error
    return UnpackError(f"{shown(entry.name)} in the layer cannot be made: {error.strerror}", "the layer is damaged, or not meant for here")


class _Folder:
    """A folder that is kept open. What is made in it changes its time: ``mtime`` is set again when it is closed."""

    __slots__ = ("fd", "gives_group", "hides", "mtime", "path")

    def __init__(self, fd: int, path: bytes) -> None:
        found = os.fstat(fd)
        self.fd, self.path, self.mtime = fd, path, found.st_mtime_ns
        self.gives_group = bool(found.st_mode & stat.S_ISGID)
        self.hides = False

    def close(self) -> None:
        os.utime(self.fd, ns=(self.mtime, self.mtime))
        os.close(self.fd)


class _Layer:
    """One layer under construction. Nobody else knows the folder: what is there is what this layer has made."""

    def __init__(self, tree: str) -> None:
        self._root = _Folder(os.open(tree, _FOLDER), b"")
        self._open: dict[bytes, _Folder] = {}  # by path, links resolved; the oldest first
        self._spelled: dict[bytes, _Folder] = {b"": self._root}  # the same, as entries call them
        self._me = (os.geteuid(), os.getegid())
        self._opaque = os.fsencode(opaque_attribute())
        self._overlay = self._opaque.removesuffix(b"opaque")
        self._later: list[tuple[bytes, bytes]] = []
        self._replaced = False
        self._tree = tree
        self._bytes = 0
        self.notes: list[str] = []

    @property
    def size(self) -> int:
        if not self._replaced:
            return self._bytes
        from .layers import content_size  # an entry that takes another one's place is rare

        return content_size(self._tree)

    def note(self, text: str) -> None:
        if len(self.notes) < _NOTES:
            self.notes.append(text)
        elif len(self.notes) == _NOTES:
            self.notes.append("and more of this kind")

    def close(self) -> None:
        for folder in self._open.values():
            folder.close()
        self._open.clear()
        self._spelled.clear()
        if self._root.fd >= 0:
            self._root.close()
            self._root.fd = -1

    def finish(self) -> None:
        """What would have changed files made after it."""
        for path, value in self._later:
            folder = self._folder(path.split(b"/"), make=False)
            self._attribute(path, folder.fd, _INHERITED, value)

    # -- the way to a folder

    def _folder(self, parts: list[bytes], make: bool = True, links: int = 0) -> _Folder:
        """The folder ``parts``; with ``make``, what is missing is made, as Docker makes it: root's, mode 755."""
        at, here = len(parts), self._root
        while at:
            found_open = self._open.get(b"/".join(parts[:at]))
            if found_open is not None:
                here = found_open
                break
            at -= 1
        for index in range(at, len(parts)):
            part = parts[index]
            if part == b"..":  # of a link's target alone
                here = self._folder(here.path.split(b"/")[:-1], False)
                continue
            path = here.path + b"/" + part if here.path else part
            if path in self._open:
                here = self._open[path]
                continue
            try:
                fd = os.open(part, _FOLDER, dir_fd=here.fd)
            except FileNotFoundError:
                if not make:
                    raise
                fd = self._implied(here, part)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                found = os.stat(part, dir_fd=here.fd, follow_symlinks=False)
                if make and is_whiteout(found):
                    os.unlink(part, dir_fd=here.fd)
                    fd = self._implied(here, part)
                    os.setxattr(fd, self._opaque, b"y")
                elif stat.S_ISLNK(found.st_mode):
                    if links >= _LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
                    return self._follow(here, part, parts[index + 1 :], make, links + 1)
                else:
                    raise OSError(errno.ENOTDIR, f"{shown(part)} on its way is not a folder") from None
            here = self._keep(_Folder(fd, path))
        return here

    def _follow(self, here: _Folder, part: bytes, rest: list[bytes], make: bool, links: int) -> _Folder:
        """Through a link of this layer, whose root is the layer's: Docker unpacks in a chroot."""
        target = os.readlink(part, dir_fd=here.fd)
        start = [] if target.startswith(b"/") or not here.path else here.path.split(b"/")
        steps = start + [step for step in target.split(b"/") if step not in (b"", b".")]
        try:
            there = self._folder(steps, False, links)
        except FileNotFoundError:
            raise OSError(errno.ENOENT, f"{shown(part)} on its way is a link to {shown(target)}, which is not in this layer") from None
        return self._folder((there.path.split(b"/") if there.path else []) + rest, make, links)

    def _implied(self, here: _Folder, name: bytes) -> int:
        os.mkdir(name, 0o755, dir_fd=here.fd)
        fd = os.open(name, _FOLDER, dir_fd=here.fd)
        os.fchmod(fd, 0o755)
        if here.gives_group:
            os.fchown(fd, *self._me)
        os.utime(fd, ns=(0, 0))  # no time of its own: not the one at which it happened to be unpacked
        return fd

    def _keep(self, folder: _Folder) -> _Folder:
        if len(self._open) >= _OPEN_FOLDERS:
            oldest = next(iter(self._open))
            self._open.pop(oldest).close()
            self._spelled = {b"": self._root}
        self._open[folder.path] = folder
        return folder

    # -- entries

    def add(self, entry: tar.Entry, reader: tar.Reader) -> None:
        """:raises UnpackError: with the entry's name. :raises OSError: what the kernel says to it."""
        way, _, name = entry.name.rstrip(b"/").rpartition(b"/")
        folder = self._spelled.get(way)
        if folder is None or name in (b"", b".", b"..") or name.startswith(WHITEOUT):
            parts = _parts(entry.name, entry)
            if not parts:
                if entry.kind != tar.FOLDER:
                    raise UnpackError(f"{shown(entry.name)} in the layer is no name for a file", "the layer is damaged")
                return  # the root's own owner and mode are the image's maker's business alone: Docker passes over them, too
            name = parts.pop()
            if any(part.startswith(METADATA) for part in parts) or (name.startswith(METADATA) and name != OPAQUE):
                return  # what aufs kept for itself (.wh..wh.plnk, .wh..wh.aufs): Docker passes over it
            if any(part.startswith(WHITEOUT) for part in parts):
                raise UnpackError(f"{shown(entry.name)} in the layer lies in a whiteout", "names that start with .wh. are not for folders")
            folder = self._folder(parts)
            if name.startswith(WHITEOUT):
                return self._whiteout(folder, name, entry)
            self._spelled[way] = folder
        if entry.kind == tar.FILE:
            self._file(folder, name, entry, reader)
        elif entry.kind == tar.FOLDER:
            self._directory(folder, name, entry)
        elif entry.kind == tar.SYMLINK:
            self._make(folder, name, lambda: os.symlink(entry.target, name, dir_fd=folder.fd))
            self._settle(folder, name, entry)
        elif entry.kind == tar.LINK:
            self._link(folder, name, entry)
        elif entry.kind in (tar.CHARACTER, tar.BLOCK_DEVICE, tar.FIFO):
            self._special(folder, name, entry)
        else:
            raise UnpackError(f"{shown(entry.name)} in the layer is of type {entry.kind!r}, which is not known", "the layer is damaged")

    def _whiteout(self, folder: _Folder, name: bytes, entry: tar.Entry) -> None:
        """It hides what lies below this layer, and nothing of this layer, whichever comes first (layer.md, "Whiteouts")."""
        if name == OPAQUE:
            os.setxattr(folder.fd, self._opaque, b"y")
            return
        name = name[len(WHITEOUT) :]
        if name in (b"", b".", b".."):
            raise UnpackError(f"{shown(entry.name)} in the layer is a whiteout of no file", "the layer is damaged")
        self._hide(folder, name)

    def _hide(self, folder: _Folder, name: bytes) -> None:
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=folder.fd)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=folder.fd, follow_symlinks=False).st_mode):
                self._set_opaque(folder, name)
            return
        if not folder.hides:
            # Where no layer below has this folder, overlayfs shows its listing as it is, whiteouts too, unless it looks like one that
            # was copied up (fs/overlayfs/inode.c, OVL_WHITEOUTS). Of a lower layer it asks no more than whether the mark is there.
            os.setxattr(folder.fd, self._overlay + b"origin", b"")
            folder.hides = True

    def _set_opaque(self, folder: _Folder, name: bytes) -> None:
        fd = os.open(name, _FOLDER, dir_fd=folder.fd)
        try:
            os.setxattr(fd, self._opaque, b"y")
        finally:
            os.close(fd)

    def _make(self, folder: _Folder, name: bytes, make: Callable[[], None]) -> bool:
        """Make something new; what has its name goes first. Returns whether anything had."""
        try:
            make()
            return False
        except FileExistsError:
            pass
        self._remove(folder, name)
        make()
        return True

    def _remove(self, folder: _Folder, name: bytes) -> None:
        self._replaced = True
        self._spelled = {b"": self._root}
        if stat.S_ISDIR(os.stat(name, dir_fd=folder.fd, follow_symlinks=False).st_mode):
            below = folder.path + b"/" + name if folder.path else name
            for path in [path for path in self._open if path == below or path.startswith(below + b"/")]:
                self._open.pop(path).close()
            trees.remove(f"/proc/self/fd/{folder.fd}/{os.fsdecode(name)}")
        else:
            os.unlink(name, dir_fd=folder.fd)

    def _file(self, folder: _Folder, name: bytes, entry: tar.Entry, reader: tar.Reader) -> None:
        try:
            fd = os.open(name, _NEW, 0o600, dir_fd=folder.fd)
        except FileExistsError:
            self._remove(folder, name)
            fd = os.open(name, _NEW, 0o600, dir_fd=folder.fd)
        try:
            if entry.stored:
                for offset, piece in reader.content():
                    written = os.pwrite(fd, piece, offset) if entry.parts is not None else os.write(fd, piece)
                    while written < len(piece):
                        written += os.pwrite(fd, piece[written:], offset + written)
                        os.lseek(fd, offset + written, os.SEEK_SET)
            if entry.parts is not None:
                os.ftruncate(fd, entry.size)
            self._attributes(fd, entry, folder.gives_group)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)
        self._bytes += entry.size

    def _directory(self, folder: _Folder, name: bytes, entry: tar.Entry) -> None:
        new = opaque = True
        try:
            os.mkdir(name, 0o700, dir_fd=folder.fd)
            opaque = False
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=folder.fd, follow_symlinks=False).st_mode):
                new = opaque = False
            else:
                # What is no folder hides all that lies below it; the folder that takes its place does so still.
                self._remove(folder, name)
                os.mkdir(name, 0o700, dir_fd=folder.fd)
        path = folder.path + b"/" + name if folder.path else name
        made = self._open.get(path)
        if made is None:
            made = self._keep(_Folder(os.open(name, _FOLDER, dir_fd=folder.fd), path))
        if opaque:
            os.setxattr(made.fd, self._opaque, b"y")
        inherited = entry.attributes.pop(_INHERITED, None)
        if inherited is not None:
            self._later.append((path, inherited))
        self._attributes(made.fd, entry, not new or folder.gives_group)
        made.gives_group = bool(entry.mode & stat.S_ISGID)
        made.mtime = entry.mtime

    def _link(self, folder: _Folder, name: bytes, entry: tar.Entry) -> None:
        """To a file of this layer; to a link itself where the name is a link's (linkat(2))."""
        parts = _parts(entry.target, entry)
        there = -1
        try:
            try:
                if not parts:
                    raise FileNotFoundError
                there = os.dup(self._folder(parts[:-1], make=False).fd)
                folder = self._folder(folder.path.split(b"/") if folder.path else [])  # the way to the target may have closed it
                target = os.stat(parts[-1], dir_fd=there, follow_symlinks=False)
                if is_whiteout(target):
                    raise FileNotFoundError
                if stat.S_ISDIR(target.st_mode):
                    raise UnpackError(f"{shown(entry.name)} in the layer is a hard link to a folder", "the layer is damaged")
                self._make(folder, name, lambda: os.link(parts[-1], name, src_dir_fd=there, dst_dir_fd=folder.fd, follow_symlinks=False))
            except FileNotFoundError:
                what = f"{shown(entry.name)} is a hard link to {shown(entry.target)}, which is not in this layer"
                raise UnpackError(what, "the layer is damaged: a hard link cannot lead to another layer's file") from None
            if stat.S_ISREG(target.st_mode):
                self._settle_link(folder.fd, name, target, entry)
        finally:
            if there >= 0:
                os.close(there)

    def _settle_link(self, parent: int, name: bytes, target: os.stat_result, entry: tar.Entry) -> None:
        """A file has the owner and mode of the entry that comes last, as Docker has it. Where that says nothing new, nothing is done:
        chown(2) would drop capabilities that only the first entry tells.
        """
        before = target.st_uid, target.st_gid, stat.S_IMODE(target.st_mode), target.st_mtime_ns
        if before == (entry.uid, entry.gid, entry.mode, entry.mtime):
            return
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._attributes(fd, entry, before[:2] != (entry.uid, entry.gid))
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _special(self, folder: _Folder, name: bytes, entry: tar.Entry) -> None:
        if entry.kind == tar.CHARACTER and entry.device == (0, 0):
            return self._hide(folder, name)  # overlay's own whiteout, which a layer's maker forgot to translate
        kind = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}[entry.kind]
        try:
            device = os.makedev(*entry.device)
        except OverflowError:
            raise UnpackError(f"{shown(entry.name)} in the layer is device {entry.device}", "there is no such number") from None
        try:
            self._make(folder, name, lambda: os.mknod(name, kind | 0o600, device, dir_fd=folder.fd))
        except PermissionError:  # mknod(2) needs CAP_MKNOD in the first user namespace
            self.note(f"device {shown(entry.name)} was left out: an ordinary user cannot make it")
            return
        self._settle(folder, name, entry)

    # -- attributes

    def _settle(self, folder: _Folder, name: bytes, entry: tar.Entry) -> None:
        """A link, FIFO or device, by its name: there is nothing to open."""
        if (entry.uid, entry.gid) != self._me or folder.gives_group:
            self._chown(lambda: os.chown(name, entry.uid, entry.gid, dir_fd=folder.fd, follow_symlinks=False), -1, entry)
        if entry.kind != tar.SYMLINK:
            os.chmod(name, entry.mode, dir_fd=folder.fd)
        for attribute, value in entry.attributes.items():
            self._attribute(entry.name, f"/proc/self/fd/{folder.fd}/{os.fsdecode(name)}", attribute, value)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=folder.fd, follow_symlinks=False)

    def _attributes(self, fd: int, entry: tar.Entry, chown: bool) -> None:
        if chown or (entry.uid, entry.gid) != self._me:
            self._chown(lambda: os.fchown(fd, entry.uid, entry.gid), fd, entry)
        os.fchmod(fd, entry.mode)  # after chown, which clears the set-user-id bit
        for attribute, value in entry.attributes.items():
            self._attribute(entry.name, fd, attribute, value)  # after chown, which drops file capabilities

    def _chown(self, chown: Callable[[], None], fd: int, entry: tar.Entry) -> None:
        try:
            chown()
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            if not idmap.single():
                what = f"{shown(entry.name)} in the layer belongs to {entry.uid}:{entry.gid}, which this user has no id for"
                raise UnpackError(what, "more subordinate ids are needed: see /etc/subuid and /etc/subgid") from None
            if fd >= 0:
                owners.record(fd, os.fstat(fd).st_mode, entry.uid, entry.gid)

    def _attribute(self, name: bytes, place: int | str, attribute: bytes, value: bytes) -> None:
        if attribute.startswith(self._overlay):
            attribute = self._overlay + b"overlay." + attribute[len(self._overlay) :]  # the kernel shows it without, and does not heed it
        elif attribute == os.fsencode(owners.ATTRIBUTE):
            return self.note(f"{shown(name)}: attribute {shown(attribute)} is pycontainers' own, and was left out")
        try:
            os.setxattr(place, attribute, value, follow_symlinks=isinstance(place, int))
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                raise
            self.note(f"{shown(name)}: attribute {shown(attribute)} could not be kept ({error.strerror})")


def _parts(path: bytes, entry: tar.Entry) -> list[bytes]:
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UnpackError(f"{shown(path)} in the layer leads outside of it", "nothing was written there")
    if len(path) > _LONGEST:
        raise UnpackError(f"{shown(path)} in the layer has {len(path)} bytes", f"a path may have {_LONGEST}")
    return parts
