"""Memory of our processes with 1 and 50 containers, and 200 containers at once."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from .house import House


def memory(house: House) -> None:
    from pycontainers.runtime import network as helper

    report, kernel = house.report, house.kernel
    helper.leave(house.state.engine.paths)  # what earlier parts needed it for: it would leave after two idle minutes
    report.heading("memory of all our processes together (proportional set size), at rest")
    for network, ports in (("none", False), ("bridge", False), ("bridge", True)):
        for count in (1, 50):
            kernel(f"cell.detached({house.image!r}, {network!r}, {count}, {ports})")
            time.sleep(3)
            sizes = sorted((pss(pid) / 1024 for pid in house.processes()), reverse=True)
            what = f"network {network}{', a published port each' if ports else ''}"
            report.figure(f"{count} running, {what}", sum(sizes), "MB", 8 + 2 * count)
            largest = ", ".join(f"{size:.1f}" for size in sizes[:4])
            report.note(f"{len(sizes)} processes, the largest {largest}, median {statistics.median(sizes):.2f} MB")
            kernel("cell.remove_all()")


def pss(pid: int) -> int:
    """Proportional set size in KiB (proc_pid_smaps_rollup(5)); 0 for a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def many(house: House, count: int = 200) -> None:
    report, kernel = house.report, house.kernel
    report.heading(f"{count} containers with the bridge network, started one after the other from a cell")
    kernel(f"cell.call({house.image!r}, 'bridge')")  # the helpers run
    times = kernel(f"cell.detached({house.image!r}, 'bridge', {count})")
    report.figure(f"{count} started in", sum(times), "s", 6)
    report.times("the first 10, each", times[:10])
    report.times("the last 10, each", times[-10:])
    report.figure("the last 10 / the first 10", statistics.median(times[-10:]) / statistics.median(times[:10]), "x", 1.5)
    report.times("pc.ps(), all of them listed", [kernel("cell.listed()") for _ in range(house.runs)], 50)
    report.times("one more, run --rm in the midst of them", [kernel(f"cell.call({house.image!r}, 'none')") for _ in range(house.runs)])
    report.figure("all of them removed in", kernel("cell.remove_all()"), "s")
