"""What the launcher loads is what each supervisor pays for: in memory, and in copied pages at each start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pycontainers
from pycontainers.paths import Paths
from pycontainers.runtime import client

#: Each is 1 to 3 MB with what it brings, and none is needed to start a container.
HEAVY = (
    "pathlib", "dataclasses", "inspect", "shutil", "tempfile", "random", "traceback", "urllib", "ipaddress", "subprocess", "asyncio",
)  # fmt: skip


def test_the_launcher_loads_nothing_heavy(tmp_path: Path) -> None:
    argv = client.launcher_argv(Paths(tmp_path, tmp_path))
    python = argv[: argv.index("-c")]
    assert python[1:] == ["-I", "-S"]
    root = str(Path(pycontainers.__file__).parents[1])
    program = f"import sys; sys.path.insert(0, {root!r}); import pycontainers.runtime.launcher; print(*sys.modules)"
    loaded = subprocess.run([*python, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "pycontainers.runtime.supervisor" in loaded
    assert [name for name in HEAVY if name in loaded] == []
