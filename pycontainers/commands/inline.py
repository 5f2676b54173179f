"""``file``: files that cells write for builds to come, in named sets that live as long as the notebook's kernel."""

from __future__ import annotations

import re
from types import SimpleNamespace

from ..errors import NotFound, UsageError, near
from ..metrics.series import format_bytes
from ..results import Rows, Text
from .build_options import inline_path
from .declare import Argument, Option, Verb, declare
from .frontend import Context

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class FileSets:
    """Named sets of files: path -> content. A set comes with its first file and goes with its last."""

    def __init__(self) -> None:
        self.sets: dict[str, dict[str, bytes]] = {}

    def put(self, name: str, path: str, content: bytes) -> str:
        """Add a file or replace it; returns its path as it is called in the context. :raises UsageError: no name, no path."""
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is not the name of a set of files", "letters, digits, '_', '.' and '-': file app src/main.py")
        path = inline_path(path)
        files = self.sets.get(name, {})
        # A path that is a folder of another one: said now, and not by the build.
        if clash := next((other for other in files if other.startswith(path + "/") or path.startswith(other + "/")), ""):
            raise UsageError(f"{path} and {clash} cannot both be files of {name}", f"file --rm {name} {clash}")
        self.sets.setdefault(name, {})[path] = content
        return path

    def get(self, name: str) -> dict[str, bytes]:
        """:raises NotFound: no such set."""
        if name not in self.sets:
            hint = near(name, self.sets) or "%%container file NAME PATH writes a file of one"
            raise NotFound(f"there is no set of files {name!r} in this notebook", hint)
        return self.sets[name]

    def one(self, name: str, path: str) -> bytes:
        """:raises NotFound: no such set, no such file in it."""
        files = self.get(name)
        if inline_path(path) not in files:
            raise NotFound(f"there is no file {path} in {name}", near(path, files) or f"it has {', '.join(sorted(files))}")
        return files[inline_path(path)]

    def remove(self, name: str, path: str | None = None) -> list[str]:
        """Forget one file, or the whole set; returns the paths."""
        files = self.get(name)
        if path is None:
            return sorted(self.sets.pop(name))
        self.one(name, path)
        del files[inline_path(path)]
        if not files:
            del self.sets[name]
        return [inline_path(path)]


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
