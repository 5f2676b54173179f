"""A stream read ahead of whoever uses it, and hashed on the way: reading (and decompressing), hashing and using at the same time.

A few pieces at most are in memory, whatever the stream's size.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable
from typing import Any

from ..errors import ImageError

_PIECE = 1 << 18
_AHEAD = 16  # pieces
_PATIENCE = 0.1  # seconds between two looks whether the user has gone


class ReadAhead:
    """:meth:`read` gives the pieces as they came, nothing at the end; then :attr:`digest` is right.

    :param read: gives at most as many bytes as asked for, none at the end; called in a thread of its own.
    :param limit: bytes that the stream may have; None: any.
    :ivar size: bytes so far. :ivar error: what reading raised, once :meth:`read` has.
    """

    def __init__(self, read: Callable[[int], bytes], limit: int | None = None) -> None:
        self._source, self._limit = read, limit
        self._sha = hashlib.sha256()
        self.size = 0
        self.error: BaseException | None = None
        self._ended = threading.Event()
        self._ready: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD)
        self._unhashed: queue.Queue[bytes] = queue.Queue(_AHEAD)
        self._threads = [threading.Thread(target=work, name="read ahead", daemon=True) for work in (self._fetch, self._hash)]
        for thread in self._threads:
            thread.start()

    @property
    def digest(self) -> str:
        """``sha256:…`` of everything; waits for the last piece to be hashed."""
        self._threads[1].join()
        return f"sha256:{self._sha.hexdigest()}"

    def read(self, size: int = -1) -> bytes:
        """The next piece, of any size. :raises BaseException: what reading it raised."""
        piece = self._ready.get()
        if isinstance(piece, BaseException):
            self.error = piece
            raise piece
        if not piece:
            self._ready.put(b"")  # asked again, it has still ended
        return piece

    def close(self) -> None:
        """Give up what is not read yet. Waits for nobody who waits for the source: it ends with the source."""
        self._ended.set()

    def _fetch(self) -> None:
        try:
            while piece := self._source(_PIECE):
                self.size += len(piece)
                if self._limit is not None and self.size > self._limit:
                    raise ImageError(f"the layer's tar has more than {self._limit} bytes", "a layer of this size is not taken")
                if not self._put(self._unhashed, piece) or not self._put(self._ready, piece):
                    return
            self._put(self._unhashed, b"")
            self._put(self._ready, b"")
        except BaseException as error:
            self._put(self._unhashed, b"")
            self._put(self._ready, error)

    def _put(self, where: queue.Queue[Any], piece: bytes | BaseException) -> bool:
        while not self._ended.is_set():
            try:
                where.put(piece, timeout=_PATIENCE)
                return True
            except queue.Full:
                pass
        return False

    def _hash(self) -> None:
        while not self._ended.is_set():
            try:
                piece = self._unhashed.get(timeout=_PATIENCE)
            except queue.Empty:
                continue
            if not piece:
                return
            self._sha.update(piece)
