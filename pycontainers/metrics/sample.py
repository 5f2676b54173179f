"""One reading of everything that a container uses: from its control group, whose files stay open (a reading is a dozen preads), or, where
nobody may make groups, summed over its processes."""

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
    pressure: whether the figures of pressure are known, and if not, why (:mod:`pycontainers.linux.cgroups.pressure`);
    pressure_RESOURCE_some, pressure_RESOURCE_full: nanoseconds in which some, or all, tasks waited for it.
    New fields come last: records that are older have fewer (:mod:`.history`).
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
    pressure: int = 0
    pressure_cpu_some: int = 0
    pressure_cpu_full: int = 0
    pressure_memory_some: int = 0
    pressure_memory_full: int = 0
    pressure_io_some: int = 0
    pressure_io_full: int = 0


FIELDS = Sample._fields


class Sampler:
    """Reads one group again and again. Every file stays open until :meth:`close`. ``note``: what the figures lack, "" for nothing."""

    __slots__ = ("_counters",)
    note = ""

    def __init__(self, group: Group) -> None:
        self._counters = group.counters()

    def read(self, net_fd: int | None = None) -> Sample:
        """What is used now.

        :param net_fd: an open ``/proc/PID/net/dev`` of the container's network namespace; None for no network figures.
        :raises OSError: ENODEV when the group was removed.
        """
        rx, tx = (0, 0) if net_fd is None else _network(net_fd)
        return Sample(time=time.time(), net_rx=rx, net_tx=tx, **self._counters.read())

    def follow(self, init: int) -> None:
        """The container was started again with this first process: its group, and what that counts, is the same."""

    def close(self) -> None:
        self._counters.close()


_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # nanoseconds
_PAGE = os.sysconf("SC_PAGESIZE")
_NO_GROUP = 2  # linux.cgroups.pressure.NO_GROUP; who samples processes does not load that room


class _Process:
    """What one process used. ``cpu_*`` and ``block_*`` with the children that it has waited for, as the kernel adds them up."""

    __slots__ = ("anonymous", "block_read", "block_write", "cpu_system", "cpu_user", "parent", "shared", "start", "threads")

    def __init__(self, pid: int) -> None:
        """:raises OSError: it is gone."""
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()  # proc_pid_stat(5): field 3 is the first behind the name
        self.parent, self.threads, self.start = int(fields[1]), int(fields[17]), int(fields[19])
        self.cpu_user = (int(fields[11]) + int(fields[13])) * _TICK
        self.cpu_system = (int(fields[12]) + int(fields[14])) * _TICK
        pages = _read(f"/proc/{pid}/statm").split()
        self.shared = int(pages[2]) * _PAGE
        self.anonymous = max(0, int(pages[1]) * _PAGE - self.shared)
        self.block_read = self.block_write = 0
        try:
            words = _read(f"/proc/{pid}/io").split()
            self.block_read, self.block_write = int(words[9]), int(words[11])  # read_bytes, write_bytes
        except PermissionError:
            pass  # it has changed its ids, and nobody without CAP_SYS_PTRACE may look (ptrace(2))


class ProcessSampler:
    """The same for a container without a group: sums over the processes of its pid namespace, looked up in /proc.

    What that is worth: CPU time has the resolution of a clock tick. Memory is the anonymous memory of all processes and the largest shared
    part of one, since file pages are shared by an unknown number. A child that nobody waits for, and a process that joined from outside
    and ended between two readings, take their last figures along. Throttling, limits and kills are not known.
    """

    __slots__ = ("_gone", "_inside", "_namespace", "_outside", "_totals")
    note = "figures are summed over the processes: no cgroup; memory counts what is shared once, at its largest"

    def __init__(self, init: int) -> None:
        """:param init: the container's first process. :raises OSError: it is gone."""
        self._totals = [0, 0, 0, 0]
        self.follow(init)

    def follow(self, init: int) -> None:
        """The container was started again with this first process: the counters go on from where they are."""
        # Sharing its starter's pid namespace, a container is its first process and whoever descends from it.
        found = os.stat(f"/proc/{init}/ns/pid").st_ino
        self._namespace = 0 if found == os.stat("/proc/self/ns/pid").st_ino else found
        self._inside = {init: _Process(init)}
        self._outside: set[int] = set()
        self._gone = list(self._totals)

    def read(self, net_fd: int | None = None) -> Sample:
        """As :meth:`Sampler.read`. Once all processes have ended the counters keep their last values."""
        self._look()
        processes = list(self._inside.values())
        sums = [
            gone + sum(getattr(process, name) for process in processes)
            for gone, name in zip(self._gone, ("cpu_user", "cpu_system", "block_read", "block_write"), strict=True)
        ]
        self._totals = [max(pair) for pair in zip(sums, self._totals, strict=True)]  # a counter never falls
        user, system, block_read, block_write = self._totals
        anonymous = sum(process.anonymous for process in processes)
        shared = max((process.shared for process in processes), default=0)
        rx, tx = (0, 0) if net_fd is None else _network(net_fd)
        return Sample(
            time=time.time(),
            cpu_usage=user + system,
            cpu_user=user,
            cpu_system=system,
            memory=anonymous + shared,
            memory_rss=anonymous,
            pids=sum(process.threads for process in processes),
            block_read=block_read,
            block_write=block_write,
            net_rx=rx,
            net_tx=tx,
            pressure=_NO_GROUP,
        )

    def close(self) -> None:
        """Nothing is kept open."""

    def _look(self) -> None:
        """Read every process inside anew, and take up those that came. A pid is asked once whether it is inside."""
        there = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        before = self._inside
        self._inside = {}
        # From the oldest: a child that is waited for between the look at its parent and at itself is missed until the next reading. The
        # other way round it would be counted twice, and a counter that never falls would keep that.
        for pid in sorted(there - self._outside):
            try:
                process = _Process(pid)
            except OSError:
                continue
            known = before.get(pid)
            if (known is not None and known.start == process.start) or self._belongs(pid, process):
                self._inside[pid] = process
            else:
                self._outside.add(pid)
        self._outside &= there
        for pid, process in before.items():
            left = self._inside.get(pid)
            # Its parent inside has waited for it and carries its figures on; one outside has not told us.
            if (left is None or left.start != process.start) and process.parent not in before:
                for index, name in enumerate(("cpu_user", "cpu_system", "block_read", "block_write")):
                    self._gone[index] += getattr(process, name)

    def _belongs(self, pid: int, process: _Process) -> bool:
        if process.parent in self._inside:
            return True
        try:
            return bool(self._namespace) and os.stat(f"/proc/{pid}/ns/pid").st_ino == self._namespace
        except OSError:
            return False


def sampler(group: Group, init: int) -> Sampler | ProcessSampler:
    """The better one that there is: of the group where it counts CPU time, else of the processes."""
    return Sampler(group) if "cpuacct" in group.paths else ProcessSampler(init)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


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
