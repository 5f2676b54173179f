"""Namespaces: flags, clone3(2), unshare(2), setns(2). See namespaces(7)."""

from __future__ import annotations

import ctypes
import errno
import os
import signal

from .syscalls import fail, libc, syscall

CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00000080, 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
CLONE_INTO_CGROUP = 0x200000000

#: OCI name of a namespace type -> (flag, file name under /proc/PID/ns)
KINDS = {
    "user": (CLONE_NEWUSER, "user"),
    "pid": (CLONE_NEWPID, "pid"),
    "network": (CLONE_NEWNET, "net"),
    "mount": (CLONE_NEWNS, "mnt"),
    "uts": (CLONE_NEWUTS, "uts"),
    "ipc": (CLONE_NEWIPC, "ipc"),
    "cgroup": (CLONE_NEWCGROUP, "cgroup"),
    "time": (CLONE_NEWTIME, "time"),
}


class _CloneArgs(ctypes.Structure):
    """struct clone_args of <linux/sched.h>, version 2 (88 bytes)."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    ]


def clone(flags: int, cgroup_fd: int | None = None) -> int:
    """Fork into new namespaces at once; returns the pid in the parent and 0 in the child.

    Only for a single-threaded process: no at-fork handler runs. The user namespace is made first and owns the others
    (clone(2), user_namespaces(7)). With ``cgroup_fd`` the child starts inside that v2 cgroup and is never charged elsewhere.
    ``CLONE_NEWTIME`` works in clone3 and not in clone(2), whose low byte is the exit signal: where clone3 is ENOSYS (seccomp of
    an outer container), only a call without it falls back to clone(2).
    """
    arguments = _CloneArgs(flags=flags, exit_signal=signal.SIGCHLD)
    if cgroup_fd is not None:
        arguments.flags |= CLONE_INTO_CGROUP
        arguments.cgroup = cgroup_fd
    try:
        return syscall("clone3", ctypes.byref(arguments), ctypes.sizeof(arguments), keep_gil=True)
    except OSError as error:
        if error.errno != errno.ENOSYS or flags & (CLONE_NEWTIME | CLONE_INTO_CGROUP) or cgroup_fd is not None:
            raise
    return syscall("clone", flags | signal.SIGCHLD, 0, 0, 0, 0, keep_gil=True)


def unshare(flags: int) -> None:
    if libc.unshare(ctypes.c_int(flags)) < 0:
        raise fail("unshare", _names(flags))


def setns(fd: int, flags: int) -> None:
    """Join namespaces. ``fd`` is a namespace file, or a pidfd: then all of ``flags`` at once (Linux 5.8)."""
    if libc.setns(ctypes.c_int(fd), ctypes.c_int(flags)) < 0:
        raise fail("setns", _names(flags))


def flags_of(kinds: list[str]) -> int:
    """The clone flags of OCI namespace types. KeyError for an unknown one."""
    result = 0
    for kind in kinds:
        result |= KINDS[kind][0]
    return result


def links(pid: int | str = "self") -> dict[str, str]:
    """OCI type -> what the kernel says (``pid:[4026531836]``) for each namespace of a process; missing ones left out."""
    found = {}
    for kind, (_, name) in KINDS.items():
        try:
            found[kind] = os.readlink(f"/proc/{pid}/ns/{name}")
        except OSError:
            continue
    return found


def _names(flags: int) -> str:
    return ", ".join(kind for kind, (flag, _) in KINDS.items() if flags & flag)
