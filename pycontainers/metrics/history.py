"""The ring file: a container's whole life in a file of bounded size.

Little-endian. A header of 64 bytes: magic ``PYCTRING``, version (u16), size of a record (u16), capacity in records (u32), count of
records (u64), the rest zero. Then the records, oldest first: a sequence number from 1 (u64), the time (f64), the other fields of
:class:`.sample.Sample` (u64 each), and the CRC-32 of all that (u32).

A record has as many fields as its writer knew: new ones are only ever appended, so that the record of a container that was started by an
older program is read too (what it lacks is 0).

When the file is full it is thinned: the newest quarter stays as it is, and of everything older as many records are dropped, evenly in
time, as halve it. So a plot shows the whole life, however long, with the recent past in full detail; a live view stays live.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib

from .sample import FIELDS, Sample

MAGIC, VERSION = b"PYCTRING", 3
_HEADER = struct.Struct("<8sHHIQ")  # magic, version, record size, capacity, count
_HEADER_SIZE = 64
_COUNT = struct.Struct("<Q")
_COUNT_OFFSET = _HEADER.size - _COUNT.size
_BODY = struct.Struct(f"<Qd{len(FIELDS) - 1}Q")
_CRC = struct.Struct("<I")
_OLDER = {2: struct.Struct("<Qd18Q")}  # version -> the body of its records
_TIME = struct.Struct("<8xd")
RECORD = _BODY.size + _CRC.size
_MOST = (1 << 64) - 1
_LEAST_CAPACITY = 8


def interval(age: float) -> float:
    """Seconds until the next sample of a container that is ``age`` seconds old: dense at first, where most happens."""
    return 0.1 if age < 2 else 0.25 if age < 10 else 1.0


class Ring:
    """The writer. One process writes; any number may read at any time."""

    __slots__ = ("_capacity", "_count", "_fd", "_path", "_sequence")

    def __init__(self, path: str, fd: int, capacity: int) -> None:
        self._path, self._fd, self._capacity = path, fd, capacity
        self._count = self._sequence = 0

    @classmethod
    def create(cls, path: str, capacity: int) -> Ring:
        """An empty ring at ``path``, in place of an older one. It holds at most ``capacity`` records (8 or more) of 220 bytes.

        :raises OSError: it cannot be written.
        """
        if capacity < _LEAST_CAPACITY:
            raise ValueError(f"capacity {capacity} is less than {_LEAST_CAPACITY}")
        return cls(path, _replace(path, capacity, 0, b""), capacity)

    def append(self, sample: Sample) -> None:
        """:raises OSError: no space left, for example; the file stays readable."""
        if self._count == self._capacity:
            self._thin()
        record = _pack(self._sequence + 1, sample)
        if os.pwrite(self._fd, record, _HEADER_SIZE + self._count * RECORD) < RECORD:
            raise _no_space(self._path)
        # The count follows its record, so that a reader never counts what is not there.
        self._sequence += 1
        self._count += 1
        os.pwrite(self._fd, _COUNT.pack(self._count), _COUNT_OFFSET)

    def interval(self, age: float) -> float:
        """:func:`interval`: thinning forgets detail of the past, it does not slow down the present."""
        return interval(age)

    def close(self) -> None:
        os.close(self._fd)

    def _thin(self) -> None:
        data = os.pread(self._fd, self._capacity * RECORD, _HEADER_SIZE)
        records = [data[start : start + RECORD] for start in range(0, len(data), RECORD)]
        old = len(records) - len(records) // 4
        kept = [*_spread(records[:old], old // 2), *records[old:]]
        # A new file under the old name: a reader has one or the other, and a kill in between leaves the old one whole.
        fd = _replace(self._path, self._capacity, len(kept), b"".join(kept))
        os.close(self._fd)
        self._fd, self._count = fd, len(kept)


def _spread(records: list[bytes], most: int) -> list[bytes]:
    """At most ``most`` of ``records``, evenly in time, the first always among them: the last one of each equal span.

    Evenly in time, not every second one: what has been thinned before would else lose its half again each time, and the start of a
    long life fade away.
    """
    begin, end = _TIME.unpack_from(records[0])[0], _TIME.unpack_from(records[-1])[0]
    # A clock that was set back, or stands still, gives no spans: then every second one it is.
    if not end > begin:
        return records[:: 2 if len(records) <= 2 * most else len(records) // most + 1]
    spans = {}
    for record in records[1:]:
        place = int((_TIME.unpack_from(record)[0] - begin) / (end - begin) * (most - 1))
        spans[min(max(place, 0), most - 2)] = record
    return [records[0], *(spans[place] for place in sorted(spans))]


def _replace(path: str, capacity: int, count: int, records: bytes) -> int:
    """Write header and records to a new file, rename it to ``path``, and return its descriptor."""
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        data = _HEADER.pack(MAGIC, VERSION, RECORD, capacity, count).ljust(_HEADER_SIZE, b"\0") + records
        if os.write(fd, data) < len(data):
            raise _no_space(temporary)
        os.rename(temporary, path)
    except BaseException:
        os.close(fd)
        os.unlink(temporary)
        raise
    return fd


def _no_space(path: str) -> OSError:
    """A disk that becomes full shows as a short write first; ENOSPC would come with the next one."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def _pack(sequence: int, sample: Sample) -> bytes:
    values = [min(max(int(value), 0), _MOST) for value in sample[1:]]
    body = _BODY.pack(sequence, sample.time, *values)
    return body + _CRC.pack(zlib.crc32(body))


