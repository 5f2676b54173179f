"""A figure as one hand-made SVG of small charts: what GitHub, nbconvert and headless runs show.

JupyterLab shows an SVG output inside ``<img>``, where neither the page's colours nor its fonts reach: so every colour is a
middle tone that reads on white and on black alike, and lines differ by dashes and labels too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

from ..metrics.series import format_duration
from ..panels import Mark, Panel, Series, thinned
from ..text import one_line
from ..usage import Figure

WIDTH, HEIGHT = 240, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 44, 18
_AXIS = 52  # where the chart begins, right of its numbers
_COLUMNS = 3
_POINTS, _ALL_POINTS = 240, 2800
"""In one line, and in the whole picture: a saved notebook stays small."""
_NAMED = 24  # containers in the legend
INK = "#767676"
COLORS = ("#3b7dd8", "#c77700", "#2e8b57", "#a35bd6", "#d0457b", "#0f8b8d", "#a0703c", "#7d8500")
DASHES = ("", "6 3", "2 3", "8 3 2 3")
LIMIT, OOM, END = "#d13b3b", "#d13b3b", "#767676"
At = Callable[[float, float], tuple[float, float]]


def draw(figure: Figure) -> str:
    """The picture of what containers used as an SVG document."""
    panels, marks = figure.panels(), figure.marks()
    names = [course.name for course in figure.courses] if len(figure.courses) > 1 else []
    legend = list(_names(names))
    rows = -(-len(panels) // _COLUMNS)
    begin = 26 + 16 * (max([line for line, _, _ in legend]) + 1 if legend else 0)
    told = events(marks)
    width, height = WIDTH * _COLUMNS, begin + HEIGHT * rows + (18 if told else 0)
    span = max([figure.duration, *[mark.time for mark in marks], 1e-9])
    most = max(16, min(_POINTS, _ALL_POINTS // max(1, sum(len(panel.series) for panel in panels))))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-labelledby="t d" style="max-width:100%;height:auto;color:var(--jp-ui-font-color1, {INK});background:transparent" '
        'font-family="system-ui, sans-serif" font-size="11">',
        f'<title id="t">{_text(figure.title)}</title>',
        f'<desc id="d">{_text(description(panels, marks))}</desc>',
        f'<text x="{_LEFT}" y="16" font-size="13" font-weight="600" fill="currentColor">{_text(figure.title)}</text>',
        *[_name(names[number], number, line, x) for number, (line, x, _) in enumerate(legend)],
    ]
    for index, panel in enumerate(panels):
        x, y = WIDTH * (index % _COLUMNS), begin + HEIGHT * (index // _COLUMNS)
        parts.append(f'<g transform="translate({x} {y})">{_panel(panel, marks, span, most, not names)}</g>')
    if told:
        parts.append(f'<text x="{_LEFT}" y="{height - 6}" fill="{INK}" font-size="10">{_text(_cut(told, 125))}</text>')
    return "".join([*parts, "</svg>"])


def events(marks: Sequence[Mark]) -> str:
    """What happened, in one line: ``▶ start 0.02 s · ✗ OOM-killed 12 s``."""
    return " · ".join(f"{mark.sign} {mark.name + ': ' if mark.name else ''}{mark.text} {format_duration(mark.time)}" for mark in marks)


def told(mark: Mark, panel: Panel) -> bool:
    """Whether a panel shows it: OOM kills where memory is; of several containers only what went wrong, or everything would be marks."""
    if mark.kind == "oom":
        return panel.title == "Memory"
    return not mark.name or mark.kind in ("end", "change")


def description(panels: Sequence[Panel], marks: Sequence[Mark]) -> str:
    """The picture in words, for who cannot see it."""
    sentences = []
    for panel in panels:
        values = [
            f"{series.name} last {panel.text(series.last)}, peak {panel.text(series.peak)}" for series in panel.series if series.values
        ]
        limit = f", limit {panel.text(panel.limit)}" if panel.limit is not None else ""
        sentences.append(f"{panel.title}: {'; '.join(values) or panel.note or 'nothing recorded'}{limit}.")
    return " ".join([*sentences, *[f"{mark.name} {mark.text} at {mark.time:.1f} s.".lstrip() for mark in marks]])


def ticks(top: float) -> list[float]:
    """Round numbers above 0 and up to ``top``, five at most."""
    if not top > 0:
        return []
    step = 10.0 ** math.floor(math.log10(top / 5))
    step *= next(factor for factor in (1, 2, 5, 10) if top / (step * factor) <= 5)
    return [step * number for number in range(1, int(top / step + 1e-9) + 1)]


def _names(names: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """(line, x, width) of each container's name above the panels."""
    line, x = 0, _LEFT
    for name in names[:_NAMED]:
        width = 34 + 6 * min(len(name), 24)
        if x + width > WIDTH * _COLUMNS:
            line, x = line + 1, _LEFT
        yield line, x, width
        x += width


def _name(name: str, number: int, line: int, x: int) -> str:
    y = 32 + 16 * line
    text = f'<text x="{x + 20}" y="{y}" fill="currentColor">{_text(_cut(name, 24))}</text>'
    return f'<path d="M{x} {y - 4}h16"{_stroke(number, False)}/>{text}'


