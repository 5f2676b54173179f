"""Panels as one plotly figure, and the bundle of forms in which a Stats is shown.

The figure is made as plain data (plotly's JSON schema): a plot that does not move never pays for importing plotly.
"""

from __future__ import annotations

import math
from typing import Any

from ..text import one_line
from ..usage import Mark, Panel, Stats
from . import svg

PLOTLY = "application/vnd.plotly.v1+json"
_COLUMNS = 3
_GAP_X, _GAP_Y = 0.08, 0.2
_AXIS = {"gridcolor": "rgba(128,128,128,.25)", "zerolinecolor": "rgba(128,128,128,.4)", "linecolor": "rgba(128,128,128,.5)"}


def figure(stats: Stats, title: bool = True) -> dict[str, Any]:
    """``{"data": …, "layout": …}`` with a subplot per panel; always the same traces in the same order."""
    panels = stats.panels()
    return {"data": traces(panels), "layout": layout(panels, stats.marks(), stats.title if title else "")}


def traces(panels: list[Panel]) -> list[dict[str, Any]]:
    found = []
    for number, panel in enumerate(panels, 1):
        axis = "" if number == 1 else str(number)
        for index, series in enumerate(panel.series):
            found.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": f"{panel.title} {series.name}",
                    "x": list(series.times),
                    "y": list(series.values),
                    "xaxis": f"x{axis}",
                    "yaxis": f"y{axis}",
                    "customdata": [panel.text(value) for value in series.values],
                    "hovertemplate": "%{x:.1f} s: %{customdata}<extra>" + series.name + "</extra>",
                    "line": {"color": svg.COLORS[index % 2], "width": 2, "dash": "dot" if series.aside else "solid"},
                    "showlegend": False,
                }
            )
    return found


def layout(panels: list[Panel], marks: list[Mark], title: str) -> dict[str, Any]:
    """Transparent, in middle tones: readable on a light and on a dark page."""
    rows = -(-len(panels) // _COLUMNS)
    found: dict[str, Any] = {
        "title": {"text": _plotly_text(title), "font": {"size": 14}, "x": 0.01, "y": 0.98},
        "height": 230 * rows + (50 if title else 20),
        "autosize": True,
        "margin": {"l": 60, "r": 15, "t": 75 if title else 45, "b": 30},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": svg.INK, "size": 11},
        "hovermode": "x",
        "uirevision": "keep",
        "shapes": [],
        "annotations": [],
        "transition": {"duration": 0},
    }
    for number, panel in enumerate(panels, 1):
        column, row = (number - 1) % _COLUMNS, (number - 1) // _COLUMNS
        axis = "" if number == 1 else str(number)
        width, height = (1 - _GAP_X * (_COLUMNS - 1)) / _COLUMNS, (1 - _GAP_Y * (rows - 1)) / rows
        # Rounded down and up into 0..1: plotly refuses a domain of -5e-17.
        left, low = column * (width + _GAP_X), max(0.0, 1 - (row + 1) * height - row * _GAP_Y)
        found[f"xaxis{axis}"] = {
            **_AXIS,
            "domain": [left, min(1.0, left + width)],
            "anchor": f"y{axis}",
            "ticksuffix": " s",
            "rangemode": "tozero",
        }
        found[f"yaxis{axis}"] = {
            **_AXIS,
            **_scale(panel),
            "domain": [low, min(1.0, low + height)],
            "anchor": f"x{axis}",
            "rangemode": "tozero",
        }
        found["annotations"].append(
            {
                "text": heading(panel),
                "x": left,
                "y": low + height,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
                "align": "left",
            }
        )
        _limit(found, panel, axis)
        _marks(found, panel, marks, axis)
    return found


def heading(panel: Panel) -> str:
    """Title with the limit, and below it the legend, in plotly's small HTML: line style, name and last value of each series."""
    title = f"<b>{panel.title}</b>"
    if panel.limit is not None:
        title += f'  <span style="color:{svg.LIMIT}">╌</span> limit {panel.text(panel.limit)}'
    parts = []
    for index, series in enumerate(panel.series):
        sign = "┄" if series.aside else "━"
        value = panel.text(series.last) if series.values else "-"
        parts.append(f'<span style="color:{svg.COLORS[index % 2]}">{sign}</span> {series.name} {value}')
    return f"{title}<br>" + "  ".join(parts)


def _scale(panel: Panel) -> dict[str, Any]:
    if panel.unit == "percent":
        return {"ticksuffix": " %"}
    if panel.unit == "count":
        return {"tickformat": ",d", "dtick": max(1, -(-int(_top(panel)) // 4))}  # whole processes: plotly would draw 0.5 and write 1 twice
    # plotly knows powers of ten only; memory is given and limited in powers of two.
    top = _top(panel) or 1024.0
    step = 2.0 ** max(0, math.ceil(math.log2(top / 4)))
    values = [step * index for index in range(int(top / step) + 1)]
    return {"tickmode": "array", "tickvals": values, "ticktext": [panel.text(value) for value in values], "range": [0, top * 1.08]}


def _top(panel: Panel) -> float:
    """The highest value that the panel shows: a limit far above use would press every line flat, its number is in the heading."""
    peak = max([series.peak for series in panel.series], default=0.0)
    return max(peak, panel.limit) if panel.limit is not None and panel.limit < max(peak, 1e-9) * 20 else peak


def _limit(found: dict[str, Any], panel: Panel, axis: str) -> None:
    top = _top(panel)
    if panel.limit is None or panel.limit > top:
        return
    found["shapes"].append(
        {
            "type": "line",
            "xref": f"x{axis} domain",
            "yref": f"y{axis}",
            "x0": 0,
            "x1": 1,
            "y0": panel.limit,
            "y1": panel.limit,
            "line": {"color": svg.LIMIT, "width": 1, "dash": "dash"},
        }
    )
    # Shapes do not stretch a plotly axis by themselves.
    found[f"yaxis{axis}"]["range"] = [0, top * 1.08]


def _marks(found: dict[str, Any], panel: Panel, marks: list[Mark], axis: str) -> None:
    for mark in marks:
        if mark.kind == "oom" and panel.title != "Memory":
            continue
        color = svg.OOM if mark.kind == "oom" else svg.END
        found["shapes"].append(
            {
                "type": "line",
                "xref": f"x{axis}",
                "yref": f"y{axis} domain",
                "x0": mark.time,
                "x1": mark.time,
                "y0": 0,
                "y1": 1,
                "line": {"color": color, "width": 1, "dash": "dot"},
            }
        )
        if panel.title == "Memory":
            found["annotations"].append(
                {
                    "text": ("✗ " if mark.kind == "oom" else "") + mark.text,
                    "x": mark.time,
                    "y": 0.9 if mark.kind == "oom" else 0.75,
                    "xref": f"x{axis}",
                    "yref": f"y{axis} domain",
                    "xanchor": "right",
                    "showarrow": False,
                    "font": {"color": color},
                }
            )


def _plotly_text(value: str) -> str:
    """plotly reads a small HTML in texts (``<a href>`` among it): names from outside must not speak it."""
    from html import escape

    return escape(one_line(value), quote=False)
