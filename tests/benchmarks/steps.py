"""Where the time of a start goes, step by step in microseconds: ``python -m tests.benchmarks.steps [--network bridge] [--exec]``.

Nothing is built into the product for it: the launcher of this run is started by a program of ours that puts a stopwatch around the
functions listed below and then calls the launcher's own ``main``. Records go to a file that all processes have mapped (nothing that a
container's first process does before its execve closes a mapping), one area for each role, so that nobody waits for anybody.
A stopwatch costs about 2 us a step and appears in the figures; a function that is not there any more is named and left out.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import mmap
import os
import resource
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

CALLER, LAUNCHER, SUPERVISOR, INIT, WORKER = range(5)
ROLES = ("caller", "launcher", "supervisor", "first process", "exec worker")
_AREA = 1 << 16
_RECORD = struct.Struct("<HHIqq")  # step, depth, page faults in it, begun and ended (CLOCK_MONOTONIC, ns)

#: Module and name of what gets a stopwatch; the third member is the role that a process takes on by entering it.
STEPS: list[tuple[str, str, int | None]] = [
    ("engines.native", "NativeEngine._begin", None),
    ("engines.creation", "create", None),
    ("images.store", "Store.resolve", None),
    ("engines.creation", "_check", None),
    ("engines.creation", "machine_facts", None),
    ("engines.creation", "_files", None),
    ("engines.creation", "_rootfs", None),
    ("engines.creation", "oci_spec", None),
    ("engines.creation", "_claim", None),
    ("engines.creation", "_record", None),
    ("engines.information", "info", None),
    ("engines.creation", "before_start", None),
    ("runtime.state", "write", None),
    ("runtime.state", "read", None),
    ("runtime.state", "lock", None),
    ("runtime.state", "machine", None),
    ("linux.process", "identity", None),
    ("runtime.state", "remove_folder", None),
    ("runtime.client", "connect", None),
    ("runtime.client", "start", None),
    ("runtime.client", "run_exec", None),
    ("runtime.launcher", "Launcher._accept", LAUNCHER),
    ("runtime.launcher", "Launcher.handle", LAUNCHER),
    ("runtime.launcher", "Launcher._map", None),
    ("runtime.launcher", "Launcher._program", None),
    ("runtime.launcher", "Launcher._child", None),
    ("runtime.exec", "main", WORKER),
    ("runtime.supervisor", "Supervisor.main", SUPERVISOR),
    ("runtime.supervisor", "Supervisor._prepare_self", None),
    ("runtime.supervisor", "Supervisor._start", None),
    ("runtime.supervisor", "Supervisor._join_network", None),
    ("runtime.supervisor", "Supervisor._pipes", None),
    ("runtime.supervisor", "Supervisor._write_state", None),
    ("runtime.supervisor", "Supervisor._reply_started", None),
    ("runtime.supervisor", "Supervisor._loop", None),
    ("runtime.supervisor", "Supervisor._sample", None),
    ("runtime.supervisor", "Supervisor._finish", None),
    ("runtime.supervisor", "Supervisor._clean", None),
    ("runtime.output", "Output.open_log", None),
    ("runtime.output", "Output.pump", None),
    ("runtime.output", "Output.drain", None),
    ("metrics.history", "Ring.create", None),
    ("metrics.sample", "Sampler.__init__", None),
    ("linux.cgroups", "create", None),
    ("linux.cgroups.group", "Group.kill", None),
    ("linux.cgroups.group", "Group.remove", None),
    ("linux.cgroups.group", "Group.entrances", None),
    ("network.client", "attach", None),
    ("network.client", "detach", None),
    ("runtime.starting", "Starting.begin", None),
    ("runtime.starting", "Starting.release", None),
    ("runtime.starting", "Starting.mounted", None),
    ("runtime.starting", "Starting.execute", None),
    ("runtime.starting", "_cgroup_mounts", None),
    ("runtime.confine", "Confinement.__init__", None),
    ("runtime.rootfs", "private_mounts", None),
    ("runtime.rootfs", "prepare", None),
    ("runtime.rootfs", "_root", None),
    ("runtime.rootfs", "_bind", None),
    ("linux.namespaces", "clone", None),
    ("linux.idmap", "write_maps", None),
    ("runtime.starting", "write_maps", None),
    ("runtime.init", "Init.run", INIT),
    ("runtime.init", "enter", None),
    ("runtime.init", "Init._await", None),
    ("runtime.init", "Init._become_root", None),
    ("runtime.init", "Init._session", None),
    ("linux.syscalls", "new_session_keyring", None),
    ("linux.namespaces", "unshare", None),
    ("runtime.init", "_loopback_up", None),
    ("runtime.init", "Init._build", None),
    ("runtime.init", "Init._mount", None),
    ("runtime.init", "Init._enter", None),
    ("runtime.init", "Init._finish_mounts", None),
    ("runtime.init", "_mask", None),
    ("runtime.init", "Init._sysctls", None),
    ("runtime.init", "Init._read_only", None),
    ("runtime.init", "only_descriptor", None),
    ("runtime.users", "resolve", None),
    ("linux.capabilities", "limit_bounding", None),
    ("runtime.confine", "enter_cwd", None),
    ("linux.seccomp", "load", None),
    ("runtime.confine", "_exec", None),
]


class Watch:
    """The stopwatches of one process, and of those that it forks."""

    def __init__(self, path: str, role: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, _AREA * len(ROLES))
            self.area = mmap.mmap(fd, _AREA * len(ROLES))
        finally:
            os.close(fd)
        self.role, self.depth = role, 0
        self.used = [role * _AREA + 4 for role in range(len(ROLES))]

    def clear(self) -> None:
        for role in range(len(ROLES)):
            self.area[role * _AREA : role * _AREA + 4] = bytes(4)
        self.used[self.role] = self.role * _AREA + 4

    def reserve(self, step: int, depth: int, begun: int) -> int:
        """A place for a record, filled in when the step ends: steps stay in the order in which they begin."""
        start = self.role * _AREA
        count = struct.unpack_from("<I", self.area, start)[0]
        place = start + 4 + count * _RECORD.size
        if place + _RECORD.size <= start + _AREA:
            _RECORD.pack_into(self.area, place, step, depth, 0, begun, 0)
            struct.pack_into("<I", self.area, start, count + 1)
        return int(place)

    def put(self, step: int, function: Callable[..., Any], role: int | None) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if role is not None and role != self.role:
                self.role, self.depth = role, 0
            mine, depth = self.role, self.depth
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            place = self.reserve(step, depth, time.perf_counter_ns())
            self.depth += 1
            try:
                return function(*args, **kwargs)
            finally:
                if self.role == mine:
                    self.depth = depth
                now = time.perf_counter_ns()
                struct.pack_into("<q", self.area, place + 16, now)
                more = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
                struct.pack_into("<I", self.area, place + 4, max(0, more))  # a fork counts anew

        return timed

    def install(self) -> list[str]:
        """Put a stopwatch around everything in :data:`STEPS`; names of what is not there."""
        lacking = []
        for step, (module, name, role) in enumerate(STEPS):
            try:
                place: Any = importlib.import_module(f"pycontainers.{module}")
                *path, last = name.split(".")
                for part in path:
                    place = getattr(place, part)
                found = place.__dict__.get(last) if isinstance(place, type) else getattr(place, last)
                function = found.__func__ if isinstance(found, classmethod) else found
                if function is None:
                    function = getattr(place, last)  # inherited
            except (ImportError, AttributeError):
                lacking.append(f"{module}.{name}")
                continue
            timed: Any = self.put(step, function, role)
            if isinstance(found, classmethod):
                timed = classmethod(timed)
            setattr(place, last, timed)
            for other in list(sys.modules.values()):  # those that took it by its name
                if getattr(other, "__name__", "").startswith("pycontainers.") and vars(other).get(last) is function:
                    setattr(other, last, timed)
        return lacking

    def read(self) -> list[tuple[int, str, int, int, int, int]]:
        """(role, step, depth, begun, ended, page faults) of everything recorded."""
        found = []
        for role in range(len(ROLES)):
            (count,) = struct.unpack_from("<I", self.area, role * _AREA)
            for number in range(count):
                step, depth, faults, begun, ended = _RECORD.unpack_from(self.area, role * _AREA + 4 + number * _RECORD.size)
                found.append((role, ".".join(STEPS[step][:2]), depth, begun, ended, faults))
        return found


def launcher(path: str, home: str, run: str) -> None:
    """What runs in place of the launcher: the launcher, with stopwatches."""
    from pycontainers.runtime.launcher import main

    Watch(path, LAUNCHER).install()
    main(home, run)


def main() -> None:
    from pathlib import Path

    from . import state as house
    from . import table

    parser = argparse.ArgumentParser(prog="tests.benchmarks.steps", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--network", default="none")
    parser.add_argument("--image", default="", help="default: the small root that the peers run too")
    parser.add_argument("--beside", type=int, default=0, metavar="COUNT", help="so many containers run meanwhile")
    parser.add_argument("--exec", action="store_true", help="an exec in place of a start")
    options = parser.parse_args()
    with house.State() as state:
        trace = str(Path(state.folder) / "steps")
        from pycontainers.runtime import client

        package = str(Path(__file__).resolve().parents[2])
        start = "import sys; sys.path.insert(0, sys.argv[2]); from tests.benchmarks.steps import launcher; launcher(*sys.argv[3:])"
        client.launcher_argv = lambda paths: [  # type: ignore[assignment]
            os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable),
            *("-I", "-S", "-c", start, "pycontainers-launcher", package, trace, str(paths.home), str(paths.run)),
        ]
        watch = Watch(trace, CALLER)
        lacking = watch.install()
        table.show(state, watch, options.runs, options.network, options.image or state.image, options.exec, options.beside)
        if lacking:
            print("\nnot there (any more):", ", ".join(lacking))


if __name__ == "__main__":
    main()
