"""A blob being written: ``ingest/blob-<hex>``, until it is whole and its digest right; then it gets its name in ``blobs/``.

Whoever writes it holds flock(2) on it. So of two processes that get the same blob one waits, and what a killed one (or a broken
connection) has left is gone on with: the digest is computed over all of it in the end, so nobody needs to be trusted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator

from ..errors import ImageError
from . import durable
from .records import Records

_PREFIX = "blob-"
CLAIM = "claim-"
"""Begins the name of a file that says, by a lock on it, that somebody is making a layer."""
_CHUNK = 1 << 20


def claim(path: str) -> int | None:
    """A file that is this caller's alone until its descriptor is closed; None while somebody else's."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_ino == os.stat(path).st_ino:
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        os.close(fd)  # whoever had it has removed or renamed it between our open and our lock


class Ingest:
    """One blob of ``size`` bytes. :ivar offset: how many of them are there. :ivar was_adopted: somebody else has written some.

    :meth:`begin` → :meth:`adopted` to its end → :meth:`write` … → :meth:`publish`; :meth:`close` at any time.
    """

    def __init__(self, records: Records, digest: str, size: int, fd: int, hashing: bool) -> None:
        self._records, self._digest, self._size, self._fd, self._hashing = records, digest, size, fd, hashing
        self._hash = hashlib.sha256()
        self.offset = 0
        self.was_adopted = self._checked = False

    @staticmethod
    def begin(records: Records, digest: str, size: int, hashing: bool = True) -> Ingest | None:
        """None while somebody else writes it.

        :param hashing: not where the caller computes the digest anyway, and gives it to :meth:`check`.
        """
        fd = claim(_path(records, digest))
        return None if fd is None else Ingest(records, digest, size, fd, hashing)

    def adopted(self) -> Iterator[bytes]:
        """What somebody has left, piece by piece."""
        if os.fstat(self._fd).st_size > self._size:
            os.ftruncate(self._fd, 0)
        while piece := os.pread(self._fd, _CHUNK, self.offset):
            self._count(piece)
            self.offset += len(piece)
            self.was_adopted = True
            yield piece

    def write(self, data: bytes | memoryview) -> None:
        """:raises ImageError: it becomes larger than it says that it is."""
        if self.offset + len(data) > self._size:
            self.forget()
            raise ImageError(f"blob {self._digest[:19]} is larger than the {self._size} bytes that its manifest says", "")
        self._count(data)
        view = memoryview(data)
        while view:
            count = os.pwrite(self._fd, view, self.offset)
            self.offset += count
            view = view[count:]

    def _count(self, data: bytes | memoryview) -> None:
        if self._hashing:
            self._hash.update(data)

    def check(self, known: str = "") -> None:
        """:raises ImageError: not all of it came, or something else; the latter is forgotten.

        :param known: the digest of all of it, where the caller has computed it.
        """
        if self.offset != self._size:
            raise ImageError(f"blob {self._digest[:19]} ends after {self.offset} of {self._size} bytes", "try again")
        found = known or self._found()
        if found != self._digest:
            self.forget()
            raise ImageError(f"blob {self._digest[:19]} has the digest {found[:19]}: it was damaged or exchanged", "try again")
        self._checked = True

    def _found(self) -> str:
        if not self._hashing:
            self._hashing, self._hash, place = True, hashlib.sha256(), 0
            while piece := os.pread(self._fd, _CHUNK, place):
                self._hash.update(piece)
                place += len(piece)
        return f"sha256:{self._hash.hexdigest()}"

    def publish(self, synced: bool = False, holder: str = "") -> None:
        """Check it and give it its name, with a lease on it (of ``holder``'s).

        :param synced: the caller has brought it to the disk, and will bring the folder's entry there before anything refers to it.
        """
        if not self._checked:
            self.check()
        path = self._records.blob_path(self._digest)
        if not synced:
            os.fsync(self._fd)
        with self._records.locked(shared=True):
            self._records.lease(path, holder)
            os.rename(_path(self._records, self._digest), path)
        if not synced:
            durable.sync_folder(os.path.dirname(path))
        os.close(self._fd)
        self._fd = -1

    def forget(self) -> None:
        """Begin anew: what is there is wrong."""
        os.ftruncate(self._fd, 0)
        self._hash, self.offset, self._checked = hashlib.sha256(), 0, False

    def close(self) -> None:
        """What is there stays for whoever asks next (a day, see :func:`.durable.sweep`)."""
        if self._fd >= 0:
            if not os.fstat(self._fd).st_size:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(_path(self._records, self._digest))
            os.close(self._fd)
            self._fd = -1


def unfinished(workshop: str) -> list[str]:
    """What was begun, by the living and by the dead."""
    return [entry.path for entry in os.scandir(workshop) if entry.name.startswith((_PREFIX, CLAIM))]


def drop_unfinished(workshop: str) -> int:
    """Remove what nobody is writing; bytes that this gave back."""
    gone = 0
    for path in unfinished(workshop):
        fd = claim(path)
        if fd is not None:
            gone += os.fstat(fd).st_size
            os.unlink(path)
            os.close(fd)
    return gone


def _path(records: Records, digest: str) -> str:
    return f"{records.ingest}/{_PREFIX}{digest.removeprefix('sha256:')}"
