"""How a cell or a call inside has failed, said for people: with its traceback there, or with how its container ended."""

from __future__ import annotations

import linecache
from collections.abc import Iterable
from typing import Any

from ..errors import ContainedError, ContainerFailed, ContainersError
from ..metrics.series import format_bytes
from ..protocol import ExitStatus
from ..text import clean, one_line
from ..wording import signal_name
from .sources import CELL_FILE

CELL = "<cell>"
_RED, _GREEN, _CYAN, _PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[36m", "\x1b[39m"
_WIDTH, _AROUND, _MOST_FRAMES = 75, 2, 60
_LINES, _COLUMNS = 10_000_000, 500
_HOW = {
    "cause": "The above exception was the direct cause of the following exception:",
    "context": "During handling of the above exception, another exception occurred:",
}


def raised(told: Any, source: str = "", line: int = 1, files: Iterable[str] = (), item: int | None = None) -> ContainersError:
    """The error that the container tells of.

    :param source: the cell's text, its first line numbered ``line``: its lines are shown as they stand here. :param files: files of this
        side that functions came from, whose lines may be shown; nothing else that a container names is read.
    """
    try:
        chain = [_checked(part) for part in told["chain"][:5]]
        first = chain[0]
        lines = [f"{_RED}{'-' * _WIDTH}{_PLAIN}"]
        for place, part in reversed(list(enumerate(chain))):
            lines += _one(part, source, line, frozenset(files))
            if place:
                lines += ["", _HOW.get(chain[place]["how"], _HOW["context"]), ""]
    except Exception:  # whatever words that nobody should have written lead to
        return ContainersError(
            "the container tells of an error that makes no sense", "code inside has written to the notebook's connection"
        )
    if "SyntaxError" in first["bases"] and any(text.lstrip().startswith(("!", "%")) for _, _, _, text, _ in first["frames"]):
        lines.append("hint:  magics and ! are the notebook's own; inside there is plain Python: subprocess.run(['ls'])")
    return ContainedError.of(first["bases"], first["message"], first["type"], lines, item)


def _checked(part: dict[str, Any]) -> dict[str, Any]:
    """Words as words, numbers as numbers, not too many of them and none too large. :raises Exception: of any kind, it is none"""
    return {
        "type": one_line(str(part["type"])[:200]),
        "bases": [str(name)[:100] for name in part["bases"][:20]],
        "message": clean(str(part["message"])[:20_000]),
        "notes": [clean(str(note)[:20_000]) for note in part["notes"][:20]],
        "frames": [
            (one_line(str(file)[:500]), _number(at, _LINES), one_line(str(name)[:200]), clean(str(text)[:500]), _number(column, _COLUMNS))
            for file, at, name, text, column in part["frames"][:_MOST_FRAMES]
        ],
        "how": str(part["how"])[:20],
    }


def _number(value: Any, most: int) -> int:
    if type(value) is not int:
        raise TypeError("no number")
    return min(max(value, 0), most)


def _one(part: dict[str, Any], source: str, line: int, files: frozenset[str]) -> list[str]:
    title = "Traceback inside the container"
    lines = [f"{_RED}{part['type']}{_PLAIN}{title:>{max(len(title) + 2, _WIDTH - len(part['type']))}}"]
    for file, number, name, text, column in part["frames"]:
        where = f"{_GREEN}Cell{_PLAIN}" if file == CELL else f"File {_GREEN}{file}{_PLAIN}"
        if file in files and CELL_FILE.search(file):
            where = f"A {_GREEN}cell of this notebook{_PLAIN}"
        lines.append(f"{where}, line {number}" + (f", in {_CYAN}{name}{_PLAIN}" if name and name != "<module>" else ""))
        code = _code(file, number, text, source, line, files)
        if column:  # of a SyntaxError: below the line itself
            place = next((at for at, shown in enumerate(code) if shown.startswith("-")), len(code) - 1)
            code.insert(place + 1, " " * (7 + column) + "^")
        lines += code
    words = f"{_RED}{part['type']}{_PLAIN}: {part['message']}" if part["message"] else f"{_RED}{part['type']}{_PLAIN}"
    return [*lines, "", *words.split("\n"), *[text for note in part["notes"] for text in note.split("\n")]]


def _code(file: str, number: int, text: str, source: str, line: int, files: frozenset[str]) -> list[str]:
    """The line where it happened and those around it, as far as this side knows them; else the line as it was told."""
    if file == CELL and source:
        known = [""] * (line - 1) + source.split("\n")
    elif file in files:
        known = [found.rstrip("\n") for found in linecache.getlines(file)]
    else:
        known = []
    if not 0 < number <= len(known):
        return [f"{number:>7} {text}"] if text else []
    around = range(max(line if file == CELL else 1, number - _AROUND), min(len(known), number + _AROUND) + 1)
    shown = []
    for at in around:
        mark = "-" * (5 - len(str(at))) + "> " if at == number else " " * (7 - len(str(at)))
        shown.append(f"{mark}{at} {known[at - 1]}".rstrip())
    return shown


def ended(what: str, exit: ExitStatus, memory: int | None, *, hint: str = "") -> ContainerFailed | None:
    """The error for an end that is none of its own making or not a good one; None for a good one.

    :param what: ``the cell``, ``call 3``. :param memory: the limit, in bytes.
    """
    code = 1 if exit.code is None else exit.code
    if exit.oom_killed and code != 0:
        limit = f"the {format_bytes(memory)} that it may have" if memory else "this machine had for it"
        return ContainerFailed(
            f"{what} ran out of memory: it needed more than {limit}{peak(exit)}", "give it more with --memory", exit_code=code
        )
    if exit.error:
        return ContainerFailed(f"{what}: {one_line(exit.error)}", exit.hint, exit_code=code or 125)
    if exit.signal:
        why = hint or _SIGNALS.get(signal_name(exit.signal), "")
        return ContainerFailed(f"{what} crashed: its Python was ended by {signal_name(exit.signal)}{peak(exit)}", why, exit_code=code)
    if code:
        return ContainerFailed(f"{what} ended with exit code {code}", hint, exit_code=code)
    return None


_SIGNALS = {
    "SIGSEGV": "a library in C reached where it must not; what stands above says where",
    "SIGABRT": "a library in C gave up; what stands above says why",
    "SIGKILL": "something killed it: a limit of this machine, or somebody here",
}


def timed_out(what: str, seconds: float, exit: ExitStatus) -> ContainerFailed:
    return ContainerFailed(
        f"{what} was ended after {seconds:g} s{peak(exit)}", "give it longer with --timeout, or find what it waits for", exit_code=124
    )


def peak(exit: ExitStatus) -> str:
    return f" (peak {format_bytes(exit.memory_peak)})" if exit.memory_peak else ""


def unfit(name: str, missing: bool, why: str) -> ContainersError:
    """A result that cannot come back. ``why``: what it is, or which names there are instead."""
    name, why = one_line(name[:200]), one_line(why[:500])
    if missing:
        from ..errors import near

        return ContainersError(f"the cell has no variable {name!r} at its end", near(name, why.split(", ")) or f"there is: {why}")
    what = f"{name} is {why}" if name else f"what the function returns is {why}"
    return ContainersError(
        f"{what}: only plain values, NumPy arrays and tables come back",
        "bring back what it is made of; --pickle (pickle=True) takes any object, and with it any code, from the container",
    )
