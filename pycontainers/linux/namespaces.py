"""Namespaces: flags, clone3(2), unshare(2), setns(2). See namespaces(7)."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable

from .syscalls import fail, libc, syscall

CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00000080, 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
CLONE_INTO_CGROUP, CLONE_PARENT = 0x200000000, 0x8000

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
    # With CLONE_PARENT the exit signal is that of the calling process itself (clone3 takes no other).
    arguments = _CloneArgs(flags=flags, exit_signal=0 if flags & CLONE_PARENT else signal.SIGCHLD)
    if cgroup_fd is not None:
        arguments.flags |= CLONE_INTO_CGROUP
        arguments.cgroup = cgroup_fd
    try:
        return syscall("clone3", ctypes.byref(arguments), ctypes.sizeof(arguments), keep_gil=True)
    except OSError as error:
        if error.errno != errno.ENOSYS or flags & (CLONE_NEWTIME | CLONE_INTO_CGROUP) or cgroup_fd is not None:
            raise
    return syscall("clone", flags | signal.SIGCHLD, 0, 0, 0, 0, keep_gil=True)


def clone_through(enter: Callable[[], None], flags: int, cgroup_fd: int | None = None) -> tuple[int, int]:
    """Like :func:`clone`, from a process in between that calls ``enter`` first, to join or make namespaces; it ends at once.

    The new process is the caller's own child (CLONE_PARENT): a namespace for children (pid, time) and a joined user namespace bind
    whoever makes a process in them, and must not bind the caller.

    :param flags: with ``CLONE_PARENT`` both are children of the caller's parent, which has to wait for the one in between.
    :returns: pids of the new process and of the one in between, which is 0 when it has been waited for.
    :raises OSError: of ``enter`` or of the clone.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    between = clone(CLONE_PARENT) if flags & CLONE_PARENT else os.fork()
    if between == 0:
        answer = ""
        try:
            os.close(reader)
            enter()
            pid = clone(flags | CLONE_PARENT, cgroup_fd)
            if pid == 0:
                os.close(writer)
                return 0, 0
            answer = str(pid)
        except OSError as error:
            answer = f"{error.errno or errno.EIO} {error.strerror}"
        except BaseException as error:
            answer = f"{errno.EIO} {type(error).__name__}: {error}"
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        first, _, rest = file.read().decode().partition(" ")
    if not flags & CLONE_PARENT:
        try:
            os.waitpid(between, 0)
        except ChildProcessError:
            pass  # a caller that ignores SIGCHLD has it reaped by the kernel
        between = 0
    if rest or not first:
        raise OSError(int(first or errno.ECHILD), rest or "the process in between was killed")
    return int(first), between


def join(found: list[tuple[str, int]]) -> None:
    """Join namespaces, as (OCI type, descriptor). The calling process must have one thread.

    The user namespace comes first for those that it owns, and last for those that are owned further up, where joining it gives up the
    right to: so all others are tried before it, and what was refused again after it (setns(2), EPERM).
    """
    refused = []
    others = [(kind, fd) for kind, fd in found if kind != "user"]
    users = [fd for kind, fd in found if kind == "user"]
    for kind, fd in others:
        try:
            setns(fd, KINDS[kind][0])
        except OSError as error:
            if error.errno != errno.EPERM or not users:
                raise
            refused.append((kind, fd))
    for fd in users:
        setns(fd, CLONE_NEWUSER)
    for kind, fd in refused:
        setns(fd, KINDS[kind][0])


def shift_clocks(offsets: dict[str, tuple[int, int]]) -> None:
    """A time namespace for the children of the calling process. ``offsets``: clock (monotonic, boottime) -> (seconds, nanoseconds).

    Before anybody is in it: then its offsets are settled (time_namespaces(7)).
    """
    unshare(CLONE_NEWTIME)
    fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, "".join(f"{clock} {seconds} {nanoseconds}\n" for clock, (seconds, nanoseconds) in offsets.items()).encode())
    finally:
        os.close(fd)


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
