from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_engine import FakeEngine
from list_frontend import ListFrontend

import pycontainers.api
import pycontainers.commands.program
from pycontainers.commands.declare import find, parse
from pycontainers.commands.frontend import Context


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine in memory in place of the native one, for the functions and for the program."""
    found = FakeEngine()
    for module in (pycontainers.api, pycontainers.commands.program):
        monkeypatch.setattr(module, "native_engine", lambda: found)
    return found


class Command:
    """``command("run -d host", body)`` -> what the verb returns; ``frontend`` keeps what it streamed.

    ``files``: sets of files, as a notebook has them; None as in a shell.
    """

    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.frontend = engine, ListFrontend()
        self.files: Any = None

    def __call__(self, line: str, body: str | None = None) -> Any:
        words = shlex.split(line)
        verb = find(words[0])
        return verb.function(Context(lambda: self.engine, self.frontend, files=self.files), parse(verb, words[1:]), body)


@pytest.fixture
def command(engine: FakeEngine) -> Command:
    return Command(engine)
