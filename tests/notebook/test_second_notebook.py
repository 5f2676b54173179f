"""The second notebook, headless, over the native engine: with all its ways, and where there is neither a mirror nor a registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.paths import Paths
from tests.conftest import leave_launcher

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]


def run(folder: Path, before: list[str], environ: dict[str, str]) -> str:
    notebooks = folder / "notebooks"
    shutil.copytree(ROOT / "notebooks", notebooks, ignore=shutil.ignore_patterns("data", "__pycache__"))
    words = [*before, sys.executable, "run_headless.py", "02-two-systems-one-kernel.ipynb"]
    done = subprocess.run(words, cwd=notebooks, env=environ, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    left = set(os.listdir(notebooks)) - set(os.listdir(ROOT / "notebooks"))
    assert not left, left
    return done.stdout


def test_every_cell_runs_and_nothing_stays(state: Paths, tmp_path: Path) -> None:
    engine = NativeEngine(state)
    before = {image.id for image in engine.images()}, {info.id for info in engine.containers(all=True)}
    said = run(tmp_path, [], dict(os.environ))
    assert before == ({image.id for image in engine.images()}, {info.id for info in engine.containers(all=True)})
    shared = [line for line in said.splitlines() if line.strip().startswith(("kernel ", "boot_id ", "started "))]
    assert len(shared) == 3 and all(line.endswith("yes") for line in shared), shared
    if "so there is no bookworm here" not in said and "so there is no trixie here" not in said:
        assert "GLIBC" in said and "busybox of onefile in bookworm: it runs" in said
        (libc,) = [line.split() for line in said.splitlines() if line.split()[:1] == ["libc6"]]
        assert libc[1] != libc[2]


def test_without_a_network_it_goes_on_with_what_is_there(busybox: str, tmp_path: Path) -> None:
    # Its own state: a launcher that was started without a network would serve later tests without one.
    with tempfile.TemporaryDirectory(prefix="pyct-", dir="/var/tmp") as base:
        environ = {**os.environ, "PYCONTAINERS_HOME": f"{base}/home", "PYCONTAINERS_RUN": f"{base}/run"}
        alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
        said = run(tmp_path, alone, environ)
        leave_launcher(Paths(Path(environ["PYCONTAINERS_HOME"]), Path(environ["PYCONTAINERS_RUN"])))
    assert "so there is no bookworm here" in said and "one file" in said and "one of the three is not here" in said
