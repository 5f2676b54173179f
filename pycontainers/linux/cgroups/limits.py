"""Limits as users write them: parsed, checked against this machine, and turned into the OCI ``linux.resources`` object."""

from __future__ import annotations

import os
from typing import Any

from ...errors import LimitError
from .layout import layout

MEMORY_MINIMUM = 6 << 20  # Docker's: below it a container cannot even start
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DIGITS = frozenset("0123456789")
_MOST = (1 << 63) - 1  # what a control file takes
_PERIOD = 100_000  # microseconds, the kernel's default for CFS bandwidth
_CPU_MINIMUM = 0.01  # Docker's: the kernel's smallest quota is 1 ms in 100 ms


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
    try:
        with open(path, encoding="ascii") as file:
            return parse_cpuset(file.read().strip())
    except (OSError, LimitError):
        return sorted(os.sched_getaffinity(0))


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


def _check_cpu(resources: Any) -> None:
    here = online()
    if resources.cpus is not None and not _CPU_MINIMUM <= resources.cpus <= len(here):
        count = f"{len(here)} processor{'s' * (len(here) > 1)}"
        raise LimitError(f"--cpus {resources.cpus:g} is out of range: this machine has {count}", f"from {_CPU_MINIMUM} to {len(here)}")
    if resources.cpu_shares is not None and not 2 <= resources.cpu_shares <= 262144:
        raise LimitError(f"--cpu-shares {resources.cpu_shares} is out of range", "from 2 to 262144; 1024 is the default")
    if resources.cpuset_cpus is not None:
        absent = [cpu for cpu in parse_cpuset(resources.cpuset_cpus) if cpu not in here]
        if absent:
            raise LimitError(
                f"--cpuset-cpus {resources.cpuset_cpus}: this machine has no processor {absent[0]}", f"it has {','.join(map(str, here))}"
            )


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
    if soft is not None and soft < 0:
        raise LimitError(f"--memory-reservation {soft} is negative", "a size below --memory")
    if soft is not None and memory is not None and soft > memory:
        raise LimitError(f"--memory-reservation {soft} is more than --memory {memory}", "a size below --memory")


def to_oci(resources: Any) -> dict[str, Any]:
    """The OCI runtime specification's ``linux.resources`` object (config-linux, Control groups) of checked ``resources``.

    With a memory limit and no swap limit, memory and swap together are twice the limit, as Docker says; it is written here so that
    other runtimes do the same, and a kernel that does not account swap leaves it out.
    """
    memory = {"limit": resources.memory, "swap": resources.memory_swap, "reservation": resources.memory_reservation}
    if resources.memory is not None and resources.memory_swap is None and swap_accounting():
        memory["swap"] = 2 * resources.memory
    cpu = {"shares": resources.cpu_shares, "cpus": resources.cpuset_cpus}
    if resources.cpus is not None:
        # Rounded, not cut: 0.29 * 100000 is 28999.999…
        cpu |= {"quota": round(resources.cpus * _PERIOD), "period": _PERIOD}
    table = {
        "memory": memory,
        "cpu": cpu,
        "pids": {"limit": resources.pids_limit},
        "blockIO": {"weight": resources.blkio_weight},
    }
    given = {name: {key: value for key, value in part.items() if value is not None} for name, part in table.items()}
    return {name: part for name, part in given.items() if part}
