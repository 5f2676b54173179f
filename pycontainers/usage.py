"""What containers used: recorded samples (``metrics.sample.Sample``) with what happened, of one container or of several together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import panels as charts
from .errors import NotFound
from .metrics.series import format_bytes
from .panels import Mark, Panel, Series, even, sparkline
from .protocol import ContainerInfo, Engine, Resources
from .text import one_line, span, table
from .wording import status_text

__all__ = ["Course", "Figure", "Mark", "Panel", "Series", "Stats", "StatsTable", "even", "sparkline"]
_MAIN = ("used", "processes")
_NO_NETWORK = {"none": "the container has no network", "host": "not counted: the container shares this machine's network"}


class Figure:
    """Anything that is drawn as one figure: its courses, and how they lie over one another.

    ``form``: ``live``, ``static`` (picture and text) or ``table`` (text alone). ``aligned``: each course begins at 0; else by the clock.
    """

    form = "live"
    aligned = False

    @property
    def courses(self) -> Sequence[Course]:
        raise NotImplementedError

    @property
    def title(self) -> str:
        raise NotImplementedError

    def summary(self) -> str:
        """The figure as text."""
        raise NotImplementedError

    @property
    def origin(self) -> float:
        """Unix seconds of the figure's left edge: the first sample of all; 0.0 where nothing was recorded."""
        return min([course.begun for course in self.courses if course.samples], default=0.0)

    def later(self, course: Course) -> float:
        """By how many seconds the course begins later than the figure."""
        return 0.0 if self.aligned or not course.samples else course.begun - self.origin

    def panels(self) -> list[Panel]:
        """CPU, memory, network, block I/O, processes and pressure, always in this order, empty where nothing was recorded."""
        courses = self.courses
        if not courses:
            return []
        if len(courses) == 1:
            return courses[0].panels()
        return charts.together([(course.name, self.later(course), course.panels()) for course in courses])

    def marks(self) -> list[Mark]:
        courses = self.courses
        if len(courses) == 1:
            return courses[0].marks()
        found = [
            Mark(mark.time + self.later(course), mark.text, mark.kind, course.name) for course in courses for mark in course.marks()
        ]
        return sorted(found, key=lambda mark: mark.time)

    @property
    def duration(self) -> float:
        """Seconds from the figure's left edge to its last sample."""
        return max([self.later(course) + course.duration for course in self.courses], default=0.0)

    def __repr__(self) -> str:
        return self.summary()


@dataclass(repr=False)
class Course(Figure):
    """One container's use over time. ``happened``: its events in the form of the journal."""

    info: ContainerInfo
    samples: list[Any]
    happened: list[dict[str, Any]] = field(default_factory=list)

    @property
    def courses(self) -> Sequence[Course]:
        return [self]

    @property
    def resources(self) -> Resources:
        return self.info.resources

    @property
    def name(self) -> str:
        return one_line(self.info.name)

    @property
    def is_running(self) -> bool:
        """Whether more is to come."""
        return self.info.status in ("starting", "running", "paused", "restarting")

    @property
    def begun(self) -> float:
        """Unix seconds of the first sample, 0.0 without any."""
        return float(self.samples[0].time) if self.samples else 0.0

    def panels(self) -> list[Panel]:
        found = charts.panels(self.samples, self.info.resources)
        none = _NO_NETWORK.get(self.info.network)
        return [replace(panel, series=(), note=none) if none and panel.title == "Network" else panel for panel in found]

    def marks(self) -> list[Mark]:
        return charts.marks(self.samples, self.info, self.happened)

    @property
    def duration(self) -> float:
        """Seconds between the first and the last sample."""
        return float(self.samples[-1].time - self.samples[0].time) if len(self.samples) > 1 else 0.0

    @property
    def title(self) -> str:
        return f"{self.name}: {status_text(self.info)}"

    def summary(self) -> str:
        """A table: last, mean (over time) and peak of each series with its limit and a sparkline, then what happened."""
        rows, notes = [], []
        for panel in self.panels():
            if panel.note:
                notes.append(f"{panel.title}: {panel.note}")
            for series in panel.series:
                limit = panel.text(panel.limit) if panel.limit is not None and not series.aside else ""
                name = panel.title if series.name in _MAIN else f"{panel.title} {series.name}"
                values = [panel.text(value) for value in (series.last, series.average, series.peak)] if series.values else ["-", "-", "-"]
                rows.append((name, *values, limit, sparkline(series)))
        lines = [self.title + (f", {len(self.samples)} samples over {span(self.duration)}" if self.samples else ", nothing recorded yet")]
        lines.append(table(("METRIC", "LAST", "MEAN", "PEAK", "LIMIT", "COURSE"), rows))
        lines += notes
        lines += [f"{mark.text} at {mark.time:.1f} s" for mark in self.marks()]
        return "\n".join(lines)

    def row(self) -> tuple[str, ...]:
        """One line of ``docker stats``."""
        cpu, memory, _, _, processes, _ = self.panels()
        limit = memory.text(memory.limit) if memory.limit is not None else "-"
        last = self.samples[-1] if self.samples else None
        received, sent = (format_bytes(last.net_rx), format_bytes(last.net_tx)) if last else ("-", "-")
        read, written = (format_bytes(last.block_read), format_bytes(last.block_write)) if last else ("-", "-")
        return (
            self.info.name,
            self.info.status,
            cpu.text(cpu.series[0].last),
            f"{memory.text(memory.series[0].last)} / {limit}",
            f"{received} / {sent}",
            f"{read} / {written}",
            processes.text(processes.series[0].last),
        )


