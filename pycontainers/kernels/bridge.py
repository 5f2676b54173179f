"""From a client's connections to the sockets of the kernel in its container, by one thread: epoll(7) and splice(2).

A client may connect before the kernel has bound its sockets (a second after the container's start): its connection waits then. The
kernel's side is the container's and may be anything: what is no socket is never connected to, a link is never followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import time
from collections import deque
from collections.abc import Callable, Mapping

from ..linux import mounts
from ..network.relay import Connection
from .program import FOLDER

CONNECTIONS = 128
"""Clients' connections at a time (a page has five, each kernel manager five more); others wait in the backlog."""

_RETRY, _SELDOM = 0.02, 0.5  # seconds between two looks for a kernel's socket that is not there yet: at first, and at last
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Sockets:
    """The folder of the kernel's sockets, as the container with the first process ``pid`` sees it; kept open, whatever becomes of the pid.

    :raises OSError: there is no such process any more, or the folder cannot be entered.
    """

    def __init__(self, pid: int) -> None:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._folder = mounts.open_in_root(root, FOLDER, os.O_PATH | os.O_DIRECTORY)
        finally:
            os.close(root)

    def connect(self, name: str) -> socket.socket | None:
        """A connection to one of them; None where it is not there (yet), or is no socket that takes connections.

        Opened first and looked at afterwards: what is connected to is what was looked at, also where the container puts another
        thing in its place meanwhile (a link to a socket of this machine).

        :raises PermissionError: it belongs to another user, who does not let us.
        """
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        except OSError:
            return None
        try:
            return self._connected(fd)
        finally:
            os.close(fd)

    @staticmethod
    def _connected(fd: int) -> socket.socket | None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                sock.setblocking(False)
                sock.connect(f"/proc/self/fd/{fd}")
                return sock
        except PermissionError:
            sock.close()
            raise
        except OSError:  # ECONNREFUSED: nobody listens; EAGAIN: its backlog is full; EPROTOTYPE: of another kind
            pass
        sock.close()
        return None

    def close(self) -> None:
        os.close(self._folder)


class Bridge:
    """All connections of one kernel, and whatever else its keeper waits for (``watch``).

    :param listeners: name of the kernel's socket -> where its clients connect.
    :param reach: connects to a kernel's socket by name, None where that is not there yet.
    """

    def __init__(self, listeners: Mapping[str, socket.socket], reach: Callable[[str], socket.socket | None]) -> None:
        self._reach = reach
        self._epoll = select.epoll()
        self._listeners = {sock.fileno(): (sock, name) for name, sock in listeners.items()}
        self._watched: dict[int, Callable[[], object]] = {}
        self._waiting: list[tuple[socket.socket, str]] = []
        self._since = self._next = 0.0  # since when somebody waits, and when to look again (monotonic clock)
        self._connections: dict[int, Connection] = {}
        self._again: deque[Connection] = deque()
        self._full = False
        for fd in self._listeners:
            self._epoll.register(fd, select.EPOLLIN)

    def watch(self, fd: int, then: Callable[[], object]) -> None:
        """Call ``then`` whenever ``fd`` is readable."""
        self._watched[fd] = then
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """What stays readable for good (a pidfd after the end) would be told without end."""
        del self._watched[fd]
        self._epoll.unregister(fd)

    def turn(self, until: float | None = None) -> None:
        """Wait for something and do it; not longer than ``until`` (monotonic clock)."""
        bounds = [bound for bound in (until, self._next if self._waiting else None) if bound is not None]
        timeout = 0.0 if self._again else max(0.0, min(bounds) - time.monotonic()) if bounds else -1
        for fd, _ in self._epoll.poll(timeout):
            if fd in self._connections:
                self._work(self._connections[fd])
            elif fd in self._listeners:
                self._accept(*self._listeners[fd])
            elif fd in self._watched:
                self._watched[fd]()
        for _ in range(len(self._again)):
            connection = self._again.popleft()
            connection.queued = False
            self._work(connection)
        if self._waiting and time.monotonic() >= self._next:
            self._look()

    def _look(self) -> None:
        """Once more for those who wait; less and less often, since a kernel may never bind one of its sockets."""
        here = select.poll()
        for client, _ in self._waiting:
            here.register(client, select.POLLRDHUP)
        gone = {fd for fd, _ in here.poll(0)}
        waiting, self._waiting = self._waiting, []
        for client, name in waiting:
            if client.fileno() in gone:
                client.close()
            else:
                self._connect(client, name)
        now = time.monotonic()
        self._next = now + min(_SELDOM, max(_RETRY, (now - self._since) / 20))

    def close(self) -> None:
        for connection in {id(found): found for found in self._connections.values()}.values():
            connection.close(reset=False)
        for client, _ in self._waiting:
            client.close()
        self._connections, self._waiting = {}, []
        self._epoll.close()

    def _accept(self, listener: socket.socket, name: str) -> None:
        if len(self._connections) // 2 + len(self._waiting) >= CONNECTIONS:
            self._pause(True)
            return
        try:
            client, _ = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(_RETRY)  # it stays in the backlog, and would be told again at once
            return  # else: it has gone again
        client.setblocking(False)
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._waiting:
            self._since = self._next = time.monotonic()
        self._connect(client, name)

    def _connect(self, client: socket.socket, name: str) -> None:
        try:
            upstream = self._reach(name)
        except BaseException:
            client.close()
            raise
        if upstream is None:
            self._waiting.append((client, name))
            return
        connection = Connection(client, upstream)
        self._connections[client.fileno()] = self._connections[upstream.fileno()] = connection
        for sock in (client, upstream):
            self._epoll.register(sock.fileno(), _EVENTS)

    def _work(self, connection: Connection) -> None:
        if connection.closed:
            return
        try:
            if connection.work() and not connection.queued:
                connection.queued = True
                self._again.append(connection)
            if connection.broken or connection.done:
                self._end(connection)
        except OSError:
            self._end(connection)

    def _end(self, connection: Connection) -> None:
        for sock in (connection.client, connection.upstream):
            self._connections.pop(sock.fileno(), None)
        with contextlib.suppress(OSError):
            connection.close(reset=False)
        self._pause(False)

    def _pause(self, full: bool) -> None:
        if full != self._full:
            self._full = full
            for fd in self._listeners:
                self._epoll.modify(fd, 0 if full else select.EPOLLIN)
