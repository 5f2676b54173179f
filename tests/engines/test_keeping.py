"""Whose end is a container's end: the notebook's kernel, its server, or nobody's."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pycontainers.engines import ending, keeping
from pycontainers.engines.native import NativeEngine
from pycontainers.errors import UsageError
from pycontainers.linux import process

#: A server that starts a kernel as jupyter_client does, which starts a program, which asks whose it is. Each says its pid.
_SERVER = """
import json, os, subprocess, sys
kernel = [sys.executable, "-c", *sys.argv[1:]]
done = subprocess.run(kernel, env={**os.environ, "JPY_PARENT_PID": str(os.getpid())}, capture_output=True, text=True, check=True)
print(json.dumps({"server": os.getpid(), **json.loads(done.stdout)}))
"""
_KERNEL = """
import json, os, subprocess, sys
done = subprocess.run([sys.executable, "-c", *sys.argv[1:]], capture_output=True, text=True, check=True)
print(json.dumps({"kernel": os.getpid(), **json.loads(done.stdout)}))
"""
_PROGRAM = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from pycontainers.engines import ending, keeping
owners = {word: (keeping.owner(word) or {}).get("pid") for word in keeping.LIFETIMES}
print(json.dumps({"program": os.getpid(), "owners": owners}))
"""


def test_kernel_and_server_are_found_among_the_ancestors() -> None:
    command = [sys.executable, "-c", _SERVER, _KERNEL, _PROGRAM, os.getcwd()]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found["owners"] == {"detached": None, "kernel": found["kernel"], "server": found["server"]}
    assert len({found["program"], found["kernel"], found["server"]}) == 3


def test_outside_of_a_notebook_the_kernel_is_whoever_asks() -> None:
    assert keeping.owner("kernel", {}) == process.identity(os.getpid())
    with pytest.raises(UsageError, match="was not started by a Jupyter server"):
        keeping.owner("server", {})
    with pytest.raises(UsageError, match="was not started by a Jupyter server"):
        keeping.owner("server", {"JPY_PARENT_PID": "999999999"})  # a number that is no ancestor of ours is not believed


_ASKING = """
import sys
sys.path.insert(0, sys.argv[1])
import pycontainers as pc
for lifetime in ("kernel", "detached"):
    pc.run("host", "sleep 1000", detach=True, network="none", name="of-" + lifetime, lifetime=lifetime)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.root
def test_a_container_ends_with_the_kernel_that_asked(engine: NativeEngine) -> None:
    """With a kernel that is killed: nothing of it runs that could say goodbye."""
    asking = subprocess.Popen([sys.executable, "-c", _ASKING, os.getcwd()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert asking.stdout is not None and asking.stdout.readline() == "ready\n"
        assert {engine.find(f"of-{lifetime}").status for lifetime in ("kernel", "detached")} == {"running"}
        assert engine.find("of-kernel").lifetime == "kernel"
    finally:
        asking.kill()
        asking.wait()
    assert engine.wait("of-kernel", 30).code in (137, 143)
    assert engine.find("of-detached").status == "running"


@pytest.mark.parametrize(("asked", "own", "grace"), [(None, None, 10), (3, 120, 3), (None, 120, 120), (0, None, 0)])
def test_a_stop_is_given_up_only_after_the_grace_that_holds(asked: float | None, own: float | None, grace: float) -> None:
    """Docker's rule of which it is: what stop says, else what the container has, else 10 seconds."""
    seconds = ending.patience(asked, {"stop_timeout": own})
    assert seconds is not None and seconds > grace


@pytest.mark.parametrize(("asked", "own"), [(-1, None), (None, -1)])
def test_a_grace_without_end_is_waited_for_without_end(asked: float | None, own: float | None) -> None:
    assert ending.patience(asked, {"stop_timeout": own}) is None
