"""The live figure of one container or several: what is new goes to the page as numbers once a second, and the page draws it.

What a page gets that asks anew (a reload, a second view) is read from the record at that moment (``get_state``); in between there
are only messages with the rows that came. So an hour's view costs the kernel as much as a minute's, and so does each second.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from copy import copy
from functools import cache
from itertools import pairwise
from typing import Any

from ...errors import NotFound
from ...metrics.series import to_columns
from ...text import one_line
from ...usage import Figure, Stats, StatsTable, events
from ...wording import status_text
from ..svg import COLORS
from .base import page_widget, source, widget_view

#: What one row of points holds behind its time, in this order; ``stats.js`` has the same list.
COLUMNS = (
    ("cpu_percent", 1.0),
    ("throttled_ms_per_s", 0.1),  # 1000 ms a second is one task held back all the time: 100 %
    ("memory", 1.0),
    ("memory_cache", 1.0),
    ("net_rx_per_s", 1.0),
    ("net_tx_per_s", 1.0),
    ("block_read_per_s", 1.0),
    ("block_write_per_s", 1.0),
    ("pids", 1.0),
    *[(f"pressure_{name}_{kind}_percent", 1.0) for name in ("cpu", "memory", "io") for kind in ("some", "full")],
)
_NO_RATE = float("nan")  # the first sample has none before it to be measured against
_ROWS, _ALL_ROWS = 600, 6000
"""Points of one container and of all that a page is given at once; it keeps some more (``stats.js``)."""
Row = tuple[float, list[float]]


def rows(samples: Sequence[Any], origin: float, before: Any = None) -> list[Row]:
    """(seconds since ``origin``, values of :data:`COLUMNS`) of each sample. ``before``: the sample that came before them."""
    whole = [before, *samples] if before is not None else list(samples)
    columns = to_columns(whole)
    skipped = len(whole) - len(samples)
    found = []
    for index in range(skipped, len(whole)):
        values = [
            _NO_RATE if index == 0 and name.endswith(("_percent", "_per_s")) else columns[name][index] * factor
            for name, factor in COLUMNS
        ]
        found.append((whole[index].time - origin, values))
    return found


def thinned(found: list[Row], most: int) -> list[Row]:
    """At most ``most`` rows: of each stretch its last time and of each column the highest value, so that no peak is lost."""
    if len(found) <= most:
        return found
    edges = [round(index * len(found) / most) for index in range(most + 1)]
    stretches = [found[low:high] for low, high in pairwise(edges)]
    return [(stretch[-1][0], [_highest(column) for column in zip(*[row for _, row in stretch], strict=True)]) for stretch in stretches]


def _highest(values: Sequence[float]) -> float:
    return max([value for value in values if value == value], default=_NO_RATE)


def packed(of_each: Sequence[list[Row]]) -> bytes:
    """For each container: count (u32), then times (f64), then each column (f32); little-endian."""
    parts = []
    for found in of_each:
        count = len(found)
        parts.append(struct.pack(f"<I{count}d", count, *[time for time, _ in found]))
        for column in zip(*[values for _, values in found], strict=True):
            parts.append(struct.pack(f"<{count}f", *column))
    return b"".join(parts)


def described(figure: Figure) -> list[dict[str, Any]]:
    """The panels without their points: what each is called, measures, and may be at most."""
    return [{"title": panel.title, "unit": panel.unit, "limit": panel.limit, "note": panel.note} for panel in figure.panels()]


def marked(figure: Figure) -> list[dict[str, Any]]:
    return [
        {"time": mark.time, "text": one_line(mark.text), "kind": mark.kind, "sign": mark.sign, "name": mark.name} for mark in figure.marks()
    ]


class Begin:
    """The figure's left edge, unix seconds: the first sample of all, or of whichever container is sampled first; 0.0 until then."""

    def __init__(self, time: float) -> None:
        self.time = time

    def of(self, samples: Sequence[Any]) -> float:
        if samples and not self.time:
            self.time = float(samples[0].time)
        return self.time


class Follower:
    """What the page has seen of one container: nothing of the past is kept but the last sample."""

    def __init__(self, course: Stats, begin: Begin) -> None:
        self.course, self.begin = course, begin
        self.last = course.samples[-1] if course.samples else None
        self.gone = False
        self._told = self._state()
        self.changed = False

    def _state(self) -> tuple[Any, ...]:
        """What, when it changes, may have put an event into the journal, or moved a limit."""
        info, last = self.course.info, self.last
        limits = (last.memory_limit, last.pids_limit, last.oom_kills, last.pressure) if last is not None else None
        return (info.status, info.health, info.restarts, info.started, info.exit, info.resources, limits)

    def news(self) -> list[Row]:
        """The rows since the last call. ``changed``: something else has, too."""
        self.changed = False
        if self.gone:
            return []
        engine = self.course.engine
        try:
            self.course.info = engine.find(self.course.info.id)
            new = list(engine.samples(self.course.info.id, self.last.time if self.last is not None else None))
        except NotFound:
            self.gone = self.changed = True
            return []
        found = rows(new, self.begin.of(new), self.last) if new else []
        self.last = new[-1] if new else self.last
        now = self._state()
        self.changed, self._told = now != self._told, now
        return found

    def word(self) -> str:
        return "removed" if self.gone else status_text(self.course.info)

    def whole(self, most: int) -> list[Row]:
        """All rows that are on record, thinned. What was removed has none any more."""
        if self.gone:
            return []
        try:
            samples = list(self.course.engine.samples(self.course.info.id))
        except NotFound:
            return []
        if self.course.seconds is not None and samples:
            samples = [sample for sample in samples if sample.time >= samples[-1].time - self.course.seconds]
        return thinned(rows(samples, self.begin.of(samples)), most)


