"""Whether the page can show widgets. The kernel's packages are one half of a widget; the other is the server's, or the page's own.

Two things are known: what the Jupyter server has installed beside itself (looked at before the first widget), and what a page answers:
one that has no widgets closes every comm that is opened to it (as the messaging protocol asks), one that has sends questions.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import html, surroundings

#: what JupyterLab and Notebook 7 load into a page -> the package that brings it
_EXTENSIONS = {"@jupyter-widgets/jupyterlab-manager": "jupyterlab_widgets", "anywidget": "anywidget"}
_LARGEST = 1 << 20  # bytes that are read of what another process says about itself


@dataclass(frozen=True)
class Server:
    """The Jupyter server of this kernel: its Python ("" where that is not known), and where its files are."""

    python: str
    places: tuple[str, ...]

    def missing(self) -> list[str]:
        """Packages whose part of the page is in none of its places; none where it has not even JupyterLab's own part there."""
        if not any(os.path.isdir(f"{place}/lab/static") for place in self.places):
            return []  # it is installed in a way not known here: nothing is claimed
        lacking = []
        for extension, package in _EXTENSIONS.items():
            folders = [f"{place}/labextensions/{extension}" for place in self.places]
            older = [f"{place}/lab/extensions" for place in self.places]  # built into JupyterLab: by name only
            if not any(map(os.path.isdir, [*folders, *older])):
                lacking.append(package)
        return lacking


def server(environ: Mapping[str, str], proc: str = "/proc") -> Server | None:
    """The server that started this kernel, by its pid; None where there is none, or it lets nobody look."""
    pid = environ.get("JPY_PARENT_PID", "")
    if not pid.isdigit() or not surroundings.server_record(environ):
        return None
    try:
        words = Path(proc, pid, "cmdline").read_bytes()[:_LARGEST].decode("utf-8", "replace").split("\0")
        pairs = Path(proc, pid, "environ").read_bytes()[:_LARGEST].decode("utf-8", "replace").split("\0")
    except OSError:
        return None
    told = dict(pair.partition("=")[::2] for pair in pairs)
    data = told.get("JUPYTER_DATA_DIR") or f"{told.get('XDG_DATA_HOME') or told.get('HOME', '') + '/.local/share'}/jupyter"
    python = words[0] if os.path.isabs(words[0]) else ""
    # A console script's first word is its environment's own Python; where it is none, the environment says which it is.
    prefix = os.path.dirname(os.path.dirname(python)) if python else told.get("VIRTUAL_ENV") or told.get("CONDA_PREFIX", "")
    shared = [f"{place}/share/jupyter" for place in (prefix, "/usr/local", "/usr") if place]
    return Server(python, (*filter(None, told.get("JUPYTER_PATH", "").split(":")), data, *shared))


class Page:
    """What is known of the pages that show this kernel's outputs. Pages speak on any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = self._seen = False
        self._told = False
        self._missing: list[str] | None = None
        self._server: Server | None = None

    def spoke(self) -> None:
        """A widget on a page has asked or told something: there is one that shows widgets."""
        self._seen = True

    def closed(self, cell: Any = None) -> None:
        """A page has closed a widget's comm without a word. It is said in the ``cell`` (the kernel's parent message) that showed it."""
        self._closed = True
        if not self._seen and cell:
            self.tell(cell)

    def shows_widgets(self, environ: Mapping[str, str] | None = None) -> bool:
        if self._seen:
            return True
        return not self._closed and not self._lacking(environ)

    def advice(self, environ: Mapping[str, str] | None = None) -> str:
        """What to do about a page without widgets, in one line."""
        lacking = self._lacking(environ)
        python = self._server.python if self._server is not None else ""
        remedy = f"install {' and '.join(lacking or _EXTENSIONS.values())} where the Jupyter server is installed"
        if python and lacking:
            remedy = f"{python} -m pip install {' '.join(lacking)}"
        elif self._server is not None:  # they are installed there
            remedy = "see whether the server's extensions are disabled (jupyter labextension list)"
        return f"this page shows no widgets: views stand still. For live ones, {remedy}, and reload the page"

    def tell(self, cell: Any = None) -> None:
        """Say it, once for each kernel: in the cell that runs, or in an earlier one, whose output pages still take."""
        with self._lock:
            if self._told:
                return
            self._told = True
        from IPython.core.interactiveshell import InteractiveShell

        text = self.advice()
        note = {"text/plain": f"note: {text}", "text/html": f"<p>{html.colored('△', html.WARN)} {html.text(text)}</p>"}
        shell: Any = InteractiveShell.instance()
        if cell is None:
            shell.display_pub.publish(note)
            return
        publisher, content = shell.display_pub, {"data": note, "metadata": {}, "transient": {}}
        publisher.session.send(publisher.pub_socket, "display_data", content, parent=cell, ident=publisher.topic)

    def _lacking(self, environ: Mapping[str, str] | None) -> list[str]:
        if self._missing is None:
            self._server = server(os.environ if environ is None else environ)
            self._missing = self._server.missing() if self._server is not None else []
        return self._missing


def this_cell() -> Any:
    """The message that this cell is run by; None where there is no kernel."""
    from IPython.core.getipython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return None if kernel is None else kernel.get_parent()


PAGE = Page()