def _stroke(color: int, aside: bool) -> str:
    """Beyond the last colour they come again, dashed."""
    dash = "1.5 3" if aside else DASHES[color // len(COLORS) % len(DASHES)]
    return f' fill="none" stroke="{COLORS[color % len(COLORS)]}" stroke-width="1.5"' + (f' stroke-dasharray="{dash}"' if dash else "")


def _panel(panel: Panel, marks: Sequence[Mark], span: float, most: int, named: bool) -> str:
    inner_width, inner_height = WIDTH - _AXIS - _RIGHT, HEIGHT - _TOP - _BOTTOM
    top = max(panel.top, 1e-9) * 1.08

    def at(time: float, value: float) -> tuple[float, float]:
        return _AXIS + inner_width * min(1.0, time / span), _TOP + inner_height * (1 - value / top)

    limit = ""
    if panel.limit is not None:
        limit = f'<tspan font-weight="400" font-size="10">  <tspan fill="{LIMIT}">╌</tspan> limit {_text(panel.text(panel.limit))}</tspan>'
    parts = [f'<text x="{_LEFT}" y="14" font-weight="600" fill="currentColor">{_text(panel.title)}{limit}</text>']
    if panel.note:
        return parts[0] + _note(panel.note)
    parts.append(_legend(panel) if named else _highest(panel))
    parts.append(_axes(panel, at, span))
    if panel.shown_limit is not None:
        _, y = at(0, panel.shown_limit)
        parts.append(f'<path d="M{_AXIS} {y:.1f}h{inner_width}" stroke="{LIMIT}" stroke-width="1" stroke-dasharray="6 3" fill="none"/>')
    parts += [_line(series, at, most) for series in panel.series]
    for mark in marks:
        if not told(mark, panel):
            continue
        x, _ = at(mark.time, 0)
        color = OOM if mark.kind == "oom" else END
        parts.append(f'<path d="M{x:.1f} {_TOP}v{inner_height}" stroke="{color}" stroke-opacity=".7" stroke-dasharray="2 2" fill="none"/>')
        if mark.kind == "oom":
            left = x > WIDTH / 2
            parts.append(
                f'<text x="{x - 3 if left else x + 3:.1f}" y="{_TOP + 22}" fill="{color}" font-size="10" '
                f'text-anchor="{"end" if left else "start"}">✗ {_text(mark.text)}</text>'
            )
    return "".join(parts)


def _axes(panel: Panel, at: At, span: float) -> str:
    """The time axis, and lines at round values with their numbers in the lines' own unit."""
    divisor, unit = panel.scale()
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = [f'<path d="M{_AXIS} {bottom}H{right}" stroke="{INK}" stroke-opacity=".5" fill="none"/>']
    for value in ticks(panel.top / divisor if panel.top else 0.0):
        if panel.unit == "count" and value != int(value):
            continue
        _, y = at(0, value * divisor)
        parts.append(
            f'<path d="M{_AXIS} {y:.1f}H{right}" stroke="{INK}" stroke-opacity=".18" fill="none"/>'
            f'<text x="{_AXIS - 4}" y="{y + 3:.1f}" fill="{INK}" font-size="8" text-anchor="end">{value:g}{unit}</text>'
        )
    parts.append(
        f'<text x="{_AXIS}" y="{HEIGHT - 5}" fill="{INK}" font-size="9">0</text>'
        f'<text x="{right}" y="{HEIGHT - 5}" fill="{INK}" font-size="9" text-anchor="end">{format_duration(span)}</text>'
    )
    return "".join(parts)


def _legend(panel: Panel) -> str:
    spans = []
    shown = [series for series in panel.series if not (series.aside and len(panel.series) > 2)]
    for series in shown:
        value = panel.text(series.last) if series.values else "-"
        sign = "┄" if series.aside else "━"
        spans.append(f'<tspan fill="{COLORS[series.color % len(COLORS)]}">{sign}</tspan> {_text(series.name)} {_text(value)}')
    rest = "  ┄ all tasks" if len(shown) < len(panel.series) else ""
    return f'<text x="{_LEFT}" y="30" fill="currentColor" font-size="10">{"  ".join(spans)}{rest}</text>'


def _highest(panel: Panel) -> str:
    """Where lines are told apart above: who used most."""
    best = max(panel.series, key=lambda series: series.peak, default=None)
    text = f"peak {panel.text(best.peak)}, {_cut(best.name, 24)}" if best is not None and best.peak else ""
    return f'<text x="{_LEFT}" y="30" fill="{INK}" font-size="10">{_text(text)}</text>'


def _note(note: str) -> str:
    lines: list[str] = []
    line = ""
    for word in note.split():
        if len(line) + len(word) > 40:
            lines, line = [*lines, line], ""
        line = f"{line} {word}".lstrip()
    return "".join(
        f'<text x="{_LEFT}" y="{34 + 14 * row}" fill="{INK}" font-size="10">{_text(text)}</text>' for row, text in enumerate([*lines, line])
    )


def _line(series: Series, at: At, most: int) -> str:
    shown = thinned(series, most)
    points = [at(time, value) for time, value in zip(shown.times, shown.values, strict=True)]
    if not points:
        return ""
    if len(points) == 1:
        return f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2" fill="{COLORS[series.color % len(COLORS)]}"/>'
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"{_stroke(series.color, series.aside)}/>'


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(value: str) -> str:
    return escape(one_line(value))
