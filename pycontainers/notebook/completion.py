"""Completion after ``%container`` and ``%%container``: a matcher that hands words to ``commands.complete``."""

from __future__ import annotations

import re
import shlex
from typing import Any

from ..commands.complete import candidates
from ..commands.frontend import native_engine
from .frontend import SETS

_MAGIC = re.compile(r"(?:^|=|;)\s*%{1,2}container\s+(.*)$", re.DOTALL)
_STAGE = re.compile(r"^\s*FROM\s.*\sAS\s+(\S+)", re.MULTILINE | re.IGNORECASE)
_ARGUMENT = re.compile(r"^\s*ARG\s+(\w+)", re.MULTILINE | re.IGNORECASE)
_MATCHER = "_pycontainers_matcher"


def names(kind: str) -> list[str]:
    """Names of containers or images, from this machine's own files; a machine without an engine completes nothing."""
    if kind == "set":
        return list(SETS.sets)
    engine = native_engine()
    if kind == "image":
        return [name for info in engine.images() for name in info.names]
    return [info.name for info in engine.containers(kind == "container")]


def of_body(kind: str, body: str) -> list[str]:
    """Names of stages, or of build arguments, in the Dockerfile of the cell: as far as it is written, right or wrong."""
    return re.findall(_STAGE if kind == "stage" else _ARGUMENT, body)


def words_at(text: str) -> tuple[list[str], str] | None:
    """The words before the cursor and the word at it, or None where this is no line of ours."""
    first = text.split("\n", 1)
    line = first[0] if text.lstrip().startswith("%%container") and len(first) == 1 else text.rsplit("\n", 1)[-1]
    match = _MAGIC.search(line)
    if match is None:
        return None
    rest = match[1]
    last = "" if not rest or rest[-1].isspace() else rest.split()[-1]
    try:
        return shlex.split(rest[: len(rest) - len(last)]), last
    except ValueError:
        return None


def attach(shell: Any) -> None:
    """Add the matcher to this shell's completer."""
    from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

    def matcher(context: CompletionContext) -> SimpleMatcherResult:
        found = words_at(context.full_text[: _offset(context)])
        if found is None:
            return {"completions": []}
        words, last = found
        body = context.full_text.partition("\n")[2]

        def known(kind: str) -> list[str]:
            if kind == "variable":
                return [name for name in shell.user_ns if not name.startswith("_") and name not in shell.user_ns_hidden]
            return of_body(kind, body) if kind in ("stage", "argument") else names(kind)

        options = candidates(words, last, known)
        return {
            "completions": [SimpleCompletion(text, type="container") for text in options],
            "suppress": bool(options),
            "matched_fragment": last,
        }

    setattr(matcher, _MATCHER, True)
    shell.Completer.custom_matchers.append(context_matcher()(matcher))


def detach(shell: Any) -> None:
    """Remove it."""
    found = shell.Completer.custom_matchers
    found[:] = [matcher for matcher in found if not hasattr(matcher, _MATCHER)]


def _offset(context: Any) -> int:
    """The cursor in the whole text: IPython gives it as line and column."""
    lines = context.full_text.split("\n")
    return sum(len(line) + 1 for line in lines[: context.cursor_line]) + int(context.cursor_position)
