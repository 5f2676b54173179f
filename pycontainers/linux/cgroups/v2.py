"""cgroup v2: one tree for all controllers. See Documentation/admin-guide/cgroup-v2.rst of Linux. The mirror of :mod:`.v1`."""

from __future__ import annotations

import errno
import os
from typing import Any

from . import files
from .layout import Tree
from .settings import NO_DISK, Setting, bandwidth_option, device, line, one, pids_max, rdma, swap_total

_WANTED = {"cpu": "cpu", "cpuset": "cpuset", "io": "blkio", "memory": "memory", "pids": "pids"}  # v2's name -> ours
_OURS = _WANTED | {"hugetlb": "hugetlb", "rdma": "rdma"}  # the last two are passed on only where a limit of theirs is asked for
_CORE = ("cpuacct", "freezer", "devices")  # CPU time, cgroup.freeze and programs for devices need no controller


def make(tree: Tree, path: str, needed: set[str]) -> dict[str, str]:
    """Make the folder, its parents passing every controller on. Returns controller -> why it is missing in the group.

    :param needed: controllers a limit of which is asked for; optional ones are passed on for those alone.
    :raises FileExistsError: the group exists.
    """
    current = tree.base
    parts = path.strip("/").split("/")
    wanted = _WANTED | {name: ours for name, ours in _OURS.items() if ours in needed}
    missing: dict[str, str] = {}
    for part in parts:
        missing = _enable(current, wanted, current == tree.base) | missing
        current = f"{current}/{part}"
        try:
            os.mkdir(current, 0o755)
        except FileExistsError:
            if part is parts[-1]:
                raise
    return missing


def _enable(folder: str, wanted: dict[str, str], is_base: bool) -> dict[str, str]:
    """Let the children of ``folder`` have its controllers. Returns controller -> why not.

    One write each: a write of several is refused whole when one of them is.
    """
    missing = {}
    available = files.read(f"{folder}/cgroup.controllers").split()
    enabled = files.read(f"{folder}/cgroup.subtree_control").split()
    lacking = [name for name in wanted if name in available and name not in enabled]
    # The real root has no cgroup.type, and may have processes and pass controllers on.
    if is_base and lacking and os.path.exists(f"{folder}/cgroup.type") and not make_room(folder):
        busy = OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return {wanted[name]: _refusal(folder, name, busy) for name in lacking}
    for name, ours in wanted.items():
        if name not in available:
            missing[ours] = f"{folder} does not have the {name} controller"
        elif name not in enabled:
            try:
                files.write(f"{folder}/cgroup.subtree_control", f"+{name}")
            except OSError as error:
                missing[ours] = _refusal(folder, name, error)
    return missing


ROOM = "pycontainers-outside"


def make_room(folder: str) -> bool:
    """Move the processes of a group that was delegated to us into a leaf below it, so that it can pass controllers on: a group other than
    the real root has processes, or passes controllers on, never both (No Internal Process Constraint). Before the first is passed on:
    cpu, cpuset and pids are taken even with processes, but make it the root of a threaded subtree, whose groups take no process.

    This launcher and the notebook server themselves may be there: in a systemd scope of their own, or at the root of the cgroup namespace
    of the container in which they run. They lose nothing, since every limit of the group holds for its leaves, and the leaf has none.
    Processes that fork meanwhile leave children behind: it is done again until none is left (True), or none that this user may move.
    """
    if not files.pids(folder):
        return True
    leaf = f"{folder}/{ROOM}"
    try:
        os.mkdir(leaf, 0o755)
    except FileExistsError:
        pass
    for _ in range(50):
        left = files.pids(folder)
        moved = 0
        for pid in left:
            if pid == 0:
                continue  # outside of this pid namespace; written, it would mean ourselves
            try:
                files.write(f"{leaf}/cgroup.procs", pid)
                moved += 1
            except OSError as error:
                moved += error.errno == errno.ESRCH
        if not left or not moved:
            return not left
    return False


