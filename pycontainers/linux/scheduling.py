"""How the kernel schedules a process, from the OCI ``process`` object: scheduler, ioPriority (sched_setattr(2), ioprio_set(2))."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from ..errors import ContainersError
from .syscalls import syscall

_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 1,
    "SCHED_FLAG_RECLAIM": 2,
    "SCHED_FLAG_DL_OVERRUN": 4,
    "SCHED_FLAG_KEEP_POLICY": 8,
    "SCHED_FLAG_KEEP_PARAMS": 16,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 32,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 64,
}
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IOPRIO_WHO_PROCESS, _IOPRIO_CLASS_SHIFT = 1, 13


class _SchedAttr(ctypes.Structure):
    """struct sched_attr of <linux/sched/types.h>, its first version (48 bytes)."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    ]


class Wanted:
    """What the object asks for. :raises ContainersError: a policy, flag or class that does not exist."""

    __slots__ = ("_attr", "_io", "_text")

    def __init__(self, process: dict[str, Any]) -> None:
        self._attr: _SchedAttr | None = None
        self._io: int | None = None
        self._text = ""
        scheduler, io = process.get("scheduler"), process.get("ioPriority")
        if scheduler:
            self._text = scheduler["policy"]
            self._attr = _SchedAttr(
                size=48,
                policy=_known(_POLICIES, scheduler["policy"], "scheduler.policy"),
                flags=sum(_known(_FLAGS, flag, "scheduler.flags") for flag in scheduler.get("flags") or []),
                nice=scheduler.get("nice", 0),
                priority=scheduler.get("priority", 0),
                runtime=scheduler.get("runtime", 0),
                deadline=scheduler.get("deadline", 0),
                period=scheduler.get("period", 0),
            )
        if io:
            self._io = _known(_IO_CLASSES, io["class"], "ioPriority.class") << _IOPRIO_CLASS_SHIFT | io.get("priority", 0)

    def apply(self) -> None:
        """To the calling process. :raises ContainersError: the kernel refused."""
        try:
            if self._io is not None:
                syscall("ioprio_set", _IOPRIO_WHO_PROCESS, 0, self._io)
            if self._attr is not None:
                syscall("sched_setattr", 0, ctypes.byref(self._attr), 0, detail=self._text)
        except OSError as error:
            raise ContainersError(f"process.scheduler or process.ioPriority: {error.strerror}", os.strerror(error.errno or 0)) from None


def _known(table: dict[str, int], word: str, field: str) -> int:
    if word not in table:
        raise ContainersError(f"process.{field}: {word!r} does not exist", f"one of {', '.join(table)}")
    return table[word]
