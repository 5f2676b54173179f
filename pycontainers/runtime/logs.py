"""The container's log: ``RFC3339nano stdout|stderr F|P text`` a line (the CRI logging format of Kubernetes; conmon writes it too)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

_LONGEST = 16 * 1024  # bytes of one line before it is cut and marked P, as conmon and Docker do


class Writer:
    """Cuts bytes into lines and appends them. One instance per container; both streams share the file."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._rest = {"stdout": b"", "stderr": b""}
        self._lost = 0

    def feed(self, stream: str, data: bytes) -> None:
        stamp = timestamp(time.time_ns())
        lines = (self._rest[stream] + data).split(b"\n")
        out = []
        for line in lines[:-1]:
            out += self._cut(stamp, stream, line, final=True)
        rest = lines[-1]
        while len(rest) >= _LONGEST:
            out.append(b"%s %s P %s\n" % (stamp, stream.encode(), rest[:_LONGEST]))
            rest = rest[_LONGEST:]
        self._rest[stream] = rest
        if out:
            self._write(b"".join(out))

    def end_lines(self) -> None:
        """The streams have ended: write what did not end with a newline, marked partial."""
        stamp = timestamp(time.time_ns())
        for stream, rest in self._rest.items():
            if rest:
                self._write(b"%s %s P %s\n" % (stamp, stream.encode(), rest))
        self._rest = {"stdout": b"", "stderr": b""}

    def close(self) -> None:
        self.end_lines()
        os.close(self._fd)

    def _cut(self, stamp: bytes, stream: str, line: bytes, final: bool) -> list[bytes]:
        pieces = [line[start : start + _LONGEST] for start in range(0, len(line), _LONGEST)] or [b""]
        tags = [b"P"] * (len(pieces) - 1) + [b"F"]
        return [b"%s %s %s %s\n" % (stamp, stream.encode(), tag, piece) for tag, piece in zip(tags, pieces, strict=True)]

    def _write(self, data: bytes) -> None:
        """A full disk does not stop the container; what it takes from the log is said there as soon as there is room."""
        lost = self._lost
        if lost:
            data = b"\n%s stderr F [%d bytes of the log are lost: the disk was full]\n" % (timestamp(time.time_ns()), lost) + data
        left = len(data)
        try:
            while left:
                left -= os.write(self._fd, data[len(data) - left :])
            self._lost = 0
        except OSError:
            self._lost = lost + left


def timestamp(nanoseconds: int) -> bytes:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % rest


def parse_time(text: str) -> float:
    """Unix seconds of an RFC 3339 time in UTC as :func:`timestamp` writes it."""
    import calendar

    whole, _, fraction = text.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + (float("0." + fraction) if fraction else 0.0)


def read(path: str, *, follow: Callable[[], bool] | None = None, poll: float = 0.1) -> Iterator[tuple[float, str, bool, bytes]]:
    """(unix time, stream, partial, text) for each line. With ``follow`` it goes on while ``follow()`` is true.

    Lines that a full disk cut short are skipped.
    """
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        return
    with file:
        rest = b""
        while True:
            goes_on = follow is not None and follow()  # asked before reading: what was written until the end is still read
            while chunk := file.read(1 << 16):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    parsed = _parse(line)
                    if parsed:
                        yield parsed
            if not goes_on:
                return
            time.sleep(poll)


def part(
    path: str, after: int | None = None, before: int | None = None, most: int = 64 << 10
) -> tuple[list[tuple[float, str, bool, bytes]], int, int]:
    """Whole lines from at most ``most`` bytes of the log, and where they begin and end in it.

    :param after: the first ones from this place on. :param before: the last ones before this place. Neither: the last ones.
    """
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        return [], 0, 0
    with file:
        size = file.seek(0, os.SEEK_END)
        if after is not None:
            start = after if after <= size else 0
            end = min(size, start + most)
        else:
            end = size if before is None else min(size, before)
            start = max(0, end - most)
        file.seek(start)
        data = file.read(end - start)
    if after is None and start:  # somewhere within a line
        cut = data.find(b"\n") + 1
        start, data = start + cut, data[cut:]
    whole = data.rfind(b"\n") + 1  # the last one is being written
    found = [parsed for line in data[:whole].split(b"\n") if line and (parsed := _parse(line))]
    return found, start, start + whole


def _parse(line: bytes) -> tuple[float, str, bool, bytes] | None:
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in (b"stdout", b"stderr"):
        return None
    try:
        return parse_time(parts[0].decode("ascii")), parts[1].decode(), parts[2] == b"P", parts[3]
    except ValueError:
        return None
