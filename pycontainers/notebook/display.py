"""Rich display of our objects, attached by type when the extension is loaded and taken away when it is unloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

from .. import objects, results, wording
from ..explored import Explored
from ..overview import Dashboard
from ..profiles import Comparison, Profile
from ..usage import Figure, Stats, StatsTable, sparkline
from . import html
from .listing import container, containers


def plain_table(found: Any) -> str:
    """Any of our lists that has headers and rows."""
    return html.table(found.headers, [[html.text(cell) for cell in row] for row in found.rows()])


def rows(found: results.Rows) -> str:
    return plain_table(found) if found or not found.empty else f"<p>{html.muted(found.empty)}</p>"


def image(item: objects.Image) -> str:
    return plain_table(objects.ImageList([item]))


_CHECK_COLORS = {"ok": html.GOOD, "weaker": html.WARN, "missing": html.BAD}


def checks(found: results.Checks) -> str:
    rows = []
    for check, (icon, name, state, why, remedy) in zip(found, found.rows(), strict=True):
        color = _CHECK_COLORS.get(check.state, html.MUTED)
        rows.append([html.text(name), html.colored(f"{icon} {state}", color), html.text(why), html.mono(remedy) if remedy else ""])
    return html.table(found.headers[1:], rows)


def logs(found: results.Logs) -> str:
    """Lines of stderr carry a bar and a label, not only a colour."""
    parts = []
    for line in found:
        error = line.stream == "stderr"
        style = f"border-left:3px solid {html.WARN};padding-left:.5em" if error else "border-left:3px solid transparent;padding-left:.5em"
        shown = html.block(wording.line_text(line, found.timestamps).rstrip("\n") or " ", style)
        parts.append(f'<div title="stderr" aria-label="stderr">{shown}</div>' if error else f"<div>{shown}</div>")
    return f'<div style="max-height:30em;overflow:auto">{"".join(parts) or html.muted("the log is empty")}</div>'


def stats_table(found: StatsTable) -> str:
    rows = []
    for stats, cells in zip(found, found.rows(), strict=True):
        course = sparkline(stats.panels()[0].series[0])
        rows.append([f"<b>{html.text(cells[0])}</b>", *[html.text(cell) for cell in cells[1:]], html.mono(course)])
    return html.table([*found.headers, "CPU COURSE"], rows) if rows else f"<p>{html.muted('no running containers')}</p>"


def measured(found: Profile | Comparison) -> str:
    """What runs used in all; ratios are set back."""
    rows = []
    for name, *cells in found.rows():
        indent = "&nbsp;&nbsp;&nbsp;" if name.startswith(" ") else ""
        aside = [cell.endswith("×") or (isinstance(found, Profile) and place == 1) for place, cell in enumerate(cells)]
        shown = [html.muted(cell) if quiet else html.text(cell) for cell, quiet in zip(cells, aside, strict=True)]
        rows.append([indent + html.text(name), *shown])
    return html.table(found.headers if isinstance(found, Comparison) else ("", "used", ""), rows)


def problems(found: results.Problems) -> str:
    return plain_table(found) if found else f"<p>{html.colored('✓ nothing is wrong', html.GOOD)}</p>"


def disk(found: results.DiskTable) -> str:
    parts = [plain_table(found)]
    for title, rows in found.items() if found.verbose else ():
        parts.append(html.table(found.item_headers, [[html.text(cell) for cell in row] for row in rows], caption=title))
    return "".join(parts)


_HTML: dict[type, Callable[[Any], str]] = {
    objects.ContainerList: containers,
    objects.Container: container,
    objects.ImageList: plain_table,
    objects.Image: image,
    results.ImageSteps: plain_table,
    results.Rows: rows,
    results.Changes: plain_table,
    results.Events: plain_table,
    results.Checks: checks,
    results.Problems: problems,
    results.DiskTable: disk,
    results.Logs: logs,
}


def attach(shell: Any, live: Callable[[], bool]) -> None:
    """Teach this shell's formatters our types. ``live`` is asked at each display."""
    formatter = shell.display_formatter
    for kind, function in _HTML.items():
        formatter.formatters["text/html"].for_type(kind, function)
    # What a foreground run wrote has been streamed: its result in the last line of a cell shows nothing once more.
    formatter.ipython_display_formatter.for_type(results.RunResult, _nothing)

    for shown, forms in _BUNDLES.items():
        # By type, and for whatever is one of it: Stats, StatsTable, Profile and Comparison are drawn as figures.
        bundle = _bundling(forms, live, shell)
        if isinstance(shown, str):
            formatter.mimebundle_formatter.for_type_by_name(*shown.rsplit(".", 1), bundle)
        else:
            formatter.mimebundle_formatter.for_type(shown, bundle)

    def moving(figure: Figure) -> None:
        """A live figure is an output of its own, whose static form is renewed at its end: a saved notebook has all of it."""
        if not (live() and _moves(figure)):
            raise NotImplementedError  # IPython then asks for the forms
        from .widgets.stats import show

        show(figure)

    formatter.ipython_display_formatter.for_type(Figure, moving)


