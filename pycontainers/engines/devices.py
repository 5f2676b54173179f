"""``--device`` and the devices of ``--privileged``: which nodes of this machine a container gets, and what it may do with them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..errors import UsageError
from ..linux.cgroups import limits
from ..protocol import ContainerConfig, Device
from ..runtime import defaults

#: What a container has of its own below /dev (moby, devices.GetDevices)
_OWN = {"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "ptmx", *defaults.DEVICES}


def nodes(config: ContainerConfig) -> list[dict[str, Any]]:
    """OCI ``linux.devices`` of what ``--device`` names; a folder stands for all devices below it.

    They are new nodes, of the container's root: with a user namespace, the host's own would be nobody's.

    :raises UsageError: there is none.
    """
    found = []
    for device in config.devices:
        for node in _expanded(device):
            status = os.stat(node.source)
            kind = "b" if stat.S_ISBLK(status.st_mode) else "c"
            numbers = {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}
            mode = stat.S_IMODE(status.st_mode)
            found.append({"path": node.target, "type": kind, **numbers, "fileMode": mode, "uid": 0, "gid": 0})
    return list({node["path"]: node for node in found}.values())


def rules(config: ContainerConfig) -> list[dict[str, Any]]:
    """OCI ``linux.resources.devices``: Docker's, and for each device that was asked for."""
    if config.privileged:
        return list(limits.EVERY_DEVICE)
    found = list(limits.DEVICE_RULES)
    for device in config.devices:
        for node in _expanded(device):
            status = os.stat(node.source)
            kind = "b" if stat.S_ISBLK(status.st_mode) else "c"
            numbers = {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}
            found.append({"allow": True, "type": kind, **numbers, "access": node.permissions})
    return found + [limits.parse_device_rule(text) for text in config.device_cgroup_rules]


def of_the_machine() -> list[str]:
    """Every device node below /dev but those that a container has of its own."""
    return [device.source for device in _below(Device("/dev", "/dev"))]


def _expanded(device: Device) -> list[Device]:
    hint = "`ls -l /dev` shows the devices of this machine"
    try:
        status = os.stat(device.source)
    except OSError as error:
        raise UsageError(f"--device {device.source}: {error.strerror}", hint) from None
    if stat.S_ISDIR(status.st_mode):
        found = list(_below(device))
        if not found:
            raise UsageError(f"--device {device.source} is a folder without devices", hint)
        return found
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise UsageError(f"--device {device.source} is not a device", hint)
    return [device]


def _below(folder: Device) -> Iterator[Device]:
    for entry in sorted(os.scandir(folder.source), key=lambda entry: entry.name):
        if folder.source == "/dev" and entry.name in _OWN:
            continue
        inside = replace(folder, source=entry.path, target=f"{folder.target}/{entry.name}")
        try:
            mode = entry.stat(follow_symlinks=False).st_mode
        except OSError:
            continue  # it was unplugged under our hands
        if stat.S_ISDIR(mode):
            yield from _below(inside)
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            yield inside
