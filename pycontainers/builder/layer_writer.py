"""Files into a fresh layer folder, in overlay's own form, above an image.

The layer folder holds only what this module made in it, and no link in it is ever followed: every parent is checked to be a real folder,
every file is created new.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Mapping

from ..images.view import Known, Node, Rootfs, View, opaque_attribute
from ..linux import idmap, owners
from .digests import same
from .modes import Mode
from .sources import CopyError, ImageSource, Source, attributes

Owner = tuple[int, int]
WHITEOUT_PREFIX = ".wh."
_DEEPEST, _LONGEST = 500, 4095  # of a path; the kernel takes no path that is longer (PATH_MAX)
_CHUNK, _AT_ONCE = 1 << 20, 64 << 20
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LayerWriter:
    """Writes into the layer folder ``tree`` above the image ``view``. Paths are real ones: no link in their parents.

    :param owner: of everything that is made; None keeps the source's (and root for what has no source).
    :param mode: how permission bits of files and folders change; None keeps the source's.
    :param epoch: unix seconds that no time may be later than. :param link: above nothing, whatever the image has (``COPY --link``).
    :param check: called while large files are copied; it raises when the build was cancelled.
    """

    def __init__(
        self, view: View, tree: str, owner: Owner | None, mode: Mode | None = None, *, epoch: int | None = None, link: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.view, self.tree, self.owner, self.mode, self.check = view, tree, owner, mode, check
        self.made = 0o755  # permission bits of folders that are made on the way
        self._latest = None if epoch is None else epoch * 1_000_000_000
        below = view.rootfs
        rootfs = Rootfs((tree,), ("/",), {}) if link else Rootfs((*below.layers, tree), below.folders, below.base)
        self._links: dict[tuple[int, int], str] = {}
        self._times: dict[str, int] = {}
        self._folders: dict[str, bool] = {}  # made here → whether the image has nothing at or below it
        #: The image with what was made so far.
        self.merged: View = _Merged(rootfs, tree, self._folders)
        self._hidden: set[str] = set()  # where the image has a folder that was replaced
        self.started = time.time_ns()

    def resolve(self, path: str) -> str:
        """Where a destination is, links in the image followed."""
        return self.merged.resolve(path)

    def existing(self, real: str) -> os.stat_result | None:
        """What is at a real path: made here, or below in the image."""
        node = self.merged.at(real)
        return node.stat if node else None

    def is_folder(self, real: str) -> bool:
        found = self.existing(real)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def forget_links(self) -> None:
        """What comes next shares no files with what was copied so far."""
        self._links.clear()

    # -- folders

    def make_folder(self, real: str, mtime_ns: int, owner: Owner | None = None) -> None:
        """``real`` and its parents as folders of the layer: with the owner and mode that they have in the image, or new."""
        if real.rstrip("/") in self._folders:
            return
        _check_length(self.tree, real)
        current = ""
        known: Known = {}
        for part in ["", *(part for part in real.split("/") if part)]:
            current = f"{current}/{part}" if part else ""
            if current not in self._folders:
                self.check()
                self._one_folder(current, mtime_ns, owner or self.owner or (0, 0), known)

    def _one_folder(self, real: str, mtime_ns: int, owner: Owner, known: Known) -> None:
        below = self.merged.at(real, known) if real else self.view.lookup("/")
        if below is not None and not stat.S_ISDIR(below.stat.st_mode):
            raise CopyError(f"{real} is not a folder in the image", "choose another destination")
        path = self.tree + real
        if real:
            _check_name(real)
            os.mkdir(path, 0o700)
            if real in self._hidden:
                os.setxattr(path, opaque_attribute(), b"y")
                known.clear()
        self._folders[real] = below is None and bool(real)
        if below is not None:
            own = owners.recorded(below.path) if idmap.single() else None
            self._finish(path, own or (below.stat.st_uid, below.stat.st_gid), stat.S_IMODE(below.stat.st_mode), attributes(below.path))
            self._times[real] = below.stat.st_mtime_ns
        else:
            self._finish(path, owner, self.made)
            self._times[real] = self._clamped(mtime_ns)

    def date_folder(self, real: str, mtime_ns: int) -> None:
        """The time of a folder that was made, or stands for one of the image."""
        self._times[real.rstrip("/")] = self._clamped(mtime_ns)

    def new_folder(self, real: str, owner: Owner) -> None:
        """A folder where none is; a file there goes. Its parent is one."""
        path = self.vacate(real)
        os.mkdir(path, 0o700)
        if real in self._hidden:
            os.setxattr(path, opaque_attribute(), b"y")
        self._finish(path, owner, 0o755)
        self._folders[real], self._times[real] = True, self._clamped(self.started)

    def set_folder(self, real: str, owner: Owner, mode: int, mtime_ns: int, extended: Iterable[tuple[str, bytes]] = ()) -> None:
        """A folder with these attributes, whatever the one in the image has."""
        found = self.existing(real)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            raise CopyError(f"cannot copy a folder onto {real}, which is not a folder in the image", "choose another destination")
        self.make_folder(real, mtime_ns)
        self._finish(self.tree + real.rstrip("/"), self.owner or owner, self._mode(stat.S_IFDIR | mode), extended)
        self._times[real.rstrip("/")] = self._clamped(mtime_ns)

    def finish(self) -> None:
        """Set the times of folders, which every file put into them has moved. Call it once, at the end."""
        for real, mtime_ns in self._times.items():
            os.utime(self.tree + real, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    # -- files

    def copy(self, source: Source, node: Node, real: str) -> None:
        """``node``, which is no folder, becomes ``real``; its folder is made when it is missing."""
        found = node.stat
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFSOCK:
            return  # a socket without its process means nothing
        path = self.vacate(real)
        key = (found.st_dev, found.st_ino)
        if kind == stat.S_IFREG and found.st_nlink > 1 and key in self._links:
            os.link(self._links[key], path, follow_symlinks=False)
            return
        owner = self.owner or source.owner(node)
        if kind == stat.S_IFREG:
            self._regular(source, node, path, owner)
            self._links[key] = path
            return
        if kind == stat.S_IFLNK:
            os.symlink(source.link(node), path)
        elif kind == stat.S_IFIFO:
            os.mkfifo(path, 0o600)
        else:
            self.device(path, real, found.st_mode, found.st_rdev)
        self._finish(path, owner, None if kind == stat.S_IFLNK else self._mode(found.st_mode), (), found.st_mtime_ns)

    def write(self, real: str, content: bytes, mtime_ns: int) -> None:
        """A file with this content; mode 0644."""
        path = self.vacate(real)
        with open(os.open(path, _CREATE, 0o600), "wb") as file:
            file.write(content)
        self._finish(path, self.owner or (0, 0), self._mode(stat.S_IFREG | 0o644), (), mtime_ns)

    def vacate(self, real: str, replace: bool = False) -> str:
        """The path in the layer, in a folder, with nothing there. ``replace``: also where a folder is."""
        _check_name(real)
        _check_length(self.tree, real)
        self.make_folder(os.path.dirname(real), self.started)
        found = self.existing(real)
        path = self.tree + real
        if found is None:
            return path
        if stat.S_ISDIR(found.st_mode):
            if not replace:
                raise CopyError(f"cannot replace the folder {real} by a file", "choose another destination")
            self._hidden.add(real)
            for kept in [name for name in self._folders if name == real or name.startswith(real + "/")]:
                del self._folders[kept], self._times[kept]
            if os.path.lexists(path):
                shutil.rmtree(path)
            return path
        try:
            os.unlink(path)
        except FileNotFoundError:
            return path
        self._links = {key: kept for key, kept in self._links.items() if kept != path}
        return path

    def device(self, path: str, real: str, mode: int, number: int) -> None:
        """:raises CopyError: devices cannot be made here."""
        if stat.S_ISCHR(mode) and not number:
            raise CopyError(f"{real} is a character device 0:0, which deletes a file of the layers below", "exclude it")
        try:
            os.mknod(path, stat.S_IFMT(mode) | 0o600, number)
        except PermissionError:  # mknod(2) needs CAP_MKNOD in the first user namespace
            raise CopyError(f"{real} is a device, which only root can copy", "exclude it, or build as root") from None

    def finish_file(self, path: str, owner: Owner, mode: int | None, mtime_ns: int, extended: Iterable[tuple[str, bytes]] = ()) -> None:
        """Give a file that the caller made its attributes, as they stand; extended ones as far as it goes."""
        self._finish(path, owner, mode)
        for name, value in extended:
            with contextlib.suppress(OSError):  # this file system, or this user, cannot: Docker goes on, too
                os.setxattr(path, name, value, follow_symlinks=False)
        self.date_file(path, mtime_ns)

    def date_file(self, path: str, mtime_ns: int) -> None:
        """Set the time of what the caller made."""
        mtime_ns = self._clamped(mtime_ns)
        os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def finish_folder(self, real: str, owner: Owner, mode: int, mtime_ns: int, extended: Iterable[tuple[str, bytes]] = ()) -> None:
        """The same of a folder."""
        self.make_folder(real, mtime_ns)
        self.finish_file(self.tree + real, owner, mode, mtime_ns, extended)
        self._times[real] = self._clamped(mtime_ns)

    def raised(self, real: str) -> str:
        """The path in the layer of a file that is there, or below in the image: then it is copied up, as overlayfs would."""
        path = self.tree + real
        node = None if os.path.lexists(path) else self.merged.lookup(real)
        if node is not None:
            owner, mode = self.owner, self.mode
            self.owner = self.mode = None
            try:
                self.copy(ImageSource(self.merged), node, real)
            finally:
                self.owner, self.mode = owner, mode
        return path

    # -- inside

    def _regular(self, source: Source, node: Node, path: str, owner: Owner) -> None:
        read = source.open(node)
        try:
            found = os.fstat(read)
            if not stat.S_ISREG(found.st_mode) or (node.path and not same(found, node.stat)):
                raise CopyError(f"{node.real} changed while it was copied", "build again, or exclude it in .dockerignore")
            write = os.open(path, _CREATE, 0o600)
            try:
                _transfer(read, write, self.check)
                if node.path and not same(found, os.fstat(read)):
                    raise CopyError(f"{node.real} changed while it was copied", "build again, or exclude it in .dockerignore")
                self._finish(write, owner, self._mode(node.stat.st_mode), attributes(read), node.stat.st_mtime_ns)
            finally:
                os.close(write)
        finally:
            os.close(read)

    def _mode(self, mode: int) -> int:
        return stat.S_IMODE(mode) if self.mode is None else self.mode(mode)

    def _clamped(self, mtime_ns: int) -> int:
        return mtime_ns if self._latest is None else min(mtime_ns, self._latest)

    def _finish(
        self, path: str | int, owner: Owner, mode: int | None, extended: Iterable[tuple[str, bytes]] = (), mtime_ns: int | None = None
    ) -> None:
        by_name = isinstance(path, str)
        _chown(path, owner)
        if mode is not None:
            os.chmod(path, mode)  # after chown, which clears the set-user-id bit
        for name, value in extended:
            os.setxattr(path, name, value, follow_symlinks=not by_name)  # after chown, which drops file capabilities
        if mtime_ns is not None:
            mtime_ns = self._clamped(mtime_ns)
            os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=not by_name)


class _Merged(View):
    """The image below a layer folder, which knows of the folders made there: below one that is new, only the layer has anything."""

    def __init__(self, rootfs: Rootfs, tree: str, folders: Mapping[str, bool]) -> None:
        super().__init__(rootfs)
        self._tree, self._folders = tree, folders

    def lookup(self, path: str, follow: bool = False) -> Node | None:
        _check_length(self._tree, path)  # an archive's way is looked up step by step
        above, _, name = path.rpartition("/")
        if not follow and above in self._folders and name not in ("", ".", ".."):
            return self.at(path)  # no folder that was made has a link in its path
        return super().lookup(path, follow)

    def at(self, real: str, known: Known | None = None) -> Node | None:
        if not self._folders.get(real.rpartition("/")[0]):
            return super().at(real, known)
        path = self._tree + real
        if known is not None:
            known.pop(real, None)
        try:
            return Node(path, real, os.lstat(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return None


def _check_length(tree: str, real: str) -> None:
    """What is deeper or longer could be made, in steps: but no container could use it, and each step down costs time."""
    if "\0" in real:
        raise CopyError(f"the path {real[:60]!r} has a NUL in it", "no file can be called so")
    if real.count("/") > _DEEPEST or len(os.fsencode(tree + real)) > _LONGEST:
        what = f"deeper than {_DEEPEST} folders" if real.count("/") > _DEEPEST else f"longer than {_LONGEST} bytes"
        raise CopyError(f"the path {real[:60]}… is {what}", "choose a shorter one")


def _check_name(real: str) -> None:
    if os.path.basename(real).startswith(WHITEOUT_PREFIX):
        # In a layer's tar such a name deletes a file of the layers below (OCI image spec, layer.md, "Whiteouts").
        raise CopyError(f"{real}: names that begin with {WHITEOUT_PREFIX} cannot be stored in an image", "rename the file")


def _chown(path: str | int, owner: Owner) -> None:
    try:
        if isinstance(path, str):
            owners.give(path, *owner)
            return
        try:
            os.chown(path, *owner)
        except OSError as error:
            if error.errno != errno.EINVAL or not idmap.single():
                raise
            owners.record(path, os.fstat(path).st_mode, *owner)
    except OSError as error:
        raise CopyError(f"cannot give files to {owner[0]}:{owner[1]}: {error.strerror}", "leave --chown out, or build as root") from None


def _transfer(read: int, write: int, check: Callable[[], None]) -> None:
    """Content from one descriptor to another: inside the kernel where both file systems can (shared extents on XFS and Btrfs)."""
    try:
        while os.copy_file_range(read, write, _AT_ONCE):
            check()
    except OSError:  # EXDEV, EINVAL, EOPNOTSUPP: some file systems refuse; both offsets stand where it stopped
        pass
    while chunk := os.read(read, _CHUNK):  # also files whose size lies (procfs): copy_file_range copies nothing of them
        view = memoryview(chunk)
        while view:
            view = view[os.write(write, view):]
        check()
