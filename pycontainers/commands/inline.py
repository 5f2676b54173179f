"""``file``: files that cells write for builds to come, in named sets that live as long as the notebook's kernel."""

from __future__ import annotations

from types import SimpleNamespace

from ..errors import UsageError
from ..metrics.series import format_bytes
from ..results import Rows, Text
from .declare import Argument, Option, Verb, declare
from .frontend import Context


def write(context: Context, args: SimpleNamespace, body: str | None) -> Text | Rows:
    """Write a file from the cell's body, show one, list those of a set or all sets, or remove."""
    sets = context.files
    if sets is None:
        raise UsageError("sets of files belong to a notebook", "in a shell, write the file into the context folder")
    if args.rm:
        if args.name is None or body is not None:
            raise UsageError("file --rm takes a set, perhaps a path in it, and no cell body", "%container file --rm NAME [PATH]")
        return Text("\n".join(sets.remove(args.name, args.path)))
    if body is not None:
        if args.name is None or args.path is None:
            raise UsageError("a file needs the name of its set and a path", "%%container file NAME PATH")
        path = sets.put(args.name, args.path, body.encode())
        return Text(f"{args.name}: {path}, {format_bytes(len(body.encode()))}")
    if args.path is not None:
        return Text(sets.one(args.name, args.path).decode("utf-8", "replace"))
    chosen = {args.name: sets.get(args.name)} if args.name is not None else sets.sets
    rows = [(name, path, format_bytes(len(files[path]))) for name, files in sorted(chosen.items()) for path in sorted(files)]
    return Rows(("SET", "PATH", "SIZE"), rows)


declare(
    Verb(
        "file",
        "Write a file for builds from the cell's body; list, show or remove such files",
        write,
        (Option(("--rm",), "remove the file, or without a path the whole set"),),
        (
            Argument("name", "the set that the file belongs to", "?", completes="set"),
            Argument("path", "its path in the build context", "?"),
        ),
        body="optional",
        body_help="the file's content",
        group="Images",
        details="A set is the whole context of a build (build --context NAME), or is laid over the context folder (build --files NAME).\n"
        "It is kept in the notebook's memory, and goes with its kernel.",
        examples=("file app src/main.py", "file app", "file --rm app src/main.py"),
    )
)
