"""What a cell shows from inside: ``display()``, figures, the last expression. Forms are made here; the notebook decides what is shown."""

from __future__ import annotations

import base64
import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import shutil
import sys
import types
from collections.abc import Callable
from typing import Any

_TEXT = 200_000
_ROWS, _COLUMNS, _CELL = 60, 20, 300
_PICTURES = {"_repr_png_": "image/png", "_repr_jpeg_": "image/jpeg"}
_MARKUP = {"_repr_html_": "text/html", "_repr_svg_": "image/svg+xml"}
_KNOWN = ("text/plain", "image/png", "image/jpeg", "image/gif", "image/webp", "application/vnd.plotly.v1+json")
PLOTLY, TABLE = "application/vnd.plotly.v1+json", "application/vnd.pycontainers.table.v1+json"


def forms(value: Any, markup: bool) -> dict[str, Any]:
    """A value's forms by media type: text, bytes of pictures, JSON. ``markup``: HTML and SVG are wanted too."""
    found: dict[str, Any] = {"text/plain": _text(value)}
    module = type(value).__module__.partition(".")[0]
    try:
        if module == "matplotlib" and hasattr(value, "savefig"):
            found["image/png"] = picture(value)
        elif module == "plotly" and hasattr(value, "to_json"):
            found[PLOTLY] = value.to_json()
            found["text/plain"] = "a plotly figure"
        elif module == "pandas" and type(value).__name__ == "DataFrame":
            found[TABLE] = table(value)
        found.update({kind: data for kind, data in bundle(value, markup).items() if kind not in found})
    except Exception as error:  # a broken form of a value is no reason to lose the others, nor the cell
        print(f"{type(error).__name__} while showing a {type(value).__name__}: {error}", file=sys.stderr)
    return found


def _text(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__}: its repr raised {type(error).__name__}>"
    return text if len(text) <= _TEXT else text[:_TEXT] + f"\n… ({len(text)} characters)"


def bundle(value: Any, markup: bool) -> dict[str, Any]:
    """What the object itself offers, by the names that IPython asks for."""
    found: dict[str, Any] = {}
    if not isinstance(value, type) and type(value).__module__.partition(".")[0] != "plotly":
        offer = _ask(value, "_repr_mimebundle_", include=None, exclude=None)
        offer = offer[0] if isinstance(offer, tuple) else offer
        if isinstance(offer, dict):
            found.update(raw(offer, markup))
        for name, kind in {**_PICTURES, **(_MARKUP if markup else {})}.items():
            data = _ask(value, name)
            data = data[0] if isinstance(data, tuple) else data
            if data is not None and not (kind in _PICTURES.values() and any(other in found for other in _PICTURES.values())):
                found.setdefault(kind, _data(kind, data))
    return found


def raw(offer: dict[str, Any], markup: bool) -> dict[str, Any]:
    """Of a bundle made by somebody else what may be shown."""
    wanted = (*_KNOWN, *_MARKUP.values()) if markup else _KNOWN
    return {kind: _data(kind, data) for kind, data in offer.items() if kind in wanted}


def _data(kind: str, data: Any) -> Any:
    if kind.startswith("image/") and kind != "image/svg+xml" and isinstance(data, str):
        return base64.b64decode(data)
    if kind.endswith("json") and not isinstance(data, str):
        import json

        return json.dumps(data)
    return data


def _ask(value: Any, name: str, **arguments: Any) -> Any:
    # A class that answers to any name (a mock) has no such form.
    method = getattr(value, name, None) if hasattr(type(value), name) else None
    return method(**arguments) if callable(method) else None


