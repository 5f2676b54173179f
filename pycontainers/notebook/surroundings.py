"""Where this kernel runs: is there a page that can redraw, and where is the browser."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..protocol import Port

_LOCAL = ("localhost", "127.0.0.1", "::1", "")


def is_live(environ: Mapping[str, str], namespace: Mapping[str, Any], has_kernel: bool) -> bool:
    """Whether a page with widgets is likely to watch. ``PYCONTAINERS_STATIC=1`` says no, ``=0`` says yes.

    A kernel cannot ask who listens. Jupyter Server names the notebook in ``JPY_SESSION_NAME``, VS Code puts its file into
    the namespace, Colab sets a variable of its own; nbclient, papermill and nbconvert do none of this.
    """
    told = environ.get("PYCONTAINERS_STATIC", "")
    if told:
        return told == "0" and has_kernel
    return has_kernel and ("JPY_SESSION_NAME" in environ or "__vsc_ipynb_file__" in namespace or "COLAB_RELEASE_TAG" in environ)


@dataclass(frozen=True)
class Link:
    """How a published port is reached: ``url``, or "" and a ``hint``."""

    url: str
    hint: str = ""


def port_link(port: Port, environ: Mapping[str, str] | None = None) -> Link:
    """A link to a published port: direct where the browser is on this machine, else through jupyter-server-proxy."""
    environ = os.environ if environ is None else environ
    if port.protocol != "tcp" or not port.host_port:
        return Link("")
    base, remote = _server(environ)
    if not remote:
        host = port.host_ip if port.host_ip not in ("0.0.0.0", "::", "::1") else "127.0.0.1"
        return Link(f"http://{host}:{port.host_port}/")
    if port.host_ip not in ("127.0.0.1", "0.0.0.0", "::", "::1"):
        return Link("", f"listens on {port.host_ip}")
    if find_spec("jupyter_server_proxy") is not None:
        return Link(f"{base.rstrip('/')}/proxy/{port.host_port}/")
    return Link("", "your browser is on another machine: install jupyter-server-proxy for a link")


def _server(environ: Mapping[str, str]) -> tuple[str, bool]:
    """``(base_url, whether the browser is likely on another machine)``."""
    hub = environ.get("JUPYTERHUB_SERVICE_PREFIX")
    if hub:
        return hub, True
    record = server_record(environ)
    base = str(record.get("base_url") or "/")
    return base, base != "/" or str(record.get("hostname") or "") not in _LOCAL


def server_record(environ: Mapping[str, str]) -> dict[str, Any]:
    """What Jupyter Server wrote about itself (``jpserver-PID.json`` in its runtime folder); it starts kernels with its pid."""
    parent = environ.get("JPY_PARENT_PID", "")
    if not parent.isdigit():
        return {}
    try:
        from jupyter_core.paths import jupyter_runtime_dir

        found = json.loads((Path(jupyter_runtime_dir()) / f"jpserver-{parent}.json").read_text("utf-8"))
    except (ImportError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
