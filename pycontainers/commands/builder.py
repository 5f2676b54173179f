"""``builder``: what builds keep for later builds."""

from __future__ import annotations

from types import SimpleNamespace

from ..errors import UsageError, near
from ..linux.cgroups.limits import parse_size
from ..metrics.series import format_bytes
from ..results import DiskTable, Text
from .declare import Argument, Option, Verb, declare
from .frontend import Context
from .logs import moment


def builder(context: Context, args: SimpleNamespace, body: str | None) -> DiskTable | Text:
    """Docker's ``builder prune`` and ``buildx du``."""
    if args.what == "du":
        rows = [row for row in context.engine.system_df() if row.kind == "Build cache"]
        return DiskTable(rows, args.verbose)
    if args.what != "prune":
        raise UsageError(f"builder {args.what!r} is unknown", near(args.what, ("prune", "du")) or "builder prune, or builder du")
    until = 0.0
    for text in args.filter:
        name, equals, value = text.partition("=")
        if name not in ("until", "unused-for") or not equals:
            raise UsageError(f"--filter {text!r} is unknown", near(name, ("until",)) or "--filter until=24h")
        until = moment(value)
    keep = None if args.keep_storage is None else parse_size(args.keep_storage, "--keep-storage")
    found = context.engine.prune_builds(args.all, keep, until)
    return Text("\n".join([*found, f"Total reclaimed space: {format_bytes(found.reclaimed)}"]) if found else "nothing to remove")


declare(
    Verb(
        "builder",
        "Make room in the build cache, or show what it takes up",
        builder,
        (
            Option(("--all", "-a"), "also forget the steps whose layers an image has: the next build runs every step"),
            Option(("--filter",), "until=24h: only what was not used for so long", "FILTER", many=True),
            Option(
                ("--keep-storage", "--max-used-space", "--reserved-space"),
                "stop when no more than this is left; what was used longest ago goes first",
                "SIZE",
            ),
            Option(("--force", "-f"), "as Docker: here nothing is asked"),
            Option(("--verbose", "-v"), "each step and cache mount by itself (du)"),
        ),
        (Argument("what", "prune or du", completes="prune|du"),),
        group="Images",
        details="The cache bounds itself: what was not used for longest goes when it is larger than a tenth of the disk (2 to 20 GB), or\n"
        "than PYCONTAINERS_BUILD_CACHE says (5g; 0: none is kept, -1: no bound).",
        examples=("builder du -v", "builder prune --keep-storage 2g --filter until=168h"),
    )
)
