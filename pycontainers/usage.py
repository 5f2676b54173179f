"""What a container used: recorded samples (``metrics.sample.Sample``) as panels that a table, an SVG and plotly share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .metrics.series import format_bytes, format_rate, to_columns
from .protocol import ContainerInfo, Engine, Resources
from .text import one_line, span, table
from .wording import status_text

_BARS = "▁▂▃▄▅▆▇█"
_UNLIMITED = 1 << 60
"""cgroup v1 says "no limit" with a number near 2**63."""


@dataclass(frozen=True)
class Series:
    """One line: ``values`` over ``times`` (seconds since the first sample). ``aside`` marks a secondary line (drawn dashed)."""

    name: str
    times: tuple[float, ...]
    values: tuple[float, ...]
    aside: bool = False

    @property
    def last(self) -> float:
        return self.values[-1] if self.values else 0.0

    @property
    def peak(self) -> float:
        return max(self.values, default=0.0)

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values) if self.values else 0.0


@dataclass(frozen=True)
class Panel:
    """One small chart. ``unit``: ``percent`` (100 is one processor), ``bytes``, ``rate`` (bytes a second), ``count``."""

    title: str
    unit: str
    series: tuple[Series, ...]
    limit: float | None = None

    def text(self, value: float) -> str:
        """``value`` in this panel's unit."""
        if self.unit == "percent":
            return f"{value:.1f} %"
        if self.unit == "count":
            return f"{value:.0f}" if value == int(value) else f"{value:.1f}"
        return format_rate(value) if self.unit == "rate" else format_bytes(value)


@dataclass(frozen=True)
class Mark:
    """Something that happened at ``time`` (seconds since the first sample): an OOM kill, the end."""

    time: float
    text: str
    kind: str = "oom"


def panels(samples: Sequence[Any], resources: Resources) -> list[Panel]:
    """CPU, memory, network, block I/O and processes, always in this order, empty where nothing was recorded."""
    columns = to_columns(samples)
    times = columns["seconds"]

    def level(name: str, column: str, aside: bool = False) -> Series:
        return Series(name, tuple(times), tuple(columns[column]), aside)

    def rate(name: str, column: str, aside: bool = False, scale: float = 1.0) -> Series:
        # The first row of a rate has nothing before it to be measured against.
        return Series(name, tuple(times[1:]), tuple(value * scale for value in columns[column][1:]), aside)

    cpu_limit = resources.cpus * 100 if resources.cpus else None
    last = samples[-1] if samples else None
    memory_limit = _limit(last and last.memory_limit) or _limit(resources.memory)
    pids_limit = _limit(last and last.pids_limit) or _limit(resources.pids_limit)
    throttled = rate("throttled", "throttled_ms_per_s", True, 0.1)  # 1000 ms a second is one task held back all the time: 100 %
    return [
        Panel("CPU", "percent", (rate("used", "cpu_percent"), throttled), cpu_limit),
        Panel("Memory", "bytes", (level("used", "memory"), level("cache", "memory_cache", True)), memory_limit),
        Panel("Network", "rate", (rate("received", "net_rx_per_s"), rate("sent", "net_tx_per_s", True))),
        Panel("Block I/O", "rate", (rate("read", "block_read_per_s"), rate("written", "block_write_per_s", True))),
        Panel("Processes", "count", (level("processes", "pids"),), pids_limit),
    ]


def _limit(value: float | None) -> float | None:
    return float(value) if value and 0 < value < _UNLIMITED else None


