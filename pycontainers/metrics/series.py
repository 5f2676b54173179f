"""From counters to what people read: rates, percentages, units."""

from __future__ import annotations

from collections.abc import Sequence

from .sample import Sample

COLUMNS = (
    "time",
    "seconds",
    "cpu_percent",
    "throttled_ms_per_s",
    "memory",
    "memory_cache",
    "memory_limit",
    "swap",
    "net_rx_per_s",
    "net_tx_per_s",
    "block_read_per_s",
    "block_write_per_s",
    "pids",
    "pids_limit",
    "oom_kills",
)


def to_columns(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """Columns of equal length, one row a sample.

    time: unix seconds; seconds: since the first sample; cpu_percent: of one processor; throttled_ms_per_s: milliseconds a second
    for which the container was kept off the processor, summed over its tasks; memory, memory_cache, memory_limit, swap: bytes;
    the ``_per_s`` of net and block: bytes a second; pids, pids_limit, oom_kills: numbers. Rates are over the time since the sample
    before; the first row's are 0. A counter that went back (the container was started again) counts from zero.
    """
    columns: dict[str, list[float]] = {name: [] for name in COLUMNS}
    for index, sample in enumerate(samples):
        before = samples[index - 1] if index else sample
        _row(columns, before, sample, samples[0].time)
    return columns


def _row(columns: dict[str, list[float]], before: Sample, sample: Sample, start: float) -> None:
    span = sample.time - before.time

    def rate(name: str) -> float:
        now, then = getattr(sample, name), getattr(before, name)
        if span <= 0:
            return 0.0
        return float((now - then if now >= then else now) / span)

    values = {
        "time": sample.time,
        "seconds": sample.time - start,
        "cpu_percent": rate("cpu_usage") / 1e7,
        "throttled_ms_per_s": rate("throttled") / 1e6,
        "memory": sample.memory,
        "memory_cache": sample.memory_cache,
        "memory_limit": sample.memory_limit,
        "swap": sample.swap,
        "net_rx_per_s": rate("net_rx"),
        "net_tx_per_s": rate("net_tx"),
        "block_read_per_s": rate("block_read"),
        "block_write_per_s": rate("block_write"),
        "pids": sample.pids,
        "pids_limit": sample.pids_limit,
        "oom_kills": sample.oom_kills,
    }
    for name, value in values.items():
        columns[name].append(value)


def format_bytes(value: float) -> str:
    """``64.0 MiB``; below 1024 ``17 B``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def format_rate(value: float) -> str:
    return f"{format_bytes(value)}/s"


def format_duration(seconds: float) -> str:
    """``0.35 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    for large, small, big, little in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {big}" + (f" {rest} {little}" if rest else "")
    return f"{whole} s"
