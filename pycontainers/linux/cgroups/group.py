"""One container's cgroup in every hierarchy of this machine."""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import Any

from . import device_program, devices, files, v1, v2
from .layout import Layout
from .pressure import Pressure
from .settings import Refused, Setting, Transaction, one

_open = os.open
_STEP = 0.002  # seconds between two looks at what the kernel is about to finish


class Group:
    """A cgroup by its path (``/pycontainers/<id>``), the same in every hierarchy. The kernel's files are the truth: nothing is cached.

    ``paths``: controller -> folder, and "unified" -> folder in the v2 tree of a hybrid machine. Empty where no group could be made.
    ``missing``: controller -> why this group does not have it (its limits are refused, its counters read 0).
    ``notes``: what was asked for and left out, one line each, for the container's notes.
    """

    __slots__ = ("_fd", "_v1", "_v2", "_v2_folder", "missing", "notes", "path", "paths")

    def __init__(self, path: str, where: Layout, missing: dict[str, str] | None = None) -> None:
        self.path = path
        self.missing = missing or {}
        self.notes: list[str] = []
        self._v1: dict[str, str] = {}
        self._v2: dict[str, str] = {}
        self._v2_folder = ""
        self._fd: int | None = None
        for tree in where.trees:
            folder = tree.base + path
            if tree.why or not os.path.isdir(folder):
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

    def target(self) -> int | None:
        """The folder of the v2 tree into which ``clone3(CLONE_INTO_CGROUP)`` may put one more process, as a descriptor of the caller's:
        the group, or where its first process is (:meth:`_enter_v2`). None where there is no v2 tree."""
        if not self._v2_folder:
            return None
        inner = files.read(f"{self._v2_folder}/cgroup.subtree_control").strip()
        return _open(self._first_folder() or self._v2_folder if inner else self._v2_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _first_folder(self) -> str:
        """Where the oldest process of the v2 tree is, "" where there is none."""
        oldest = {min(found): folder for folder in files.below(self._v2_folder) if (found := files.pids(folder))}
        return oldest[min(oldest)] if oldest else ""

    def join(self) -> None:
        """Move the calling, single-threaded process in, as fast as the machine allows.

        On a hybrid machine the v2 tree, which controls nothing there, is left out: only it would need the slow lock.
        """
        entrances = self.entrances()
        enter(entrances)
        for fd in entrances:
            os.close(fd)
        if self._v2_folder and (self._v2 or not entrances):
            self._enter_v2(0)

    def add(self, pid: int) -> None:
        """Move a process with all its threads in, in every hierarchy. :raises OSError: as the kernel said."""
        for folder in self.folders:
            if folder == self._v2_folder:
                self._enter_v2(pid)
            else:
                files.write(f"{folder}/cgroup.procs", pid)

    def _enter_v2(self, pid: int) -> None:
        """Into the v2 tree: the group, or where an init system inside has moved its own first process to.

        Such a group passes controllers on, so the kernel lets no process in (EBUSY, No Internal Process Constraint). The first process
        is the oldest there; what joins goes where it is, as runc does.
        """
        try:
            files.write(f"{self._v2_folder}/cgroup.procs", pid)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            first = self._first_folder()
            if not first:
                raise
            files.write(f"{first}/cgroup.procs", pid)

    def delegate(self, uid: int, gid: int) -> None:
        """Let an init system inside, which is root there and ``uid`` here, make groups of its own below this one.

        v2: the folder and the files that the kernel names for it (/sys/kernel/cgroup/delegate), never those with limits: the
        container's own stay out of its reach. v1: only the named hierarchy, which controls nothing; giving a v1 controller away is not
        safe (systemd, CGROUP_DELEGATION). The cgroup namespace must be made after joining, and /sys/fs/cgroup be mounted writable.

        :raises OSError: not permitted.
        """
        for folder, names in ((self._v2_folder, _delegated()), (self._v1.get("name=systemd"), ["cgroup.procs", "tasks"])):
            if folder:
                for name in ["", *names]:
                    try:
                        os.chown(f"{folder}/{name}", uid, gid)
                    except FileNotFoundError:
                        pass  # the kernel's list has files of controllers that this group does not have

    def update(self, resources: dict[str, Any], fresh: bool = False) -> list[str]:
        """Set limits (OCI ``linux.resources``) on a group with or without processes; what is not named stays as it is. All or nothing:
        when one is refused, those before it are put back.

        :param fresh: the group was made just now, and its maker removes it when something is refused: nothing is put back.
        :returns: what was left out, one line each.
        :raises LimitError: naming the option, the value and what the kernel said.
        """
        why = v2.check(resources, self._v2)
        if why:
            raise limit_error(one("memory", "", resources["memory"]["limit"], "--memory")[0], why)
        done = Transaction(fresh)
        try:
            done.apply(self._rows(resources))
            notes: list[str] = (v1 if self._v1 else v2).ignored(resources)
            return notes + self._devices(resources)
        except Refused as refused:
            done.undo()
            explain = v1.explain if refused.row.controller in self._v1 else v2.explain
            why = f"{explain(refused.row, refused.name, refused.error)} ({errno.errorcode.get(refused.error.errno or 0, '?')})"
            raise limit_error(refused.row, why) from None
        except BaseException:
            done.undo()
            raise

    def _rows(self, resources: dict[str, Any]) -> list[tuple[Setting, str]]:
        """What to write, each with its folder: a controller is in one of the two versions, or missing here."""
        found = []
        for version, rows in ((self._v1, v1.settings(resources, self._v1)), (self._v2, v2.settings(resources, self._v2))):
            for row in rows:
                folder = version.get(row.controller) or (self._v2_folder if not row.controller else "")
                if "/" in row.choices[0][0]:
                    raise limit_error(row, "it is not the name of a file of the group")
                if folder:
                    found.append((row, folder))
                elif row.option.startswith("unified") and self._v1:
                    raise limit_error(row, f"the {row.controller or 'named'} controller of this machine is not cgroup v2")
                elif row.asked and row.controller not in self.paths and version is (self._v1 or self._v2):
                    what = row.controller or row.choices[0][0]
                    raise limit_error(row, self.missing.get(row.controller) or f"this machine has no {what} controller")
        return found

    def _devices(self, resources: dict[str, Any]) -> list[str]:
        """Put the device rules in force; a note where this machine cannot.

        It is no reason not to start: a container in a user namespace can make no device node, and one without has no CAP_MKNOD unless
        it was asked for. What it sees are the nodes that it was given.
        """
        if resources.get("devices") is None:
            return []
        from ...errors import LimitError

        try:
            wanted = devices.rules(resources)
            if "devices" in self._v1:
                devices.apply_v1(self._v1["devices"], wanted)
            elif "devices" in self._v2:
                device_program.attach(self._v2_folder, wanted)
        except ValueError as error:
            raise LimitError(f"device rules cannot be set: {error}", "see the device rules in config.json") from None
        except OSError as error:
            why = f"{error.strerror} ({errno.errorcode.get(error.errno or 0, '?')})"
            return [f"the use of devices is not controlled: {why}"]
        return []

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
                raise OSError(errno.EBUSY, f"processes {left[:5]} do not die{self._held()}", self.path)
            at_once = self._kill_at_once()
            one_by_one = [pid for pid in left if pid not in at_once]
            if one_by_one:
                self._kill_frozen(one_by_one)
            elif "freezer" in self._v1:
                self._let_die()
            time.sleep(_STEP)

    def _held(self) -> str:
        """Why, where it is known: v1 keeps what a group above has frozen, even from SIGKILL."""
        return " (a group above is frozen)" if "freezer" in self._v1 and v1.is_held_from_above(self._v1) else ""

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
            self._freeze(0.5)  # as far as it goes: what escapes is met in the next round
            left = self.pids()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if frozen:
            self._let_die()

    def _let_die(self) -> None:
        """Thaw the group, and on v1 those below: an init system inside may have frozen some of its own."""
        module, group = self._freezer()
        for folder in files.below(group["freezer"]) if module is v1 else [group["freezer"]]:
            module.freeze({"freezer": folder}, False)

    def freeze(self, seconds: float = 5.0) -> None:
        """Stop every process until :meth:`thaw`; returns when all of them stand still.

        :raises StateError: they do not within ``seconds`` (one in uninterruptible sleep); all are let go again.
        :raises OSError: the kernel refused. :raises KeyError: no freezer here.
        """
        if not self._freeze(seconds):
            from ...errors import StateError

            self.thaw()
            hint = "one of them waits for a disk or a server; try again"
            raise StateError(f"some processes of {self.path} did not stop within {seconds:g} s", hint)

    def _freeze(self, seconds: float) -> bool:
        module, group = self._freezer()
        deadline = time.monotonic() + seconds
        module.freeze(group, True)
        turn = 0
        while not module.is_frozen(group):
            if time.monotonic() > deadline:
                return False
            time.sleep(_STEP)
            turn += 1
            if module is v1:
                # v1 stays in FREEZING when a process was added meanwhile: written again (freezer-subsystem.rst). A process that was
                # caught between fork and exec may hold it up for good: let all go for a moment (as runc does).
                if turn % 50 == 0:
                    v1.freeze(group, False)
                v1.freeze(group, True)
        return True

    def thaw(self) -> bool:
        """Let them go on. False when they cannot yet: a group above this one is frozen.

        :raises OSError: the kernel refused. :raises KeyError: no freezer here.
        """
        module, group = self._freezer()
        module.freeze(group, False)
        return not module.is_held_from_above(group)

    def is_frozen(self) -> bool:
        """Whether this group itself was told to stand still (its parent may be besides). False without a freezer."""
        if "freezer" not in self.paths:
            return False
        module, group = self._freezer()
        told: bool = module.is_told_to_freeze(group)
        return told

    def _freezer(self) -> tuple[Any, dict[str, str]]:
        return (v1, self._v1) if "freezer" in self._v1 else (v2, self._v2)

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
        return Counters(self._v1, self._v2, self._v2_folder)

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
                rmdir(each, deadline)


def _delegated() -> list[str]:
    """The files of a v2 group that belong to whom it is given (Linux 4.15)."""
    try:
        return files.read("/sys/kernel/cgroup/delegate").split()
    except OSError:
        return ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]


