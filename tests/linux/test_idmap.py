"""A user namespace that is made for its ID map, by a child that must not outlive whoever makes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pycontainers.linux import idmap

pytestmark = pytest.mark.root

#: It stops in the middle: the child is there, and no map yet.
HALFWAY = """
import os, time
from pycontainers.linux import idmap
def stop(pid, *maps):
    time.sleep(0.2)
    print(pid, os.listdir(f"/proc/{pid}/fd"), flush=True)
    time.sleep(1000)
idmap.write_maps = stop
held = os.pipe()
idmap.namespace_with([(0, 0, 1)], [(0, 0, 1)])
"""


def test_the_child_goes_with_who_is_killed_and_holds_nothing_of_his() -> None:
    """A launcher that was killed here left a child with its listening socket: whoever connected waited for an answer that never came."""
    process = subprocess.Popen([sys.executable, "-c", HALFWAY], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid, held = process.stdout.readline().split(maxsplit=1)
    assert held == "[]\n"
    process.kill()
    process.communicate()
    end = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        if time.monotonic() > end:
            os.kill(int(pid), signal.SIGKILL)
            raise AssertionError("the child lives on")
        time.sleep(0.01)


def test_the_namespace_has_the_maps() -> None:
    fd = idmap.namespace_with([(0, 70000, 10)], [(0, 80000, 10)])
    with subprocess.Popen(
        ["nsenter", f"--user=/proc/{os.getpid()}/fd/{fd}", "-S", "0", "-G", "0", "cat", "/proc/self/uid_map", "/proc/self/gid_map"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read().split()
    os.close(fd)
    assert said == ["0", "70000", "10", "0", "80000", "10"]
