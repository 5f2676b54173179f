"""Namespaces of other containers, found anew at each start: the process that holds them has another pid each time.

``container.json`` says whose they are (``joins``: OCI type -> id), and the specification has ``/proc/0/…`` in the place of the pid.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

from ..errors import StateError
from ..linux import process
from . import state


class Joined:
    """The owners of what one start joins, by OCI type. A context in which their paths are opened: at its end each of them lives still, or
    it is an error.

    A pid belongs to its process until that has been waited for. So what was opened at ``/proc/PID/…`` while the process lived, before as
    well as after, is its own and not that of somebody who was given the same pid.
    """

    def __init__(self, joins: dict[str, str], containers: str) -> None:
        self.pids: dict[str, int] = {}
        self._held: dict[str, tuple[int, str]] = {}  # pidfd and folder
        try:
            for kind, container in joins.items():
                folder = f"{containers}/{container}"
                self.pids[kind], pidfd = _first_process(folder, kind)
                self._held[kind] = pidfd, folder
        except BaseException:
            self._close()
            raise

    def into(self, spec: dict[str, Any]) -> bool:
        """Put the pids into ``spec``; whether there was anything to do."""
        for namespace in spec["linux"]["namespaces"]:
            if namespace["type"] in self.pids:
                namespace["path"] = f"/proc/{self.pids[namespace['type']]}/ns/{namespace['path'].rpartition('/')[2]}"
        for mount in spec["mounts"]:
            if "ipc" in self.pids and mount["destination"] == "/dev/shm" and mount["type"] == "bind":
                mount["source"] = f"/proc/{self.pids['ipc']}/root/dev/shm"  # shared memory is not part of the IPC namespace (Docker)
        return bool(self.pids)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            for joined, (pidfd, folder) in self._held.items():
                if process.ended(pidfd, 0):
                    raise _not_running(folder, joined) from None
        finally:
            self._close()

    def _close(self) -> None:
        while self._held:
            os.close(self._held.popitem()[1][0])


def _first_process(folder: str, kind: str) -> tuple[int, int]:
    """Its pid, and a pidfd of it. :raises StateError: the container whose namespace is joined does not run."""
    now = state.read(folder, "state.json") or {}
    if now.get("status") in (state.RUNNING, state.PAUSED) and now.get("init"):
        pidfd = process.open_pidfd(now["init"])
        if pidfd is not None:
            return int(now["init"]["pid"]), pidfd
    raise _not_running(folder, kind)


def _not_running(folder: str, kind: str) -> StateError:
    record = state.read(folder, "container.json")
    if record is None:
        return StateError(f"the container whose {kind} namespace this one shares was removed", "create it anew")
    name = record["name"]
    return StateError(f"container {name!r}, whose {kind} namespace this one shares, is not running", f"start it first: start {name}")
