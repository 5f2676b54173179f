"""Plotly figures from containers: what plotly's own validators accept, without what reaches beyond the figure.

A figure is data that plotly.js draws in the page itself, which holds the server's token. So nothing in it may load anything, lead
anywhere, or change itself later: maps (tiles and outlines from the network), pictures by address, links, buttons.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from . import pictures
from .untrusted import judging, loaded

PLOTLY = "application/vnd.plotly.v1+json"
MOST_BYTES = 16 << 20
_TRACES = frozenset(
    "bar barpolar box candlestick carpet cone contour contourcarpet funnel funnelarea heatmap histogram histogram2d histogram2dcontour "
    "icicle image indicator isosurface mesh3d ohlc parcats parcoords pie sankey scatter scatter3d scattercarpet scattergl scatterpolar "
    "scatterpolargl scattersmith scatterternary splom streamtube sunburst surface table treemap violin volume waterfall".split()
)
_DROPPED = frozenset("mapbox map geo updatemenus sliders frames config geojson".split())
_PICTURE = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,([A-Za-z0-9+/=\s]*)")
_TAG = re.compile(r"<(/?)([A-Za-z]+)(\s[^<>]*)?>|<")
_TAGS = {name: name for name in "b strong i em br sub sup s u span extra".split()} | {"a": "span"}
#: What MathJax makes links, scripts' handles or requests of, where a page has it.
_TEX = re.compile(r"\\(?:href|url|unicode|class|cssId|style|data|require|mmlToken|includegraphics|html[a-z]*)(?![a-z])", re.I)


def checked(text: bytes, room: pictures.Room | None = None) -> dict[str, Any]:
    """A bundle's value for :data:`PLOTLY`. :raises ValueError: it is no figure that may be shown; the text says why.

    :param room: for the pictures that are in it.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"{len(text) >> 20} MB are too many")
    with judging("figure"):
        told = loaded(text)
        layout = told.get("layout") or {}
        if not isinstance(layout, dict) or not all(isinstance(trace, dict) for trace in told["data"]):
            raise ValueError("its layout or a trace is something else")
        figure = {"data": [_trace(trace) for trace in told["data"]], "layout": _clean(layout)}
        room = room or pictures.Room()
        for kind, data in _pictures(figure):
            pictures.checked(kind, base64.b64decode(data), room)
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
    """No ``<`` is left but those of tags without attributes, so that nothing begins a link: not here, nor where plotly.js puts several
    texts together (a template with customdata, a prefix with the text of a tick). It reads tags first and ``&lt;`` after that
    (svg_text_utils.js, convertToTspans and convertEntities), and so shows it as it was written. No tag is cut out: what stood around it
    could be one then.
    """
    return _TAG.sub(_tag, _TEX.sub("", value))


def _tag(match: re.Match[str]) -> str:
    name = _TAGS.get((match[2] or "").lower())
    return f"&lt;{match[0][1:]}" if name is None else f"<{match[1]}{name}>"


def _is_picture(value: Any) -> bool:
    return isinstance(value, str) and _PICTURE.fullmatch(value) is not None


def _pictures(value: Any) -> Iterator[tuple[str, str]]:
    """The media types and data of pictures anywhere in it."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(item, str) and (found := _PICTURE.fullmatch(item)):
            yield found[1], found[2]
        yield from _pictures(item)


def _validated(figure: dict[str, Any]) -> dict[str, Any]:
    try:
        from plotly.graph_objects import Figure
    except ImportError:
        raise ValueError("the notebook's own Python has no plotly, which checks figures; pip install plotly there") from None
    template = figure["layout"].get("template")
    if isinstance(template, dict) and isinstance(template.get("data"), dict):
        template["data"] = {kind: traces for kind, traces in template["data"].items() if kind in _TRACES}
    try:
        found: dict[str, Any] = json.loads(Figure(figure).to_json())
    except Exception as error:  # validators of several hundred attributes, each with its own way to refuse
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"plotly refuses it: {reason}") from None
    return {**found, "config": {"typesetMath": False, "plotlyServerURL": "", "showLink": False, "showSendToCloud": False}}
