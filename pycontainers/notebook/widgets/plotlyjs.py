"""plotly.js for our own widgets: the file of the installed plotly package, sent to a page once, however many plots it shows.

plotly's own FigureWidget carries its bundle (5 MB) with each figure. Here it lies compressed (1.5 MB) in one widget of this kernel, which
the others name; the page's browser unpacks it (``DecompressionStream``, in every browser since 2023). No address outside is asked.
"""

from __future__ import annotations

import gzip
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from .base import library


@cache
def compressed() -> bytes:
    """plotly.min.js by gzip; b"" where plotly is not installed. plotly itself is not imported: that would take half a second."""
    spec = importlib.util.find_spec("plotly")
    places = (spec.submodule_search_locations if spec else None) or []
    for place in places:
        file = Path(place, "package_data", "plotly.min.js")
        if file.is_file():
            return gzip.compress(file.read_bytes(), 4, mtime=0)
    return b""


def asset() -> Any:
    """The widget that holds it."""
    return library("plotly", compressed)
