"""A build, or a transfer, as one display that is updated in place: a line per step, output of the running one, all of a failed one."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from ..events import Done, Event, Note, Progress, StepFinished, StepOutput, StepStarted, Transfer, Work
from ..metrics.series import format_bytes
from ..text import EscapeFilter, clean, one_line
from ..transfers import Row, Transfers, bar
from . import html

T = TypeVar("T")
_TAIL = 5
_KEEP = 1 << 20
_PERIOD = 0.1
_ICONS = {"running": "▶", "done": "✓", "cached": "✓", "failed": "✗"}
_COLORS = {"running": html.LINK, "done": html.GOOD, "cached": html.MUTED, "failed": html.BAD}


@dataclass
class Step:
    index: int
    total: int
    stage: str
    text: str
    started: float
    state: str = "running"
    seconds: float = 0.0
    output: str = ""
    filters: dict[str, EscapeFilter] = field(default_factory=dict)

    def feed(self, stream: str, data: bytes) -> None:
        text = self.filters.setdefault(stream, EscapeFilter()).feed(data)
        self.output = (self.output + text)[-_KEEP:]

    def lines(self) -> list[str]:
        """Its output as lines; of a line that was drawn over by carriage returns only what stood last."""
        return [clean(line.rstrip("\r").rsplit("\r", 1)[-1]) for line in self.output.split("\n") if line.strip()]


class BuildView:
    """The state of a build or a transfer as it is drawn. ``handle`` takes events, ``failed`` marks what was running as failed.

    :param word: what is said of the result at the end: ``built NAME in 1.20 s``.
    """

    def __init__(self, word: str = "built") -> None:
        self.word = word
        self.transfers = Transfers()
        self.steps: dict[int, Step] = {}
        self.notes: list[str] = []
        self.done = ""
        self.moved = ""
        self.lock = threading.Lock()

    def handle(self, event: Event) -> None:
        with self.lock:
            if isinstance(event, StepStarted):
                self.steps[event.index] = Step(event.index, event.total, event.stage, event.text, time.monotonic())
            elif isinstance(event, StepOutput) and event.index in self.steps:
                self.steps[event.index].feed(event.stream, event.data)
            elif isinstance(event, StepFinished) and event.index in self.steps:
                step = self.steps[event.index]
                step.seconds, step.state = event.seconds, "cached" if event.cached else "done"
            elif isinstance(event, Note):
                self.notes.append(event.text)
            elif isinstance(event, Progress):
                self.moved = f"{event.text}: {format_bytes(event.done)}"
            elif isinstance(event, Transfer):
                self.transfers.handle(event)
            elif isinstance(event, Done):
                self.done = f"{self.word} {event.name} in {event.seconds:.2f} s"

    def failed(self) -> None:
        with self.lock:
            self.transfers.failed()
            for step in self.steps.values():
                if step.state == "running":
                    step.state, step.seconds = "failed", time.monotonic() - step.started

    def bundle(self) -> dict[str, str]:
        with self.lock:
            return {"text/plain": self._plain(), "text/html": self._html()}

    def _rows(self) -> list[tuple[Step, str, str, list[str]]]:
        """``(step, place, time, lines of output to show)`` in order."""
        found = []
        for step in (self.steps[index] for index in sorted(self.steps)):
            seconds = time.monotonic() - step.started if step.state == "running" else step.seconds
            took = "CACHED" if step.state == "cached" else f"{seconds:.1f} s"
            lines = step.lines() if step.state == "failed" else step.lines()[-_TAIL:] if step.state == "running" else []
            found.append((step, f"[{one_line(step.stage) + ' ' if step.stage else ''}{step.index}/{step.total}]", took, lines))
        return found

    def _plain(self) -> str:
        parts = []
        for step, place, took, lines in self._rows():
            parts.append(f"{_ICONS[step.state]} {place} {one_line(step.text)}  {took}")
            parts += [f"    {line}" for line in lines]
        parts += self._plain_transfers()
        parts += [f"△ {one_line(note)}" for note in self.notes]
        parts += [one_line(self.moved)] if self.moved and not self.done else []
        return "\n".join([*parts, one_line(self.done)] if self.done else parts) or "build starts"

    def _plain_transfers(self) -> list[str]:
        now, rows = time.monotonic(), self.transfers.rows.values()
        width = max((len(one_line(row.item)) for row in rows), default=0)
        parts = []
        for row in rows:
            drawn = f"  {bar(row.fraction)}" if not row.over and row.fraction is not None else ""
            parts.append(f"{row.icon} {one_line(row.item):<{width}}{drawn}  {row.text(now)}")
        total = self.transfers.summary(now)
        return [*parts, f"  {total}"] if total else parts

    def _html(self) -> str:
        parts = []
        for step, place, took, lines in self._rows():
            sign = html.colored(_ICONS[step.state], _COLORS[step.state])
            label = f'<span style="font-family:var(--jp-code-font-family, monospace)">{html.text(step.text)}</span>'
            parts.append(f"<div>{sign} {html.muted(place)} {label} {html.muted(took)}</div>")
            if lines:
                parts.append(
                    html.block("\n".join(lines), f"border-left:3px solid {_COLORS[step.state]};margin-left:.4em;padding-left:.8em")
                )
        parts.append(self._transfer_table())
        parts += [f"<div>{html.colored('△ ' + one_line(note), html.WARN)}</div>" for note in self.notes]
        if self.moved and not self.done:
            parts.append(f"<div>{html.muted(one_line(self.moved))}</div>")
        if self.done:
            parts.append(f"<div><b>{html.text(self.done)}</b></div>")
        label = "transfer" if self.transfers.rows and not self.steps else "build"
        return f'<div role="log" aria-label="{label}">{"".join(parts) or "build starts"}</div>'

    def _transfer_table(self) -> str:
        """An item a row: icon, name, bar, and in words what the bar shows."""
        if not self.transfers.rows:
            return ""
        now = time.monotonic()
        rows = "".join(
            f'<tr><td style="{_CELL}">{html.colored(row.icon, _color(row))}</td><td style="{_CELL}">{html.mono(row.item)}</td>'
            f'<td style="{_CELL}">{_bar(row)}</td><td style="{_CELL}">{html.muted(row.text(now))}</td></tr>'
            for row in self.transfers.rows.values()
        )
        total = self.transfers.summary(now)
        below = f"<div>{html.muted(total)}</div>" if total else ""
        return f'<table role="presentation" style="border-collapse:collapse;background:transparent;font-size:inherit">{rows}</table>{below}'


_CELL = "text-align:left;padding:.1em .75em .1em 0;border:0;background:transparent;white-space:nowrap"


def _color(row: Row) -> str:
    return html.BAD if row.phase == "failed" else html.GOOD if row.phase == "done" else html.MUTED if row.over else html.LINK


def _bar(row: Row) -> str:
    """A bar of a fixed width; one that nobody knows the length of is an empty one. What is over needs none."""
    if row.over:
        return ""
    fraction = row.fraction
    known = f' aria-valuenow="{round(fraction * 100)}"' if fraction is not None else ""
    full = f"{(fraction or 0.0) * 100:.1f}%"
    inner = f'<div style="width:{full};height:100%;background:{html.LINK}"></div>'
    frame = f"width:14em;height:.7em;border:1px solid {html.BORDER};border-radius:.2em;overflow:hidden"
    label = html.attribute(f"{row.item} {row.phase}")
    return f'<div role="progressbar" aria-label="{label}" aria-valuemin="0" aria-valuemax="100"{known} style="{frame}">{inner}</div>'


class _Ticker:
    """Redraws while something runs, so that a silent step is seen to take its time, and quick events are drawn together."""

    def __init__(self, view: BuildView, handle: Any) -> None:
        self._view, self._handle = view, handle
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pycontainers-progress", daemon=True)
        self._shown = ""

    def __enter__(self) -> _Ticker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._draw()

    def _run(self) -> None:
        while not self._end.wait(_PERIOD):
            self._draw()

    def _draw(self) -> None:
        bundle = self._view.bundle()
        if bundle["text/plain"] != self._shown:
            self._shown = bundle["text/plain"]
            self._handle.update(bundle, raw=True)


def show(work: Work[T], word: str = "built") -> T:
    """Draw ``work`` in the running cell; return its result. The last state is the one that stays in the notebook."""
    from IPython import display as ipython

    try:
        first = next(work)
    except StopIteration as stop:
        return cast(T, stop.value)  # over before there was anything to show
    view, display = BuildView(word), cast(Any, ipython.display)
    view.handle(first)
    handle = display(view.bundle(), raw=True, display_id=True)
    with _Ticker(view, handle), contextlib.closing(work):
        try:
            while True:
                view.handle(next(work))
        except StopIteration as stop:
            result: T = stop.value
            return result
        except BaseException:
            view.failed()
            raise
