"""cgroup v1: one hierarchy a controller, or several controllers in one. See Documentation/admin-guide/cgroup-v1/ of Linux."""

from __future__ import annotations

import errno
import os
from typing import Any, NamedTuple

from . import files
from .layout import Tree

_UNLIMITED = 1 << 60  # v1 writes "no limit" as the largest multiple of a page
_BLOCK = "blkio.throttle.io_service_bytes_recursive"


class Setting(NamedTuple):
    """One limit: controller, the file (the first of them that exists), what is written, the user's option with the user's own
    figure (for messages), and whether the user asked for it."""

    controller: str
    files: tuple[str, ...]
    value: Any
    option: str
    given: Any
    asked: bool = True


def make(tree: Tree, path: str) -> dict[str, str]:
    """Make the folder. Returns controller -> why it is missing: on v1 every controller of the hierarchy is there.

    :raises FileExistsError: the group exists.
    """
    parent = tree.base
    parts = path.strip("/").split("/")
    for part in parts:
        current = f"{parent}/{part}"
        try:
            os.mkdir(current, 0o755)
            made = True
        except FileExistsError:
            if part is parts[-1]:
                raise
            made = False
        if made or "cpuset" in tree.controllers:
            _initialise(tree, parent, current)
        parent = current
    return {}


def _initialise(tree: Tree, parent: str, current: str) -> None:
    if "cpuset" in tree.controllers:
        # A v1 cpuset is born empty and takes no process (ENOSPC) before it has both: copied down from the parent (cpusets.rst).
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not files.read(f"{current}/{name}").strip():
                files.write(f"{current}/{name}", files.read(f"{parent}/{name}").strip())
    if "memory" in tree.controllers:
        # Before Linux 5.11 a child's memory counted for its parent only with this set, and only before the first child was made.
        try:
            if files.read(f"{current}/memory.use_hierarchy").strip() == "0":
                files.write(f"{current}/memory.use_hierarchy", "1")
        except OSError:
            pass


def settings(resources: dict[str, Any]) -> list[Setting]:
    """What to write, in order. Swap: v1's memsw counts memory plus swap, as Docker's option does, and by default twice the memory."""
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    blkio, pids = resources.get("blockIO") or {}, resources.get("pids") or {}
    swap, asked = swap_total(memory)
    most, cpus = pids.get("limit"), processors(cpu)
    table = [
        _same("memory", ("memory.limit_in_bytes",), memory.get("limit"), "--memory"),
        _same("memory", ("memory.memsw.limit_in_bytes",), swap, "--memory-swap", asked),
        _same("memory", ("memory.soft_limit_in_bytes",), memory.get("reservation"), "--memory-reservation"),
        _same("cpu", ("cpu.shares",), cpu.get("shares"), "--cpu-shares"),
        Setting("cpu", ("cpu.cfs_period_us",), cpu.get("period"), "--cpus", cpus),
        Setting("cpu", ("cpu.cfs_quota_us",), cpu.get("quota"), "--cpus", cpus),
        _same("cpuset", ("cpuset.cpus",), cpu.get("cpus"), "--cpuset-cpus"),
        _same("cpuset", ("cpuset.mems",), cpu.get("mems"), "--cpuset-mems"),
        Setting("pids", ("pids.max",), pids_max(most), "--pids-limit", most),
        # BFQ has a file of its own from Linux 5.0 on; both take 10..1000 here (runc tries them in this order).
        _same("blkio", ("blkio.bfq.weight", "blkio.weight"), blkio.get("weight"), "--blkio-weight"),
    ]
    return [row for row in table if row.value is not None]


def _same(controller: str, names: tuple[str, ...], value: Any, option: str, asked: bool = True) -> Setting:
    return Setting(controller, names, value, option, value, asked)


def processors(cpu: dict[str, Any]) -> str:
    """``--cpus`` as it was given, from quota and period."""
    return f"{(cpu.get('quota') or 0) / (cpu.get('period') or 100000):g}"


def swap_total(memory: dict[str, Any]) -> tuple[int | None, bool]:
    """(memory plus swap in bytes, whether it was asked for). Docker: twice the memory where only that is limited.

    A value of exactly that is taken for the default: :func:`.limits.to_oci` writes it into the specification, as Docker does.
    """
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit is not None and limit > 0 and (swap is None or swap == 2 * limit):
        return 2 * limit, False
    return swap, True


