"""How far a transfer is, item by item: the state that the notebook, a terminal and plain lines all draw. Plain text only."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from .events import Transfer
from .metrics.series import format_bytes, format_rate
from .text import one_line, span

_WINDOW = 5.0  # seconds over which a rate is taken: a mean of all the time would not show that it has stopped
_WIDTH = 24
#: phases in which nothing moves any more -> what is said of them
ENDED = {"done": "", "exists": "is here already", "mounted": "was there in another repository", "failed": "not finished"}
ICONS = {"waiting": "○", "downloading": "↓", "uploading": "↑", "done": "✓", "exists": "✓", "mounted": "✓", "failed": "✗"}


@dataclass
class Row:
    """One item. ``since``: when its phase began; ``began``: when it was first heard of (monotonic seconds)."""

    item: str
    phase: str
    done: int
    total: int
    unit: str
    began: float
    since: float
    ended: float = 0.0
    moved: int = 0  # the most that was ever said of it: a phase that ends says no number
    marks: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def over(self) -> bool:
        return self.phase in ENDED

    @property
    def icon(self) -> str:
        return ICONS.get(self.phase, "▶")

    @property
    def fraction(self) -> float | None:
        """How much of this phase is done, 0 to 1; None where nobody knows."""
        if self.over:
            return 1.0 if self.phase != "failed" else None
        return min(1.0, self.done / self.total) if self.total else None

    def rate(self, now: float) -> float:
        """Of this phase, in its unit a second; 0.0 where it stands still or has only begun."""
        while len(self.marks) > 1 and now - self.marks[0][0] > _WINDOW:
            self.marks.popleft()
        seconds = now - self.marks[0][0] if self.marks else 0.0
        return max(0.0, (self.done - self.marks[0][1]) / seconds) if seconds >= 0.2 else 0.0

    def amount(self, value: int) -> str:
        return format_bytes(value) if self.unit == "bytes" else str(value)

    def text(self, now: float) -> str:
        """``downloading 12.0 MiB / 29.1 MiB · 3.2 MiB/s · 5 seconds left``; at the end ``29.1 MiB in 3.2 s``."""
        if self.over:
            return self._end()
        if not self.done and not self.total:
            return self.phase
        total = f" / {self.amount(self.total)}" if self.total else ""
        parts = [f"{self.phase} {self.amount(self.done)}{total}{'' if self.unit == 'bytes' else ' ' + self.unit}"]
        rate = self.rate(now)
        if rate and self.unit == "bytes":
            parts.append(format_rate(rate))
        if rate and self.total > self.done:
            parts.append(f"{span(max(1.0, (self.total - self.done) / rate))} left")
        return " · ".join(parts)

    def _end(self) -> str:
        word = ENDED[self.phase]
        if word:
            return word
        seconds = self.ended - self.began
        parts = [f"{self.amount(self.moved)}{'' if self.unit == 'bytes' else ' ' + self.unit}"] if self.moved else []
        parts += [f"{seconds:.1f} s"] if seconds >= 0.05 or not parts else []
        return " in ".join(parts)


class Transfers:
    """All items, in the order in which they were first heard of."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def handle(self, event: Transfer, now: float | None = None) -> bool:
        """Take an event in. Whether an item is new or in another phase now."""
        now = time.monotonic() if now is None else now
        row = self.rows.get(event.item)
        changed = row is None or row.phase != event.phase
        if row is None:
            row = self.rows[event.item] = Row(event.item, event.phase, event.done, event.total, event.unit, now, now)
        elif changed:
            row.since = now
            row.marks.clear()
        row.phase, row.done, row.total, row.unit = event.phase, event.done, event.total, event.unit
        row.moved = max(row.moved, event.done, event.total if event.phase == "done" else 0)
        if row.over:
            row.ended = now
        elif not row.marks or now - row.marks[-1][0] >= 0.1:
            row.marks.append((now, event.done))
        return changed

    def failed(self) -> None:
        """What had not ended when the work broke off did not end."""
        for row in self.rows.values():
            if not row.over:
                row.phase = "failed"

    def summary(self, now: float | None = None) -> str:
        """All bytes that are on their way: ``41.0 MiB / 128.0 MiB · 12.1 MiB/s · 7 seconds left``; "" where nothing is."""
        now = time.monotonic() if now is None else now
        moving = [row for row in self.rows.values() if row.phase in ("downloading", "uploading") and row.total and row.unit == "bytes"]
        if len(moving) < 2:
            return ""
        done, total, rate = sum(row.done for row in moving), sum(row.total for row in moving), sum(row.rate(now) for row in moving)
        left = f" · {format_rate(rate)} · {span(max(1.0, (total - done) / rate))} left" if rate and total > done else ""
        return f"{format_bytes(done)} / {format_bytes(total)}{left}"


def bar(fraction: float | None, width: int = _WIDTH) -> str:
    """``█████░░░``; spaces where nobody knows."""
    if fraction is None:
        return " " * width
    full = round(fraction * width)
    return "█" * full + "░" * (width - full)


def line(row: Row, now: float, width: int) -> str:
    """A row for a terminal: icon, item, bar, text."""
    drawn = f" {bar(row.fraction)}" if not row.over and row.fraction is not None else ""
    return f"{row.icon} {one_line(row.item):<12}{drawn}  {row.text(now)}"[: max(20, width)]
