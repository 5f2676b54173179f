"""The dashboard on a page. What it does lies in :mod:`..dashboard.board`; here it gets its files and its comm."""

from __future__ import annotations

from functools import cache
from typing import Any

from ...overview import Dashboard
from .base import page_widget, source, widget_view


@cache
def _widget_class() -> Any:
    class DashboardWidget(page_widget()):  # type: ignore[misc]  # made with the first widget
        _esm = source(*(f"dashboard{part}.js" for part in ("-parts", "-panes", "-tabs", "-line", "-list", "-about", "")))
        _css = source("dashboard.css")

        def __init__(self, found: Dashboard) -> None:
            from ..dashboard.board import Board

            super().__init__()
            self.board = Board(found.engine, self.send, lambda: self.comm is None)

        def answer(self, message: dict[str, Any], buffers: Any) -> None:
            self.board.ask(message)

    return DashboardWidget


def live_view(found: Dashboard) -> dict[str, Any]:
    """The widget part of a display bundle; the view is kept current while a page shows it."""
    return widget_view(_widget_class()(found))
