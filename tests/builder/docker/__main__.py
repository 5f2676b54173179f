"""``python -m tests.builder.docker [NAME …]``: a table of all cases, and what differs.

Docker's results are kept between runs, by what was asked.

``--fresh``: ask Docker again. ``--warnings``: also the linter's words. ``-k WORD``: cases whose name or features have it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from pycontainers.engines.native import NativeEngine
from pycontainers.paths import Paths

from ...conftest import _end
from .case import Case
from .cases import CASES
from .compare import EXCEPTIONS, Result, differences, left_out
from .engine import cache_folder
from .house import House, house


def _docker(here: House, case: Case, fresh: bool) -> Result:
    kept = cache_folder() / "docker-results" / f"{case.name}-{case.key()}.json"
    if kept.exists() and not fresh:
        return Result.from_json(kept.read_text())
    found = here.other(case).build(case, here.folder / "cases" / case.name, here._values(case), here.agent)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(found.to_json())
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("-k", default="")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--docker-only", action="store_true")
    parser.add_argument("-v", action="store_true")
    args = parser.parse_args()
    base = tempfile.mkdtemp(prefix="pyct-docker-", dir="/var/tmp")
    os.environ.update(PYCONTAINERS_HOME=f"{base}/home", PYCONTAINERS_RUN=f"{base}/run")
    where = Paths(Path(base, "home"), Path(base, "run")).prepare()
    shared = Path(base, "docker")
    shared.mkdir()
    counts = {"equal": 0, "exception": 0, "different": 0}
    seconds = [0.0, 0.0]
    try:
        with house(shared, NativeEngine(where)) as here:
            for case in CASES:
                if (args.names and case.name not in args.names) or args.k not in f"{case.name} {case.features}":
                    continue
                place = here.ready(case)
                docker = _docker(here, case, args.fresh)
                expected = "" if docker.ok != case.fails else f"Docker {'succeeds' if docker.ok else 'fails: ' + docker.error}"
                if args.docker_only:
                    print(f"{case.name:32} {docker.seconds:5.2f} {expected or docker.error[:150]} line {docker.line} {docker.warnings}")
                    continue
                ours = here.ours.build(case, place, here._values(case), here.agent)
                found = differences(ours, docker)
                rest = [line for line in found if not left_out(case.but, line)]
                verdict = "different" if rest or expected else "exception" if case.but else "equal"
                counts[verdict] += 1
                seconds = [seconds[0] + ours.seconds, seconds[1] + docker.seconds]
                print(f"{case.name:32} {verdict:10} {ours.seconds:6.2f} s {docker.seconds:6.2f} s  {case.features}")
                for line in [expected, *rest][: None if args.v else 12]:
                    if line:
                        print(f"    {line[:400]}")
                if args.v and not ours.ok:
                    print(f"    ours:   {ours.line} {ours.error}\n    docker: {docker.line} {docker.error}")
                if args.v:
                    print(f"    warnings: docker {docker.warnings}, ours {ours.warnings}")
    finally:
        _end(where)
        shutil.rmtree(base, ignore_errors=True)
    print(f"{counts}; {seconds[0]:.1f} s ours, {seconds[1]:.1f} s Docker's; left out everywhere: {', '.join(EXCEPTIONS)}")
    return counts["different"] > 0


if __name__ == "__main__":
    raise SystemExit(main())
