"""Builds beside docker (BuildKit) and buildah, each with its own client as a user would call it; and what an import costs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .house import House
from .peers import loaded, without_v2
from .report import in_turn, timed

BASE = "bench-base"
_SIX = (
    "FROM {base}\nWORKDIR /app\nRUN echo installed > /installed\nCOPY app.py .\nENV A=b\nRUN cat app.py > /app/built\n"
    'CMD ["/bin/cat", "/app/built"]\n'
)
_STAGES = (
    "FROM {base} AS one\nRUN sleep 1; echo {word} > /1\nFROM {base} AS two\nRUN sleep 1; echo {word} > /2\n"
    "FROM {base}\nCOPY --from=one /1 /\nCOPY --from=two /2 /\n"
)
_ALONE = "FROM {base} AS one\nRUN sleep 1; echo {word} > /1\nFROM {base}\nCOPY --from=one /1 /\n"
_FILES, _FILE = 10_000, 100_000


class Side:
    """``build(folder, cached)`` builds the Dockerfile of a folder, ``run`` starts what was built, until its first output: seconds."""

    def __init__(self, name: str, base: str, build: Callable[[Path, bool], float], run: Callable[[], float] | None) -> None:
        self.name, self.base, self.build, self.run = name, base, build, run


def build(house: House) -> None:
    report = house.report
    folder = house.state.folder / "app"
    report.heading("build: six steps without long commands, medians")
    assert house.kernel and house.docker  # started outside: who has made threads inside cannot leave again (setns(2))
    with without_v2():
        sides = _sides(house)
        context = {side.name: folder / side.name for side in sides}
        for side in sides:
            context[side.name].mkdir(parents=True)
            (context[side.name] / "app.py").write_text("print(0)\n")
            (context[side.name] / "Dockerfile").write_text(_SIX.format(base=side.base))
        rounds = max(3, house.runs // 2)
        cold = in_turn({side.name: lambda side=side: side.build(context[side.name], False) for side in sides}, rounds)
        _compare(house, "cold build (--no-cache)", cold, 1 / 3)
        warm = in_turn({side.name: lambda side=side: side.build(context[side.name], True) for side in sides}, rounds)
        _compare(house, "fully cached build", warm, 1 / 10)
        changed = in_turn({side.name: lambda side=side: _changed(side, context[side.name]) for side in sides if side.run}, rounds)
        _compare(house, "one line changed, to the first output of its container", changed, 1 / 8)
    _stages(house)
    _large(house)


def _compare(house: House, name: str, found: dict[str, list[float]], most: float) -> None:
    for side, seconds in found.items():
        house.report.times(f"{name}, {side}", seconds)
    for side in found:
        if side != "ours":
            house.report.ratio(f"{name}: ours / {side}", found["ours"], found[side], most if side == "docker" else None)


_count = iter(range(1, 1_000_000))


def _changed(side: Side, folder: Path) -> float:
    (folder / "app.py").write_text(f"print({next(_count)})\n")
    assert side.run is not None
    return side.build(folder, True) + side.run()


def _sides(house: House) -> list[Side]:
    kernel, base = house.kernel, house.image

    def ours(folder: Path, cached: bool) -> float:
        return kernel(f"cell.build({str(folder)!r}, {str(folder / 'Dockerfile')!r}, 'bench-app', {not cached})")

    sides = [Side("ours", base, ours, lambda: kernel("cell.first_output('bench-app')"))]
    if not house.docker.refusal:
        docker = house.docker

        def theirs(folder: Path, cached: bool) -> float:
            words = [*docker.client, "build", "-q", "-t", "bench-app", *([] if cached else ["--no-cache"]), str(folder)]
            return timed(lambda: subprocess.run(words, env={**os.environ, "DOCKER_BUILDKIT": "1"}, check=True, capture_output=True))

        run = [*docker.client, "run", "--rm", "--network", "none", "bench-app"]
        sides.append(Side("docker", docker.image, theirs, lambda: _first_output(run)))
    if (buildah := _buildah(house)) is not None:
        sides.append(buildah)
    return sides


def _first_output(words: list[str]) -> float:
    begun = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.read(1)
        taken = time.perf_counter() - begun
    assert process.returncode == 0
    return taken


def _buildah(house: House) -> Side | None:
    if not shutil.which("buildah") or not shutil.which("podman"):
        house.report.note("not here: buildah and podman")
        return None
    folder = house.state.folder
    store = ["--root", f"{folder}/buildah", "--runroot", f"{folder}/buildah-run", "--storage-driver=overlay"]
    podman = ["podman", *store, "--tmpdir", f"{folder}/buildah-tmp", "--cgroup-manager=cgroupfs", "--events-backend=none"]
    if why := loaded(house.state.root, [*podman, "import", "-q", "-", BASE]):
        house.report.note(f"not here: buildah: {why}")
        return None
    limits = ["--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000"]

    def theirs(folder: Path, cached: bool) -> float:
        words = ["buildah", *store, "build", "-q", "--layers", "--pull-never", *limits, "-t", "bench-app"]
        words += [*([] if cached else ["--no-cache"]), "--network", "host", str(folder)]
        return timed(lambda: subprocess.run(words, check=True, capture_output=True))

    side = Side("buildah", f"localhost/{BASE}", theirs, None)
    (folder / "try").mkdir()
    (folder / "try" / "Dockerfile").write_text(f"FROM {side.base}\nRUN echo x\n")
    try:
        theirs(folder / "try", True)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["no word"]
        house.report.note(f"not here: buildah: {lines[-1][:150]}")
        return None
    return side


def _stages(house: House) -> None:
    """Two stages that need nothing of each other, beside one of them."""
    report, kernel = house.report, house.kernel
    report.heading("two independent stages of a second each")
    both, one = [], []
    for number in range(5):
        for text, found in ((_STAGES, both), (_ALONE, one)):
            asked = text.format(base=house.image, word=f"{number}{len(found)}{time.time_ns()}")
            found.append(kernel(f"cell.build('', {asked!r}, 'bench-app')"))
    report.ratio("both stages / the longer one", both, one, 1.2)


def _large(house: House) -> None:
    """A context of a gigabyte in ten thousand files, of which a step reads all."""
    report, kernel = house.report, house.kernel
    context = house.state.folder / "large"
    for number in range(_FILES):
        path = context / f"{number // 100}" / f"{number}"
        if number % 100 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(number.to_bytes(8, "big") * (_FILE // 8))
    report.heading(f"a context of {_FILES * _FILE / 1e9:.0f} GB in {_FILES} files")
    asked = f"cell.build({str(context)!r}, 'FROM scratch\\nCOPY . /\\n', 'bench-large')"
    report.times("the first time", [kernel(asked)])
    report.times("nothing changed, same notebook", [kernel(asked) for _ in range(house.runs)], 500)
    script = f"from tests.benchmarks import cell; print({asked})"
    again = [float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout) for _ in range(5)]
    report.times("nothing changed, another process", again, 500)
    shutil.rmtree(context)


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
