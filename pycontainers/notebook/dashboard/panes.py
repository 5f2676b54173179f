"""What the dashboard shows of one container or image: each pane says what is new at each look.

All of it is bounded: a log of gigabytes, a process with a megabyte of arguments, a label that is a book reach the page in part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ...errors import StateError
from ...metrics.series import format_bytes
from ...protocol import Engine, Watch
from ...text import ago, clean
from ...usage import Stats, even
from .rows import cut

_LINE = 4000  # characters of one line of a log
_POINTS = 120  # of one line of a chart
_PROCESSES = 300
_TEXTS, _DEEP, _ITEMS = 2000, 8, 200  # of a document: characters of a text, levels, entries of one level
_DOCUMENT = 5000  # entries of all levels


class Pane:
    """One open pane of one page. ``update`` is asked at each look (some times a second), one call at a time."""

    period = 0.0
    """Seconds between two updates."""
    lasting = ""
    """The name under which it is kept while another pane about the same is open."""

    def __init__(self, engine: Engine, ident: str) -> None:
        self.engine, self.ident = engine, ident
        self._due = 0.0

    def due(self, now: float) -> bool:
        if now < self._due:
            return False
        self._due = now + self.period
        return True

    def update(self, watch: Watch) -> dict[str, Any] | None:
        """What is new; None for nothing. :raises ContainersError: it cannot be shown, and is not asked again."""
        raise NotImplementedError

    def ask(self, watch: Watch, message: dict[str, Any]) -> dict[str, Any] | None:
        """What the page wants beside that."""
        return None

    def again(self) -> None:
        """It is shown (again)."""

    def close(self) -> None:
        """The page has closed it."""


class LogPane(Pane):
    """The last lines, then what comes. Where more comes than anybody can read, the newest is shown, and how much was left out."""

    def __init__(self, engine: Engine, ident: str) -> None:
        super().__init__(engine, ident)
        self._end: int | None = None

    def update(self, watch: Watch) -> dict[str, Any] | None:
        part = watch.log(self.ident, after=self._end)
        first, skipped = self._end is None, 0
        if not first and part.lines and part.end - part.start > 32 << 10:
            newest = watch.log(self.ident)
            if newest.start > part.end:
                skipped, part = newest.start - part.start, newest
        if not first and not part.lines:
            return None
        self._end = part.end
        found: dict[str, Any] = {"lines": [_line(line) for line in part.lines], "start": part.start}
        if skipped:
            found["skipped"] = format_bytes(skipped)
        return found

    def ask(self, watch: Watch, message: dict[str, Any]) -> dict[str, Any]:
        """The lines before those that the page has."""
        part = watch.log(self.ident, before=int(message["start"]))
        return {"earlier": [_line(line) for line in part.lines], "start": part.start}


def _line(line: Any) -> list[Any]:
    text = clean(line.text[: 2 * _LINE])
    return [round(line.time, 3), line.stream == "stderr", text if len(text) <= _LINE else text[:_LINE] + "…"]


class StatsPane(Pane):
    """What it used over its whole life."""

    period = 2.0

    def __init__(self, engine: Engine, ident: str) -> None:
        super().__init__(engine, ident)
        self._over = False

    def update(self, watch: Watch) -> dict[str, Any] | None:
        if self._over:
            return None
        stats = Stats(self.engine, self.ident)
        # What has ended is read once more: its last samples may come after its state.
        self._over = stats.info.status not in ("starting", "running", "restarting", "paused")
        self.period = 2.0 if stats.duration < 600 else 5.0  # the whole record is read: an hour of it takes some milliseconds
        charts = [
            {
                "title": panel.title,
                "limit": panel.text(panel.limit) if panel.limit is not None else "",
                "top": panel.limit,
                "note": cut(panel.note, 300),
                "series": [
                    {
                        "name": series.name,
                        "aside": series.aside,
                        "values": [round(value, 3) for value in even(series, _POINTS)],
                        "texts": [panel.text(value) for value in (series.last, series.average, series.peak)] if series.values else [],
                    }
                    for series in panel.series
                ],
            }
            for panel in stats.panels()
        ]
        marks = [f"{cut(mark.text)} at {mark.time:.1f} s" for mark in stats.marks()[:20]]
        return {"charts": charts, "marks": marks, "seconds": round(stats.duration), "samples": len(stats.samples)}


class ProcessPane(Pane):
    """Its processes, as this machine sees them."""

    period = 2.0

    def __init__(self, engine: Engine, ident: str) -> None:
        super().__init__(engine, ident)
        self._last: Any = None

    def update(self, watch: Watch) -> dict[str, Any] | None:
        try:
            titles, rows = self.engine.top(self.ident)
        except StateError:
            titles, rows = [], []
        now = {"titles": titles, "rows": [[cut(cell, 300) for cell in row] for row in rows[:_PROCESSES]], "left": len(rows[_PROCESSES:])}
        if now == self._last:
            return None
        self._last = now
        return now


class DocumentPane(Pane):
    """Everything about it, as a tree. It is sent again when it has changed."""

    period = 1.0

    def __init__(self, engine: Engine, ident: str, read: Callable[[Engine, str], Any]) -> None:
        super().__init__(engine, ident)
        self._read, self._last = read, None

    def update(self, watch: Watch) -> dict[str, Any] | None:
        found = bounded(self._read(self.engine, self.ident))
        if found == self._last:
            return None
        self._last = found
        return {"document": found}


def container_document(engine: Engine, ident: str) -> dict[str, Any]:
    return {**asdict(engine.find(ident)), "oci": engine.oci(ident)}


def image_document(engine: Engine, ident: str) -> dict[str, Any]:
    return asdict(engine.image(ident))


def bounded(value: Any, deep: int = _DEEP, room: list[int] | None = None) -> Any:
    """``value`` as JSON of bounded size: what is left out is said by an ``…`` in its place."""
    room = [_DOCUMENT] if room is None else room
    room[0] -= 1
    if isinstance(value, str):
        text = clean(value[: 2 * _TEXTS])
        return text if len(text) <= _TEXTS else text[:_TEXTS] + "…"
    if isinstance(value, bool | int | float | None):
        return value
    if not isinstance(value, dict | list | tuple):
        return cut(value)
    if deep == 0 or room[0] <= 0:
        return "…"
    if isinstance(value, dict):
        found = {cut(key, 200): bounded(item, deep - 1, room) for key, item in list(value.items())[:_ITEMS]}
        return {**found, "…": f"{len(value) - _ITEMS} more"} if len(value) > _ITEMS else found
    listed = [bounded(item, deep - 1, room) for item in value[:_ITEMS]]
    return [*listed, f"… {len(value) - _ITEMS} more"] if len(value) > _ITEMS else listed


class StepsPane(Pane):
    """What made an image."""

    def __init__(self, engine: Engine, ident: str) -> None:
        super().__init__(engine, ident)
        self._said = False

    def update(self, watch: Watch) -> dict[str, Any] | None:
        if self._said:
            return None
        self._said = True
        steps = self.engine.image_history(self.ident)
        rows = [[ago(step.created), format_bytes(step.size) if step.size else "", cut(step.created_by, 1000)] for step in steps[:_ITEMS]]
        return {"titles": ["CREATED", "SIZE", "STEP"], "rows": rows, "left": len(steps[_ITEMS:])}


class WidgetPane(Pane):
    """Another widget of ours inside the pane: the page draws it by its model. ``end`` ends it."""

    def __init__(self, engine: Engine, ident: str, name: str, make: Callable[[Engine, str], Any], end: Callable[[Any], None]) -> None:
        super().__init__(engine, ident)
        self.lasting, self._widget, self._end = name, make(engine, ident), end
        self._said = False

    def again(self) -> None:
        self._said = False

    def update(self, watch: Watch) -> dict[str, Any] | None:
        if self._said:
            return None
        self._said = True
        return {"model": self._widget.model_id}

    def close(self) -> None:
        self._end(self._widget)


def _terminal(engine: Engine, ident: str) -> Any:
    from ..widgets.terminal import terminal_view

    return terminal_view(engine, ident)


def _end_terminal(widget: Any) -> None:
    from ..terminals import close_terminal

    close_terminal(widget)


def _explorer(engine: Engine, ident: str) -> Any:
    from ...explored import Explored
    from ..widgets.explore import explorer

    return explorer(Explored(engine.explore(ident)))


#: (tab, name) → how it is made. What makes a widget may take a while, and is made on a worker's thread.
PANES: dict[tuple[str, str], Callable[[Engine, str], Pane]] = {
    ("containers", "logs"): LogPane,
    ("containers", "stats"): StatsPane,
    ("containers", "processes"): ProcessPane,
    ("containers", "inspect"): lambda engine, ident: DocumentPane(engine, ident, container_document),
    ("containers", "terminal"): lambda engine, ident: WidgetPane(engine, ident, "terminal", _terminal, _end_terminal),
    ("images", "explore"): lambda engine, ident: WidgetPane(engine, ident, "explore", _explorer, lambda widget: widget.close()),
    ("images", "history"): StepsPane,
    ("images", "inspect"): lambda engine, ident: DocumentPane(engine, ident, image_document),
}

