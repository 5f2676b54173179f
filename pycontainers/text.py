"""Text for people: tables, ages, and the filter that takes terminal escapes out of what a container says.

On the ground beside ``errors``: no room is imported here.
"""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Iterable, Sequence

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_ESCAPE = re.compile(
    "\x1b(?:"
    r"\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    "|[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\\\|$)"  # OSC, DCS, SOS, PM, APC: titles, clipboard (OSC 52), links, images
    "|[ -/]*[0-~]"  # two-character escapes, among them RIS (terminal reset)
    ")"
)
_COLOUR = re.compile("\x1b\\[[0-9;:]*m")
_UNFINISHED = re.compile("\x1b(?:\\[[0-?]*[ -/]*|[]PX^_][^\x07\x1b]*\x1b?|[ -/]*)?$")
_LONGEST_ESCAPE = 1 << 16
_CSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_NUMBER = re.compile(r"[0-9]{4,}")
_MOST_TIMES, _MOST_NUMBER = 1000, 65535
_REPEATS = "STLM@PXbIZ^"
"""Final bytes of CSI sequences that do something as many times as their parameter says (ECMA-48: scroll, insert, delete, repeat, tab)."""
_REACHING = re.compile("[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_REACHING_TERMINAL = re.compile("[\x00-\x07\x10-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """``text`` without terminal escapes, control characters (newline and tab stay) and bidirectional overrides.

    Names, labels and logs come from containers: an escape could set the clipboard (OSC 52) or hide what follows.
    """
    return _CONTROL.sub("", _ESCAPE.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """:func:`clean`, with newlines and tabs as spaces: for table cells, titles, attributes."""
    return " ".join(clean(text).split())


class EscapeFilter:
    """Decodes a stream of bytes to text that a page or terminal may show. An escape cut between two chunks is found too.

    Colours (SGR) stay. With ``cursor`` every CSI sequence stays (a real terminal draws progress bars with them); OSC, DCS
    and their like never do: they reach the clipboard, the title, and links that lie about their target.
    """

    def __init__(self, cursor: bool = False) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._cursor = cursor
        self._held = ""

    def feed(self, data: bytes, final: bool = False) -> str:
        text = self._held + self._decoder.decode(data, final)
        self._held = ""
        unfinished = _UNFINISHED.search(text)
        if unfinished and not final:
            # An escape that never ends must not swallow memory without bound: past the limit it is dropped as it stands.
            held = unfinished.group()
            self._held = held if len(held) < _LONGEST_ESCAPE else held[:2]
            text = text[: unfinished.start()]
        kept: list[str] = []
        at = 0
        for match in _ESCAPE.finditer(text):
            kept.append(self._plain(text[at : match.start()]))
            escape = match.group()
            if self._keeps(escape):
                kept.append(self._bounded(escape))
            at = match.end()
        kept.append(self._plain(text[at:]))
        return "".join(kept)

    def _keeps(self, escape: str) -> bool:
        return _COLOUR.fullmatch(escape) is not None or (self._cursor and escape.startswith("\x1b["))

    def _bounded(self, escape: str) -> str:
        return escape

    def _plain(self, text: str) -> str:
        """Text between escapes: carriage return and backspace stay (progress bars), other controls go."""
        return _REACHING.sub("", text)


class TerminalFilter(EscapeFilter):
    """For a terminal that draws full-screen programs: all of CSI, the short escapes (saved cursor, character sets) and shifts stay.

    Control strings (OSC, DCS, SOS, PM, APC) never do, nor C1 controls, by one of which each of them can begin (U+009D is OSC).
    Parameters are bounded: the page counts up to them, ``ESC [ 2147483647 S`` would hold it for hours.
    """

    def _keeps(self, escape: str) -> bool:
        return _CSI.fullmatch(escape) is not None or (escape[1] not in "[]PX^_\\" and len(escape) < 8)

    def _bounded(self, escape: str) -> str:
        most = _MOST_TIMES if escape[-1] in _REPEATS else _MOST_NUMBER
        return _NUMBER.sub(lambda found: _at_most(found.group(), most), escape)

    def _plain(self, text: str) -> str:
        return _REACHING_TERMINAL.sub("", text)


def _at_most(digits: str, most: int) -> str:
    """As text: int() refuses a number of thousands of digits."""
    digits = digits.lstrip("0") or "0"
    return str(most) if len(digits) > 5 else str(min(int(digits), most))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns by two spaces, as ``docker ps`` prints them; every cell through :func:`one_line`."""
    cells = [list(headers), *[[one_line(str(cell)) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)


def span(seconds: float) -> str:
    """A length of time in one word pair, as Docker says it: ``3 minutes``."""
    seconds = max(0.0, seconds)
    for unit, size in (("week", 604800.0), ("day", 86400.0), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= size * (2 if unit == "week" else 1):
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count != 1 else ''}"
    count = int(seconds)
    return f"{count} second{'s' if count != 1 else ''}"


def ago(moment: float, now: float | None = None) -> str:
    """``moment`` (unix seconds) seen from now: ``3 minutes ago``; "" for 0.0, which means unknown."""
    return f"{span((time.time() if now is None else now) - moment)} ago" if moment else ""
