"""What all of our widgets have in common: their files, and who answers a page's questions."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from ..hosts import PAGE, this_cell

_HERE = Path(__file__).parent
_log = logging.getLogger("pycontainers.notebook")


@cache
def source(*names: str) -> str:
    """``common`` and this widget's own files as one: ``explore.js`` (an ES module), ``explore.css``."""
    common = f"common.{names[0].rpartition('.')[2]}"
    return "\n".join((_HERE / part).read_text(encoding="utf-8") for part in (common, *names))


@cache
def page_widget() -> Any:
    """The base class of our widgets. anywidget is imported with the first one, not with the extension."""
    import anywidget

    class PageWidget(anywidget.AnyWidget):
        """``answer(message, buffers)`` is asked by the page (``asking`` in common.js), on any thread.

        What makes no sense (KeyError, TypeError, ValueError) is no question of our page's: nobody answers it.
        """

        def __init__(self, **traits: Any) -> None:
            self._spoken, self._cell = False, this_cell()
            super().__init__(**traits)
            self.on_msg(self._asked)
            if self.comm is not None:  # none where there is no kernel
                self.comm.on_close(self._closed_by_page)

        def answer(self, message: dict[str, Any], buffers: Any) -> dict[str, Any] | None:
            """None: there is nothing to say."""
            return None

        def _handle_msg(self, msg: Any) -> None:
            self._spoken = True
            PAGE.spoke()
            super()._handle_msg(msg)

        def _closed_by_page(self, msg: Any) -> None:
            self.close()
            if not self._spoken:
                PAGE.closed(self._cell)  # a page without widgets: it shows the static form beside

        def _asked(self, widget: Any, message: Any, buffers: Any) -> None:
            try:
                said = self.answer(message, buffers)
                if said is not None:
                    self.send({**said, "view": message.get("view"), "question": message.get("question")})
            except (KeyError, TypeError, ValueError, AttributeError):
                _log.debug("a question that makes no sense: %r", message, exc_info=True)

    return PageWidget


_libraries: dict[str, Any] = {}
_libraries_lock = threading.Lock()


def library(name: str, packed: Callable[[], bytes]) -> Any:
    """The widget that holds a library of a page's, compressed by gzip: a page gets it once, however many widgets name it.

    Made with the first that does, and again, should somebody have closed it.
    """
    with _libraries_lock:
        found = _libraries.get(name)
        if found is None or found.comm is None:
            import anywidget
            import traitlets

            class Library(anywidget.AnyWidget):
                _esm = "export default {};"
                code = traitlets.Bytes().tag(sync=True)

            found = _libraries[name] = Library(code=packed())
        return found


def widget_view(widget: Any) -> dict[str, Any]:
    """The widget part of a display bundle: a static form stands beside it, which a page without widgets shows."""
    bundle = widget._repr_mimebundle_()
    data: dict[str, Any] = bundle[0] if isinstance(bundle, tuple) else bundle
    return {kind: value for kind, value in data.items() if kind != "text/plain"}
