"""The mounts that the child makes inside, in the order of the spec, and what is hidden or frozen when all of them are there.

Every target is resolved inside the container's root and mounted on by descriptor (:mod:`pycontainers.linux.mounts`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import IsolationError
from ..linux import mounts, syscalls
from ..linux.mount_options import Options
from . import defaults
from .copyup import copy_up
from .rootfs import Device, Outside

if TYPE_CHECKING:
    from .pattern import Pattern

PROC_SUPER_MAGIC = mounts.PROC_SUPER_MAGIC
_CGROUPS = ("cgroup", "cgroup2")
_STRING_LIMIT = 256  # bytes that fsconfig(2) takes as one value
_DEV_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
    "core": "/proc/kcore",
}


class Builder:
    """Puts the root in its place and all mounts into it.

    What a container has of its namespaces alone (proc, sysfs, /dev and what is in it) may be mounted ahead, in a root of its own
    (:meth:`prepare`), by a process that does not know yet which container it will be: :meth:`build` then puts it into its place where it
    would mount it. Without :meth:`prepare` there is nothing to put, and all is mounted in its turn.

    :ivar made: mount points that had to be made in the image. :ivar frozen: descriptors of file systems to be made read-only at the end.
        ``hidden``: paths in proc that are masked and frozen already.
    """

    def __init__(self) -> None:
        self.made: list[str] = []
        self.frozen: list[int] = []
        self.hidden: frozenset[str] = frozenset()
        self._here = "."  # an empty folder of ours, which the container's root is put on
        self._root = -1
        self._ready: dict[int, int] = {}  # index in the spec's ``mounts`` -> what is mounted already, or -1 for what lies in another
        self._binds: dict[int, int] = {}
        self._devices: list[Device] = []
        self._folders: dict[str, int] = {}

    def prepare(self, pattern: Pattern, devices: list[Device]) -> None:
        """Mount what the pattern has, in a root of our own, which becomes this process's: of the machine's mounts nothing is left to it."""
        here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._devices = devices
        self._root = mounts.new_mount("tmpfs", [("mode", "755"), ("size", "64k")], mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV)
        mounts.move_mount(self._root, here)
        for index, mount in pattern.ready:
            within = mount["destination"].rpartition("/")[0]
            place = mounts.make_in_root(self._root, mount["destination"], directory=True, made=self.made if within else None)
            fd = self._new(mount, Options(mount.get("options") or []), place, existed=False)
            os.close(place)
            self._ready[index] = -1 if within else fd
            if within:
                os.close(fd)
        os.mkdir("r", 0o755, dir_fd=self._root)
        # After the mounts: the kernel lets nobody but the machine's root mount a proc who does not see one whole (mount_too_revealing).
        os.fchdir(self._root)
        mounts.pivot_root_here()
        os.close(self._root)
        self._here = "/r"
        hide(pattern.frozen, pattern.masked)
        self.hidden = frozenset((*pattern.frozen, *pattern.masked))

    @property
    def held(self) -> list[int]:
        """Descriptors of what :meth:`prepare` has mounted."""
        return [fd for fd in self._ready.values() if fd >= 0]

    def build(self, spec: dict[str, Any], outside: Outside, cgroups: list[tuple[str, str]]) -> None:
        """Place the root, then all mounts. In a mount namespace that is joined our empty folder does not exist: there it covers the
        bundle's own.

        :param cgroups: [(name of the mount under /sys/fs/cgroup, v1 controllers or "" for v2)]
        """
        self._root, self._binds, self._folders = outside.root, outside.binds, outside.cgroups
        self._devices = outside.devices
        joined = any(n["type"] == "mount" and n.get("path") for n in spec["linux"]["namespaces"])
        here = os.open(spec["root"]["path"] if joined else self._here, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mounts.move_mount(self._root, here)
        if spec["root"].get("readonly"):
            # Held now: a volume may cover the place of one of the root's own file systems.
            folders = spec.get("annotations", {}).get("io.pycontainers.folders", "").split(":")
            self.frozen += [mounts.open_in_root(self._root, folder) for folder in ("/", *filter(None, folders))]
        asked = spec.get("mounts") or []
        for index, mount in enumerate(asked):
            if self._ready.get(index) == -1:
                continue  # it came with what it lies in
            try:
                self._mount(index, mount, cgroups)
            except OSError as error:
                what = f"mounts[{index}]: {mount.get('type') or 'mount'} on {mount['destination']}"
                words = ",".join(mount.get("options") or []) or "none"
                raise IsolationError(f"{what}: {error.strerror}", f"its options are {words}") from None
        if not any(os.path.normpath(mount["destination"]) == "/dev" for mount in asked):
            _refuse_link(self._root, "/dev")
            dev = mounts.make_in_root(self._root, "/dev", directory=True, made=self.made)
            self._fill(dev)
            os.close(dev)

    def _mount(self, index: int, mount: dict[str, Any], cgroups: list[tuple[str, str]]) -> None:
        root, target, kind = self._root, mount["destination"], mount.get("type") or ""
        options = Options(mount.get("options") or [])
        bound = self._binds.get(index)
        directory = bound is None or stat.S_ISDIR(os.fstat(bound).st_mode)
        if kind in ("proc", "sysfs") or target in ("/proc", "/sys", "/dev"):
            _refuse_link(root, target)
        before = len(self.made)
        place = mounts.make_in_root(root, target, directory=directory, made=self.made)
        try:
            if kind not in ("proc", "sysfs") and self._lies_in_proc(place):
                # A mount inside /proc redirects what we write there (CVE-2019-16884, CVE-2023-27561).
                raise IsolationError(f"mount on {target} lies inside /proc", "choose another target")
            if bound is not None:
                mounts.move_mount(bound, place)
            elif kind in _CGROUPS:
                self._cgroup(place, options, cgroups)
            else:
                fd = self._ready.get(index, -1)
                if fd >= 0:
                    mounts.move_mount(fd, place)
                else:
                    fd = self._new(mount, options, place, existed=len(self.made) == before)
                if _late(mount, options):
                    self.frozen.append(fd)
                else:
                    os.close(fd)
        finally:
            os.close(place)

    def _lies_in_proc(self, place: int) -> bool:
        if mounts.filesystem(place) == PROC_SUPER_MAGIC:
            return True
        # What hides something in it already is another file system: where that lies only its name tells.
        proc = f"{self._here}/proc"
        return bool(self.hidden) and os.readlink(f"{proc}/self/fd/{place}").startswith(f"{proc}/")

    def _new(self, mount: dict[str, Any], options: Options, place: int, *, existed: bool) -> int:
        """Mount a new file system on ``place``; its descriptor."""
        kind, source = mount["type"], mount.get("source") or ""
        data, bits = options.data, options.set | options.set_below
        if kind == "tmpfs" and existed and not any(key == "mode" for key, _ in data):
            data = [*data, ("mode", f"{stat.S_IMODE(os.fstat(place).st_mode):o}")]  # it looks as what it covers does, as with runc
        if bits & mounts.MOUNT_ATTR_RDONLY and source.startswith("/"):
            data = [*data, ("ro", "")]  # a disk: its file system too, and not the mount alone
        bits &= ~_late(mount, options)
        if any(len(value) >= _STRING_LIMIT for _, value in data):
            words = ",".join(f"{key}={value}" if value else key for key, value in data)
            os.fchdir(place)
            mounts.mount(source or kind, ".", kind, 0, words)
            fd = mounts.open_in_root(self._root, mount["destination"])
            mounts.set_attributes(fd, bits)
        else:
            fd = mounts.new_mount(kind, data, bits, source)
            if options.copy_up and existed:
                copy_up(place, fd)
            mounts.move_mount(fd, place)
        options.apply_propagation(fd)
        if mount["destination"] == "/dev":
            self._fill(fd)
        return fd

    def _cgroup(self, place: int, options: Options, cgroups: list[tuple[str, str]]) -> None:
        """Our own cgroups, as the cgroup namespace shows them: one v2 tree, or a folder for each v1 hierarchy."""
        bits = options.set | options.set_below
        if len(cgroups) == 1 and not cgroups[0][1]:
            fd = self._hierarchy("", "", bits)
            mounts.move_mount(fd, place)
            os.close(fd)
            return
        late = bits & mounts.MOUNT_ATTR_RDONLY
        base = mounts.new_mount("tmpfs", [("mode", "755"), ("size", "64k")], bits & ~late, "cgroup")
        mounts.move_mount(base, place)
        for name, controllers in cgroups:
            os.mkdir(name, 0o755, dir_fd=base)
            fd = self._hierarchy(name, controllers, bits)
            target = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base)
            mounts.move_mount(fd, target)
            os.close(target)
            os.close(fd)
            for alias in name.split(",") if "," in name else []:
                os.symlink(name, alias, dir_fd=base)
        mounts.set_attributes(base, late)
        os.close(base)

    def _hierarchy(self, name: str, controllers: str, bits: int) -> int:
        if name in self._folders:  # without a cgroup namespace: its own folder, bound
            fd = self._folders.pop(name)
            mounts.set_attributes(fd, bits)
            return fd
        words = [word.partition("=") for word in controllers.split(",") if word]  # "name=systemd" is the one with a value
        return mounts.new_mount("cgroup" if words else "cgroup2", [(key, value) for key, _, value in words], bits)

    def _fill(self, dev: int) -> None:
        """Device nodes and links into a /dev."""
        for device in self._devices:
            self._device(device, dev)
        for name, target in _DEV_LINKS.items():
            try:
                os.symlink(target, name, dir_fd=dev)
            except FileExistsError:
                pass

    def _device(self, device: Device, dev: int) -> None:
        folder, _, name = device.path.rpartition("/")
        parent = dev if folder == "/dev" else mounts.make_in_root(self._root, folder, directory=True, made=self.made)
        try:
            if device.fd >= 0 or not device.make(parent, name):
                _bind_device(device, parent, name)
        finally:
            if parent != dev:
                os.close(parent)


def _late(mount: dict[str, Any], options: Options) -> int:
    """MOUNT_ATTR_RDONLY for what becomes read-only when it is filled."""
    late = options.copy_up or mount["destination"] == "/dev"
    return (options.set | options.set_below) & mounts.MOUNT_ATTR_RDONLY if late else 0


def _bind_device(device: Device, parent: int, name: str) -> None:
    fd = device.fd if device.fd >= 0 else mounts.open_tree(device.path)
    found = os.fstat(fd)
    if stat.S_IFMT(found.st_mode) != device.format or found.st_rdev != device.number:
        raise IsolationError(f"{device.path} of this machine is not the device it should be", "linux.devices names type, major and minor")
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=parent))
    except FileExistsError:
        pass
    place = mounts.openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, mounts.RESOLVE_NO_SYMLINKS | mounts.RESOLVE_BENEATH)
    mounts.move_mount(fd, place)
    os.close(place)


def _refuse_link(root: int, target: str) -> None:
    """/proc, /sys and /dev must be folders of the image (CVE-2019-19921; CVE-2026-41579 for /dev), or not there at all."""
    try:
        os.close(mounts.openat2(root, target.lstrip("/"), os.O_PATH, mounts.RESOLVE_IN_ROOT | mounts.RESOLVE_NO_SYMLINKS))
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise IsolationError(
            f"{target} is a link in the image ({error.strerror})", "an image must have a folder there, or nothing"
        ) from None


def _open_exact(path: str) -> int | None:
    try:
        return mounts.openat2(syscalls.AT_FDCWD, path, os.O_PATH, mounts.RESOLVE_NO_SYMLINKS)
    except (FileNotFoundError, NotADirectoryError):
        return None  # not on this kernel
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        # A link in the place of what must be hidden or frozen: passing over it would leave it open (CVE-2019-19921).
        raise IsolationError(f"{path} cannot be hidden or frozen: it is a link in the container ({error.strerror})", "") from None


def hide(frozen: Iterable[str], masked: Iterable[str]) -> None:
    """Read-only paths, then masked ones, in our own root."""
    for path in frozen:
        freeze(path)
    for path in masked:
        mask(path)


def freeze(path: str) -> None:
    """Make what is at ``path`` and below read-only."""
    place = _open_exact(path)
    if place is None:
        return
    tree = mounts.open_tree("", at=place, recursive=True)
    mounts.set_attributes(tree, mounts.MOUNT_ATTR_RDONLY, recursive=True)
    mounts.move_mount(tree, place)
    os.close(tree)
    os.close(place)


def open_sysctl(key: str) -> int:
    """A descriptor to write ``net.ipv4.ip_forward`` or ``net/ipv4/conf/eth0.1/forwarding``: what separates is what comes first (sysctl(8)).

    :raises OSError: no such file, or one that is not the kernel's: a mount in /proc would redirect the write (CVE-2025-52881).
    """
    dot, slash = key.find("."), key.find("/")
    path = key if slash >= 0 and (dot < 0 or slash < dot) else key.replace(".", "/")
    if ".." in path.split("/"):
        raise OSError(22, "a sysctl has no '..' in its name")  # it would stay beneath, and be another namespace's or the machine's
    base = os.open("/proc/sys", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fd = mounts.openat2(base, path, os.O_WRONLY, mounts.RESOLVE_BENEATH | mounts.RESOLVE_NO_SYMLINKS | mounts.RESOLVE_NO_XDEV)
        if mounts.filesystem(fd) != mounts.PROC_SUPER_MAGIC:
            os.close(fd)
            raise OSError(19, "/proc/sys is not the kernel's")
        return fd
    finally:
        os.close(base)


def mask(path: str) -> None:
    """A file gets a /dev/null that was verified (CVE-2025-31133: it could be a link), a folder an empty read-only tmpfs."""
    place = _open_exact(path)
    if place is None:
        return
    if stat.S_ISDIR(os.fstat(place).st_mode):
        cover = mounts.new_mount("tmpfs", [("size", "0"), ("nr_inodes", "1")], mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NOSUID)
    else:
        null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.fstat(null).st_rdev != os.makedev(*defaults.DEVICES["null"]):
            raise IsolationError("/dev/null in the container is not the null device", "")
        cover = mounts.open_tree("", at=null)
        os.close(null)
    mounts.move_mount(cover, place)
    os.close(cover)
    os.close(place)


def bind_console(terminal: int) -> None:
    """The terminal as /dev/console too: what is bound is our descriptor and not a path under /dev/pts, and what it is bound on is no
    link (CVE-2025-52565).
    """
    try:
        os.close(os.open("/dev/console", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    place = mounts.openat2(syscalls.AT_FDCWD, "/dev/console", os.O_PATH | os.O_NOFOLLOW, mounts.RESOLVE_NO_SYMLINKS)
    try:
        if stat.S_ISLNK(os.fstat(place).st_mode):
            raise IsolationError("/dev/console is a link in the image", "an image must have a file there, or nothing")
        tree = mounts.open_tree("", at=terminal)
        mounts.move_mount(tree, place)
        os.close(tree)
    finally:
        os.close(place)
