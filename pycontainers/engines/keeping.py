"""What keeps a container, beside how it is isolated: its lifetime, its owner, its health check. Fields of ``container.json``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import UsageError, near
from ..linux import process
from ..protocol import ContainerConfig

LIFETIMES = ("detached", "kernel", "server")
_NANOSECONDS = 1e9  # an image's Healthcheck counts in them (Docker's image specification)
#: field -> (name in an image's Healthcheck, Docker's default); times in seconds
_HEALTH = {
    "interval": ("Interval", 30.0),
    "timeout": ("Timeout", 30.0),
    "retries": ("Retries", 3),
    "start_period": ("StartPeriod", 0.0),
    "start_interval": ("StartInterval", 5.0),
}


def keeping(config: ContainerConfig, image_config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields for the supervisor: tty, stdin_open, restart, health, lifetime, owner, stop_timeout."""
    return {
        "tty": config.tty,
        "stdin_open": config.stdin_open,
        "restart": {"name": config.restart.name, "retries": config.restart.retries},
        "health": health(config, image_config),
        "lifetime": config.lifetime,
        "owner": owner(config.lifetime),
        "stop_timeout": config.stop_timeout,
    }


def health(config: ContainerConfig, image_config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was asked over what the image says over Docker's defaults; None where nothing is to be checked.

    A value of 0, and an empty test, is one that was not given.
    """
    image = image_config.get("Healthcheck") or {}
    asked = config.health
    test = list((asked.test if asked else ()) or image.get("Test") or ())
    if not test or test[0] == "NONE":
        return None
    found: dict[str, Any] = {"test": test}
    for name, (theirs, default) in _HEALTH.items():
        of_image = image.get(theirs) or 0
        found[name] = (getattr(asked, name) if asked else 0) or (of_image if name == "retries" else of_image / _NANOSECONDS) or default
    return found


def owner(lifetime: str, environ: Mapping[str, str] = os.environ) -> dict[str, Any] | None:
    """Whose end is the container's end: the identity of that process; None for ``detached``.

    jupyter_client tells a kernel, and thereby all that it starts, the server's pid (JPY_PARENT_PID). The kernel is the ancestor of
    this process that the server started; outside of a notebook it is whoever asks.

    :raises UsageError: unknown lifetime, or there is no server.
    """
    if lifetime not in LIFETIMES:
        raise UsageError(f"--lifetime {lifetime!r} is unknown", near(lifetime, LIFETIMES) or f"one of {', '.join(LIFETIMES)}")
    if lifetime == "detached":
        return None
    line = _ancestors()
    told = environ.get("JPY_PARENT_PID", "")
    server = int(told) if told.isdigit() and int(told) in line[1:] else 0
    if lifetime == "kernel":
        return process.identity(line[line.index(server) - 1] if server else line[0])
    if not server:
        raise UsageError("--lifetime server: this process was not started by a Jupyter server", "use --lifetime kernel or detached")
    return process.identity(server)


def _ancestors() -> list[int]:
    """This process, its parent, … up to the first process of the pid namespace."""
    line = [os.getpid()]
    while line[-1] > 1:
        try:
            with open(f"/proc/{line[-1]}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            break
        if parent == 0:  # it lies outside of this pid namespace
            break
        line.append(parent)
    return line
