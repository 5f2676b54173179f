"""Figures of this machine, now, each with its bar beside it: ``python -m tests.benchmarks [--only PARTS] [--runs 20] [--json FILE]``.

Ours is measured in cells of a real notebook kernel (the time of the call, as a user feels it), the peers as the wall time of their own
command from this process; both run the same small root file system, each does the whole job with its defaults, in turn, in one run.
Needs root and some free memory. What is not installed is named and left out: crun, runc, bubblewrap, podman, docker.io; and for shipping
docker-registry, skopeo and mmdebstrap.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import building, dashboard, inside, python, scale, shipping, starts, views
from .house import House

PARTS: dict[str, Callable[[House], None]] = {
    "start": starts.start,
    "exec": starts.exec,
    "heap": starts.heap,
    "memory": scale.memory,
    "many": scale.many,
    "inside": inside.inside,
    "tcp": inside.tcp,
    "python": python.python,
    "build": building.build,
    "imports": building.imports,
    "views": views.views,
    "shipping": shipping.shipping,
    "dashboard": dashboard.dashboard,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=20, help="runs of each start (default: %(default)s); intervals take 30 pairs")
    parser.add_argument("--json", type=Path, help="write all figures to this file too")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    if os.geteuid() != 0:
        parser.error("the peers and our own runtime need root here")
    begun = time.monotonic()
    with House(options.runs) as house:
        try:
            for part in parts:
                PARTS[part](house)
        finally:
            if options.json:
                options.json.write_text(json.dumps(house.report.json(), indent=1))
            missed = house.report.missed()
            house.report.heading(f"{time.monotonic() - begun:.0f} s. Bars missed: {'; '.join(missed) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
