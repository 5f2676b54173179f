from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_engine import FakeEngine
from list_frontend import ListFrontend

import pycontainers.api
import pycontainers.commands.program


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine in memory in place of the native one, for the functions and for the program."""
    found = FakeEngine()
    for module in (pycontainers.api, pycontainers.commands.program):
        monkeypatch.setattr(module, "native_engine", lambda: found)
    return found


@pytest.fixture
def command(engine: FakeEngine) -> Any:
    """``command("run -d host", body)`` -> what the verb returns; ``command.frontend`` keeps what it streamed.

    ``command.files``: sets of files, as a notebook has them; None as in a shell.
    """
    import shlex

    from pycontainers.commands.declare import find, parse
    from pycontainers.commands.frontend import Context

    frontend = ListFrontend()

    def run(line: str, body: str | None = None) -> Any:
        words = shlex.split(line)
        verb = find(words[0])
        return verb.function(Context(lambda: engine, frontend, files=run.files), parse(verb, words[1:]), body)

    run.frontend = frontend  # type: ignore[attr-defined]
    run.files = None  # type: ignore[attr-defined]
    return run
