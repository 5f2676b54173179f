"""One reading of everything a container uses. Files stay open; a reading is a dozen preads."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..linux.cgroups import Group


class Sample(NamedTuple):
    """Counters since the container's start, and gauges.

    time: unix seconds. cpu_usage, cpu_user, cpu_system, throttled: nanoseconds. periods, throttled_periods: CFS periods.
    memory: bytes without inactive file cache (as ``docker stats`` counts); memory_cache, memory_rss, swap: bytes; memory_limit:
    bytes, 0 is none. pids: processes and threads; pids_limit: 0 is none. block_read, block_write, net_rx, net_tx: bytes.
    oom_kills: processes.
    """

    time: float = 0.0
    cpu_usage: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    throttled: int = 0
    throttled_periods: int = 0
    periods: int = 0
    memory: int = 0
    memory_cache: int = 0
    memory_rss: int = 0
    memory_limit: int = 0
    swap: int = 0
    pids: int = 0
    pids_limit: int = 0
    block_read: int = 0
    block_write: int = 0
    net_rx: int = 0
    net_tx: int = 0
    oom_kills: int = 0


FIELDS = Sample._fields


class Sampler:
    """Reads one group again and again."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._fds = group.metrics()

    def read(self, net_fd: int | None = None) -> Sample:
        """:param net_fd: an open ``/proc/PID/net/dev`` of the container's network namespace, None for no network figures."""
        rx, tx = _network(net_fd) if net_fd is not None else (0, 0)
        return Sample(time=time.time(), net_rx=rx, net_tx=tx, **self._group.read_metrics(self._fds))

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}


def _network(fd: int) -> tuple[int, int]:
    """Sum of all links but loopback (proc_pid_net(5), dev: bytes received is field 1, sent field 9)."""
    rx = tx = 0
    try:
        text = os.pread(fd, 16384, 0).decode("ascii", "replace")
    except OSError:
        return 0, 0  # the namespace is gone
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        fields = rest.split()
        if name.strip() != "lo" and len(fields) > 8:
            rx += int(fields[0])
            tx += int(fields[8])
    return rx, tx
