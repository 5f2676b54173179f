"""Starts and exec, from a cell of a running notebook against the wall time of the peers' own commands."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from typing import Any

from . import state
from .house import House
from .peers import without_v2
from .report import in_turn, timed


def start(house: House) -> None:
    """Three ways: warm, with a cold launcher, 50 back to back."""
    _ = house.kernel, house.docker  # before without_v2(): a thread made inside would keep this one from coming back
    with without_v2():
        _warm(house)
    _cold(house)
    _back_to_back(house)


def _warm(house: House) -> None:
    report, kernel, image = house.report, house.kernel, house.image
    theirs = {peer.name: lambda peer=peer: timed(peer.once) for peer in house.peers}
    ours: dict[str, Any] = {
        "none": lambda: kernel(f"cell.start({image!r}, 'none')"),
        "bridge": lambda: kernel(f"cell.start({image!r}, 'bridge')"),
        "call none": lambda: kernel(f"cell.call({image!r}, 'none')"),
        "call bridge": lambda: kernel(f"cell.call({image!r}, 'bridge')"),
        "line none": lambda: kernel(f"cell.magic({image!r}, 'none')"),
        "line bridge": lambda: kernel(f"cell.magic({image!r}, 'bridge')"),
    }
    in_turn(ours | theirs, 2)
    found = in_turn(ours | theirs, house.runs)
    report.heading(f"start, warm: echo in a small root from a cell, {house.runs} runs of each in turn")
    gone = {network: [run["gone"] for run in found[network]] for network in ("none", "bridge")}
    for network in ("none", "bridge"):
        report.times(f"first output, network {network}", [run["first"] for run in found[network]], 20)
        report.times(f"run --rm, network {network}, until nothing is left", gone[network])
        report.times(f"pc.run(..., rm=True), network {network}, the call", found[f"call {network}"])
        report.times(f"%container run --rm, network {network}, the line", found[f"line {network}"])
    for name in theirs:
        report.times(name, found[name])
    if "crun run" in theirs:
        report.ratio("run --rm without network / crun run", gone["none"], found["crun run"], 1.0)
    if "bwrap --unshare-all" in theirs:
        report.ratio("run --rm without network / bwrap (the stretch)", gone["none"], found["bwrap --unshare-all"])
    if "docker run --rm" in theirs:
        report.ratio("run --rm with bridge / docker run --rm", gone["bridge"], found["docker run --rm"], 1 / 25)


def _cold(house: House) -> None:
    """The launcher is ended before each start, the network helper for the bridge too."""
    from pycontainers.runtime import network as helper

    report, kernel, paths = house.report, house.kernel, house.state.engine.paths

    def once(network: str) -> dict[str, float]:
        state.leave(paths.launcher_socket)
        if network == "bridge":
            helper.leave(paths)
        return dict(kernel(f"cell.start({house.image!r}, {network!r})"))

    found = in_turn({network: lambda network=network: once(network) for network in ("none", "bridge")}, house.runs)
    report.heading("start, cold: no launcher (and for the bridge no network helper) runs")
    for network, runs in found.items():
        report.times(f"first output, network {network}", [run["first"] for run in runs])
        report.times(f"run --rm, network {network}, until nothing is left", [run["gone"] for run in runs])


def _back_to_back(house: House, count: int = 50) -> None:
    """With the CPU time of all processes: what is prepared ahead of need is in it, because the clock runs on until they rest."""
    report, kernel = house.report, house.kernel
    report.heading(f"start, {count} back to back, with the CPU time of all processes (kernel, launcher, helpers, supervisors, containers)")
    with Accounts(house) as accounts:
        for network in ("none", "bridge"):
            kernel(f"cell.many({house.image!r}, {network!r}, 3)")
            time.sleep(1)
            accounts.begin()
            seconds = kernel(f"cell.many({house.image!r}, {network!r}, {count})")
            time.sleep(1)  # what is left to do behind the answer, and what is prepared for the next
            used, machine = accounts.end()
            report.times(f"run --rm, network {network}, each", seconds)
            each, everybody = 1000 * used / count, 1000 * machine / count
            report.figure(f"CPU time of our processes a start, network {network}", each, "ms", machine_ms=everybody)
            report.note(f"the whole machine's, with the kernel's threads and everybody else on it: {everybody:.1f} ms")
    for peer in house.peers:
        if peer.name.startswith(("crun", "bwrap", "runc")):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            with without_v2():
                for _ in range(20):
                    peer.once()
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            report.figure(f"CPU time of {peer.name}", 1000 * used / 20, "ms")


class Accounts:
    """CPU time of a kernel and everything that it starts, by a cgroup, and of the containers, by the parent of theirs.

    Whoever else has containers of pycontainers on this machine meanwhile is counted too.
    """

    def __init__(self, house: House) -> None:
        from pycontainers.linux import cgroups

        self.house, self.name = house, f"/pyct-bench-{os.getpid()}-cpu"
        self.group = cgroups.create(self.name, {})
        for pid in (house.kernel.pid, *house.processes()):
            self.group.add(pid)
        self.reader = self.group.counters()

    def __enter__(self) -> Accounts:
        return self

    def _now(self) -> tuple[float, float]:
        from pycontainers.linux import cgroups

        used = self.reader.read().get("cpu_usage", 0) / 1e9
        containers = cgroups.open("/pycontainers").counters()
        used += containers.read().get("cpu_usage", 0) / 1e9
        containers.close()
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(word) for word in file.readline().split()[1:]]
        return used, (sum(ticks[:3]) + sum(ticks[5:8])) / os.sysconf("SC_CLK_TCK")  # without idle and iowait (proc_stat(5))

    def begin(self) -> None:
        self.before = self._now()

    def end(self) -> tuple[float, float]:
        """(seconds of ours, seconds of the machine) since :meth:`begin`."""
        used, machine = self._now()
        return used - self.before[0], machine - self.before[1]

    def __exit__(self, *exception: object) -> None:
        from pycontainers.linux import cgroups

        self.reader.close()
        root = cgroups.open("/")
        for pid in self.group.pids():
            root.add(pid)
        self.group.remove()


def exec(house: House) -> None:
    report, kernel, docker = house.report, house.kernel, house.docker
    native = house.state.engine
    from pycontainers.protocol import ContainerConfig

    info = native.start(native.create(ContainerConfig(house.image, ("/bin/sleep", "1000"), network="none")).id)
    calls: dict[str, Any] = {"ours": lambda: kernel(f"cell.exec_true({info.id!r})")}
    if not docker.refusal:
        theirs = docker("run", "-d", docker.image, "/bin/sleep", "1000")
        command = [*docker.client, "exec", theirs, "/bin/true"]
        calls["docker exec"] = lambda: timed(lambda: subprocess.run(command, check=True))
    in_turn(calls, 2)
    found = in_turn(calls, house.runs)
    native.remove(info.id, force=True)
    report.heading(f"exec true in a running container, {house.runs} of each in turn")
    for name, seconds in found.items():
        report.times(name, seconds)
    if "docker exec" in found:
        report.ratio("exec / docker exec", found["ours"], found["docker exec"], 0.1)
        docker("rm", "-f", theirs)


def heap(house: House) -> None:
    """The starting process may have a 2 GB heap."""
    from .kernel import Kernel

    report, pairs = house.report, max(house.runs, 30)
    report.heading(f"a kernel with a heap of 2 GB, every page of it touched, beside one without, {pairs} pairs")
    fill = "heap = bytearray(2 << 30)\nfor place in range(0, len(heap), 4096): heap[place] = 1"
    with Kernel() as small, Kernel(fill) as large:
        kernels = {"small": small, "large": large}
        calls = {name: lambda kernel=kernel: kernel(f"cell.start({house.image!r}, 'none')") for name, kernel in kernels.items()}
        in_turn(calls, 3)
        found = in_turn(calls, pairs)
        rss = _resident(large.pid) / (1 << 30)
    for part in ("first", "gone"):
        ours, theirs = ([run[part] for run in found[name]] for name in ("large", "small"))
        report.times(f"{part}, small heap", theirs)
        report.times(f"{part}, heap of {rss:.1f} GB", ours)
        report.interval(f"{part}: large / small", ours, theirs, below=1.0)


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
