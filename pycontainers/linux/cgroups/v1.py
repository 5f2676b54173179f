"""cgroup v1: one hierarchy a controller, or several controllers in one. See Documentation/admin-guide/cgroup-v1/."""

from __future__ import annotations

import errno
import os
from typing import Any

from . import files
from .layout import Layout

#: what limits are written to: (key of the OCI resources, controller, file, option of the user)
Setting = tuple[str, str, object, str]


def folders(layout: Layout, path: str) -> dict[str, str]:
    """controller -> folder of the group; the v2 tree of a hybrid machine holds nothing that is needed and is left alone."""
    return {controller: mountpoint + path for controller, mountpoint in layout.controllers.items()}


def prepare(layout: Layout, path: str) -> None:
    """Make every folder. A v1 cpuset takes no process before its cpus and mems are set: they are copied down from the parent."""
    for mountpoint in dict.fromkeys(layout.controllers.values()):
        os.makedirs(mountpoint + path, exist_ok=True)
    if "cpuset" in layout.controllers:
        current = layout.controllers["cpuset"]
        for part in path.strip("/").split("/"):
            parent, current = current, f"{current}/{part}"
            for name in ("cpuset.cpus", "cpuset.mems"):
                if not files.read(f"{current}/{name}").strip():
                    files.write(f"{current}/{name}", files.read(f"{parent}/{name}").strip())


def settings(resources: dict[str, Any]) -> list[Setting]:
    """(controller, file, value, option) in the order in which they have to be written.

    Swap: v1's memsw counts memory plus swap, as Docker's option does.
    """
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    blkio, pids = resources.get("blockIO") or {}, resources.get("pids") or {}
    table: list[tuple[str, str, object, str]] = [
        ("memory", "memory.limit_in_bytes", memory.get("limit"), "--memory"),
        ("memory", "memory.memsw.limit_in_bytes", memory.get("swap"), "--memory-swap"),
        ("memory", "memory.soft_limit_in_bytes", memory.get("reservation"), "--memory-reservation"),
        ("cpu", "cpu.shares", cpu.get("shares"), "--cpu-shares"),
        ("cpu", "cpu.cfs_period_us", cpu.get("period"), "--cpus"),
        ("cpu", "cpu.cfs_quota_us", cpu.get("quota"), "--cpus"),
        ("cpuset", "cpuset.cpus", cpu.get("cpus"), "--cpuset-cpus"),
        ("cpuset", "cpuset.mems", cpu.get("mems"), "--cpuset-mems"),
        ("pids", "pids.max", _pids(pids.get("limit")), "--pids-limit"),
        ("blkio", "blkio.weight", blkio.get("weight"), "--blkio-weight"),
    ]
    return [row for row in table if row[2] is not None]


def _pids(limit: int | None) -> object:
    return None if limit is None else "max" if limit < 0 else limit


def order(wanted: list[Setting], group: dict[str, str]) -> list[Setting]:
    """memory.limit may never exceed memsw.limit at any moment: when raising both, memsw goes first."""
    limits = [row for row in wanted if row[1] in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")]
    if len(limits) == 2 and "memory" in group:
        try:
            now = int(files.read(f"{group['memory']}/memory.memsw.limit_in_bytes"))
        except OSError:
            return wanted
        if int(str(limits[0][2])) > now:
            return [limits[1], limits[0], *(row for row in wanted if row not in limits)]
    return wanted


def writers(controller: str, name: str, folder: str) -> str:
    """The file to write; blkio has another name under the BFQ scheduler."""
    if name == "blkio.weight" and not os.path.exists(f"{folder}/{name}"):
        return f"{folder}/blkio.bfq.weight"
    return f"{folder}/{name}"


def metric_files(group: dict[str, str]) -> dict[str, str]:
    names = {
        "cpuacct": ("cpuacct.usage", "cpuacct.usage_user", "cpuacct.usage_sys"),
        "cpu": ("cpu.stat",),
        "memory": ("memory.usage_in_bytes", "memory.stat", "memory.limit_in_bytes", "memory.oom_control"),
        "pids": ("pids.current", "pids.max"),
        "blkio": ("blkio.throttle.io_service_bytes_recursive",),
    }
    return {name: f"{group[controller]}/{name}" for controller, some in names.items() if controller in group for name in some}


_UNLIMITED = 1 << 60  # v1 writes "no limit" as the largest multiple of a page


def read_metrics(fds: dict[str, int]) -> dict[str, int]:
    """Counters by the names of :class:`pycontainers.metrics.sample.Sample`; what a kernel lacks is left out."""

    def number(name: str) -> int:
        text = files.again(fds[name]).strip() if name in fds else "0"
        return int(text) if text.isdigit() else 0

    memory = files.pairs(files.again(fds["memory.stat"])) if "memory.stat" in fds else {}
    cpu = files.pairs(files.again(fds["cpu.stat"])) if "cpu.stat" in fds else {}
    limit = number("memory.limit_in_bytes")
    read, written = _block(files.again(fds[_BLOCK])) if _BLOCK in fds else (0, 0)
    oom = files.pairs(files.again(fds["memory.oom_control"])) if "memory.oom_control" in fds else {}
    return {
        "cpu_usage": number("cpuacct.usage"),
        "cpu_user": number("cpuacct.usage_user"),
        "cpu_system": number("cpuacct.usage_sys"),
        "throttled": cpu.get("throttled_time", 0),
        "throttled_periods": cpu.get("nr_throttled", 0),
        "periods": cpu.get("nr_periods", 0),
        "memory": max(0, number("memory.usage_in_bytes") - memory.get("total_inactive_file", 0)),
        "memory_cache": memory.get("total_cache", 0),
        "memory_rss": memory.get("total_rss", 0),
        "memory_limit": 0 if limit >= _UNLIMITED else limit,
        "swap": memory.get("total_swap", 0),
        "pids": number("pids.current"),
        "pids_limit": number("pids.max"),
        "block_read": read,
        "block_write": written,
        "oom_kills": oom.get("oom_kill", 0),
    }


_BLOCK = "blkio.throttle.io_service_bytes_recursive"


def _block(text: str) -> tuple[int, int]:
    """Lines ``8:0 Read 4096``; a partition's disk is counted once, since only whole disks are listed."""
    read = written = 0
    for line in text.splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[1] == "Read":
            read += int(parts[2])
        elif len(parts) == 3 and parts[1] == "Write":
            written += int(parts[2])
    return read, written


def events(group: dict[str, str]) -> dict[str, int]:
    if "memory" not in group:
        return {}
    found = files.pairs(files.read(f"{group['memory']}/memory.oom_control"))
    return {"oom_kill": found.get("oom_kill", 0), "oom": found.get("under_oom", 0)}


def peak(group: dict[str, str]) -> int:
    return int(files.read(f"{group['memory']}/memory.max_usage_in_bytes")) if "memory" in group else 0


def freeze(group: dict[str, str], frozen: bool) -> None:
    files.write(f"{group['freezer']}/freezer.state", "FROZEN" if frozen else "THAWED")


def explain(row: Setting, error: OSError) -> str:
    """What a refused write means to a user."""
    if error.errno == errno.ENOENT:
        reasons = {
            "memory.memsw.limit_in_bytes": "swap accounting is off (boot with swapaccount=1)",
            "blkio.weight": "no block I/O scheduler here has weights (BFQ has)",
        }
        return reasons.get(row[1], f"this kernel has no {row[1]}")
    return error.strerror or str(error)
