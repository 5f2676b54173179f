"""The notebook's tests with other versions of what it stands on: ``python -m tests.versions [oldest] [subshells] [newest]``.

Each set has a virtual environment of its own, kept in ``.venv-versions`` for the next time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: what is the same in all sets: only tools of the tests
TOOLS = "pytest pytest-timeout hypothesis nbclient nbformat nbconvert jupyter-server-proxy numpy pandas pyarrow matplotlib pillow".split()
TESTS = ["tests/notebook", "tests/commands", "tests/kernels", "tests/interpreter", "tests/metrics"]
#: those that execute the notebooks of this repository take minutes, and say nothing new here
LEFT_OUT = [f"--ignore=tests/notebook/test_{number}_notebook.py" for number in ("first", "second", "third", "fourth")]
SETS = ("oldest", "subshells", "newest")


def requirements(which: str) -> list[str]:
    """Of pyproject.toml: with the lower bounds as versions; as they are; or with the last ipykernel that runs comms beside a busy cell."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        bounds = tomllib.load(file)["project"]["dependencies"]
    if which == "oldest":
        return [bound.partition(";")[0].strip().replace(">=", "==") for bound in bounds]
    if which == "subshells":
        return [*[bound for bound in bounds if not bound.startswith("ipykernel")], "ipykernel>=7,<7.4"]
    return bounds


def run(which: str) -> int:
    place = ROOT / ".venv-versions" / which
    python = place / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--upgrade-strategy", "eager"]
    subprocess.run([*install, *requirements(which), *TOOLS], check=True)
    shown = subprocess.run([python, "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True).stdout
    wanted = ("ipykernel", "ipython", "ipywidgets", "anywidget", "plotly", "traitlets", "jupyter_client")
    print(f"== {which}:", *[line for line in shown.splitlines() if line.partition("==")[0].lower() in wanted], flush=True)
    words = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, *LEFT_OUT, *os.environ.get("PYTEST_ARGS", "").split()]
    return subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode


if __name__ == "__main__":
    asked = sys.argv[1:] or list(SETS)
    for name in asked:
        if name not in SETS:
            sys.exit(f"error: no set {name!r}\nhint:  {', '.join(SETS)}")
    failed = [name for name in asked if run(name)]
    print(f"== failed: {', '.join(failed)}" if failed else f"== all passed: {', '.join(asked)}")
    sys.exit(bool(failed))
