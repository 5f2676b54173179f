"""Limits as users write them: parsed, checked against this machine, and turned into the OCI ``linux.resources`` object."""

from __future__ import annotations

import os
import stat
from typing import Any

from ...errors import LimitError
from .layout import layout

MEMORY_MINIMUM = 6 << 20  # Docker's: below it a container cannot even start
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DIGITS = frozenset("0123456789")
_MOST = (1 << 63) - 1  # what a control file takes
_PERIOD = 100_000  # microseconds, the kernel's default for CFS bandwidth
_CPU_MINIMUM = 0.01  # Docker's: the kernel's smallest quota is 1 ms in 100 ms
_QUOTA_MINIMUM, _PERIODS = 1000, (1000, 1_000_000)  # microseconds: the kernel's (sched-bwc.rst)
_RATES = {  # attribute -> (Docker's option, OCI's key)
    "device_read_bps": ("--device-read-bps", "throttleReadBpsDevice"),
    "device_write_bps": ("--device-write-bps", "throttleWriteBpsDevice"),
    "device_read_iops": ("--device-read-iops", "throttleReadIOPSDevice"),
    "device_write_iops": ("--device-write-iops", "throttleWriteIOPSDevice"),
}


def _rule(allow: bool, access: str, kind: str = "a", major: int | None = None, minor: int | None = None) -> dict[str, Any]:
    rule = {"allow": allow, "type": kind, "major": major, "minor": minor, "access": access}
    return {key: value for key, value in rule.items() if value is not None}


#: Docker's device rules (moby, oci/defaults; runc, specconv.AllowedDevices): any node may be made (which needs CAP_MKNOD, and gives no
#: access), and these may be used: null, zero, full, random, urandom, tty, console, ptmx and every pty.
DEVICE_RULES = [
    _rule(False, "rwm"),
    _rule(True, "m", "c"),
    _rule(True, "m", "b"),
    *(_rule(True, "rwm", "c", major, minor) for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2))),
    _rule(True, "rwm", "c", 136),
]
#: ``--privileged``
EVERY_DEVICE = [_rule(True, "rwm")]


def parse_device_rate(text: str, option: str = "--device-read-bps") -> tuple[str, int]:
    """``/dev/sda:1mb`` as (device, bytes a second), or operations a second for the two options that end in ``iops``. 0 is no limit.

    Whether the device is one is for :func:`check_resources`.

    :raises LimitError: no path, no rate.
    """
    counts = option.endswith("iops")
    path, colon, rate = text.rpartition(":")
    example = f"for example /dev/sda:{'1000' if counts else '1mb'}"
    if not colon or not path.startswith("/"):
        raise LimitError(f"{option} {text!r} is not DEVICE:RATE", example)
    if counts:
        if not rate or not _DIGITS.issuperset(rate) or int(rate) > _MOST:
            raise LimitError(f"{option} {text!r}: {rate!r} is not a number of operations a second", example)
        return path, int(rate)
    size = parse_size(rate, f"{option} {path}:")
    if size < 0:
        raise LimitError(f"{option} {text!r} is negative", example)
    return path, size


def parse_device_rule(text: str, option: str = "--device-cgroup-rule") -> dict[str, Any]:
    """``c 42:* rmw`` as an OCI device rule: type (a, b, c), major:minor (``*`` is any), access. :raises LimitError:"""
    fields = text.split()
    numbers = fields[1].split(":") if len(fields) == 3 else []
    good = len(numbers) == 2 and all(n == "*" or (n and _DIGITS.issuperset(n) and len(n) < 10) for n in numbers)
    if not good or fields[0] not in ("a", "b", "c") or not set(fields[2]) <= set("rwm"):
        raise LimitError(f"{option} {text!r} is not a rule for devices", "for example 'c 42:* rmw'")
    major, minor = (None if number == "*" else int(number) for number in numbers)
    return _rule(True, "".join(access for access in "rwm" if access in fields[2]), fields[0], major, minor)


