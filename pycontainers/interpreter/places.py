"""Where a container's Python meets the notebook: a folder of ours with the code for inside, and one for each container with a socket.

All of it lies in one temporary folder of this process, whose lock tells others whether that still lives.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import itertools
import os
import py_compile
import shutil
import socket
import sys
import tempfile
import threading
from pathlib import Path

from ..protocol import Mount

CODE, MEETING = "/.pycontainers/code", "/.pycontainers/run"
PACKAGE = "pycontainers_inside"
BOOT = f"import sys; sys.path.insert(0, {CODE!r}); from {PACKAGE}.runner import main; del sys.path[0]; main()"
_PREFIX = "pycontainers-python-"
_lock = threading.Lock()
_numbers = itertools.count(1)
_base: Path | None = None
_owner = 0


class Meeting:
    """A socket that one container sees. The folder above it is ours alone: nobody else on this machine reaches it."""

    def __init__(self) -> None:
        base = _ours()
        self.folder = base / "runs" / str(next(_numbers))
        self.folder.mkdir(mode=0o755)
        self.listener = socket.socket(socket.AF_UNIX)
        folder = os.open(self.folder, os.O_PATH | os.O_DIRECTORY)
        try:
            # A temporary folder may have a longer path than an address of a socket (unix(7): 107 bytes).
            self.listener.bind(f"/proc/self/fd/{folder}/control")
        finally:
            os.close(folder)
        # Inside, root may be somebody else, and the container's user anybody.
        os.chmod(self.folder / "control", 0o666)
        os.chmod(self.folder, 0o755)
        self.listener.listen(1)
        self.listener.setblocking(False)

    @property
    def mounts(self) -> tuple[Mount, Mount]:
        """Read-only: one may connect to a socket there, and change nothing."""
        code = Mount("bind", CODE, str(self.folder.parents[1] / "code"), read_only=True)
        return code, Mount("bind", MEETING, str(self.folder), read_only=True)

    def close(self) -> None:
        self.listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _ours() -> Path:
    """The folder of this process, made with first need; what processes that are gone have left is removed then."""
    global _base, _owner
    with _lock:
        if _base is not None and _owner == os.getpid() and (_base / "runs").is_dir():
            return _base
        _sweep()
        base = _locked()
        (base / "runs").mkdir()
        _write_code(base / "code" / PACKAGE)
        _write_fonts(base / "code" / "fonts")
        _base, _owner = base, os.getpid()
        atexit.register(_remove, base, os.getpid())
        return base


def _locked() -> Path:
    """A new folder with our lock in it, which stays open until this process ends."""
    while True:
        base = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = os.open(base / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(base / "lock"), os.fstat(lock)):
                return base
        os.close(lock)  # before we had it, another process took it for one that nobody holds, and removed the folder


def _write_code(folder: Path) -> None:
    """A copy of our package for inside, readable by whoever the container's user is, with its bytecode: it starts without compiling."""
    folder.mkdir(parents=True)
    for file in (Path(__file__).parent / "inside").glob("*.py"):
        copy = folder / file.name
        copy.write_bytes(file.read_bytes())
        with contextlib.suppress(py_compile.PyCompileError, OSError):
            py_compile.compile(
                str(copy), dfile=f"{CODE}/{PACKAGE}/{file.name}", invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
            )
    _readable(folder.parent)


def _write_fonts(folder: Path) -> None:
    """What matplotlib here has found out about the fonts of this machine: each new container would look for them anew, for seconds."""
    cache = os.environ.get("MPLCONFIGDIR") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "matplotlib")
    folder.mkdir()
    for path in Path(cache).glob("fontlist-*.json"):
        with contextlib.suppress(OSError):
            shutil.copyfile(path, folder / path.name)
    _readable(folder)


def _readable(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _sweep() -> None:
    """Remove what killed processes have left: nobody holds its lock."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue  # in a folder that everybody writes to, anybody may call something so
            lock = os.open(folder / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _remove(base: Path, owner: int) -> None:
    if os.getpid() == owner and not sys.is_finalizing():
        shutil.rmtree(base, ignore_errors=True)
