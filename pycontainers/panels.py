"""What was recorded of containers as small charts: panels that a table, an SVG, plotly and the page share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from .metrics.series import PRESSURE_KNOWN, WHY_NO_PRESSURE, format_bytes, format_rate, to_columns
from .protocol import ContainerInfo, Resources

_BARS = "▁▂▃▄▅▆▇█"
_UNLIMITED = 1 << 60
"""cgroup v1 says "no limit" with a number near 2**63."""
_MOST_MARKS = 40
_DIRECTIONS = 8  # containers up to which received and sent, read and written have lines of their own


@dataclass(frozen=True)
class Series:
    """One line: ``values`` over ``times`` (seconds since the first sample). ``aside`` marks a secondary line (drawn dotted).

    ``color``: number of a colour, which is that of a container where there are several.
    """

    name: str
    times: tuple[float, ...]
    values: tuple[float, ...]
    aside: bool = False
    color: int = 0

    @property
    def last(self) -> float:
        return self.values[-1] if self.values else 0.0

    @property
    def peak(self) -> float:
        return max(self.values, default=0.0)

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values) if self.values else 0.0

    @property
    def average(self) -> float:
        """The mean over time: samples are dense at first and sparse later, so each counts for as long as it stood."""
        spans = [(after - before, value) for (before, after), value in zip(pairwise(self.times), self.values[1:], strict=False)]
        whole = sum(span for span, _ in spans)
        return sum(span * value for span, value in spans) / whole if whole > 0 else self.mean


@dataclass(frozen=True)
class Panel:
    """One small chart. ``unit``: ``percent`` (100 is one processor, or all of the time), ``bytes``, ``rate`` (bytes a second), ``count``.

    ``note``: why there is nothing in it.
    """

    title: str
    unit: str
    series: tuple[Series, ...]
    limit: float | None = None
    note: str = ""

    def text(self, value: float) -> str:
        """``value`` in this panel's unit."""
        if self.unit == "percent":
            return f"{value:.1f} %"
        if self.unit == "count":
            return f"{value:.0f}" if value == int(value) else f"{value:.1f}"
        return format_rate(value) if self.unit == "rate" else format_bytes(value)

    @property
    def peak(self) -> float:
        return max([series.peak for series in self.series], default=0.0)

    @property
    def shown_limit(self) -> float | None:
        """The limit where it belongs into view: one far above use would press every line flat, its number is in the heading."""
        return self.limit if self.limit is not None and self.limit < max(self.peak, 1e-9) * 20 else None

    @property
    def top(self) -> float:
        """The highest value that the panel shows."""
        return max(self.peak, self.shown_limit or 0.0)

    def scale(self) -> tuple[float, str]:
        """(divisor, unit behind the number) that suit :attr:`top`: ``(1048576.0, " MiB")``."""
        return scale(self.unit, self.top)


def scale(unit: str, top: float) -> tuple[float, str]:
    """(divisor, unit behind the number) in which ``top`` is a number that people can read."""
    if unit in ("percent", "count"):
        return 1.0, " %" if unit == "percent" else ""
    each = "/s" if unit == "rate" else ""
    for size, name in ((1 << 40, " TiB"), (1 << 30, " GiB"), (1 << 20, " MiB"), (1 << 10, " KiB")):
        if top >= size:
            return float(size), name + each
    return 1.0, " B" + each


@dataclass(frozen=True)
class Mark:
    """Something that happened at ``time`` (seconds since the first sample). ``kind``: ``start``, ``health``, ``oom``, ``pause``,
    ``change`` or ``end``; ``name``: of the container, where there are several."""

    time: float
    text: str
    kind: str = "oom"
    name: str = ""

    @property
    def sign(self) -> str:
        return SIGNS.get(self.kind, "·")


SIGNS = {"start": "▶", "health": "♥", "oom": "✗", "pause": "‖", "change": "△", "end": "■"}
TITLES = ("CPU", "Memory", "Network", "Block I/O", "Processes", "Pressure")