def read(path: str | os.PathLike[str]) -> list[Sample]:
    """Every whole record, oldest first. One that is torn (its writer is at it, or was killed) is left out.

    The count in the header is not relied on: after a crash of the machine it may be older than the records.

    :raises ContainersError: not a ring file, or of another version. :raises OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    form, capacity = _form(path, data)
    return _records(form, data[_HEADER_SIZE : _HEADER_SIZE + capacity * (form.size + _CRC.size)])


def read_after(path: str | os.PathLike[str], time: float) -> list[Sample]:
    """The whole records behind that of ``time`` (unix seconds, as :func:`read` gave it), oldest first; all where it is not among the last.

    Who follows a container asks once a second, and the file may have thousands of records: only its end is read.

    :raises ContainersError: as :func:`read`. :raises OSError: it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(fd, _HEADER_SIZE, 0)
        form, _ = _form(path, head)
        size = form.size + _CRC.size
        # By the file's length, not by the count: that may be older than the records.
        count = (os.fstat(fd).st_size - _HEADER_SIZE) // size
        first = max(0, count - _LAST)
        found = _records(form, os.pread(fd, _LAST * size, _HEADER_SIZE + first * size))
    finally:
        os.close(fd)
    for index in range(len(found) - 1, -1, -1):
        if found[index].time == time:
            return found[index + 1 :]
    return [sample for sample in read(path) if sample.time > time]


_LAST = 32


def _form(path: object, data: bytes) -> tuple[struct.Struct, int]:
    """(the body of its records, how many it may hold), by its header."""
    if len(data) < _HEADER_SIZE:
        raise _foreign(path, f"{len(data)} bytes are less than its header")
    magic, version, size, capacity, _ = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise _foreign(path, f"it begins with {magic!r}")
    form = _BODY if version == VERSION else _OLDER.get(version)
    if form is None or size != form.size + _CRC.size:
        raise _foreign(path, f"version {version} with records of {size} bytes; this is version {VERSION} with {RECORD}")
    return form, capacity


def newest(path: str | os.PathLike[str], after: int, most: int) -> list[tuple[int, Sample]]:
    """(sequence number, sample) of at most the ``most`` newest records whose number is greater than ``after``, oldest first.

    For who asks again and again: the whole file is a few hundred KiB, what is new is one record. A start of the container begins its
    numbers anew: then ``after`` is greater than all that is there, and the newest are given. Nothing where there is no such file yet, or
    it is none of ours.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    from ..errors import ContainersError

    try:
        form, _ = _form(path, os.pread(fd, _HEADER_SIZE, 0))
        size = form.size + _CRC.size
        count = (os.fstat(fd).st_size - _HEADER_SIZE) // size
        first = max(0, count - most)
        found = sorted(_numbered(form, os.pread(fd, (count - first) * size, _HEADER_SIZE + first * size)).items())
    except ContainersError:
        return []
    finally:
        os.close(fd)
    if found and found[-1][0] < after:
        after = 0
    return [pair for pair in found if pair[0] > after]


def _records(form: struct.Struct, data: bytes) -> list[Sample]:
    found = _numbered(form, data)
    return [found[sequence] for sequence in sorted(found)]


def _numbered(form: struct.Struct, data: bytes) -> dict[int, Sample]:
    size = form.size + _CRC.size
    found: dict[int, Sample] = {}
    for start in range(0, len(data) - size + 1, size):
        body = data[start : start + form.size]
        if _CRC.unpack_from(data, start + form.size)[0] == zlib.crc32(body):
            sequence, *values = form.unpack(body)
            if sequence:
                found[sequence] = Sample(*values)
    return found


def _foreign(path: object, why: str) -> Exception:
    from ..errors import ContainersError

    return ContainersError(f"{path} is not a record of samples: {why}", "remove it; a container writes a new one at its next start")
