"""``stats``: what containers use and used."""

from __future__ import annotations

from types import SimpleNamespace

from ..errors import UsageError
from ..usage import Stats, StatsTable
from .declare import Argument, Option, Verb, declare
from .frontend import Context


def _seconds(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise UsageError(f"--seconds {text} is not a length of time", "more than 0")
    return value


def stats(context: Context, args: SimpleNamespace, body: str | None) -> Stats | StatsTable:
    """One name: its plot. None or several: a table."""
    engine = context.engine
    infos = [engine.find(name) for name in args.container] or engine.containers()
    form = "table" if args.table else "static" if args.static or args.no_stream else "live"
    found = [Stats(engine, info.id, form, args.seconds) for info in infos]
    return found[0] if len(args.container) == 1 else StatsTable(found)


declare(
    Verb(
        "stats",
        "Plot what containers use: processor, memory, network, block I/O, processes",
        stats,
        (
            Option(("--static",), "a picture and text that do not change (nbconvert, GitHub, headless runs)"),
            Option(("--no-stream",), "the same as --static, by Docker's name"),
            Option(("--table",), "text alone"),
            Option(("--seconds",), "only the last so many seconds", "NUMBER", convert=_seconds),
        ),
        (Argument("container", "name or id; also one that has ended", "*", completes="container"),),
        examples=("stats web", "stats web --static"),
    )
)
