"""The other end of a seccomp filter with SCMP_ACT_NOTIFY: system calls that wait for our answer (seccomp_unotify(2))."""

from __future__ import annotations

import errno
import fcntl
import struct

_RECV, _SEND, _ID_VALID = 0xC0502100, 0xC0182101, 0x40082102  # SECCOMP_IOCTL_NOTIF_* of <linux/seccomp.h>
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif with struct seccomp_data
_ANSWER = struct.Struct("=QqiI")  # struct seccomp_notif_resp


class Call:
    """A waiting call: ``pid`` of the thread (in our pid namespace), ``number``, ``arch`` (AUDIT_ARCH_*), six ``arguments``."""

    __slots__ = ("arch", "arguments", "id", "number", "pid")

    def __init__(self, data: bytes) -> None:
        self.id, self.pid, _, self.number, self.arch, _, *arguments = _NOTIFICATION.unpack(data)
        self.arguments: list[int] = arguments


def receive(listener: int) -> Call | None:
    """The next call; None when the caller has gone meanwhile."""
    try:
        return Call(fcntl.ioctl(listener, _RECV, b"\0" * _NOTIFICATION.size))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise


def valid(listener: int, call: Call) -> bool:
    """Whether the call still waits: then its pid means who it meant, and what was read of its memory was its own."""
    try:
        fcntl.ioctl(listener, _ID_VALID, struct.pack("=Q", call.id))
        return True
    except OSError:
        return False


def answer(listener: int, call: Call, value: int = 0, error: int = 0) -> None:
    """The call returns ``value``, or fails with ``error`` (an errno)."""
    _send(listener, _ANSWER.pack(call.id, value, -error, 0))


def let_through(listener: int, call: Call) -> None:
    """The kernel does it after all. Never as a verdict about safety: its arguments in memory may change meanwhile."""
    _send(listener, _ANSWER.pack(call.id, 0, 0, _CONTINUE))


def _send(listener: int, data: bytes) -> None:
    try:
        fcntl.ioctl(listener, _SEND, data)
    except OSError as error:
        if error.errno != errno.ENOENT:  # the caller was killed
            raise
