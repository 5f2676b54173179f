"""Pseudo-terminals of a container's own devpts instance (pty(7), devpts in the kernel's documentation).

Opened from inside the container's mount namespace, so that the terminal exists there (``ttyname`` finds it, /proc/self/fd/0 leads to
it), and verified by descriptor: an image, or a process that runs there already, chooses what the *path* /dev/pts/ptmx leads to.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import termios
from collections.abc import Callable

from .mounts import RESOLVE_NO_SYMLINKS, filesystem, openat2
from .syscalls import AT_FDCWD

_DEVPTS_SUPER_MAGIC = 0x1CD1
_TIOCSPTLCK, _TIOCGPTN, _TIOCGPTPEER = 0x40045431, 0x80045430, 0x5441
_PTMX = os.makedev(5, 2)
_SLAVE_MAJOR = 136  # Unix98 slaves; their minor is the terminal's number (drivers/tty/pty.c)
_OPEN = os.O_RDWR | os.O_NOCTTY  # without O_NOCTTY a session leader that has no terminal would get this one


def open_inside(ptmx: str = "/dev/pts/ptmx") -> tuple[int, int]:
    """(master, slave) of a new terminal on the devpts of the calling process's root. Both close on exec and belong to the caller.

    :raises OSError: there is no devpts, or what is there is none (ENODEV: somebody put another file in its place).
    """
    master = openat2(AT_FDCWD, ptmx, _OPEN, RESOLVE_NO_SYMLINKS)
    try:
        _verify(master, ptmx, lambda number: number == _PTMX)
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        (number,) = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, b"\0" * 4))
        # Not by its path: /dev/pts/N could be a link by now (CVE-2025-52565). The kernel opens the other end of this very master.
        slave = fcntl.ioctl(master, _TIOCGPTPEER, _OPEN | os.O_CLOEXEC)
    except BaseException:
        os.close(master)
        raise
    try:
        where = f"/dev/pts/{number}"
        _verify(slave, where, lambda found: found == os.makedev(_SLAVE_MAJOR, number))
        if os.fstat(slave).st_dev != os.fstat(master).st_dev:
            raise OSError(19, f"{where} belongs to another devpts")
    except BaseException:
        os.close(master)
        os.close(slave)
        raise
    return master, slave


def _verify(fd: int, path: str, expected: Callable[[int], bool]) -> None:
    found = os.fstat(fd)
    if filesystem(fd) != _DEVPTS_SUPER_MAGIC or not stat.S_ISCHR(found.st_mode) or not expected(found.st_rdev):
        raise OSError(19, f"{path} is not a terminal of a devpts")


def resize(fd: int, rows: int, columns: int) -> None:
    """The window's size; the foreground processes get SIGWINCH when it has changed (ioctl_tty(2))."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def size(fd: int) -> tuple[int, int]:
    """(rows, columns) of a terminal."""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    return rows, columns


def make_controlling(fd: int) -> None:
    """Make it the controlling terminal of the calling session leader, which has none (ioctl_tty(2), TIOCSCTTY)."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
