"""How states, exits and log lines are said, in the words of Docker. Beside ``objects``; no engine is asked."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from .errors import ContainerFailed
from .metrics.series import format_bytes
from .protocol import ContainerInfo, ExitStatus, LogLine, Port
from .text import ago, one_line, span


def line_text(line: LogLine, timestamps: bool = False) -> str:
    """One line as ``logs`` prints it, with its newline unless it was cut."""
    stamp = f"{timestamp(line.time)} " if timestamps else ""
    return stamp + line.text + ("" if line.partial else "\n")


def timestamp(moment: float) -> str:
    """RFC 3339 in UTC with microseconds."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def event_attributes(actor: dict[str, Any], without: tuple[str, ...] = ()) -> str:
    """``key=value, …``, but for our own labels, which say nothing about what happened (the JSON form has them)."""
    shown = sorted((key, value) for key, value in (actor.get("Attributes") or {}).items() if key not in without)
    return ", ".join(f"{key}={value}" for key, value in shown if not key.startswith("io.pycontainers."))


def event_text(event: dict[str, Any]) -> str:
    """One event as ``docker events`` prints it: time, type, action, id, (attributes)."""
    actor = event.get("Actor") or {}
    attributes = event_attributes(actor)
    when = timestamp(event.get("timeNano", 0) / 1e9)
    return one_line(f"{when} {event.get('Type')} {event.get('Action')} {actor.get('ID')} ({attributes})")


def failed(name: str, exit: ExitStatus, memory: int | None = None) -> ContainerFailed | None:
    """The error for an exit that is not zero, None for a good one. ``memory``: its limit in bytes where known."""
    name = one_line(name)
    code = 1 if exit.code is None else exit.code
    if exit.oom_killed and code != 0:
        limit = f"{format_bytes(memory)} of memory" if memory else "memory limit"
        peak = f" (peak {format_bytes(exit.memory_peak)})" if exit.memory_peak else ""
        return ContainerFailed(
            f"container {name} was OOM-killed: it needed more than its {limit}{peak}",
            "give it more with --memory",
            exit_code=code,
        )
    if exit.error:
        return ContainerFailed(f"container {name}: {exit.error}", exit.hint, exit_code=code or 125)
    if code == 0:
        return None
    if exit.signal:
        return ContainerFailed(f"container {name} was ended by {signal_name(exit.signal)} (exit code {code})", exit.hint, exit_code=code)
    return ContainerFailed(f"container {name} ended with exit code {code}", exit.hint, exit_code=code)


def signal_name(number: int) -> str:
    from signal import Signals

    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def exit_text(exit: ExitStatus) -> str:
    """``exit code 137, OOM-killed``."""
    if exit.code is None:
        return exit.error or "exit code unknown"
    return f"exit code {exit.code}" + (", OOM-killed" if exit.oom_killed else "")


def status_text(info: ContainerInfo) -> str:
    """The STATUS column of ``ps``, as Docker writes it: ``Up 3 minutes``, ``Exited (137) 2 minutes ago, OOM-killed``."""
    if info.status == "exited":
        exit = info.exit
        code = "?" if exit is None or exit.code is None else exit.code
        when = ago(exit.finished) if exit else ""
        return f"Exited ({code}) {when}".rstrip() + (", OOM-killed" if exit and exit.oom_killed else "")
    if info.status in ("running", "paused"):
        health = f" ({'health: starting' if info.health == 'starting' else info.health})" if info.health else ""
        return f"Up {span(time.time() - (info.started or info.created))}{health}{' (Paused)' if info.status == 'paused' else ''}"
    if info.status == "restarting":
        return f"Restarting ({info.restarts})"
    return info.status.capitalize()


def ports_text(ports: Iterable[Port]) -> str:
    return ", ".join(str(port) for port in ports)
