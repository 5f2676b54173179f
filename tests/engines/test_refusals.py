"""Machines that refuse something: one line that names the blocker and the remedy, and doctor's table says the same."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from pycontainers import errors
from pycontainers.engines.native import NativeEngine
from pycontainers.paths import Paths
from pycontainers.protocol import ContainerConfig
from pycontainers.runtime import network

pytestmark = pytest.mark.root


def program(state_folder: str, *words: str, drop: str) -> subprocess.CompletedProcess[str]:
    """The program as root without some capabilities, as in a container without privileges."""
    env = {**os.environ, "PYCONTAINERS_HOME": f"{state_folder}/h", "PYCONTAINERS_RUN": f"{state_folder}/r"}
    command = ["setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}", sys.executable, "-m", "pycontainers.commands.program", *words]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)


@pytest.fixture
def folder(tmp_path: Any) -> Any:
    yield str(tmp_path)
    where = Paths(tmp_path / "h", tmp_path / "r")
    network.leave(where)
    from pycontainers.linux import sockets

    try:
        with sockets.connect(where.launcher_socket, 5) as conn:
            sockets.receive(conn)
            sockets.send(conn, {"op": "leave"})
    except OSError:
        pass


def test_root_without_privileges_is_told_the_blocker_and_the_remedy(folder: str) -> None:
    done = program(folder, "run", "--network", "none", "host", "true", drop="-sys_admin")
    assert done.returncode == 125
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 2, done.stderr
    assert "mount namespace" in lines[0] and "EPERM" in lines[0]
    assert "CAP_SYS_ADMIN" in lines[1]
    assert os.listdir(f"{folder}/h/containers") in ([], ["names"])
    table = program(folder, "doctor", drop="-sys_admin").stdout
    row = next(line for line in table.splitlines() if "mount namespace" in line)
    assert "missing" in row and "EPERM" in row and "--privileged" in row


def test_bridge_without_its_right_is_told(folder: str) -> None:
    done = program(folder, "run", "host", "true", drop="-net_admin")
    assert done.returncode == 125
    assert "NET_ADMIN" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert program(folder, "run", "--network", "none", "--rm", "host", "echo", "works", drop="-net_admin").stdout == "works\n"


def test_weaker_isolation_is_said_and_can_be_refused(engine: NativeEngine) -> None:
    info = engine.create(ContainerConfig("host", ("sleep", "10"), network="none", userns="host"))
    assert any("root inside is root outside" in note for note in info.notes)
    started = engine.start(info.id)
    status = dict(line.split(":", 1) for line in open(f"/proc/{started.pid}/status", encoding="ascii").read().splitlines())
    assert status["Uid"].split()[0] == "0"
    with pytest.raises(errors.IsolationError, match="full isolation was asked for"):
        engine.create(ContainerConfig("host", ("true",), userns="host", require_isolation="full"))


def test_a_chroot_is_refused(state: Paths) -> None:
    """There pivot_root would leave the machine's real root in the container's mount namespace, open to whoever leaves a chroot."""
    from pycontainers.runtime import isolation

    probe = next(p for p in isolation.PROBES if p.name == "own root")
    assert isolation._run(probe, str(state.home))["errno"] == 0
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from pycontainers.runtime import isolation;"
        "from pycontainers.linux import mounts, namespaces;"
        "namespaces.unshare(namespaces.CLONE_NEWNS); mounts.mount('', '/', '', mounts.MS_REC | mounts.MS_PRIVATE);"
        "os.makedirs(sys.argv[2] + '/proc'); mounts.mount('proc', sys.argv[2] + '/proc', 'proc'); os.chroot(sys.argv[2]); os.chdir('/');"
        "probe = next(p for p in isolation.PROBES if p.name == 'own root'); print(isolation._run(probe, '/')['why'])"
    )
    place = f"{state.home}/chroot"
    done = subprocess.run([sys.executable, "-c", script, os.getcwd(), place], capture_output=True, text=True, check=False)
    assert "runs in a chroot" in done.stdout, done.stderr
