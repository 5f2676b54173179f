"""``stats``: what containers use and used."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from .. import exports
from ..errors import ContainersError, UsageError
from ..results import Text
from ..usage import Course, Stats, StatsTable
from .declare import Argument, Option, Verb, declare
from .frontend import Context


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise UsageError(f"--seconds {text} is not a length of time", "more than 0")
    return value


def stats(context: Context, args: SimpleNamespace, body: str | None) -> Stats | StatsTable | Text:
    """One name: its figure. Several, or none, which means all that run: one figure with a colour for each."""
    engine = context.engine
    infos = [engine.find(name) for name in args.container] or engine.containers()
    form = "table" if args.table else "static" if args.static or args.no_stream else "live"
    found = [Stats(engine, info.id, form, args.seconds) for info in infos]
    if args.csv is not None or args.prometheus:
        return _exported(found, args)
    return found[0] if len(args.container) == 1 else StatsTable(found, form)


def _exported(found: list[Stats], args: SimpleNamespace) -> Text:
    if args.csv is not None and args.prometheus:
        raise UsageError("--csv and --prometheus contradict each other", "leave one of them out")
    if args.prometheus:
        return Text(exports.openmetrics(found))
    return written(found, args.csv)


def written(found: Sequence[Course], place: str) -> Text:
    """Samples as CSV into a file, or where its name is ``-`` as text."""
    text = exports.csv(found)
    if place == "-":
        return Text(text)
    try:
        with open(place, "w", encoding="utf-8", newline="") as file:
            file.write(text)
    except OSError as error:
        raise ContainersError(f"--csv {place}: {error.strerror}", "another FILE, or - to show it") from None
    return Text(f"{text.count(chr(10)) - 1} samples in {place}")


CSV = Option(("--csv",), "write all samples to this file as CSV; - shows them", "FILE", host_path="whole", completes="file")

declare(
    Verb(
        "stats",
        "Plot what containers use: processor, memory, network, block I/O, processes, pressure",
        stats,
        (
            Option(("--static",), "a picture and text that do not change (nbconvert, GitHub, headless runs)"),
            Option(("--no-stream",), "the same as --static, by Docker's name"),
            Option(("--table",), "text alone"),
            Option(("--seconds",), "only the last so many seconds", "NUMBER", convert=_seconds),
            CSV,
            Option(("--prometheus",), "the latest figures in the text format of Prometheus (OpenMetrics)"),
        ),
        (Argument("container", "name or id; also one that has ended; all that run where none is named", "*", completes="container"),),
        details="The record goes on whoever looks: the plot shows the whole life of a container, also after its end.",
        examples=("stats web", "stats web db --static", "stats web --csv web.csv"),
    )
)
