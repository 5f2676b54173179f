"""The notebook's end of the connection to a container's Python. Nothing that comes through it is trusted, and nothing here waits."""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..errors import ContainersError
from .inside import wire

_FIELDS = 32 << 20
"""Bytes of a message's JSON object, where many small values stand: read, they take thirty times as much memory."""
_BUFFERS = 1 << 20
"""Buffers of a message: each takes some of this side's memory, even where it has no bytes."""
_CHUNK = 1 << 20
_TURNS = 500
"""Times that :meth:`Channel.read` asks for more: whoever sends without end does not keep the notebook from looking at anything else."""

Message = tuple[dict[str, Any], list[memoryview]]
Judge = Callable[[dict[str, Any], int], None]
"""Called with a message's object before its buffers are taken, and how many bytes these have. :raises ValueError: it is not wanted."""


class Channel:
    """:meth:`send` says what is to be written, :meth:`write` and :meth:`read` do what can be done now.

    :param limit: bytes that may come in one message; ``what`` sends them, for errors.
    """

    def __init__(self, conn: socket.socket, limit: int, what: str, judge: Judge = lambda fields, size: None) -> None:
        conn.setblocking(False)
        self._conn = conn
        self._limit = limit
        self._what = what
        self._judge = judge
        self._out: deque[memoryview] = deque()
        self._in = bytearray()
        self._wanted = wire.HEAD.size
        self._head: tuple[int, int] | None = None
        self._fields: dict[str, Any] | None = None
        self.closed = False

    def fileno(self) -> int:
        return self._conn.fileno()

    @property
    def waiting(self) -> bool:
        """Something is still to be written."""
        return bool(self._out)

    def send(self, fields: dict[str, Any], buffers: Iterable[Any] = ()) -> None:
        self._out.extend(wire.message(fields, buffers))

    def write(self) -> None:
        while self._out:
            piece = self._out[0]
            try:
                count = self._conn.send(piece[:_CHUNK], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except OSError:  # nobody reads any more: how it ended, its exit says
                self._out.clear()
                return
            if count == piece.nbytes:
                self._out.popleft()
            else:
                self._out[0] = piece[count:]

    def read(self) -> Iterator[Message]:
        """The messages that are there whole, or some of them. :raises ContainersError: what comes is none."""
        for _ in range(_TURNS):
            if self.closed:
                return
            try:
                data = self._conn.recv(min(_CHUNK, self._wanted - len(self._in)))
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                return
            self._in += data
            while len(self._in) == self._wanted:
                message = self._step()
                if message is not None:
                    yield message
                if self._wanted:
                    break

    def _step(self) -> Message | None:
        """What was waited for is there: two lengths, then the object, then the buffers."""
        data, self._in = self._in, bytearray()
        if self._head is None:
            self._head = wire.HEAD.unpack(data)
            if self._head[0] > _FIELDS:
                raise ContainersError(
                    f"{self._what} sends back {self._head[0]} bytes of small values, more than the {_FIELDS} that are taken",
                    "make an array or a table of them, or write them to a folder: -v ./results:/results",
                )
            if sum(self._head) > self._limit:
                raise ContainersError(
                    f"{self._what} sends back {sum(self._head)} bytes, more than the {self._limit} that are taken",
                    "bring back less, or write it to a folder: -v ./results:/results",
                )
            self._wanted = self._head[0]
            return None
        if self._fields is None:
            try:
                self._fields = json.loads(bytes(data))
            except (ValueError, RecursionError) as error:
                raise self._refused(str(error)) from None
            if not isinstance(self._fields, dict):
                raise self._refused("no object")
            sizes = self._fields.get("sizes")
            if isinstance(sizes, list) and len(sizes) > _BUFFERS:
                raise self._refused(f"{len(sizes)} buffers")
            try:
                self._judge(self._fields, self._head[1])
            except ValueError as error:
                raise self._refused(str(error)) from None
            self._wanted = self._head[1]
            if self._wanted:
                return None
            data = bytearray()
        fields, self._head, self._fields, self._wanted = self._fields, None, None, wire.HEAD.size
        try:
            return fields, wire.split(data, fields.get("sizes"))
        except ValueError as error:
            raise self._refused(str(error)) from None

    def _refused(self, why: str) -> ContainersError:
        return ContainersError(
            f"{self._what} sent what no cell sends: {why[:200]}", "code inside has written to the notebook's own connection"
        )

    def close(self) -> None:
        self.closed = True
        self._conn.close()
