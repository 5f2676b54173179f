"""A blob being sent (distribution-spec, "Pushing blobs"): opened, sent in pieces that go on after a break, and closed by its digest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import quote

from ...errors import ContainersError, ImageError, RegistryError, exhausted
from ..descriptor import Descriptor
from ..source import Reader
from .endpoint import Endpoint
from .failures import AGAIN, Missing, Refused, Unreachable
from .transport import Answer

_WHOLE = 1 << 20  # bytes: what is no larger is sent with the request that closes it
_PIECE = 1 << 16  # bytes per send
_CHUNKS = (64 << 20, 16 << 20, 4 << 20, 1 << 20)  # bytes: tried in turn where a registry finds one request too large (413)
_FORGOTTEN = ("BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "DIGEST_INVALID", "SIZE_INVALID")


class _Lost(Exception):
    """The registry forgot the upload, or holds something else than was sent: from the beginning."""

    def __init__(self, error: ContainersError) -> None:
        super().__init__()
        self.error = error


class Upload:
    """One blob on its way to ``endpoint``.

    :param session: where an upload was opened already (a mount that the registry refused); "" for none.
    """

    def __init__(
        self, endpoint: Endpoint, blob: Descriptor, scope: str, open: Callable[[], Reader], sent: Callable[[int], None], session: str = ""
    ) -> None:
        self._endpoint, self._blob, self._scope = endpoint, blob, scope
        self._open, self._sent, self._session = open, sent, session
        self._what = f"blob {blob.short} of {endpoint.host}/{endpoint.repository}"
        self._least = 0
        self._failures = 0

    def run(self) -> None:
        """:raises RegistryError: it could not be sent. :raises ImageError: the content is not what the descriptor says."""
        limits = self._endpoint.transport.limits
        restarts = 0
        while True:
            location, self._session = self._session or self._begin(), ""
            try:
                return self._whole(location) if self._blob.size <= _WHOLE else self._pieces(location)
            except _Lost as lost:
                restarts += 1
                # A piece may get lost once; a registry that says DIGEST_INVALID again says it of what we have.
                if restarts >= (2 if isinstance(lost.error, Refused) and lost.error.code == "DIGEST_INVALID" else limits.attempts):
                    raise lost.error from None
                self._endpoint.transport.pause(restarts)

    def _begin(self) -> str:
        where = f"/v2/{self._endpoint.repository}/blobs/uploads/"
        answer = self._endpoint.ask("POST", where, self._scope, self._what)
        answer.finish()
        if answer.status != 202:
            raise RegistryError(f"{self._what}: unexpected answer {answer.status} to the opening of an upload")
        least = answer.headers.get("OCI-Chunk-Min-Length") or ""
        self._least = int(least) if re.fullmatch(r"[0-9]{1,12}", least) else 0
        return self._endpoint.follow(answer, answer.headers.get("Location") or "")

    # -- closing

    def _whole(self, location: str) -> None:
        """Content and closing in one request."""
        self._close(location, 0, self._blob.size)

    def _close(self, location: str, offset: int, size: int) -> None:
        """Send the last ``size`` bytes with the digest. :raises _Lost: from the beginning."""
        url = f"{location}{'&' if '?' in location else '?'}digest={quote(self._blob.digest, safe='')}"
        try:
            answer = self._request("PUT", url, offset, size, self._endpoint.transport.limits.commit)
        except (Refused, Missing, Unreachable) as error:
            if self._there():
                return  # it was taken; only the answer was lost
            if isinstance(error, Unreachable) or error.status in (404, 416, *AGAIN) or error.code in _FORGOTTEN:
                raise _Lost(error) from None
            raise
        answer.finish()
        if answer.status not in (201, 204):  # 204 by old registries
            raise RegistryError(f"{self._what}: unexpected answer {answer.status} to its end")
        said = answer.headers.get("Docker-Content-Digest") or self._blob.digest
        if said != self._blob.digest:
            raise RegistryError(f"{self._what}: the registry stored it as {said:.80}")
        self._sent(self._blob.size)

    def _there(self) -> bool:
        where = f"/v2/{self._endpoint.repository}/blobs/{self._blob.digest}"
        try:
            answer = self._endpoint.ask("HEAD", where, self._scope, self._what, accept=(404,))
        except RegistryError:
            self._endpoint.transport.check()
            return False
        answer.finish()
        return answer.status == 200

    # -- pieces

    def _pieces(self, location: str) -> None:
        """All in one request as Docker does, in smaller ones where the registry wants that; then the end."""
        offset, chunk, smaller = 0, self._blob.size, list(_CHUNKS)
        self._failures = 0
        while offset < self._blob.size:
            length = min(chunk, self._blob.size - offset)
            try:
                answer = self._request("PATCH", location, offset, length, self._endpoint.transport.limits.commit)
            except Unreachable as error:
                location, offset = self._resume(location, offset, error)
                continue
            except (Refused, Missing) as error:
                if error.status == 413:
                    smaller = [size for size in smaller if size < length]
                    chunk = max(smaller[0], self._least) if smaller else 0
                    if not chunk or chunk >= length:
                        raise
                elif error.status == 404 or error.code in _FORGOTTEN:
                    raise _Lost(error) from None
                elif error.status not in (416, *AGAIN):
                    raise
                location, offset = self._resume(location, offset, error)
                continue
            answer.finish()
            reached = _reached(answer)
            location = self._endpoint.follow(answer, answer.headers.get("Location") or location)
            new = offset + length if reached is None else reached
            if not offset < new <= offset + length:
                self._failed(RegistryError(f"{self._what}: sent up to byte {offset + length}, the registry has {new}"))
            offset = min(new, offset + length)
            self._sent(offset)
        self._close(location, offset, 0)

    def _resume(self, location: str, offset: int, error: ContainersError) -> tuple[str, int]:
        """Where to go on: the registry says how much it has. :raises _Lost: it does not know of the upload."""
        self._endpoint.transport.check()
        if not isinstance(error, Refused) or error.status != 413:
            self._failed(error)
        try:
            answer = self._endpoint.ask("GET", location, self._scope, self._what)
        except (RegistryError, Missing):
            self._endpoint.transport.check()
            raise _Lost(error) from None
        answer.finish()
        reached = _reached(answer)
        if reached is None or reached > self._blob.size:
            raise _Lost(error)
        if reached - offset >= self._endpoint.transport.limits.progress:
            self._failures = 0
        self._sent(reached)
        return self._endpoint.follow(answer, answer.headers.get("Location") or location), reached

    def _failed(self, error: ContainersError) -> None:
        """One more failure; a pause. :raises RegistryError: it was the last."""
        self._failures += 1
        if self._failures >= self._endpoint.transport.limits.attempts:
            raise error
        self._endpoint.transport.pause(self._failures)

    def _request(self, method: str, url: str, offset: int, size: int, timeout: float) -> Answer:
        headers = {"Content-Type": "application/octet-stream"}
        if method == "PATCH" and size < self._blob.size:
            headers["Content-Range"] = f"{offset}-{offset + size - 1}"  # the specification's form: no unit, no total
        return self._endpoint.ask(
            method,
            url,
            self._scope,
            self._what,
            headers=headers,
            body=(lambda: self._content(offset, size)) if size else (lambda: b""),
            size=size,
            timeout=timeout,
            again=False,
        )

    def _content(self, offset: int, size: int) -> Iterator[bytes]:
        """``size`` bytes of the blob from ``offset``; reading it says that the piece before was sent."""
        reader = self._open()
        try:
            self._skip(reader, offset)
            left = size
            while left:
                data = _read(reader, min(left, _PIECE))
                if not data:
                    raise ImageError(f"blob {self._blob.short} ends {left} bytes before its size {self._blob.size}", "verify the store")
                yield data
                left -= len(data)
                self._sent(offset + size - left)
        finally:
            reader.close()

    def _skip(self, reader: Reader, offset: int) -> None:
        if not offset:
            return
        seek = getattr(reader, "seek", None)
        if seek is not None and getattr(reader, "seekable", lambda: False)():
            seek(offset)
            return
        while offset:
            data = _read(reader, min(offset, 1 << 20))
            if not data:
                raise ImageError(f"blob {self._blob.short} is shorter than its size {self._blob.size}", "verify the store")
            offset -= len(data)


def _read(reader: Reader, size: int) -> bytes:
    """As reader.read: trouble with the local file must not be taken for a broken connection."""
    try:
        return reader.read(size)
    except OSError as error:
        raise exhausted(error) or ImageError(f"{error.filename or 'a blob'} cannot be read: {error.strerror or error}") from None


def _reached(answer: Answer) -> int | None:
    """How many bytes the registry has, by ``Range: 0-<last>``; None where it does not say.

    Of an empty upload registries say ``0-0``, which is also one byte: then it is taken as none, and that byte is sent again or refused.
    """
    found = re.fullmatch(r"(?:bytes=)?0-([0-9]{1,19})", answer.headers.get("Range") or "")
    if not found:
        return None
    return int(found[1]) + 1 if int(found[1]) else 0
