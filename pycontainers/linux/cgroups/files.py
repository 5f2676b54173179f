"""Reading and writing control files."""

from __future__ import annotations

import os


def write(path: str, value: object) -> None:
    """Write one value. A control file takes the whole value in one write, or refuses it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)


def read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 65536).decode("ascii", "replace")
    finally:
        os.close(fd)


def open_all(paths: dict[str, str]) -> dict[str, int]:
    """name -> descriptor for each path that exists, for readers that ask again and again."""
    found = {}
    for name, path in paths.items():
        try:
            found[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
    return found


def again(fd: int) -> str:
    """The present content of an open control file."""
    return os.pread(fd, 16384, 0).decode("ascii", "replace")


def pairs(text: str) -> dict[str, int]:
    """ "flat keyed" files: ``key value`` a line."""
    result = {}
    for line in text.splitlines():
        key, _, value = line.rpartition(" ")
        if value.isdigit():
            result[key] = int(value)
    return result
