"""A build, or a transfer, as one display that is updated in place: a line per step, the last output of what runs, all of what failed.

What is drawn stays small however long a build is (see :mod:`pycontainers.building`): ten times a second it goes to the page.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, TypeVar, cast

from ..building import STATES, Group, Step, Steps
from ..events import Done, Event, Note, Progress, Transfer, Work
from ..metrics.series import format_bytes
from ..text import one_line
from ..transfers import Row, Transfers, bar
from . import html

T = TypeVar("T")
_TAIL = 5
_WIDTH = 200  # characters of a running step's line, and of an instruction
_NOTES = 30
_FOLDED = 200  # steps that can be unfolded when all is over
_PERIOD = 0.1
_LARGE = 32_000  # characters: what is larger is drawn less often
_COLORS = {"running": html.LINK, "done": html.GOOD, "cached": html.MUTED, "failed": html.BAD, "cancelled": html.WARN}
_ROW = "display:flex;gap:.6em;align-items:baseline"
_LABEL = "flex:1;min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;font-family:var(--jp-code-font-family, monospace)"


class BuildView:
    """The state of a build or a transfer as it is drawn. ``handle`` takes events, ``failed`` marks what was running as ended.

    :param word: what is said of the result at the end: ``built NAME in 1.20 s``.
    """

    def __init__(self, word: str = "built") -> None:
        self.word = word
        self.transfers = Transfers()
        self.steps = Steps()
        self.notes: dict[str, int] = {}
        self.done = ""
        self.moved = ""
        self.over = False
        self.lock = threading.Lock()
        self._drawn: dict[int, tuple[str, str]] = {}
        self._folded = 0

    def handle(self, event: Event) -> None:
        with self.lock:
            if self.steps.handle(event, time.monotonic()):
                return
            if isinstance(event, Note):
                self.notes[event.text] = self.notes.get(event.text, 0) + 1
            elif isinstance(event, Progress):
                self.moved = f"{event.text}: {format_bytes(event.done)}"
            elif isinstance(event, Transfer):
                self.transfers.handle(event)
            elif isinstance(event, Done):
                result = self.steps.result()
                self.done = f"{self.word} {event.name} in {event.seconds:.2f} s" + (f" · {result}" if result else "")
                self.over = True

    def failed(self, interrupted: bool = False) -> None:
        with self.lock:
            self.over = True
            self.transfers.failed()
            self.steps.broken_off(time.monotonic(), interrupted)

    def bundle(self) -> dict[str, str]:
        with self.lock:
            now = time.monotonic()
            return {"text/plain": self._plain(now), "text/html": self._html(now)}

    def plain(self) -> str:
        with self.lock:
            return self._plain(time.monotonic())

    def html(self) -> str:
        with self.lock:
            return self._html(time.monotonic())

    def _output(self, step: Step) -> list[str]:
        if step.state == "failed":
            return step.tail.all()
        return [line[:_WIDTH] for line in step.tail.last(_TAIL)] if step.state == "running" else []

    def _status(self, now: float) -> str:
        """The last line: how it ended, or how far it is."""
        if self.done or self.over or not self.steps.rows:
            return self.done
        return self.steps.summary(now)

    def _told(self) -> list[str]:
        notes = [one_line(note) + (f" ({count} times)" if count > 1 else "") for note, count in list(self.notes.items())[:_NOTES]]
        return [*notes, *([f"{len(self.notes) - _NOTES} more notes"] if len(self.notes) > _NOTES else [])]

    def _plain(self, now: float) -> str:
        parts = []
        for item in self.steps.shown(self.over):
            if isinstance(item, Group):
                parts.append(f"  … {item}")
                continue
            parts.append(f"{STATES[item.state]} {item.place} {item.label[:_WIDTH]}  {item.took(now)}")
            parts += [f"    ↳ {reason}" for reason in item.why]
            parts += [f"    {line}" for line in self._output(item)]
        parts += self._plain_transfers()
        parts += [f"△ {note}" for note in self._told()]
        parts += [one_line(self.moved)] if self.moved and not self.over else []
        status = one_line(self._status(now))
        return "\n".join([*parts, status] if status else parts) or "build starts"

    def _plain_transfers(self) -> list[str]:
        now, rows = time.monotonic(), self.transfers.rows.values()
        width = max((len(one_line(row.item)) for row in rows), default=0)
        parts = []
        for row in rows:
            drawn = f"  {bar(row.fraction)}" if not row.over and row.fraction is not None else ""
            parts.append(f"{row.icon} {one_line(row.item):<{width}}{drawn}  {row.text(now)}")
        total = self.transfers.summary(now)
        return [*parts, f"  {total}"] if total else parts

    def _html(self, now: float) -> str:
        parts = []
        self._folded = _FOLDED
        if self.steps.rows:
            rows = [self._item(item, now) for item in self.steps.shown(self.over)]
            # What is longer than a screen scrolls, when it is no longer redrawn.
            scroll = ";max-height:45em;overflow:auto" if self.over and len(rows) > 40 else ""
            focus = ' tabindex="0"' if scroll else ""
            parts.append(f'<div role="list" aria-label="steps"{focus} style="max-width:100%{scroll}">{"".join(rows)}</div>')
        parts.append(self._transfer_table())
        parts += [f"<div>{html.colored('△', html.WARN)} {html.text(note)}</div>" for note in self._told()]
        if self.moved and not self.over:
            parts.append(f"<div>{html.muted(one_line(self.moved))}</div>")
        if status := self._status(now):
            parts.append(f"<div><b>{html.text(status)}</b></div>" if self.done else f"<div>{html.muted(status)}</div>")
        label = "transfer" if self.transfers.rows and not self.steps.rows else "build"
        # Read out when it is over: what changes ten times a second would never be read to its end.
        live = 'aria-live="polite"' if self.over else 'aria-live="off" aria-busy="true"'
        return f'<div role="log" aria-label="{label}" {live}>{"".join(parts) or "build starts"}</div>'

    def _item(self, item: Step | Group, now: float) -> str:
        if isinstance(item, Step):
            return self._step(item, now)
        if not self.over:
            return f'<div role="listitem">{html.muted(f"… {item}")}</div>'
        inside = "".join(self._step(step, now) for step in item.steps[: self._folded])
        if len(item.steps) > self._folded:
            inside += f'<div role="listitem">{html.muted(f"… {len(item.steps) - self._folded} more")}</div>'
        self._folded = max(0, self._folded - len(item.steps))
        return (
            f'<details role="listitem"><summary style="color:{html.MUTED}">{html.text(item)}</summary>'
            f'<div role="list" style="padding-left:1em">{inside}</div></details>'
        )

    def _step(self, step: Step, now: float) -> str:
        """A row, and below it why it ran and what it said. Of what is over it is made once."""
        known = self._drawn.get(step.index)
        if known is not None and known[0] == step.state != "running":
            return known[1]
        icon = f'<span role="img" aria-label="{step.state}" style="color:{_COLORS[step.state]}">{STATES[step.state]}</span>'
        full = html.attribute(step.label[: 2 * _WIDTH])
        label = f'<span style="{_LABEL}" title="{full}">{html.text(step.label[:_WIDTH])}</span>'
        color = _COLORS[step.state] if step.state in ("failed", "cancelled") else html.MUTED
        time_taken = f'<span style="color:{color};white-space:nowrap;font-variant-numeric:tabular-nums">{html.text(step.took(now))}</span>'
        place = f'<span style="color:{html.MUTED};white-space:nowrap">{html.text(step.place)}</span>'
        parts = [f'<div style="{_ROW}">{icon}{place}{label}{time_taken}</div>']
        parts += [f'<div style="padding-left:2.2em">{html.muted(f"↳ {reason}")}</div>' for reason in step.why]
        if lines := self._output(step):
            parts.append(_output_block(step, "\n".join(lines)))
        drawn = f'<div role="listitem">{"".join(parts)}</div>'
        self._drawn[step.index] = (step.state, drawn)
        return drawn

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


def _output_block(step: Step, text: str) -> str:
    """What it said; of a failed step all of it, scrolled to its end (that is what a reversed column does without a script)."""
    inner = html.block(text, f"flex:none;border-left:3px solid {_COLORS[step.state]};margin-left:.4em;padding-left:.8em")
    if step.state != "failed":
        return inner
    label = html.attribute(f"output of step {step.index}")
    style = "display:flex;flex-direction:column-reverse;max-height:30em;overflow:auto"
    return f'<div role="region" aria-label="{label}" tabindex="0" style="{style}">{inner}</div>'


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
        self._shown, self._size = "", 0

    def __enter__(self) -> _Ticker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._draw()

    def _run(self) -> None:
        while not self._end.wait(_PERIOD if self._size < _LARGE else 3 * _PERIOD):
            self._draw()

    def _draw(self) -> None:
        shown = self._view.plain()
        if shown != self._shown:
            self._shown = shown
            page = self._view.html()
            self._size = len(page)
            self._handle.update({"text/plain": shown, "text/html": page}, raw=True)


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
        except BaseException as error:
            view.failed(not isinstance(error, Exception))
            raise