class Counters:
    """Open files of one group in both versions of cgroups; ``read`` merges them. ``folder``: its place in the v2 tree, or ""."""

    __slots__ = ("_pressure", "_v1", "_v1_files", "_v2", "_v2_files")

    def __init__(self, in_v1: dict[str, str], in_v2: dict[str, str], folder: str) -> None:
        self._v1, self._v2 = in_v1, in_v2
        self._v1_files, self._v2_files = v1.counters(in_v1), v2.counters(in_v2)
        self._pressure = Pressure(folder)

    def read(self) -> dict[str, int]:
        """Counters and gauges by the names of :class:`pycontainers.metrics.sample.Sample`; what is not known is left out.

        :raises OSError: ENODEV when the group was removed.
        """
        found: dict[str, int] = {}
        if self._v1:
            v1.read_counters(self._v1, self._v1_files, found)
        if self._v2:
            v2.read_counters(self._v2, self._v2_files, found)
        self._pressure.read(found)
        return found

    def close(self) -> None:
        self._pressure.close()
        self._v1_files.close()
        self._v2_files.close()


def enter(entrances: list[int]) -> None:
    """Move the calling thread, which must be its process's only one, through :meth:`Group.entrances`."""
    for fd in entrances:
        os.write(fd, b"0")


def rmdir(folder: str, deadline: float) -> None:
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


def limit_error(row: Setting, why: str) -> Exception:
    from ...errors import LimitError  # only when something went wrong

    hint = f"leave out {row.option}; `pycontainers doctor` shows which limits this machine has"
    return LimitError(f"{row.option} {row.given} cannot be set: {why}", hint)
