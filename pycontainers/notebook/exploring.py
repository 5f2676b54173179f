"""The static form of an explored image: for GitHub, nbconvert and saved notebooks. Everything from the image is escaped."""

from __future__ import annotations

from typing import Any

from ..explored import KINDS, SIGNS, Explored, Node, label
from ..metrics.series import format_bytes
from . import html

_NODES = 400  # of all trees together: a saved notebook stays small
_DEPTH = 4
_COLORS = {"A": html.GOOD, "C": html.WARN, "D": html.BAD}


def static(found: Explored) -> str:
    parts = [f"<div><b>{html.text(found.title)}</b> {html.muted(found.summary)}</div>"]
    rows = [[*[_whole(cell) for cell in cells[:-1]], html.mono(_cut(cells[-1]))] for cells in found.layer_rows()]
    parts.append(html.table(found.layer_headers, rows))
    numbers = [found.layer] if found.layer is not None else [layer.number for layer in found.contents.layers]
    share = max(30, _NODES // max(1, len(numbers)))
    for number in numbers:
        parts.append(_layer(found, number, share, is_open=found.layer is not None))
    parts.append(_details("the biggest files", html.table(found.biggest_headers, _cells(found.biggest_rows()))))
    if found.contents.wasted:
        parts.append(_details("carried, and seen by nobody", html.table(found.wasted_headers, _cells(found.wasted_rows()))))
    return f'<div aria-label="layers of {html.attribute(found.title)}">{"".join(parts)}</div>'


def bundle(found: Explored, live: bool) -> dict[str, Any]:
    """All forms of it. The static one is always there."""
    forms: dict[str, Any] = {"text/plain": repr(found), "text/html": static(found)}
    if live and found.layer is None:
        from .widgets.explore import live_view

        return {**forms, **live_view(found)}
    return forms


def _cut(text: str) -> str:
    return text if len(text) <= 120 else text[:119] + "…"


def _cells(rows: list[tuple[str, ...]]) -> list[list[str]]:
    return [[*[_whole(cell) for cell in row[:-1]], html.mono(row[-1])] for row in rows]


def _whole(cell: str) -> str:
    """A number with its unit, in one line."""
    return f'<span style="white-space:nowrap">{html.text(cell)}</span>'


def _details(title: str, body: str, is_open: bool = False) -> str:
    return f'<details{" open" if is_open else ""} style="margin:.2em 0"><summary>{html.text(title)}</summary>{body}</details>'


def _layer(found: Explored, number: int, share: int, is_open: bool) -> str:
    layer = found.contents.layers[number - 1]
    counts = ", ".join(f"{layer.count(kind)} {word}" for kind, word in KINDS.items() if layer.count(kind)) or "changes no files"
    lines: list[str] = []
    left = 0
    for level, node in found.tree(number).walk(_DEPTH):
        if len(lines) < share:
            lines.append(_line(level, node))
        else:
            left += 1
    if left:
        lines.append(f"<div>{html.muted(f'… and {left} more')}</div>")
    return _details(f"layer {number}: {counts}", f'<div style="overflow-x:auto">{"".join(lines)}</div>', is_open)


def _line(level: int, node: Node) -> str:
    sign, word = SIGNS.get(node.kind, ""), KINDS.get(node.kind, "")
    mark = f'<span title="{word}" aria-label="{word}">{html.colored(sign, _COLORS[node.kind])}</span>' if sign else ""
    style = ";text-decoration:line-through" if node.kind == "D" else ""
    name = f'<span style="font-family:var(--jp-code-font-family, monospace){style}">{html.text(label(node))}</span>'
    size = html.muted(format_bytes(node.size)) if node.size else ""
    return f'<div style="padding-left:{(level - 1) * 1.2:.1f}em;white-space:nowrap">{mark} {name} {size}</div>'
