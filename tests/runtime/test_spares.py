"""What is made ahead of need: it is used, it may be killed, it is never stale, and it goes with the launcher."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.linux import sockets
from pycontainers.protocol import ContainerConfig, ExecConfig, Mount, Port

pytestmark = pytest.mark.root


def launcher(engine: NativeEngine) -> int:
    with sockets.connect(engine.paths.launcher_socket, 5) as conn:
        greeting, _ = sockets.receive(conn)
        assert greeting is not None
        return int(greeting["pid"])


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def prepared(engine: NativeEngine) -> tuple[int, int, int]:
    """Mould, spare supervisor, its starter: as soon as they are there."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with contextlib.suppress(OSError):  # one that was there is being replaced
            for mould in children(launcher(engine)):
                for spare in children(mould):
                    for starter in children(spare):
                        # It stands in its own mounts: the last thing that it does before it waits.
                        if os.readlink(f"/proc/{starter}/ns/mnt") != os.readlink("/proc/self/ns/mnt") and not children(starter):
                            return mould, spare, starter
        time.sleep(0.02)
    raise AssertionError("no spare supervisor was made")


def gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def start(engine: NativeEngine, **more: Any) -> Any:
    return engine.start(engine.create(ContainerConfig("host", ("sleep", "1000"), network=more.pop("network", "none"), **more)).id)


def test_the_spare_becomes_the_next_supervisor(engine: NativeEngine, run: Any) -> None:
    run("true")
    _, spare, starter = prepared(engine)
    info = start(engine)
    now = json.loads(Path(info.folder, "state.json").read_text())
    assert now["supervisor"]["pid"] == spare
    assert gone(starter)  # it has started the container, and its memory and mounts went with it
    assert info.pid in children(spare)  # whose exit the supervisor reads
    assert os.readlink(f"/proc/{spare}/ns/mnt") == os.readlink("/proc/self/ns/mnt")
    assert engine.stop(info.id, timeout=0).exit.signal == signal.SIGKILL  # type: ignore[union-attr]


@pytest.mark.parametrize("victim", [0, 1, 2], ids=["mould", "supervisor", "starter"])
def test_one_that_was_killed_is_missed_by_nobody(engine: NativeEngine, run: Any, remains: Any, victim: int) -> None:
    run("true")
    before, found = remains(), prepared(engine)
    os.kill(found[victim], signal.SIGKILL)
    assert gone(found[victim])
    assert run("echo", "again") == "again\n"
    assert remains() == before


@pytest.mark.parametrize("starts", [0, 1, 2, 3])
def test_they_go_with_the_launcher(engine: NativeEngine, run: Any, starts: int) -> None:
    """From the first start on: the first ones of a mould may not hold what the later ones end by."""
    run("true")
    os.kill(launcher(engine), signal.SIGKILL)
    for _ in range(starts + 1):
        run("true")
        found = prepared(engine)
    os.kill(launcher(engine), signal.SIGKILL)
    assert all(gone(pid) for pid in found)
    assert run("echo", "again") == "again\n"


def worker(engine: NativeEngine) -> int:
    """The exec worker that waits: a child of the mould that has no child."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        mould, supervisor, _ = prepared(engine)
        with contextlib.suppress(OSError):
            for pid in children(mould):
                if pid != supervisor and not children(pid):
                    return pid
        time.sleep(0.02)
    raise AssertionError("no spare exec worker was made")


def test_an_exec_has_a_worker_ahead_of_need_once_there_was_one(engine: NativeEngine) -> None:
    info = start(engine)
    assert engine.exec(info.id, ExecConfig(("true",))).code == 0
    spare = worker(engine)
    engine.exec_detached(info.id, ExecConfig(("sleep", "1000")))
    assert len(children(spare)) == 1, "another than the spare has done it"
    other = worker(engine)  # while the first goes on
    assert other != spare
    os.kill(other, signal.SIGKILL)
    assert gone(other)
    assert engine.exec(info.id, ExecConfig(("true",))).code == 0
    last = worker(engine)
    os.kill(launcher(engine), signal.SIGKILL)
    assert gone(last)
    assert len(children(spare)) == 1, "what was begun goes on without the launcher"
    engine.remove(info.id, force=True)
    assert gone(spare)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on which something can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    yield folder
    subprocess.run(["umount", str(folder)], check=False, capture_output=True)


def test_what_was_mounted_meanwhile_is_seen(engine: NativeEngine, run: Any, disk: Path) -> None:
    """The spare stands in a copy of all mounts, and where propagation is private it hears of no later one."""
    run("true")
    prepared(engine)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=True)
    (disk / "file").write_text("new\n")
    assert run("cat", "/disk/file", mounts=(Mount("bind", "/disk", str(disk)),)) == "new\n"


def test_a_published_port_has_a_relay_when_somebody_comes(engine: NativeEngine) -> None:
    server = "import socket; s = socket.create_server(('', 8000)); c, _ = s.accept(); c.sendall(b'hello'); c.close(); s.accept()"
    info = engine.start(engine.create(ContainerConfig("host", ("python", "-c", server), network="bridge", ports=(Port(8000, 0),))).id)
    supervisor = json.loads(Path(info.folder, "state.json").read_text())["supervisor"]["pid"]
    time.sleep(0.5)
    assert children(supervisor) == [info.pid]
    with socket.create_connection(("127.0.0.1", info.ports[0].host_port), 10) as conn:
        said = conn.recv(5)
    assert said == b"hello"
    assert len(children(supervisor)) == 2
    engine.remove(info.id, force=True)
