"""An exception as data: its kind, its words, and where it passed, for the notebook to tell in its own way."""

from __future__ import annotations

import builtins
import os
import traceback
from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_CHAIN, _FRAMES, _TEXT = 5, 60, 20_000


def failure(error: BaseException) -> dict[str, Any]:
    """``{"chain": [...]}``: the exception, then what it came from."""
    chain: list[dict[str, Any]] = []
    seen: set[int] = set()
    how = ""
    at: BaseException | None = error
    while at is not None and id(at) not in seen and len(chain) < _CHAIN:
        seen.add(id(at))
        chain.append({**_one(at), "how": how})
        if at.__cause__ is not None:
            at, how = at.__cause__, "cause"
        elif at.__context__ is not None and not at.__suppress_context__:
            at, how = at.__context__, "context"
        else:
            at = None
    return {"chain": chain}


def _one(error: BaseException) -> dict[str, Any]:
    kind = type(error)
    told: dict[str, Any] = {
        "type": kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}",
        "bases": [base.__name__ for base in kind.__mro__ if getattr(builtins, base.__name__, None) is base],
        "message": _words(error),
        "notes": [str(note)[:_TEXT] for note in getattr(error, "__notes__", [])[:10]],
        "frames": _frames(error),
    }
    if isinstance(error, SyntaxError):
        place = [str(error.filename), error.lineno or 0, "", (error.text or "").rstrip("\n")[:500], error.offset or 0]
        # Of the cell's own text only where it is wrong is of interest, not who has read it.
        told["frames"] = [place] if error.filename == "<cell>" else [*told["frames"], place]
        told["message"] = str(error.msg)
    inner = getattr(error, "exceptions", None)
    if isinstance(inner, tuple):  # a group: what is in it stands under its words
        told["notes"] += ["".join(traceback.format_exception(type(part), part, part.__traceback__))[:_TEXT] for part in inner[:5]]
    return told


def _words(error: BaseException) -> str:
    try:
        return str(error)[:_TEXT]
    except BaseException as other:
        return f"<its text could not be made: {type(other).__name__}>"


def _frames(error: BaseException) -> list[list[Any]]:
    """[file, line, function, text of the line, column]; without ours, and with a gap where there are very many."""
    found = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_HERE)]
    if len(found) > _FRAMES:
        found = found[: _FRAMES // 2] + found[-_FRAMES // 2 :]
    return [[frame.filename, frame.lineno or 0, frame.name, (frame.line or "")[:500], 0] for frame in found]
