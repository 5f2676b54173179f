"""Completion after ``%container`` and ``%%container``: a matcher that hands words to ``commands.complete``."""

from __future__ import annotations

import re
import shlex
from typing import Any

from ..commands.complete import Names, candidates
from ..commands.declare import OUT
from ..commands.frontend import native_engine
from ..errors import ContainersError
from .frontend import SETS

_MAGIC = re.compile(r"(?:^|=|;)\s*%{1,2}container\s+(.*)$", re.DOTALL)
_STAGE = re.compile(r"^\s*FROM\s.*\sAS\s+(\S+)", re.MULTILINE | re.IGNORECASE)
_ARGUMENT = re.compile(r"^\s*ARG\s+(\w+)", re.MULTILINE | re.IGNORECASE)
#: in a Dockerfile: where a name is being written -> what it may be of
_PLACES = (
    (r"^\s*FROM\s+(?:--\S+\s+)*(\S*)$", ("image", "stage")),
    (r"^\s*(?:COPY|RUN)\s.*(?:--|,)from=([^\s,]*)$", ("stage", "image")),
)
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


def on_line(words: list[str], last: str, known: Names) -> tuple[list[str], str]:
    """What may stand for ``last``; a brace begins a variable of the notebook, whose value is put in."""
    if "{" in last and "}" not in last.rpartition("{")[2] and not last.endswith("{{"):
        head, _, name = last.rpartition("{")
        return sorted(f"{head}{{{known_name}}}" for known_name in known("variable") if known_name.startswith(name)), last
    if words[:1] in (["-o"], ["--out"]):  # before the verb, as in `%container -o NAME ps`
        if len(words) == 1:
            return [name for name in sorted(known("variable")) if name.startswith(last)], last
        words = words[2:]
    return candidates(words, last, known, (OUT,)), last


def in_dockerfile(before: str, known: Names) -> tuple[list[str], str]:
    """In the body of ``%%container build``: names of images and stages, where an instruction takes them."""
    if not re.match(r"\s*%%container\s+build\b", before):
        return [], ""
    line = before.rpartition("\n")[2]
    for pattern, kinds in _PLACES:
        match = re.search(pattern, line, re.IGNORECASE)
        if match is None:
            continue
        try:
            found = {name for kind in kinds for name in known(kind)} | {"host", "scratch"}
        except ContainersError:
            found = {"host", "scratch"}
        return sorted(name for name in found if name.startswith(match[1])), match[1]
    return [], ""


def attach(shell: Any) -> None:
    """Add the matcher to this shell's completer."""
    from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

    def matcher(context: CompletionContext) -> SimpleMatcherResult:
        before = context.full_text[: _offset(context)]
        body = context.full_text.partition("\n")[2]

        def known(kind: str) -> list[str]:
            if kind == "variable":
                return [name for name in shell.user_ns if not name.startswith("_") and name not in shell.user_ns_hidden]
            return of_body(kind, body) if kind in ("stage", "argument") else names(kind)

        found = words_at(before)
        if found is None:
            options, last = in_dockerfile(before, known)
        else:
            options, last = on_line(*found, known)
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
