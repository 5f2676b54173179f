"""One container's cgroup in every hierarchy."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from types import ModuleType
from typing import Any

from . import files, v1, v2
from .layout import Layout, layout

_open = os.open


class Group:
    """A cgroup by its path (``/pycontainers/<id>``), the same on every hierarchy. Files are the truth: nothing is kept."""

    def __init__(self, path: str, where: Layout | None = None) -> None:
        self.path = path
        self.layout = where or layout()
        self.version: ModuleType = v2 if self.layout.version == "v2" else v1
        self.paths: dict[str, str] = self.version.folders(self.layout, path)
        self._fd: int | None = None

    @property
    def fd(self) -> int | None:
        """An open folder for ``clone3(CLONE_INTO_CGROUP)``; None where there are several hierarchies (v1)."""
        if self._fd is None and self.layout.version == "v2":
            self._fd = _open(self.layout.unified + self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fd

    @property
    def folders(self) -> list[str]:
        return list(dict.fromkeys(self.paths.values()))

    def entrances(self) -> list[int]:
        """Descriptors through which a process puts *itself* in, by :func:`enter`; [] where ``fd`` serves (v2).

        Moving another process takes the kernel's global threadgroup lock, which waits for an RCU grace period: 12 ms for eight
        hierarchies. A single thread that moves itself through v1's ``tasks`` skips it (cgroup_procs_write_start in
        kernel/cgroup/cgroup.c): 0.1 ms. The right to do so is that of whoever opened the file.
        """
        if self.layout.version == "v2":
            return []
        return [_open(f"{folder}/tasks", os.O_WRONLY | os.O_CLOEXEC) for folder in self.folders]

    def join(self) -> None:
        """Move the calling, single-threaded process in, in every hierarchy."""
        if self.layout.version == "v2":
            files.write(f"{self.folders[0]}/cgroup.procs", 0)
            return
        entrances = self.entrances()
        enter(entrances)
        for fd in entrances:
            os.close(fd)

    def add(self, pid: int) -> None:
        """Move another process in, in every hierarchy."""
        for folder in self.folders:
            files.write(f"{folder}/cgroup.procs", pid)

    def update(self, resources: dict[str, Any], explicit_swap: bool = True) -> None:
        """Set limits. :raises LimitError: naming the option, the value and what the kernel said."""
        rows = self.version.settings(resources)
        for row in v1.order(rows, self.paths) if self.version is v1 else rows:
            controller, name, value, option = row
            folder = self.paths.get(controller)
            try:
                if folder is None:
                    raise OSError(errno.ENOENT, f"the {controller} controller is not available here")
                files.write(self.version.writers(controller, name, folder), value)
            except OSError as error:
                if option == "--memory-swap" and not explicit_swap and error.errno == errno.ENOENT:
                    continue  # Docker's default of twice the memory, which nobody asked for
                _refused(row, error, self.version.explain(row, error))

    def pids(self) -> list[int]:
        return [int(line) for line in files.read(f"{self.folders[0]}/cgroup.procs").split()]

    def kill(self, seconds: float = 2.0) -> None:
        """End every process in it: ``cgroup.kill`` (v2, Linux 5.14), else SIGKILL until it is empty, bounded."""
        deadline = time.monotonic() + seconds
        if self.layout.version == "v2":
            with contextlib.suppress(FileNotFoundError):
                files.write(f"{self.folders[0]}/cgroup.kill", "1")
        while time.monotonic() < deadline:
            try:
                left = self.pids()
            except FileNotFoundError:
                return
            if not left:
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)

    def freeze(self) -> None:
        self.version.freeze(self.paths, True)

    def thaw(self) -> None:
        self.version.freeze(self.paths, False)

    def events(self) -> dict[str, int]:
        """{"oom_kill": processes killed for want of memory, "oom": times the limit was hit without way out}."""
        found: dict[str, int] = self.version.events(self.paths)
        return found

    def peak(self) -> int:
        """The most memory ever used at once, bytes; 0 where the kernel does not tell."""
        found: int = self.version.peak(self.paths)
        return found

    def metrics(self) -> dict[str, int]:
        """Open descriptors of the files with counters, for :meth:`read_metrics`."""
        return files.open_all(self.version.metric_files(self.paths))

    def read_metrics(self, fds: dict[str, int]) -> dict[str, int]:
        found: dict[str, int] = self.version.read_metrics(fds)
        return found

    def remove(self, seconds: float = 1.0) -> None:
        """rmdir everywhere. The kernel answers EBUSY until the last process is wholly gone: tried again, bounded."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        deadline = time.monotonic() + seconds
        for folder in self.folders:
            while True:
                try:
                    os.rmdir(folder)
                    break
                except FileNotFoundError:
                    break
                except OSError as error:
                    if error.errno != errno.EBUSY or time.monotonic() > deadline:
                        raise
                    time.sleep(0.001)


def enter(entrances: list[int]) -> None:
    """Put the calling thread into the groups behind :meth:`Group.entrances`."""
    for fd in entrances:
        os.write(fd, b"0")


def _refused(row: v1.Setting, error: OSError, why: str) -> None:
    from ...errors import LimitError  # only when something went wrong

    raise LimitError(
        f"{row[3]} {row[2]} cannot be set here: {why} ({errno.errorcode.get(error.errno or 0, error.errno)}, {row[1]})",
        f"leave out {row[3]}; doctor shows which limits this machine has",
    ) from None


def create(path: str, resources: dict[str, Any], where: Layout | None = None) -> Group:
    """Make the group and set its limits. On any error everything that was made is removed again.

    :raises LimitError: a limit cannot be set. :raises IsolationError: groups cannot be made here.
    """
    group = Group(path, where)
    if not group.layout.writable:
        _unwritable(group.layout.why)
    try:
        try:
            group.version.prepare(group.layout, path)
        except OSError as error:
            why = "a process sits in the root of this cgroup tree" if error.errno == errno.EBUSY else error.strerror or str(error)
            _unwritable(f"{why} ({error.filename or path})")
        swap = resources.get("memory", {})
        group.update(resources, explicit_swap=swap.get("swap") is not None and swap.get("swap") != 2 * swap.get("limit", 0))
        return group
    except BaseException:
        with contextlib.suppress(OSError):
            group.remove()
        raise


def _unwritable(why: str) -> None:
    from ...errors import IsolationError

    raise IsolationError(f"no cgroup can be made: {why}", "run where the cgroup tree is writable (docker: --privileged --cgroupns private)")


def open(path: str) -> Group:
    """An existing group (nothing is checked: its files tell)."""
    return Group(path)


_CHECKS: dict[str, dict[str, Any]] = {
    "memory": {"memory": {"limit": 64 << 20}},
    "swap": {"memory": {"limit": 64 << 20, "swap": 96 << 20}},
    "cpus": {"cpu": {"quota": 50000, "period": 100000}},
    "cpu shares": {"cpu": {"shares": 512}},
    "cpuset": {"cpu": {"cpus": "0"}},
    "pids": {"pids": {"limit": 64}},
    "block I/O weight": {"blockIO": {"weight": 500}},
}


def check() -> list[tuple[str, bool, str]]:
    """(limit, works, why not) for each: a group is made with it and removed."""
    from ...errors import ContainersError

    found = []
    for name, resources in _CHECKS.items():
        try:
            create(f"/pycontainers/check-{os.getpid()}", resources).remove()
            found.append((name, True, ""))
        except (OSError, ContainersError) as error:
            found.append((name, False, error.message if isinstance(error, ContainersError) else str(error)))
    return found
