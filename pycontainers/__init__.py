"""pycontainers: containers in a Jupyter notebook, without Docker.

This module names the public API and nothing else. It is lazy (PEP 562): ``import pycontainers`` loads none of the rooms,
so that the launcher can import ``pycontainers.linux`` without paying for the rest.
"""

from __future__ import annotations

from .version import __version__

TYPE_CHECKING = False  # a checker takes this name for true; typing itself costs each small process of ours milliseconds

_PUBLIC = {
    "Container": "objects",
    "Image": "objects",
    "run": "api",
    "create": "api",
    "build": "api",
    "pull": "api",
    "push": "api",
    "save": "api",
    "load": "api",
    "import_image": "api",
    "bootstrap": "api",
    "update": "api",
    "list_events": "api",
    "get": "api",
    "ps": "api",
    "get_image": "api",
    "list_images": "api",
    "contained": "calling",
    "map": "calling",
    "ContainersError": "errors",
    "ContainedError": "errors",
    "Port": "protocol",
    "Mount": "protocol",
    "Resources": "protocol",
    "load_ipython_extension": "notebook.magics",
    "unload_ipython_extension": "notebook.magics",
}

__all__ = ["__version__", *_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from typing import Any

    from .api import (
        bootstrap,
        build,
        create,
        get,
        get_image,
        import_image,
        list_events,
        list_images,
        load,
        ps,
        pull,
        push,
        run,
        save,
        update,
    )
    from .calling import contained, map
    from .errors import ContainedError, ContainersError
    from .notebook.magics import load_ipython_extension, unload_ipython_extension
    from .objects import Container, Image
    from .protocol import Mount, Port, Resources


def __getattr__(name: str) -> Any:
    room = _PUBLIC.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
