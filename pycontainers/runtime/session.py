"""A client's end of a process in a container: its output, its input, the size of its terminal, and at the end how it ended.

Two kinds with one face: attached to a container's supervisor (:class:`Attached`), or to an exec (:class:`Executed`). :meth:`Session.stream`
is enough for who only reads; a terminal polls :meth:`Session.sources` beside its own descriptors.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import struct
import termios
from collections.abc import Iterator
from typing import Any

from ..linux import sockets

_STREAMS = {1: "stdout", 2: "stderr"}
_CHUNK = 1 << 16


class Session:
    """``exit`` is None until the end, and stays None where nobody could say (the supervisor was killed). ``tty``: it has a terminal."""

    tty = False
    exit: dict[str, Any] | None = None
    over = False

    def sources(self) -> list[int]:
        """Descriptors to poll for reading."""
        raise NotImplementedError

    def receive(self, fd: int) -> list[tuple[str, bytes]]:
        """What came through ``fd``, one of :meth:`sources`, which is readable: (``stdout`` or ``stderr``, bytes). Sets ``over``."""
        raise NotImplementedError

    def sink(self) -> int:
        """Where input goes, to be polled for writing before :meth:`offer`; -1 where none is taken (any more)."""
        raise NotImplementedError

    def offer(self, data: bytes) -> int:
        """Give input for the process without waiting: how many bytes were taken. All of them when nobody reads any more."""
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Input for the process. Waits while it does not read, which it may do until somebody reads its output."""
        poll = select.poll()
        while data := data[self.offer(data) :]:
            poll.register(self.sink(), select.POLLOUT)
            poll.poll()

    def end_input(self) -> None:
        """No more input."""
        raise NotImplementedError

    def resize(self, rows: int, columns: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Let go: the process goes on (detach)."""
        raise NotImplementedError

    def stream(self) -> Iterator[tuple[str, bytes]]:
        """Everything until the end."""
        poll = select.poll()
        while not self.over:
            sources = self.sources()
            for fd in sources:
                poll.register(fd, select.POLLIN)
            ready = poll.poll()
            for fd in sources:
                poll.unregister(fd)
            for fd, _ in ready:
                yield from self.receive(fd)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Attached(Session):
    """To a container. ``conn``: its supervisor, after the answer to a start or an attach."""

    def __init__(self, conn: socket.socket, tty: bool) -> None:
        conn.settimeout(None)
        self._conn, self.tty = conn, tty

    def sources(self) -> list[int]:
        return [self._conn.fileno()]

    def receive(self, fd: int) -> list[tuple[str, bytes]]:
        try:
            data = self._conn.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            self.over = True
        elif data[0] in _STREAMS:
            return [(_STREAMS[data[0]], data[1:])]
        else:
            message = json.loads(data)
            sockets.raise_error(message)
            if "exit" in message:
                self.exit, self.over = message["exit"], True
        return []

    def sink(self) -> int:
        return self._conn.fileno()

    def offer(self, data: bytes) -> int:
        piece = data[:_CHUNK]
        try:
            self._conn.send(b"\0" + piece, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)
        return len(piece)

    def end_input(self) -> None:
        self._ask({"op": "end_input"})

    def resize(self, rows: int, columns: int) -> None:
        self._ask({"op": "resize", "rows": rows, "columns": columns})

    def close(self) -> None:
        if not self.over and self._conn.fileno() >= 0:
            self._ask({"op": "detach"})
        self._conn.close()

    def _ask(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            sockets.send(self._conn, message)


class Executed(Session):
    """To an exec. ``conn``: its worker; ``readers``: fd -> stream; ``writer``: its input, or -1; ``console``: a terminal's master."""

    def __init__(self, conn: socket.socket, readers: dict[int, str], writer: int, console: int = -1) -> None:
        conn.settimeout(None)
        self._conn, self._readers, self._writer, self._console = conn, readers, writer, console
        self.tty = console >= 0
        if writer >= 0:
            os.set_blocking(writer, False)  # with a terminal the reading side too: both are copies of its master

    def sources(self) -> list[int]:
        return [self._conn.fileno(), *self._readers]

    def receive(self, fd: int) -> list[tuple[str, bytes]]:
        if fd == self._conn.fileno():
            message, fds = sockets.receive(self._conn)
            sockets.close_all(fds)
            if message is None:
                self.over = True
                return []
            sockets.raise_error(message)
            self.exit = message.get("exit")
            # A process left in the background may keep the pipes open: what is there is read, more is not waited for.
            left = [piece for fd in list(self._readers) for piece in self._rest(fd)]
            self.over = True
            return left
        return self._read(fd) if fd in self._readers else []  # read to its end already, at the exit

    def _rest(self, fd: int) -> Iterator[tuple[str, bytes]]:
        poll = select.poll()  # select(2) knows no descriptor above 1023, and a notebook may have those
        poll.register(fd, select.POLLIN)
        while fd in self._readers and poll.poll(0):
            yield from self._read(fd)

    def _read(self, fd: int) -> list[tuple[str, bytes]]:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            data = b""  # EIO: the terminal's other side is closed
        if data:
            return [(self._readers[fd], data)]
        del self._readers[fd]
        if fd != self._console:
            os.close(fd)
        return []

    def sink(self) -> int:
        return self._writer

    def offer(self, data: bytes) -> int:
        try:
            return os.write(self._writer, data) if self._writer >= 0 else len(data)
        except BlockingIOError:
            return 0
        except OSError:  # EPIPE, or EIO of a terminal: nobody reads any more
            return len(data)

    def end_input(self) -> None:
        if self.tty:
            self.feed(b"\x04")
        elif self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def resize(self, rows: int, columns: int) -> None:
        if self.tty:
            fcntl.ioctl(self._console, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        for fd in {*self._readers, self._writer, self._console} - {-1}:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._readers, self._writer, self._console = {}, -1, -1
        self._conn.close()

