"""From a container's files to :class:`pycontainers.protocol.ContainerInfo`."""

from __future__ import annotations

import os
from typing import Any

from ..errors import NotFound
from ..protocol import ContainerInfo, ExitStatus, Mount, Port, Resources, RestartPolicy
from ..runtime import state


def info(folder: str) -> ContainerInfo:
    """:raises NotFound: it was removed meanwhile."""
    record = state.read(folder, "container.json")
    if record is None:
        raise NotFound(f"no container {os.path.basename(folder)[:12]}", "it was removed meanwhile")
    now = state.read(folder, "state.json") or {"status": state.CREATED}
    found = state.ending(folder) if now["status"] == state.EXITED else None
    ports = now.get("ports") or record.get("ports") or []
    return ContainerInfo(
        id=record["id"],
        name=record["name"],
        image=record["image"],
        image_id=record["image_id"],
        command=tuple(record["command"]),
        status=now["status"],
        created=record["created"],
        pid=(now.get("init") or {}).get("pid", 0),
        exit=exit_status(found) if found else None,
        ports=tuple(port(p) for p in ports),
        mounts=tuple(Mount(**{**m, "options": tuple(m.get("options") or ())}) for m in record["mounts"]),
        network=record["network"],
        address=now.get("address") or "",
        hostname=record["hostname"],
        labels=record["labels"],
        resources=resources(record["resources"]),
        notebook=record.get("notebook", ""),
        notes=tuple(record.get("notes") or ()),
        folder=folder,
        started=now.get("started") or 0.0,
        health=_health(folder, record, now["status"]),
        restarts=now.get("restarts") or 0,
        restart=RestartPolicy(**(record.get("restart") or {})),
        tty=bool(record.get("tty")),
        lifetime=record.get("lifetime") or "detached",
    )


def _health(folder: str, record: dict[str, Any], status: str) -> str:
    """"" where there is no check, or nothing runs that could be checked."""
    if not record.get("health") or status not in (state.RUNNING, state.PAUSED):
        return ""
    return str((state.read(folder, "health.json") or {}).get("status", "starting"))


def resources(data: dict[str, Any]) -> Resources:
    """From JSON, where a tuple is a list."""
    given: dict[str, Any] = {key: tuple(map(tuple, value)) if isinstance(value, list) else value for key, value in data.items()}
    return Resources(**given)


def port(data: Any) -> Port:
    return data if isinstance(data, Port) else Port(**data)


def exit_status(record: dict[str, Any]) -> ExitStatus:
    if not record:
        return ExitStatus(code=None, error="no exit record")
    return ExitStatus(**record)