def panels(samples: Sequence[Any], resources: Resources) -> list[Panel]:
    """The panels of :data:`TITLES` for one container, always in this order, empty where nothing was recorded."""
    columns = to_columns(samples)
    times = tuple(columns["seconds"])

    def level(name: str, column: str, aside: bool = False, color: int = 0) -> Series:
        return Series(name, times, tuple(columns[column]), aside, color)

    def rate(name: str, column: str, aside: bool = False, color: int = 0, factor: float = 1.0) -> Series:
        # The first row of a rate has nothing before it to be measured against.
        return Series(name, times[1:], tuple(value * factor for value in columns[column][1:]), aside, color)

    cpu_limit = resources.cpus * 100 if resources.cpus else None
    last = samples[-1] if samples else None
    memory_limit = _limit(last and last.memory_limit) or _limit(resources.memory)
    pids_limit = _limit(last and last.pids_limit) or _limit(resources.pids_limit)
    # 1000 ms a second is one task held back all the time: 100 %
    throttled = rate("throttled", "throttled_ms_per_s", True, 1, 0.1)
    waiting = tuple(
        rate(f"{shown}{' full' if kind == 'full' else ''}", f"pressure_{name}_{kind}_percent", kind == "full", color)
        for color, (name, shown) in enumerate((("cpu", "cpu"), ("memory", "memory"), ("io", "disk")))
        for kind in ("some", "full")
    )
    note = _why_no_pressure(last)
    return [
        Panel("CPU", "percent", (rate("used", "cpu_percent"), throttled), cpu_limit),
        Panel("Memory", "bytes", (level("used", "memory"), level("cache", "memory_cache", True, 1)), memory_limit),
        Panel("Network", "rate", (rate("received", "net_rx_per_s"), rate("sent", "net_tx_per_s", True, 1))),
        Panel("Block I/O", "rate", (rate("read", "block_read_per_s"), rate("written", "block_write_per_s", True, 1))),
        Panel("Processes", "count", (level("processes", "pids"),), pids_limit),
        Panel("Pressure", "percent", () if note else waiting, None, note),
    ]


def _limit(value: float | None) -> float | None:
    return float(value) if value and 0 < value < _UNLIMITED else None


def _why_no_pressure(last: Any) -> str:
    """"" where it is known, or where nothing was recorded at all."""
    if last is None or last.pressure == PRESSURE_KNOWN:
        return ""
    return f"not known: {WHY_NO_PRESSURE.get(last.pressure, WHY_NO_PRESSURE[0])}"


def together(named: Sequence[tuple[str, float, list[Panel]]]) -> list[Panel]:
    """Several containers in one: of each its own lines in a colour of its own, without what would be too much (throttling, cache).

    :param named: for each its name, by how many seconds its own times come later than the figure's begin, and its panels.
    """
    found = []
    for index in range(len(TITLES)):
        lines: list[Series] = []
        for color, (name, later, own) in enumerate(named):
            for series in _few(own[index], len(named)):
                if series.name not in ("throttled", "cache"):
                    shown = name if series.name in ("used", "processes", "") else f"{name} {series.name}"
                    lines.append(_later(replace(series, name=shown, color=color), later))
        limits = {own[index].limit for _, _, own in named}
        note = "" if lines else next((own[index].note for _, _, own in named if own[index].note), "")
        first = named[0][2][index]
        found.append(Panel(first.title, first.unit, tuple(lines), limits.pop() if len(limits) == 1 else None, note))
    return found


def _later(series: Series, seconds: float) -> Series:
    return replace(series, times=tuple(time + seconds for time in series.times)) if seconds else series


def _few(panel: Panel, containers: int) -> Sequence[Series]:
    """The lines of a panel that are shown beside those of others: of pressure the worst, and of many containers both directions as one."""
    if panel.title == "Pressure" and panel.series:
        return [_worst(panel.series)]
    if panel.unit == "rate" and panel.series and containers > _DIRECTIONS:
        one, other = panel.series
        return [Series("", one.times, tuple(a + b for a, b in zip(one.values, other.values, strict=True)))]
    return panel.series


def _worst(series: Sequence[Series]) -> Series:
    """One line for the pressure of a container: at each moment of the resource for which at least one task waited most."""
    some = [one for one in series if not one.aside]
    return Series("", some[0].times, tuple(max(values) for values in zip(*[one.values for one in some], strict=True)))


