"""Folders that look like a machine's cgroup mounts, and a group on this machine's own kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pycontainers.linux import cgroups
from pycontainers.linux.cgroups.layout import Layout, parse

Start = Callable[..., "subprocess.Popen[bytes]"]
FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def machine(folder: Path) -> Layout:
    """The layout of the machine in ``folder``; its group ``/pycontainers/c1`` has 2 processes and counters."""
    return parse((folder / "mountinfo").read_text(), (folder / "cgroup").read_text(), str(folder))


@pytest.fixture(params=["v1", "v2", "hybrid"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of one machine, free to be written to."""
    return Path(shutil.copytree(FIXTURES / request.param, tmp_path / request.param))


@pytest.fixture
def group_path() -> Iterator[str]:
    """A path for a group of this test alone, gone afterwards."""
    where = cgroups.layout()
    if not where.writable:
        pytest.skip(f"cgroups cannot be written here: {where.why}")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    path = f"/pycontainers-test-{os.getpid()}"
    yield path
    left = cgroups.open(path)
    left.kill()
    left.remove()
    assert not [tree for tree in where.trees if os.path.exists(tree.base + path)]


@pytest.fixture
def start(group_path: str) -> Iterator[Start]:
    """Start a command with a pipe for its input; it is ended with the test."""
    started = []

    def run(*command: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))
        return started[-1]

    yield run
    cgroups.open(group_path).kill()  # what a failed test left frozen would not die by itself
    for process in started:
        process.kill()
        process.communicate()


def has(*controllers: str) -> None:
    missing = set(controllers) - set(cgroups.layout().controllers)
    if missing:
        pytest.skip(f"this machine has no {', '.join(sorted(missing))} controller")
