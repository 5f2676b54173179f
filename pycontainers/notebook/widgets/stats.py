"""The live plot of one container: a plotly FigureWidget with its caption, fed by the kernel's one sampler thread.

Each FigureWidget carries plotly's bundle (5 MB) to the page once: so there is one with subplots, not one for each panel.
"""

from __future__ import annotations

import threading
from typing import Any

from ...errors import NotFound
from ...usage import Stats
from .. import html
from ..plots import layout, traces
from ..sampler import sampler
from .base import widget_view


def _figure_class() -> Any:
    """plotly's FigureWidget, which answers a page that asks anew (a reload, a second view) with what is drawn *now*.

    Its own traits keep the figure that it was made with: later changes go to the page as messages alone.
    """
    from copy import deepcopy

    from plotly.graph_objects import FigureWidget

    class CurrentFigure(FigureWidget):  # type: ignore[misc]  # plotly has no types
        def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
            if key is None and self.comm is not None:  # not before __init__ has ended
                # Without notification: nothing has changed for the pages that follow along.
                self._trait_values["_widget_layout"] = deepcopy(self._layout_obj._props)
                self._trait_values["_widget_data"] = deepcopy(self._data)
            return super().get_state(key, drop_defaults)

    return CurrentFigure


class LiveStats:
    """``widget`` is what the page shows. Buttons may call back on any thread: they set a flag and return."""

    def __init__(self, stats: Stats) -> None:
        import ipywidgets

        from ..plots import figure

        self.stats = stats
        self._paused = threading.Event()
        self._drawing = threading.Lock()
        self.figure = _figure_class()(figure(stats, title=False))
        self.caption = ipywidgets.HTML(self._caption("live"))
        self.pause = ipywidgets.ToggleButton(description="Pause", icon="pause", tooltip="Hold the picture; recording goes on")
        self.pause.observe(self._toggle, "value")
        self.widget = ipywidgets.VBox([ipywidgets.HBox([self.pause, self.caption]), self.figure])

    def _toggle(self, change: Any) -> None:
        if change["new"]:
            self._paused.set()
        else:
            self._paused.clear()

    def _caption(self, state: str) -> str:
        limits = "".join(f" · {panel.title} limit {panel.text(panel.limit)}" for panel in self.stats.panels() if panel.limit is not None)
        return f"<b>{html.text(self.stats.title)}</b> {html.muted(f'● {state}{limits}')}"

    def tick(self) -> bool:
        """Called once a second by the sampler."""
        if self.widget.comm is None or self.figure.comm is None:
            return False  # closed from Python, or with its page
        if self._paused.is_set():
            self.caption.value = self._caption("paused")
            return True
        try:
            self.stats.reload()
        except NotFound:
            self.release("removed")
            return False
        running = self.stats.info.status == "running"
        self.draw()
        self.caption.value = self._caption("live" if running else "ended")
        if not running:
            self.pause.disabled = True
        return running

    def draw(self) -> None:
        panels = self.stats.panels()
        new = traces(panels)
        with self._drawing, self.figure.batch_update():
            for trace, values in zip(self.figure.data, new, strict=True):
                trace.x, trace.y, trace.customdata = values["x"], values["y"], values["customdata"]
            changed = layout(panels, self.stats.marks(), "")
            self.figure.layout.shapes = changed["shapes"]
            self.figure.layout.annotations = changed["annotations"]
            for name in (name for name in changed if name.startswith("yaxis")):
                moving = {key: changed[name][key] for key in ("range", "tickvals", "ticktext", "dtick") if key in changed[name]}
                self.figure.layout[name].update(moving)

    def release(self, reason: str) -> None:
        self.pause.disabled = True
        self.caption.value = self._caption(reason)


def live_view(stats: Stats) -> dict[str, Any]:
    """The widget part of a display bundle; the view is kept current from now on."""
    view = LiveStats(stats)
    sampler().add(view)
    return widget_view(view.widget)
