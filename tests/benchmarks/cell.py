"""What runs inside the notebook kernel: our side's calls with a stopwatch around them. All seconds, all by ``time.perf_counter``."""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any

import pycontainers as pc
from pycontainers.engines.native import engine
from pycontainers.protocol import ContainerConfig, ExecConfig


def start(image: str, network: str) -> dict[str, float]:
    """``run --rm``: first output, the call's return, and the moment when nothing of the container is left.

    The last waits for the supervisor's own process too, which the call does not need. Finding out its pid (the container's
    ``state.json``) is in the figures.
    """
    native = engine()
    containers = str(native.paths.containers)
    seen: dict[str, float] = {}
    supervisor = -1

    def output(stream: str, data: bytes) -> None:
        nonlocal supervisor
        seen.setdefault("first", time.perf_counter() - begun)
        if supervisor < 0:
            supervisor = _supervisor(containers)

    begun = time.perf_counter()
    info, status = native.run(ContainerConfig(image, ("/bin/echo", "x"), network=network, auto_remove=True), None, output)
    seen["call"] = time.perf_counter() - begun
    if supervisor >= 0:
        select.select([supervisor], [], [])
    seen["gone"] = time.perf_counter() - begun
    if supervisor >= 0:
        os.close(supervisor)
    assert status.code == 0
    assert not os.path.exists(info.folder)
    return seen


def _supervisor(containers: str) -> int:
    """A pidfd of the supervisor of the one container there is; -1 where it has ended already."""
    try:
        folder = next(name for name in os.listdir(containers) if len(name) == 64)
        with open(f"{containers}/{folder}/state.json", "rb") as file:
            return os.pidfd_open(json.loads(file.read())["supervisor"]["pid"])
    except (StopIteration, OSError, KeyError):
        return -1


def call(image: str, network: str) -> float:
    """``pc.run(…, rm=True)`` as a user writes it."""
    begun = time.perf_counter()
    found = pc.run(image, ["/bin/echo", "x"], rm=True, network=network)
    taken = time.perf_counter() - begun
    assert found.stdout == b"x\n"
    return taken


def magic(image: str, network: str) -> float:
    """``%container run --rm`` as it stands in a cell, until its line is done."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    begun = time.perf_counter()
    shell.run_line_magic("container", f"run --rm --network {network} {image} /bin/echo x")
    return time.perf_counter() - begun


def many(image: str, network: str, count: int) -> list[float]:
    """``count`` starts without a pause, each until the call returns."""
    return [call(image, network) for _ in range(count)]


def detached(image: str, network: str, count: int, ports: bool = False) -> list[float]:
    """Seconds of each start of a container that runs on."""
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        pc.run(image, ["/bin/sleep", "1000"], detach=True, network=network, **({"ports": ["80"]} if ports else {}))
        times.append(time.perf_counter() - begun)
    return times


def listed() -> float:
    begun = time.perf_counter()
    pc.ps()
    return time.perf_counter() - begun


def remove_all() -> float:
    begun = time.perf_counter()
    native = engine()
    for info in native.containers(all=True):
        native.remove(info.id, force=True)
    return time.perf_counter() - begun


def remove_images() -> None:
    """Everything but ``host``, and all layers with it."""
    native = engine()
    for image in native.images():
        native.remove_image(image.id, force=True)
    native.prune()


def exec_true(container: str) -> float:
    native = engine()
    begun = time.perf_counter()
    status = native.exec(container, ExecConfig(("/bin/true",)))
    taken = time.perf_counter() - begun
    assert status.code == 0
    return taken


def build(context: str, dockerfile: str, tag: str, no_cache: bool = False) -> float:
    """``dockerfile``: its text, or its path."""
    begun = time.perf_counter()
    pc.build(dockerfile, tag, context=context, no_cache=no_cache)
    return time.perf_counter() - begun


def first_output(image: str, *command: str) -> float:
    seen: list[float] = []
    begun = time.perf_counter()
    config = ContainerConfig(image, command, network="none", auto_remove=True)
    engine().run(config, None, lambda stream, data: seen.append(time.perf_counter() - begun))
    return seen[0]


def run_text(image: str, command: list[str], **options: Any) -> str:
    return pc.run(image, command, rm=True, **options).stdout.decode()
