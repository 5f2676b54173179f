"""From counters to what people read: rates, percentages, units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .sample import Sample


@dataclass(frozen=True)
class Series:
    """One line of a plot: ``values`` in ``unit`` (``%`` of one processor, ``ms/s``, ``B``, ``B/s`` or ``""`` for numbers)."""

    name: str
    unit: str
    values: list[float]


#: Rates: column -> (field of Sample, factor, unit).
_STALLED = tuple((name, kind) for name in ("cpu", "memory", "io") for kind in ("some", "full"))
_RATES = {
    "cpu_percent": ("cpu_usage", 1e-7, "%"),  # nanoseconds a second; a whole processor is 1e9 of them
    "throttled_ms_per_s": ("throttled", 1e-6, "ms/s"),
    "net_rx_per_s": ("net_rx", 1.0, "B/s"),
    "net_tx_per_s": ("net_tx", 1.0, "B/s"),
    "block_read_per_s": ("block_read", 1.0, "B/s"),
    "block_write_per_s": ("block_write", 1.0, "B/s"),
    **{f"pressure_{name}_{kind}_percent": (f"pressure_{name}_{kind}", 1e-7, "%") for name, kind in _STALLED},
}
PRESSURE_KNOWN = 1  # Sample.pressure: the figures are there
WHY_NO_PRESSURE = {
    0: "not in this record: it is older than the program that reads it",
    2: "the container has no group in cgroup v2, which alone counts it",
    3: "this kernel does not measure it (CONFIG_PSI; psi=1 on its command line where that is off)",
    4: "it is switched off for this container (cgroup.pressure)",
}
"""``Sample.pressure`` (:mod:`pycontainers.linux.cgroups.pressure`) -> why there is none."""
_LEVELS = {
    "memory": "B",
    "memory_cache": "B",
    "memory_rss": "B",
    "memory_limit": "B",
    "swap": "B",
    "pids": "",
    "pids_limit": "",
    "oom_kills": "",
}


def to_columns(samples: Sequence[Sample], cpus: float | None = None) -> dict[str, list[float]]:
    """Columns of equal length, one row a sample, fit for a DataFrame.

    ``time``: unix seconds; ``seconds``: since the first sample. ``cpu_percent``: of one processor; ``cpu_limit_percent``: the same for
    ``cpus``, 0 for no limit. ``throttled_ms_per_s``: milliseconds a second for which tasks were kept off the processor, summed over them.
    ``*_per_s``: bytes a second over the time since the sample before; the first row's rates are 0. ``memory*``, ``swap``: bytes.
    ``pids``, ``pids_limit``, ``oom_kills``: numbers. A limit of 0 is none. ``pressure_RESOURCE_some_percent``: of the time since the sample
    before, in which at least one task waited for it; ``_full_``: all that were not idle (0 where it is not known).
    """
    columns: dict[str, list[float]] = {
        "time": [sample.time for sample in samples],
        "seconds": [sample.time - samples[0].time for sample in samples],
    }
    for name, (field, factor, _) in _RATES.items():
        columns[name] = _rate(samples, field, factor)
        if name == "cpu_percent":
            columns["cpu_limit_percent"] = [100.0 * (cpus or 0.0)] * len(samples)
    for name in _LEVELS:
        columns[name] = [getattr(sample, name) for sample in samples]
    return columns


def to_series(samples: Sequence[Sample], cpus: float | None = None) -> dict[str, Series]:
    """The columns of :func:`to_columns` but the two of time, each with its unit."""
    units = {name: unit for name, (_, _, unit) in _RATES.items()} | {"cpu_limit_percent": "%"} | _LEVELS
    columns = to_columns(samples, cpus)
    return {name: Series(name, units[name], values) for name, values in columns.items() if name in units}


def _rate(samples: Sequence[Sample], field: str, factor: float) -> list[float]:
    """Growth a second, times ``factor``. A counter that went back was started anew: what it shows has grown since then.

    Two samples of one moment, or a clock that was set back, give no rate: 0.
    """
    values = [0.0] * len(samples)
    for index in range(1, len(samples)):
        before, after = samples[index - 1], samples[index]
        span = after.time - before.time
        if span > 0:
            then, now = getattr(before, field), getattr(after, field)
            values[index] = (now - then if now >= then else now) / span * factor
    return values


def format_bytes(value: float) -> str:
    """``64.0 MiB``; below 1024 ``17 B``. Units are powers of 1024."""
    if abs(value) < 1023.5:
        return f"{value:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if abs(value) < 1023.95:  # else it would round to 1024.0
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def format_rate(value: float) -> str:
    """``1.5 MiB/s``, from bytes a second."""
    return f"{format_bytes(value)}/s"


def format_duration(seconds: float) -> str:
    """``0.35 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``: two units at most."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    for large, small, big, little in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {big}" + (f" {rest} {little}" if rest else "")
    return f"{whole} s"
