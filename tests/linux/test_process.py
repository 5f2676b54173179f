"""A process is the same only with its start time, boot and pid namespace."""

import os
import signal
import subprocess

import pytest

from pycontainers.linux import process


@pytest.fixture
def child():
    made = subprocess.Popen(["sleep", "60"])
    yield made
    made.kill()
    made.wait()


def test_alive(child):
    found = process.identity(child.pid)
    assert process.alive(found) is True
    assert process.alive({**found, "start": found["start"] - 1}) is False
    assert process.alive({**found, "boot": "another"}) is None
    assert process.alive({**found, "pidns": "pid:[1]"}) is None


def test_a_zombie_is_not_alive(child):
    found = process.identity(child.pid)
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.alive(found) is False
    child.wait()
    assert process.alive(found) is False


def test_a_name_with_brackets(tmp_path):
    program = tmp_path / "a) R (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(program), "60"])
    try:
        assert process.start_time(child.pid) >= process.start_time(os.getpid())
    finally:
        child.kill()
        child.wait()


def test_signals_reach_only_that_process(child):
    found = process.identity(child.pid)
    assert process.send_signal({**found, "start": 1}) is False
    assert not process.wait_gone(child.pid, 0.02)
    assert process.send_signal(found, signal.SIGKILL) is True
    assert process.wait_gone(child.pid, 5)
    child.wait()
    assert process.send_signal(found) is False


def test_no_such_process(child):
    child.kill()
    child.wait()
    with pytest.raises(ProcessLookupError):
        process.identity(child.pid)
