"""Namespaces on a page: who has which, as a table to move in; what is visible through the chosen one, beside this machine's view."""

from __future__ import annotations

from functools import cache
from typing import Any

from ...errors import ContainersError
from ...namespaced import HOST, Namespaces, cells, said
from ...spaces import KINDS, Sight, Space
from ...text import one_line
from .base import page_widget, source, widget_view


def table(found: Namespaces) -> dict[str, Any]:
    """The table: a column for this machine and for each container, a row for each kind."""
    rows = []
    for kind in found.kinds:
        lesson = KINDS[kind]
        own = found.host.kinds[kind]
        cells = [_cell(own, host=True), *[_cell(one.kinds[kind]) for one in found.containers]]
        rows.append({"kind": kind, "title": lesson.title, "cells": cells})
    return {"columns": [HOST, *[one_line(one.name) for one in found.containers]], "rows": rows}


def _cell(space: Space, host: bool = False) -> dict[str, Any]:
    return {"said": said(space, host), "number": str(space.number or "")}


def _sight(sight: Sight) -> dict[str, Any]:
    return {
        "title": sight.title,
        "headers": list(sight.headers),
        "rows": cells(sight),
        "left": sight.left,
        "note": one_line(sight.note),
    }


def look(found: Namespaces, kind: str, column: int) -> dict[str, Any]:
    """What is visible through a container's namespace, and this machine's. :raises ValueError: there is no such one."""
    if kind not in found.kinds or not 0 <= column <= len(found.containers):
        raise ValueError("no such namespace")
    lesson = KINDS[kind]
    theirs = found.containers[column - 1].kinds[kind].sights if column else ()
    return {
        "kind": kind,
        "column": column,
        "text": lesson.text,
        "page": f"{lesson.page}(7)",
        "url": lesson.url,
        "options": lesson.options,
        "theirs": [_sight(sight) for sight in theirs],
        "host": [_sight(sight) for sight in found.host.kinds[kind].sights],
    }


@cache
def _widget_class() -> Any:
    import traitlets

    class NamespacesView(page_widget()):  # type: ignore[misc]  # made with the first widget
        _esm = source("namespaces.js")
        _css = source("namespaces.css")
        table: Any = traitlets.Dict().tag(sync=True)
        first: Any = traitlets.Dict().tag(sync=True)

        def __init__(self, found: Namespaces) -> None:
            self._found = found
            super().__init__(table=table(found), first=look(found, found.kinds[0], 1))

        def answer(self, message: dict[str, Any], buffers: Any) -> dict[str, Any]:
            if message["kind"] == "read":
                try:
                    self._found.reload()
                except ContainersError as error:
                    return {"error": error.message}
                self.table = table(self._found)
            column = min(int(message["column"]), len(self._found.containers))
            return look(self._found, str(message["of"]), column)

    return NamespacesView


def live_view(found: Namespaces) -> dict[str, Any]:
    """The widget part of a display bundle."""
    return widget_view(_widget_class()(found))
