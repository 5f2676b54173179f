"""A figure for plotly, as plain data (plotly's JSON schema): showing one never pays for importing plotly.

This is what stays in a saved notebook; a live page draws the same panels itself (``widgets/stats.js``).
"""

from __future__ import annotations

import sys
from array import array
from base64 import b64encode
from typing import Any

from ..panels import Mark, Panel, Series, thinned
from ..text import one_line
from ..usage import Figure
from . import svg

PLOTLY = "application/vnd.plotly.v1+json"
_COLUMNS = 3
_GAP_X, _GAP_Y = 0.08, 0.22
_AXIS = {"gridcolor": "rgba(128,128,128,.25)", "zerolinecolor": "rgba(128,128,128,.4)", "linecolor": "rgba(128,128,128,.5)"}
_POINTS, _ALL_POINTS = 160, 2400
"""In one line, and in the whole figure: a saved notebook stays small."""
_DASHES = ("solid", "dash", "longdash", "dashdot")
TIMES = [
    {"dtickrange": [None, 1000], "value": "%-M:%S.%1f"},
    {"dtickrange": [1000, 60_000], "value": "%-M:%S"},
    {"dtickrange": [60_000, 86_400_000], "value": "%-H:%M h"},
    {"dtickrange": [86_400_000, None], "value": "day %-j"},
]
"""Time since the begin as a date axis: plotly then knows minutes and hours at every zoom."""
EPOCH = 63_072_000_000
"""The begin on that axis: 1972, a first of January. In the first seconds of 1970 plotly would take a number for a year."""


def figure(shown: Figure, title: bool = True) -> dict[str, Any]:
    """``{"data": …, "layout": …}`` with a subplot per panel; always the same traces in the same order."""
    panels = shown.panels()
    named = len(shown.courses) > 1
    return {"data": traces(panels, named), "layout": layout(panels, shown.marks(), shown.title if title else "", named)}


