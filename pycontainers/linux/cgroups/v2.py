"""cgroup v2: one tree for all controllers. See Documentation/admin-guide/cgroup-v2.rst. The mirror of :mod:`.v1`."""

from __future__ import annotations

import errno
import os
from typing import Any

from . import files
from .layout import Layout
from .v1 import Setting, _pids

_WANTED = ("cpu", "cpuset", "io", "memory", "pids")


def folders(layout: Layout, path: str) -> dict[str, str]:
    """controller -> folder of the group: the same folder for each."""
    return dict.fromkeys(layout.controllers, layout.unified + path)


def prepare(layout: Layout, path: str) -> None:
    """Make the folder, and enable the controllers from the root down to its parent: a child has what its parent passes on.

    A cgroup with processes of its own cannot pass on controllers, except the root ("no internal processes"): EBUSY then.
    """
    current = layout.unified
    for part in path.strip("/").split("/"):
        available = set(files.read(f"{current}/cgroup.controllers").split())
        enabled = set(files.read(f"{current}/cgroup.subtree_control").split())
        for name in _WANTED:
            if name in available - enabled:
                files.write(f"{current}/cgroup.subtree_control", f"+{name}")
        current = f"{current}/{part}"
        os.makedirs(current, exist_ok=True)


def shares_to_weight(shares: int) -> int:
    """Docker's 2..262144 to v2's 1..10000, linearly as runc and crun do (KEP-2254: 1 + (shares - 2) * 9999 / 262142)."""
    return 1 + (max(2, min(shares, 262144)) - 2) * 9999 // 262142


def blkio_to_io(weight: int) -> int:
    """v1's 10..1000 to v2's 1..10000, as runc and crun do."""
    return 1 + (weight - 10) * 9999 // 990


def settings(resources: dict[str, Any]) -> list[Setting]:
    """(controller, file, value, option). memory.swap.max counts swap alone: Docker's figure less the memory limit."""
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    blkio, pids = resources.get("blockIO") or {}, resources.get("pids") or {}
    quota = cpu.get("quota")
    bandwidth = None if quota is None else f"{'max' if quota < 0 else quota} {cpu.get('period') or 100000}"
    table: list[Setting] = [
        ("memory", "memory.max", _limit(memory.get("limit")), "--memory"),
        ("memory", "memory.swap.max", _swap(memory.get("limit"), memory.get("swap")), "--memory-swap"),
        ("memory", "memory.low", memory.get("reservation"), "--memory-reservation"),
        ("cpu", "cpu.weight", None if cpu.get("shares") is None else shares_to_weight(cpu["shares"]), "--cpu-shares"),
        ("cpu", "cpu.max", bandwidth, "--cpus"),
        ("cpuset", "cpuset.cpus", cpu.get("cpus"), "--cpuset-cpus"),
        ("cpuset", "cpuset.mems", cpu.get("mems"), "--cpuset-mems"),
        ("pids", "pids.max", _pids(pids.get("limit")), "--pids-limit"),
        ("blkio", "io.weight", None if blkio.get("weight") is None else f"default {blkio_to_io(blkio['weight'])}", "--blkio-weight"),
    ]
    table += [("memory", name, value, name) for name, value in (resources.get("unified") or {}).items()]
    return [row for row in table if row[2] is not None]


def _limit(value: int | None) -> object:
    return None if value is None else "max" if value < 0 else value


def _swap(limit: int | None, total: int | None) -> object:
    if total is None:
        return None
    return "max" if total < 0 or limit is None else max(0, total - limit)


def writers(controller: str, name: str, folder: str) -> str:
    if name == "io.weight" and not os.path.exists(f"{folder}/{name}"):
        return f"{folder}/io.bfq.weight"
    return f"{folder}/{name}"


def metric_files(group: dict[str, str]) -> dict[str, str]:
    folder = next(iter(group.values()))
    names = (
        "cpu.stat",
        "memory.current",
        "memory.stat",
        "memory.max",
        "memory.events",
        "memory.swap.current",
        "pids.current",
        "pids.max",
        "io.stat",
    )
    return {name: f"{folder}/{name}" for name in names}


def read_metrics(fds: dict[str, int]) -> dict[str, int]:
    def number(name: str) -> int:
        text = files.again(fds[name]).strip() if name in fds else "0"
        return int(text) if text.isdigit() else 0  # "max" is no limit

    def table(name: str) -> dict[str, int]:
        return files.pairs(files.again(fds[name])) if name in fds else {}

    cpu, memory = table("cpu.stat"), table("memory.stat")
    read, written = _block(files.again(fds["io.stat"])) if "io.stat" in fds else (0, 0)
    return {
        "cpu_usage": cpu.get("usage_usec", 0) * 1000,
        "cpu_user": cpu.get("user_usec", 0) * 1000,
        "cpu_system": cpu.get("system_usec", 0) * 1000,
        "throttled": cpu.get("throttled_usec", 0) * 1000,
        "throttled_periods": cpu.get("nr_throttled", 0),
        "periods": cpu.get("nr_periods", 0),
        "memory": max(0, number("memory.current") - memory.get("inactive_file", 0)),
        "memory_cache": memory.get("file", 0),
        "memory_rss": memory.get("anon", 0),
        "memory_limit": number("memory.max"),
        "swap": number("memory.swap.current"),
        "pids": number("pids.current"),
        "pids_limit": number("pids.max"),
        "block_read": read,
        "block_write": written,
        "oom_kills": table("memory.events").get("oom_kill", 0),
    }


def _block(text: str) -> tuple[int, int]:
    """Lines ``8:0 rbytes=4096 wbytes=0 …``."""
    read = written = 0
    for word in text.split():
        key, _, value = word.partition("=")
        if key == "rbytes":
            read += int(value)
        elif key == "wbytes":
            written += int(value)
    return read, written


def events(group: dict[str, str]) -> dict[str, int]:
    found = files.pairs(files.read(f"{next(iter(group.values()))}/memory.events"))
    return {"oom_kill": found.get("oom_kill", 0), "oom": found.get("oom", 0)}


def peak(group: dict[str, str]) -> int:
    """memory.peak exists from Linux 5.19."""
    try:
        return int(files.read(f"{next(iter(group.values()))}/memory.peak"))
    except FileNotFoundError:
        return 0


def freeze(group: dict[str, str], frozen: bool) -> None:
    files.write(f"{next(iter(group.values()))}/cgroup.freeze", "1" if frozen else "0")


def explain(row: Setting, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        reasons = {"memory.swap.max": "swap accounting is off", "io.weight": "no block I/O scheduler here has weights (BFQ has)"}
        return reasons.get(row[1], f"the {row[0]} controller is not available here")
    return error.strerror or str(error)
