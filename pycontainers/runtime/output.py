"""What a container writes: from its two pipes to the log and to the client that is attached, if any."""

from __future__ import annotations

import os
import select
import socket

from . import logs

_READ = 1 << 16  # bytes a read: the capacity of a pipe


class Output:
    """Both streams of one container.

    :param conn: the client that asked for the start; ``attach``: it wants the output (tag byte 1 or 2, then data, a message).
    """

    def __init__(self, log: str, conn: socket.socket | None, attach: bool) -> None:
        self.conn = conn
        self._attach = attach
        self._path = log
        self._log: logs.Writer | None = None
        self.streams: dict[int, str] = {}

    def pipes(self, owner: int) -> tuple[int, int]:
        """Make both pipes; returns the ends for the container, owned by its root."""
        ends = []
        for stream in ("stdout", "stderr"):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(reader, False)
            os.fchown(writer, owner, owner)  # or a process inside could not open /dev/stdout again
            self.streams[reader] = stream
            ends.append(writer)
        return ends[0], ends[1]

    def open_log(self) -> None:
        self._log = logs.Writer(self._path)

    def pump(self, fd: int) -> bool:
        """Pass on what is there; False when this stream has ended (its descriptor is closed then)."""
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            os.close(fd)
            del self.streams[fd]
            return False
        stream = self.streams[fd]
        if self._log is not None:
            self._log.feed(stream, data)
        if self._attach and self.conn is not None:
            self._forward(stream, data)
        return True

    def drain(self) -> None:
        """After the first process ended its whole pid namespace is gone, so the pipes hold all that will ever come.

        A descriptor that was passed out of the container keeps a pipe open: that is not waited for.
        """
        for fd in list(self.streams):
            while fd in self.streams:
                if not select.select([fd], [], [], 0)[0]:
                    os.close(fd)
                    del self.streams[fd]
                else:
                    self.pump(fd)
        if self._log is not None:
            self._log.close()

    def detach(self) -> None:
        if self.conn is not None:
            self.conn.close()
            self.conn = None

    def _forward(self, stream: str, data: bytes) -> None:
        """Give output to the attached client. The container waits for a slow one, as with Docker; one that is gone is forgotten."""
        assert self.conn is not None
        try:
            while True:
                try:
                    self.conn.send((b"\x01" if stream == "stdout" else b"\x02") + data, socket.MSG_NOSIGNAL)
                    return
                except BlockingIOError:
                    select.select([], [self.conn], [], 1.0)
        except OSError:
            self.detach()
