"""Plotly figures from containers: what plotly's own validators accept, without what reaches beyond the figure.

A figure is data that plotly.js draws in the page itself, which holds the server's token. So nothing in it may load anything, lead
anywhere, or change itself later: maps (tiles and outlines from the network), pictures by address, links, buttons.
"""

from __future__ import annotations

import json
import re
from typing import Any

PLOTLY = "application/vnd.plotly.v1+json"
MOST_BYTES = 16 << 20
_TRACES = frozenset(
    "bar barpolar box candlestick carpet cone contour contourcarpet funnel funnelarea heatmap histogram histogram2d histogram2dcontour "
    "icicle image indicator isosurface mesh3d ohlc parcats parcoords pie sankey scatter scatter3d scattercarpet scattergl scatterpolar "
    "scatterpolargl scattersmith scatterternary splom streamtube sunburst surface table treemap violin volume waterfall".split()
)
_DROPPED = frozenset("mapbox map geo updatemenus sliders frames config geojson".split())
_PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*")
_TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9]*)\b[^>]*>?")
_TAGS = frozenset("b strong i em br sub sup s u".split())
#: What MathJax makes links, scripts' handles or requests of, where a page has it.
_TEX = re.compile(r"\\(?:href|url|unicode|class|cssId|style|data|require|mmlToken|includegraphics|html\w*)\b", re.IGNORECASE)


def checked(text: bytes) -> dict[str, Any]:
    """A bundle's value for :data:`PLOTLY`. :raises ValueError: it is no figure that may be shown; the text says why."""
    if len(text) > MOST_BYTES:
        raise ValueError(f"{len(text) >> 20} MB are too many")
    try:
        told = json.loads(text)
        figure = {"data": [_trace(trace) for trace in told["data"]], "layout": _clean(told.get("layout") or {})}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error) or type(error).__name__) from None
    return _validated(figure)


def _trace(trace: dict[str, Any]) -> Any:
    kind = trace.get("type", "scatter")
    if kind not in _TRACES:
        raise ValueError(f"a trace of type {str(kind)[:40]!r} is not drawn from inside a container")
    if "source" in trace and kind == "image" and not _is_picture(trace["source"]):
        raise ValueError("its picture is an address, and not the picture itself")
    return _clean(trace)


def _clean(value: Any, name: str = "") -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return [_clean(item, name) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _clean(item, key) for key, item in value.items() if key not in _DROPPED and key != "source"}
    if _is_picture(value.get("source")):
        found["source"] = value["source"]
    if name == "link" and isinstance(value.get("source"), list | dict):  # sankey: where a band begins; numbers
        found["source"] = _clean(value["source"])
    if isinstance(found.get("images"), list):
        found["images"] = [image for image in found["images"] if isinstance(image, dict) and "source" in image]
    return found


def _text(value: str) -> str:
    value = _TAG.sub(lambda match: f"<{'/' if match[0][1] == '/' else ''}{match[1]}>" if match[1].lower() in _TAGS else "", value)
    return _TEX.sub("", value)


def _is_picture(value: Any) -> bool:
    return isinstance(value, str) and _PICTURE.fullmatch(value) is not None


def _validated(figure: dict[str, Any]) -> dict[str, Any]:
    from plotly.graph_objects import Figure

    template = figure["layout"].get("template")
    if isinstance(template, dict) and isinstance(template.get("data"), dict):
        template["data"] = {kind: traces for kind, traces in template["data"].items() if kind in _TRACES}
    try:
        found: dict[str, Any] = json.loads(Figure(figure).to_json())
    except Exception as error:  # validators of several hundred attributes, each with its own way to refuse
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"plotly refuses it: {reason}") from None
    return {**found, "config": {"plotlyServerURL": "", "showLink": False, "showSendToCloud": False}}