def marks(samples: Sequence[Any], info: ContainerInfo) -> list[Mark]:
    """OOM kills (the counter rose) and the end. Both are also told by words, not by a colour alone."""
    found = []
    for before, after in pairwise(samples):
        killed = after.oom_kills - before.oom_kills
        if killed > 0:
            found.append(Mark(after.time - samples[0].time, "OOM-killed" if killed == 1 else f"OOM-killed ×{killed}"))
    exit = info.exit
    if exit is not None and samples:
        end = max(samples[-1].time, exit.finished or 0.0) - samples[0].time
        if exit.oom_killed and not found:
            found.append(Mark(end, "OOM-killed"))
        found.append(Mark(end, f"exit {'?' if exit.code is None else exit.code}", "end"))
    return found


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """``values`` as bars; each bar is the highest of its stretch, so that a short peak is not lost."""
    if not values:
        return ""
    cells = thin(values, width)
    top = max(cells) or 1.0
    return "".join(_BARS[min(len(_BARS) - 1, int(value / top * (len(_BARS) - 1) + 0.5))] for value in cells)


def thin(values: Sequence[float], most: int) -> list[float]:
    """At most ``most`` values, each the highest of an equal stretch."""
    if len(values) <= most:
        return list(values)
    edges = [round(index * len(values) / most) for index in range(most + 1)]
    return [max(values[low:high]) for low, high in pairwise(edges)]


@dataclass
class Stats:
    """What one container used over its life, as far as the record reaches; also after it has ended.

    :param container: its name or id.
    :param form: how it wants to be shown: ``live``, ``static`` (picture and text) or ``table`` (text alone).
    :param seconds: only the last so many seconds; None for all.
    """

    engine: Engine
    container: str
    form: str = "live"
    seconds: float | None = None
    info: ContainerInfo = field(init=False)
    samples: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.reload()

    def reload(self) -> Stats:
        """Read samples and state anew."""
        self.info = self.engine.find(self.container)
        samples = list(self.engine.samples(self.info.id))
        if self.seconds is not None and samples:
            samples = [sample for sample in samples if sample.time >= samples[-1].time - self.seconds]
        self.samples = samples
        return self

    @property
    def resources(self) -> Resources:
        return self.info.resources

    def panels(self) -> list[Panel]:
        return panels(self.samples, self.info.resources)

    def marks(self) -> list[Mark]:
        return marks(self.samples, self.info)

    @property
    def duration(self) -> float:
        """Seconds between the first and the last sample."""
        return float(self.samples[-1].time - self.samples[0].time) if len(self.samples) > 1 else 0.0

    @property
    def title(self) -> str:
        return f"{one_line(self.info.name)}: {status_text(self.info)}"

    def summary(self) -> str:
        """A table: last, mean and peak of each series with its limit and a sparkline, then what happened."""
        rows = []
        for panel in self.panels():
            for series in panel.series:
                limit = panel.text(panel.limit) if panel.limit is not None and not series.aside else ""
                name = panel.title if series.name in ("used", "processes") else f"{panel.title} {series.name}"
                values = [panel.text(value) for value in (series.last, series.mean, series.peak)] if series.values else ["-", "-", "-"]
                rows.append((name, *values, limit, sparkline(series.values)))
        lines = [self.title + (f", {len(self.samples)} samples over {span(self.duration)}" if self.samples else ", nothing recorded yet")]
        lines.append(table(("METRIC", "LAST", "MEAN", "PEAK", "LIMIT", "COURSE"), rows))
        lines += [f"{mark.text} at {mark.time:.1f} s" for mark in self.marks()]
        return "\n".join(lines)

    def row(self) -> tuple[str, ...]:
        """One line of ``docker stats``."""
        cpu, memory, _, _, processes = self.panels()
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

    def __repr__(self) -> str:
        return self.summary()


class StatsTable(list[Stats]):
    """Several containers at a glance, as ``docker stats`` shows them."""

    headers = ("NAME", "STATUS", "CPU %", "MEMORY / LIMIT", "NETWORK IN / OUT", "BLOCK READ / WRITTEN", "PROCESSES")

    def rows(self) -> list[tuple[str, ...]]:
        return [stats.row() for stats in self]

    def __repr__(self) -> str:
        return table(self.headers, self.rows())
