"""What happened: one file of events for all containers, written by whoever made the change.

``HOME/events.log``: a JSON object a line in the form of Docker's event messages (``Type``, ``Action``, ``Actor``, ``time``, ``timeNano``).
Appended in one write(2), which the kernel does not mix with another's (O_APPEND, open(2)). At :data:`LIMIT` bytes it becomes
``events.log.1``, in place of an older one.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

LIMIT = 4 << 20
"""Bytes of one file."""


def record(home: str, action: str, actor: str, attributes: dict[str, str], kind: str = "container") -> None:
    """Write one event. A disk that is full or read-only loses it: what happened is not undone for the want of a line about it."""
    now = time.time_ns()
    event = {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": actor, "Attributes": attributes},
        "scope": "local",
        "time": now // 1_000_000_000,
        "timeNano": now,
    }
    try:
        fd = os.open(f"{home}/events.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return
    try:
        os.write(fd, json.dumps(event, separators=(",", ":")).encode() + b"\n")
        if os.fstat(fd).st_size > LIMIT:
            _rotate(home, fd)
    except OSError:
        pass
    finally:
        os.close(fd)


def of(record_: dict[str, Any], **more: object) -> dict[str, str]:
    """The attributes of a container's events: name, image and labels, as Docker has them, and ``more``."""
    found = {str(key): str(value) for key, value in (record_.get("labels") or {}).items()}
    found.update(image=str(record_.get("image", "")), name=str(record_.get("name", "")))
    found.update({key: str(value) for key, value in more.items()})
    return found


def _rotate(home: str, fd: int) -> None:
    """Two that are here at once must not rotate twice: the second would throw the first one's file away."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    path = f"{home}/events.log"
    if os.stat(path).st_ino == os.fstat(fd).st_ino:
        os.rename(path, f"{path}.1")


def read(home: str, *, since: float = 0.0, until: float = 0.0, follow: Callable[[], bool] | None = None) -> Iterator[dict[str, Any]]:
    """Events between two unix times, oldest first; with ``follow`` it goes on while ``follow()`` is true or until ``until``."""
    seen: set[bytes] = set()
    file = None
    try:
        while True:
            goes_on = follow is not None and follow() and not (until and time.time() > until)  # asked before reading: nothing is missed
            # The file that is read stays open: renamed away meanwhile, it is still read to its end.
            while True:
                if file is not None:
                    yield from (event for event in _lines(file, since) if _within(event, since, until))
                following = _next(home, seen)
                if following is None:
                    break
                if file is not None:
                    yield from (event for event in _lines(file, since) if _within(event, since, until))
                    file.close()
                file = following
            if not goes_on:
                return
            time.sleep(0.05)
    finally:
        if file is not None:
            file.close()


def _within(event: dict[str, Any], since: float, until: float) -> bool:
    when = event.get("timeNano", 0) / 1e9
    return bool(when >= since and (not until or when <= until))


def _next(home: str, seen: set[bytes]) -> BinaryIO | None:
    """The older of the two files that was not opened yet."""
    for path in (f"{home}/events.log.1", f"{home}/events.log"):
        try:
            file = open(path, "rb")
        except FileNotFoundError:
            continue
        first = file.readline()  # an inode would be no name: it is given to a new file as soon as the old one is gone
        if first.endswith(b"\n") and first not in seen:
            seen.add(first)
            file.seek(0)
            return file
        file.close()
    return None


def _lines(file: BinaryIO, since: float) -> Iterator[dict[str, Any]]:
    """What has come since the last call. Lines are written whole; one that a full disk cut is skipped.

    The time is what :func:`record` writes last: who asks for the recent past need not have all of a large file parsed.
    """
    begin = int((since - 1.0) * 1e9)
    for line in file:
        told = line[-21:-2]
        if begin > 0 and told.isdigit() and int(told) < begin:
            continue
        try:
            yield json.loads(line)
        except ValueError:
            continue