def marks(samples: Sequence[Any], info: ContainerInfo, happened: Iterable[dict[str, Any]] = ()) -> list[Mark]:
    """What happened: OOM kills (the counter rose), the events of its life, the end. Each is told by words, not by a colour alone.

    :param happened: its events in the form of the journal; without them the record itself still tells of OOM kills and the end.
    """
    if not samples:
        return []
    begin = samples[0].time
    found = []
    for before, after in pairwise(samples):
        killed = after.oom_kills - before.oom_kills
        if killed > 0:
            found.append(Mark(after.time - begin, "OOM-killed" if killed == 1 else f"OOM-killed ×{killed}"))
    starts = 0
    for event in happened:
        starts += event.get("Action") == "start"
        mark = _of_event(event, begin, starts)
        if mark is not None:
            found.append(mark)
    exit = info.exit
    if exit is not None and info.status == "exited":
        end = max(samples[-1].time, exit.finished or 0.0) - begin
        if exit.oom_killed and not any(mark.kind == "oom" for mark in found):
            found.append(Mark(end, "OOM-killed"))
        # The journal tells of the same end, by its own clock.
        found = [mark for mark in found if mark.kind != "end" or mark.time < end - 1.0]
        found.append(Mark(end, f"exit {'?' if exit.code is None else exit.code}", "end"))
    found.sort(key=lambda mark: mark.time)
    # Of a container that is started again and again the latest, and how it began.
    return found if len(found) <= _MOST_MARKS else [found[0], *found[1 - _MOST_MARKS :]]


def _of_event(event: dict[str, Any], begin: float, starts: int) -> Mark | None:
    action = str(event.get("Action", ""))
    at = max(0.0, event.get("timeNano", 0) / 1e9 - begin)
    if action == "start":
        return Mark(at, "start" if starts == 1 else "restart", "start")
    if action == "die":
        return Mark(at, f"exit {_attributes(event).get('exitCode', '?')}", "end")
    if action.startswith("health_status: "):
        word = action.removeprefix("health_status: ")
        return Mark(at, word, "health" if word == "healthy" else "change")
    if action == "pause":
        return Mark(at, "paused", "pause")
    if action == "unpause":
        return Mark(at, "unpaused", "start")
    return Mark(at, "limits changed", "change") if action == "update" else None


def _attributes(event: dict[str, Any]) -> dict[str, Any]:
    return (event.get("Actor") or {}).get("Attributes") or {}


def sparkline(series: Series, width: int = 24) -> str:
    """A line as bars; each bar is the highest of its stretch, so that a short peak is not lost."""
    cells = even(series, min(width, len(series.values)))
    top = max(cells, default=0.0) or 1.0
    return "".join(_BARS[min(len(_BARS) - 1, int(value / top * (len(_BARS) - 1) + 0.5))] for value in cells)


def even(series: Series, count: int) -> list[float]:
    """``count`` values, each the highest of an equal stretch of time: samples are dense at first and sparse later.

    A stretch without a sample lies on the straight line between its neighbours. No values where there are none, one where no time passes.
    """
    if len(series.values) < 2 or series.times[-1] <= series.times[0]:
        return [series.peak] if series.values else []
    begin, step = series.times[0], (series.times[-1] - series.times[0]) / count
    highest: dict[int, float] = {}
    for time, value in zip(series.times, series.values, strict=True):
        place = max(0, min(count - 1, int((time - begin) / step)))
        highest[place] = max(value, highest.get(place, value))
    found = [series.values[0]] * count
    for low, high in pairwise(sorted({*highest, count - 1})):
        for place in range(low, high + 1):
            found[place] = highest[low] + (highest[high] - highest[low]) * (place - low) / (high - low)
    return found if len(highest) > 1 else [series.peak] * count


def thinned(series: Series, most: int) -> Series:
    """At most ``most`` points, of each stretch the highest, at its own time: no peak is lost. The last point stays."""
    if len(series.times) <= most:
        return series
    points = list(zip(series.times, series.values, strict=True))
    edges = [round(index * (len(points) - 1) / (most - 1)) for index in range(most)]
    kept = [max(points[low:high], key=lambda point: point[1]) for low, high in pairwise(edges)]
    kept.append(points[-1])
    return replace(series, times=tuple(time for time, _ in kept), values=tuple(value for _, value in kept))
