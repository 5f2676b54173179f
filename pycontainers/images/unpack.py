"""A tar into a folder, by descriptors: nothing is written outside of it, whatever the archive's names and links say.

Each file is made under no name and linked in when it is whole (``O_TMPFILE``): whoever kills us leaves no half file behind. What is
made is changed by descriptor only, never by a name that somebody else could have given to another file meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import ContainersError
from ..linux import idmap, mounts, owners
from . import tar
from .tar import shown

_PATH_LIMIT = 2000  # bytes of a path that is opened at once: PATH_MAX is 4096
_NEW = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
#: No link on the way, none that leads out.
BENEATH = mounts.RESOLVE_BENEATH | mounts.RESOLVE_NO_SYMLINKS | mounts.RESOLVE_NO_MAGICLINKS
#: For a process whose root is the container's: links resolve inside (``/lib/x`` where ``/lib`` is a link), those of /proc do not.
IN_ROOT = mounts.RESOLVE_NO_MAGICLINKS


class UnpackError(ContainersError):
    """An archive that cannot be unpacked here."""


class Unpacker:
    """Unpacks one archive into the folder ``base`` (a descriptor).

    :param proc: this machine's /proc as a descriptor: by it, what is open gets a name or attributes, in whatever root we are.
    :param name: the one name in ``base`` at or below which everything must lie, "" for any.
    :param resolve: openat2(2) flags for the way to a file's folder: :data:`BENEATH` or :data:`IN_ROOT`.
    :param owners: give files to whom the archive says; otherwise they belong to whoever unpacks.
    :param all: keep set-user-id bits and every extended attribute; otherwise ``user.`` ones alone.
    :param devices: make device nodes; otherwise they are left out and named in ``notes``.
    :ivar notes: what could not be kept, a line each. :ivar bytes: of regular files so far.
    """

    def __init__(self, base: int, *, proc: int, name: str, resolve: int, owners: bool, all: bool, devices: bool) -> None:
        self._base, self._name, self._resolve = base, os.fsencode(name), resolve
        self._owners, self._all, self._devices = owners, all, devices
        self._proc = proc
        self._folders: list[tuple[list[bytes], tar.Entry]] = []
        self._near: tuple[list[bytes], int] = ([], -1)
        self.notes: list[str] = []
        self.bytes = 0

    def close(self) -> None:
        if self._near[1] >= 0:
            os.close(self._near[1])
        self._near = ([], -1)

    def extract(self, file: BinaryIO) -> Iterator[int]:
        """Unpack; yields the bytes so far after each entry.

        :raises UnpackError: with the entry's name. :raises ArchiveError: what is wrong with the archive. :raises OSError: the disk's.
        """
        reader = tar.Reader(file.read)
        for entry in reader:
            parts = self._parts(entry.name)
            if parts:
                self._entry(reader, entry, parts)
            yield self.bytes
        reader.drain()
        for parts, entry in reversed(self._folders):  # after their content, which changes their times, and may need them writable
            self._finish_folder(parts, entry)

    def _parts(self, path: bytes) -> list[bytes]:
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if b".." in parts or (self._name and parts[:1] != [self._name]):
            raise UnpackError(f"{shown(path)} in the archive leads outside of where it is unpacked", "nothing was written there")
        return parts

    # -- the way to a file

    def _open(self, parts: list[bytes], make: bool = False) -> int:
        """The folder ``parts`` as a descriptor of the caller's."""
        here = os.dup(self._base)
        try:
            while parts:
                count, size = 1, len(parts[0])
                while count < len(parts) and size + len(parts[count]) < _PATH_LIMIT:
                    size += len(parts[count]) + 1
                    count += 1
                try:
                    found = mounts.openat2(here, os.fsdecode(b"/".join(parts[:count])), os.O_RDONLY | os.O_DIRECTORY, self._resolve)
                except FileNotFoundError:
                    if not make:
                        raise
                    count = 1
                    try:
                        os.mkdir(parts[0], 0o755, dir_fd=here)
                    except FileExistsError:
                        pass
                    found = mounts.openat2(here, os.fsdecode(parts[0]), os.O_RDONLY | os.O_DIRECTORY, self._resolve)
                os.close(here)
                here, parts = found, parts[count:]
            return here
        except OSError as error:
            os.close(here)
            if error.errno in (errno.ELOOP, errno.EXDEV, errno.ENOTDIR):
                what = "is a link or a file where a folder has to be"
                raise UnpackError(f"{shown(b'/'.join(parts))} {what}", "nothing is written through it") from None
            raise
        except BaseException:
            os.close(here)
            raise

    def _parent(self, parts: list[bytes]) -> int:
        """The folder that ``parts`` lie in; kept open for the next entry, which mostly lies in it too."""
        if self._near[1] < 0 or self._near[0] != parts[:-1]:
            fd = self._open(parts[:-1], make=True)
            if self._near[1] >= 0:
                os.close(self._near[1])
            self._near = (parts[:-1], fd)
        return self._near[1]

    # -- what is made

    def _entry(self, reader: tar.Reader, entry: tar.Entry, parts: list[bytes]) -> None:
        parent, name = self._parent(parts), parts[-1]
        try:
            existing = stat.S_IFMT(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            existing = 0
        if entry.kind == tar.FOLDER:
            if not existing:
                os.mkdir(name, 0o700, dir_fd=parent)
            elif existing != stat.S_IFDIR:
                raise UnpackError(f"cannot overwrite non-directory {shown(b'/'.join(parts))} with a directory", "remove it first")
            if not existing or self._owners:
                self._folders.append((parts, entry))
            return
        if existing == stat.S_IFDIR:
            raise UnpackError(f"cannot overwrite directory {shown(b'/'.join(parts))} with a non-directory", "remove it first")
        if entry.kind == tar.FILE:
            self._file(reader, entry, parent, name, bool(existing))
        elif entry.kind == tar.LINK:
            self._link(entry, parent, name)
        elif entry.kind == tar.SYMLINK:
            os.symlink(entry.target, temporary := _temporary(), dir_fd=parent)
            self._settle(entry, parent, temporary, name)
        elif entry.kind == tar.FIFO:
            os.mkfifo(temporary := _temporary(), 0o600, dir_fd=parent)
            self._settle(entry, parent, temporary, name)
        elif entry.kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
            self._device(entry, parent, name)
        else:
            self.notes.append(f"{shown(entry.name)} was left out: entries of type {entry.kind!r} are not known")

    def _file(self, reader: tar.Reader, entry: tar.Entry, parent: int, name: bytes, existing: bool) -> None:
        temporary = b""
        try:
            fd = os.open(".", _NEW & ~os.O_NOFOLLOW | os.O_TMPFILE, 0o600, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                raise
            temporary = _temporary()  # this file system knows no files without a name (overlayfs before Linux 6.3)
            fd = os.open(temporary, _NEW | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)
        try:
            self._fill(reader, entry, fd)
            self._attributes(entry, fd, f"self/fd/{fd}")
            if not temporary:
                temporary = _temporary() if existing else name
                try:
                    os.link(f"self/fd/{fd}", temporary, src_dir_fd=self._proc, dst_dir_fd=parent, follow_symlinks=True)
                except FileExistsError:
                    temporary = _temporary()
                    os.link(f"self/fd/{fd}", temporary, src_dir_fd=self._proc, dst_dir_fd=parent, follow_symlinks=True)
            if temporary != name:
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            _discard(temporary if temporary != name else b"", parent)
            raise
        finally:
            os.close(fd)

    def _fill(self, reader: tar.Reader, entry: tar.Entry, fd: int) -> None:
        for offset, piece in reader.content():
            while piece:
                count = os.pwrite(fd, piece, offset)
                piece, offset = piece[count:], offset + count
                self.bytes += count
        if entry.parts is not None:
            os.ftruncate(fd, entry.size)

    def _link(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        target = self._parts(entry.target)
        if not target:
            raise UnpackError(f"{shown(entry.name)} is a hard link to nothing", "")
        folder, temporary = self._open(target[:-1]), _temporary()
        try:
            os.link(target[-1], temporary, src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            _discard(temporary, parent)  # rename(2) of two links to one file does nothing, and leaves both
        finally:
            os.close(folder)

    def _device(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        if self._devices:
            kind = stat.S_IFCHR if entry.kind == tar.CHARACTER else stat.S_IFBLK
            try:
                os.mknod(temporary := _temporary(), kind | 0o600, os.makedev(*entry.device), dir_fd=parent)
            except PermissionError:
                pass  # mknod(2) needs CAP_MKNOD in the first user namespace
            else:
                self._settle(entry, parent, temporary, name)
                return
        self.notes.append(f"device {shown(entry.name)} was left out")

    def _settle(self, entry: tar.Entry, parent: int, temporary: bytes, name: bytes) -> None:
        """Give a link, FIFO or device its attributes, and then its name."""
        try:
            fd = os.open(temporary, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                self._attributes(entry, -1, f"self/fd/{fd}")
            finally:
                os.close(fd)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            _discard(temporary, parent)
            raise

    def _finish_folder(self, parts: list[bytes], entry: tar.Entry) -> None:
        parent = self._open(parts[:-1])
        try:
            fd = os.open(parts[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return  # somebody else has removed or replaced it since
        finally:
            os.close(parent)
        try:
            self._attributes(entry, fd, f"self/fd/{fd}")
        finally:
            os.close(fd)

    def _attributes(self, entry: tar.Entry, fd: int, path: str) -> None:
        """By descriptor; ``path`` below /proc names the very file that is open, where ``fd`` (-1) is one for paths only."""
        if self._owners:
            try:
                os.chown(path, entry.uid, entry.gid, dir_fd=self._proc)
            except OSError as error:
                if error.errno != errno.EINVAL or not idmap.single():
                    raise
                if fd >= 0:
                    owners.record(fd, os.fstat(fd).st_mode, entry.uid, entry.gid)
        if entry.kind != tar.SYMLINK:
            # after chown, which clears the set-user-id bit
            os.chmod(path, entry.mode & (0o7777 if self._all else 0o1777), dir_fd=self._proc)
        for name, value in entry.attributes.items() if fd >= 0 else ():
            if self._all or name.startswith(b"user."):
                try:
                    os.setxattr(fd, name, value)  # after chown, which drops file capabilities
                except OSError as error:
                    if error.errno not in (errno.ENOTSUP, errno.EPERM):
                        raise
                    self.notes.append(f"{shown(entry.name)}: attribute {os.fsdecode(name)} could not be kept ({error.strerror})")
        os.utime(path, ns=(entry.mtime, entry.mtime), dir_fd=self._proc)


def _temporary() -> bytes:
    return b".pycontainers-" + os.urandom(6).hex().encode()


def _discard(temporary: bytes, parent: int) -> None:
    try:
        os.unlink(temporary, dir_fd=parent)
    except OSError:
        pass
