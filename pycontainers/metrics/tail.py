"""The newest samples of a ring file, for who asks again and again: the whole file is a few hundred KiB, what is new is one record."""

from __future__ import annotations

import os
import zlib

from .history import _BODY, _CRC, _HEADER, _HEADER_SIZE, MAGIC, RECORD, VERSION
from .sample import Sample


def tail(path: str, after: int, most: int) -> list[tuple[int, Sample]]:
    """(sequence number, sample) of at most the ``most`` newest records whose number is greater than ``after``, oldest first.

    Nothing where there is no such file, or it is of another version. A start of the container begins its numbers anew: then ``after``
    is greater than all that is there, and the newest are given.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        header = os.pread(fd, _HEADER_SIZE, 0)
        if len(header) < _HEADER_SIZE:
            return []
        magic, version, size, _, count = _HEADER.unpack_from(header)
        if magic != MAGIC or version != VERSION or size != RECORD:
            return []
        first = max(0, count - most)
        # The count follows its record: one may be there that it does not tell of yet.
        data = os.pread(fd, (count - first + 1) * RECORD, _HEADER_SIZE + first * RECORD)
    finally:
        os.close(fd)
    found = []
    for start in range(0, len(data) - RECORD + 1, RECORD):
        body = data[start : start + _BODY.size]
        if _CRC.unpack_from(data, start + _BODY.size)[0] == zlib.crc32(body):
            sequence, *values = _BODY.unpack(body)
            found.append((sequence, Sample(*values)))
    found.sort(key=lambda pair: pair[0])
    if found and found[-1][0] < after:
        after = 0
    return [pair for pair in found if pair[0] > after][-most:]
