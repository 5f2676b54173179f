"""Panels as one hand-made SVG of small charts: what GitHub, nbconvert and headless runs show.

JupyterLab shows an SVG output inside ``<img>``, where neither the page's colours nor its fonts reach: so every colour is a
middle tone that reads on white and on black alike (4.5:1 against white), and lines differ by dashes and labels too.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from ..text import one_line
from ..usage import Mark, Panel, Series, Stats

WIDTH, HEIGHT = 240, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 44, 18
_COLUMNS = 3
_POINTS = 240
INK = "#767676"
COLORS = ("#3b7dd8", "#c77700")
LIMIT, OOM, END = "#d13b3b", "#d13b3b", "#767676"


def draw(stats: Stats) -> str:
    """The picture of one container's use as an SVG document."""
    panels, marks = stats.panels(), stats.marks()
    rows = -(-len(panels) // _COLUMNS)
    width, height = WIDTH * _COLUMNS, HEIGHT * rows + 26
    span = max([stats.duration, *[mark.time for mark in marks], 1e-9])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-labelledby="t d" style="max-width:100%;height:auto;color:var(--jp-ui-font-color1, {INK});background:transparent" '
        'font-family="system-ui, sans-serif" font-size="11">',
        f'<title id="t">{_text(stats.title)}</title>',
        f'<desc id="d">{_text(description(panels, marks))}</desc>',
        f'<text x="{_LEFT}" y="16" font-size="13" font-weight="600" fill="currentColor">{_text(stats.title)}</text>',
    ]
    for index, panel in enumerate(panels):
        x, y = WIDTH * (index % _COLUMNS), 26 + HEIGHT * (index // _COLUMNS)
        parts.append(f'<g transform="translate({x} {y})">{_panel(panel, marks, span)}</g>')
    return "".join([*parts, "</svg>"])


def description(panels: Sequence[Panel], marks: Sequence[Mark]) -> str:
    """The picture in words, for who cannot see it."""
    sentences = []
    for panel in panels:
        values = [
            f"{series.name} last {panel.text(series.last)}, peak {panel.text(series.peak)}" for series in panel.series if series.values
        ]
        limit = f", limit {panel.text(panel.limit)}" if panel.limit is not None else ""
        sentences.append(f"{panel.title}: {'; '.join(values) or 'nothing recorded'}{limit}.")
    return " ".join([*sentences, *[f"{mark.text} at {mark.time:.1f} s." for mark in marks]])


def _panel(panel: Panel, marks: Sequence[Mark], span: float) -> str:
    inner_width, inner_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    top = max([series.peak for series in panel.series] + [1e-9])
    # The limit belongs into view unless use is so far below it that its line would press everything flat.
    shown_limit = panel.limit if panel.limit is not None and panel.limit < top * 20 else None
    top = max(top, shown_limit or 0.0) * 1.08

    def at(time: float, value: float) -> tuple[float, float]:
        return _LEFT + inner_width * min(1.0, time / span), _TOP + inner_height * (1 - value / top)

    limit = ""
    if panel.limit is not None:
        limit = f'<tspan font-weight="400" font-size="10">  <tspan fill="{LIMIT}">╌</tspan> limit {_text(panel.text(panel.limit))}</tspan>'
    title = f'<text x="{_LEFT}" y="14" font-weight="600" fill="currentColor">{_text(panel.title)}{limit}</text>'
    parts = [title, _legend(panel)]
    parts.append(
        f'<path d="M{_LEFT} {_TOP + inner_height}H{_LEFT + inner_width}" stroke="{INK}" stroke-opacity=".5" fill="none"/>'
        f'<text x="{_LEFT}" y="{HEIGHT - 5}" fill="{INK}" font-size="9">0</text>'
        f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 5}" fill="{INK}" font-size="9" text-anchor="end">{span:.0f} s</text>'
    )
    if shown_limit is not None:
        _, y = at(0, shown_limit)
        parts.append(f'<path d="M{_LEFT} {y:.1f}h{inner_width}" stroke="{LIMIT}" stroke-width="1" stroke-dasharray="6 3" fill="none"/>')
    for index, series in enumerate(panel.series):
        parts.append(_line(series, COLORS[index % len(COLORS)], at))
    for mark in marks:
        if mark.kind == "oom" and panel.title != "Memory":
            continue
        x, _ = at(mark.time, 0)
        color = OOM if mark.kind == "oom" else END
        parts.append(f'<path d="M{x:.1f} {_TOP}v{inner_height}" stroke="{color}" stroke-dasharray="2 2" fill="none"/>')
        if mark.kind == "oom":
            parts.append(
                f'<text x="{x - 3:.1f}" y="{_TOP + 22}" fill="{color}" font-size="10" text-anchor="end">✗ {_text(mark.text)}</text>'
            )
    return "".join(parts)


def _legend(panel: Panel) -> str:
    spans = []
    for index, series in enumerate(panel.series):
        sign = "┄" if series.aside else "━"
        value = panel.text(series.last) if series.values else "-"
        spans.append(f'<tspan fill="{COLORS[index % len(COLORS)]}">{sign}</tspan> {_text(series.name)} {_text(value)}')
    return f'<text x="{_LEFT}" y="30" fill="currentColor" font-size="10">{"  ".join(spans)}</text>'


def _line(series: Series, color: str, at: object) -> str:
    assert callable(at)
    points = _thin(series)
    if not points:
        return ""
    dash = ' stroke-dasharray="4 3"' if series.aside else ""
    if len(points) == 1:
        x, y = at(*points[0])
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{color}"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(time, value) for time, value in points))
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"{dash}/>'


def _thin(series: Series) -> list[tuple[float, float]]:
    """At most 240 points; of each stretch the highest, so that no peak is lost."""
    points = list(zip(series.times, series.values, strict=True))
    if len(points) <= _POINTS:
        return points
    edges = [round(index * len(points) / _POINTS) for index in range(_POINTS + 1)]
    return [max(points[low:high], key=lambda point: point[1]) for low, high in pairwise(edges)]


def _text(value: str) -> str:
    return escape(one_line(value))
