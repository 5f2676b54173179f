"""cgroup v1: one hierarchy a controller, or several controllers in one. See Documentation/admin-guide/cgroup-v1/ of Linux."""

from __future__ import annotations

import errno
import os
from typing import Any

from . import files
from .layout import Tree
from .settings import NO_DISK, Setting, bandwidth_option, device, line, one, pids_max, rdma, swap_total

_UNLIMITED = 1 << 60  # v1 writes "no limit" as the largest multiple of a page
_BLOCK = "blkio.throttle.io_service_bytes_recursive"


def make(tree: Tree, path: str, needed: set[str]) -> dict[str, str]:
    """Make the folder. Returns controller -> why it is missing: on v1 every controller of the hierarchy is there.

    :raises FileExistsError: the group exists.
    """
    folder = tree.base + path
    try:
        os.mkdir(folder, 0o755)
    except FileNotFoundError:
        parent = os.path.dirname(path)
        try:
            make(tree, parent, needed)
        except FileExistsError:
            pass  # another start made it meanwhile
        os.mkdir(folder, 0o755)
    _initialise(tree, folder)
    return {}


def _initialise(tree: Tree, folder: str) -> None:
    parent = os.path.dirname(folder)
    if "cpuset" in tree.controllers:
        # A v1 cpuset is born empty and takes no process (ENOSPC) before it has both: copied down from the parent (cpusets.rst).
        for name in ("cpuset.cpus", "cpuset.mems"):
            value = files.read(f"{parent}/{name}").strip()
            if not value and parent != tree.base:  # its maker was killed right after mkdir
                _initialise(tree, parent)
                value = files.read(f"{parent}/{name}").strip()
            if not files.read(f"{folder}/{name}").strip():
                files.write(f"{folder}/{name}", value)
    if "memory" in tree.controllers and parent == tree.base:
        # Before Linux 5.11 a child's memory counted for its parent only with this set, and only before the first child was made, which
        # takes it over.
        try:
            if files.read(f"{folder}/memory.use_hierarchy").strip() == "0":
                files.write(f"{folder}/memory.use_hierarchy", "1")
        except OSError:
            pass


def settings(resources: dict[str, Any], group: dict[str, str]) -> list[Setting]:
    """What to write for the OCI runtime specification's ``linux.resources``.

    Swap: v1's memsw counts memory plus swap, as Docker's option does. ``group``: controller -> folder (unused: v2's mirror reads it).
    """
    memory, cpu, pids = resources.get("memory") or {}, resources.get("cpu") or {}, resources.get("pids") or {}
    swap, asked = swap_total(memory)
    bandwidth, cpus = bandwidth_option(cpu)
    # Idle groups have no shares: the kernel refuses to write them (sched_group_set_shares).
    shares = None if cpu.get("idle") == 1 else cpu.get("shares") or None
    return [
        *one("memory", "memory.limit_in_bytes", memory.get("limit"), "--memory"),
        *one("memory", "memory.memsw.limit_in_bytes", swap, "--memory-swap", asked=asked),
        *one("memory", "memory.soft_limit_in_bytes", memory.get("reservation"), "--memory-reservation"),
        *one("memory", "memory.swappiness", memory.get("swappiness"), "--memory-swappiness"),
        *_oom_control(memory.get("disableOOMKiller")),
        *one("cpu", "cpu.idle", cpu.get("idle"), "cpu idle"),
        *one("cpu", "cpu.shares", shares, "--cpu-shares"),
        *one("cpu", "cpu.cfs_period_us", cpu.get("period") or None, "--cpu-period"),
        *one("cpu", "cpu.cfs_quota_us", cpu.get("quota") or None, bandwidth, cpus),
        *one("cpu", "cpu.cfs_burst_us", cpu.get("burst"), "cpu burst"),
        *one("cpu", "cpu.rt_period_us", cpu.get("realtimePeriod") or None, "--cpu-rt-period"),
        *one("cpu", "cpu.rt_runtime_us", cpu.get("realtimeRuntime") or None, "--cpu-rt-runtime"),
        *one("cpuset", "cpuset.cpus", cpu.get("cpus") or None, "--cpuset-cpus"),
        *one("cpuset", "cpuset.mems", cpu.get("mems") or None, "--cpuset-mems"),
        *one("pids", "pids.max", pids_max(pids.get("limit")), "--pids-limit", pids.get("limit")),
        *_block(resources.get("blockIO") or {}),
        *_rest(resources),
    ]


def _oom_control(disabled: bool | None) -> list[Setting]:
    """The file shows three lines (``oom_kill_disable 0`` is the first) and takes one number (memory.rst, OOM Control)."""
    if disabled is None:
        return []
    name, number = "memory.oom_control", str(int(disabled))
    return [Setting("memory", ((name, number),), "--oom-kill-disable", disabled, bool(disabled), lambda text: text.split()[1])]


