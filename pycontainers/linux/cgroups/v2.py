"""cgroup v2: one tree for all controllers. See Documentation/admin-guide/cgroup-v2.rst of Linux. The mirror of :mod:`.v1`."""

from __future__ import annotations

import errno
import os
from typing import Any

from . import files
from .layout import Tree
from .v1 import Setting, pids_max, processors, swap_total

_WANTED = {"cpu": "cpu", "cpuset": "cpuset", "io": "blkio", "memory": "memory", "pids": "pids"}  # v2's name -> ours
_CORE = ("cpuacct", "freezer")  # CPU time and cgroup.freeze need no controller


def make(tree: Tree, path: str) -> dict[str, str]:
    """Make the folder, its parents passing every controller on. Returns controller -> why it is missing in the group.

    :raises FileExistsError: the group exists.
    """
    current = tree.base
    parts = path.strip("/").split("/")
    missing: dict[str, str] = {}
    for part in parts:
        missing = _enable(current) | missing
        current = f"{current}/{part}"
        try:
            os.mkdir(current, 0o755)
        except FileExistsError:
            if part is parts[-1]:
                raise
    return missing


def _enable(folder: str) -> dict[str, str]:
    """Let the children of ``folder`` have its controllers. Returns controller -> why not.

    One write each: a write of several is refused whole when one of them is.
    """
    missing = {}
    available = files.read(f"{folder}/cgroup.controllers").split()
    enabled = files.read(f"{folder}/cgroup.subtree_control").split()
    for name, ours in _WANTED.items():
        if name not in available:
            missing[ours] = f"{folder} does not have the {name} controller"
        elif name not in enabled:
            try:
                files.write(f"{folder}/cgroup.subtree_control", f"+{name}")
            except OSError as error:
                missing[ours] = _refusal(folder, name, error)
    return missing


def _refusal(folder: str, name: str, error: OSError) -> str:
    if error.errno == errno.EBUSY:
        # "No Internal Process Constraint": a group other than the real root has processes, or passes controllers on, never both.
        return (
            f"{folder} cannot pass the {name} controller on while processes sit in it "
            f"(EBUSY; move them: mkdir {folder}/init; xargs -rn1 <{folder}/cgroup.procs >{folder}/init/cgroup.procs)"
        )
    return f"{folder} cannot pass the {name} controller on: {error.strerror} ({errno.errorcode.get(error.errno or 0, '?')})"


def controllers(folder: str) -> list[str]:
    """What a group really has, by our names; [] for one that does not exist."""
    try:
        present = files.read(f"{folder}/cgroup.controllers").split()
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [ours for name, ours in _WANTED.items() if name in present] + list(_CORE)


