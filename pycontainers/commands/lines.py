"""Events of long work as lines of text: for the program, and for a notebook that nobody watches."""

from __future__ import annotations

from collections.abc import Callable

from ..events import Done, Event, Note, StepFinished, StepOutput, StepStarted
from ..text import EscapeFilter, one_line


class LineProgress:
    """Writes whole lines, in the manner of BuildKit's plain progress: ``#3 [3/6] RUN …``, ``#3 0.41s``, ``#3 CACHED``.

    Steps may run side by side, so each line carries its step's number; output is held back until its line is whole.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._filters: dict[tuple[int, str], EscapeFilter] = {}
        self._held: dict[tuple[int, str], str] = {}

    def handle(self, event: Event) -> None:
        if isinstance(event, StepStarted):
            stage = f"{one_line(event.stage)} " if event.stage else ""
            self._write(f"#{event.index} [{stage}{event.index}/{event.total}] {one_line(event.text)}")
        elif isinstance(event, StepOutput):
            self._output(event)
        elif isinstance(event, StepFinished):
            self._flush(event.index)
            self._write(f"#{event.index} " + ("CACHED" if event.cached else f"done in {event.seconds:.2f} s"))
        elif isinstance(event, Note):
            self._write(f"note: {one_line(event.text)}")
        elif isinstance(event, Done):
            self._write(f"built {one_line(event.name)} in {event.seconds:.2f} s")

    def close(self) -> None:
        """Write what is held back of lines that never ended."""
        for index in sorted({index for index, _ in self._held}):
            self._flush(index)

    def _output(self, event: StepOutput) -> None:
        key = (event.index, event.stream)
        escape = self._filters.setdefault(key, EscapeFilter())
        text = self._held.get(key, "") + escape.feed(event.data)
        *lines, self._held[key] = text.replace("\r\n", "\n").split("\n")
        for line in lines:
            # Only what a carriage return left standing: a progress bar ends as one line, not as a hundred.
            self._write(f"#{event.index} | {line.rsplit(chr(13), 1)[-1]}")

    def _flush(self, index: int) -> None:
        for key in [key for key in self._held if key[0] == index]:
            rest = self._held.pop(key)
            if rest.strip():
                self._write(f"#{index} | {rest.rsplit(chr(13), 1)[-1]}")