def traces(panels: list[Panel], named: bool = False) -> list[dict[str, Any]]:
    """:param named: a line belongs to a container, whose name stands in one legend for all panels."""
    found = []
    most = max(16, min(_POINTS, _ALL_POINTS // max(1, sum(len(panel.series) for panel in panels))))
    for number, panel in enumerate(panels, 1):
        axis = "" if number == 1 else str(number)
        divisor, unit = panel.scale()
        for series in panel.series:
            points = thinned(series, most)
            found.append(
                {
                    "type": "scatter",
                    "mode": "lines" if len(points.times) > 1 else "markers",
                    "name": _plotly_text(series.name if named else f"{panel.title} {series.name}"),
                    "x": _array("d", [_moment(time) for time in points.times]),
                    "y": _array("f", [value / divisor for value in points.values]),
                    "xaxis": f"x{axis}",
                    "yaxis": f"y{axis}",
                    "hovertemplate": "%{y:.4~g}" + unit + f"<extra>{_plotly_text(series.name)}</extra>",
                    "line": line(series),
                    "legendgroup": str(series.color),
                    "showlegend": named and number == 1,
                }
            )
    return found


def _array(kind: str, values: list[float]) -> dict[str, str]:
    """Numbers as plotly writes arrays since version 6: in a saved notebook each number of a list would stand on a line of its own."""
    data = array(kind, values)
    if sys.byteorder == "big":
        data.byteswap()
    return {"dtype": f"f{data.itemsize}", "bdata": b64encode(data.tobytes()).decode("ascii")}


def _moment(seconds: float) -> int:
    """On the axis of time, milliseconds: a tenth of a second is the finest that is recorded."""
    return EPOCH + round(seconds * 1000)


def line(series: Series) -> dict[str, Any]:
    dash = "dot" if series.aside else _DASHES[series.color // len(svg.COLORS) % len(_DASHES)]
    return {"color": svg.COLORS[series.color % len(svg.COLORS)], "width": 2, "dash": dash}


def layout(panels: list[Panel], marks: list[Mark], title: str, named: bool = False) -> dict[str, Any]:
    """Transparent, in middle tones: readable on a light and on a dark page."""
    rows = -(-len(panels) // _COLUMNS)
    found: dict[str, Any] = {
        "title": {"text": _plotly_text(title), "font": {"size": 14}, "x": 0.01, "y": 0.98},
        "height": 200 * rows + (60 if title else 30) + (30 if named else 0),
        "autosize": True,
        "margin": {"l": 65, "r": 15, "t": 75 if title else 45, "b": 30},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": svg.INK, "size": 11},
        "hovermode": "x unified",
        "hoverlabel": {"namelength": 30},
        "legend": {"orientation": "h", "y": -0.08, "x": 0},
        "uirevision": "keep",
        "shapes": [],
        "annotations": [],
    }
    for number, panel in enumerate(panels, 1):
        column, row = (number - 1) % _COLUMNS, (number - 1) // _COLUMNS
        axis = "" if number == 1 else str(number)
        width, height = (1 - _GAP_X * (_COLUMNS - 1)) / _COLUMNS, (1 - _GAP_Y * (rows - 1)) / rows
        # Rounded down and up into 0..1: plotly refuses a domain of -5e-17.
        left, low = column * (width + _GAP_X), max(0.0, 1 - (row + 1) * height - row * _GAP_Y)
        found[f"xaxis{axis}"] = {
            **_AXIS,
            "type": "date",
            "domain": [left, min(1.0, left + width)],
            "anchor": f"y{axis}",
            "visible": not panel.note,
            "tickformatstops": TIMES,
            "hoverformat": "%-H:%M:%S.%1f",
            "nticks": 5,
            # Zoomed in one, all show the same stretch.
            **({"matches": "x"} if number > 1 else {}),
        }
        found[f"yaxis{axis}"] = {
            **_AXIS,
            **_scale(panel),
            "visible": not panel.note,
            "domain": [low, min(1.0, low + height)],
            "anchor": f"x{axis}",
            "rangemode": "tozero",
        }
        found["annotations"].append(_heading(panel, left, low + height, named))
        if panel.note:
            found["annotations"].append(_note(panel.note, left, low + height))
            continue  # marks on axes without a line would have no place
        _limit(found, panel, axis)
        _marks(found, panel, marks, axis)
    return found


def heading(panel: Panel, named: bool = False) -> str:
    """Title with the limit, and below it the legend, in plotly's small HTML: line style, name and last value of each series."""
    title = f"<b>{panel.title}</b>"
    if panel.limit is not None:
        title += f'  <span style="color:{svg.LIMIT}">╌</span> limit {panel.text(panel.limit)}'
    if named:
        return f"{title}<br>peak {panel.text(panel.peak)}" if panel.series else title
    parts = []
    for series in panel.series:
        if series.aside and len(panel.series) > 2:
            continue
        sign = "┄" if series.aside else "━"
        value = panel.text(series.last) if series.values else "-"
        parts.append(f'<span style="color:{svg.COLORS[series.color % len(svg.COLORS)]}">{sign}</span> {series.name} {value}')
    return f"{title}<br>" + "  ".join(parts)


def _heading(panel: Panel, x: float, y: float, named: bool) -> dict[str, Any]:
    return _words(heading(panel, named), x, y, "bottom")


def _note(note: str, x: float, y: float) -> dict[str, Any]:
    from textwrap import wrap

    return _words("<br>".join(wrap(note, 36)), x, y - 0.02, "top")


def _words(text: str, x: float, y: float, anchor: str) -> dict[str, Any]:
    place = {"x": x, "y": y, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": anchor}
    return {"text": text, **place, "showarrow": False, "align": "left"}


def _scale(panel: Panel) -> dict[str, Any]:
    top = panel.top
    if panel.unit == "count":
        return {"tickformat": ",d", "dtick": max(1, -(-int(top) // 4))}  # whole processes: plotly would draw 0.5 and write 1 twice
    divisor, unit = panel.scale()
    return {"ticksuffix": unit, "nticks": 5, "tickformat": ".4~g", "range": [0, (top / divisor or 1.0) * 1.08]}


def _limit(found: dict[str, Any], panel: Panel, axis: str) -> None:
    limit, (divisor, _) = panel.shown_limit, panel.scale()
    if limit is None:
        return
    found["shapes"].append(
        {
            "type": "line",
            "xref": f"x{axis} domain",
            "yref": f"y{axis}",
            "x0": 0,
            "x1": 1,
            "y0": limit / divisor,
            "y1": limit / divisor,
            "line": {"color": svg.LIMIT, "width": 1, "dash": "dash"},
        }
    )
    # Shapes do not stretch a plotly axis by themselves.
    found[f"yaxis{axis}"]["range"] = [0, panel.top / divisor * 1.08]


def _marks(found: dict[str, Any], panel: Panel, marks: list[Mark], axis: str) -> None:
    for mark in marks:
        if not svg.told(mark, panel):
            continue
        color = svg.OOM if mark.kind == "oom" else svg.END
        when = _moment(mark.time)
        line = {"color": color, "width": 1, "dash": "dot"}
        found["shapes"].append(
            {"type": "line", "xref": f"x{axis}", "yref": f"y{axis} domain", "x0": when, "x1": when, "y0": 0, "y1": 1, "line": line}
        )
        # Words where memory is, whose end is told most often; of several containers they would lie over one another.
        if panel.title == "Memory" and mark.kind in ("oom", "end") and not mark.name:
            found["annotations"].append(
                {
                    "text": f"{mark.sign} {_plotly_text(mark.text)}",
                    "x": when,
                    "y": 0.9 if mark.kind == "oom" else 0.75,
                    "xref": f"x{axis}",
                    "yref": f"y{axis} domain",
                    "xanchor": "right",
                    "showarrow": False,
                    "font": {"color": color},
                }
            )
        elif panel.title == "CPU" or (mark.name and panel.title == "Memory"):
            found["annotations"].append(
                {
                    "text": mark.sign,
                    "hovertext": _plotly_text(f"{mark.name} {mark.text}".strip()),
                    "x": when,
                    "y": 1,
                    "xref": f"x{axis}",
                    "yref": f"y{axis} domain",
                    "yanchor": "middle",
                    "showarrow": False,
                    "font": {"color": color, "size": 9},
                }
            )


def _plotly_text(value: str) -> str:
    """plotly reads a small HTML in texts (``<a href>`` among it), and %{…} in templates: names from outside must not speak it."""
    from html import escape

    return escape(one_line(value), quote=False).replace("%{", "%&#123;")