def weight_of_shares(shares: int) -> int:
    """Docker's 2..262144 (1024 is the default) to v2's 1..10000 (100 is the default).

    The curve that runc 1.3.2 and crun 1.23 use, since the older straight line made 39 of the default: with l = log2(shares),
    10 ** ((l*l + 125*l) / 612 - 7/34), rounded up (opencontainers/cgroups, ConvertCPUSharesToCgroupV2Value).
    """
    from math import ceil, log2

    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    level = log2(shares)
    return ceil(10 ** ((level * level + 125 * level) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """v1's 10..1000 to io.weight's 1..10000 (opencontainers/cgroups, ConvertBlkIOToIOWeightValue)."""
    return 1 + (weight - 10) * 9999 // 990


def settings(resources: dict[str, Any]) -> list[Setting]:
    """What to write, in order. memory.swap.max counts swap alone: Docker's figure less the memory limit."""
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    blkio, pids = resources.get("blockIO") or {}, resources.get("pids") or {}
    limit, quota, shares, weight = memory.get("limit"), cpu.get("quota"), cpu.get("shares"), blkio.get("weight")
    total, asked = swap_total(memory)
    bandwidth = None if quota is None else f"{'max' if quota < 0 else quota} {cpu.get('period') or 100000}"
    most, low = pids.get("limit"), memory.get("reservation")
    table = [
        Setting("memory", ("memory.max",), _limit(limit), "--memory", limit),
        Setting("memory", ("memory.swap.max",), _swap(limit, total), "--memory-swap", total, asked),
        Setting("memory", ("memory.low",), low, "--memory-reservation", low),
        Setting("cpu", ("cpu.weight",), None if shares is None else weight_of_shares(shares), "--cpu-shares", shares),
        Setting("cpu", ("cpu.max",), bandwidth, "--cpus", processors(cpu)),
        Setting("cpuset", ("cpuset.cpus",), cpu.get("cpus"), "--cpuset-cpus", cpu.get("cpus")),
        Setting("cpuset", ("cpuset.mems",), cpu.get("mems"), "--cpuset-mems", cpu.get("mems")),
        Setting("pids", ("pids.max",), pids_max(most), "--pids-limit", most),
        # BFQ's own file takes v1's figures as they are (1..1000); io.weight wants v2's. runc tries BFQ first.
        Setting("blkio", ("io.bfq.weight", "io.weight"), weight, "--blkio-weight", weight),
    ]
    for name, value in (resources.get("unified") or {}).items():
        table.append(Setting(_WANTED.get(name.partition(".")[0], ""), (name,), value, f"unified {name}", value))
    return [row for row in table if row.value is not None]


def _limit(value: int | None) -> object:
    return None if value is None else "max" if value < 0 else value


def _swap(limit: int | None, total: int | None) -> object:
    if total is None:
        return None
    return "max" if total < 0 or limit is None or limit < 0 else max(0, total - limit)


def order(rows: list[Setting], group: dict[str, str]) -> list[Setting]:
    """Swap is counted apart from memory: no order is needed."""
    return [
        row._replace(files=("io.weight",), value=f"default {io_weight(int(row.value))}")
        if row.files[-1] == "io.weight" and not os.path.exists(f"{group.get('blkio')}/io.bfq.weight")
        else row
        for row in rows
    ]


def explain(row: Setting, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        reasons = {
            "memory.swap.max": "this kernel does not account swap",
            "io.weight": "no block I/O scheduler of this machine has weights (BFQ has)",
        }
        return reasons.get(row.files[-1], f"this kernel has no {row.files[-1]}")
    return error.strerror or str(error)


_COUNTERS = {
    "cpuacct": ("cpu.stat",),
    "cpu": ("cpu.stat",),
    "memory": ("memory.current", "memory.stat", "memory.max", "memory.events", "memory.swap.current"),
    "pids": ("pids.current", "pids.max"),
    "blkio": ("io.stat",),
}


def counters(group: dict[str, str]) -> files.Counters:
    """Open the files with counters, for :func:`read_counters`."""
    return files.Counters(
        {name: f"{group[controller]}/{name}" for controller, names in _COUNTERS.items() if controller in group for name in names}
    )


def read_counters(group: dict[str, str], open_files: files.Counters, found: dict[str, int]) -> None:
    """Put into ``found``, by the names of :class:`pycontainers.metrics.sample.Sample`, what these controllers know.

    :raises OSError: ENODEV when the group was removed.
    """
    number = open_files.number
    cpu = open_files.flat("cpu.stat")
    if "cpuacct" in group:
        found["cpu_usage"] = files.keyed(cpu, b"usage_usec") * 1000
        found["cpu_user"] = files.keyed(cpu, b"user_usec") * 1000
        found["cpu_system"] = files.keyed(cpu, b"system_usec") * 1000
    if "cpu" in group:
        found["throttled"] = files.keyed(cpu, b"throttled_usec") * 1000
        found["throttled_periods"] = files.keyed(cpu, b"nr_throttled")
        found["periods"] = files.keyed(cpu, b"nr_periods")
    if "memory" in group:
        memory = open_files.flat("memory.stat")
        found["memory"] = max(0, number("memory.current") - files.keyed(memory, b"inactive_file"))
        found["memory_cache"] = files.keyed(memory, b"file")
        found["memory_rss"] = files.keyed(memory, b"anon")
        found["swap"] = number("memory.swap.current")
        found["memory_limit"] = number("memory.max")
        found["oom_kills"] = files.keyed(open_files.flat("memory.events"), b"oom_kill")
    if "pids" in group:
        found["pids"] = number("pids.current")
        found["pids_limit"] = number("pids.max")
    if "blkio" in group:
        words = open_files.words("io.stat")  # "8:0 rbytes=4096 wbytes=0 …" a line
        found["block_read"] = sum(int(word[7:]) for word in words if word.startswith(b"rbytes="))
        found["block_write"] = sum(int(word[7:]) for word in words if word.startswith(b"wbytes="))


def events(group: dict[str, str]) -> dict[str, int]:
    found = b"\n" + files.read(f"{group['memory']}/memory.events").encode()
    return {"oom_kill": files.keyed(found, b"oom_kill"), "oom": files.keyed(found, b"oom")}


def peak(group: dict[str, str]) -> int:
    """memory.peak exists from Linux 5.19 on."""
    try:
        return int(files.read(f"{group['memory']}/memory.peak"))
    except FileNotFoundError:
        return 0


def freeze(group: dict[str, str], frozen: bool) -> None:
    files.write(f"{group['freezer']}/cgroup.freeze", "1" if frozen else "0")


def is_frozen(group: dict[str, str]) -> bool:
    return "frozen 1" in files.read(f"{group['freezer']}/cgroup.events")
