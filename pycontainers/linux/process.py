"""Which process is meant: a pid alone names another process later, on another boot, or in another pod.

A process is known by its pid, its start time (clock ticks since boot, field 22 of proc_pid_stat(5)), the boot id and the pid
namespace in which the pid counts.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import signal
from typing import Any

_NOBODY = (errno.ESRCH, errno.EINVAL)
"""Of pidfd_open(2): EINVAL where no process has this pid any more, but a session or a process group does."""


@functools.cache  # no process outlives its boot; a sweep asks once for each container
def boot_id() -> str:
    """The random id of this boot (differs between machines and reboots, not between containers of one machine)."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def pid_namespace() -> str:
    """The pid namespace of this process, as ``pid:[4026531836]``."""
    return os.readlink("/proc/self/ns/pid")


def _stat(pid: int) -> tuple[str, int, int]:
    """``(state, threads, start)`` of ``pid``. The name in field 2 may hold spaces and brackets: split after the last one.

    :raises ProcessLookupError: there is no such process.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    return fields[0].decode(), int(fields[17]), int(fields[19])


def start_time(pid: int) -> int:
    """When ``pid`` started, in clock ticks since boot.

    :raises ProcessLookupError: there is no such process.
    """
    return _stat(pid)[2]


def identity(pid: int) -> dict[str, Any]:
    """``{"pid", "start", "boot", "pidns"}``: what names this process for good, fit for JSON.

    :raises ProcessLookupError: there is no such process.
    """
    return {"pid": pid, "start": start_time(pid), "boot": boot_id(), "pidns": pid_namespace()}


def alive(identity: dict[str, Any]) -> bool | None:
    """Whether that very process runs (a zombie does not). None: it belongs to another machine or pid namespace, nobody here can
    say. An identity of an earlier boot of this machine looks the same as one of another machine: None too.
    """
    if identity.get("boot") != boot_id() or identity.get("pidns") != pid_namespace():
        return None
    try:
        state, threads, start = _stat(int(identity["pid"]))
    except (ProcessLookupError, PermissionError):
        return False
    # A leader that ended before its threads shows as Z while the process goes on.
    return start == identity.get("start") and not (state in "ZX" and threads <= 1)


def open_pidfd(identity: dict[str, Any]) -> int | None:
    """A pidfd of that very process, None when it is gone or not ours to see. The caller closes it.

    Opened first, compared afterwards: a pidfd pins the process, so the pid cannot be given to another in between.
    """
    if identity.get("boot") != boot_id() or identity.get("pidns") != pid_namespace():
        return None
    try:
        fd = os.pidfd_open(int(identity["pid"]))
    except OSError as error:
        if error.errno in _NOBODY:
            return None
        raise
    if alive(identity):
        return fd
    os.close(fd)
    return None


def send_signal(identity: dict[str, Any], number: int = signal.SIGTERM) -> bool:
    """Send a signal to that very process. False when it is gone."""
    fd = open_pidfd(identity)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


def ended(pidfd: int, timeout: float) -> bool:
    """Whether the process has ended, waiting ``timeout`` seconds for it: a pidfd is readable then (pidfd_open(2))."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(max(0, round(timeout * 1000))))


def wait_gone(pid: int, timeout: float) -> bool:
    """Wait until the process that has ``pid`` now has ended; False after ``timeout`` seconds."""
    try:
        fd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in _NOBODY:
            return True
        raise
    try:
        return ended(fd, timeout)
    finally:
        os.close(fd)
