"""COPY, ADD and WORKDIR: files into a fresh layer folder, in overlay's own form, with Docker's rules for destinations.

https://docs.docker.com/reference/dockerfile/#copy. The destination is resolved inside the image; the layer folder holds only what
this module made in it, and no link in it is ever followed: every parent is checked to be a real folder, every file is created new.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ContainersError
from ..images.view import Node, View
from ..linux import owners
from ..runtime import users
from .context import Source, attributes

Owner = tuple[int, int]
WHITEOUT_PREFIX = ".wh."
_CHUNK = 1 << 20


class CopyError(ContainersError):
    """A copy that cannot be done. The caller knows the line."""


def parse_owner(view: View, text: str) -> Owner:
    """(uid, gid) of ``--chown=user[:group]``, names looked up in the image. A number without a group is also the gid (Docker).

    :raises ContainersError: a name that the image does not have, an id outside of 0..65535.
    """
    name, _, group = text.partition(":")
    spec = f"{name}:{name}" if name.isdigit() and not group else text

    def read(path: str) -> str:
        try:
            return view.read(path).decode("utf-8", "replace")
        except OSError:
            return ""

    try:
        uid, gid, _, _ = users.resolve(spec, read)
    except ValueError:  # digits that int() refuses: thousands of them, or superscripts
        raise CopyError(f"owner {text[:40]!r} is not a name or a number", "for example: --chown=1000:1000") from None
    return uid, gid


def parse_mode(text: str) -> int:
    """Permission bits of ``--chmod``, in octal."""
    if not 1 <= len(text) <= 4 or any(char not in "01234567" for char in text):
        raise CopyError(f"--chmod={text} is not supported", "write the mode in octal, for example --chmod=755")
    return int(text, 8)


@dataclass
class LayerWriter:
    """Writes into the layer folder ``tree`` above the image ``view``.

    :param owner: owner of everything that is made; None keeps the source's (and root for what has no source).
    :param mode: permission bits of files and folders; None keeps the source's.
    """

    view: View
    tree: str
    owner: Owner | None
    mode: int | None = None

    def __post_init__(self) -> None:
        self._links: dict[tuple[int, int], str] = {}
        self._folder_times: dict[str, int] = {}

    def destination(self, path: str) -> tuple[str, bool]:
        """The real path in the image, and whether a folder is there."""
        real = self.view.resolve(path)
        node = self._existing(real)
        return real, node is not None and stat.S_ISDIR(node.st_mode)

    def copy(self, source: Source, node: Node, target: str) -> None:
        """``node`` becomes ``target`` (a real path); a folder's content is merged into the folder that is there."""
        self.make_folder(os.path.dirname(target), node.stat.st_mtime_ns)
        for entry in source.entries(node):
            real = f"{target.rstrip('/')}/{entry.relative}" if entry.relative else target
            _check_name(real)
            if stat.S_ISDIR(entry.node.stat.st_mode):
                self._copy_folder(source, entry.node, real, keep_existing=not entry.relative)
            else:
                self._copy_file(source, entry.node, real)

    def write(self, target: str, content: bytes, mtime_ns: int) -> None:
        """A file with this content (a here-document); mode 0644 unless ``mode`` is set."""
        _check_name(target)
        self.make_folder(os.path.dirname(target), mtime_ns)
        path = self._vacate(target)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(content)
        self._finish(path, self.owner or (0, 0), 0o644 if self.mode is None else self.mode, mtime_ns)

    def make_folder(self, real: str, mtime_ns: int) -> None:
        """``real`` and its parents as folders of the layer: with the owner and mode that they have in the image, or new (0755)."""
        current = ""
        for part in [""] + [part for part in real.split("/") if part]:
            current = f"{current}/{part}" if part else ""
            path = self.tree + current
            try:
                made = os.lstat(path)
            except FileNotFoundError:
                pass
            else:
                if not stat.S_ISDIR(made.st_mode):
                    raise CopyError(f"{current} is not a folder, so nothing can be copied into it", "choose another destination")
                if current or path in self._folder_times:
                    continue
            below = self.view.lookup(current or "/")
            if below is not None and not stat.S_ISDIR(below.stat.st_mode):
                raise CopyError(f"{current} is not a folder in the image", "choose another destination")
            if current:
                _check_name(current)
                os.mkdir(path, 0o700)
            if below is not None:
                self._finish(path, (below.stat.st_uid, below.stat.st_gid), stat.S_IMODE(below.stat.st_mode), None, attributes(below.path))
                self._folder_times[path] = below.stat.st_mtime_ns
            else:
                self._finish(path, self.owner or (0, 0), 0o755, None)
                self._folder_times[path] = mtime_ns

    def finish(self) -> None:
        """Set the times of folders, which every file put into them has moved. Call it once, at the end."""
        for path, mtime_ns in self._folder_times.items():
            os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def _existing(self, real: str) -> os.stat_result | None:
        """What is at a real path: made here, or below in the image."""
        try:
            return os.lstat(self.tree + real)
        except (FileNotFoundError, NotADirectoryError):
            node = self.view.lookup(real)
            return node.stat if node else None

    def _owner_of(self, source: Source, found: os.stat_result) -> Owner:
        if self.owner is not None:
            return self.owner
        return (found.st_uid, found.st_gid) if source.keeps_owners else (0, 0)

    def _copy_folder(self, source: Source, node: Node, real: str, keep_existing: bool) -> None:
        existing = self._existing(real)
        if existing is not None and not stat.S_ISDIR(existing.st_mode):
            raise CopyError(f"cannot copy a folder onto {real}, which is not a folder in the image", "choose another destination")
        self.make_folder(real, node.stat.st_mtime_ns)
        if existing is None or not keep_existing:
            path = self.tree + real.rstrip("/")
            mode = stat.S_IMODE(node.stat.st_mode) if self.mode is None else self.mode
            self._finish(path, self._owner_of(source, node.stat), mode, None, attributes(node.path))
            self._folder_times[path] = node.stat.st_mtime_ns

    def _copy_file(self, source: Source, node: Node, real: str) -> None:
        found = node.stat
        if stat.S_ISSOCK(found.st_mode):
            return  # as Docker: a socket without its process means nothing
        if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            # A character device 0:0 would be a whiteout, any other one a door to the host's hardware.
            raise CopyError(f"{node.real} is a device, which is never copied into an image", "exclude it in .dockerignore")
        path = self._vacate(real)
        key = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and key in self._links:
            os.link(self._links[key], path, follow_symlinks=False)
            return
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(node.path), path)
        elif stat.S_ISFIFO(found.st_mode):
            os.mkfifo(path, 0o600)
        else:
            _copy_content(node.path, path)
        self._links[key] = path
        mode = None if stat.S_ISLNK(found.st_mode) else stat.S_IMODE(found.st_mode) if self.mode is None else self.mode
        extended = attributes(node.path) if stat.S_ISREG(found.st_mode) else ()
        self._finish(path, self._owner_of(source, found), mode, found.st_mtime_ns, extended)

    def _vacate(self, real: str) -> str:
        """The path in the layer, with nothing there. The parents are folders that this object made."""
        existing = self._existing(real)
        if existing is not None and stat.S_ISDIR(existing.st_mode):
            raise CopyError(f"cannot replace the folder {real} by a file", "choose another destination")
        path = self.tree + real
        try:
            os.unlink(path)
        except FileNotFoundError:
            return path
        self._links = {key: kept for key, kept in self._links.items() if kept != path}
        return path

    def _finish(self, path: str, owner: Owner, mode: int | None, mtime_ns: int | None, extended: Iterable[tuple[str, bytes]] = ()) -> None:
        _chown(path, owner)
        if mode is not None:
            os.chmod(path, mode)  # after chown, which clears the set-user-id bit
        for name, value in extended:
            os.setxattr(path, name, value, follow_symlinks=False)  # after chown, which drops file capabilities
        if mtime_ns is not None:
            os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def _check_name(real: str) -> None:
    if os.path.basename(real).startswith(WHITEOUT_PREFIX):
        # In a layer's tar such a name deletes a file of the layers below (OCI image spec, layer.md, "Whiteouts").
        raise CopyError(f"{real}: names that begin with {WHITEOUT_PREFIX} cannot be stored in an image", "rename the file")


def _chown(path: str, owner: Owner) -> None:
    try:
        owners.give(path, *owner)
    except OSError as error:
        raise CopyError(f"cannot give {path} to {owner[0]}:{owner[1]}: {error.strerror}", "leave --chown out, or build as root") from None


def _copy_content(source: str, target: str) -> None:
    read = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(read).st_mode):
            raise CopyError(f"{source} changed while it was copied", "build again")
        write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _transfer(read, write)
        finally:
            os.close(write)
    finally:
        os.close(read)


def _transfer(read: int, write: int) -> None:
    """Content from one descriptor to another: inside the kernel where both file systems can (shared extents on XFS and Btrfs)."""
    try:
        while os.copy_file_range(read, write, 1 << 30):
            pass
    except OSError:  # EXDEV, EINVAL, EOPNOTSUPP: some file systems refuse; both offsets stand where it stopped
        pass
    while chunk := os.read(read, _CHUNK):  # also files whose size lies (procfs): copy_file_range copies nothing of them
        view = memoryview(chunk)
        while view:
            view = view[os.write(write, view):]
