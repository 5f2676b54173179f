"""What a page is told of each container and image: small plain rows, of which only what has changed is sent again.

Every text is one line without controls and of bounded length, whatever a container is called; the page sets it as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...overview import forgotten, notebook_gone
from ...protocol import ContainerInfo, ImageInfo
from ...text import one_line
from ..surroundings import port_link

Row = dict[str, Any]
_STATES = {
    "running": ("▶", "Up", "good"),
    "paused": ("‖", "Paused", "warn"),
    "restarting": ("↻", "Restarting", "warn"),
    "starting": ("…", "Starting", "muted"),
    "created": ("○", "Created", "muted"),
}


def cut(text: object, most: int = 120) -> str:
    """One clean line of at most ``most`` characters."""
    line = one_line(str(text)[: 4 * most])
    return line if len(line) <= most else line[: most - 1] + "…"


def container_row(info: ContainerInfo, now: float) -> Row:
    """``since``: unix seconds, from which the page counts. ``tone``: good, warn, bad or muted; ``icon`` and ``word`` say the same."""
    icon, word, tone, since = _state(info)
    labels = " ".join(f"{key}={value}" for key, value in list(info.labels.items())[:20])
    return {
        "id": info.id,
        "name": cut(info.name),
        "image": cut(info.image, 200),
        "command": cut(" ".join(info.command[:50]), 200),
        "state": info.status,
        "icon": icon,
        "word": word,
        "tone": tone,
        "since": since,
        "created": info.created,
        "health": info.health,
        "ports": [_port(port) for port in info.ports[:12]],
        "address": cut(info.address),
        "notebook": cut(info.notebook.rpartition("/")[2]),
        "lost": notebook_gone(info.notebook),
        "forgotten": [cut(line, 200) for line in forgotten(info, now)],
        "notes": [cut(line, 300) for line in info.notes[:8]],
        "memory": info.resources.memory or 0,
        "cpus": info.resources.cpus or 0,
        "labels": cut(labels, 400),
    }


def _state(info: ContainerInfo) -> tuple[str, str, str, float]:
    if info.status == "exited":
        exit = info.exit
        if exit is None or exit.code is None:
            return "✗", "Exited (?)", "bad", exit.finished if exit else 0.0
        if exit.oom_killed:
            return "✗", "OOM-killed", "bad", exit.finished
        good = exit.code == 0
        return "✓" if good else "✗", f"Exited ({exit.code})", "muted" if good else "bad", exit.finished
    icon, word, tone = _STATES.get(info.status, ("?", cut(info.status), "muted"))
    if info.status == "restarting":
        word = f"Restarting ({info.restarts})"
    return icon, word, tone, info.started or info.created


def _port(port: Any) -> Row:
    found = port_link(port)
    where = port.host_port or "any"
    shown = f"{where}→{port.container_port}" + ("" if port.protocol == "tcp" else f"/{port.protocol}")
    return {"text": shown, "whole": str(port), "url": found.url, "hint": found.hint}


def image_row(info: ImageInfo, used: Sequence[str]) -> Row:
    names = [cut(name, 200) for name in info.names[:20]]
    return {
        "id": info.id,
        "name": names[0] if names else "<none>",
        "names": names,
        "created": info.created,
        "size": info.size,
        "host": info.host,
        "used": [cut(name) for name in used[:20]],
        "uses": len(used),
    }


def difference(before: Mapping[str, Row], after: Mapping[str, Row]) -> tuple[list[Row], list[str]]:
    """(what has changed of each, whole rows of new ones; ids of those that are gone). A value that is no longer there becomes None."""
    changed = []
    for ident, row in after.items():
        old = before.get(ident)
        if old is None:
            changed.append(row)
        elif old != row:
            keys = (key for key in {*old, *row} if old.get(key) != row.get(key))
            changed.append({"id": ident, **{key: row.get(key) for key in keys}})
    return changed, [ident for ident in before if ident not in after]
