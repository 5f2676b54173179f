"""A container's standard streams: output to the log and to whoever is attached, input from whoever may give it.

Nobody is waited for in a blocking call: while an attached client does not read, the container's streams are left alone (it waits then,
as with Docker), and everything else of the supervisor goes on.
"""

from __future__ import annotations

import fcntl
import os
import select
from typing import TYPE_CHECKING

from . import logs
from .loop import WRITE, Call, Loop

if TYPE_CHECKING:
    from typing import Protocol

    class Client(Protocol):
        """Somebody who is attached. ``behind``: it has not taken yet what it was offered."""

        @property
        def behind(self) -> bool: ...

        def offer(self, data: bytes) -> None: ...

_READ = 1 << 16  # bytes a read: the capacity of a pipe
_TERMINAL = 1 << 20  # bytes: above the limit of its buffers (TTYB_DEFAULT_MEM_LIMIT in drivers/tty/tty_buffer.c: 640 KiB)
_TAGS = {"stdout": b"\x01", "stderr": b"\x02"}


class Output:
    """Both streams of one container, or its console.

    :ivar clients: who is attached; each gets every piece of output as a message: a tag byte (1 stdout, 2 stderr), then the data.
    """

    def __init__(self, log: str, loop: Loop) -> None:
        self.clients: list[Client] = []
        self.streams: dict[int, str] = {}
        self._loop = loop
        self._path = log
        self._log: logs.Writer | None = None

    def pipes(self) -> tuple[int, int]:
        """Make both pipes; returns the ends for the container."""
        ends = []
        for stream in ("stdout", "stderr"):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(reader, False)
            self.streams[reader] = stream
            ends.append(writer)
        return ends[0], ends[1]

    def console(self, master: int) -> None:
        """The master of the container's terminal: one stream, as with Docker."""
        os.set_blocking(master, False)
        self.streams[master] = "stdout"

    def open_log(self) -> None:
        if self._log is None:
            self._log = logs.Writer(self._path)

    def watch(self) -> None:
        """Begin to pass on, or go on after a client had to be waited for."""
        for fd in self.streams:
            self._loop.watch(fd, self._reader(fd))

    def drain(self) -> None:
        """After the first process ended its whole pid namespace is gone, so the pipes hold all that will ever come.

        A descriptor that was passed out of the container, or a process of it that shares another pid namespace, keeps a pipe open: that is
        not waited for (conmon neither), and who goes on writing does not keep the container from ending. What lay in a pipe at the end is
        no more than its capacity, so that much is read, and no clock decides what is lost (Docker waits two seconds:
        handleContainerExit in moby, daemon/monitor.go).
        """
        poll = select.poll()
        for fd in list(self.streams):
            poll.register(fd, select.POLLIN)
            left = _capacity(fd)
            while left > 0 and fd in self.streams and poll.poll(0):
                left -= self._pump(fd)
            poll.unregister(fd)
            if fd in self.streams:
                self._close(fd)
        if self._log is not None:
            self._log.end_lines()

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def _reader(self, fd: int) -> Call:
        return lambda: self._readable(fd)

    def _readable(self, fd: int) -> None:
        self._pump(fd)
        if any(client.behind for client in self.clients):
            for other in self.streams:
                self._loop.forget(other)

    def _pump(self, fd: int) -> int:
        """Pass on what is there; how many bytes."""
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""  # EIO: the last holder of the terminal's other side has closed it (pty(7))
        if not data:
            self._close(fd)
            return 0
        stream = self.streams[fd]
        if self._log is not None:
            self._log.feed(stream, data)
        for client in list(self.clients):
            client.offer(_TAGS[stream] + data)
        return len(data)

    def _close(self, fd: int) -> None:
        self._loop.forget(fd)
        os.close(fd)
        del self.streams[fd]


def _capacity(fd: int) -> int:
    """The most that can lie in a pipe or terminal."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    except OSError:
        return _TERMINAL


class Input:
    """The container's standard input, held open here: the writing end of a pipe, or a copy of the console's master.

    A descriptor of its own in either case, which is closed here. ``taken``: called when there is room again after :meth:`feed` said no.
    """

    _ROOM = 1 << 18  # bytes that wait for a program that does not read, before clients wait too

    def __init__(self, fd: int, loop: Loop, console: bool, taken: Call) -> None:
        self._fd, self._loop, self._console, self._taken = fd, loop, console, taken
        self._waiting = bytearray()
        self._ended = False
        os.set_blocking(fd, False)

    def feed(self, data: bytes) -> bool:
        """Whether there is room for more."""
        if self._fd >= 0 and not self._ended:
            self._waiting += data
            self._flush()
        return len(self._waiting) <= self._ROOM

    def end(self) -> None:
        """No more input: the pipe ends; a terminal gets its end-of-file character (termios(3), VEOF)."""
        if self._console:
            self.feed(b"\x04")
        elif self._fd >= 0:
            self._ended = True
            self._flush()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _flush(self) -> None:
        before = len(self._waiting)
        self._write()
        if len(self._waiting) <= self._ROOM < before:
            self._taken()

    def _write(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: os.write(self._fd, self._waiting)]
        except BlockingIOError:
            self._loop.watch(self._fd, self._flush, WRITE)
            return
        except OSError:  # EPIPE: nobody reads any more
            self._waiting.clear()
            self._ended = True
        self._loop.forget(self._fd)
        if self._ended:
            self.close()
