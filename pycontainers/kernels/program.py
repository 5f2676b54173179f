"""What is executed inside: the image's ipykernel, and the question whether it has one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..errors import CommandNotFound, ImageError
from ..protocol import ContainerConfig, Engine
from ..results import Output

FOLDER = "/run/jupyter-kernel"
"""Inside the container: where the kernel's sockets and its connection file are."""

FILE = f"{FOLDER}/connection.json"
PLACE = "@connection@"
"""In the words of a kernel's command: stands for the path of its connection file inside. Not in braces, which Jupyter replaces itself."""

IPYKERNEL = "@ipykernel@"
"""Stands for what follows the name of a Python that is to run its ipykernel: a kernelspec outlives our version of it."""

PYTHONS = ("python3", "python")
# A process group of its own, so that an interrupt also reaches what a cell has started (ipykernel signals the group that it leads). And
# its sockets can be connected to by whoever can reach them, which outside is the user alone: inside it may be any user.
_START = """\
import os, sys
sys.path[:] = [place for place in sys.path if place]
os.setpgid(0, 0)
import zmq
bind = zmq.Socket.bind
def open_to_us(socket, address, *more, **named):
    bound = bind(socket, address, *more, **named)
    if str(address).startswith("ipc://"):
        os.chmod(address[6:], 0o666)
    return bound
zmq.Socket.bind = open_to_us
from ipykernel.kernelapp import IPKernelApp
IPKernelApp.log_connection_info = lambda self: None  # it would tell the server's log how to connect to a file inside
IPKernelApp.launch_instance()
"""
_ASK = """\
import json, sys
sys.path[:] = [place for place in sys.path if place]
import ipykernel, zmq, IPython
try:
    import debugpy
except ImportError:
    debugpy = None
print(json.dumps(["pycontainers", sys.version.split()[0], ipykernel.__version__, debugpy is not None]))
"""


@dataclass(frozen=True)
class Found:
    """An image's kernel: how its Python is called, and versions."""

    executable: str
    python: str
    ipykernel: str
    debugger: bool


def command(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a kernelspec with our marks replaced: what is executed inside."""
    found: list[str] = []
    for word in words:
        found += ["-c", _START, "-f", FILE] if word == IPYKERNEL else [word.replace(PLACE, FILE)]
    return tuple(found)


def ask(engine: Engine, config: ContainerConfig, run: Callable[[ContainerConfig, Output], int | None]) -> Found:
    """Run the image's Python once and ask it for ipykernel. ``run``: starts a container and waits for its end; its exit code.

    :raises ImageError: there is no Python, or no ipykernel in it.
    """
    last = ""
    for executable in PYTHONS:
        output = Output()
        asked = replace(config, command=(executable, "-c", _ASK), network="none", ports=(), publish_all=False, auto_remove=True)
        try:
            run(asked, output)
        except CommandNotFound as error:
            last = error.message
            continue
        found = _answer(bytes(output.stdout), executable)
        if found is not None:
            return found
        last = bytes(output.stderr)[-4096:].decode("utf-8", "replace").strip().rpartition("\n")[2][:200] or "it says nothing"
        break
    raise ImageError(
        f"image {config.image} has no kernel: {last}",
        f"build one that has: FROM {config.image} and RUN pip install ipykernel; or say how its kernel is started: --command",
    )


def _answer(said: bytes, executable: str) -> Found | None:
    for line in said[-65536:].splitlines():
        try:
            mark, python, ipykernel, debugger = json.loads(line)
        except (ValueError, TypeError):
            continue
        if mark == "pycontainers":
            return Found(executable, str(python)[:40], str(ipykernel)[:40], debugger is True)
    return None

