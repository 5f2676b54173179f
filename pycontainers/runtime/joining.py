"""Namespaces of other containers, found anew at each start: the process that holds them has another pid each time.

``container.json`` says whose they are (``joins``: OCI type -> id), and the specification has ``/proc/0/…`` in the place of the pid.
"""

from __future__ import annotations

from typing import Any

from ..errors import StateError
from ..linux import process
from . import state


def resolve(spec: dict[str, Any], joins: dict[str, str], containers: str) -> bool:
    """Put the pids into ``spec``; whether there was anything to do.

    :raises StateError: a container whose namespace is joined does not run.
    """
    if not joins:
        return False
    pids = {kind: _pid(f"{containers}/{container}", kind) for kind, container in joins.items()}
    for namespace in spec["linux"]["namespaces"]:
        if namespace["type"] in pids:
            namespace["path"] = f"/proc/{pids[namespace['type']]}/ns/{namespace['path'].rpartition('/')[2]}"
    for mount in spec["mounts"]:
        if "ipc" in pids and mount["destination"] == "/dev/shm" and mount["type"] == "bind":
            mount["source"] = f"/proc/{pids['ipc']}/root/dev/shm"  # shared memory is not part of the IPC namespace (Docker)
    return True


def _pid(folder: str, kind: str) -> int:
    now = state.read(folder, "state.json") or {}
    if now.get("status") in (state.RUNNING, state.PAUSED) and now.get("init") and process.alive(now["init"]):
        return int(now["init"]["pid"])
    record = state.read(folder, "container.json")
    if record is None:
        raise StateError(f"the container whose {kind} namespace this one shares was removed", "create it anew")
    name = record["name"]
    raise StateError(f"container {name!r}, whose {kind} namespace this one shares, is not running", f"start it first: start {name}")
