"""``doctor``, ``prune``, ``version``, ``help``."""

from __future__ import annotations

import platform
from types import SimpleNamespace

from ..results import Checks, Text
from ..version import __version__
from .declare import Argument, Verb, declare, find, verbs
from .frontend import Context


def doctor(context: Context, args: SimpleNamespace, body: str | None) -> Checks:
    return Checks(context.engine.doctor())


def prune(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    return Text("\n".join(context.engine.prune()) or "nothing to remove")


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
declare(Verb("version", "Show versions", version, group="System"))
declare(Verb("help", "Show help", help_page, (), (Argument("verb", "a verb", "?", completes="verb"),), group="System"))
