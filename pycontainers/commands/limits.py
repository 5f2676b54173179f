"""The options that limit what a container may use: declared once, for ``run``, ``create`` and ``update``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

from ..errors import LimitError
from ..linux.cgroups.limits import parse_cpus, parse_cpuset, parse_device_rate, parse_size
from ..protocol import Resources
from .declare import Option

#: What ``update`` changes on a running container as well (Docker's list).
LIMIT_OPTIONS = (
    Option(("--memory", "-m"), "memory limit in bytes, or with k, m, g", "SIZE"),
    Option(("--memory-swap",), "limit of memory and swap together, -1 for unlimited swap", "SIZE"),
    Option(("--memory-reservation",), "memory kept when the machine runs short", "SIZE"),
    Option(("--cpus",), "processors it may use: 0.5 is half of one", "NUMBER"),
    Option(("--cpu-shares", "-c"), "weight against others when processors are short (2 to 262144)", "SHARES"),
    Option(("--cpu-period",), "length of a period in microseconds (instead of --cpus)", "MICROSECONDS"),
    Option(("--cpu-quota",), "processor time within a period in microseconds, -1 for unlimited", "MICROSECONDS"),
    Option(("--cpuset-cpus",), "processors it may run on: 0-1,3", "CPUS"),
    Option(("--cpuset-mems",), "memory nodes (NUMA) it may use: 0-1", "NODES"),
    Option(("--pids-limit",), "processes and threads at most, -1 for unlimited", "NUMBER"),
    Option(("--blkio-weight",), "weight of block I/O (10 to 1000)", "WEIGHT"),
)
#: What is settled when a container is created.
CREATION_LIMIT_OPTIONS = (
    Option(("--memory-swappiness",), "how readily its memory is swapped out (0 to 100)", "NUMBER"),
    Option(("--oom-kill-disable",), "at its memory limit its processes wait instead of being killed (cgroup v1)"),
    Option(("--device-read-bps",), "bytes a second read from a disk: /dev/sda:1mb", "RATE", many=True),
    Option(("--device-write-bps",), "bytes a second written to a disk", "RATE", many=True),
    Option(("--device-read-iops",), "reads a second from a disk: /dev/sda:100", "RATE", many=True),
    Option(("--device-write-iops",), "writes a second to a disk", "RATE", many=True),
)

Rates = Iterable[str | tuple[str, int]] | Mapping[str, str | int] | None


class LimitWords(TypedDict, total=False):
    """The limits as ``pc.run`` takes them. Names and units are Docker's; sizes in bytes or as ``"128m"``."""

    memory: str | int | None
    memory_swap: str | int | None
    memory_reservation: str | int | None
    memory_swappiness: str | int | None
    oom_kill_disable: bool | None
    cpus: str | float | None
    cpu_shares: str | int | None
    cpu_period: str | int | None
    cpu_quota: str | int | None
    cpuset_cpus: str | None
    cpuset_mems: str | None
    pids_limit: str | int | None
    blkio_weight: str | int | None
    device_read_bps: Rates
    device_write_bps: Rates
    device_read_iops: Rates
    device_write_iops: Rates


def resources_of(words: Mapping[str, Any]) -> Resources:
    """The limits among ``words`` (see :class:`LimitWords`; others are left alone), as text or as Python values.

    :raises LimitError: the first value that cannot be read. Whether this machine can give it, the engine says.
    """
    given = {name: words.get(name) for name in LimitWords.__annotations__}
    read = {name: _READERS[name](value, "--" + name.replace("_", "-")) for name, value in given.items() if value not in (None, False)}
    return Resources(**read)


def whole(value: str | int, option: str) -> int:
    """A whole number. :raises LimitError:"""
    try:
        return int(value)
    except ValueError:
        raise LimitError(f"{option} {value!r} is not a whole number", f"for example {option} 64") from None


def _list(value: str, option: str) -> str:
    parse_cpuset(value, option)
    return value


def _rates(value: Any, option: str) -> tuple[tuple[str, int], ...]:
    if isinstance(value, str):
        value = [value]
    items = [f"{path}:{rate}" for path, rate in value.items()] if isinstance(value, Mapping) else value
    return tuple(parse_device_rate(item if isinstance(item, str) else ":".join(map(str, item)), option) for item in items)


def _true(value: object, option: str) -> bool:
    return bool(value)


_READERS: dict[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(("memory", "memory_swap", "memory_reservation"), parse_size),
    **dict.fromkeys(("memory_swappiness", "cpu_shares", "cpu_period", "cpu_quota", "pids_limit", "blkio_weight"), whole),
    **dict.fromkeys(("cpuset_cpus", "cpuset_mems"), _list),
    **dict.fromkeys(("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops"), _rates),
    "cpus": parse_cpus,
    "oom_kill_disable": _true,
}
