"""Terminals on a page: which form they have here, their static form, and who of them goes when a cell is run again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..terminals import SHELL, Terminal
from . import html

_BUNDLE = Path(__file__).parent / "widgets/xterm.js"
_lock = threading.RLock()  # a widget that the collector finds is closed wherever a thread just is, also where this is held
_cells: dict[str, tuple[str, list[Terminal]]] = {}
"""Cell -> the execution that opened terminals below it, and those."""
_widgets: dict[int, tuple[Terminal, Any]] = {}
"""Terminals that are shown, with their widget: both go on as long as the kernel, for a page may come back."""


def form() -> str:
    """``full`` where the package was built with the terminal's library, ``lines`` where not."""
    return "full" if _BUNDLE.exists() else "lines"


def title(terminal: Terminal) -> str:
    return "shell" if terminal.command == SHELL else " ".join(terminal.command)


def static(terminal: Terminal) -> str:
    """For a page without widgets, and for saved notebooks."""
    where = f"<b>{html.text(terminal.container)}</b> {html.mono(title(terminal))}"
    return f"<p>Terminal in {where} {html.muted('is there while its notebook runs: run the cell to open one')}</p>"


def forms(terminal: Terminal) -> dict[str, Any]:
    """Those that are not live."""
    return {"text/plain": repr(terminal), "text/html": static(terminal)}


def kept(terminal: Terminal, make: Callable[[], Any]) -> Any:
    """The one widget of this terminal; each view of it shows the same screen."""
    with _lock:
        found = _widgets.get(id(terminal))
        if found is None:
            found = _widgets[id(terminal)] = (terminal, make())
    return found[1]


def placed(terminal: Terminal, shell: Any) -> None:
    """A cell that is run again has a new terminal: the one that it showed before would be seen by nobody, and goes."""
    kernel = getattr(shell, "kernel", None)
    parent = kernel.get_parent("shell") if kernel is not None else None
    cell = ((parent or {}).get("metadata") or {}).get("cellId")
    execution = ((parent or {}).get("header") or {}).get("msg_id", "")
    if not cell:
        return
    with _lock:
        before, shown = _cells.get(cell, ("", []))
        gone = shown if before != execution else []
        _cells[cell] = (execution, [*([] if gone else shown), terminal])
    for old in gone:
        if old is not terminal:
            discard(old)


def forget(terminal: Terminal) -> None:
    """End it; its widget goes."""
    terminal.close()
    with _lock:
        _widgets.pop(id(terminal), None)


def discard(terminal: Terminal) -> None:
    """End it, and take away its widget with its views."""
    with _lock:
        found = _widgets.get(id(terminal))
    if found is not None:
        found[1].close()
    forget(terminal)


def close_terminal(view: Any) -> None:
    """End the terminal that ``view`` (of ``terminal_view``) shows, and forget both."""
    view.close()


def close_all() -> None:
    """At unload."""
    with _lock:
        shown = [terminal for terminal, _ in _widgets.values()]
        _cells.clear()
    for terminal in shown:
        discard(terminal)
