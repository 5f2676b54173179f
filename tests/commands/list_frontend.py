"""A front end without anybody at it."""

from __future__ import annotations

from typing import Any


class ListFrontend:
    """Keeps what a verb hands over."""

    is_live = False
    prompt = "%container"
    terminals = ""

    def __init__(self) -> None:
        self.streamed: list[tuple[str, bytes]] = []
        self.events: list[Any] = []
        self.shown: list[Any] = []
        self.presented: list[Any] = []
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

    def show(self, forms: Any, markup: bool = False) -> None:
        self.shown.append(forms)

    def clear(self, wait: bool) -> None:
        self.shown.clear()

    def present(self, result: Any) -> None:
        self.presented.append(result)

    def drive(self, session: Any, write: Any, stdin: bool, keys: str | None = None) -> None:
        if stdin:
            session.end_input()
        for stream, data in session.stream():
            write(stream, data)

    def size(self) -> tuple[int, int] | None:
        return None
