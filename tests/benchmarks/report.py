"""Figures with their bars beside them, as lines and as JSON."""

from __future__ import annotations

import math
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: Two-sided 95 % quantiles of Student's t for n - 1 degrees of freedom; between them the next lower n is taken, which is wider.
_T = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 10: 2.262, 20: 2.093, 30: 2.045, 60: 2.001, 120: 1.98}


class Report:
    """What was measured. Each row has a name, a figure, and where there is a bar, the bar and whether it is met."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def heading(self, text: str) -> None:
        print(f"\n{text}", flush=True)

    def note(self, text: str) -> None:
        self.rows.append({"note": text})
        print(f"    {text}", flush=True)

    def figure(self, name: str, value: float, unit: str, most: float | None = None, *, spread: str = "", **more: Any) -> None:
        """A figure that may be at most ``most``."""
        met = None if most is None else value <= most
        self.rows.append({"name": name, "value": round(value, 3), "unit": unit, "bar": most, "met": met, "spread": spread, **more})
        bar = "" if most is None else f"<= {most:g} {unit}  {'met' if met else 'MISSED'}"
        print(f"  {name:58} {value:9.2f} {unit:3} {spread:18} {bar}", flush=True)

    def times(self, name: str, seconds: Sequence[float], most: float | None = None) -> None:
        """Median of ``seconds`` in ms, with p10 and p90."""
        spread = f"[{1000 * quantile(seconds, 0.1):.1f} … {1000 * quantile(seconds, 0.9):.1f}]"
        self.figure(name, 1000 * statistics.median(seconds), "ms", most, spread=spread, runs=len(seconds))

    def ratio(self, name: str, ours: Sequence[float], theirs: Sequence[float], most: float | None = None) -> None:
        """Ratio of the medians of two series of the same run."""
        self.figure(name, statistics.median(ours) / statistics.median(theirs), "x", most, runs=len(ours))

    def interval(self, name: str, ours: Sequence[float], theirs: Sequence[float], *, above: float = 0.0, below: float = 0.0) -> None:
        """The 95 % interval of the ratio of pairs; it has to lie above ``above``, or begin at most at ``below``."""
        middle, low, high = ratio_interval(ours, theirs)
        met = (not above or low > above) and (not below or low <= below)
        bar = f"interval above {above:g}" if above else f"interval begins at most at {below:g}" if below else ""
        row = {"name": name, "value": round(middle, 4), "unit": "x", "interval": [round(low, 4), round(high, 4)], "bar": bar, "met": met}
        self.rows.append({**row, "pairs": len(ours)})
        print(f"  {name:58} {middle:9.3f} x   [{low:.3f} … {high:.3f}]   {bar}  {'met' if met else 'MISSED'}", flush=True)

    def json(self) -> dict[str, Any]:
        import os

        machine = {"kernel": platform.release(), "processors": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()}
        return {"machine": machine, "time": time.time(), "rows": self.rows}

    def missed(self) -> list[str]:
        return [row["name"] for row in self.rows if row.get("met") is False]


def quantile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def ratio_interval(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of the ratios of pairs and its 95 % interval (Student's t on their logarithms)."""
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    count = len(logs)
    quantile_t = _T[max(n for n in _T if n <= count)]
    middle, half = statistics.fmean(logs), quantile_t * statistics.stdev(logs) / math.sqrt(count)
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def in_turn(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Call each of them ``rounds`` times, in an order that changes from round to round: a machine that drifts treats all alike."""
    found: dict[str, list[Any]] = {name: [] for name in calls}
    order = random.Random(1)
    names = list(calls)
    for _ in range(rounds):
        order.shuffle(names)
        for name in names:
            found[name].append(calls[name]())
    return found


def timed(call: Callable[[], Any]) -> float:
    """Seconds that ``call`` takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
