"""What files contain, remembered by what their inodes say: so that a build whose context did not change reads none of it again.

A file's device, inode, size, mtime and ctime stand for its content and its extended attributes. The kernel sets the ctime at each change
of either, and nobody can set it back. But its clock has ticks: a file that is changed twice in one keeps its ctime. So what was read is
remembered only if the file's ctime was older than a tick when the reading began (the index of git has the same rule: "racy git").
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
import threading
import time
import zlib
from collections.abc import Callable

from ..linux.mounts import filesystem

_KEY = struct.Struct("<QQqqq")  # st_dev, st_ino, st_size, st_mtime_ns, st_ctime_ns
_VALUE = 32
NOTHING = bytes(_VALUE)
"""Stands for what has neither content nor attributes: most folders."""
_ROW = _KEY.size + _VALUE
_MAGIC = b"pycontainers digests 1\n"
_MOST = 120_000  # files remembered: 9 MB, 40 ms to load
_FEW = 256  # new ones that are worth writing the file, and bytes that were read for them
_MUCH = 16 << 20
_WORTH = 1 << 20  # bytes that take longer to read again than to wait for a tick
#: Nanoseconds within which two changes may show the same ctime: the kernel's own tick, twice, where it is the kernel that says so …
_TICK = 2 * int(time.clock_getres(5) * 1_000_000_000)  # 5: CLOCK_REALTIME_COARSE (<linux/time.h>)
_COARSE = 2_000_000_000  # … and whatever it likes where another machine does (NFS, FUSE, 9p), or a format (FAT: 2 s; ext3: 1 s)
#: f_type (statfs(2)): ext2/3/4, xfs, btrfs, tmpfs, overlayfs, f2fs, bcachefs, zfs, ramfs
_LOCAL = frozenset((0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630, 0xF2F52010, 0xCA451A4E, 0x2FC12FC1, 0x858458F6))


class DigestCache:
    """inode → digest. ``path``: the file that keeps it between processes, "" for none. Several threads may use it."""

    def __init__(self, path: str = "") -> None:
        self.path = path
        self._known: dict[bytes, bytes] | None = None
        self._used: dict[bytes, bytes] = {}
        self._new = self._read = 0
        self._ticks: dict[int, int] = {}
        self._lock = threading.Lock()

    def get(self, found: os.stat_result) -> bytes | None:
        """The digest of a file that looks like this."""
        known = self._known if self._known is not None else self._load()
        key = _KEY.pack(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        value = known.get(key)
        if value is not None:
            self._used[key] = value
        return value

    def settled(self, fd: int, found: os.stat_result) -> tuple[os.stat_result, int]:
        """How ``fd`` looks, and since when (unix nanoseconds), once a tick is over since its last change: milliseconds, if any.

        Where ticks are long, or the file is read in no time, nobody waits, and nothing is remembered: it is read again next time.
        """
        began = _now()
        tick = self._tick(fd, found)
        if found.st_size >= _WORTH and 0 <= (age := began - found.st_ctime_ns) <= tick < _COARSE:
            time.sleep((tick - age) / 1_000_000_000 + 0.0005)
            return os.fstat(fd), _now()
        return found, began

    def put(self, fd: int, found: os.stat_result, began: int, value: bytes) -> None:
        """``value`` was read from ``fd``, which looked like ``found`` before and after, beginning at ``began``."""
        if not 0 < found.st_ctime_ns < began - self._tick(fd, found):
            return
        key = _KEY.pack(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        with self._lock:
            known = self._known if self._known is not None else self._load()
            known[key] = self._used[key] = value
            self._new += 1
            self._read += found.st_size
            if len(known) > 2 * _MOST:
                self._known = dict(self._used)

    def settle(self, always: bool = False) -> None:
        """Write the file if much is new (``always``: if anything is). A disk that is full or read-only only makes the next build slower."""
        with self._lock:
            if not self.path or not self._new or not (always or self._new >= _FEW or self._read >= _MUCH):
                return
            rows = {key: value for key, value in (self._known or {}).items() if key not in self._used}
            rows.update(self._used)  # what was used last stands last, and stays longest
            kept = list(rows.items())[-_MOST:]
            content = b"".join([key + value for key, value in kept])
            self._new = self._read = 0
            with contextlib.suppress(OSError):
                _write(self.path, _MAGIC + zlib.crc32(content).to_bytes(4, "little") + content)

    def _load(self) -> dict[bytes, bytes]:
        """What the file says; nothing if it is missing, cut off or otherwise not as it was written."""
        known: dict[bytes, bytes] = {}
        try:
            with open(self.path, "rb") as file:
                data = file.read(len(_MAGIC) + 4 + _ROW * _MOST + 1)
        except (OSError, ValueError):
            data = b""
        head = len(_MAGIC) + 4
        content = memoryview(data)[head:]
        if data.startswith(_MAGIC) and not len(content) % _ROW and zlib.crc32(content).to_bytes(4, "little") == data[head - 4 : head]:
            size = _KEY.size
            known = {data[at : at + size]: data[at + size : at + _ROW] for at in range(head, len(data), _ROW)}
        self._known = known
        return known

    def _tick(self, fd: int, found: os.stat_result) -> int:
        if not found.st_ctime_ns % 1_000_000_000:  # no accident: an ext4 with small inodes counts seconds
            return _COARSE
        tick = self._ticks.get(found.st_dev)
        if tick is None:
            try:
                tick = _TICK if filesystem(fd) in _LOCAL else _COARSE
            except OSError:
                tick = _COARSE
            self._ticks[found.st_dev] = tick
        return tick


in_memory = DigestCache()
"""For what lies in the store, whose layers are never changed."""


def read(fd: int, check: Callable[[], None]) -> bytes:
    """The digest of what ``fd`` holds from here on. ``check`` is called all the while, and may raise."""
    state = hashlib.sha256()
    buffer = bytearray(1 << 18)
    view = memoryview(buffer)
    while count := os.readv(fd, [buffer]):
        state.update(view[:count])
        check()
    return state.digest()


def same(one: os.stat_result, other: os.stat_result) -> bool:
    """Do two looks at a file show the same content, as far as its inode can tell?"""
    return (one.st_ino, one.st_dev, one.st_size, one.st_mtime_ns, one.st_ctime_ns, stat.S_IFMT(one.st_mode)) == (
        other.st_ino, other.st_dev, other.st_size, other.st_mtime_ns, other.st_ctime_ns, stat.S_IFMT(other.st_mode)
    )


def _now() -> int:
    """Unix nanoseconds, by the clock that files are stamped from."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def _write(path: str, content: bytes) -> None:
    temporary = f"{path}.{os.getpid()}-{os.urandom(4).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
