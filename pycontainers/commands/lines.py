"""Events of long work as lines of text: for the program, and for a notebook that nobody watches."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import TypeVar

from ..building import STATES, Step, Steps, instruction
from ..events import Done, Event, Note, StepFailed, StepFinished, StepOutput, StepStarted, Transfer, Work
from ..text import EscapeFilter, one_line
from ..transfers import Transfers, line

T = TypeVar("T")
_PERIOD = 0.1
_TAIL = 5


class LineProgress:
    """Writes whole lines, in the manner of BuildKit's plain progress: ``#3 [3/6] RUN …``, ``#3 | output``, ``#3 CACHED``, ``#3 ERROR``.

    Steps may run side by side, so each line carries its step's number; output is held back until its line is whole. Of a transfer each
    item has a line for each of its phases, whatever its size: ``4f4fb700ef54: downloading 29.1 MiB``.

    :param done: what is said of the result at the end: ``built NAME in 1.20 s``.
    """

    def __init__(self, write: Callable[[str], None], done: str = "built") -> None:
        self._write, self._done = write, done
        self._filters: dict[tuple[int, str], EscapeFilter] = {}
        self._held: dict[tuple[int, str], str] = {}
        self.transfers = Transfers()

    def handle(self, event: Event) -> None:
        if isinstance(event, StepStarted):
            stage = f"{one_line(event.stage)} " if event.stage else ""
            self._write(f"#{event.index} [{stage}{event.index}/{event.total}] {instruction(event.text)}")
        elif isinstance(event, StepOutput):
            self._output(event)
        elif isinstance(event, StepFinished):
            self._flush(event.index)
            self._write(f"#{event.index} " + ("CACHED" if event.cached else f"done in {event.seconds:.2f} s"))
            for reason in event.why.splitlines():
                self._write(f"#{event.index} why: {one_line(reason)}")
        elif isinstance(event, StepFailed):
            self._flush(event.index)
            self._write(f"#{event.index} {'CANCELED' if event.cancelled else 'ERROR'} after {event.seconds:.2f} s")
        elif isinstance(event, Transfer):
            self._transfer(event)
        elif isinstance(event, Note):
            self._write(f"note: {one_line(event.text)}")
        elif isinstance(event, Done):
            self._write(f"{self._done} {one_line(event.name)} in {event.seconds:.2f} s")

    def follow(self, work: Work[T]) -> T:
        """Write everything that ``work`` says; return its result. However this ends, the work has tidied up behind itself."""
        with contextlib.closing(self), contextlib.closing(work):
            while True:
                try:
                    event = next(work)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                except BaseException as error:
                    self._broken_off(not isinstance(error, Exception))
                    raise
                self.handle(event)

    def _broken_off(self, interrupted: bool) -> None:
        self.transfers.failed()

    def close(self) -> None:
        """Write what is held back of lines that never ended."""
        for index in sorted({index for index, _ in self._held}):
            self._flush(index)

    def _transfer(self, event: Transfer) -> None:
        if self.transfers.handle(event):
            row = self.transfers.rows[event.item]
            if row.over:
                said = f"done, {row.text(0.0)}" if row.phase == "done" else row.text(0.0)
            else:
                said = row.phase + (f" {row.amount(row.total)}" if row.total else "")
            self._write(f"{one_line(row.item)}: {said}")

    def _output(self, event: StepOutput) -> None:
        key = (event.index, event.stream)
        escape = self._filters.setdefault(key, EscapeFilter())
        text = self._held.get(key, "") + escape.feed(event.data)
        *lines, self._held[key] = text.replace("\r\n", "\n").split("\n")
        for found in lines:
            # Only what a carriage return left standing: a progress bar ends as one line, not as a hundred.
            self._write(f"#{event.index} | {found.rsplit(chr(13), 1)[-1]}")

    def _flush(self, index: int) -> None:
        for key in [key for key in self._held if key[0] == index]:
            rest = self._held.pop(key)
            if rest.strip():
                self._write(f"#{index} | {rest.rsplit(chr(13), 1)[-1]}")


class JsonProgress(LineProgress):
    """Each event as one JSON object a line, with its class as ``event``; output of a step is text, with ``\\ufffd`` for what is none."""

    def handle(self, event: Event) -> None:
        values = {name: _readable(getattr(event, name)) for name in event.__dataclass_fields__}
        self._write(json.dumps({"event": type(event).__name__, "time": time.time(), **values}))


def _readable(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def lines(form: str, write: Callable[[str], None], done: str) -> LineProgress:
    """The progress of one form: plain (and whatever cannot be drawn), quiet or rawjson."""
    if form == "rawjson":
        return JsonProgress(write, done)
    return LineProgress((lambda line: None) if form == "quiet" else write, done)


class DrawnProgress(LineProgress):
    """The same on a terminal: a transfer's items, and the steps that run with their last lines, are redrawn where they stand, at most ten
    times a second; all else goes above them. Of steps that are over one line stays, and of a failed one all that it said.

    :param write: takes text as it is, escapes included. :param size: (rows, columns) of the terminal, asked at each drawing.
    """

    def __init__(self, write: Callable[[str], None], size: Callable[[], tuple[int, int]], done: str = "built") -> None:
        super().__init__(self._above, done)
        self._out, self._size = write, size
        self._drawn: list[str] = []
        self._last = 0.0
        self._steps = Steps()

    def handle(self, event: Event) -> None:
        if not self._steps.handle(event, time.monotonic()):
            super().handle(event)
        elif isinstance(event, StepFinished | StepFailed):
            self._over(self._steps.rows[event.index])
        elif isinstance(event, StepStarted) or time.monotonic() - self._last >= _PERIOD:
            self._draw()

    def close(self) -> None:
        super().close()
        self._draw(final=True)

    def _broken_off(self, interrupted: bool) -> None:
        super()._broken_off(interrupted)
        running = self._steps.running
        self._steps.broken_off(time.monotonic(), interrupted)
        for step in running:
            self._over(step)

    def _over(self, step: Step) -> None:
        said = step.tail.all() if step.state == "failed" else []
        lines = [*(f"  ↳ {reason}" for reason in step.why), *(f"  | {text}" for text in said)]
        self._above("\n".join([f"{STATES[step.state]} {step.place} {step.label}  {step.took(0.0)}", *lines]))

    def _running(self, room: int) -> list[str]:
        """The steps that run, as far as there is room, the last lines of each below it."""
        running = self._steps.running[:room]
        tail = max(0, min(_TAIL, room // len(running) - 1)) if running else 0
        return [text for step in running for text in (f"{STATES['running']} {step.place} {step.label}", *_indented(step, tail))]

    def _transfer(self, event: Transfer) -> None:
        self.transfers.handle(event)
        if time.monotonic() - self._last >= _PERIOD:
            self._draw()

    def _above(self, text: str) -> None:
        """A line that stays: what is drawn is taken away, and drawn again below it."""
        self._out(f"{self._erase()}{text}\n")
        self._draw()

    def _erase(self) -> str:
        height, self._drawn = len(self._drawn), []
        return f"\x1b[{height}A\x1b[J" if height else ""

    def _draw(self, final: bool = False) -> None:
        now = self._last = time.monotonic()
        rows, columns = (found or usual for found, usual in zip(self._size(), (24, 80), strict=True))  # 0: nobody has said
        found = list(self.transfers.rows.values())
        if not final and len(found) > (room := max(3, rows - 3)):
            # What cannot be seen cannot be redrawn either: of many, those that move, and then the latest.
            moving = [row for row in found if not row.over] or found
            found = moving[-room:]
        lines = [line(row, now, columns - 1) for row in found]
        lines += [text[: columns - 1] for text in self._running(max(3, rows - 3 - len(lines)))]
        if (total := self.transfers.summary(now)) and not final:
            lines.append(f"  {total}"[: columns - 1])
        if lines != self._drawn:
            self._out(self._erase() + "".join(f"{text}\n" for text in lines))
            self._drawn = lines


def _indented(step: Step, count: int) -> list[str]:
    return [f"  | {text}" for text in step.tail.last(count)] if count else []
