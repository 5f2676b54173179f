"""A bar that fills: how many of many are done. A display that is drawn again, without a widget: it is kept as it was last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..interpreter.counting import Count
from . import html

_PERIOD = 0.1
"""Seconds between two drawings: nobody sees more, and each one is a message."""


@contextmanager
def bar(name: str) -> Iterator[Callable[[int, int, int], None]]:
    """Called with done, failed, and all. At the end it says how long it took; a broken one, how far it came."""
    drawn = Bar(name)
    try:
        yield drawn
    finally:
        drawn.end()


class Bar(Count):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._last = 0.0
        self._handle: Any = None

    def __call__(self, done: int, failed: int, count: int) -> None:
        super().__call__(done, failed, count)
        if time.monotonic() - self._last >= _PERIOD:
            self._draw(False)

    def end(self) -> None:
        if self.count:
            self._draw(True)

    def _draw(self, ended: bool) -> None:
        from IPython.display import DisplayHandle

        self._last = time.monotonic()
        bundle = {"text/plain": self.text(ended), "text/html": self.markup(ended)}
        if self._handle is None:
            self._handle = DisplayHandle()  # type: ignore[no-untyped-call,unused-ignore]
            self._handle.display(bundle, raw=True)
        else:
            self._handle.update(bundle, raw=True)

    def markup(self, ended: bool) -> str:
        part = 100 * self.done / self.count if self.count else 0
        color = html.BAD if self.failed else html.GOOD if ended and self.done == self.count else "var(--jp-brand-color1, #1976d2)"
        track = f"width:14em;max-width:40%;height:.5em;border-radius:.25em;background:{html.BORDER};overflow:hidden;flex:none"
        return (
            '<div style="display:flex;align-items:center;gap:.75em;line-height:1.6">'
            f'<div role="progressbar" aria-label="{html.attribute(self.name)}" aria-valuemin="0" aria-valuemax="{self.count}" '
            f'aria-valuenow="{self.done}" style="{track}"><div style="width:{part:.1f}%;height:100%;background:{color}"></div></div>'
            f"<span>{html.text(self.text(ended))}</span></div>"
        )
