"""SIGKILL to each process of ours at work: the next command works, nothing leaks, exit codes are kept or plainly marked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.errors import NotFound
from pycontainers.linux import sockets
from pycontainers.protocol import ContainerConfig, ExecConfig, Port

pytestmark = pytest.mark.root


def start(engine: Any, *command: str, **more: Any) -> Any:
    return engine.start(
        engine.create(ContainerConfig("host", command or ("sleep", "1000"), network=more.pop("network", "none"), **more)).id
    )


def supervisor_of(info: Any) -> int:
    return int(json.loads(Path(info.folder, "state.json").read_text())["supervisor"]["pid"])


def gone(pid: int, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def launcher_pid(engine: NativeEngine) -> int:
    with sockets.connect(engine.paths.launcher_socket, 5) as conn:
        greeting, _ = sockets.receive(conn)
        assert greeting is not None
        return int(greeting["pid"])


def test_containers_do_not_depend_on_the_launcher(engine: NativeEngine, run: Any) -> None:
    info = start(engine, "sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.05; done")
    os.kill(launcher_pid(engine), signal.SIGKILL)
    assert engine.find(info.id).status == "running"
    assert run("echo", "again") == "again\n"
    assert engine.exec(info.id, ExecConfig(("true",))).code == 0
    assert engine.stop(info.id).exit.code == 6


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_a_killed_supervisor_takes_its_container_along(engine: NativeEngine, remains: Any, network: str) -> None:
    engine.run(ContainerConfig("host", ("true",), network=network, auto_remove=True))
    before = remains()
    info = start(
        engine,
        "python",
        "-c",
        "import subprocess, time; subprocess.Popen(['sleep', '1000']); time.sleep(1000)",
        network=network,
        ports=(Port(8000, 0),) if network == "bridge" else (),
    )
    os.kill(supervisor_of(info), signal.SIGKILL)
    assert gone(info.pid)
    found = engine.find(info.id)
    assert found.status == "exited"
    assert found.exit is not None and found.exit.code is None
    assert "supervisor was killed" in found.exit.error
    engine.remove(info.id)
    after = remains()
    after["leases"] = [lease for lease in after["leases"] if lease in before["leases"]]  # a lease is spared for 30 s, then swept
    assert after == before


def test_a_container_that_escaped_its_supervisors_death_is_ended(engine: NativeEngine) -> None:
    """It can take the parent-death signal off: then the next command ends it by its cgroup."""
    script = "import ctypes, time; ctypes.CDLL(None).prctl(1, 0); print('off', flush=True); time.sleep(1000)"
    info = start(engine, "python", "-c", script)
    next(iter(engine.logs(info.id, follow=True)))
    os.kill(supervisor_of(info), signal.SIGKILL)
    time.sleep(0.2)
    assert not gone(info.pid, 0.1), "the parent-death signal was not taken off: the test does not test"
    assert engine.find(info.id).status == "exited"
    assert gone(info.pid)


def test_rm_container_of_a_killed_supervisor_is_removed(engine: NativeEngine, remains: Any) -> None:
    before = remains()
    info = start(engine, auto_remove=True)
    os.kill(supervisor_of(info), signal.SIGKILL)
    assert gone(info.pid)
    assert engine.containers(all=True) == [] or info.id not in {c.id for c in engine.containers(all=True)}
    assert remains() == before


def kernel(state: Any, code: str) -> subprocess.Popen[str]:
    """A process in the place of a notebook's kernel."""
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def test_containers_outlive_the_kernel(engine: NativeEngine, state: Any) -> None:
    child = kernel(
        state,
        """
        import time, pycontainers as pc
        c = pc.run("host", ["sh", "-c", "echo hello; sleep 0.5; exit 4"], detach=True, network="none", name="survivor")
        print(c.id, flush=True); time.sleep(100)""",
    )
    assert child.stdout is not None
    container = child.stdout.readline().strip()
    child.kill()
    child.wait()
    assert engine.find("survivor").id == container
    assert engine.wait("survivor").code == 4
    assert [line.text for line in engine.logs("survivor")] == ["hello"]


def test_kernel_killed_in_a_foreground_run_leaves_a_supervised_container(engine: NativeEngine, state: Any) -> None:
    child = kernel(
        state,
        """
        import pycontainers as pc
        pc.run("host", ["sh", "-c", "while :; do echo tick; sleep 0.01; done"], network="none", name="ticker")""",
    )
    end = time.monotonic() + 20
    while not any(c.name == "ticker" and c.status == "running" for c in engine.containers()):
        assert time.monotonic() < end
        time.sleep(0.05)
    child.kill()
    child.wait()
    time.sleep(0.3)
    assert engine.find("ticker").status == "running"  # writing goes on: the supervisor reads, nobody gets SIGPIPE
    count = len(list(engine.logs("ticker")))
    time.sleep(0.3)
    assert len(list(engine.logs("ticker"))) > count


@pytest.mark.parametrize("delay", [0.002, 0.01, 0.03])
def test_kernel_killed_while_starting_leaves_nothing_half_made(engine: NativeEngine, state: Any, remains: Any, delay: float) -> None:
    engine.run(ContainerConfig("host", ("true",), network="none", auto_remove=True))
    before = remains()
    child = kernel(
        state,
        """
        import pycontainers as pc
        pc.ps(); print("ready", flush=True)
        while True: pc.run("host", ["true"], network="none", rm=True)""",
    )
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(delay)
    child.kill()
    child.wait()
    end = time.monotonic() + 10
    while True:  # a start that was under way ends by itself
        for info in engine.containers(all=True):
            if info.status in ("created", "exited"):
                with contextlib.suppress(NotFound):  # it was just removing itself
                    engine.remove(info.id)
        if remains() == before or time.monotonic() > end:
            break
        time.sleep(0.05)
    assert remains() == before


def test_interrupted_run_ends_its_container(engine: NativeEngine, state: Any) -> None:
    child = kernel(
        state,
        """
        import pycontainers as pc
        try:
            pc.run("host", ["sh", "-c", "echo up; exec sleep 1000"], network="none", name="interrupted", rm=True, stop_timeout=-1)
        except KeyboardInterrupt:
            print([c.name for c in pc.ps()].count("interrupted"), flush=True)""",
    )
    end = time.monotonic() + 20
    while not any(c.name == "interrupted" and any(engine.logs(c.id)) for c in engine.containers()):
        assert time.monotonic() < end
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)  # its own grace, which has no end here, is not waited for
    assert child.communicate(timeout=30)[0].removeprefix("up\n") == "0\n"
