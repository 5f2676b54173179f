"""Mounts by descriptor: open_tree, move_mount, mount_setattr, fsopen, openat2, pivot_root.

A path inside a root file system that is not ours is never given to the kernel as a string to follow: it is opened with
``openat2(RESOLVE_IN_ROOT)`` and mounted on by descriptor, so that a link in an image (CVE-2019-19921, CVE-2025-31133 and
their family) cannot lead outside.
"""

from __future__ import annotations

import ctypes
import os
import stat

from .syscalls import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE, fail, libc, syscall

MS_NOSUID, MS_NODEV = 2, 4
MS_REC, MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 16384, 1 << 17, 1 << 18, 1 << 19, 1 << 20
MS_MOVE, MNT_DETACH = 8192, 2
PROC_SUPER_MAGIC = 0x9FA0  # statfs(2)
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_STRICTATIME = 1, 2, 4, 8, 0x20
MOUNT_ATTR_NOATIME, MOUNT_ATTR_IDMAP = 0x10, 0x100000
MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_ATIME = 0x80, 0x200000, 0x70  # the last is the mask of the three ways of atime
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 1, 2, 4, 8, 0x10
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_F_EMPTY, _MOVE_T_EMPTY = 4, 0x40
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_TRIES = 100  # of a look-up that others disturb


class _MountAttr(ctypes.Structure):
    """struct mount_attr of <linux/mount.h>."""

    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


class _OpenHow(ctypes.Structure):
    """struct open_how of <linux/openat2.h>."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2). ``options`` is limited to one page by the kernel."""
    if (
        libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(options) if options else None)
        < 0
    ):
        raise fail("mount", f"{kind or 'propagation'} on {target}")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    if libc.umount2(os.fsencode(target), ctypes.c_int(flags)) < 0:
        raise fail("umount2", target)


