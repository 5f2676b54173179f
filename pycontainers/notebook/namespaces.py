"""The static form of namespaces: for GitHub, nbconvert and saved notebooks. Everything from containers is escaped."""

from __future__ import annotations

from typing import Any

from ..namespaced import HOST, Namespaces
from ..spaces import KINDS, Sight
from ..text import table
from . import html

_ROWS = 12
_CONTAINERS = 4
"""Whose details a saved notebook has: it stays small."""


def static(found: Namespaces) -> str:
    rows = [[f"<b>{html.text(kind)}</b>", *[html.text(cell) for cell in rest]] for kind, *rest in found.rows()]
    parts = [html.table(found.headers, rows)]
    if found.detail and found.containers:
        parts += [_details(found, kind) for kind in found.kinds]
    return f'<div aria-label="namespaces">{"".join(parts)}</div>'


def bundle(found: Namespaces, live: bool) -> dict[str, Any]:
    """All forms of it. The static one is always there."""
    forms: dict[str, Any] = {"text/plain": repr(found), "text/html": static(found)}
    if live and found.form == "live" and found.containers:
        from .widgets.namespaces import live_view

        return {**forms, **live_view(found)}
    return forms


def _details(found: Namespaces, kind: str) -> str:
    lesson = KINDS[kind]
    columns = [(one.name, one.kinds[kind].sights) for one in found.containers[:_CONTAINERS]]
    columns.append((HOST, found.host.kinds[kind].sights))
    panes = "".join(
        f'<div style="min-width:0;flex:1 1 20em"><b>{html.text(name)}</b>{"".join(_sight(sight) for sight in sights)}</div>'
        for name, sights in columns
    )
    said = f"<p>{html.text(lesson.text)} {html.link(lesson.url, f'{lesson.page}(7)')}</p>"
    summary = f"<summary>{html.text(kind)}: {html.text(lesson.title)}</summary>"
    is_open = " open" if len(found.kinds) == 1 else ""
    body = f'{said}<div style="display:flex;flex-wrap:wrap;gap:1.5em">{panes}</div>'
    return f'<details{is_open} style="margin:.2em 0">{summary}{body}</details>'


def _sight(sight: Sight) -> str:
    parts = [f'<div style="margin-top:.6em">{html.muted(sight.title)}</div>' if sight.title else ""]
    if sight.rows:
        # As text: with the style of each cell, tables of this kind would make a notebook of some containers ten times as large.
        parts.append(f'<div style="overflow-x:auto">{html.block(table(sight.headers, sight.rows[:_ROWS]), "white-space:pre")}</div>')
    left = max(0, len(sight.rows) - _ROWS) + sight.left
    if left:
        parts.append(f"<div>{html.muted(f'… and {left} more')}</div>")
    if sight.note:
        parts.append(f"<div>{html.muted(sight.note)}</div>")
    return "".join(parts)
