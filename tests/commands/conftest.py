from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_engine import FakeEngine

import pycontainers.api
import pycontainers.commands.program


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine in memory in place of the native one, for the functions and for the program."""
    found = FakeEngine()
    for module in (pycontainers.api, pycontainers.commands.program):
        monkeypatch.setattr(module, "native_engine", lambda: found)
    return found


class ListFrontend:
    """Keeps what a verb hands over."""

    is_live = False
    prompt = "%container"

    def __init__(self) -> None:
        self.streamed: list[tuple[str, bytes]] = []
        self.events: list[Any] = []
        self.asked: list[tuple[str, bool]] = []
        self.answers: list[str] = []

    def ask(self, question: str, hidden: bool = False) -> str:
        self.asked.append((question, hidden))
        return self.answers.pop(0)

    def progress(self, work: Any, form: str = "auto", done: str = "built") -> Any:
        while True:
            try:
                self.events.append(next(work))
            except StopIteration as stop:
                return stop.value

    def stream(self, stream: str, data: bytes) -> None:
        self.streamed.append((stream, data))

    def drive(self, session: Any, write: Any, stdin: bool, keys: str | None = None) -> None:
        if stdin:
            session.end_input()
        for stream, data in session.stream():
            write(stream, data)

    def size(self) -> tuple[int, int] | None:
        return None


@pytest.fixture
def command(engine: FakeEngine) -> Any:
    """``command("run -d host", body)`` -> what the verb returns; ``command.frontend`` keeps what it streamed."""
    import shlex

    from pycontainers.commands.declare import find, parse
    from pycontainers.commands.frontend import Context

    frontend = ListFrontend()

    def run(line: str, body: str | None = None) -> Any:
        words = shlex.split(line)
        verb = find(words[0])
        return verb.function(Context(lambda: engine, frontend), parse(verb, words[1:]), body)

    run.frontend = frontend  # type: ignore[attr-defined]
    return run
