"""What all tests share: a private place for state, a real engine on it, and a look at what was left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.paths import Paths, paths
from pycontainers.protocol import ContainerConfig, ExitStatus
from pycontainers.runtime import network


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = _cannot()
    for item in items:
        if item.get_closest_marker("root") and reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def _cannot() -> str:
    """Why containers cannot run here, "" where they can."""
    if os.geteuid() != 0:
        return f"containers need root for now, this is uid {os.geteuid()}"
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        return "this root may not unshare a mount namespace (a container without privileges?)"
    return ""


@pytest.fixture(scope="session")
def state() -> Iterator[Paths]:
    """A private home and run folder for the whole session, on a disk; helpers are ended and the network removed afterwards."""
    base = tempfile.mkdtemp(prefix="pyct-", dir="/var/tmp")
    before = {name: os.environ.get(name) for name in ("PYCONTAINERS_HOME", "PYCONTAINERS_RUN")}
    os.environ.update(PYCONTAINERS_HOME=f"{base}/home", PYCONTAINERS_RUN=f"{base}/run")
    where = paths().prepare()
    try:
        yield where
    finally:
        if os.geteuid() == 0:
            _end(where)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(base, ignore_errors=True)


def _end(where: Paths) -> None:
    engine = NativeEngine(where)
    for info in engine.containers(all=True):
        engine.remove(info.id, force=True)
    if (where.networks / "bridge").exists():
        network.sweep(where, [], grace=0)
        network.remove(where)
    network.leave(where)
    leave_launcher(where)


def leave_launcher(where: Paths) -> None:
    from pycontainers.linux import sockets

    try:
        with sockets.connect(where.launcher_socket, 5) as conn:
            sockets.receive(conn)
            sockets.send(conn, {"op": "leave"})
            while sockets.receive(conn)[0] is not None:
                pass
    except OSError:
        pass


@pytest.fixture
def engine(state: Paths) -> Iterator[NativeEngine]:
    """A real engine; containers that a test leaves are removed."""
    found = NativeEngine(state)
    before = {info.id for info in found.containers(all=True)} if os.geteuid() == 0 else set()
    yield found
    for info in found.containers(all=True) if os.geteuid() == 0 else []:
        if info.id not in before:
            found.remove(info.id, force=True)


class Runner:
    """Run something in a container of ``host`` and keep what it printed."""

    def __init__(self, engine: NativeEngine) -> None:
        self.engine = engine
        self.status: ExitStatus | None = None

    def __call__(self, *command: str, stdin: bytes | None = None, image: str = "host", network: str = "none", **config: Any) -> str:
        collected: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        asked = ContainerConfig(image=image, command=command, network=network, auto_remove=True, **config)
        _, self.status = self.engine.run(asked, stdin, lambda stream, data: collected[stream].extend(data))
        self.stderr = collected["stderr"].decode()
        return collected["stdout"].decode()


@pytest.fixture
def run(engine: NativeEngine) -> Runner:
    return Runner(engine)


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a busybox that needs nothing else: in a root with nothing but it, it runs."""
    found = shutil.which("busybox")
    if found is None:
        pytest.skip("a static busybox is missing (Debian: apt-get install busybox-static)")
    root = tmp_path_factory.mktemp("static")
    shutil.copy(found, root / "busybox")
    if subprocess.run(["chroot", root, "/busybox", "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"{found} is not static (Debian: apt-get install busybox-static)")
    return found


@pytest.fixture(scope="session")
def remains(state: Paths) -> Callable[[], dict[str, list[str]]]:
    """A picture of everything that a container could leave on this machine: compare before and after."""

    def look() -> dict[str, list[str]]:
        cgroups = sorted(_groups())
        home = str(state.home)
        found: dict[str, list[str]] = {
            "cgroups": _left(cgroups, home),
            "folders": sorted(name for name in os.listdir(state.containers) if name != "names"),
            "names": sorted(os.listdir(state.containers / "names")) if (state.containers / "names").exists() else [],
            "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if home in line or str(state.run) in line],
            "ingest": sorted(os.listdir(state.images / "ingest")) if (state.images / "ingest").exists() else [],
            "leases": sorted(_leases(state)),
        }
        return found

    return look


def _groups() -> Iterator[str]:
    """Every container's cgroups. os.walk passes over what goes away while it looks; others' containers may be ending."""
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        if os.path.basename(folder) == "pycontainers":
            yield from (f"{folder}/{name}" for name in names if len(name) == 64)


def _left(cgroups: list[str], home: str) -> list[str]:
    """Groups that nobody is at work in. Other sessions may run containers on this machine: theirs are empty for a moment only."""
    found = [c for c in cgroups if _abandoned(c, home)]
    if found:
        time.sleep(0.5)
    return [c for c in found if os.path.isdir(c) and _abandoned(c, home)]


def _abandoned(cgroup: str, home: str) -> bool:
    try:
        pids = Path(cgroup, "cgroup.procs").read_text().split()
    except OSError:
        return False
    if not pids:
        return not _populated(cgroup)
    return any(home in _mounts(pid) for pid in pids[:1])


def _populated(cgroup: str) -> bool:
    """On v1 cgroup.procs leaves out the processes of other pid namespaces; what the pids controller counts in the same place has them."""
    place = Path("/sys/fs/cgroup/pids", *Path(cgroup).parts[5:], "pids.current")
    try:
        return int(place.read_text()) > 0
    except OSError:
        return False


def _mounts(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/mountinfo").read_text()
    except OSError:
        return ""


def _leases(state: Paths) -> list[str]:
    folder = state.networks / "bridge"
    return os.listdir(folder / "leases") if (folder / "leases").exists() else []
