"""How far a build is, step by step: the state that a notebook draws, with what is worth showing of it. Plain text only."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from .events import Event, StepFailed, StepFinished, StepOutput, StepStarted
from .text import EscapeFilter, clean, one_line

KEEP = 1 << 20  # characters of one step's output: more is not read by anybody in a cell
_LINE = 1 << 14  # characters of one line: a program may never end it
_FEW = 24  # rows: a build with no more of them is shown whole
_LATEST = 8  # of a longer one that runs, as many of the steps that ended last
_WHOLE = 300  # rows: what has ended is shown with every step that ran, if it is no longer than that
_MANY = 12  # steps that run at a time and are shown one by one
_GROUP = 4  # steps beside each other that are worth a line for all of them
_REASONS = 12  # lines of why a step ran
_CONTINUED = re.compile(r"[\\`][ \t]*\n\s*")

#: what a step may be -> its sign
STATES = {"running": "▶", "done": "✓", "cached": "✓", "failed": "✗", "cancelled": "⊘"}


class Tail:
    """Output of a step as lines, the newest :data:`KEEP` characters of it. Of a line that was drawn over, only what stood last."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque()
        self.dropped = 0
        self._size = 0
        self._filters: dict[str, EscapeFilter] = {}
        self._open: dict[str, str] = {}

    def feed(self, stream: str, data: bytes) -> None:
        text = self._open.get(stream, "") + self._filters.setdefault(stream, EscapeFilter()).feed(data)
        *whole, rest = text.replace("\r\n", "\n").split("\n")
        for line in whole:
            self._add(_last_drawn(line))
        self._open[stream] = rest if rest.endswith("\r") else _last_drawn(rest)

    def _add(self, line: str) -> None:
        if not line.strip():
            return
        self.lines.append(line)
        self._size += len(line)
        while self._size > KEEP:
            self._size -= len(self.lines.popleft())
            self.dropped += 1

    def last(self, count: int) -> list[str]:
        """The newest ``count`` lines, those that have not ended yet included."""
        newest = [self.lines[at] for at in range(-min(count, len(self.lines)), 0)]
        return [clean(line) for line in [*newest, *self._unfinished()][-count:]]

    def all(self) -> list[str]:
        """Everything that is kept, and a word on what is not."""
        told = [f"… {self.dropped} lines before"] if self.dropped else []
        return [*told, *map(clean, self.lines), *map(clean, self._unfinished())]

    def _unfinished(self) -> list[str]:
        return [_last_drawn(line) for line in self._open.values() if line.strip()]


def _last_drawn(line: str) -> str:
    return line.rstrip("\r").rsplit("\r", 1)[-1][-_LINE:]


def instruction(text: str) -> str:
    """An instruction as written, in one line."""
    return one_line(_CONTINUED.sub(" ", text))


@dataclass
class Step:
    """One step. ``state``: running, done, cached, failed or cancelled; ``order``: when it ended among the others; seconds are monotonic."""

    index: int
    total: int
    stage: str
    text: str
    started: float
    state: str = "running"
    seconds: float = 0.0
    why: tuple[str, ...] = ()
    order: int = 0
    tail: Tail = field(default_factory=Tail)

    @property
    def place(self) -> str:
        return f"[{one_line(self.stage) + ' ' if self.stage else ''}{self.index}/{self.total}]"

    @property
    def label(self) -> str:
        return instruction(self.text)

    def took(self, now: float) -> str:
        """``CACHED``, or how long it took, or takes until now."""
        if self.state == "cached":
            return "CACHED"
        word = {"failed": "failed after ", "cancelled": "cancelled after "}.get(self.state, "")
        return word + length(now - self.started if self.state == "running" else self.seconds, exact=self.state != "running")


@dataclass(frozen=True)
class Group:
    """Steps beside each other that are told in one line."""

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        counts = Counter(step.state for step in self.steps)
        told = ", ".join(f"{counts[state]} {state}" for state in ("cached", "done", "cancelled", "failed", "running") if counts[state])
        return f"{len(self.steps)} steps: {told}" if len(counts) > 1 else f"{told.replace(' ', ' steps ', 1)}"