def pids_max(limit: int | None) -> object:
    return None if limit is None else "max" if limit <= 0 else limit


def order(rows: list[Setting], group: dict[str, str]) -> list[Setting]:
    """memory.limit may never exceed memsw.limit at any moment, so memsw goes first when memory rises above what memsw is now."""
    limits = [row for row in rows if row.files[0] in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")]
    if len(limits) == 2 and "memory" in group:
        try:
            now = int(files.read(f"{group['memory']}/memory.memsw.limit_in_bytes"))
        except OSError:
            return rows
        if int(limits[0].value) > now or int(limits[0].value) < 0:
            return [limits[1], limits[0], *(row for row in rows if row not in limits)]
    return rows


def explain(row: Setting, error: OSError) -> str:
    """What a refused write means to a user."""
    name = row.files[-1]
    if error.errno == errno.ENOENT:
        reasons = {
            "memory.memsw.limit_in_bytes": "this kernel does not account swap (boot with swapaccount=1)",
            "blkio.weight": "no block I/O scheduler of this machine has weights (BFQ has)",
        }
        return reasons.get(name, f"this kernel has no {name}")
    if error.errno == errno.EBUSY and row.controller == "memory":
        return "more than that is in use already"
    return error.strerror or str(error)


_COUNTERS = {
    "cpuacct": ("cpuacct.usage", "cpuacct.usage_user", "cpuacct.usage_sys"),
    "cpu": ("cpu.stat",),
    "memory": ("memory.usage_in_bytes", "memory.stat", "memory.limit_in_bytes", "memory.oom_control"),
    "pids": ("pids.current", "pids.max"),
    "blkio": (_BLOCK,),
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
    if "cpuacct" in group:
        found["cpu_usage"] = number("cpuacct.usage")
        found["cpu_user"] = number("cpuacct.usage_user")
        found["cpu_system"] = number("cpuacct.usage_sys")
    if "cpu" in group:
        cpu = open_files.flat("cpu.stat")
        found["throttled"] = files.keyed(cpu, b"throttled_time")
        found["throttled_periods"] = files.keyed(cpu, b"nr_throttled")
        found["periods"] = files.keyed(cpu, b"nr_periods")
    if "memory" in group:
        memory = open_files.flat("memory.stat")
        limit = number("memory.limit_in_bytes")
        # Docker's "usage" leaves out file cache that would be given back at once (calculateMemUsageUnixNoCache in docker/cli).
        found["memory"] = max(0, number("memory.usage_in_bytes") - files.keyed(memory, b"total_inactive_file"))
        found["memory_cache"] = files.keyed(memory, b"total_cache")
        found["memory_rss"] = files.keyed(memory, b"total_rss")
        found["swap"] = files.keyed(memory, b"total_swap")
        found["memory_limit"] = 0 if limit >= _UNLIMITED else limit
        found["oom_kills"] = files.keyed(open_files.flat("memory.oom_control"), b"oom_kill")
    if "pids" in group:
        found["pids"] = number("pids.current")
        found["pids_limit"] = number("pids.max")
    if "blkio" in group:
        words = open_files.words(_BLOCK)  # "8:0 Read 4096" a line and kind, "Total 4096" at the end
        found["block_read"] = sum(int(words[i + 1]) for i, word in enumerate(words) if word == b"Read")
        found["block_write"] = sum(int(words[i + 1]) for i, word in enumerate(words) if word == b"Write")


def events(group: dict[str, str]) -> dict[str, int]:
    """v1 counts only the kills: ``oom`` is the same number."""
    killed = files.keyed(b"\n" + files.read(f"{group['memory']}/memory.oom_control").encode(), b"oom_kill")
    return {"oom_kill": killed, "oom": killed}


def peak(group: dict[str, str]) -> int:
    return int(files.read(f"{group['memory']}/memory.max_usage_in_bytes"))


def freeze(group: dict[str, str], frozen: bool) -> None:
    files.write(f"{group['freezer']}/freezer.state", "FROZEN" if frozen else "THAWED")


def is_frozen(group: dict[str, str]) -> bool:
    return files.read(f"{group['freezer']}/freezer.state").strip() == "FROZEN"
