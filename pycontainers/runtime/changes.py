"""Changes of a container's own files. Only whoever holds its lock may make them: its supervisor, or a client where none lives."""

from __future__ import annotations

import os
from typing import Any

from ..errors import NotFound
from . import state


def apply(folder: str, message: dict[str, Any]) -> None:
    """Make the change that ``message`` asks of a supervisor (``{"op": "update" | "rename", …}``), where there is none.

    :raises NotFound: the container was removed meanwhile.
    """
    spec, record = state.read(folder, "config.json"), state.read(folder, "container.json")
    if spec is None or record is None:
        raise NotFound(f"no container {os.path.basename(folder)[:12]}", "it was removed meanwhile")
    if message["op"] == "rename":
        rename(folder, record, message["name"])
    else:
        update(folder, spec, record, message)


def update(folder: str, spec: dict[str, Any], record: dict[str, Any], message: dict[str, Any]) -> None:
    """New limits and a new restart policy into ``config.json`` and ``container.json``.

    :param message: ``resources`` (OCI ``linux.resources``, what is to change), ``limits`` (the same as fields of protocol.Resources),
        ``restart`` (``{"name", "retries"}``); what is missing stays.
    """
    resources: dict[str, Any] = spec["linux"].setdefault("resources", {})
    for name, part in (message.get("resources") or {}).items():
        resources[name] = {**resources.get(name, {}), **part} if isinstance(part, dict) else part
    record["resources"] = {**record["resources"], **(message.get("limits") or {})}
    if message.get("restart"):
        record["restart"] = message["restart"]
    state.write(folder, "config.json", spec)
    state.write(folder, "container.json", record)


def rename(folder: str, record: dict[str, Any], name: str) -> None:
    """Give it another name: the new one is claimed first, so that it has one at any moment. :raises NameInUse:"""
    containers, container_id, old = os.path.dirname(folder), os.path.basename(folder), record["name"]
    if name == old:
        return
    state.claim_name(containers, name, container_id)
    record["name"] = name
    state.write(folder, "container.json", record)
    state.release_name(containers, old, container_id)