def open_tree(path: str, *, at: int = AT_FDCWD, recursive: bool = False, clone: bool = True) -> int:
    """A detached copy of the mount at ``path`` (``clone``), as a descriptor that ``move_mount`` places."""
    flags = _OPEN_TREE_CLOEXEC | (_OPEN_TREE_CLONE if clone else 0) | (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    return syscall("open_tree", at, os.fsencode(path), flags, detail=path)


def move_mount(source: int, target: int | str) -> None:
    """Place a detached mount on a descriptor or a trusted path."""
    if isinstance(target, int):
        syscall("move_mount", source, b"", target, b"", _MOVE_F_EMPTY | _MOVE_T_EMPTY)
    else:
        syscall("move_mount", source, b"", AT_FDCWD, os.fsencode(target), _MOVE_F_EMPTY, detail=target)


def set_attributes(
    fd: int,
    attributes: int = 0,
    *,
    clear: int = 0,
    userns: int | None = None,
    propagation: int = 0,
    recursive: bool = False,
    path: str = "",
) -> None:
    """mount_setattr(2) on a descriptor: flags to set, and with ``userns`` the ID map of that user namespace."""
    attr = _MountAttr(attr_set=attributes, attr_clr=clear, propagation=propagation)
    if userns is not None:
        attr.attr_set |= MOUNT_ATTR_IDMAP
        attr.userns_fd = userns
    flags = (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    syscall("mount_setattr", fd, os.fsencode(path), flags, ctypes.byref(attr), ctypes.sizeof(attr), detail=path)


def new_mount(kind: str, options: list[tuple[str, str]], attributes: int = 0, source: str = "") -> int:
    """A new file system as a detached mount: fsopen, fsconfig for each option ("" as value: a flag), fsmount.

    :raises OSError: with what the file system itself wrote about it, which no errno tells.
    """
    context = syscall("fsopen", kind.encode(), 1, detail=kind)
    try:
        if source:
            _configure(context, "source", source)
        for key, value in options:
            _configure(context, key, value)
        syscall("fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0, detail=kind)
        return syscall("fsmount", context, 1, attributes, detail=kind)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}{_log(context)}") from None
    finally:
        os.close(context)


def _configure(context: int, key: str, value: str) -> None:
    if value:
        syscall("fsconfig", context, _FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0, detail=f"{key}={value}")
    else:
        syscall("fsconfig", context, _FSCONFIG_SET_FLAG, key.encode(), None, 0, detail=key)


def _log(context: int) -> str:
    """The context's message log: a line a read, ``e`` (error), ``w`` or ``i`` and a space before it (fs/fsopen.c); ENODATA at the end."""
    lines: list[str] = []
    try:
        while len(lines) < 4:
            lines.append(os.read(context, 1024).decode("utf-8", "replace").strip()[2:])
    except OSError:
        pass
    return f": {'; '.join(lines)}" if lines else ""


def openat2(at: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2) (Linux 5.6); always close-on-exec."""
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    for _ in range(_TRIES):
        try:
            return syscall("openat2", at, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how), detail=path)
        except BlockingIOError:
            pass  # EAGAIN: somebody on this machine renamed something while a ".." was resolved; openat2(2) asks to try again
    return syscall("openat2", at, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how), detail=path)


def open_in_root(root: int, path: str, flags: int = os.O_PATH, mode: int = 0) -> int:
    """Open ``path`` as seen by a process whose root is the descriptor ``root``; magic links are refused."""
    return openat2(root, path.lstrip("/") or ".", flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, mode)


def make_in_root(root: int, path: str, *, directory: bool, mode: int = 0o755, made: list[str] | None = None) -> int:
    """Open a mount point inside ``root`` and make what is missing of it; returns an O_PATH descriptor.

    Each component is opened in the root from the start, so a link swapped in meanwhile (CVE-2024-45310) still resolves inside;
    a final component that is a dangling link is refused. ``made`` collects the paths that were created.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    here = open_in_root(root, "/")
    try:
        for index in range(len(parts)):
            current = "/".join(parts[: index + 1])
            try:
                found = open_in_root(root, current)
            except FileNotFoundError:
                last = index == len(parts) - 1
                _make_at(here, parts[index], directory or not last, mode)
                if made is not None:
                    made.append("/" + current)
                found = openat2(here, parts[index], os.O_PATH | os.O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
            os.close(here)
            here = found
            if stat.S_ISLNK(os.fstat(here).st_mode):
                raise OSError(40, f"mount point {path} goes through a link to nothing in the image")
        kind = os.fstat(here).st_mode
        if parts and stat.S_ISDIR(kind) != directory:
            raise OSError(20 if directory else 21, f"mount point {path} is {'not a folder' if directory else 'a folder'} in the image")
        return here
    except BaseException:
        os.close(here)
        raise


def _make_at(at: int, name: str, directory: bool, mode: int) -> None:
    if name == "..":
        raise OSError(22, "mount point goes through '..'")
    try:
        if directory:
            os.mkdir(name, mode, dir_fd=at)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=at))
    except FileExistsError:
        pass  # somebody was quicker (a shared volume); what is there is opened without following links


def pivot_root_here() -> None:
    """pivot_root(".", ".") and detach the old root (pivot_root(2), NOTES): no folder for the old root is needed."""
    syscall("pivot_root", b".", b".")
    umount(".", MNT_DETACH)
    os.chdir("/")


def move_root_here() -> None:
    """Where pivot_root is refused since the root is the boot RAM disk: the working directory's mount moved over "/", and chroot to it
    (switch_root(8)). What it covers stays mounted behind it.
    """
    mount(".", "/", "", MS_MOVE)
    os.chroot(".")
    os.chdir("/")


_Statfs = ctypes.c_long * 32  # kept, as :data:`.capabilities._Both`


def filesystem(fd: int) -> int:
    """The magic number of the file system that a descriptor lies on: the first word of struct statfs."""
    buffer = _Statfs()
    if libc.fstatfs(fd, ctypes.byref(buffer)) < 0:
        raise fail("fstatfs")
    return int(buffer[0])
