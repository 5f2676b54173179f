"""What a cell inside a container shows, on its way to the page. The page holds the server's token: nothing from inside may reach it.

Text, pictures that are pictures, figures that plotly accepts, tables that are drawn here. HTML and SVG come only where the user has
asked for them (the runner does not send them otherwise), in a frame without origin, network, or a way out.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from ..interpreter.inside.showing import PLOTLY, TABLE
from ..text import EscapeFilter, one_line
from . import figures, html, pictures
from .untrusted import judging, loaded

_MARKUP = ("text/html", "image/svg+xml")
_MOST_TEXT, _MOST_MARKUP, _MOST_CELLS = 1 << 20, 4 << 20, 10_000
_POLICY = "default-src 'none'; img-src data: blob:; media-src data: blob:; font-src data:; style-src 'unsafe-inline'; "
_POLICY += "script-src 'unsafe-inline' 'unsafe-eval' blob:; worker-src blob:; form-action 'none'; base-uri 'none'; webrtc 'block'"
_FILL = "border:0;width:100%;height:100vh;display:block"
_BOX = f"border:1px solid {html.BORDER};width:100%;height:320px;resize:vertical;background:#fff;color-scheme:light"
_SANDBOX = 'sandbox="allow-scripts" referrerpolicy="no-referrer"'


_shown: tuple[int, pictures.Room] = (-1, pictures.Room())
"""The number of the cell that shows something, and what its pictures may still take: those of all its containers together."""


def show(forms: Mapping[str, bytes], complain: Callable[[str], None], markup: bool = False) -> None:
    """Show what may be shown of it; ``complain`` is told in a line what was left out and why."""
    global _shown
    from IPython.core.getipython import get_ipython
    from IPython.display import publish_display_data

    cell = getattr(get_ipython(), "execution_count", 0)  # type: ignore[no-untyped-call,unused-ignore]
    if _shown[0] != cell:
        _shown = cell, pictures.Room()
    data, metadata = bundle(forms, complain, markup, _shown[1])
    if data:
        publish_display_data(data, metadata)  # type: ignore[no-untyped-call,unused-ignore]


def cleared() -> None:
    """What was shown is gone from the page: its pictures count no more."""
    global _shown
    _shown = -1, pictures.Room()


def bundle(
    forms: Mapping[str, bytes], complain: Callable[[str], None], markup: bool = False, room: pictures.Room | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(data, metadata) for the page."""
    room = room or pictures.Room()
    data: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for kind, value in forms.items():
        try:
            if kind == "text/plain":
                data[kind] = plain(value)
            elif kind in pictures.KINDS:
                width, height = pictures.checked(kind, value, room)
                data[kind] = base64.b64encode(value).decode("ascii")
                metadata[kind] = {"width": width, "height": height}
            elif kind == PLOTLY:
                data[kind] = figures.checked(value, room)
            elif kind == TABLE:
                data.setdefault("text/html", table(value))
            elif kind in _MARKUP and markup:
                data["text/html"] = frame(value.decode("utf-8", "replace"))
        except Exception as error:  # a ValueError, unless a check is wrong: the cell goes on in any case
            complain(f"what the container shows as {one_line(kind)[:80]} is left out: {one_line(str(error))[:300]}\n")
    return data, metadata


def plain(value: bytes) -> str:
    """Text with its colours, without escapes that reach further."""
    return EscapeFilter().feed(value[:_MOST_TEXT], final=True)


def table(value: bytes) -> str:
    """A DataFrame's ends, drawn here from words. :raises ValueError: that is none."""
    with judging("table"):
        told = loaded(value)
        heads, rows, (count, width) = told["columns"], told["rows"], told["size"]
        if not (isinstance(heads, list) and heads and all(isinstance(row, list) for row in rows)):
            raise ValueError("it has no columns, or no rows")
        if len(heads) * (len(rows) + 1) > _MOST_CELLS or any(len(row) != len(heads) for row in rows):
            raise ValueError("it has too many cells, or rows of different lengths")
        if not all(type(number) is int and 0 <= number < 1 << 63 for number in (count, width)):
            raise ValueError("its size is no size")
        size = f"{count} rows × {width} columns"
        cells = [[html.muted(str(row[0])[:300]), *[html.text(str(cell)[:300]) for cell in row[1:]]] for row in rows]
        return html.table([str(head)[:300] for head in heads], cells) + html.muted(size)


def frame(content: str) -> str:
    """HTML from inside in a frame within a frame.

    The inner one has no origin (``allow-scripts`` alone), so it reaches neither the page nor its storage, and a policy that forbids every
    request. A script could still send its own frame elsewhere, with data in the address: the outer frame's policy forbids that.
    """
    if len(content) > _MOST_MARKUP:
        raise ValueError(f"{len(content) >> 20} MB are too many")
    inner = _frame(_page(content, "margin:8px;font-family:sans-serif;background:#fff;color:#111"), _FILL)
    return _frame(_page(inner, "margin:0"), _BOX)


def _page(content: str, style: str) -> str:
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    quiet = '<meta http-equiv="x-dns-prefetch-control" content="off">'
    return f'<!doctype html><meta charset="utf-8">{policy}{quiet}<body style="{style}">{content}'


def _frame(page: str, style: str) -> str:
    title = 'title="HTML from inside a container"'
    return f'<iframe {_SANDBOX} {title} srcdoc="{escape(page, quote=True)}" style="{style}"></iframe>'
