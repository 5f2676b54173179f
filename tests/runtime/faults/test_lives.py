"""What docs/lifetime.md says: a pause, a rest between two runs, an exec, a relay of ports, and a real notebook kernel, each killed."""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycontainers.errors import ContainersError
from pycontainers.linux import sockets
from pycontainers.protocol import ContainerConfig, ExecConfig, Port, RestartPolicy
from pycontainers.runtime import state

from .conductor import kill
from .conftest import House

pytestmark = pytest.mark.root


def supervisor_of(info: Any) -> int:
    return int((state.read(info.folder, "state.json") or {})["supervisor"]["pid"])


def until(holds: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return found


def test_a_paused_container_whose_supervisor_is_killed_is_ended(tidy: House) -> None:
    info = tidy.start()
    tidy.engine.pause("f")
    kill(supervisor_of(info))
    found = tidy.engine.find("f")
    assert found.status == "exited" and found.exit is not None and found.exit.code is None
    tidy.engine.remove("f")
    assert tidy.left() == {}


def test_a_supervisor_killed_between_two_runs_leaves_the_last_ones_end(tidy: House) -> None:
    info = tidy.start("sh", "-c", "echo hello; exit 9", restart=RestartPolicy("always"))
    until(lambda: tidy.engine.find("f").restarts >= 3, "it does not restart")  # pauses of 0.4 seconds by now
    until(lambda: tidy.engine.find("f").status == state.RESTARTING, "it does not rest")
    kill(supervisor_of(info))
    found = tidy.engine.find("f")
    assert found.status == "exited" and found.exit is not None and found.exit.code in (9, None)
    assert {line.text for line in tidy.engine.logs("f")} == {"hello"}


def test_what_an_exec_runs_outlives_its_killed_worker(tidy: House) -> None:
    info = tidy.start()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(tidy.engine.exec("f", ExecConfig(("sleep", "77")))))
    thread.start()
    until(lambda: "sleep 77" in str(tidy.engine.top("f")), "the exec does not start")
    kill(tidy.conductor.pids["exec"])
    thread.join(10)
    assert found[0].code is None and "killed" in found[0].error
    assert "sleep 77" in str(tidy.engine.top("f"))
    assert tidy.engine.exec("f", ExecConfig(("true",))).code == 0
    tidy.engine.remove(info.id, force=True)
    assert tidy.left() == {}


def _answers(house: House) -> bool:
    port = house.engine.find("f").ports[0].host_port
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).status == 200
    except OSError:
        return False


def test_a_relay_that_was_killed_is_replaced_when_somebody_comes(tidy: House) -> None:
    info = tidy.start("python", "-m", "http.server", "80", network="bridge", ports=(Port(80, 0),))
    until(lambda: _answers(tidy), "the port does not answer")
    supervisor = state.read(info.folder, "state.json")["supervisor"]["pid"]  # type: ignore[index]

    def relays() -> list[int]:
        found = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        return [int(pid) for pid in found if int(pid) != info.pid]

    (relay,) = relays()
    kill(relay)
    until(lambda: _answers(tidy), "the port is dead without its relay")
    assert len(relays()) == 1 and relays() != [relay], "the killed one was not waited for"
    tidy.engine.remove(info.id, force=True)
    assert tidy.left() == {}


def test_the_network_helper_is_started_again(tidy: House) -> None:
    info = tidy.start("python", "-m", "http.server", "80", network="bridge", ports=(Port(80, 0),))
    with sockets.connect(tidy.paths.network_socket, 5) as conn:
        greeting, _ = sockets.receive(conn)
    assert greeting is not None
    kill(int(greeting["pid"]))
    until(lambda: _answers(tidy), "the port is dead without the network helper")
    tidy.engine.stop(info.id, timeout=0)
    tidy.engine.remove(info.id)
    asked = ContainerConfig("host", ("true",), network="bridge", auto_remove=True)
    assert tidy.engine.run(asked)[1].code == 0
    assert tidy.left() == {}


@pytest.mark.parametrize("end", ["restarted", "killed"])
def test_a_real_kernel(tidy: House, end: str) -> None:
    from jupyter_client.manager import KernelManager

    manager = KernelManager()
    manager.start_kernel(env=dict(os.environ))
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        for lifetime in ("detached", "kernel", "server"):
            options = f"name={lifetime!r}, lifetime={lifetime!r}, network='none', detach=True"
            code = f"import pycontainers as pc; pc.run('host', ['sleep', '1000'], {options})"
            reply = client.execute_interactive(code, timeout=60, output_hook=lambda message: None)
            assert reply["content"]["status"] == "ok", reply["content"]
        if end == "restarted":
            manager.restart_kernel(now=True)
        else:
            manager.signal_kernel(signal.SIGKILL)
        until(lambda: tidy.engine.find("kernel").status == "exited", "it outlives its kernel")
        assert tidy.engine.find("detached").status == tidy.engine.find("server").status == "running"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_the_end_of_a_server(tidy: House) -> None:
    """A process in its place: kernels are its children and know its pid by JPY_PARENT_PID, as jupyter_client does it."""
    code = """
import os, subprocess, sys
kernel = '''import pycontainers as pc
for word in ('detached', 'server'):
    pc.run('host', ['sleep', '1000'], name=word, lifetime=word, network='none', detach=True)'''
subprocess.run([sys.executable, '-c', kernel], check=True, env={**os.environ, 'JPY_PARENT_PID': str(os.getpid())})
"""
    server = tidy.kernel(code + "\nimport time; print('up', flush=True); time.sleep(100)")
    assert server.stdout is not None and server.stdout.readline() == "up\n"
    assert {info.status for info in tidy.engine.containers()} == {"running"} and len(tidy.engine.containers()) == 2
    server.kill()
    server.communicate()
    until(lambda: tidy.engine.find("server").status == "exited", "it outlives its server")
    assert tidy.engine.find("detached").status == "running"


def test_a_supervisor_that_is_stopped_is_waited_for_no_longer_than_said(tidy: House) -> None:
    info = tidy.start()
    pid = supervisor_of(info)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert tidy.engine.find("f").status == "running"  # readers need no supervisor
        begun = time.monotonic()
        with pytest.raises(ContainersError, match="does not answer"):
            tidy.engine.update("f", restart=RestartPolicy("no"))
        assert time.monotonic() - begun < 60
    finally:
        os.kill(pid, signal.SIGCONT)
    assert tidy.engine.stop("f", timeout=0).status == "exited"
