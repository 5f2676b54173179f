"""Reading and writing control files (cgroups(7)). A file takes a whole value in one write, or refuses it."""

from __future__ import annotations

import os

_WHOLE = 65536  # a control file is one seq_file record: one read that is large enough returns all of it


def write(path: str, value: object) -> None:
    """:raises OSError: as the kernel said, with ``path`` as its file name."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _WHOLE).decode("ascii", "replace")
    finally:
        os.close(fd)


def pids(folder: str) -> list[int]:
    """The processes of one group. ``cgroup.procs`` may be longer than one read, so it is read to its end."""
    with open(f"{folder}/cgroup.procs", encoding="utf-8") as file:
        return [int(line) for line in file.read().split()]


def below(folder: str) -> list[str]:
    """``folder`` and every group under it, the deepest first: the order in which rmdir(2) works."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found += below(entry.path)
    except (FileNotFoundError, NotADirectoryError):
        return found
    return [*found, folder]


def open_all(paths: dict[str, str]) -> dict[str, int]:
    """name -> descriptor for each path that exists, for readers that ask again and again."""
    found = {}
    for name, path in paths.items():
        try:
            found[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
    return found


class Counters:
    """Open control files of one group. What is not open (this kernel has no such file) reads as 0."""

    __slots__ = ("_fds",)

    def __init__(self, paths: dict[str, str]) -> None:
        self._fds = open_all(paths)

    def number(self, name: str) -> int:
        """The file's one number; 0 for ``max``, which is no limit."""
        fd = self._fds.get(name)
        if fd is None:
            return 0
        data = os.pread(fd, 64, 0)
        return int(data) if data[:1].isdigit() else 0

    def flat(self, name: str) -> bytes:
        """A "flat keyed" file, ready for :func:`keyed`."""
        fd = self._fds.get(name)
        return b"" if fd is None else b"\n" + os.pread(fd, 8192, 0)

    def has(self, name: str) -> bool:
        return name in self._fds

    def words(self, name: str) -> list[bytes]:
        fd = self._fds.get(name)
        return [] if fd is None else os.pread(fd, _WHOLE, 0).split()

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}


def keyed(data: bytes, key: bytes) -> int:
    """The number behind ``key`` in a flat keyed file, 0 where it is missing.

    Searched, not parsed: memory.stat has 60 lines of which four are wanted, and a sampler reads it once a second per container.
    """
    start = data.find(b"\n%b " % key)
    if start < 0:
        return 0
    start += len(key) + 2
    end = data.find(b"\n", start)
    return int(data[start:end] if end >= 0 else data[start:])
