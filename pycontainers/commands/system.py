"""``doctor``, ``verify``, ``prune``, ``system``, ``version``, ``help``."""

from __future__ import annotations

import platform
from types import SimpleNamespace

from ..errors import UsageError, near
from ..metrics.series import format_bytes
from ..results import Checks, DiskTable, Problems, Text
from ..version import __version__
from .declare import Argument, Option, Verb, declare, find, verbs
from .frontend import Context


def doctor(context: Context, args: SimpleNamespace, body: str | None) -> Checks:
    return Checks(context.engine.doctor())


def prune(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    found = context.engine.prune()
    return Text("\n".join([*found, f"Total reclaimed space: {format_bytes(found.reclaimed)}"]) if found else "nothing to remove")


def verify(context: Context, args: SimpleNamespace, body: str | None) -> Problems:
    return Problems(context.frontend.progress(context.engine.verify(args.repair), "auto", "verified"))


def system(context: Context, args: SimpleNamespace, body: str | None) -> DiskTable | Text:
    """Docker's ``system df`` and ``system prune``."""
    if args.what == "df":
        return DiskTable(context.engine.system_df(), args.verbose)
    if args.what == "prune":
        return prune(context, args, body)
    raise UsageError(f"system {args.what!r} is unknown", near(args.what, ("df", "prune")) or "system df, or system prune")


def version(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    kernel = platform.uname()
    return Text(f"pycontainers {__version__}\nPython {platform.python_version()}\n{kernel.system} {kernel.release} {kernel.machine}")


def help_page(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    """One verb's page, or the list of all."""
    prompt = context.frontend.prompt
    return Text(find(args.verb).help(prompt) if args.verb is not None else overview(prompt))


def overview(prompt: str) -> str:
    """All verbs by group, with the first line of each."""
    lines = [f"Usage: {prompt} VERB [OPTIONS] [ARGUMENTS]"]
    known = list(verbs().values())
    width = max(len(verb.name) for verb in known)
    for group in dict.fromkeys(verb.group for verb in known):
        lines += ["", f"{group}:", *[f"  {verb.name:<{width}}  {verb.summary}" for verb in known if verb.group == group]]
    return "\n".join([*lines, "", f"More about one: {prompt} help VERB"])


declare(Verb("doctor", "Say what works on this machine, what does not, why, and what would mend it", doctor, group="System"))
declare(Verb("prune", "Remove containers that have ended and what nothing uses", prune, group="System"))
declare(
    Verb(
        "system",
        "Show what images and containers take up on the disk (df), or make room (prune)",
        system,
        (Option(("--verbose", "-v"), "each image and container by itself"),),
        (Argument("what", "df or prune", completes="df|prune"),),
        group="System",
        examples=("system df -v",),
    )
)
declare(
    Verb(
        "verify",
        "Look at everything in the image store, each layer against its digest",
        verify,
        (Option(("--repair",), "put right what can be: from the layers as they came, else the image is taken away"),),
        group="System",
        details="As a program it ends with 1 where something is wrong and was not repaired.",
    )
)
declare(Verb("version", "Show versions", version, group="System"))
declare(Verb("help", "Show help", help_page, (), (Argument("verb", "a verb", "?", completes="verb"),), group="System"))
