"""One reading of everything that a container uses. Files stay open; a reading is a dozen preads."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..linux.cgroups import Group


class Sample(NamedTuple):
    """Counters since the container's start, and gauges.

    time: unix seconds. cpu_usage, cpu_user, cpu_system, throttled: nanoseconds. periods, throttled_periods: CFS periods.
    memory: bytes without inactive file cache (as ``docker stats`` counts); memory_cache (file), memory_rss (anonymous), swap: bytes;
    memory_limit: bytes, 0 is none. pids: processes and threads; pids_limit: 0 is none.
    block_read, block_write, net_rx, net_tx: bytes. oom_kills: processes killed for want of memory.
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
    """Reads one group again and again. Every file stays open until :meth:`close`."""

    __slots__ = ("_counters",)

    def __init__(self, group: Group) -> None:
        self._counters = group.counters()

    def read(self, net_fd: int | None = None) -> Sample:
        """What is used now.

        :param net_fd: an open ``/proc/PID/net/dev`` of the container's network namespace; None for no network figures.
        :raises OSError: ENODEV when the group was removed.
        """
        rx, tx = (0, 0) if net_fd is None else _network(net_fd)
        return Sample(time=time.time(), net_rx=rx, net_tx=tx, **self._counters.read())

    def close(self) -> None:
        self._counters.close()


def _network(fd: int) -> tuple[int, int]:
    """Bytes received and sent by all links but loopback (proc_pid_net(5), dev: fields 1 and 9 behind the name).

    The file is longer than a page on a host with many links, and a read stops at a page: read to the end.
    """
    text = b""
    try:
        while part := os.pread(fd, 16384, len(text)):
            text += part
    except OSError:
        return 0, 0  # the namespace is gone
    rx = tx = 0
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(b":")
        fields = rest.split(None, 9)
        if name.strip() != b"lo" and len(fields) > 8:
            rx += int(fields[0])
            tx += int(fields[8])
    return rx, tx
