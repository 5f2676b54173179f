"""The relay behind published ports: one small process with one thread, epoll(7), and splice(2).

Data moves from socket to socket through a pipe inside the kernel and is never copied to here. Everything is edge-triggered: each
descriptor is registered once, and a connection is worked on until neither side can move. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import select
import socket
import struct
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .ports import Bound

CONNECTIONS = 1024
"""TCP connections at a time; more clients wait in the kernel's backlog. UDP clients at a time; of more, the longest idle goes."""

CONNECT_SECONDS = 10.0
UDP_SECONDS = 60.0
PIPE_BYTES = 1 << 18
_ROUNDS = 8  # moves of one connection before others get their turn
_DESCRIPTORS = 6  # of one connection: two sockets, two pipes
_DATAGRAMS = 64
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with 0 seconds: close(2) sends RST


class Flow:
    """One direction of a connection: source → pipe → target."""

    __slots__ = ("broken", "buffered", "done", "ended", "reader", "source", "target", "writer")

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # EPERM beyond the user's share of pipe pages: a small one works too
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.buffered, self.ended, self.done, self.broken = 0, False, False, False

    def move(self) -> bool:
        """Move what can be moved, a few times. True when there may be more. Backpressure is the pipe: a full one takes nothing.

        A source that was reset is broken, but what came before the reset is still delivered, as on a direct connection.

        :raises OSError: the target is gone.
        """
        for _ in range(_ROUNDS):
            if self.done:
                return False
            progress = False
            if not self.ended:
                try:
                    count = os.splice(self.source.fileno(), self.writer, PIPE_BYTES, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
                    self.buffered += count
                    self.ended = not count
                    progress = True
                except BlockingIOError:
                    pass  # nothing there, or the pipe is full
                except OSError:
                    self.ended = self.broken = progress = True
            if self.buffered:
                try:
                    # Exactly what the pipe holds: with a larger count the kernel would wait for more (MSG_MORE, 200 ms).
                    count = os.splice(self.reader, self.target.fileno(), self.buffered, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
                    self.buffered -= count
                    progress = True
                except BlockingIOError:
                    pass
            if self.ended and not self.buffered:
                self.done = True
                if self.broken:
                    return False
                with contextlib.suppress(OSError):  # ENOTCONN: the other side has closed altogether
                    self.target.shutdown(socket.SHUT_WR)  # the half-close goes on: the answer may still come
                return False
            if not progress:
                return False
        return True

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


class Connection:
    """A client's connection and ours to the container."""

    __slots__ = ("client", "closed", "connected", "deadline", "flows", "queued", "upstream")

    def __init__(self, client: socket.socket, upstream: socket.socket) -> None:
        self.client, self.upstream = client, upstream
        self.flows: tuple[Flow, ...] = ()
        self.connected, self.closed, self.queued = False, False, False
        self.deadline = time.monotonic() + CONNECT_SECONDS

    def work(self) -> bool:
        """Go on as far as possible. True when there may be more to do at once; raises OSError when it is broken."""
        if not self.connected:
            error = self.upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
            try:
                self.upstream.getpeername()
            except OSError:
                return False  # still connecting
            self.connected = True
            self.flows = (Flow(self.client, self.upstream),)
            self.flows += (Flow(self.upstream, self.client),)
        more = [flow.move() for flow in self.flows]
        return any(more)

    @property
    def broken(self) -> bool:
        """A side was reset, and all that it had sent is delivered."""
        return any(flow.done and flow.broken for flow in self.flows)

    @property
    def done(self) -> bool:
        return self.connected and all(flow.done for flow in self.flows)

    def lost(self, fd: int) -> bool:
        """Whether the socket ``fd``, which has an error, had ended its sending before: then no read will ever show the error."""
        return any(flow.done and flow.source.fileno() == fd for flow in self.flows)

    def close(self, reset: bool) -> None:
        self.closed = True
        for sock in (self.client, self.upstream):
            if reset:  # the other side must not take what was cut off for the whole
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()
        for flow in self.flows:
            flow.close()


class Relay:
    """All published ports of one container.

    :param address: where the container is; ``127.0.0.1`` for one with the host's network.
    :param control: a descriptor; the relay ends when its other side is closed.
    """

    def __init__(self, bound: Sequence[Bound], address: str, control: int) -> None:
        self.address, self.control = address, control
        self.family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.epoll = select.epoll()
        self.epoll.register(control, select.EPOLLIN | select.EPOLLHUP)
        self.listeners: dict[int, tuple[socket.socket, int]] = {}
        self.connections: dict[int, Connection] = {}
        self.connecting: deque[Connection] = deque()
        self.again: deque[Connection] = deque()
        self.datagrams: dict[int, Datagrams] = {}
        self.replies: dict[int, Datagrams] = {}
        self.paused = False
        self.limit = _raise_limit()
        for port, sock in bound:
            sock.setblocking(False)
            if port.protocol == "udp":
                self.datagrams[sock.fileno()] = Datagrams(sock, (address, port.container_port), self)
            else:
                self.listeners[sock.fileno()] = (sock, port.container_port)
            self.epoll.register(sock.fileno(), select.EPOLLIN)

    def run(self) -> None:
        """Relay until ``control`` ends."""
        while True:
            for fd, events in self.epoll.poll(self._timeout()):
                if fd == self.control:
                    return
                if fd in self.connections:
                    self._work(self.connections[fd], fd if events & select.EPOLLERR else -1)
                elif fd in self.listeners:
                    self._accept(*self.listeners[fd])
                elif fd in self.datagrams:
                    self.datagrams[fd].forward()
                elif fd in self.replies:
                    self.replies[fd].answer(fd)
            for _ in range(len(self.again)):
                connection = self.again.popleft()
                connection.queued = False
                self._work(connection)
            self._expire()

    def _timeout(self) -> float:
        if self.again:
            return 0.0
        now = time.monotonic()
        deadlines = [self.connecting[0].deadline] if self.connecting else []
        deadlines += [expiry for item in self.datagrams.values() if (expiry := item.expiry()) is not None]
        return max(0.0, min(deadlines) - now) if deadlines else -1

    def _accept(self, listener: socket.socket, port: int) -> None:
        for _ in range(64):
            if len(self.connections) >= 2 * self.limit:
                self._pause(True)
                return
            try:
                client, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # out of descriptors or memory: wait until a connection ends
                self._pause(True)
                return
            upstream = None
            try:
                upstream = socket.socket(self.family, socket.SOCK_STREAM)
                for sock in (client, upstream):
                    sock.setblocking(False)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a side that vanished does not stay for ever
                connection = Connection(client, upstream)
                error = upstream.connect_ex((self.address, port))
                if error not in (0, errno.EINPROGRESS):
                    raise OSError(error, os.strerror(error))
                self.connections[client.fileno()] = self.connections[upstream.fileno()] = connection
                self.connecting.append(connection)
                for sock in (client, upstream):
                    self.epoll.register(sock.fileno(), _EVENTS)
            except OSError:
                self.connections.pop(client.fileno(), None)
                if upstream is not None:
                    self.connections.pop(upstream.fileno(), None)
                    upstream.close()
                with contextlib.suppress(OSError):
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                client.close()

    def _pause(self, pause: bool) -> None:
        """Stop or go on accepting; clients wait in the backlog meanwhile."""
        if pause != self.paused and (not pause or self.connections):
            self.paused = pause
            for fd in self.listeners:
                self.epoll.modify(fd, 0 if pause else select.EPOLLIN)

    def _work(self, connection: Connection, failed: int = -1) -> None:
        """Go on with a connection. ``failed``: the socket of it that has an error pending."""
        if connection.closed:
            return
        try:
            if connection.work() and not connection.queued:
                connection.queued = True
                self.again.append(connection)
            if connection.broken or connection.lost(failed):
                self._end(connection, reset=True)
            elif connection.done:
                self._end(connection, reset=False)
        except OSError:
            self._end(connection, reset=True)

    def _end(self, connection: Connection, reset: bool) -> None:
        for sock in (connection.client, connection.upstream):
            self.connections.pop(sock.fileno(), None)
        connection.close(reset)
        self._pause(False)

    def _expire(self) -> None:
        now = time.monotonic()
        while self.connecting and (
            self.connecting[0].connected or self.connecting[0].closed or self.connecting[0].deadline <= now
        ):
            connection = self.connecting.popleft()
            if not connection.connected and not connection.closed:
                self._end(connection, reset=True)
        for item in self.datagrams.values():
            item.expire(now)


class Datagrams:
    """A published UDP port: each client has a socket of its own towards the container, so that answers find their way back."""

    def __init__(self, listener: socket.socket, target: tuple[str, int], relay: Relay) -> None:
        self.listener, self.target, self.relay = listener, target, relay
        self.clients: OrderedDict[tuple[str, int], tuple[socket.socket, float]] = OrderedDict()  # the longest idle first
        self.owners: dict[int, tuple[str, int]] = {}

    def forward(self) -> None:
        """From clients to the container. Datagrams that it does not want (ECONNREFUSED) or that do not fit are lost, as on a wire."""
        for _ in range(_DATAGRAMS):
            try:
                data, client = self.listener.recvfrom(65535)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier answer
            with contextlib.suppress(OSError):
                self._upstream(client).send(data)

    def answer(self, fd: int) -> None:
        """From the container to one client."""
        client = self.owners[fd]
        upstream = self.clients[client][0]
        for _ in range(_DATAGRAMS):
            try:
                data = upstream.recv(65535)
            except OSError:  # nothing more, or an ICMP error, which is taken by reading it
                return
            self._touch(client, upstream)
            with contextlib.suppress(OSError):
                self.listener.sendto(data, client)

    def expiry(self) -> float | None:
        """When the longest idle client is to be forgotten (monotonic clock)."""
        return next(iter(self.clients.values()))[1] + UDP_SECONDS if self.clients else None

    def expire(self, now: float) -> None:
        while (expiry := self.expiry()) is not None and expiry <= now:
            self._forget()

    def _upstream(self, client: tuple[str, int]) -> socket.socket:
        found = self.clients.get(client)
        if found is None:
            if len(self.relay.replies) >= self.relay.limit:
                max(self.relay.datagrams.values(), key=lambda item: len(item.clients))._forget()
            upstream = socket.socket(self.relay.family, socket.SOCK_DGRAM)
            try:
                upstream.setblocking(False)
                upstream.connect(self.target)
                self.relay.epoll.register(upstream.fileno(), select.EPOLLIN)
            except OSError:
                upstream.close()
                raise
            self.owners[upstream.fileno()] = client
            self.relay.replies[upstream.fileno()] = self
        else:
            upstream = found[0]
        self._touch(client, upstream)
        return upstream

    def _touch(self, client: tuple[str, int], upstream: socket.socket) -> None:
        self.clients[client] = (upstream, time.monotonic())
        self.clients.move_to_end(client)

    def _forget(self) -> None:
        _, (upstream, _) = self.clients.popitem(last=False)
        del self.owners[upstream.fileno()], self.relay.replies[upstream.fileno()]
        upstream.close()


def _raise_limit() -> int:
    """Raise the soft limit of descriptors to what :data:`CONNECTIONS` need, and say how many connections fit in it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS * (_DESCRIPTORS + 1) + 64
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS
    return max(1, min(CONNECTIONS, (soft - 64) // (_DESCRIPTORS + 1)))


def serve(bound: Sequence[Bound], address: str, control: int) -> None:
    """Relay everything that comes to ``bound`` to the same container ports of ``address``, until ``control`` is closed by the
    other side. Meant for a small forked process; it keeps no state.
    """
    Relay(bound, address, control).run()
