"""A tar into a folder, by descriptors: nothing is written outside of it, whatever the archive's names and links say.

Each file is made under no name and linked in when it is whole (``O_TMPFILE``): whoever kills us leaves no half file behind. What is
made is changed by descriptor only, never by a name that somebody else could have given to another file meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from ..errors import ContainersError
from ..linux import idmap, mounts, owners

_CHUNK = 1 << 20
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
        self._base, self._name, self._resolve = base, name, resolve
        self._owners, self._all, self._devices = owners, all, devices
        self._proc = proc
        self._folders: list[tuple[list[str], tarfile.TarInfo]] = []
        self._near: tuple[list[str], int] = ([], -1)
        self.notes: list[str] = []
        self.bytes = 0

    def close(self) -> None:
        if self._near[1] >= 0:
            os.close(self._near[1])
        self._near = ([], -1)

    def extract(self, file: BinaryIO) -> Iterator[int]:
        """Unpack; yields the bytes so far after each entry. :raises UnpackError: with the entry's name. :raises OSError: the disk's."""
        try:
            archive: Any = tarfile.open(fileobj=file, mode="r|", bufsize=1 << 18, encoding="utf-8", errors="surrogateescape")
            while (member := archive.next()) is not None:
                archive.members = []  # an archive of a million files is not kept in memory
                parts = self._parts(member.name)
                if parts:
                    self._member(archive, member, parts)
                yield self.bytes
        except tarfile.TarError as error:
            raise UnpackError(f"not a whole tar archive: {error}", "make it again with tar") from None
        while file.read(_CHUNK):
            pass  # the padding of its last record: whoever still writes it must not find nobody there
        for parts, member in reversed(self._folders):  # after their content, which changes their times, and may need them writable
            self._finish_folder(parts, member)

    def _parts(self, path: str) -> list[str]:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts or (self._name and parts[:1] != [self._name]):
            raise UnpackError(f"{path!r} in the archive leads outside of where it is unpacked", "nothing was written there")
        return parts

    # -- the way to a file

    def _open(self, parts: list[str], make: bool = False) -> int:
        """The folder ``parts`` as a descriptor of the caller's."""
        here = os.dup(self._base)
        try:
            while parts:
                count, size = 1, len(os.fsencode(parts[0]))
                while count < len(parts) and size + len(os.fsencode(parts[count])) < _PATH_LIMIT:
                    size += len(os.fsencode(parts[count])) + 1
                    count += 1
                try:
                    found = mounts.openat2(here, "/".join(parts[:count]), os.O_RDONLY | os.O_DIRECTORY, self._resolve)
                except FileNotFoundError:
                    if not make:
                        raise
                    count = 1
                    try:
                        os.mkdir(parts[0], 0o755, dir_fd=here)
                    except FileExistsError:
                        pass
                    found = mounts.openat2(here, parts[0], os.O_RDONLY | os.O_DIRECTORY, self._resolve)
                os.close(here)
                here, parts = found, parts[count:]
            return here
        except OSError as error:
            os.close(here)
            if error.errno in (errno.ELOOP, errno.EXDEV, errno.ENOTDIR):
                what = "is a link or a file where a folder has to be"
                raise UnpackError(f"{'/'.join(parts)!r} {what}", "nothing is written through it") from None
            raise
        except BaseException:
            os.close(here)
            raise

    def _parent(self, parts: list[str]) -> int:
        """The folder that ``parts`` lie in; kept open for the next entry, which mostly lies in it too."""
        if self._near[1] < 0 or self._near[0] != parts[:-1]:
            fd = self._open(parts[:-1], make=True)
            if self._near[1] >= 0:
                os.close(self._near[1])
            self._near = (parts[:-1], fd)
        return self._near[1]

    # -- what is made

    def _member(self, archive: Any, member: tarfile.TarInfo, parts: list[str]) -> None:
        parent, name = self._parent(parts), parts[-1]
        try:
            existing = stat.S_IFMT(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            existing = 0
        if member.isdir():
            if not existing:
                os.mkdir(name, 0o700, dir_fd=parent)
            elif existing != stat.S_IFDIR:
                raise UnpackError(f"cannot overwrite non-directory {'/'.join(parts)!r} with a directory", "remove it first")
            if not existing or self._owners:
                self._folders.append((parts, member))
            return
        if existing == stat.S_IFDIR:
            raise UnpackError(f"cannot overwrite directory {'/'.join(parts)!r} with a non-directory", "remove it first")
        if member.isreg():
            self._file(archive, member, parent, name, bool(existing))
        elif member.islnk():
            self._link(member, parent, name)
        elif member.issym():
            os.symlink(member.linkname, temporary := _temporary(), dir_fd=parent)
            self._settle(member, parent, temporary, name)
        elif member.isfifo():
            os.mkfifo(temporary := _temporary(), 0o600, dir_fd=parent)
            self._settle(member, parent, temporary, name)
        elif member.ischr() or member.isblk():
            self._device(member, parent, name)
        else:
            self.notes.append(f"{member.name!r} was left out: entries of type {member.type!r} are not known")

    def _file(self, archive: Any, member: tarfile.TarInfo, parent: int, name: str, existing: bool) -> None:
        temporary = ""
        try:
            fd = os.open(".", _NEW & ~os.O_NOFOLLOW | os.O_TMPFILE, 0o600, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                raise
            temporary = _temporary()  # this file system knows no files without a name (overlayfs before Linux 6.3)
            fd = os.open(temporary, _NEW | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)
        try:
            self._fill(archive, member, fd)
            self._attributes(member, fd, f"self/fd/{fd}")
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
            _discard(temporary if temporary != name else "", parent)
            raise
        finally:
            os.close(fd)

    def _fill(self, archive: Any, member: tarfile.TarInfo, fd: int) -> None:
        stream = archive.fileobj  # read on from here: a stream's files cannot be sought in, and holes need not be read
        stream.seek(member.offset_data)
        sparse: list[tuple[int, int]] | None = getattr(member, "sparse", None)
        for offset, size in [(0, member.size)] if sparse is None else sparse:
            os.lseek(fd, offset, os.SEEK_SET)
            while size:
                piece = stream.read(min(_CHUNK, size))
                if not piece:
                    raise UnpackError(f"the archive ends in the middle of {member.name!r}", "")
                size -= len(piece)
                self.bytes += len(piece)
                view = memoryview(piece)
                while view:
                    view = view[os.write(fd, view) :]
        if sparse is not None:
            os.ftruncate(fd, member.size)

    def _link(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        target = self._parts(member.linkname)
        if not target:
            raise UnpackError(f"{member.name!r} is a hard link to nothing", "")
        folder, temporary = self._open(target[:-1]), _temporary()
        try:
            os.link(target[-1], temporary, src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            _discard(temporary, parent)  # rename(2) of two links to one file does nothing, and leaves both
        finally:
            os.close(folder)

    def _device(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        if self._devices:
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            try:
                os.mknod(temporary := _temporary(), kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
            except PermissionError:
                pass  # mknod(2) needs CAP_MKNOD in the first user namespace
            else:
                self._settle(member, parent, temporary, name)
                return
        self.notes.append(f"device {member.name!r} was left out")

    def _settle(self, member: tarfile.TarInfo, parent: int, temporary: str, name: str) -> None:
        """Give a link, FIFO or device its attributes, and then its name."""
        try:
            fd = os.open(temporary, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                self._attributes(member, -1, f"self/fd/{fd}")
            finally:
                os.close(fd)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            _discard(temporary, parent)
            raise

    def _finish_folder(self, parts: list[str], member: tarfile.TarInfo) -> None:
        parent = self._open(parts[:-1])
        try:
            fd = os.open(parts[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return  # somebody else has removed or replaced it since
        finally:
            os.close(parent)
        try:
            self._attributes(member, fd, f"self/fd/{fd}")
        finally:
            os.close(fd)

    def _attributes(self, member: tarfile.TarInfo, fd: int, path: str) -> None:
        """By descriptor; ``path`` below /proc names the very file that is open, where ``fd`` (-1) is one for paths only."""
        if self._owners:
            try:
                os.chown(path, member.uid, member.gid, dir_fd=self._proc)
            except OSError as error:
                if error.errno != errno.EINVAL or not idmap.single():
                    raise
                if fd >= 0:
                    owners.record(fd, os.fstat(fd).st_mode, member.uid, member.gid)
        if not member.issym():
            # after chown, which clears the set-user-id bit
            os.chmod(path, member.mode & (0o7777 if self._all else 0o1777), dir_fd=self._proc)
        for key, value in member.pax_headers.items() if fd >= 0 else ():
            name = key.removeprefix("SCHILY.xattr.")
            if name != key and (self._all or name.startswith("user.")):
                try:
                    os.setxattr(fd, name, value.encode("utf-8", "surrogateescape"))  # after chown, which drops file capabilities
                except OSError as error:
                    if error.errno not in (errno.ENOTSUP, errno.EPERM):
                        raise
                    self.notes.append(f"{member.name!r}: attribute {name} could not be kept ({error.strerror})")
        when = _nanoseconds(member)
        os.utime(path, ns=(when, when), dir_fd=self._proc)


def _temporary() -> str:
    return f".pycontainers-{os.urandom(6).hex()}"


def _discard(temporary: str, parent: int) -> None:
    try:
        os.unlink(temporary, dir_fd=parent)
    except OSError:
        pass


def _nanoseconds(member: tarfile.TarInfo) -> int:
    """Its time, exactly: tarfile makes a float of it, which loses what is below a microsecond."""
    whole, dot, rest = member.pax_headers.get("mtime", "").partition(".")
    digits = whole.removeprefix("-")
    if dot and digits.isdecimal() and len(digits) < 19 and rest.isdecimal() and not whole.startswith("-"):
        return int(whole) * 1_000_000_000 + int(rest[:9].ljust(9, "0"))
    return int(member.mtime * 1_000_000_000)
