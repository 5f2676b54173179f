"""Terminals: a master handed to whoever asked for it, or passed on from our own terminal in the foreground."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import termios
import tty
from collections.abc import Iterator

from ..errors import UsageError
from ..linux import pty

_NOT_FORWARDED = {
    getattr(signal, f"SIG{name}") for name in ("CHLD", "URG", "PIPE", "KILL", "STOP", "WINCH", "TTOU", "TTIN", "SEGV", "BUS", "FPE", "ILL")
}


def check(path: str, *, terminal: bool, detached: bool) -> None:
    """A terminal needs somebody who takes its master, and a socket for it something to send."""
    if terminal and detached and not path:
        raise UsageError("process.terminal needs --console-socket where nobody stays to pass it on", "the socket of whoever shows it")
    if path and not terminal:
        raise UsageError("--console-socket without process.terminal: there is no terminal to send", "set process.terminal, or --tty")


def connect(path: str) -> socket.socket:
    """To the socket at ``path``. :raises UsageError: nobody listens there."""
    conn = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        conn.connect(path)
    except OSError as error:
        conn.close()
        raise UsageError(f"--console-socket {path}: {error.strerror}", "somebody must listen there") from None
    return conn


def send(conn: socket.socket, master: int) -> None:
    """Hand the master over, with its name as the message (as runc and crun do); our copies are closed."""
    with conn:
        socket.send_fds(conn, [b"/dev/ptmx"], [master])
    os.close(master)


def hold_signals() -> None:
    """Keep signals waiting until :class:`Foreground` can pass them on: one that comes earlier would end us and leave the container."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _NOT_FORWARDED)


class Foreground:
    """Stays with a process: signals go on to it, and our terminal to its one. ``pidfd``: the process; ``master``: -1 without a terminal."""

    def __init__(self, pidfd: int, master: int) -> None:
        self._pidfd, self._master = pidfd, master
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in signal.valid_signals() - _NOT_FORWARDED:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, self._forward)
        signal.signal(signal.SIGWINCH, self._resize)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _forward(self, number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _resize(self, *_: object) -> None:
        if self._master >= 0 and os.isatty(0):
            pty.resize(self._master, *pty.size(0))

    def wait(self) -> None:
        """Until the process has ended and what it wrote to its terminal has been passed on."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.register(self._reader, select.POLLIN)
        if self._master >= 0:
            poll.register(self._master, select.POLLIN)
            poll.register(0, select.POLLIN)
        self._resize()
        with _raw(self._master >= 0 and os.isatty(0)):
            while True:
                ready = dict(poll.poll())
                if self._reader in ready:
                    os.read(self._reader, 4096)
                if self._master in ready and not _copy(self._master, 1):
                    poll.unregister(self._master)
                if 0 in ready and not _copy(0, self._master):
                    poll.unregister(0)
                if self._pidfd in ready:
                    break
            while self._master >= 0 and select.select([self._master], [], [], 0)[0] and _copy(self._master, 1):
                pass


def _copy(source: int, target: int) -> bool:
    try:
        data = os.read(source, 65536)
    except OSError:
        return False  # EIO: the last process has closed the terminal
    while data:
        data = data[os.write(target, data) :]
        if not data:
            return True
    return False


@contextlib.contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
