"""``events``: what happened."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from ..errors import UsageError
from ..results import Events
from ..wording import event_text
from .declare import Option, Verb, declare
from .frontend import Context
from .logs import SINCE, UNTIL

_KEYS = ("container", "event", "image", "label", "type")


def events(context: Context, args: SimpleNamespace, body: str | None) -> Events | None:
    """Those of the past as one object; with ``--follow`` as they come."""
    wanted = _filters(args.filter)
    found = (event for event in context.engine.events(args.since, args.until, args.follow) if _wanted(event, wanted))
    if not args.follow and args.format != "json":
        return Events(found)
    for event in found:
        line = json.dumps(event) if args.format == "json" else event_text(event)
        context.frontend.stream("stdout", f"{line}\n".encode())
    return None


def _filters(words: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in _KEYS or not equals:
            raise UsageError(f"--filter {word!r} is no filter", f"KEY=VALUE, KEY one of {', '.join(_KEYS)}")
        found.setdefault(key, []).append(value)
    return found


def _wanted(event: dict[str, Any], wanted: dict[str, list[str]]) -> bool:
    """Every key must hold, by one of its values (as Docker)."""
    return all(any(_holds(event, key, value) for value in values) for key, values in wanted.items())


def _holds(event: dict[str, Any], key: str, value: str) -> bool:
    actor = event.get("Actor", {})
    attributes = actor.get("Attributes", {})
    if key == "container":
        return attributes.get("name") == value or str(actor.get("ID", "")).startswith(value)
    if key == "event":
        return str(event.get("Action", "")).partition(":")[0] == value or event.get("Action") == value
    if key == "image":
        return bool(attributes.get("image") == value)
    if key == "type":
        return bool(event.get("Type") == value)
    name, equals, text = value.partition("=")
    return name in attributes and (not equals or attributes[name] == text)


declare(
    Verb(
        "events",
        "Show what happened to containers",
        events,
        (
            SINCE,
            UNTIL,
            Option(("--filter", "-f"), f"KEY=VALUE, KEY one of {', '.join(_KEYS)}", "FILTER", many=True),
            Option(("--follow",), "go on until the interrupt, or --until"),
            Option(("--format",), "json for one object a line", "FORMAT", default="", completes="json"),
        ),
        details="Docker's events go on until they are interrupted; here that is --follow, so that a cell ends.",
        examples=("events --since 10m", "events --follow --filter event=die"),
    )
)
