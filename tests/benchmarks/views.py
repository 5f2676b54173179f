"""Live views: what a figure of twenty containers costs the kernel and the page, at once, each second and over an hour."""

from __future__ import annotations

from .house import House

_SECONDS = 20


def views(house: House, count: int = 20) -> None:
    report, kernel = house.report, house.kernel
    report.heading(f"a live figure of {count} containers, once a second")
    kernel("cell.remove_all()")
    kernel(f"cell.detached({house.image!r}, 'none', {count})")
    kernel.cell("from tests.benchmarks import viewing")
    before = kernel(f"viewing.idle({_SECONDS / 2})")
    first = kernel("viewing.opened()")
    report.figure("to the page once, plotly and all", first["bytes"] / 1e6, "MB", 6)
    report.figure("to the page for one more figure", first["second"] / 1e3, "kB")
    report.figure("until the first is there", first["seconds"] * 1000, "ms")
    found = kernel(f"viewing.live({_SECONDS})")
    report.figure("the kernel's share of one processor", found["percent"] - before, "%", 3)
    report.figure("to the page", found["bytes"] / 1e3, "kB/s", 20)
    report.note(f"{found['messages']:.1f} messages a second; the kernel alone takes {before:.2f} %")
    report.heading("an hour of samples through the live figure of one container")
    grown = kernel("viewing.hour()")
    report.figure("more memory in the kernel", grown["grown"] / 1e3, "kB", 100)
    report.figure("what a page is given that asks anew", grown["state"] / 1e3, "kB", 100)
    kernel("cell.remove_all()")
