"""``--explain``: why a step was taken from the cache, or why it had to run: what differs from the nearest step that was done before."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from ..text import one_line
from .cache import Definition

_WORDS = {
    "command": "the command", "environment": "a variable", "workdir": "the working directory", "user": "the user",
    "network": "the network", "mounts": "a mount", "destination": "the destination", "owner": "--chown", "mode": "--chmod",
    "content": "what is copied", "texts": "a here-document", "exclude": "--exclude", "parents": "--parents", "link": "--link",
    "path": "the folder", "surroundings": "--add-host, --shm-size or --ulimit", "script": "the script",
    "from": "what it copies from", "paths": "the sources", "epoch": "SOURCE_DATE_EPOCH",
}  # fmt: skip
_SHOWN = 5


class Explainer:
    """``known``: what the cache remembers of earlier steps (:meth:`.cache.Definition.facts`), read when the first explanation needs it."""

    def __init__(self, known: Iterable[Mapping[str, Any]]) -> None:
        self._known: list[Mapping[str, Any]] | None = None
        self._source = known
        self._lock = threading.Lock()  # steps of several stages ask at a time

    def explain(self, definition: Definition, cached: bool, fresh: bool) -> str:
        """One line."""
        if cached:
            return "cached: the same step on the same layers" + (", done a moment ago" if fresh else "")
        if fresh:
            return "runs: --no-cache"
        with self._lock:
            if self._known is None:
                self._known = list(self._source)
        same_kind = [facts for facts in self._known if facts.get("kind") == definition.kind]
        now = definition.facts()
        nearest = max(same_kind, key=lambda facts: _likeness(facts, now), default=None)
        if nearest is None or _likeness(nearest, now) < (1,):
            return "runs: no such step was done before"
        return f"runs: {_difference(nearest, now)}"


def _likeness(facts: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[float, ...]:
    """How much two steps have in common: the text as written says most, then what goes in."""
    then, parts = facts.get("parts") or {}, now["parts"]
    equal = sum(then.get(name) == value for name, value in parts.items())
    meant = facts.get("text") == now["text"] or then.get("command", 0) == parts.get("command", 1)
    same_place = then.get("destination", 0) == parts.get("destination", 1)
    if not meant and not same_place:
        return (0.0,)  # another step: what they differ in says nothing
    return (1.0 + meant + (facts.get("parent") == now["parent"]), equal, facts.get("when", 0))


def _difference(facts: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    then, parts = facts.get("parts") or {}, now["parts"]
    found = []
    for name, value in parts.items():
        if then.get(name) == value:
            continue
        if name in ("environment",):
            found.append(_changed_names(then.get(name) or {}, value, "variable"))
        elif name in ("content", "mounts") and (files := _changed_names(facts.get("files") or {}, now.get("files") or {}, "file")):
            found.append(files)
        elif isinstance(value, str | int | float) and name in then:
            found.append(f"{_WORDS.get(name, name)} was {one_line(str(then[name]))[:60]!r} and is {one_line(str(value))[:60]!r}")
        else:
            found.append(f"{_WORDS.get(name, name)} changed")
    if facts.get("parent") != now["parent"]:
        found.append("what it stands on changed")
    if not found and facts.get("kept"):
        return "it was done a moment ago by another build"
    return "; ".join(found) or "its result is not in the cache any more"


def _changed_names(then: Mapping[str, Any], now: Mapping[str, Any], what: str) -> str:
    """Which names were added, removed or changed, the first few by name. "" where none was."""
    parts = []
    for word, names in (
        ("changed", [name for name in now if name in then and then[name] != now[name]]),
        ("new", [name for name in now if name not in then]),
        ("gone", [name for name in then if name not in now]),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            parts.append(f"{', '.join(one_line(name) for name in sorted(names)[:_SHOWN])}{more} {word}")
    return f"{what} {', '.join(parts)}" if parts else ""
