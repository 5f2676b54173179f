"""One container's cgroup in every hierarchy of this machine."""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import Any

from . import files, v1, v2
from .layout import Layout, Tree, layout

_open = os.open
_STEP = 0.002  # seconds between two looks at what the kernel is about to finish


class Group:
    """A cgroup by its path (``/pycontainers/<id>``), the same in every hierarchy. The kernel's files are the truth: nothing is cached.

    ``paths``: controller -> folder, and "unified" -> folder in the v2 tree of a hybrid machine. Empty where no group could be made.
    ``missing``: controller -> why this group does not have it (its limits are refused, its counters read 0).
    """

    __slots__ = ("_fd", "_v1", "_v2", "_v2_folder", "missing", "path", "paths")

    def __init__(self, path: str, where: Layout, missing: dict[str, str] | None = None) -> None:
        self.path = path
        self.missing = missing or {}
        self._v1: dict[str, str] = {}
        self._v2: dict[str, str] = {}
        self._v2_folder = ""
        self._fd: int | None = None
        for tree in where.trees:
            folder = tree.base + path
            if not os.path.isdir(folder):
                continue
            if tree.kind == "v1":
                self._v1 |= dict.fromkeys(tree.controllers, folder)
            else:
                self._v2_folder = folder
                self._v2 = {name: folder for name in v2.controllers(folder) if name in tree.controllers}
        self.paths = self._v1 | self._v2
        if self._v1 and self._v2_folder:
            self.paths["unified"] = self._v2_folder

    @property
    def folders(self) -> list[str]:
        """Each folder once (co-mounted controllers share one)."""
        return list(dict.fromkeys(self.paths.values()))

    @property
    def fd(self) -> int | None:
        """The folder in the v2 tree for ``clone3(CLONE_INTO_CGROUP)``; None where there is no v2 tree. Closed by :meth:`remove`.

        The child enters v1 hierarchies itself, by :meth:`entrances`: on a hybrid machine both are needed.
        """
        if self._fd is None and self._v2_folder:
            self._fd = _open(self._v2_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fd

    def entrances(self) -> list[int]:
        """Descriptors through which a process puts *itself* into the v1 hierarchies, by :func:`enter`; [] where there are none (v2).

        Moving another process takes the kernel's global threadgroup lock, which waits for an RCU grace period: 5 to 13 ms.
        A single thread that moves itself through v1's ``tasks`` skips it (cgroup_procs_write_start in kernel/cgroup/cgroup.c): 0.2 ms.
        The right to do so is that of whoever opened the file (since Linux 5.16).
        """
        return [_open(f"{folder}/tasks", os.O_WRONLY | os.O_CLOEXEC) for folder in dict.fromkeys(self._v1.values())]

    def join(self) -> None:
        """Move the calling, single-threaded process in, as fast as the machine allows.

        On a hybrid machine the v2 tree, which controls nothing there, is left out: only it would need the slow lock.
        """
        entrances = self.entrances()
        enter(entrances)
        for fd in entrances:
            os.close(fd)
        if self._v2 or not entrances:
            for folder in {self._v2_folder} - {""}:
                files.write(f"{folder}/cgroup.procs", 0)

    def add(self, pid: int) -> None:
        """Move a process with all its threads in, in every hierarchy. :raises OSError: as the kernel said."""
        for folder in self.folders:
            files.write(f"{folder}/cgroup.procs", pid)

    def update(self, resources: dict[str, Any]) -> None:
        """Set limits (OCI ``linux.resources``); what is not named stays as it is.

        :raises LimitError: naming the option, the value and what the kernel said. Those before it in the list are set then.
        """
        rows = v1.settings(resources)
        self._apply(v1.order([row for row in rows if row.controller in self._v1], self._v1), self._v1, v1.explain)
        rows = [row for row in v2.settings(resources) if row.controller not in self._v1]
        self._apply(v2.order(rows, self._v2), self._v2, v2.explain)

    def _apply(self, rows: list[v1.Setting], group: dict[str, str], explain: Any) -> None:
        for row in rows:
            folder = group.get(row.controller)
            if folder is None:
                if row.asked:
                    lacking = f"this machine has no {row.controller or row.files[0]} controller"
                    raise _limit_error(row, self.missing.get(row.controller) or lacking)
                continue
            names = [f"{folder}/{name}" for name in row.files]
            try:
                files.write(next((name for name in names if os.path.exists(name)), names[-1]), row.value)
            except OSError as error:
                if row.asked or error.errno != errno.ENOENT:  # else Docker's default for swap, which nobody asked for
                    raise _limit_error(row, f"{explain(row, error)} ({errno.errorcode.get(error.errno or 0, '?')})") from None

    def pids(self) -> list[int]:
        """Every process in it, or in a group that it made below; [] when it is gone."""
        found: list[int] = []
        for folder in self._members():
            try:
                found += files.pids(folder)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV):
                    raise
        return sorted(set(found))

    def _members(self) -> list[str]:
        # On a hybrid machine a process that was moved from outside, or joined later, may be in the v1 hierarchies alone.
        tops = list(dict.fromkeys([*list(self._v1.values())[:1], *[self._v2_folder] * bool(self._v2_folder)]))
        return [folder for top in tops for folder in files.below(top)]

    def kill(self, seconds: float = 2.0) -> None:
        """End every process in it: ``cgroup.kill`` (v2, Linux 5.14), and SIGKILL while frozen (v1), until it is empty or time is up.

        :raises OSError: EBUSY when processes are left after ``seconds`` (uninterruptible sleep).
        """
        deadline = time.monotonic() + seconds
        while left := self.pids():
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, f"processes {left[:5]} do not die", self.path)
            at_once = self._kill_at_once()
            one_by_one = [pid for pid in left if pid not in at_once]
            if one_by_one:
                self._kill_frozen(one_by_one)
            elif "freezer" in self._v1:
                self.thaw()  # v1 holds SIGKILL back from what is frozen
            time.sleep(_STEP)

    def _kill_at_once(self) -> set[int]:
        """``cgroup.kill``: nothing can fork away from it. Returns the processes that it reached; none on a kernel before 5.14."""
        reached: set[int] = set()
        if self._v2_folder:
            try:
                for folder in files.below(self._v2_folder):
                    reached.update(files.pids(folder))
                files.write(f"{self._v2_folder}/cgroup.kill", 1)
            except OSError:
                return set()
        return reached

    def _kill_frozen(self, left: list[int]) -> None:
        """Frozen, nothing can fork away from the list; thawed, what is frozen can die (v1 holds SIGKILL back until then)."""
        frozen = "freezer" in self.paths
        if frozen:
            self.freeze()
            left = self.pids()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if frozen:
            self.thaw()

    def freeze(self, seconds: float = 1.0) -> None:
        """Stop every process until :meth:`thaw`; returns when all of them stand still, or after ``seconds``.

        :raises OSError: the kernel refused. :raises KeyError: no freezer here.
        """
        module, group = (v1, self._v1) if "freezer" in self._v1 else (v2, self._v2)
        module.freeze(group, True)
        deadline = time.monotonic() + seconds
        while not module.is_frozen(group) and time.monotonic() < deadline:
            time.sleep(_STEP)
            if module is v1:
                v1.freeze(group, True)  # v1 stays in FREEZING when a process was added meanwhile: written again (freezer-subsystem.rst)

    def thaw(self) -> None:
        """:raises OSError: the kernel refused. :raises KeyError: no freezer here."""
        module, group = (v1, self._v1) if "freezer" in self._v1 else (v2, self._v2)
        module.freeze(group, False)

    def events(self) -> dict[str, int]:
        """{"oom_kill": processes killed for want of memory, "oom": times that no way out was left} (v1 counts only the first)."""
        if "memory" in self._v1:
            return v1.events(self._v1)
        return v2.events(self._v2) if "memory" in self._v2 else {"oom_kill": 0, "oom": 0}

    def peak(self) -> int:
        """The most memory ever used at once, bytes; 0 where the kernel does not tell."""
        if "memory" in self._v1:
            return v1.peak(self._v1)
        return v2.peak(self._v2) if "memory" in self._v2 else 0

    def counters(self) -> Counters:
        """A reader that keeps the files open: for :class:`pycontainers.metrics.sample.Sampler`."""
        return Counters(self._v1, self._v2)

    def remove(self, seconds: float = 1.0) -> None:
        """rmdir everywhere, groups below it first. The last process of a group is counted until it is wholly gone: EBUSY is tried
        again for ``seconds``.

        :raises OSError: it could not be removed.
        """
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        deadline = time.monotonic() + seconds
        for folder in self.folders or [self._v2_folder] * bool(self._v2_folder):
            for each in files.below(folder):
                _rmdir(each, deadline)


