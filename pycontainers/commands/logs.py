"""``logs``."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace

from ..errors import UsageError
from ..results import Logs
from ..wording import line_text
from .declare import Argument, Option, Verb, declare
from .frontend import Context

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def moment(text: str) -> float:
    """Unix seconds from a number, an RFC 3339 time, or a length of time before now such as ``1h30m``."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        return time.time() - sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", text))
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UsageError(f"{text!r} is not a time", "unix seconds, 2026-01-31T12:00:00Z, or a length of time before now: 10m") from None


SINCE = Option(
    ("--since",), "only after this time: unix seconds, RFC 3339, or 10m for ten minutes ago", "TIME", default=0.0, convert=moment
)
UNTIL = Option(("--until",), "only before this time", "TIME", default=0.0, convert=moment)


def last_lines(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdigit():
        raise UsageError(f"--tail {text!r} is not a number of lines", "a number, or all")
    return int(text)


def logs(context: Context, args: SimpleNamespace, body: str | None) -> Logs | None:
    """The log as one object; with ``--follow`` it streams until the container ends or the kernel is interrupted."""
    lines = context.engine.logs(args.container, args.follow, args.tail, args.since, args.until)
    if not args.follow:
        found = Logs(lines)
        found.timestamps = args.timestamps
        return found
    for line in lines:
        context.frontend.stream(line.stream, line_text(line, args.timestamps).encode())
    return None


declare(
    Verb(
        "logs",
        "Show what a container wrote",
        logs,
        (
            Option(("--follow", "-f"), "go on until it ends"),
            Option(("--tail", "-n"), "only so many lines from the end", "LINES", convert=last_lines),
            SINCE,
            UNTIL,
            Option(("--timestamps", "-t"), "put the time before each line"),
        ),
        (Argument("container", "name or id", completes="container"),),
        examples=("logs -n 20 web",),
    )
)
