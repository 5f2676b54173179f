"""Limits as users write them: parsed, checked against this machine, and turned into the OCI ``linux.resources`` object."""

from __future__ import annotations

import os
from typing import Any

from ...errors import LimitError

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
MEMORY_MINIMUM = 6 << 20  # Docker's: below it a container cannot even start
_PERIOD = 100_000  # microseconds, the kernel's default for CFS bandwidth


def parse_size(text: str | int, option: str = "--memory") -> int:
    """Bytes of ``128m``, ``1.5g``, ``64MiB``, ``1024``; ``-1`` is -1 (unlimited, where that means something).

    :raises LimitError: not a size.
    """
    if isinstance(text, int):
        return text
    word = text.strip().lower()
    if word == "-1":
        return -1
    number = word.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = word[len(number) :]
    key = "b" if unit == "b" else unit.removesuffix("ib") if unit.endswith("ib") and len(unit) == 3 else unit.removesuffix("b")
    try:
        if key not in _UNITS or not number or any(c not in "0123456789." for c in number):
            raise ValueError
        return int(float(number) * _UNITS[key])
    except (ValueError, OverflowError):
        raise LimitError(f"{option} {text!r} is not a size", "for example 512m, 1.5g or a number of bytes") from None


def parse_cpus(text: str | float, option: str = "--cpus") -> float:
    """A number of processors. :raises LimitError:"""
    try:
        value = float(text)
    except (TypeError, ValueError):
        raise LimitError(f"{option} {text!r} is not a number of processors", "for example 0.5 or 2") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise LimitError(f"{option} {text!r} is not a number of processors", "for example 0.5 or 2")
    return value


def parse_cpuset(text: str, option: str = "--cpuset-cpus") -> list[int]:
    """The processors of a list such as ``0-2,4`` (cpuset(7), list format), sorted. :raises LimitError:"""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or len(part) > 16:
            raise LimitError(f"{option} {text!r} is not a list of processors", "for example 0-1,3")
        low, high = int(first), int(last) if dash else int(first)
        if high < low or high > 8191:
            raise LimitError(f"{option} {text!r} is not a list of processors", "for example 0-1,3")
        found.update(range(low, high + 1))
    return sorted(found)


def online() -> list[int]:
    """The processors that this process may use."""
    return sorted(os.sched_getaffinity(0))


def check_resources(resources: Any) -> None:
    """Refuse limits that make no sense on this machine. Takes :class:`pycontainers.protocol.Resources`.

    :raises LimitError: one line with the value, and what would be right.
    """
    _check_memory(resources)
    count = len(online())
    if resources.cpus is not None and not 0.01 <= resources.cpus <= count:
        raise LimitError(f"--cpus {resources.cpus:g} is out of range: this machine has {count} processors", f"from 0.01 to {count}")
    if resources.cpu_shares is not None and not 2 <= resources.cpu_shares <= 262144:
        raise LimitError(f"--cpu-shares {resources.cpu_shares} is out of range", "from 2 to 262144; 1024 is the default")
    if resources.cpuset_cpus is not None:
        missing = [cpu for cpu in parse_cpuset(resources.cpuset_cpus) if cpu not in online()]
        if missing:
            raise LimitError(
                f"--cpuset-cpus {resources.cpuset_cpus}: processor {missing[0]} is not there",
                f"this machine has {','.join(map(str, online()))}",
            )
    if resources.pids_limit is not None and (resources.pids_limit < -1 or resources.pids_limit == 0):
        raise LimitError(f"--pids-limit {resources.pids_limit} makes no sense", "a positive number, or -1 for no limit")
    if resources.blkio_weight is not None and not 10 <= resources.blkio_weight <= 1000:
        raise LimitError(f"--blkio-weight {resources.blkio_weight} is out of range", "from 10 to 1000; 500 is the default")


def _check_memory(resources: Any) -> None:
    memory, swap, soft = resources.memory, resources.memory_swap, resources.memory_reservation
    if memory is not None and memory < MEMORY_MINIMUM:
        raise LimitError(f"--memory {memory} bytes is too little to start anything", "at least 6m")
    if swap is not None and memory is None and swap != -1:
        raise LimitError(
            "--memory-swap needs --memory: it is memory and swap together", "give both, for example --memory 64m --memory-swap 96m"
        )
    if swap is not None and memory is not None and swap != -1 and swap < memory:
        raise LimitError(
            f"--memory-swap {swap} is less than --memory {memory}: it is memory and swap together",
            "the same value as --memory means no swap",
        )
    if soft is not None and soft < 0:
        raise LimitError(f"--memory-reservation {soft} is negative", "a size below --memory")
    if soft is not None and memory is not None and soft > memory:
        raise LimitError(f"--memory-reservation {soft} is more than --memory {memory}", "a size below --memory")


def to_oci(resources: Any) -> dict[str, Any]:
    """The OCI runtime-spec ``linux.resources`` object (config-linux, Control groups).

    With a memory limit and no swap limit, memory and swap together are twice the limit, as Docker says.
    """
    memory: dict[str, Any] = {}
    if resources.memory is not None:
        memory["limit"] = resources.memory
        memory["swap"] = 2 * resources.memory if resources.memory_swap is None else resources.memory_swap
    if resources.memory_reservation is not None:
        memory["reservation"] = resources.memory_reservation
    cpu: dict[str, Any] = {}
    if resources.cpus is not None:
        cpu.update(quota=int(resources.cpus * _PERIOD), period=_PERIOD)
    if resources.cpu_shares is not None:
        cpu["shares"] = resources.cpu_shares
    if resources.cpuset_cpus is not None:
        cpu["cpus"] = resources.cpuset_cpus
    result: dict[str, Any] = {}
    if memory:
        result["memory"] = memory
    if cpu:
        result["cpu"] = cpu
    if resources.pids_limit is not None:
        result["pids"] = {"limit": resources.pids_limit}
    if resources.blkio_weight is not None:
        result["blockIO"] = {"weight": resources.blkio_weight}
    return result
