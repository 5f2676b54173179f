from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

sys.path.insert(0, str(Path(__file__).parents[1] / "commands"))

from fake_engine import FakeEngine


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine in memory in place of the native one."""
    import pycontainers.notebook.completion
    import pycontainers.notebook.frontend
    import pycontainers.notebook.magics

    found = FakeEngine()
    for module in (pycontainers.notebook.magics, pycontainers.notebook.completion):
        monkeypatch.setattr(module, "native_engine", lambda: found)
    monkeypatch.setattr(pycontainers.notebook.frontend.SETS, "sets", {})
    return found


@pytest.fixture
def shell(engine: FakeEngine) -> Iterator[Any]:
    """A shell of its own with the extension loaded; nothing of it touches the disk."""
    config = Config()
    config.HistoryManager.enabled = False
    found = InteractiveShell(config=config)
    found.run_line_magic("load_ext", "pycontainers")
    yield found
    found.run_line_magic("unload_ext", "pycontainers")
    found.history_manager.end_session()