def _refusal(folder: str, name: str, error: OSError) -> str:
    if error.errno == errno.EBUSY:
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
    return [ours for name, ours in _OURS.items() if name in present] + list(_CORE)


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


def settings(resources: dict[str, Any], group: dict[str, str]) -> list[Setting]:
    """What to write for the OCI runtime specification's ``linux.resources``. The mirror of v1's.

    :param group: controller -> folder: what a figure needs that depends on what is set now (swap alone, the quota's period).
    """
    memory, cpu, pids = resources.get("memory") or {}, resources.get("cpu") or {}, resources.get("pids") or {}
    limit, shares = memory.get("limit"), cpu.get("shares") or None
    total, asked = swap_total(memory)
    option, cpus = bandwidth_option(cpu)
    weight = None if shares is None or cpu.get("idle") == 1 else weight_of_shares(shares)
    return [
        *one("memory", "memory.max", _limit(limit), "--memory", limit),
        *one("memory", "memory.swap.max", _swap(limit, total, group), "--memory-swap", total, asked),
        *one("memory", "memory.low", memory.get("reservation"), "--memory-reservation"),
        *one("cpu", "cpu.idle", cpu.get("idle"), "cpu idle"),
        *one("cpu", "cpu.weight", weight, "--cpu-shares", shares),
        *one("cpu", "cpu.max", _bandwidth(cpu, group), option, cpus),
        *one("cpu", "cpu.max.burst", cpu.get("burst"), "cpu burst"),
        *one("cpuset", "cpuset.cpus", cpu.get("cpus") or None, "--cpuset-cpus"),
        *one("cpuset", "cpuset.mems", cpu.get("mems") or None, "--cpuset-mems"),
        *one("pids", "pids.max", pids_max(pids.get("limit")), "--pids-limit", pids.get("limit")),
        *_block(resources.get("blockIO") or {}),
        *_rest(resources),
    ]


def _limit(value: int | None) -> object:
    return None if value is None else "max" if value < 0 else value


def _now(group: dict[str, str], controller: str, name: str) -> str:
    try:
        return files.read(f"{group[controller]}/{name}").strip()
    except (KeyError, OSError):
        return ""


def _swap(limit: int | None, total: int | None, group: dict[str, str]) -> object:
    """memory.swap.max counts swap alone: Docker's figure less the memory limit, the one that is set where none is given."""
    if total is None:
        return None
    if limit is None:
        now = _now(group, "memory", "memory.max")
        limit = int(now) if now.isdigit() else None
    return "max" if total < 0 or limit is None or limit < 0 else max(0, total - limit)


def _bandwidth(cpu: dict[str, Any], group: dict[str, str]) -> str | None:
    """``cpu.max`` takes quota and period in one write; the one that is not given stays as it is."""
    quota, period = cpu.get("quota") or None, cpu.get("period") or None
    if quota is None and period is None:
        return None
    was = (_now(group, "cpu", "cpu.max") or "max 100000").split()
    return f"{was[0] if quota is None else 'max' if quota < 0 else quota} {period or was[1]}"


_THROTTLE = {  # OCI's key -> (key in io.max, Docker's option)
    "throttleReadBpsDevice": ("rbps", "--device-read-bps"),
    "throttleWriteBpsDevice": ("wbps", "--device-write-bps"),
    "throttleReadIOPSDevice": ("riops", "--device-read-iops"),
    "throttleWriteIOPSDevice": ("wiops", "--device-write-iops"),
}


