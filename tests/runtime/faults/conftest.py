"""A house of its own for faults: a home and a run folder whose launcher and kernels stand still at each step, and what is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.paths import Paths, paths
from pycontainers.protocol import ContainerConfig, ContainerInfo
from pycontainers.runtime import client, network, state
from tests.conftest import _end, _groups, leave_launcher

from . import faulty
from .conductor import Conductor

Outcome = dict[str, Any]


class House:
    """``conductor`` hears of every step of everything that is started here."""

    def __init__(self, where: Paths) -> None:
        self.paths = where
        self.conductor = Conductor(where.run)
        self.seen: set[str] = set()
        self.given_up: set[str] = set()  # told once: the next test begins clean
        self.engine.run(ContainerConfig("host", ("true",), network="bridge", auto_remove=True))  # image, helpers, bridge are there
        self.resident = self.settled(self.processes)

    @property
    def engine(self) -> NativeEngine:
        """What the next command would use."""
        return NativeEngine(self.paths)

    # -- kernels

    def kernel(self, code: str) -> subprocess.Popen[str]:
        """A process in a notebook kernel's place, as :meth:`outcome` reads it."""
        package = str(Path(client.__file__).parents[2])
        return subprocess.Popen(
            [sys.executable, str(Path(faulty.__file__)), "kernel", package, code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )

    def outcome(self, kernel: subprocess.Popen[str], seconds: float = 60) -> Outcome:
        """{"ok": …}, {"error": class, "message", "hint"}, {"crash": traceback}, or {"killed": signal}. A call that hangs is a crash."""
        try:
            out, err = kernel.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            kernel.kill()
            kernel.communicate()
            return {"crash": f"the kernel's call does not return in {seconds} s"}
        if kernel.returncode < 0:
            return {"killed": -kernel.returncode}
        try:
            found: Outcome = json.loads(out.splitlines()[-1])
        except (IndexError, ValueError):
            return {"crash": f"exit code {kernel.returncode}: {out}{err}"}
        return found

    def start(self, *command: str, **more: Any) -> ContainerInfo:
        engine = self.engine
        asked = ContainerConfig("host", command or ("sleep", "1000"), network=more.pop("network", "none"), name="f", **more)
        return engine.start(engine.create(asked).id)

    # -- what is left

    def processes(self) -> int:
        """How many processes have our run folder in their command line: launcher, its spare ones, supervisors, workers, network helper."""
        run, found = os.fsencode(self.paths.run), 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                line, status = Path(f"/proc/{pid}/cmdline").read_bytes(), Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                continue
            found += run in line and status.rpartition(")")[2].split()[0] not in "ZX"
        return found

    def remains(self) -> dict[str, list[str]]:
        """Everything that a container could leave behind, but for processes."""
        where, ids = self.paths, {info.id for info in self.engine.containers(all=True)}
        bridge = json.loads((where.networks / "bridge" / "network.json").read_text())["bridge"]
        return {
            "cgroups": [group for group in _groups() if self._mine(group)],
            "folders": _names(where.containers, but=(*ids, "names")),
            "names": [name for name in _names(where.containers / "names") if state.named(str(where.containers), name) not in ids],
            "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(where.home) in line],
            "links": _names(Path("/sys/class/net") / bridge / "brif"),
            "leases": _names(where.networks / "bridge" / "leases"),
            "ingest": _names(where.images / "ingest"),
            "stage": _names(where.run / "stage"),
            "sockets": _names(where.run / "containers"),
            "frozen": _names(where.run / "frozen"),
        }

    def _mine(self, group: str) -> bool:
        return os.path.basename(group) in self.seen - self.given_up

    def note(self) -> list[ContainerInfo]:
        """What the next command shows, in a fresh engine. Ids are remembered: their cgroups must go."""
        found = self.engine.containers(all=True)
        self.seen |= {event["Actor"]["ID"] for event in self.engine.events()}
        return found

    def settled(self, look: Callable[[], Any], seconds: float = 1.0) -> Any:
        before, end = look(), time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.1)
            now = look()
            if now == before:
                break
            before = now
        return before

    def clear(self) -> None:
        for info in self.note():
            self.engine.remove(info.id, force=True)

    def left(self, seconds: float = 5.0) -> dict[str, Any]:
        """What is still there after ``seconds``, {} for nothing: what was about to end has the time to."""
        # A launcher as the one that was counted: another may have a worker ready since there was an exec.
        leave_launcher(self.paths)
        self.engine.run(ContainerConfig("host", ("true",), network="none", auto_remove=True))
        end = time.monotonic() + seconds
        while True:
            found: dict[str, Any] = {kind: names for kind, names in self.remains().items() if names}
            if (number := self.processes()) > self.resident:
                found["processes"] = number - self.resident
            if not found or time.monotonic() > end:
                self.given_up |= {os.path.basename(group) for group in found.get("cgroups", [])}
                return found
            time.sleep(0.05)


def _names(folder: Path, but: tuple[str, ...] = ()) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name not in but)
    except FileNotFoundError:
        return []


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """For a module: helpers are ended and the network is removed afterwards."""
    base = tempfile.mkdtemp(prefix="pyct-faults-", dir="/var/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYCONTAINERS_HOME", f"{base}/home")
        patch.setenv("PYCONTAINERS_RUN", f"{base}/run")
        original = client.launcher_argv
        patch.setattr(client, "launcher_argv", lambda where: faulty.launcher_argv(original, where))
        where = paths().prepare()
        found = House(where)
        try:
            yield found
        finally:
            found.conductor.arm()
            _end(where)
            found.conductor.close()
            subprocess.run(["rm", "-rf", "--one-file-system", base], check=False)


@pytest.fixture
def tidy(house: House) -> Iterator[House]:
    """Nothing is there before a test, and nothing may be left after it."""
    house.conductor.arm()
    yield house
    house.conductor.arm()
    house.clear()
    network.sweep(house.paths, [], grace=0)
