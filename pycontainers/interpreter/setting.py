"""Which Python an image has for us, and how values travel to it."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

from ..protocol import Engine
from .cell import Settings


def of(engine: Engine, image: str, python: str | None = None, **settings: Any) -> Settings:
    """:param python: the interpreter inside; None: this process's own where the image stands on this machine, else ``python3``.

    :raises NotFound: no such image is here.
    """
    own = image == "host" or engine.image(image).host
    interpreter = python or (sys.executable if own else "python3")
    return Settings(interpreter, arrow=own and not python and find_spec("pyarrow") is not None, **settings)
