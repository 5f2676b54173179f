"""Pressure of one group: for how long its tasks wanted a processor, memory or the disk and could not go on.

Documentation/accounting/psi.rst of Linux: ``some`` is time in which at least one task waited, ``full`` in which all that were not idle
did. Every group of the v2 tree has it, also where that tree controls nothing (a hybrid machine); v1 never does.
"""

from __future__ import annotations

from . import files

RESOURCES = ("cpu", "memory", "io")
UNRECORDED, KNOWN, NO_GROUP, NO_KERNEL, SWITCHED_OFF = range(5)
"""What ``Sample.pressure`` says: whether the figures are there, and if not, why."""


class Pressure:
    """The open files of one group. ``state``: KNOWN, or why there is nothing."""

    __slots__ = ("_files", "state")

    def __init__(self, folder: str) -> None:
        """:param folder: of the group in the v2 tree, "" where it has none."""
        self._files = files.Counters({f"{name}.pressure": f"{folder}/{name}.pressure" for name in RESOURCES} if folder else {})
        self.state = KNOWN
        if not folder:
            self.state = NO_GROUP
        elif not self._files.has("cpu.pressure"):
            self.state = _why(folder)

    def read(self, found: dict[str, int]) -> None:
        """Put the counters into ``found``, nanoseconds, by the names of :class:`pycontainers.metrics.sample.Sample`.

        :raises OSError: ENODEV when the group was removed.
        """
        found["pressure"] = self.state
        if self.state != KNOWN:
            return
        for name in RESOURCES:
            some, full = totals(self._files.flat(f"{name}.pressure"))
            found[f"pressure_{name}_some"] = some * 1000
            found[f"pressure_{name}_full"] = full * 1000

    def close(self) -> None:
        self._files.close()


def totals(data: bytes) -> tuple[int, int]:
    """(some, full) in microseconds: the ``total=`` of ``some avg10=… total=N`` and, in the line below, of ``full`` (cpu: Linux 5.13)."""
    found = [int(part.split(None, 1)[0]) for part in data.split(b"total=")[1:]]
    return (found[0] if found else 0, found[1] if len(found) > 1 else 0)


def _why(folder: str) -> int:
    """The files of a group are missing: switched off for it (cgroup.pressure, Linux 6.1), or the kernel does not measure at all."""
    try:
        return SWITCHED_OFF if files.read(f"{folder}/cgroup.pressure").strip() == "0" else NO_KERNEL
    except OSError:
        return NO_KERNEL
