"""The state of containers: a folder each under ``--root``, with the spec as it was at create, and who its first process is.

``config.json``, ``state.json``, ``start.sock`` (there until it is started), ``lock`` (held by whoever changes it), ``stage`` (empty).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from typing import Any

from ..errors import NotFound, StateError, UsageError
from ..linux import cgroups, process, trees
from ..runtime.state import read, write

CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"
_ID = re.compile(r"[A-Za-z0-9_+.\-]{1,1024}")


def default_root() -> str:
    """Root of a user namespace (rootless engines call us as that) may not write /run: then as for an ordinary user."""
    if os.access("/run", os.W_OK):
        return "/run/pycontainers-oci"
    return os.path.join(os.environ.get("XDG_RUNTIME_DIR") or _private(f"/tmp/pycontainers-oci-{os.geteuid()}"), "pycontainers-oci")


def _private(folder: str) -> str:
    """Everybody may make a folder of that name in /tmp: states in it would be his to write. :raises UsageError: it is not ours alone."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise UsageError(f"{folder} is not this user's alone", "set XDG_RUNTIME_DIR, or give --root")
    return folder


class Store:
    """``root``: an absolute folder, made when it is needed."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def folder(self, name: str) -> str:
        if not _ID.fullmatch(name) or name in (".", ".."):
            raise UsageError(f"invalid container id {name!r}", "letters, digits and _ + - .")
        return f"{self.root}/{name}"

    def make(self, name: str) -> Container:
        """A new one. :raises StateError: the id is taken."""
        os.makedirs(self.root, 0o711, exist_ok=True)
        folder = self.folder(name)
        try:
            os.mkdir(folder, 0o700)  # the spec has the environment, which may have secrets
        except FileExistsError:
            raise StateError(f"container with id {name} already exists", "delete it first, or choose another id") from None
        os.mkdir(f"{folder}/stage", 0o700)
        return Container(name, folder, {})

    def open(self, name: str) -> Container:
        """:raises NotFound: there is none."""
        folder = self.folder(name)
        state = read(folder, "state.json")
        if state is None:
            raise NotFound(f"container does not exist: {name}", f"its state would be in {folder}")
        return Container(name, folder, state)

    def clear(self, name: str) -> None:
        """Give back the id of one whose create was killed before it had a state: nothing else of it was made by then."""
        folder = self.folder(name)
        if not os.path.exists(f"{folder}/state.json"):
            trees.remove(folder)

    def all(self) -> list[Container]:
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            with contextlib.suppress(NotFound, UsageError):
                found.append(self.open(name))
        return found

    def matching(self, pattern: str) -> list[Container]:
        expression = re.compile(pattern)
        return [container for container in self.all() if expression.search(container.id)]


class Container:
    """``state``: what state.json says: bundle, rootfs, created, owner, cgroup, annotations, ociVersion, init (who it is)."""

    def __init__(self, name: str, folder: str, state: dict[str, Any]) -> None:
        self.id, self.folder, self.state = name, folder, state

    @property
    def socket(self) -> str:
        return f"{self.folder}/start.sock"

    @property
    def pid(self) -> int:
        """The first process, 0 when it has ended."""
        init = self.state.get("init")
        return init["pid"] if init and process.alive(init) else 0

    @property
    def group(self) -> cgroups.Group:
        if not self.state.get("cgroup"):
            return cgroups.Group("/", cgroups.Layout("none", []))
        return cgroups.open(self.state["cgroup"])

    def status(self) -> str:
        if not self.state.get("init"):
            return CREATING
        if not self.pid:
            return STOPPED
        if os.path.exists(self.socket):
            return CREATED if self.state.get("ready") else CREATING
        return PAUSED if self._is_frozen() else RUNNING

    def _is_frozen(self) -> bool:
        try:
            return self.group.is_frozen()
        except (OSError, KeyError):
            return False

    def spec(self) -> dict[str, Any]:
        return read(self.folder, "config.json") or {}

    def write(self) -> None:
        write(self.folder, "state.json", self.state)

    def write_spec(self, spec: dict[str, Any]) -> None:
        write(self.folder, "config.json", spec)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One change at a time: start, kill and delete by two callers at once."""
        try:
            fd = os.open(f"{self.folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise NotFound(f"container does not exist: {self.id}", "it has just been deleted") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def remove(self) -> None:
        """state.json first: from then on it does not exist."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.folder}/state.json")
        trees.remove(self.folder)

    def oci_state(self) -> dict[str, Any]:
        """The state of runtime.md, with what runc adds."""
        status = self.status()
        found = {
            "ociVersion": self.state.get("ociVersion") or "1.2.0",
            "id": self.id,
            "pid": self.pid,
            "status": status,
            "bundle": self.state["bundle"],
            "rootfs": self.state["rootfs"],
            "created": self.state["created"],
            "annotations": self.state.get("annotations") or {},
            "owner": self.state.get("owner") or "",
        }
        if not found["annotations"]:
            del found["annotations"]
        return found


def now() -> str:
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e9):09d}Z"
