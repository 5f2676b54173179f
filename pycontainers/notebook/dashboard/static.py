"""The static form: for GitHub, nbconvert, saved notebooks, and pages without widgets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...metrics.series import format_bytes
from ...overview import Dashboard, forgotten, users
from ...text import ago
from .. import html
from ..listing import containers

_MOST = 40
"""Rows of a table: a saved notebook stays small."""
_TEXT = 40_000  # characters


def static(found: Dashboard) -> str:
    infos = [item.known for item in found.containers]
    shown, left = found.containers[:_MOST], found.containers[_MOST:]
    marks = [(info, reason) for info in infos for reason in forgotten(info)]
    parts = [f"<div><b>Containers and images</b> {html.muted(found.summary())}</div>"]
    parts.append(containers(type(found.containers)(shown)))
    parts.append(_left(len(left)))
    parts += [f"<div>{html.colored(f'△ {info.name}: {reason}', html.WARN)}</div>" for info, reason in marks[:_MOST]]
    parts.append(_images(found, users([item.known for item in found.images], infos)))
    return f'<div aria-label="dashboard">{"".join(parts)}</div>'


def _images(found: Dashboard, used: dict[str, list[str]]) -> str:
    rows = []
    for info in (item.known for item in found.images[:_MOST]):
        names = "<br>".join(html.text(name) for name in info.names[:10]) or html.muted("<none>")
        base = "this machine" if info.host else ""
        cells = [html.mono(info.short_id), html.text(ago(info.created)), html.text(format_bytes(info.size)), html.text(base)]
        rows.append([names, *cells, html.text(_some(used[info.id]))])
    table = html.table(("IMAGE", "ID", "CREATED", "SIZE", "BASE", "USED BY"), rows) if rows else f"<p>{html.muted('no images')}</p>"
    return table + _left(len(found.images) - len(rows))


def _some(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:5]) + (f" and {len(every) - 5} more" if len(every) > 5 else "")


def _left(number: int) -> str:
    return f"<div>{html.muted(f'… and {number} more')}</div>" if number > 0 else ""


def bundle(found: Dashboard, live: bool) -> dict[str, Any]:
    """All forms of it. The static one is always there."""
    text = repr(found)
    if len(text) > _TEXT:
        text = text[:_TEXT].rpartition("\n")[0] + "\n…"
    forms: dict[str, Any] = {"text/plain": text, "text/html": static(found)}
    if live and found.form == "live":
        from ..widgets.dashboard import live_view

        return {**forms, **live_view(found)}
    return forms
