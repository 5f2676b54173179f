"""Where the time of a start goes, step by step in microseconds: ``python -m tests.benchmarks.steps [--network bridge] [--exec]``.

Nothing is built into the product for it: the launcher of this run is started by a program of ours that puts a stopwatch around every
function of the rooms below and then calls the launcher's own ``main``. Records go to a file that all processes have mapped (nothing that
a container's first process does before its execve closes a mapping), one area for each role, so that nobody waits for anybody.
A stopwatch costs 3 us a call and is in the figures. On a busy machine look at the CPU time and the page faults: a copied page costs 1 to
3 us, and they say what a step costs when nobody disturbs it.
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
import types
import zlib
from collections.abc import Callable, Iterator
from typing import Any

CALLER, LAUNCHER, SUPERVISOR, STARTER, INIT, WORKER, EXECUTED = range(7)
ROLES = ("caller", "launcher", "supervisor", "starter", "first process", "exec worker", "exec inside")
#: Whoever enters one of these takes on that role.
_BECOMES = {
    "runtime.supervisor.Supervisor.main": SUPERVISOR,
    "runtime.starter.main": STARTER,
    "runtime.init.Init.run": INIT,
    "runtime.init.Init.run_ahead": INIT,
    "runtime.exec.main": WORKER,
    "runtime.exec.Exec._inside": EXECUTED,
}
#: Rooms whose functions get a stopwatch, in the caller and in the launcher; what a process has not loaded is not looked at.
_ROOMS = ("engines.", "images.store", "images.records", "linux.", "metrics.", "network.", "runtime.")
_AREA = 1 << 18
_RECORD = struct.Struct("<IHHIIqq")  # name (CRC), depth, -, page faults, CPU time (us), begun and ended (CLOCK_MONOTONIC, ns)


class Watch:
    """The stopwatches of one process, and of those that it forks. Calls deeper than ``depth`` are not timed."""

    def __init__(self, path: str, role: int, depth: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, _AREA * len(ROLES))
            self.area = mmap.mmap(fd, _AREA * len(ROLES))
        finally:
            os.close(fd)
        self.role, self.depth, self.deepest = role, 0, depth

    def clear(self) -> None:
        for role in range(len(ROLES)):
            self.area[role * _AREA : role * _AREA + 4] = bytes(4)

    def _reserve(self, name: int, begun: int) -> int:
        """A place for a record, filled in when the step ends: steps stay in the order in which they begin. 0 when all is full."""
        start = self.role * _AREA
        count = struct.unpack_from("<I", self.area, start)[0]
        place = start + 4 + count * _RECORD.size
        if place + _RECORD.size > start + _AREA:
            return 0
        _RECORD.pack_into(self.area, place, name, self.depth, 0, 0, 0, begun, 0)
        struct.pack_into("<I", self.area, start, count + 1)
        return int(place)

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        code, role = zlib.crc32(name.encode()), _BECOMES.get(name)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if role is not None:
                self.role, self.depth = role, 0
            if self.depth > self.deepest:
                return function(*args, **kwargs)
            mine, depth = self.role, self.depth
            faults, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.thread_time_ns()
            place = self._reserve(code, time.perf_counter_ns())
            self.depth += 1
            try:
                return function(*args, **kwargs)
            finally:
                now = time.perf_counter_ns()
                if self.role == mine:
                    self.depth = depth
                used = (time.thread_time_ns() - cpu) // 1000
                more = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
                if place:  # in a child both counters began anew
                    struct.pack_into("<II", self.area, place + 8, max(0, more), max(0, used))
                    struct.pack_into("<q", self.area, place + 24, now)

        return timed

    def install(self) -> None:
        """Put a stopwatch around every function of the rooms that are loaded."""
        changed: dict[int, Any] = {}
        for _, holder, last, name in _functions():
            found = vars(holder)[last]
            inner = found.__func__ if isinstance(found, classmethod | staticmethod) else found
            timed: Any = self.around(name, inner)
            changed[id(inner)] = timed
            setattr(holder, last, type(found)(timed) if isinstance(found, classmethod | staticmethod) else timed)
        for module in list(sys.modules.values()):  # those that took a function by its name
            if getattr(module, "__name__", "").startswith("pycontainers."):
                for last, value in list(vars(module).items()):
                    if isinstance(value, types.FunctionType) and id(value) in changed:
                        setattr(module, last, changed[id(value)])

    def read(self) -> list[tuple[int, str, int, int, int, int, int]]:
        """(role, step, depth, begun, ended, page faults, us of CPU) of everything recorded."""
        for room in ("launcher", "supervisor", "exec"):
            importlib.import_module(f"pycontainers.runtime.{room}")
        names = {zlib.crc32(name.encode()): name for *_, name in _functions()}
        found = []
        for role in range(len(ROLES)):
            (count,) = struct.unpack_from("<I", self.area, role * _AREA)
            for number in range(count):
                code, depth, _, faults, cpu, begun, ended = _RECORD.unpack_from(self.area, role * _AREA + 4 + number * _RECORD.size)
                found.append((role, names.get(code, f"{code:x}"), depth, begun, ended, faults, cpu))
        return found


def _functions() -> Iterator[tuple[types.ModuleType, Any, str, str]]:
    """(module, where it is defined, name there, name for us) of every function of the rooms that are loaded."""
    for name, module in sorted(sys.modules.items()):
        short = name.removeprefix("pycontainers.")
        if name == short or module is None or not (short + ".").startswith(_ROOMS):
            continue
        for last, value in list(vars(module).items()):
            if isinstance(value, types.FunctionType) and value.__module__ == name:
                yield module, module, last, f"{short}.{last}"
            elif isinstance(value, type) and value.__module__ == name:
                for method, inner in list(vars(value).items()):
                    plain = inner.__func__ if isinstance(inner, classmethod | staticmethod) else inner
                    if isinstance(plain, types.FunctionType) and (method == "__init__" or not method.startswith("__")):
                        yield module, value, method, f"{short}.{last}.{method}"


def launcher(path: str, depth: str, home: str, run: str, *more: str) -> None:
    """What runs in place of the launcher: the launcher, with stopwatches."""
    from pycontainers.runtime import launcher as real

    Watch(path, LAUNCHER, int(depth)).install()
    real.main(home, run, *more)


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
    parser.add_argument("--depth", type=int, default=3, help="calls inside calls down to here")
    parser.add_argument("--least", type=int, default=60, metavar="US", help="leave out what takes less (default: %(default)s us)")
    options = parser.parse_args()
    with house.State() as state:
        trace = str(Path(state.folder) / "steps")
        from pycontainers.runtime import client

        package = str(Path(__file__).resolve().parents[2])
        start = "import sys; sys.path.insert(0, sys.argv[2]); from tests.benchmarks.steps import launcher; launcher(*sys.argv[3:])"
        real = client.launcher_argv

        def argv(paths: Any) -> list[str]:
            command = real(paths)
            place = command.index("-c") + 1
            return [*command[:place], start, command[place + 1], package, trace, str(options.depth), *command[place + 3 :]]

        client.launcher_argv = argv
        state.engine  # noqa: B018  builds the image, loads all rooms
        watch = Watch(trace, CALLER, options.depth)
        house.leave(state.engine.paths.launcher_socket)
        watch.install()
        table.show(state, watch, options)


if __name__ == "__main__":
    main()
