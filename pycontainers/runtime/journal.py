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
from typing import Any

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
    for path in (f"{home}/events.log.1", f"{home}/events.log"):
        yield from (event for event in _lines(path, 0)[0] if _within(event, since, until))
    if follow is None:
        return
    place = _size(f"{home}/events.log")
    while follow() and not (until and time.time() > until):
        found, place = _lines(f"{home}/events.log", place)
        yield from (event for event in found if _within(event, since, until))
        time.sleep(0.05)


def _within(event: dict[str, Any], since: float, until: float) -> bool:
    when = event.get("timeNano", 0) / 1e9
    return bool(when >= since and (not until or when <= until))


def _size(path: str) -> tuple[int, int]:
    """(inode, bytes): where a reader stands."""
    try:
        found = os.stat(path)
        return found.st_ino, found.st_size
    except FileNotFoundError:
        return 0, 0


def _lines(path: str, place: Any) -> tuple[list[dict[str, Any]], Any]:
    """The events behind ``place``, and where the next ones will be. A file that was rotated away is read to its end first."""
    inode, start = place if place else (0, 0)
    found: list[dict[str, Any]] = []
    try:
        now = os.stat(path)
        if inode and now.st_ino != inode:
            found += _parse(f"{path}.1", start)[0]
            start = 0
        more, end = _parse(path, start)
        return found + more, (now.st_ino, end)
    except FileNotFoundError:
        return found, (0, 0)


def _parse(path: str, start: int) -> tuple[list[dict[str, Any]], int]:
    with open(path, "rb") as file:
        file.seek(start)
        data = file.read()
    whole = data.rfind(b"\n") + 1
    found = []
    for line in data[:whole].splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # cut by a full disk
    return found, start + whole
