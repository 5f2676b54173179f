"""Step boundaries: ``mark("network up")`` says that a step has been done. Nothing listens in production; tests kill and measure here.

A mark costs one call. Names are those of docs/architecture.md, "Start sequence"; they are collected in :data:`STEPS` so that a test can
tell that it has tried every one (tests/runtime/test_faults.py).
"""

from __future__ import annotations

from collections.abc import Callable

#: process -> its steps in order
STEPS: dict[str, tuple[str, ...]] = {
    "client": (
        "building",
        "claimed",
        "written",
        "created",
        "prepared",
        "asked",
        "started",
        "ended",
        "exec asked",
        "exec started",
        "exec ended",
        "request",
        "reply",
        "stopped",
        "removing",
    ),
    "launcher": ("request", "passed on"),
    "starter": ("starting", "cgroup", "cloned", "released", "network", "mounted", "executed", "running"),
    "supervisor": (
        "locked",
        "ports",
        "asked",
        "running",
        "answered",
        "ended",
        "drained",
        "reaped",
        "cleaned",
        "exit",
        "exited",
        # What not every life has: a stop, a pause, a rest between two runs, a start that failed.
        "signalled",
        "frozen",
        "resting",
        "undone",
    ),
    "ahead": ("cloned", "mapped", "ready"),  # a first process, before it is anybody's
    "init": ("entered", "mapped", "session", "root", "pivoted", "covered", "told", "networked", "confining"),
    "exec": ("request", "joined", "forked", "inside", "started", "ended"),
    "removal": ("unnamed", "renamed", "removed"),  # by whoever removes: a client, a supervisor (--rm), a sweep
}

listener: Callable[[str, str], None] | None = None
"""Called with (process, step) in the process that has reached the step."""


descriptors: list[int] = []
"""What the listener needs, in a process that closes all descriptors but its own."""


def mark(process: str, step: str) -> None:
    if listener is not None:
        listener(process, step)