def _bundling(forms: Callable[[Any, bool, Any], dict[str, Any]], live: Callable[[], bool], shell: Any) -> Callable[..., dict[str, Any]]:
    def bundle(found: Any, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return forms(found, live(), shell)

    return bundle


def figure_bundle(figure: Figure, live: bool) -> dict[str, Any]:
    """All forms of one figure. Text and SVG are always there: no plot is ever blank on GitHub, in nbconvert, or headless."""
    bundle: dict[str, Any] = {"text/plain": figure.summary()}
    if figure.form == "table" or not figure.courses:
        if isinstance(figure, StatsTable):
            bundle["text/html"] = stats_table(figure)
        elif isinstance(figure, Profile | Comparison):
            bundle["text/html"] = measured(figure)
        return bundle
    from . import plots, svg  # with the first plot, not with the extension

    bundle["image/svg+xml"] = svg.draw(figure)
    if isinstance(figure, Profile | Comparison):
        # Numbers first: a page shows one form alone, and here the picture explains what the table says.
        bundle["text/html"] = measured(figure) + bundle["image/svg+xml"]
        return bundle
    if figure.form == "static":
        return bundle
    if live and _moves(figure):
        from .widgets.stats import live_view

        return {**bundle, **live_view(figure)}
    return {**bundle, plots.PLOTLY: plots.figure(figure)}


def _moves(figure: Figure) -> TypeGuard[Stats | StatsTable]:
    """Whether there is more to come, and somebody wants to see it come."""
    return figure.form == "live" and isinstance(figure, Stats | StatsTable) and any(course.is_running for course in figure.courses)


def _figure(found: Any, live: bool, shell: Any) -> dict[str, Any]:
    return figure_bundle(found, live)


def _explored(found: Any, live: bool, shell: Any) -> dict[str, Any]:
    from . import exploring  # each with the first of its kind, not with the extension

    return exploring.bundle(found, live)


def _terminal(found: Any, live: bool, shell: Any) -> dict[str, Any]:
    from . import terminals

    forms = terminals.forms(found)
    if not live:
        return forms
    from .widgets.terminal import live_view

    return {**forms, **live_view(found, shell)}


def _namespaces(found: Any, live: bool, shell: Any) -> dict[str, Any]:
    from . import namespaces

    return namespaces.bundle(found, live)


def _dashboard(found: Any, live: bool, shell: Any) -> dict[str, Any]:
    from .dashboard import static

    return static.bundle(found, live)


#: what has several forms: ``(object, whether the page is live, the shell) -> MIME bundle``; by its name what is loaded with its first use
_BUNDLES: dict[type | str, Callable[[Any, bool, Any], dict[str, Any]]] = {
    Figure: _figure,
    Explored: _explored,
    "pycontainers.terminals.Terminal": _terminal,
    "pycontainers.namespaced.Namespaces": _namespaces,
    Dashboard: _dashboard,
}


def _nothing(value: object) -> bool:
    return True


def detach(shell: Any) -> None:
    """Forget our types."""
    formatter = shell.display_formatter
    for kind in _HTML:
        formatter.formatters["text/html"].pop(kind, None)
    formatter.ipython_display_formatter.pop(results.RunResult, None)
    formatter.ipython_display_formatter.pop(Figure, None)
    for shown in _BUNDLES:
        formatter.mimebundle_formatter.pop(shown, None)
