"""The first notebook from its first cell to its last, headless, over the native engine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pycontainers.paths import Paths

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.root, pytest.mark.timeout(200)]


@pytest.fixture
def environ(state: Paths) -> dict[str, str]:
    """The session's own state folders, and a free port for the service."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {**os.environ, "VISITS_DEMO_PORT": str(port)}


def test_the_first_notebook_runs_and_leaves_nothing(environ: dict[str, str], tmp_path: Path) -> None:
    notebooks = tmp_path / "notebooks"
    shutil.copytree(ROOT / "notebooks", notebooks, ignore=shutil.ignore_patterns("data", "__pycache__"))
    for _ in range(2):  # it can be run again
        done = subprocess.run([sys.executable, "run_headless.py"], cwd=notebooks, env=environ, capture_output=True, text=True, timeout=85)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        assert "visits.py compiles" in done.stdout and "in our folder: 1" in done.stdout and "the notebook lives on" in done.stdout
        assert "container hungry was OOM-killed: it needed more than its 64.0 MiB of memory" in done.stdout
        assert not list(Path(environ["PYCONTAINERS_HOME"], "containers").glob("[0-9a-f]" * 64))
        assert not (notebooks / "data").exists()