class Stats(Course):
    """What one container used over its life, as far as the record reaches; also after it has ended.

    :param container: its name or id.
    :param form: how it wants to be shown: ``live``, ``static`` (picture and text) or ``table`` (text alone).
    :param seconds: only the last so many seconds; None for all.
    """

    def __init__(self, engine: Engine, container: str, form: str = "live", seconds: float | None = None) -> None:
        self.engine, self.container, self.form, self.seconds = engine, container, form, seconds
        self.reload()

    def reload(self) -> Stats:
        """Read samples, state and events anew. :raises NotFound: it was removed."""
        self.info = self.engine.find(self.container)
        samples = list(self.engine.samples(self.info.id))
        if self.seconds is not None and samples:
            samples = [sample for sample in samples if sample.time >= samples[-1].time - self.seconds]
        self.samples = samples
        self.happened = events(self.engine, [self.info])[self.info.id]
        return self


def events(engine: Engine, infos: Iterable[ContainerInfo]) -> dict[str, list[dict[str, Any]]]:
    """id -> what happened to each of these containers, oldest first, in one pass over the journal."""
    found: dict[str, list[dict[str, Any]]] = {info.id: [] for info in infos}
    since = min([info.created for info in infos], default=0.0)
    for event in engine.events(since):
        mine = found.get(str((event.get("Actor") or {}).get("ID", "")))
        if mine is not None:
            mine.append(event)
    return found


class StatsTable(list[Stats], Figure):
    """Several containers at a glance, as ``docker stats`` shows them, and as one figure with a colour for each."""

    headers = ("NAME", "STATUS", "CPU %", "MEMORY / LIMIT", "NETWORK IN / OUT", "BLOCK READ / WRITTEN", "PROCESSES")

    def __init__(self, found: Iterable[Stats] = (), form: str = "live") -> None:
        super().__init__(found)
        self.form = form

    @property
    def courses(self) -> Sequence[Course]:
        return self

    @property
    def title(self) -> str:
        return self[0].title if len(self) == 1 else f"{len(self)} containers"

    def reload(self) -> StatsTable:
        """Read all anew; those that were removed meanwhile keep what was known of them."""
        for stats in self:
            try:
                stats.reload()
            except NotFound:
                continue
        return self

    def rows(self) -> list[tuple[str, ...]]:
        return [stats.row() for stats in self]

    def summary(self) -> str:
        return table(self.headers, self.rows())

    def __repr__(self) -> str:
        return self.summary()