def parse_size(text: str | int, option: str = "--memory") -> int:
    """Bytes of ``128m``, ``1.5g``, ``64MiB``, ``512 kb``, ``1024``; ``-1`` is -1 (unlimited, where that means something).

    Units are powers of 1024, in either case, as Docker reads them (docker/go-units, RAMInBytes). Fractions of a byte are cut off.

    :raises LimitError: not a size, or more than 2**63 - 1.
    """
    word = str(text).strip().lower()
    if word == "-1":
        return -1
    number = word.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = word[len(number) :].lstrip(" ")
    scale = _UNITS.get(unit.removesuffix("b").removesuffix("i") if unit not in ("i", "ib") else "no unit")
    whole, dot, part = number.partition(".")
    if scale is None or unit.endswith("i") or not whole or not _DIGITS.issuperset(whole + part) or (dot and not part) or len(number) > 40:
        raise LimitError(f"{option} {text!r} is not a size", "for example 512m, 1.5g or a number of bytes")
    # In whole numbers: a float would round sizes above 2**53.
    size = int(whole) * scale + (int(part) * scale // 10 ** len(part) if part else 0)
    if size > _MOST:
        raise LimitError(f"{option} {text!r} is more than any machine has", "for example 512m, 1.5g or a number of bytes")
    return size


def parse_cpus(text: str | float, option: str = "--cpus") -> float:
    """A number of processors, ``0.5`` is half of one.

    :raises LimitError: not a number. Whether the machine has so many is for :func:`check_resources`.
    """
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = float("nan")
    if not -1e6 < value < 1e6:  # nan and infinity are neither
        raise LimitError(f"{option} {text!r} is not a number of processors", "for example 0.5 or 2")
    return value


def parse_cpuset(text: str, option: str = "--cpuset-cpus") -> list[int]:
    """The processors of a list such as ``0-2,4`` (cpuset(7), list format), sorted. :raises LimitError:"""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        low, high = _index(first), _index(last) if dash else _index(first)
        if low < 0 or high < low:
            raise LimitError(f"{option} {text!r} is not a list of processors", "for example 0-1,3")
        found.update(range(low, high + 1))
    return sorted(found)


def _index(text: str) -> int:
    """A processor's number, -1 for what is none (8192 is the most that Linux can be built for)."""
    return int(text) if text and len(text) <= 4 and _DIGITS.issuperset(text) and int(text) < 8192 else -1


def online(path: str = "/sys/devices/system/cpu/online") -> list[int]:
    """The processors of this machine. Not this process's affinity: the notebook may be pinned, its containers need not be."""
    return _listed(path) or sorted(os.sched_getaffinity(0))


def nodes(path: str = "/sys/devices/system/node/online") -> list[int]:
    """The memory nodes (NUMA) of this machine."""
    return _listed(path) or [0]


def _listed(path: str) -> list[int]:
    try:
        with open(path, encoding="utf-8") as file:
            return parse_cpuset(file.read().strip())
    except (OSError, LimitError):
        return []


def swap_accounting() -> bool:
    """Whether this kernel can limit swap. True where nothing tells (v2's root has no such file): the write will say."""
    memory = next((tree for tree in layout().trees if "memory" in tree.controllers), None)
    if memory is None or memory.kind == "v2":
        return True
    return os.path.exists(f"{memory.mountpoint}/memory.memsw.limit_in_bytes")


def check_resources(resources: Any) -> None:
    """Refuse limits that make no sense on this machine.

    :param resources: a :class:`pycontainers.protocol.Resources`, or anything with its attributes.
    :raises LimitError: one line with the value; the hint says what would be right.
    """
    _check_memory(resources)
    _check_cpu(resources)
    if resources.pids_limit is not None and (resources.pids_limit < -1 or resources.pids_limit == 0):
        raise LimitError(f"--pids-limit {resources.pids_limit} makes no sense", "a positive number, or -1 for no limit")
    if resources.blkio_weight is not None and not 10 <= resources.blkio_weight <= 1000:
        raise LimitError(f"--blkio-weight {resources.blkio_weight} is out of range", "from 10 to 1000; 500 is the default")
    for name, (option, _) in _RATES.items():
        for path, _rate in getattr(resources, name):
            _disk(path, option)


def _disk(path: str, option: str) -> tuple[int, int]:
    """The numbers of a disk. The kernel limits whole disks: a partition is a part of its queue."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise LimitError(f"{option} {path}: {error.strerror}", "`lsblk -p` lists the disks of this machine") from None
    if not stat.S_ISBLK(found.st_mode):
        raise LimitError(f"{option} {path} is not a block device", "`lsblk -p` lists the disks of this machine")
    numbers = os.major(found.st_rdev), os.minor(found.st_rdev)
    if os.path.exists(f"/sys/dev/block/{numbers[0]}:{numbers[1]}/partition"):
        raise LimitError(f"{option} {path} is a partition: the kernel limits whole disks", f"the disk that {path} is on")
    return numbers


def _check_quota(resources: Any) -> None:
    period, quota = resources.cpu_period, resources.cpu_quota
    if resources.cpus is not None and (period is not None or quota is not None):
        raise LimitError("--cpus says the same as --cpu-period and --cpu-quota", "give --cpus, or the other two")
    if period is not None and not _PERIODS[0] <= period <= _PERIODS[1]:
        raise LimitError(f"--cpu-period {period} is out of range", "from 1000 to 1000000 microseconds; 100000 is the default")
    if quota is not None and quota != -1 and quota < _QUOTA_MINIMUM:
        raise LimitError(f"--cpu-quota {quota} is too little", "at least 1000 microseconds, or -1 for no limit")


def _check_cpu(resources: Any) -> None:
    _check_quota(resources)
    here = online()
    if resources.cpus is not None and not _CPU_MINIMUM <= resources.cpus <= len(here):
        count = f"{len(here)} processor{'s' * (len(here) > 1)}"
        raise LimitError(f"--cpus {resources.cpus:g} is out of range: this machine has {count}", f"from {_CPU_MINIMUM} to {len(here)}")
    if resources.cpu_shares is not None and not 2 <= resources.cpu_shares <= 262144:
        raise LimitError(f"--cpu-shares {resources.cpu_shares} is out of range", "from 2 to 262144; 1024 is the default")
    _check_list(resources.cpuset_cpus, here, "--cpuset-cpus", "processor")
    _check_list(resources.cpuset_mems, nodes(), "--cpuset-mems", "memory node")


def _check_list(text: str | None, here: list[int], option: str, what: str) -> None:
    if text is None:
        return
    absent = [number for number in parse_cpuset(text, option) if number not in here]
    if absent:
        raise LimitError(f"{option} {text}: this machine has no {what} {absent[0]}", f"it has {','.join(map(str, here))}")


def _check_memory(resources: Any) -> None:
    memory, swap, soft = resources.memory, resources.memory_swap, resources.memory_reservation
    if memory is not None and memory < MEMORY_MINIMUM:
        raise LimitError(f"--memory {memory} bytes is too little to start anything", "at least 6m")
    if swap is not None and swap < -1:
        raise LimitError(f"--memory-swap {swap} is negative", "a size, or -1 for unlimited swap")
    if swap is not None and memory is None and swap != -1:
        raise LimitError(
            "--memory-swap needs --memory: it is memory and swap together", "give both, for example --memory 64m --memory-swap 96m"
        )
    if swap is not None and memory is not None and swap != -1 and swap < memory:
        raise LimitError(
            f"--memory-swap {swap} is less than --memory {memory}: it is memory and swap together",
            "the same value as --memory means no swap",
        )
    if swap is not None and not swap_accounting():
        raise LimitError(
            f"--memory-swap {swap} cannot be set: this kernel does not account swap", "boot with swapaccount=1, or leave it out"
        )
    swappiness = resources.memory_swappiness
    if swappiness is not None and not 0 <= swappiness <= 100:
        raise LimitError(f"--memory-swappiness {swappiness} is out of range", "from 0 to 100")
    if soft is not None and soft < 0:
        raise LimitError(f"--memory-reservation {soft} is negative", "a size below --memory")
    if soft is not None and memory is not None and soft > memory:
        raise LimitError(f"--memory-reservation {soft} is more than --memory {memory}", "a size below --memory")


def to_oci(resources: Any) -> dict[str, Any]:
    """The OCI runtime specification's ``linux.resources`` object (config-linux, Control groups) of checked ``resources``.

    With a memory limit and no swap limit, memory and swap together are twice the limit, as Docker says; it is written here so that
    other runtimes do the same, and a kernel that does not account swap leaves it out.

    :raises LimitError: a device is none any more.
    """
    memory = {
        "limit": resources.memory,
        "swap": resources.memory_swap,
        "reservation": resources.memory_reservation,
        "swappiness": resources.memory_swappiness,
        "disableOOMKiller": resources.oom_kill_disable,
    }
    if resources.memory is not None and resources.memory_swap is None and swap_accounting():
        memory["swap"] = 2 * resources.memory
    cpu = {"shares": resources.cpu_shares, "cpus": resources.cpuset_cpus, "mems": resources.cpuset_mems}
    cpu |= {"quota": resources.cpu_quota, "period": resources.cpu_period}
    if resources.cpus is not None:
        # Rounded, not cut: 0.29 * 100000 is 28999.999…
        cpu |= {"quota": round(resources.cpus * _PERIOD), "period": _PERIOD}
    table = {
        "memory": memory,
        "cpu": cpu,
        "pids": {"limit": resources.pids_limit},
        "blockIO": {"weight": resources.blkio_weight} | _rates(resources),
    }
    given = {name: {key: value for key, value in part.items() if value is not None} for name, part in table.items()}
    return {name: part for name, part in given.items() if part}


def _rates(resources: Any) -> dict[str, Any]:
    found = {}
    for name, (option, key) in _RATES.items():
        disks = [(*_disk(path, option), rate) for path, rate in getattr(resources, name)]
        if disks:
            found[key] = [{"major": major, "minor": minor, "rate": rate} for major, minor, rate in disks]
    return found


def merged(old: Any, new: Any) -> Any:
    """What ``update`` makes of a container's resources: those named in ``new`` replace those of ``old``.

    ``--cpus`` and the pair ``--cpu-period``, ``--cpu-quota`` say the same: the newer form replaces the older. Swap that nobody limited
    stays twice the memory. The result is for :func:`check_resources`.
    """
    given = {name: value for name, value in vars(new).items() if value is not None and value != ()}
    values = vars(old) | given
    if "cpus" in given:
        values |= {"cpu_period": None, "cpu_quota": None}
    elif "cpu_period" in given or "cpu_quota" in given:
        values["cpus"] = None
    return type(old)(**values)


def to_rlimits(resources: dict[str, Any], why: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Where no group can be made: what setrlimit(2) can do instead, and in which way each limit is weaker, one line each.

    :param resources: OCI ``linux.resources``. :param why: why there is no group, "no cgroup was delegated to uid 1000".
    :returns: OCI ``process.rlimits`` and notes.
    """
    memory, cpu, block = resources.get("memory") or {}, resources.get("cpu") or {}, resources.get("blockIO") or {}
    rlimits, notes = [], []
    limit, most = memory.get("limit"), (resources.get("pids") or {}).get("limit")
    if limit is not None and limit > 0:
        rlimits.append({"type": "RLIMIT_AS", "soft": limit, "hard": limit})
        notes.append(f"--memory holds for the address space of each process, not for all together (RLIMIT_AS): {why}")
    if most is not None and most > 0:
        rlimits.append({"type": "RLIMIT_NPROC", "soft": most, "hard": most})
        notes.append(f"--pids-limit counts every process of this user in the same user namespace (RLIMIT_NPROC): {why}")
    table = {
        "--memory-swap": memory.get("swap") if limit is None or memory.get("swap") != 2 * limit else None,
        "--memory-reservation": memory.get("reservation"),
        "--cpus": cpu.get("quota"),
        "--cpu-shares": cpu.get("shares"),
        "--cpuset-cpus": cpu.get("cpus"),
        "--cpuset-mems": cpu.get("mems"),
        "--blkio-weight": block.get("weight"),
    }
    table |= {option: block.get(key) for option, key in _RATES.values()}
    notes += [f"{option} is not limited: {why}" for option, value in table.items() if value]
    return rlimits, notes