def _block(block: dict[str, Any]) -> list[Setting]:
    """BFQ's own file takes v1's figures as they are (1..1000); io.weight wants v2's. runc tries BFQ first."""
    rows = []
    weight = block.get("weight") or None
    if weight is not None:
        choices = (("io.bfq.weight", str(weight)), ("io.weight", f"default {io_weight(weight)}"))
        rows.append(Setting("blkio", choices, "--blkio-weight", weight, True, line("default", "default 100")))
    for each in block.get("weightDevice") or ():
        key, of_it = device(each), each.get("weight")
        if of_it:
            choices = (("io.bfq.weight", f"{key} {of_it}"), ("io.weight", f"{key} {io_weight(of_it)}"))
            rows.append(Setting("blkio", choices, "--blkio-weight-device", f"{key}:{of_it}", True, line(key, f"{key} default")))
    for name, (file, option) in _THROTTLE.items():
        for each in block.get(name) or ():
            key, rate = device(each), int(each["rate"])  # 0 takes the limit away, as v1 has it
            text, unset = f"{key} {file}={rate or 'max'}", f"{key} rbps=max wbps=max riops=max wiops=max"
            rows.append(Setting("blkio", (("io.max", text),), option, f"{key}:{rate}", True, line(key, unset)))
    return rows


def _rest(resources: dict[str, Any]) -> list[Setting]:
    """Huge pages, RDMA, and files that are named as they are (``unified``)."""
    rows = []
    for each in resources.get("hugepageLimits") or ():
        size, limit = each["pageSize"], each["limit"]
        rows += one("hugetlb", f"hugetlb.{size}.max", limit, "hugepageLimits", f"{size} {limit}")
    rows += rdma(resources)
    for name, value in (resources.get("unified") or {}).items():
        controller = _OURS.get(name.partition(".")[0], "")
        for text in str(value).splitlines():  # a file with a line a device takes one of them a write
            rows.append(Setting(controller, ((name, text),), f"unified {name}", text))
    return rows


def ignored(resources: dict[str, Any]) -> list[str]:
    """What this version cannot do and nobody should fail for, one line each (dockerd discards the same, with a warning)."""
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    block, network = resources.get("blockIO") or {}, resources.get("network") or {}
    table = (
        (memory.get("kernel") is not None or memory.get("kernelTCP") is not None, "the kernel memory limit", "it counts in --memory"),
        (memory.get("swappiness") is not None, "--memory-swappiness", "it is the whole machine's vm.swappiness"),
        (memory.get("disableOOMKiller"), "--oom-kill-disable", "a group that is out of memory always loses a process"),
        (cpu.get("realtimeRuntime") or cpu.get("realtimePeriod"), "realtime processor time", "only the root group has realtime processes"),
        (block.get("leafWeight") or any(each.get("leafWeight") for each in block.get("weightDevice") or ()), "leafWeight", "use weight"),
        (network.get("classID") is not None or network.get("priorities"), "network marks", "nftables matches a group's path"),
    )
    return [f"{name} is ignored: cgroup v2 has none ({why})" for given, name, why in table if given]


def check(resources: dict[str, Any], group: dict[str, str]) -> str:
    """Why ``resources`` should not be set now, or "". v1's kernel refuses a limit below what is in use; v2's kills until it fits,
    so whoever does not want that says ``checkBeforeUpdate`` (runtime-spec, Memory)."""
    memory = resources.get("memory") or {}
    limit, used = memory.get("limit"), _now(group, "memory", "memory.current")
    if memory.get("checkBeforeUpdate") and limit is not None and used.isdigit() and 0 <= limit < int(used):
        return f"{used} bytes are in use already"
    return ""


def explain(row: Setting, name: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        reasons = {
            "memory.swap.max": "this kernel does not account swap",
            "io.weight": "no block I/O scheduler of this machine has weights (BFQ has)",
        }
        return reasons.get(name, f"this kernel has no {name}")
    if error.errno == errno.ENODEV and row.controller == "blkio":
        return NO_DISK
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


def is_told_to_freeze(group: dict[str, str]) -> bool:
    return files.read(f"{group['freezer']}/cgroup.freeze").strip() == "1"


def is_held_from_above(group: dict[str, str]) -> bool:
    """The core freezes a whole subtree: cgroup.freeze says what this group was told, of those above only themselves tell."""
    folder = os.path.dirname(group["freezer"])
    while os.path.exists(f"{folder}/cgroup.freeze"):  # the root has none
        if is_told_to_freeze({"freezer": folder}):
            return True
        folder = os.path.dirname(folder)
    return False
