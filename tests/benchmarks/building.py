"""Builds, and what an import costs."""

from __future__ import annotations

import subprocess
import sys

from .house import House

_DOCKERFILE = 'FROM host\nWORKDIR /app\nRUN echo installed > /installed\nCOPY app.py .\nENV A=b\nCMD ["python", "app.py"]\n'


def build(house: House) -> None:
    report, kernel = house.report, house.kernel
    context = house.state.folder / "app"
    context.mkdir()
    program = context / "app.py"
    program.write_text("print(0)\n")
    report.heading("build")
    asked = f"cell.build({str(context)!r}, {_DOCKERFILE!r}, 'bench-app')"
    kernel(asked)
    report.times("all steps cached", [kernel(asked) for _ in range(house.runs)], 20)
    seconds = []
    for number in range(house.runs):
        program.write_text(f"print({number + 1})\n")
        seconds.append(kernel(asked) + kernel("cell.first_output('bench-app', '/bin/echo', 'x')"))
    report.times("one line changed, until the first output", seconds, 80)


def imports(house: House) -> None:
    report = house.report
    report.heading("import, in a fresh interpreter")
    for name, before, code, most, runs in (
        ("import pycontainers", "pass", "import pycontainers", 80, house.runs),
        ("import pycontainers; pc.run", "pass", "import pycontainers as pc; pc.run", None, house.runs),
        (
            "%load_ext over bare IPython",
            "from IPython.core.interactiveshell import InteractiveShell as S; s = S.instance()",
            "s.run_line_magic('load_ext', 'pycontainers')",
            100,
            min(house.runs, 10),
        ),
    ):
        script = f"import time; {before}; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
        report.times(name, [_fresh(script) for _ in range(runs)], most)


def _fresh(script: str) -> float:
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()[-1])
