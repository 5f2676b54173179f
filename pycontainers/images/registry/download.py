"""A blob being read, over as many connections as it takes: after a break it goes on at the byte where it stopped."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence

from ...errors import RegistryError
from ..descriptor import Descriptor
from . import failures
from .endpoint import Endpoint
from .transport import Answer, Broken

_PIECE = 1 << 20
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)\Z")


class Download:
    """A Reader of :mod:`..source`: exactly the bytes from ``offset`` to ``blob.size``, or an error. Digests are the reader's to check.

    :param endpoints: mirrors, then the registry; when one cannot go on, the next does from the same byte.
    """

    def __init__(self, endpoints: Sequence[Endpoint], blob: Descriptor, scope: str, name: str, offset: int = 0) -> None:
        self._endpoints, self._blob, self._scope = list(endpoints), blob, scope
        self._what = f"blob {blob.short} of {name}"
        self._at = self._since = offset
        self._failures = 0
        self._answer: Answer | None = None
        self._waited, self._came = 0.0, 0
        self._closed = False
        self._reading = threading.Lock()
        if self._at < blob.size:
            self._open()

    @property
    def _endpoint(self) -> Endpoint:
        return self._endpoints[0]

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes, what is there; without a size everything; b"" is the end.

        :raises RegistryError: it cannot be had. :raises NotFound: it is not there.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(_PIECE), b""))
        try:
            with self._reading:
                return self._read(size)
        finally:
            if self._closed:
                self._discard()

    def _read(self, size: int) -> bytes:
        while self._at < self._blob.size and size:
            if self._answer is None:
                self._open()
            self._check_open()  # after opening: who closed it meanwhile found nothing to wake us from
            if self._answer is None:
                continue
            try:
                data = self._piece(self._answer, min(size, self._blob.size - self._at))
            except Broken as error:
                self._broke(error)
                continue
            self._at += len(data)
            if self._at == self._blob.size:
                self._end(self._answer)
            return data
        return b""

    def _piece(self, answer: Answer, size: int) -> bytes:
        begun = time.monotonic()
        data = answer.read(size)
        if not data:
            raise Broken(f"it ends after {self._at} of {self._blob.size} bytes")
        limits = self._endpoint.transport.limits
        self._waited += time.monotonic() - begun
        self._came += len(data)
        if self._waited > limits.window:
            if self._came < limits.slowest * self._waited:
                raise Broken(f"it sends {self._came / self._waited:.0f} bytes a second")
            self._waited, self._came = 0.0, 0
        return data

    def _end(self, answer: Answer) -> None:
        """All is there: nothing may follow."""
        self._answer = None
        try:
            more = answer.read(1)
        except Broken:
            more = b""  # what was promised has come
        answer.close() if more else answer.release()
        if more:
            message = f"{self._what}: the registry sends more than its {self._blob.size} bytes"
            raise RegistryError(message, "do not trust who made this image")

    def _broke(self, error: Broken) -> None:
        """Prepare another attempt, or another endpoint. :raises RegistryError: there is none."""
        if self._answer:
            self._answer.close()
        self._answer = None
        self._check_open()
        transport = self._endpoint.transport
        transport.check()
        limits = transport.limits
        self._failures = 1 if self._at - self._since >= limits.progress else self._failures + 1
        self._since = self._at
        self._waited, self._came = 0.0, 0
        if error.final or self._failures >= limits.attempts:
            self._next(transport.unreachable(self._endpoint.host, Broken(f"{self._what}: {error.reason}", error.hint), self._failures))
        else:
            transport.pause(self._failures)

    def _next(self, error: Exception) -> None:
        if len(self._endpoints) == 1:
            raise error
        self._endpoints.pop(0)
        self._failures = 0

    def _open(self) -> None:
        """Ask for the rest; afterwards there is an answer, or another attempt is due."""
        endpoint = self._endpoint
        where = f"/v2/{endpoint.repository}/blobs/{self._blob.digest}"
        headers = {"Range": f"bytes={self._at}-"} if self._at else {}
        try:
            answer = endpoint.ask("GET", where, self._scope, self._what, headers=headers, accept=(416,))
            self._check(answer)
            self._answer = answer
        except Broken as error:
            self._broke(error)
        except (RegistryError, failures.Missing) as error:
            endpoint.transport.check()
            self._next(error)

    def _check(self, answer: Answer) -> None:
        """Whether the answer is the rest of the blob. A server that ignores Range gets its beginning read once more."""
        size, length, skipped = self._blob.size, answer.length(), 0
        if answer.status == 416:
            answer.close()
            raise RegistryError(f"{self._what}: the registry holds no byte {self._at} of {size}", "the image is damaged there")
        if answer.status == 206 and self._at:
            found = _RANGE.match(answer.headers.get("Content-Range") or "")
            if not found or int(found[1]) != self._at or found[3] not in ("*", str(size)):
                answer.close()
                said = (answer.headers.get("Content-Range") or "")[:60]
                raise RegistryError(f"{self._what}: asked for bytes {self._at}-{size - 1}/{size}, the registry sends {said!r}")
            skipped = self._at
        elif answer.status != 200:
            answer.close()
            raise RegistryError(f"{self._what}: unexpected answer {answer.status}")
        if length is not None and length != size - skipped and not (skipped and length < size - skipped):
            answer.close()
            raise RegistryError(
                f"{self._what}: the registry sends {length} bytes, the manifest says {size - skipped}", "do not trust who made this image"
            )
        while skipped < self._at:
            data = answer.read(min(_PIECE, self._at - skipped))
            if not data:
                raise Broken("it broke off again before it came to where it had stopped")
            skipped += len(data)

    def _check_open(self) -> None:
        if self._closed:
            raise RegistryError("the transfer was stopped")

    def close(self) -> None:
        """The connection is ended, whatever is still on its way; a thread that is reading gets an error."""
        self._closed = True
        answer = self._answer
        if answer:
            answer.wake()
        self._discard()

    def _discard(self) -> None:
        """Close what is open, unless a thread is reading it: that one does it then. (Closing under a reader breaks http.client.)"""
        if self._reading.acquire(blocking=False):
            try:
                answer, self._answer = self._answer, None
                if answer:
                    answer.close()
            finally:
                self._reading.release()

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