class Counters:
    """Open files of one group in both versions of cgroups; ``read`` merges them."""

    __slots__ = ("_v1", "_v1_files", "_v2", "_v2_files")

    def __init__(self, in_v1: dict[str, str], in_v2: dict[str, str]) -> None:
        self._v1, self._v2 = in_v1, in_v2
        self._v1_files, self._v2_files = v1.counters(in_v1), v2.counters(in_v2)

    def read(self) -> dict[str, int]:
        """Counters and gauges by the names of :class:`pycontainers.metrics.sample.Sample`; what is not known is left out.

        :raises OSError: ENODEV when the group was removed.
        """
        found: dict[str, int] = {}
        if self._v1:
            v1.read_counters(self._v1, self._v1_files, found)
        if self._v2:
            v2.read_counters(self._v2, self._v2_files, found)
        return found

    def close(self) -> None:
        self._v1_files.close()
        self._v2_files.close()


def enter(entrances: list[int]) -> None:
    """Move the calling thread, which must be its process's only one, through :meth:`Group.entrances`."""
    for fd in entrances:
        os.write(fd, b"0")


def _rmdir(folder: str, deadline: float) -> None:
    while True:
        try:
            os.rmdir(folder)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(_STEP)


def _limit_error(row: v1.Setting, why: str) -> Exception:
    from ...errors import LimitError  # only when something went wrong

    hint = f"leave out {row.option}; `pycontainers doctor` shows which limits this machine has"
    return LimitError(f"{row.option} {row.given} cannot be set: {why}", hint)


