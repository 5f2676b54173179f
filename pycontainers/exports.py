"""What was recorded in forms that other programs read: CSV, and the text format of OpenMetrics (Prometheus)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .metrics.series import PRESSURE_KNOWN, to_columns
from .wording import timestamp

if TYPE_CHECKING:
    from .usage import Course



def csv(courses: Sequence[Course]) -> str:
    """A line a sample: the container's name, the time (RFC 3339, UTC), the columns of ``history()``.

    A name that a spreadsheet would take for a formula is told from one by an apostrophe; names of containers begin with a letter or digit.
    """
    import csv as format
    import io

    found = io.StringIO()
    writer = format.writer(found, lineterminator="\n")
    writer.writerow(["container", *to_columns([])])
    for course in courses:
        columns = to_columns(course.samples, course.resources.cpus)
        columns_of_text = [[timestamp(moment) for moment in columns.pop("time")]]
        for values in columns.values():
            columns_of_text.append([f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value) for value in values])
        name = course.name if course.name[:1] not in "=+-@" else f"'{course.name}"
        for row in zip(*columns_of_text, strict=True):
            writer.writerow([name, *row])
    return found.getvalue()


# Names, units and meanings are those of cAdvisor, for which dashboards exist: (family, kind, unit, help, field of Sample, divisor).
_FAMILIES = (
    ("container_cpu_usage_seconds", "counter", "seconds", "CPU time used.", "cpu_usage", 1e9),
    ("container_cpu_user_seconds", "counter", "seconds", "CPU time used in user mode.", "cpu_user", 1e9),
    ("container_cpu_system_seconds", "counter", "seconds", "CPU time used by the kernel for it.", "cpu_system", 1e9),
    ("container_cpu_cfs_periods", "counter", "", "Periods in which its CPU limit was looked at.", "periods", 1),
    ("container_cpu_cfs_throttled_periods", "counter", "", "Periods in which it was held back.", "throttled_periods", 1),
    ("container_cpu_cfs_throttled_seconds", "counter", "seconds", "Time for which it was held back.", "throttled", 1e9),
    ("container_memory_working_set_bytes", "gauge", "bytes", "Memory without inactive file cache.", "memory", 1),
    ("container_memory_cache", "gauge", "", "File cache, bytes.", "memory_cache", 1),
    ("container_memory_rss", "gauge", "", "Anonymous memory, bytes.", "memory_rss", 1),
    ("container_memory_swap", "gauge", "", "Swap, bytes.", "swap", 1),
    ("container_spec_memory_limit_bytes", "gauge", "bytes", "Memory limit, 0 for none.", "memory_limit", 1),
    ("container_oom_events", "counter", "", "Processes killed for want of memory.", "oom_kills", 1),
    ("container_fs_reads_bytes", "counter", "bytes", "Bytes read from block devices.", "block_read", 1),
    ("container_fs_writes_bytes", "counter", "bytes", "Bytes written to block devices.", "block_write", 1),
    ("container_network_receive_bytes", "counter", "bytes", "Bytes received.", "net_rx", 1),
    ("container_network_transmit_bytes", "counter", "bytes", "Bytes sent.", "net_tx", 1),
    ("container_threads", "gauge", "", "Processes and threads.", "pids", 1),
    ("container_threads_max", "gauge", "", "Limit of processes and threads, 0 for none.", "pids_limit", 1),
    *[
        (f"container_pressure_{name}_{word}_seconds", "counter", "seconds", f"{who} waited for {what}.", f"pressure_{name}_{kind}", 1e9)
        for name, what in (("cpu", "a processor"), ("memory", "memory"), ("io", "the disk"))
        for word, kind, who in (("waiting", "some", "Time in which a task"), ("stalled", "full", "Time in which all tasks"))
    ],
)


def openmetrics(courses: Sequence[Course]) -> str:
    """The last sample of each, in OpenMetrics text format 1.0; what nothing was recorded of is left out."""
    lines = []
    for family, kind, unit, help, field, divisor in _FAMILIES:
        rows = []
        for course in courses:
            if not course.samples or (field.startswith("pressure_") and course.samples[-1].pressure != PRESSURE_KNOWN):
                continue
            value = getattr(course.samples[-1], field) / divisor
            number = f"{value:.9f}".rstrip("0").rstrip(".") if value != int(value) else str(int(value))
            rows.append(f"{family}{'_total' if kind == 'counter' else ''}{_labels(course)} {number}")
        if rows:
            lines += [f"# TYPE {family} {kind}", *([f"# UNIT {family} {unit}"] if unit else []), f"# HELP {family} {help}", *rows]
    return "\n".join([*lines, "# EOF"]) + "\n"


def _labels(course: Course) -> str:
    given = {"id": course.info.id, "name": course.name, "image": course.info.image}
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in given.items()) + "}"


def _escaped(value: str) -> str:
    from .text import one_line

    return one_line(value).replace("\\", "\\\\").replace('"', '\\"')
