"""A terminal on a page: what its process writes goes there as bytes, what is typed comes back."""

from __future__ import annotations

import gzip
import re
from functools import cache
from pathlib import Path
from typing import Any

from ...protocol import Engine, ExecConfig
from ...terminals import Terminal, in_container
from .. import terminals as shown
from .base import library, page_widget, source, widget_view

_HERE = Path(__file__).parent
_LONGEST = 1 << 20  # characters of one message of what is typed
#: What a terminal says by itself when a program asks (cursor position, kind, modes): of several views of one, a single one may.
_REPLIES = re.compile(r"(?:\x1b\[[?>]?[0-9;]*(?:[cRn]|\$y))+")


@cache
def _xterm() -> bytes:
    return gzip.compress((_HERE / "xterm.js").read_bytes(), 9, mtime=0)


@cache
def _style(form: str) -> str:
    drawn = (_HERE / "xterm.css").read_text(encoding="utf-8") + "\n" if form == "full" else ""
    return drawn + source("terminal.css")


@cache
def _widget_class(form: str) -> Any:
    import traitlets
    from ipywidgets import widget_serialization

    style = _style(form)

    class TerminalView(page_widget()):  # type: ignore[misc]  # made with the first widget
        _esm = source("terminal.js", "terminal-screen.js", "terminal-lines.js")
        _css = style
        library: Any = traitlets.Any(None, allow_none=True).tag(sync=True, **widget_serialization)
        title = traitlets.Unicode().tag(sync=True)
        container = traitlets.Unicode().tag(sync=True)
        form = traitlets.Unicode().tag(sync=True)
        running = traitlets.Bool().tag(sync=True)
        said = traitlets.Unicode().tag(sync=True)
        restarts = traitlets.Bool().tag(sync=True)
        size: Any = traitlets.List().tag(sync=True)
        leader = traitlets.Unicode().tag(sync=True)

        def __init__(self, terminal: Terminal, title: str) -> None:
            self._terminal = terminal
            # One that was opened from Python may not have known that the library is missing here.
            drawn = library("xterm", _xterm) if form == "full" else None
            restarts = terminal.can_restart
            super().__init__(library=drawn, title=title, container=terminal.container, form=form, restarts=restarts)
            self.changed()
            terminal.watch(self)

        def close(self) -> None:
            """With its terminal: nobody could see it any more, or type into it."""
            terminal = self.__dict__.get("_terminal")
            if terminal is not None:
                terminal.watch(None)
                shown.forget(terminal)
            super().close()

        # -- what the terminal says, on its thread

        def output(self, at: int, data: bytes) -> None:
            self.send({"kind": "output", "at": at}, [data])

        def lost(self) -> None:
            self.send({"kind": "lost"})

        def changed(self) -> None:
            self.running, self.said = self._terminal.running, self._terminal.state

        # -- what the page says

        def answer(self, message: dict[str, Any], buffers: Any) -> None:
            kind, view = message["kind"], str(message["view"])[:64]
            if kind == "input":
                self._typed(message["text"], view)
            elif kind == "seen":
                self._terminal.seen(int(message["at"]))
            elif kind in ("open", "size"):
                self.leader = view
                self._terminal.resize(int(message["rows"]), int(message["columns"]))
                self.size = list(self._terminal.size)
                if kind == "open":
                    self._opened(view)
            elif kind == "close":
                self._terminal.close()
            elif kind == "again" and self._terminal.can_restart:
                self._again()

        def _opened(self, view: str) -> None:
            with self._terminal.held():  # nothing may be sent between what is kept and what comes next
                at, data = self._terminal.screen()
                self.send({"kind": "screen", "at": at, "to": view}, [data])
            self._terminal.redraw()

        def _typed(self, text: Any, view: str) -> None:
            if not isinstance(text, str) or len(text) > _LONGEST:
                raise ValueError("no text that somebody typed")
            if view != self.leader and _REPLIES.fullmatch(text):
                return
            if not self._terminal.write(text.encode("utf-8", "replace")) and self._terminal.running:
                self.send({"kind": "full"})

        def _again(self) -> None:
            from ...errors import ContainersError

            try:
                self._terminal.start()
            except ContainersError:
                pass  # it is what the terminal says now
            self.changed()

    return TerminalView


def widget(terminal: Terminal) -> Any:
    """The widget of a terminal, made with its first view."""
    form = terminal.form if shown.form() == "full" else "lines"
    return shown.kept(terminal, lambda: _widget_class(form)(terminal, shown.title(terminal)))


def live_view(terminal: Terminal, shell: Any) -> dict[str, Any]:
    """The widget part of a display bundle, below the cell that runs."""
    shown.placed(terminal, shell)
    return widget_view(widget(terminal))


def terminal_view(engine: Engine, container: str, command: tuple[str, ...] = ()) -> Any:
    """A widget with a new terminal in a running container: ``command``, or a shell.

    Its ``close()`` ends the terminal too. :raises ContainersError: it does not start.
    """
    return widget(in_container(engine, container, ExecConfig(command), shown.form()))