_THROTTLE = {  # OCI's key -> (file, Docker's option)
    "throttleReadBpsDevice": ("blkio.throttle.read_bps_device", "--device-read-bps"),
    "throttleWriteBpsDevice": ("blkio.throttle.write_bps_device", "--device-write-bps"),
    "throttleReadIOPSDevice": ("blkio.throttle.read_iops_device", "--device-read-iops"),
    "throttleWriteIOPSDevice": ("blkio.throttle.write_iops_device", "--device-write-iops"),
}


def _block(block: dict[str, Any]) -> list[Setting]:
    """BFQ has files of its own from Linux 5.0 on; both take 10..1000 here (runc tries them in this order)."""
    rows = []
    weight = block.get("weight") or None
    if weight is not None:
        names = ("blkio.bfq.weight", "blkio.weight")
        rows.append(Setting("blkio", tuple((name, str(weight)) for name in names), "--blkio-weight", weight))
    rows += one("blkio", "blkio.leaf_weight", block.get("leafWeight") or None, "blockIO leafWeight")
    for each in block.get("weightDevice") or ():
        key = device(each)
        for name, option in (("weight", "--blkio-weight-device"), ("leafWeight", "blockIO leafWeight")):
            if each.get(name):
                text = f"{key} {each[name]}"
                files_of = ("blkio.bfq.weight_device", "blkio.weight_device") if name == "weight" else ("blkio.leaf_weight_device",)
                choices = tuple((file, text) for file in files_of)
                rows.append(Setting("blkio", choices, option, text.replace(" ", ":"), True, line(key, f"{key} 0")))
    for name, (file, option) in _THROTTLE.items():
        for each in block.get(name) or ():
            key, rate = device(each), int(each["rate"])  # 0 takes the limit away
            rows.append(Setting("blkio", ((file, f"{key} {rate}"),), option, f"{key}:{rate}", True, line(key, f"{key} 0")))
    return rows


def _rest(resources: dict[str, Any]) -> list[Setting]:
    """Huge pages, RDMA, and the marks of network packets."""
    rows = []
    for each in resources.get("hugepageLimits") or ():
        size, limit = each["pageSize"], each["limit"]
        rows += one("hugetlb", f"hugetlb.{size}.limit_in_bytes", limit, "hugepageLimits", f"{size} {limit}")
    rows += rdma(resources)
    network = resources.get("network") or {}
    rows += one("net_cls", "net_cls.classid", network.get("classID"), "network classID")
    for each in network.get("priorities") or ():
        name, text = each["name"], f"{each['name']} {each['priority']}"
        rows.append(Setting("net_prio", (("net_prio.ifpriomap", text),), "network priorities", text, True, line(name, f"{name} 0")))
    return rows


def ignored(resources: dict[str, Any]) -> list[str]:
    """What this version cannot do and nobody should fail for, one line each."""
    memory = resources.get("memory") or {}
    if memory.get("kernel") is None and memory.get("kernelTCP") is None:
        return []
    return ["the kernel memory limit is ignored: Linux counts kernel memory in --memory and has no limit of its own for it since 5.16"]


def explain(row: Setting, name: str, error: OSError) -> str:
    """What a refused write means to a user."""
    if error.errno == errno.ENOENT:
        reasons = {
            "memory.memsw.limit_in_bytes": "this kernel does not account swap (boot with swapaccount=1)",
            "blkio.weight": "no block I/O scheduler of this machine has weights (BFQ has)",
            "blkio.weight_device": "no block I/O scheduler of this machine has weights (BFQ has)",
        }
        return reasons.get(name, f"this kernel has no {name}")
    if error.errno == errno.EBUSY and row.controller == "memory":
        return "more than that is in use already"
    if error.errno == errno.EINVAL:
        reasons = {
            "memory.limit_in_bytes": "memory and swap together have a lower limit: give --memory-swap too",
            "memory.memsw.limit_in_bytes": "it is memory and swap together, and memory alone has a higher limit",
            "cpu.rt_runtime_us": "the group above has no budget of realtime processor time",
        }
        return reasons.get(name, error.strerror or str(error))
    if error.errno == errno.ENODEV and row.controller == "blkio":
        return NO_DISK
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


def is_told_to_freeze(group: dict[str, str]) -> bool:
    return files.read(f"{group['freezer']}/freezer.self_freezing").strip() == "1"


def is_held_from_above(group: dict[str, str]) -> bool:
    return files.read(f"{group['freezer']}/freezer.parent_freezing").strip() == "1"
