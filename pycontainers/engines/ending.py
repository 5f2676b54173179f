"""How a container is brought to its end by the verbs that ask for one, and how long that may take."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ..errors import ContainersError
from ..linux import process
from ..paths import Paths
from ..runtime import client, recover, state

_GRACE = 10.0  # seconds from the stop signal to SIGKILL where nobody says another number (Docker's)
_KERNEL = 30.0  # seconds that the kernel may need to end what is left
_REACH = 5.0  # seconds in which a supervisor that has just begun can be asked
_TIDY = 0.7  # seconds in which the program of an interrupted ``run`` may clean up


def by_force(paths: Paths, container_id: str) -> None:
    """SIGKILL, and wait until nothing of it is left."""
    containers = str(paths.containers)
    folder = f"{containers}/{container_id}"
    deadline = time.monotonic() + _REACH
    while client.ask(paths, container_id, {"op": "stop", "signal": 9, "timeout": 0}) is None:
        now = state.read(folder, "state.json")
        if now is None or now["status"] not in state.ACTIVE or not state.lives(now):
            break
        if time.monotonic() > deadline:
            # Nobody can reach it any more (its run folder was deleted): the container goes with its supervisor.
            process.send_signal(now["supervisor"], 9)
            break
        time.sleep(0.002)  # it has not got so far that it can be asked
    client.wait(folder, _KERNEL)
    recover.sweep(containers)


def quietly(paths: Paths, container_id: str) -> None:
    """An interrupted ``run``: end the container now; whoever interrupts wants no further error."""
    with contextlib.suppress(OSError, ContainersError):
        if client.ask(paths, container_id, {"op": "stop", "timeout": _TIDY}) is not None:
            client.wait(f"{paths.containers}/{container_id}", 5)


def patience(timeout: float | None, record: dict[str, Any]) -> float | None:
    """Seconds that a stop may take, None for any number: its grace, and what the kernel needs.

    :param timeout: what was asked for, None for the container's own. ``record``: its ``container.json``.
    """
    for grace in (timeout, record.get("stop_timeout"), _GRACE):
        if grace is not None:
            return None if grace < 0 else grace + _KERNEL
    return None
