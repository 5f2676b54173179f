"""An explored image on a page: layers, and the files of the chosen one as a tree whose folders are sent when they are opened."""

from __future__ import annotations

from functools import cache
from typing import Any

from ...contents import shown
from ...explored import KINDS, SIGNS, Explored, Node, label
from ...metrics.series import format_bytes
from .base import page_widget, source, widget_view

_ROWS = 300  # sent at once: a folder may hold any number
_LONGEST = 200  # characters of a search


def counts(numbers: dict[str, int]) -> str:
    """``+12 ~3 −1``; what is none is left out."""
    return " ".join(f"{SIGNS[kind]}{number}" for kind, number in numbers.items() if number)


def layer_rows(found: Explored) -> list[dict[str, Any]]:
    """What stands in the list of layers; the first is all of them together."""
    every = {"number": 0, "label": "all", "size": format_bytes(found.contents.size), "counts": "", "step": "what a container sees"}
    rows = [
        {
            "number": layer.number,
            "label": str(layer.number),
            "size": format_bytes(layer.size),
            "counts": counts({kind: layer.count(kind) for kind in "ACD"}),
            "step": cells[-1],
        }
        for layer, cells in zip(found.contents.layers, found.layer_rows(), strict=True)
    ]
    return [every, *rows]


def node_row(node: Node, name: str = "") -> dict[str, Any]:
    return {
        "node": node.number,
        "name": name or label(node),
        "sign": SIGNS.get(node.kind, ""),
        "word": KINDS.get(node.kind, ""),
        "size": format_bytes(node.size) if node.size else "",
        "folder": bool(node.children),
    }


def answer(found: Explored, message: dict[str, Any]) -> dict[str, Any]:
    """What the page asked for. :raises ValueError: a question that makes no sense."""
    layer = int(message["layer"])
    if not 0 <= layer <= len(found.contents.layers):
        raise ValueError("no such layer")
    tree = found.tree(layer or None)
    offset = 0
    if message["kind"] == "open":
        offset, number = int(message["offset"]), int(message["node"])
        if not (0 <= number < len(tree.nodes) and offset >= 0):
            raise ValueError("no such folder")
        rows = [node_row(node) for node in tree.nodes[number].sorted()]
    else:
        wanted = str(message["text"])[:_LONGEST].lower()
        changes = [node.change for node in tree.nodes if node.change is not None and wanted in shown(node.change.path).lower()]
        numbers = {node.change.path: node for node in tree.nodes if node.change is not None}
        rows = [{**node_row(numbers[change.path], shown(change.path)), "folder": False} for change in sorted(changes)]
    sent = rows[offset : offset + _ROWS]
    return {"layer": layer, "rows": sent, "left": len(rows) - offset - len(sent)}


@cache
def _widget_class() -> Any:
    import traitlets

    class Explorer(page_widget()):  # type: ignore[misc]  # made with the first widget
        _esm = source("explore.js")
        _css = source("explore.css")
        title = traitlets.Unicode().tag(sync=True)
        summary = traitlets.Unicode().tag(sync=True)
        layers: Any = traitlets.List().tag(sync=True)
        chosen = traitlets.Int(0).tag(sync=True)

        def __init__(self, found: Explored) -> None:
            rows = layer_rows(found)
            last = len(found.contents.layers)
            self._found = found
            super().__init__(title=found.title, summary=found.summary, layers=rows, chosen=found.layer or last)

        def answer(self, message: dict[str, Any], buffers: Any) -> dict[str, Any]:
            return answer(self._found, message)

    return Explorer


def explorer(found: Explored) -> Any:
    """The widget."""
    return _widget_class()(found)


def live_view(found: Explored) -> dict[str, Any]:
    """The widget part of a display bundle."""
    return widget_view(explorer(found))
