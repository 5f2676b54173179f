"""Step boundaries: ``mark("network up")`` says that a step has been done. Nothing listens in production; tests kill and measure here.

A mark costs one call. Names are those of docs/architecture.md, "Start sequence"; they are collected in :data:`STEPS` so that a test can
tell that it has tried every one.
"""

from __future__ import annotations

from collections.abc import Callable

#: process -> its steps in order
STEPS: dict[str, tuple[str, ...]] = {
    "client": ("folder", "asked"),
    "launcher": ("request", "map", "program"),
    "supervisor": (
        "locked",
        "starting",
        "ports",
        "cgroup",
        "cloned",
        "released",
        "network",
        "mounted",
        "executed",
        "running",
        "answered",
        "ended",
        "drained",
        "reaped",
        "cleaned",
        "exit",
        "exited",
    ),
    "init": ("entered", "mapped", "session", "root", "pivoted", "covered", "told", "networked", "confining"),
    "exec": ("request", "joined", "forked", "inside"),
}

listener: Callable[[str, str], None] | None = None
"""Called with (process, step) in the process that has reached the step."""


def mark(process: str, step: str) -> None:
    if listener is not None:
        listener(process, step)
