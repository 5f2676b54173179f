"""``cp``, ``diff``, ``export``, ``commit``: a container's files."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import BinaryIO

from ..errors import UsageError
from ..metrics.series import format_bytes
from ..objects import Image
from ..protocol import CommitRequest
from ..results import Changes, Text
from .declare import Argument, Option, Verb, declare
from .frontend import Context


def copy(context: Context, args: SimpleNamespace, body: str | None) -> Text | None:
    """A line that says how much was copied, nothing with ``--quiet`` or where the tar itself goes to stdout."""
    source, target = _place(args.source), _place(args.destination)
    if source[0] and target[0]:
        raise UsageError("copying between containers is not supported", "copy to this machine first")
    if not source[0] and not target[0]:
        raise UsageError("one of the two must be in a container", "cp CONTAINER:PATH PATH, or cp PATH CONTAINER:PATH")
    options = {"archive": args.archive, "follow": args.follow_link}
    if target[0]:
        given = standard(context, "stdin") if source[1] == "-" else source[1]
        work = context.engine.copy_in(target[0], given, target[1], **options)
    else:
        given = standard(context, "stdout") if target[1] == "-" else target[1]
        work = context.engine.copy_out(source[0], source[1], given, **options)
    size = context.frontend.progress(work, "quiet" if args.quiet else "auto")
    quiet = args.quiet or target[1] == "-"
    return None if quiet else Text(f"Successfully copied {format_bytes(size)} to {args.destination}")


def _place(text: str) -> tuple[str, str]:
    """(container, path); container "" for a path of this machine, which begins with a slash or a dot, or has no colon (Docker's rule)."""
    container, colon, path = text.partition(":")
    if text.startswith(("/", ".")) or not colon:
        return "", text
    if not container or not path:
        raise UsageError(f"{text!r} is neither CONTAINER:PATH nor a path", "a file whose name has a colon: ./NAME")
    return container, path


def standard(context: Context, name: str) -> BinaryIO:
    """stdin or stdout as a file of bytes; a notebook has neither."""
    file = getattr(sys, name)
    if context.stdin is None or file is None:
        raise UsageError("- means stdin or stdout, which a notebook does not have", "name a file or folder")
    if file.isatty():
        raise UsageError(f"a tar does not go {'to' if name == 'stdout' else 'in from'} a terminal", f"redirect {name}")
    found: BinaryIO = file.buffer
    return found


def diff(context: Context, args: SimpleNamespace, body: str | None) -> Changes:
    return Changes(context.engine.diff(args.container))


def export(context: Context, args: SimpleNamespace, body: str | None) -> Text | None:
    if args.output in (None, "-"):
        context.frontend.progress(context.engine.export(args.container, standard(context, "stdout")))
        return None
    from ..engines.transfer import whole_file

    with whole_file(args.output) as file:
        size = context.frontend.progress(context.engine.export(args.container, file))
    return Text(f"exported {format_bytes(size)} to {args.output}")


def commit(context: Context, args: SimpleNamespace, body: str | None) -> Image:
    request = CommitRequest(args.name or "", args.author, args.message, tuple(args.change), args.pause)
    return Image(context.engine, context.frontend.progress(context.engine.commit(args.container, request)))


_ONE = Argument("container", "name or id", completes="container")

declare(
    Verb(
        "cp",
        "Copy files between a container and this machine",
        copy,
        (
            Option(("--archive", "-a"), "keep owners, set-user-id bits and all attributes"),
            Option(("--follow-link", "-L"), "where SOURCE is a link, copy what it leads to"),
            Option(("--quiet", "-q"), "say nothing"),
        ),
        (
            Argument("source", "CONTAINER:PATH, a path of this machine, or - for a tar on stdin", completes="place"),
            Argument("destination", "CONTAINER:PATH, a path of this machine, or - for a tar on stdout", completes="place"),
        ),
        details="Works on running, paused, stopped and created containers, volumes included. A folder is copied into a folder that "
        "exists, and otherwise becomes the destination; FOLDER/. is what is in it. What is not archived belongs to root inside, and "
        "to you outside.",
        examples=("cp web:/var/log/app.log .", "cp src/. web:/app", "cp web:/data - | tar t"),
    )
)
declare(
    Verb(
        "diff",
        "Show what a container has changed: A added, C changed, D deleted",
        diff,
        (),
        (_ONE,),
        examples=("diff web",),
    )
)
declare(
    Verb(
        "export",
        "Write a container's root file system as a tar",
        export,
        (Option(("--output", "-o"), "file to write; - or nothing is stdout", "FILE", host_path="whole", completes="file"),),
        (_ONE,),
        details="Without what is mounted over it: volumes, /proc, /sys, /dev. The same files give the same bytes.",
        examples=("export -o web.tar web",),
    )
)
declare(
    Verb(
        "commit",
        "Make an image of what a container has written",
        commit,
        (
            Option(("--author", "-a"), "who made it", "AUTHOR", default=""),
            Option(("--message", "-m"), "why it was made", "TEXT", default=""),
            Option(
                ("--change", "-c"),
                "a Dockerfile's CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR",
                "INSTRUCTION",
                many=True,
            ),
            Option(("--pause", "-p"), "let nothing in it move meanwhile (the default; --pause=false)", default=True),
        ),
        (_ONE, Argument("name", "name of the image: NAME[:TAG]", "?")),
        examples=("commit -m 'with tools' -c 'CMD [\"serve\"]' web web:tools",),
    )
)
