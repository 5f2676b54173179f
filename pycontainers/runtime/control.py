"""The supervisor's control socket: whoever asks something of a living container asks its supervisor, who alone writes its files.

``RUN/containers/<id>.sock``, SOCK_SEQPACKET (:mod:`pycontainers.linux.sockets`). A request is a JSON object with ``op`` and is answered by
one object; ``attach`` makes its connection a stream: output comes as messages with a tag byte (1 stdout, 2 stderr), input goes as messages
with a zero byte before the data, and ``{"exit": …}`` ends it. The connection that asked for the start is one of these from the beginning.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..linux import sockets, syscalls
from .loop import READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from .loop import Loop
    from .output import Output

    class Served(Protocol):
        """Who does what clients ask: a container's supervisor. ``requests``: op -> what it does; a refusal is an exception."""

        loop: Loop
        tty: bool
        stdin_once: bool
        requests: dict[str, Callable[[dict[str, Any]], None]]

        def feed(self, data: bytes) -> bool: ...

        def end_input(self) -> None: ...

        def journal(self, action: str, **attributes: object) -> None: ...

_PATIENCE = 30.0  # seconds in which a client has to read what is left for it
_INPUT = 0
_READ = 1 << 18


class Connection:
    """One client. What it cannot take at once waits here; ``behind`` says so."""

    def __init__(self, conn: socket.socket, control: Control, *, attached: bool = False, stdin: bool = False) -> None:
        self.conn, self._control = conn, control
        self.attached, self.stdin = attached, stdin
        self.held = False  # nothing is read from it: the container does not take what it has sent
        self._waiting: deque[bytes] = deque()
        conn.setblocking(False)
        self.listen()

    @property
    def behind(self) -> bool:
        return bool(self._waiting)

    def listen(self) -> None:
        self._control.loop.watch(self.conn.fileno(), self._ready, (0 if self.held else READ) | (WRITE if self._waiting else 0))

    def offer(self, data: bytes) -> None:
        """Send a message now, or as soon as the client reads."""
        self._waiting.append(data)
        if len(self._waiting) == 1:
            self._flush()

    def answer(self, message: dict[str, Any]) -> None:
        self.offer(json.dumps(message, separators=(",", ":")).encode())

    def last(self, message: dict[str, Any]) -> None:
        """The last message, after all that waits. Closes the connection."""
        self.answer(message)
        self.flush_until(time.monotonic() + _PATIENCE)
        self.close()

    def flush_until(self, deadline: float) -> None:
        """Send all that waits; a client that has not read it by then (monotonic clock) loses it."""
        try:
            while self._waiting:
                self.conn.settimeout(max(0.001, deadline - time.monotonic()))
                self.conn.send(self._waiting.popleft(), socket.MSG_NOSIGNAL)
        except OSError:
            pass

    def close(self) -> None:
        self._control.drop(self)

    def _flush(self) -> None:
        try:
            while self._waiting:
                self.conn.send(self._waiting[0], socket.MSG_NOSIGNAL)
                self._waiting.popleft()
        except BlockingIOError:
            self.listen()
        except OSError:  # gone: the container goes on without it
            self.close()

    def _ready(self) -> None:
        if self._waiting:
            self._flush()
            if self.conn.fileno() >= 0 and not self._waiting:
                self.listen()
                self._control.caught_up()
        try:
            data = self.conn.recv(_READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if self.conn.fileno() >= 0:
                self._control.left(self)
        elif data[0] == _INPUT:
            self._control.input(self, data[1:])
        else:
            self._request(data)

    def _request(self, data: bytes) -> None:
        try:
            message = json.loads(data)
            reply = self._control.handle(self, message)
            if reply is not None:
                self.answer(reply)
        except Exception as error:
            self.answer(sockets.error_message(error))


class Control:
    """All connections of one container. ``served`` does what they ask, ``output`` is what they are attached to.

    :ivar waiting: who asked to be told of the next end.
    """

    def __init__(self, served: Served, output: Output, path: str) -> None:
        self.served, self.output, self.loop, self.path = served, output, served.loop, path
        self.waiting: list[Connection] = []
        self.connections: list[Connection] = []
        self.listener: socket.socket | None = None
        """None while nobody can ask."""

    def open(self) -> None:
        """Listen. Whoever supervises holds the container's lock, so what lies at the path is a dead one's."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
        self.listener = sockets.bind(self.path)
        self._reserve = sockets.Reserve()
        self.listener.setblocking(False)
        self.loop.watch(self.listener.fileno(), self._accept)

    def close(self) -> None:
        """No new clients; those that are there stay until they are told the end."""
        if self.listener is not None:
            self.loop.forget(self.listener.fileno())
            self.listener.close()
            self._reserve.close()
            self.listener = None
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass

    def close_inherited(self) -> None:
        """In a forked child: these descriptors are the supervisor's."""
        for connection in self.connections:
            connection.conn.close()
        if self.listener is not None:
            self.listener.close()
            self._reserve.close()

    def add(self, conn: socket.socket, *, attached: bool = False, stdin: bool = False) -> Connection:
        found = Connection(conn, self, attached=attached, stdin=stdin)
        self.connections.append(found)
        if attached:
            self.output.clients.append(found)
        return found

    def drop(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
            self.loop.forget(connection.conn.fileno())
            connection.conn.close()
        if connection in self.output.clients:
            self.output.clients.remove(connection)
            self.caught_up()

    def end(self, message: dict[str, Any]) -> None:
        """Tell whoever is attached or waits how it ended, and let them go. Who does not read just now holds up nothing."""
        told = [connection for connection in self.connections if connection in self.output.clients or connection in self.waiting]
        self.waiting = []
        for connection in told:
            connection.answer(message)
        _stay_with([connection for connection in told if connection.behind and connection in self.connections])
        for connection in told:
            connection.close()

    def left(self, connection: Connection) -> None:
        """A client has closed its side. With it goes the input that it had brought (Docker's StdinOnce)."""
        given = connection.stdin and connection.attached and self.served.stdin_once
        self.drop(connection)
        if given:
            self.served.end_input()

    def caught_up(self) -> None:
        if not any(client.behind for client in self.output.clients):
            self.output.watch()

    def input(self, connection: Connection, data: bytes) -> None:
        if connection.stdin and not self.served.feed(data) and connection in self.connections:
            connection.held = True
            connection.listen()

    def input_taken(self) -> None:
        """There is room for input again."""
        for connection in self.connections:
            if connection.held:
                connection.held = False
                connection.listen()

    def handle(self, connection: Connection, message: dict[str, Any]) -> dict[str, Any] | None:
        """One request; the reply, or None when it comes later."""
        served, operation = self.served, message.get("op")
        if operation == "attach":
            connection.attached, connection.stdin = True, bool(message.get("stdin"))
            served.journal("attach")
            connection.answer({"attached": True, "tty": served.tty})
            self.output.clients.append(connection)
            return None
        if operation == "wait":
            self.waiting.append(connection)
            return None
        if operation == "detach":  # left on purpose: the input stays open for the next one
            connection.stdin = False
            return None
        if operation == "end_input":
            served.end_input()
            return {"ok": True}
        handler = served.requests.get(str(operation))
        if handler is None:
            raise UsageError(f"a supervisor cannot {operation!r}", "is it of another version? restart the container")
        handler(message)
        return None if operation == "resize" else {"ok": True}

    def _accept(self) -> None:
        assert self.listener is not None
        try:
            conn, _ = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # no descriptor, or no memory, for one more: no reason to end, and the container with it
            self._reserve.turn_away(self.listener, "supervisor of this container", error)
            return
        # The folder is private already; this holds when it is not (CVE-2020-15257: another network namespace's neighbour).
        if sockets.peer_uid(conn) not in (os.geteuid(), 0):
            conn.close()
            return
        sockets.widen(conn)
        self.add(conn)


def _stay_with(connections: list[Connection]) -> None:
    """Leave clients that do not read to a process that waits for them, and has nothing else of ours. An orphan: nobody has to reap it."""
    if not connections:
        return
    try:
        pid = os.fork()
    except OSError:
        return  # no more processes here: they lose what they have not read
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        if os.fork() == 0:
            deadline = time.monotonic() + _PATIENCE
            syscalls.close_all_but({connection.conn.fileno() for connection in connections})
            for connection in connections:
                connection.flush_until(deadline)
    finally:
        os._exit(0)