@cache
def _widget_class() -> Any:
    import ipywidgets
    import traitlets

    class LiveFigure(page_widget()):  # type: ignore[misc]  # made with the first widget
        """``state``: live, ended, removed, or why it stopped. ``courses``: name and state of each container."""

        _esm = source("stats_data.js", "stats.js")
        _css = source("stats.css")
        plotly = traitlets.Instance(ipywidgets.Widget).tag(sync=True, **ipywidgets.widget_serialization)
        title = traitlets.Unicode().tag(sync=True)
        state = traitlets.Unicode("live").tag(sync=True)
        courses: Any = traitlets.List().tag(sync=True)
        panels: Any = traitlets.List().tag(sync=True)
        marks: Any = traitlets.List().tag(sync=True)
        colors: Any = traitlets.List().tag(sync=True)
        points = traitlets.Bytes().tag(sync=True)

        def __init__(self, view: LiveStats, **traits: Any) -> None:
            self._view = view
            super().__init__(**traits)

        def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
            if key is None:
                # Without notification: nothing has changed for the pages that follow along.
                self._trait_values["points"] = self._view.whole()
            return super().get_state(key, drop_defaults)

        def answer(self, message: dict[str, Any], buffers: Any) -> None:
            """A page that has missed something asks for all: it comes as what is new would."""
            if message["kind"] == "all":
                self.send({"kind": "all"}, [self._view.whole()])

    return LiveFigure


class LiveStats:
    """``widget`` is what the page shows. A page pauses and zooms by itself: a busy cell holds up neither."""

    def __init__(self, figure: Stats | StatsTable) -> None:
        from .plotlyjs import asset

        own = [copy(stats) for stats in ([figure] if isinstance(figure, Stats) else figure)]
        self.figure: Stats | StatsTable = StatsTable(own) if len(own) > 1 else own[0]
        begin = Begin(figure.origin)
        self._followers = [Follower(stats, begin) for stats in own]
        self._lock = threading.Lock()
        self.output: Any = None  # where it is shown, whose static form is renewed at the end
        self.sent = 0  # bytes of points, for whoever measures
        self.widget = _widget_class()(
            self,
            plotly=asset(),
            title=figure.title if len(figure.courses) > 1 else "",
            courses=self._courses(),
            panels=described(figure),
            marks=marked(figure),
            colors=list(COLORS),
        )
        self._forget()

    def _forget(self) -> None:
        """Thousands of samples need not lie here for as long as the page is open: they are on disk."""
        for follower in self._followers:
            follower.course.samples = follower.course.samples[:1] + follower.course.samples[1:][-1:]

    def _courses(self) -> list[dict[str, Any]]:
        return [{"name": follower.course.name, "word": follower.word()} for follower in self._followers]

    def whole(self) -> bytes:
        """All points, thinned to what a page draws."""
        most = max(60, min(_ROWS, _ALL_ROWS // max(1, len(self._followers))))
        with self._lock:
            return packed([follower.whole(most) for follower in self._followers])

    def tick(self) -> bool:
        """Called once a second by the sampler. False: there is nothing more to come."""
        if self.widget.comm is None:
            return False  # closed from Python, or with its page
        with self._lock:
            news = [follower.news() for follower in self._followers]
            if any(news):
                data = packed(news)
                self.sent += len(data)
                self.widget.send({"kind": "points"}, [data])
        with self.widget.hold_sync():
            if any(follower.changed for follower in self._followers):
                self._look_again()
            self.widget.courses = self._courses()  # sent when it differs
            running = any(follower.course.is_running and not follower.gone for follower in self._followers)
            if not running:
                self.widget.state = "removed" if all(follower.gone for follower in self._followers) else "ended"
        if not running and self.output is not None:
            self._settle()
        return running

    def _settle(self) -> None:
        """The static form shows the end. What was removed has no record any more: then the form of the beginning says more."""
        if any(follower.gone for follower in self._followers):
            return
        try:
            self.output.update(self.forms(), raw=True)
        except NotFound:
            return

    def forms(self) -> dict[str, Any]:
        """All forms as they are now: what a notebook keeps that is saved after the end shows the end."""
        from .. import svg

        for follower in self._followers:
            follower.course.reload()
        found = {"text/plain": self.figure.summary(), "image/svg+xml": svg.draw(self.figure), **widget_view(self.widget)}
        self._forget()
        return found

    def _look_again(self) -> None:
        """Limits, events: read anew where something has happened, which is seldom."""
        left = [follower for follower in self._followers if not follower.gone]
        happened = events(left[0].course.engine, [follower.course.info for follower in left]) if left else {}
        for follower in left:
            follower.course.happened = happened[follower.course.info.id]
            try:
                follower.course.samples = list(follower.course.engine.samples(follower.course.info.id))
            except NotFound:  # it went this moment
                follower.gone = True
        self.widget.panels, self.widget.marks = described(self.figure), marked(self.figure)
        self._forget()

    def release(self, reason: str) -> None:
        if self.widget.comm is not None:
            self.widget.state = reason


def show(figure: Stats | StatsTable) -> None:
    """An output of the running cell with all forms of the figure, kept current from now on."""
    from IPython.display import display

    from ..sampler import sampler

    view = LiveStats(figure)
    view.output = display(view.forms(), raw=True, display_id=True)  # type: ignore[no-untyped-call,unused-ignore]
    sampler().add(view)


def live_view(figure: Stats | StatsTable) -> dict[str, Any]:
    """The widget part of a display bundle; the view is kept current from now on."""
    from ..sampler import sampler

    view = LiveStats(figure)
    sampler().add(view)
    return widget_view(view.widget)
