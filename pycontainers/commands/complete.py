"""What may come next on a command line: from the same declarations and the same walk that read it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ..errors import ContainersError
from .declare import Option, Verb, verbs, walk

Names = Callable[[str], list[str]]
"""``container``, ``running``, ``image``, ``set``, ``stage``, ``argument`` or ``variable`` -> names.

Never the network: engines read files on disk.
"""


def candidates(words: Sequence[str], last: str, names: Names, more: tuple[Option, ...] = ()) -> list[str]:
    """Completions of ``last``, the word at the cursor; ``words`` stand before it, the verb first.

    ``more``: options that the front end has beside those of each verb. Where nothing else can follow, the options do.
    """
    known = verbs()
    if not words:
        return _starting(known, last)
    verb = known.get(words[0])
    if verb is None:
        return []
    verb = replace(verb, options=(*verb.options, *more))
    try:
        found = walk(verb, words[1:])
    except ContainersError:
        return []
    if found.in_rest:
        return []
    if found.waiting is not None:
        return _kind(found.waiting.completes, last, names)
    flag, equals, value = last.partition("=")
    if equals and (option := verb.option(flag)) is not None:
        return [f"{flag}={text}" for text in _kind(option.completes, value, names)]
    options = [name for option in verb.options for name in option.flags] + ["--help"]
    if last.startswith("-"):
        return _starting(options, last)
    kind = _argument(verb, found.positionals)
    return _kind(kind, last, names) if kind else _starting([name for name in options if name.startswith("--")], last)


def _argument(verb: Verb, before: Sequence[str]) -> str:
    """What the argument after ``before`` completes; ``install=image,remove=kernel`` depends on the first of them."""
    for index, argument in enumerate(verb.arguments):
        if index == len(before) or argument.count in ("*", "+"):
            if "=" in argument.completes:
                return dict(part.split("=") for part in argument.completes.split(",")).get(before[0], "")
            return argument.completes
    return ""


def _kind(kind: str, last: str, names: Names) -> list[str]:
    if not kind:
        return []
    if kind == "verb":
        return _starting(verbs(), last)
    if kind in ("file", "folder"):
        return files(last, kind == "folder")
    if kind == "place":  # CONTAINER:PATH, or a path of this machine
        boxes = [f"{name}:" for name in _kind("container", last, names)] if not last.startswith((".", "/", "~", "$")) else []
        return [*boxes, *files(last)]
    if kind == "kernel":
        from ..kernels import specs

        return _starting([spec.name for spec in specs.found()], last)
    if kind == "variable":  # of a list with commas the last
        before, comma, part = last.rpartition(",")
        return [before + comma + name for name in _starting(names(kind), part)]
    if "|" in kind:
        return _starting(kind.split("|"), last)
    if kind in ("container", "running", "image", "set", "stage", "argument"):
        try:
            return _starting([*names(kind), *(["host"] if kind == "image" else [])], last)
        except ContainersError:
            return []
    return _starting([kind], last)


def files(last: str, folders: bool = False) -> list[str]:
    """Paths that begin with ``last``, written as the user began them. Folders end with a slash."""
    head, tail = os.path.split(last)
    folder = os.path.expanduser(os.path.expandvars(head)) or "."
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return []
    found = []
    for entry in entries:
        if not entry.name.startswith(tail) or (entry.name.startswith(".") and not tail.startswith(".")):
            continue
        if entry.is_dir():
            found.append(os.path.join(head, entry.name) + "/")
        elif not folders:
            found.append(os.path.join(head, entry.name))
    return found


def _starting(names: Iterable[str], last: str) -> list[str]:
    return sorted({name for name in names if name.startswith(last)})
