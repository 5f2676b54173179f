"""The fourth notebook, headless, over the native engine: every cell runs, says what it should, and leaves nothing."""

from __future__ import annotations

import json
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
NAME = "04-a-notebook-of-containers.ipynb"
pytestmark = [pytest.mark.root, pytest.mark.timeout(200)]


def test_every_cell_runs_and_says_what_it_should(tmp_path: Path) -> None:
    saved = tmp_path / "saved.ipynb"
    with tempfile.TemporaryDirectory(prefix="pyct-", dir="/var/tmp") as base:
        environ = {**os.environ, "PYCONTAINERS_HOME": f"{base}/home", "PYCONTAINERS_RUN": f"{base}/run", "PYTHONPATH": str(ROOT)}
        where = Paths(Path(f"{base}/home"), Path(f"{base}/run"))
        shutil.copy(ROOT / "notebooks" / NAME, tmp_path)
        try:
            done = subprocess.run(
                [sys.executable, str(ROOT / "notebooks/run_headless.py"), NAME, "--save", str(saved)],
                cwd=tmp_path,
                env={**environ, "JUPYTER_DATA_DIR": f"{base}/jupyter"},
                capture_output=True,
                text=True,
                timeout=180,
            )
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
            assert not NativeEngine(where).containers(all=True)
        finally:
            leave_launcher(where)
    said = done.stdout
    assert "process 1 on " in said and "Network is unreachable" in said and "('others', 6)" in said
    assert re.search(r"error: the cell ran out of memory: it needed more than the 64.0 MiB .*\(peak 6\d\.\d MiB\)", said)
    assert "12 of 12" in said and "30000: 50," in said
    assert re.search(r"quarter +whole +/ quarter\n +wall time +[\d.]+ s +[\d.]+ s +[\d.]+×", said)
    assert "error: a terminal" in said or "nobody can type" in said
    assert re.search(r"network .*◐ with beside \d+ +◐ with computes \d+", said) and "○ this machine's" in said
    # Saved with its outputs it fits into a repository: plots are pictures, and no widget's state is kept.
    assert saved.stat().st_size < 200_000
    assert "widgets" not in json.loads(saved.read_text())["metadata"]
