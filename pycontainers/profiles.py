"""Runs that were measured: what one used in all, and several over one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from .metrics.series import PRESSURE_KNOWN, format_bytes, format_duration
from .results import RunResult
from .text import one_line, table
from .usage import Course, Figure
from .wording import exit_text

Value = float | None


def wall(course: Course) -> float:
    """Seconds from start to end; of what still runs to its last sample."""
    exit = course.info.exit
    return exit.finished - exit.started if exit is not None and exit.started and exit.finished else course.duration


def _last(field: str, divisor: float = 1.0) -> Callable[[Course], Value]:
    """A counter at the end: it counts from the container's start."""
    return lambda course: getattr(course.samples[-1], field) / divisor if course.samples else None


def _peak(course: Course) -> Value:
    """By the kernel's own mark where it keeps one: samples may miss the highest moment."""
    marked = course.info.exit.memory_peak if course.info.exit is not None else 0
    return max([marked, *[sample.memory for sample in course.samples]]) or None


def _waited(field: str) -> Callable[[Course], Value]:
    counted = _last(field, 1e9)
    return lambda course: counted(course) if course.samples and course.samples[-1].pressure == PRESSURE_KNOWN else None


def _mean_cpu(course: Course) -> Value:
    used, seconds = _last("cpu_usage", 1e9)(course), wall(course)
    return 100 * used / seconds if used is not None and seconds > 0 else None


@dataclass(frozen=True)
class Measure:
    """One figure of a whole run. ``of``: None where it is not known; ``quiet``: not told where it is 0."""

    name: str
    of: Callable[[Course], Value]
    text: Callable[[float], str]
    quiet: bool = False


def _count(value: float) -> str:
    return f"{value:.0f}"


def _percent(value: float) -> str:
    return f"{value:.0f} %"


MEASURES = (
    Measure("wall time", wall, format_duration),
    Measure("CPU time", _last("cpu_usage", 1e9), format_duration),
    Measure("  user", _last("cpu_user", 1e9), format_duration),
    Measure("  system", _last("cpu_system", 1e9), format_duration),
    Measure("CPU, mean", _mean_cpu, _percent),
    Measure("throttled", _last("throttled", 1e9), format_duration, True),
    Measure("peak memory", _peak, format_bytes),
    Measure("peak processes", lambda course: max([sample.pids for sample in course.samples], default=0) or None, _count),
    Measure("read", _last("block_read"), format_bytes),
    Measure("written", _last("block_write"), format_bytes),
    Measure("received", _last("net_rx"), format_bytes, True),
    Measure("sent", _last("net_tx"), format_bytes, True),
    Measure("OOM-killed processes", _last("oom_kills"), _count, True),
    Measure("waited for cpu", _waited("pressure_cpu_some"), format_duration, True),
    Measure("waited for memory", _waited("pressure_memory_some"), format_duration, True),
    Measure("waited for disk", _waited("pressure_io_some"), format_duration, True),
)


def _told(measure: Measure, values: Iterable[Value]) -> bool:
    return any(value is not None and (value or not measure.quiet) for value in values)


@dataclass(repr=False)
class Profile(Course):
    """One run, measured from start to end. ``result``: how it ended, and what it wrote."""

    result: RunResult | None = None
    form: str = field(default="live", kw_only=True)

    headers = ("", "USED", "")

    @property
    def title(self) -> str:
        command = " ".join(self.info.command) or self.info.image
        ended = exit_text(self.info.exit) if self.info.exit is not None else self.info.status
        command = one_line(command)
        return f"{command if len(command) <= 80 else command[:79] + '…'}: {one_line(ended)}"

    def rows(self) -> list[tuple[str, ...]]:
        """(what, how much, beside what limit)."""
        found: list[tuple[str, ...]] = []
        for measure in MEASURES:
            value = measure.of(self)
            if value is not None and _told(measure, [value]):
                found.append((measure.name, measure.text(value), self._beside(measure.name)))
        return found

    def _beside(self, name: str) -> str:
        last = self.samples[-1] if self.samples else None
        cpus, memory = self.info.resources.cpus, self.info.resources.memory
        if name == "CPU, mean":
            return f"of one processor; limit {100 * cpus:.0f} %" if cpus else "of one processor"
        if name == "peak memory" and memory:
            return f"limit {format_bytes(memory)}"
        if name == "throttled" and last is not None and last.periods:
            return f"in {last.throttled_periods} of {last.periods} periods"
        return ""

    def summary(self) -> str:
        return "\n".join([self.title, table(self.headers, self.rows()).partition("\n")[2]])

    def compare(self, *others: Course) -> Comparison:
        """This run and others, each beginning at 0; ratios are to this one."""
        return Comparison([self, *others])


class Comparison(Figure):
    """Runs over one another, each from its own start. Ratios are to the first.

    :param labels: how they are called; else by their containers' names.
    """

    aligned = True

    def __init__(self, runs: Sequence[Course], labels: Sequence[str] = (), form: str = "live") -> None:
        self.form = form
        names = [one_line(label) for label in labels] or [run.name for run in runs]
        self._courses = [
            _named(run, name if name not in names[:place] else f"{name} #{place + 1}")
            for place, (run, name) in enumerate(zip(runs, names, strict=True))
        ]

    @property
    def courses(self) -> Sequence[Course]:
        return self._courses

    @property
    def title(self) -> str:
        return " · ".join(course.name for course in self._courses)

    @property
    def headers(self) -> tuple[str, ...]:
        first, *others = [course.name for course in self._courses]
        return ("", first, *[word for name in others for word in (name, f"/ {first}")])

    def rows(self) -> list[tuple[str, ...]]:
        """Of each measure the first run's value, then of each other its value and the ratio to the first."""
        found = []
        for measure in MEASURES:
            values = [measure.of(course) for course in self._courses]
            if not _told(measure, values):
                continue
            row = [measure.name, _text(measure, values[0])]
            for value in values[1:]:
                row += [_text(measure, value), _ratio(value, values[0])]
            found.append(tuple(row))
        ended = [exit_text(course.info.exit) if course.info.exit is not None else course.info.status for course in self._courses]
        found.append(("ended", ended[0], *[word for text in ended[1:] for word in (text, "")]))
        return found

    def summary(self) -> str:
        return table(self.headers, self.rows())


def _named(course: Course, name: str) -> Course:
    return Course(replace(course.info, name=name), course.samples, course.happened)


def _text(measure: Measure, value: Value) -> str:
    return "-" if value is None else measure.text(value)


def _ratio(value: Value, first: Value) -> str:
    return f"{value / first:.2f}×" if value is not None and first else "-"