def picture(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    return file.getvalue()


def table(frame: Any) -> str:
    """The ends of a DataFrame as words, for a table that the notebook draws."""
    import json

    count, width = frame.shape
    rows = list(range(count)) if count <= _ROWS else [*range(_ROWS // 2), None, *range(count - _ROWS // 2, count)]
    columns = list(range(width)) if width <= _COLUMNS else [*range(_COLUMNS // 2), None, *range(width - _COLUMNS // 2, width)]
    known = [place for place in rows if place is not None]
    shown = {column: dict(zip(known, _column(frame.iloc[known, column]))) for column in columns if column is not None}
    lines = [
        ["…"] * (len(columns) + 1)
        if row is None
        else [_label(frame.index[row]), *["…" if column is None else shown[column][row] for column in columns]]
        for row in rows
    ]
    heads = ["", *["…" if column is None else _label(frame.columns[column]) for column in columns]]
    return json.dumps({"columns": heads, "rows": lines, "size": [count, width]})


def _column(series: Any) -> list[str]:
    """As pandas writes it: all numbers of a column to the same place."""
    text = series.to_string(index=False, header=False, max_rows=None).split("\n") if len(series) else []
    if len(text) != len(series):
        text = [str(value) for value in series]
    return [line.strip()[:_CELL] for line in text]


def _label(value: Any) -> str:
    return (" · ".join(map(str, value)) if isinstance(value, tuple) else str(value))[:_CELL]


class Display:
    """``display`` as notebooks have it, in builtins and in the place of IPython's own, and matplotlib's figures in the cell."""

    def __init__(self, show: Callable[[dict[str, Any]], None], clear: Callable[[bool], None], markup: bool) -> None:
        self._show, self._clear, self._markup = show, clear, markup
        self._process = os.getpid()
        self._hinted = False

    def install(self) -> None:
        setattr(builtins, "display", self.display)  # noqa: B010
        os.environ.setdefault("MPLBACKEND", f"module://{_BACKEND}")
        sys.meta_path.insert(0, _Finder(self))

    def display(self, *values: Any, raw: bool = False, display_id: Any = None, **options: Any) -> Any:
        """Show values, one below the other. ``raw``: they are bundles of forms already; with ``display_id`` a handle is returned, whose
        ``update`` shows the new value below the old one.
        """
        for value in values:
            if os.getpid() != self._process:
                print(_text(value))  # a process of its own has no way to the notebook but its output
            elif raw and isinstance(value, dict):
                self._show(globals()["raw"](value, self._markup))
            else:
                found = forms(value, self._markup)
                self._hint(value, found)
                self._show(found)
        return Handle(self) if display_id is not None else None

    def _hint(self, value: Any, found: dict[str, Any]) -> None:
        """Said once: what would be shown as HTML in the notebook is not, and why."""
        if self._markup or self._hinted or len(found) > 1 or not any(hasattr(type(value), name) for name in _MARKUP):
            return
        self._hinted = True
        print(f"{type(value).__name__}: HTML and SVG from inside are shown with --html, in a frame of their own", file=sys.stderr)

    def clear_output(self, wait: bool = False) -> None:
        self._clear(bool(wait))

    def publish(self, data: Any = None, metadata: Any = None, **options: Any) -> None:
        if isinstance(data, dict):
            self.display(data, raw=True)

    def figures(self) -> None:
        """Show and close what pyplot still has open."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        for number in pyplot.get_fignums():
            self.display(pyplot.figure(number))
        pyplot.close("all")


class Handle:
    """What ``display(…, display_id=True)`` returns."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def display(self, value: Any, **options: Any) -> None:
        self._display.display(value)

    update = display


_BACKEND = "_pycontainers_figures"
_IPYTHON = "IPython.core.display_functions"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes our backend of matplotlib when it is asked for, and puts our ``display`` into IPython once that is there."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name == _BACKEND:
            return importlib.machinery.ModuleSpec(name, self)
        if name == "matplotlib":
            _fonts()
        if name != _IPYTHON:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return spec
        run, display = spec.loader.exec_module, self._display

        def exec_module(module: types.ModuleType) -> None:
            run(module)
            vars(module).update(display=display.display, clear_output=display.clear_output, publish_display_data=display.publish)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        from matplotlib.backend_bases import FigureManagerBase
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        display = self._display

        class Manager(FigureManagerBase):
            @classmethod
            def pyplot_show(cls, *args: Any, **options: Any) -> None:
                display.figures()

        class Canvas(FigureCanvasAgg):
            manager_class = Manager

        vars(module).update(FigureCanvas=Canvas, FigureManager=Manager)


def _fonts() -> None:
    """Where matplotlib keeps what it knows of fonts: what the notebook's has found out. It looks itself where that does not fit."""
    source = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fonts")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    target = os.environ.get("MPLCONFIGDIR") or os.path.join(cache, "matplotlib")
    try:
        for name in os.listdir(source):
            os.makedirs(target, exist_ok=True)
            if not os.path.exists(os.path.join(target, name)):
                shutil.copyfile(os.path.join(source, name), os.path.join(target, name))
    except OSError:
        pass
