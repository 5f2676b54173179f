"""The notebook as the commands see it: where output and progress of a running cell go."""

from __future__ import annotations

import os
import sys
from typing import Any, TypeVar

from ..commands.lines import LineProgress
from ..events import Work
from ..text import EscapeFilter
from . import surroundings

T = TypeVar("T")


class NotebookFrontend:
    """One for each command. Output goes to the cell as it comes, with colours, without escapes that reach further."""

    prompt = "%container"

    def __init__(self, shell: Any) -> None:
        self.has_kernel = getattr(shell, "kernel", None) is not None
        self.is_live = surroundings.is_live(os.environ, shell.user_ns, self.has_kernel)
        self.notebook_path = surroundings.notebook_path(os.environ, shell.user_ns)
        self._filters = {"stdout": EscapeFilter(), "stderr": EscapeFilter()}

    def progress(self, work: Work[T], form: str = "auto") -> T:
        if form == "auto" and self.is_live:
            from .progress import show

            return show(work)
        lines = LineProgress(lambda line: None if form == "quiet" else print(line, flush=True))
        try:
            while True:
                lines.handle(next(work))
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            lines.close()

    def stream(self, stream: str, data: bytes) -> None:
        self._write(stream, self._filters[stream].feed(data))

    def close(self) -> None:
        """Write what was held back: half a character, half an escape."""
        for stream, escape in self._filters.items():
            self._write(stream, escape.feed(b"", final=True))

    @staticmethod
    def _write(stream: str, text: str) -> None:
        if text:
            out = sys.stderr if stream == "stderr" else sys.stdout
            out.write(text)
            out.flush()
