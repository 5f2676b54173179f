"""The ring file: a container's whole life in a file of fixed size.

Layout: a header of 64 bytes (magic, version, record size, capacity, stride), then ``capacity`` records of one little-endian
double and 18 unsigned 64-bit integers, with a sequence number before and a CRC after, so that a reader recognises a record that
is being written. When the file is full it is thinned: every second record is dropped and from then on half as many are
taken. So the start is never forgotten, and the file holds at least ``capacity / 2`` records over the whole life.
"""

from __future__ import annotations

import os
import struct
import zlib

from .sample import FIELDS, Sample

MAGIC, VERSION = b"PYCTRING", 1
_HEADER = struct.Struct("<8sHHIQ")  # magic, version, record size, capacity, stride
_HEADER_SIZE = 64
_BODY = struct.Struct(f"<Qd{len(FIELDS) - 1}Q")  # sequence (1-based; 0 is empty), the sample
_CRC = struct.Struct("<I")
RECORD = _BODY.size + _CRC.size
_MASK = (1 << 64) - 1


class Ring:
    """The writer. One process writes; any number may read."""

    def __init__(self, fd: int, capacity: int) -> None:
        self._fd, self._capacity = fd, capacity
        self._count = 0  # records in the file
        self._sequence = 0
        self._stride = 1  # of so many samples one is kept

    @classmethod
    def create(cls, path: str, capacity: int) -> Ring:
        """An empty ring at ``path``; replaces an older one in one rename. ``capacity`` is rounded down to an even number."""
        if capacity < 4:
            raise ValueError(f"capacity {capacity} is less than 4")
        capacity -= capacity % 2
        temporary = f"{path}.new"
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.pwrite(fd, _HEADER.pack(MAGIC, VERSION, RECORD, capacity, 1).ljust(_HEADER_SIZE, b"\0"), 0)
        os.rename(temporary, path)
        return cls(fd, capacity)

    def append(self, sample: Sample) -> None:
        if self._count == self._capacity:
            self._thin()
        self._sequence += 1
        os.pwrite(self._fd, _pack(self._sequence, sample), _HEADER_SIZE + self._count * RECORD)
        self._count += 1

    def interval(self, age: float) -> float:
        """Seconds until the next sample of a container that is ``age`` seconds old: dense at first, where most happens."""
        base = 0.1 if age < 2 else 0.25 if age < 10 else 1.0
        return base * self._stride

    def close(self) -> None:
        os.close(self._fd)

    def _thin(self) -> None:
        """Keep every second record, the newest among them. Written from the front: a reader in between sees order by sequence."""
        data = os.pread(self._fd, self._capacity * RECORD, _HEADER_SIZE)
        kept = b"".join(data[i * RECORD : (i + 1) * RECORD] for i in range(1, self._capacity, 2))
        self._stride *= 2
        os.pwrite(self._fd, _HEADER.pack(MAGIC, VERSION, RECORD, self._capacity, self._stride), 0)
        os.pwrite(self._fd, kept.ljust(len(data), b"\0"), _HEADER_SIZE)
        self._count = len(kept) // RECORD


def _pack(sequence: int, sample: Sample) -> bytes:
    body = _BODY.pack(sequence, float(sample[0]), *(max(0, int(value)) & _MASK for value in sample[1:]))
    return body + _CRC.pack(zlib.crc32(body))


def read(path: str | os.PathLike[str]) -> list[Sample]:
    """All whole records, oldest first. A record that is torn, or seen twice while the file is thinned, is left out.

    :raises ContainersError: not a ring file, or of an unknown version.
    """
    with open(path, "rb") as file:
        data = file.read()
    if len(data) < _HEADER_SIZE:
        raise _foreign(path, "it is too short")
    magic, version, size, capacity, _ = _HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION or size != RECORD:
        raise _foreign(path, "another format or version")
    found: dict[int, Sample] = {}
    for start in range(_HEADER_SIZE, min(len(data), _HEADER_SIZE + capacity * RECORD) - RECORD + 1, RECORD):
        body = data[start : start + _BODY.size]
        if _CRC.unpack_from(data, start + _BODY.size)[0] == zlib.crc32(body):
            sequence, *values = _BODY.unpack(body)
            if sequence:
                found[sequence] = Sample(*values)
    return [found[sequence] for sequence in sorted(found)]


def _foreign(path: object, why: str) -> Exception:
    from ..errors import ContainersError

    return ContainersError(f"{path} is not a record of samples: {why}", "remove it; a running container writes a new one at its next start")