def create(path: str, resources: dict[str, Any], where: Layout | None = None) -> Group:
    """Make the group in every hierarchy and set its limits. On any error everything that was made is removed again.

    Where this machine lets nobody make groups and no limit is asked for, the group has no ``paths`` and does nothing: the container
    runs uncontrolled and unmeasured, and ``missing`` says why.

    :param resources: the OCI runtime specification's ``linux.resources``.
    :raises LimitError: a limit cannot be set; the reason and errno are in the message.
    :raises IsolationError: the kernel refused to make the group. :raises StateError: a group of that path has processes.
    """
    where = where or layout()
    parts = path.strip("/").split("/")
    if not path.startswith("/") or not all(parts) or ".." in parts or "." in parts:
        raise ValueError(f"{path!r} is not an absolute cgroup path")
    if not where.writable:
        asked = [row for row in v2.settings(resources) if row.asked]
        if asked:
            raise _limit_error(asked[0], where.why)
        return Group(path, Layout("none", []), dict.fromkeys(["memory", "cpu", "cpuacct", "cpuset", "pids", "blkio"], where.why))
    made: list[str] = []
    missing: dict[str, str] = {}
    try:
        for tree in where.trees:
            missing |= _make(tree, path)
            made.append(tree.base + path)
        group = Group(path, where, missing)
        group.update(resources)
    except BaseException:
        for folder in made:
            _rmdir(folder, time.monotonic() + 1.0)
        raise
    return group


def _make(tree: Tree, path: str) -> dict[str, str]:
    from ...errors import IsolationError

    make = v1.make if tree.kind == "v1" else v2.make
    try:
        try:
            return make(tree, path)
        except FileExistsError:
            # What a killed supervisor left: an old group would go on with its old limits and counters, so it must be a new one.
            _replace(tree.base + path)
            return make(tree, path)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "?")
        raise IsolationError(
            f"cgroup {error.filename or tree.base + path} cannot be made: {error.strerror} ({name})",
            "`pycontainers doctor` shows what this machine allows",
        ) from None


def _replace(folder: str) -> None:
    from ...errors import StateError

    left = [pid for each in files.below(folder) for pid in files.pids(each)]
    if left:
        raise StateError(f"cgroup {folder} is in use by process {left[0]}", "stop it first")
    for each in files.below(folder):
        _rmdir(each, time.monotonic() + 1.0)


def open(path: str, where: Layout | None = None) -> Group:
    """The group as far as it exists; without ``paths`` when it does not."""
    return Group(path, where or layout())


_CHECKS: dict[str, dict[str, Any]] = {
    "memory": {"memory": {"limit": 64 << 20}},
    "swap": {"memory": {"limit": 64 << 20, "swap": 96 << 20}},
    "memory reservation": {"memory": {"reservation": 32 << 20}},
    "cpus": {"cpu": {"quota": 50000, "period": 100000}},
    "cpu shares": {"cpu": {"shares": 512}},
    "cpuset": {"cpu": {"cpus": "0"}},
    "pids": {"pids": {"limit": 64}},
    "block I/O weight": {"blockIO": {"weight": 500}},
}


def check(where: Layout | None = None) -> list[tuple[str, bool, str]]:
    """(limit, works, why not) for each: one group is made, each limit is really set in it, and it is removed."""
    from ...errors import ContainersError

    where = where or layout()
    if not where.writable:
        return [(name, False, where.why) for name in _CHECKS]
    try:
        group = create(f"/pycontainers-check-{os.getpid()}", {}, where)
    except ContainersError as error:
        return [(name, False, error.message) for name in _CHECKS]
    found = []
    try:
        for name, resources in _CHECKS.items():
            try:
                group.update(resources)
                found.append((name, True, ""))
            except ContainersError as error:
                found.append((name, False, error.message.partition(": ")[2] or error.message))
    finally:
        group.remove()
    return found
