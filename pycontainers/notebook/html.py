"""Small pieces of HTML. Everything that comes from a container goes through :func:`text`: escaped, and without controls."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from ..text import clean, one_line

BORDER = "var(--jp-border-color2, #8884)"
MUTED = "var(--jp-ui-font-color2, #767676)"
LINK = "var(--jp-content-link-color, #1976d2)"
GOOD = "var(--jp-success-color1, #2e8b3d)"
WARN = "var(--jp-warn-color1, #c77700)"
BAD = "var(--jp-error-color1, #d13b3b)"
_CELL = f"text-align:left;padding:.25em .75em .25em 0;border-bottom:1px solid {BORDER};vertical-align:top"
_MONO = "font-family:var(--jp-code-font-family, monospace)"


_TEX = re.compile(r"[$\\]")


def text(value: object) -> str:
    """One line of escaped text, for between tags (see :func:`attribute`).

    JupyterLab typesets ``$…$`` and ``\\(…\\)`` in every HTML output, but only within one run of text: an element around each ``$`` and
    backslash keeps a shell command what it is.
    """
    return _TEX.sub(r"<span>\g<0></span>", escape(one_line(str(value))))


def attribute(value: object) -> str:
    """One line of escaped text, for the value of an attribute."""
    return escape(one_line(str(value)))


def block(value: str, style: str = "") -> str:
    """Escaped text with its line breaks, in a fixed-width font."""
    return f'<pre style="margin:0;white-space:pre-wrap;{_MONO};{style}">{escape(clean(value))}</pre>'


def mono(value: object) -> str:
    return f'<span style="{_MONO}">{text(value)}</span>'


def muted(value: object) -> str:
    return f'<span style="color:{MUTED}">{text(value)}</span>'


def colored(value: object, color: str) -> str:
    return f'<span style="color:{color};white-space:nowrap">{text(value)}</span>'


def link(url: str, label: object) -> str:
    """A link to a URL of our own making that opens in a tab of its own."""
    return f'<a href="{escape(url, quote=True)}" target="_blank" rel="noopener noreferrer" style="color:{LINK}">{text(label)}</a>'


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table of cells that are HTML already (made by the functions above)."""
    head = "".join(f'<th scope="col" style="{_CELL};color:{MUTED};font-weight:600">{text(header)}</th>' for header in headers)
    body = "".join("<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in row) + "</tr>" for row in rows)
    title = f'<caption style="text-align:left;padding:.25em 0">{text(caption)}</caption>' if caption else ""
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;background:transparent;font-size:inherit">'
        f"{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
