"""Figures of this machine, now: starts, exec, builds, imports, memory; as ratios to what else is installed.

    python -m tests.benchmarks [--runs 20] [--only start,exec,build,import,memory] [--json FILE]

Everything is measured from this process, as a cell would: the time of the call against the wall time of the peer's own command, in turn,
so that a machine that drifts treats both alike. "whole" ends when nothing of the container is left. Medians; the spread is p10 to p90.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import peers

Rows = list[dict[str, Any]]


class Bench:
    def __init__(self, folder: Path, runs: int) -> None:
        os.environ.update(PYCONTAINERS_HOME=str(folder / "home"), PYCONTAINERS_RUN=str(folder / "run"))
        from pycontainers.engines.native import engine

        self.engine, self.folder, self.runs = engine(), folder, runs
        self.rows: Rows = []
        self.root = peers.small_root(folder)
        self.peers = peers.all_peers(folder, self.root)

    def row(self, name: str, seconds: list[float], budget: str = "", versus: dict[str, list[float]] | None = None) -> None:
        row: dict[str, Any] = {
            "name": name,
            "ms": _ms(seconds),
            "p10": _ms(seconds, 10),
            "p90": _ms(seconds, 90),
            "budget": budget,
            "peers": {},
        }
        for peer, theirs in (versus or {}).items():
            row["peers"][peer] = {"ms": _ms(theirs), "ratio": round(statistics.median(seconds) / statistics.median(theirs), 3)}
        self.rows.append(row)
        beside = "  ".join(f"{peer} {v['ms']} ms ({v['ratio']:.2f}x)" for peer, v in row["peers"].items())
        print(f"{name:44} {row['ms']:8} ms  [{row['p10']} … {row['p90']}]  {budget:10} {beside}", flush=True)

    # -- what is measured

    def run_once(self, network: str) -> tuple[float, float]:
        """(first output, whole run until nothing is left) of ``run --rm host echo x``."""
        from pycontainers.protocol import ContainerConfig

        first: list[float] = []
        begun = time.perf_counter()
        info, _ = self.engine.run(
            ContainerConfig("host", ("echo", "x"), network=network, auto_remove=True),
            None,
            lambda stream, data: first.append(time.perf_counter() - begun),
        )
        assert not os.path.exists(info.folder)
        return first[0], time.perf_counter() - begun

    def start(self) -> None:
        for network in ("none", "bridge"):
            self.run_once(network)
        ours: dict[str, list[float]] = {key: [] for key in ("first none", "whole none", "first bridge", "whole bridge")}
        theirs: dict[str, list[float]] = {peer.name: [] for peer in self.peers if not peer.refusal}
        for _ in range(self.runs):
            for network in ("none", "bridge"):
                first, whole = self.run_once(network)
                ours[f"first {network}"].append(first)
                ours[f"whole {network}"].append(whole)
            for peer in self.peers:
                if not peer.refusal:
                    command = peer.run if peer.name.endswith(" run") else [*peer.run, "/bin/echo", "x"]
                    theirs[peer.name].append(_timed(lambda c=command: subprocess.run(c, capture_output=True, check=True)))
        self.row("run, first output, no network", ours["first none"], "<= 12 ms")
        self.row("run --rm, whole, no network", ours["whole none"], "", theirs)
        self.row("run, first output, bridge", ours["first bridge"], "<= 20 ms")
        self.row("run --rm, whole, bridge", ours["whole bridge"], "", theirs)
        self.cold()
        self.back_to_back()

    def cold(self) -> None:
        """The launcher is ended before each start."""
        seconds = []
        for _ in range(min(self.runs, 10)):
            _leave(self.engine.paths.launcher_socket)
            seconds.append(self.run_once("none")[0])
        self.row("run, first output, cold launcher", seconds)

    def back_to_back(self) -> None:
        """50 starts without a pause; CPU time of this process, the launcher and all that they waited for or left (RUSAGE of the system
        would count others): read from the v1/v2 cpu accounting is not possible for helpers, so utime+stime of launcher and children.
        """
        before = _cpu(self.engine.paths)
        begun = time.perf_counter()
        for _ in range(50):
            self.run_once("none")
        wall = (time.perf_counter() - begun) / 50
        self.row("50 back to back, each", [wall])
        print(
            f"{'':44} CPU of this process and the launcher: {(_cpu(self.engine.paths) - before) / 50 * 1000:.1f} ms a start "
            "(supervisors and their containers end on their own and are not in it)"
        )

    def exec(self) -> None:
        from pycontainers.protocol import ContainerConfig, ExecConfig

        info = self.engine.start(self.engine.create(ContainerConfig("host", ("sleep", "1000"), network="none")).id)
        self.engine.exec(info.id, ExecConfig(("true",)))
        seconds = [_timed(lambda: self.engine.exec(info.id, ExecConfig(("true",)))) for _ in range(self.runs)]
        self.row("exec true", seconds, "<= 8 ms")
        self.engine.remove(info.id, force=True)

    def build(self) -> None:
        from pycontainers.events import finish
        from pycontainers.protocol import BuildRequest, ContainerConfig

        context = self.folder / "context"
        context.mkdir()
        (context / "app.py").write_text("print(0)\n")
        text = 'FROM host\nWORKDIR /app\nRUN echo installed > /installed\nCOPY app.py .\nENV A=b\nCMD ["python", "app.py"]\n'
        request = BuildRequest(text, str(context), ("bench",))
        finish(self.engine.build(request))
        self.row("build, all cached", [_timed(lambda: finish(self.engine.build(request))) for _ in range(self.runs)], "<= 20 ms")

        def change(number: int) -> float:
            (context / "app.py").write_text(f"print({number})\n")
            seen: list[float] = []
            begun = time.perf_counter()
            finish(self.engine.build(request))
            self.engine.run(
                ContainerConfig("bench", ("echo", "x"), network="none", auto_remove=True),
                None,
                lambda stream, data: seen.append(time.perf_counter() - begun),
            )
            return seen[0]

        self.row("one line changed to first output", [change(number) for number in range(1, self.runs + 1)], "<= 80 ms")

    def imports(self) -> None:
        def fresh(code: str) -> float:
            script = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
            return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()[-1])

        self.row("import pycontainers", [fresh("import pycontainers") for _ in range(self.runs)], "<= 80 ms")
        self.row("import pycontainers; pc.run", [fresh("import pycontainers as pc; pc.run") for _ in range(self.runs)])
        shell = "from IPython.core.interactiveshell import InteractiveShell as S; s = S.instance(); t = time.perf_counter(); "
        shell += "s.run_line_magic('load_ext', 'pycontainers')"
        self.row("%load_ext over bare IPython", [fresh(shell) for _ in range(min(self.runs, 10))], "<= 100 ms")

    def memory(self) -> None:
        from pycontainers.protocol import ContainerConfig

        for count in (1, 10):
            infos = [
                self.engine.start(self.engine.create(ContainerConfig("host", ("sleep", "1000"), network="none")).id) for _ in range(count)
            ]
            pids = [_greeting_pid(self.engine.paths.launcher_socket)]
            pids += [json.loads(Path(info.folder, "state.json").read_text())["supervisor"]["pid"] for info in infos]
            total = sum(_pss(pid) for pid in pids) / 1024
            name = f"memory of our processes, {count} running"
            print(f"{name:44} {total:8.1f} MB (launcher {_pss(pids[0]) / 1024:.1f})  <= {8 + 2 * count} MB")
            self.rows.append({"name": f"memory, {count} running", "MB": round(total, 1), "budget": f"<= {8 + 2 * count} MB"})
            for info in infos:
                self.engine.remove(info.id, force=True)

    def end(self) -> None:
        from pycontainers.network import client

        for peer in self.peers:
            if peer.end and not peer.refusal:
                subprocess.run(peer.end, capture_output=True, check=False)
        if (self.engine.paths.networks / "bridge").exists():
            client.sweep(self.engine.paths, [], grace=0)
            client.remove(self.engine.paths)
        client.leave(self.engine.paths)
        _leave(self.engine.paths.launcher_socket)


def _timed(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _ms(seconds: list[float], percent: int = 50) -> float:
    ordered = sorted(seconds)
    return round(1000 * (statistics.median(ordered) if percent == 50 else ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]), 2)


def _greeting_pid(path: Path) -> int:
    from pycontainers.linux import sockets

    with sockets.connect(path, 5) as conn:
        return int((sockets.receive(conn)[0] or {})["pid"])


def _leave(path: Path) -> None:
    from pycontainers.linux import sockets

    try:
        with sockets.connect(path, 5) as conn:
            sockets.receive(conn)
            sockets.send(conn, {"op": "leave"})
            while sockets.receive(conn)[0] is not None:
                pass
    except OSError:
        pass


def _cpu(paths: Any) -> float:
    """Seconds of user and system time of this process and the launcher."""
    fields = Path(f"/proc/{_greeting_pid(paths.launcher_socket)}/stat").read_text().rpartition(")")[2].split()
    launcher = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return launcher + time.process_time()


def _pss(pid: int) -> int:
    """Proportional set size in KiB (proc_pid_smaps_rollup(5))."""
    line = next(line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    return int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.benchmarks")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", default="start,exec,build,imports,memory")
    parser.add_argument("--json")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pyct-bench-", dir="/var/tmp"))
    bench = Bench(folder, options.runs)
    try:
        print("ours runs the image host (this machine's system); the peers a small root with the same programs\n")
        for peer in bench.peers:
            if peer.refusal:
                print(f"not here: {peer.name}: {peer.refusal}")
        for part in options.only.split(","):
            getattr(bench, part)()
        if options.json:
            Path(options.json).write_text(json.dumps(bench.rows, indent=1))
    finally:
        bench.end()
        subprocess.run(["sh", "-c", f"umount -l {folder}/podman/overlay 2>/dev/null"], check=False)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