class Steps:
    """All steps that have begun."""

    def __init__(self) -> None:
        self.rows: dict[int, Step] = {}
        self.total = 0
        self._ended = 0
        self.began = 0.0

    def handle(self, event: Event, now: float) -> bool:
        """Take an event in. Whether it was about a step."""
        if isinstance(event, StepStarted):
            self.began = self.began or now
            self.total = max(self.total, event.total)
            self.rows[event.index] = Step(event.index, event.total, event.stage, event.text, now)
            return True
        if not isinstance(event, StepOutput | StepFinished | StepFailed):
            return False
        step = self.rows.get(event.index)
        if step is None:
            return True
        if isinstance(event, StepOutput):
            step.tail.feed(event.stream, event.data)
        elif isinstance(event, StepFinished):
            step.why = _reasons(event.why)
            step.tail = Tail()  # nobody reads it any more
            self._end(step, "cached" if event.cached else "done", event.seconds)
        else:
            self._end(step, "cancelled" if event.cancelled else "failed", event.seconds)
        return True

    def _end(self, step: Step, state: str, seconds: float) -> None:
        self._ended += 1
        step.state, step.seconds, step.order = state, seconds, self._ended

    def broken_off(self, now: float, interrupted: bool) -> None:
        """The build ended before its end: what still ran was not what failed, unless it ran alone and nobody interrupted it."""
        running = [step for step in self.rows.values() if step.state == "running"]
        alone = len(running) == 1 and not interrupted and not any(step.state == "failed" for step in self.rows.values())
        for step in running:
            self._end(step, "failed" if alone else "cancelled", now - step.started)

    @property
    def running(self) -> list[Step]:
        return [step for step in self.rows.values() if step.state == "running"]

    def shown(self, over: bool) -> list[Step | Group]:
        """Steps in the order of the file, many that say the same as one. ``over``: the build has ended, and this is what stays."""
        rows = [self.rows[index] for index in sorted(self.rows)]
        if len(rows) <= _FEW:
            return list(rows)
        if over and len(rows) <= _WHOLE:
            return _grouped(rows, lambda step: step.state != "cached" or bool(step.why), _GROUP)
        latest = {step.index for step in sorted(rows, key=lambda step: step.order)[-_LATEST:] if step.order}
        running = {step.index for step in [step for step in rows if step.state == "running"][:_MANY]}
        bad = {step.index for step in [step for step in rows if step.state == "failed"][:_MANY]}
        kept = latest | running | bad
        return _grouped(rows, lambda step: step.index in kept, 2)

    def summary(self, now: float) -> str:
        """``12 of 40 steps · 2 running · 14 s`` while it goes on."""
        count = sum(step.state in ("done", "cached") for step in self.rows.values())
        running = len(self.running)
        parts = [f"{count} of {self.total} steps"] + ([f"{running} running"] if running > 1 else []) + [length(now - self.began)]
        return " · ".join(parts)

    def result(self) -> str:
        """What is worth saying when all is done: ``9 of 12 steps cached``; "" where it was one or none."""
        cached = sum(step.state == "cached" for step in self.rows.values())
        return f"{cached} of {len(self.rows)} steps cached" if cached and len(self.rows) > 1 else ""


def _reasons(why: str) -> tuple[str, ...]:
    lines = [one_line(line) for line in why.splitlines() if line.strip()]
    return tuple(lines if len(lines) <= _REASONS else [*lines[: _REASONS - 1], f"and {len(lines) - _REASONS + 1} more"])


def _grouped(rows: list[Step], alone: Callable[[Step], bool], least: int) -> list[Step | Group]:
    """Steps that do not stand alone are joined with their neighbours, where these are ``least`` or more."""
    found: list[Step | Group] = []
    held: list[Step] = []

    def flush() -> None:
        found.extend([Group(tuple(held))] if len(held) >= least else held)
        held.clear()

    for step in rows:
        if alone(step):
            flush()
            found.append(step)
        else:
            held.append(step)
    flush()
    return found


def length(seconds: float, exact: bool = False) -> str:
    """``1.2 s``, ``14 s``, ``2 m 05 s``. Of what still goes on the tenths are left out soon: each is one more drawing."""
    seconds = max(0.0, seconds)
    if seconds < (60 if exact else 10):
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{int(seconds)} s"
    return f"{int(seconds // 60)} m {int(seconds % 60):02d} s"
