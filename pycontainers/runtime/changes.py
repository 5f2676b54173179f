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


def update(folder: str, spec: dict[str, Any], record: dict[str, Any], message: dict[str, Any], group: Any = None) -> list[str]:
    """New limits and a new restart policy into ``config.json`` and ``container.json``, and into the cgroup of one that lives.

    What is to change is put together with what holds here, under the lock: of two who change different limits both succeed.

    :param message: ``limits``: fields of protocol.Resources that are to change; ``restart`` (``{"name", "retries"}``).
    :returns: what was left out, one line each.
    :raises LimitError: together they make no sense, or the kernel refuses one; nothing has changed then.
    """
    notes: list[str] = []
    new_spec, new_record = spec, dict(record)
    before = spec["linux"].get("resources", {})
    if message.get("limits"):
        from ..linux.cgroups import limits
        from ..protocol import Resources

        whole = limits.merged(Resources(**record["resources"]), Resources(**message["limits"]))
        limits.check_resources(whole)
        resources = limits.to_oci(whole)
        if group is not None:
            notes = group.update(resources)
        new_spec = {**spec, "linux": {**spec["linux"], "resources": {**before, **resources}}}
        new_record["resources"] = vars(whole)
    if message.get("restart"):
        new_record["restart"] = message["restart"]
    written = False
    try:
        if new_spec is not spec:
            state.write(folder, "config.json", new_spec)
            written = True
        state.write(folder, "container.json", new_record)
    except OSError:  # a full disk: what was done is taken back
        if group is not None and new_spec is not spec:
            group.update(before)
        if written:
            state.write(folder, "config.json", spec)
        raise
    spec.update(new_spec)
    record.update(new_record)
    return notes


def rename(folder: str, record: dict[str, Any], name: str) -> None:
    """Give it another name: the new one is claimed first, so that it has one at any moment. :raises NameInUse:"""
    containers, container_id, old = os.path.dirname(folder), os.path.basename(folder), record["name"]
    if name == old:
        return
    state.claim_name(containers, name, container_id)
    try:
        state.write(folder, "container.json", {**record, "name": name})
    except OSError:
        state.release_name(containers, name, container_id)
        raise
    record["name"] = name
    state.release_name(containers, old, container_id)
