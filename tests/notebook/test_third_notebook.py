"""The third notebook, headless, over the native engine: every cell runs, says what it should, and leaves nothing but the cache."""

from __future__ import annotations

import os
import re
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
pytestmark = [pytest.mark.root, pytest.mark.timeout(200)]


def test_every_cell_runs_and_says_what_it_should(tmp_path: Path) -> None:
    notebooks = tmp_path / "notebooks"
    shutil.copytree(ROOT / "notebooks", notebooks, ignore=shutil.ignore_patterns("data", "__pycache__"))
    # A state of its own: what other tests have built would be cached.
    with tempfile.TemporaryDirectory(prefix="pyct-", dir="/var/tmp") as base:
        environ = {**os.environ, "PYCONTAINERS_HOME": f"{base}/home", "PYCONTAINERS_RUN": f"{base}/run", "PYTHONPATH": str(ROOT)}
        where = Paths(Path(f"{base}/home"), Path(f"{base}/run"))
        try:
            done = subprocess.run(
                [sys.executable, "run_headless.py", "03-builds.ipynb"],
                cwd=notebooks,
                env=environ,
                capture_output=True,
                text=True,
                timeout=180,
            )
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
            assert not NativeEngine(where).images()
        finally:
            leave_launcher(where)
    assert set(os.listdir(notebooks)) == set(os.listdir(ROOT / "notebooks")) - {"data", "__pycache__"}
    said = done.stdout
    took = [float(text) for text in re.findall(r"built study in ([\d.]+) s", said)]
    assert len(took) == 3 and took[0] > 1.0 and took[1] < 0.9, took  # two stages of a second each, and then none
    assert "#5 why: runs: file draw.py changed" in said and said.count("the same step on the same layers") >= 3
    assert "a token of 23 letters, and build number 1" in said and "the token in the image's history: no" in said
    assert "error: Dockerfile:3:1: unknown instruction 'COPPY'" in said and "words.svg: " in said
