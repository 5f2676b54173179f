"""What our builder makes of a Dockerfile is what a real Docker Engine makes of it, failures included.

``make test`` takes the cases marked ``quick``; all of them: ``make test-docker`` (PYCONTAINERS_DOCKER=all).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.paths import Paths

from .case import Case
from .cases import CASES, FEATURES
from .compare import differences, left_out
from .engine import Engine, Missing
from .house import House

pytestmark = pytest.mark.root
_CHOSEN = [case for case in CASES if case.quick or os.environ.get("PYCONTAINERS_DOCKER") == "all"]


def test_corpus() -> None:
    """Every feature has a Dockerfile, and what well-known projects use has ten."""
    words = [word for case in CASES for word in case.features.split()]
    assert not FEATURES - set(words), "features without a case"
    assert not set(words) - FEATURES, "words that are no feature"
    assert words.count("project") >= 10
    assert len({case.name for case in CASES}) == len(CASES) >= 60


@pytest.fixture(scope="module")
def house(state: Paths) -> Iterator[House]:
    # On the disk of the state: overlay wants a real file system, and who removes the state removes this.
    folder = state.home.parent / "docker"
    folder.mkdir()
    try:
        found = House(folder, NativeEngine(state))
    except Missing as error:
        pytest.skip(f"no Docker Engine: {error}")
    yield found
    found.close()


@pytest.mark.parametrize("case", _CHOSEN, ids=lambda case: case.name)
def test_same(house: House, case: Case) -> None:
    try:
        ours, docker = house.build(case)
    except Missing as error:
        pytest.skip(str(error))
    assert docker.ok != case.fails, f"the case says that it {'fails' if case.fails else 'builds'}; Docker: {docker.error or 'builds it'}"
    found = differences(ours, docker)
    rest = [line for line in found if not left_out(case.but, line)]
    assert not rest, "\n".join(["", *rest, f"ours: {ours.error or 'built'}", f"Docker: {docker.error or 'built'}"])
    stale = [name for name in case.but if not any(left_out({name: ""}, line) for line in found)]
    assert not stale, f"exceptions of this case that differ no more: {stale}"


def test_leaves_nothing(tmp_path: Path) -> None:
    """An engine that is closed took its processes, mounts, network and cgroups with it."""
    before = Path("/proc/self/mountinfo").read_text(), subprocess.run(["ip", "netns"], capture_output=True, check=True).stdout
    try:
        engine = Engine(tmp_path)
    except Missing as error:
        pytest.skip(f"no Docker Engine: {error}")
    inner = engine.pid
    assert "Server" in engine("version").stdout
    engine.close()
    assert not Path(f"/proc/{inner}").exists()
    assert before == (Path("/proc/self/mountinfo").read_text(), subprocess.run(["ip", "netns"], capture_output=True, check=True).stdout)
    assert not [folder for folder in Path("/sys/fs/cgroup").glob(f"**/{engine.group}") if folder.is_dir()]
