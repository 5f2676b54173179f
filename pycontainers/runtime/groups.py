"""The control group of one container, as its OCI spec asks for it, with what this machine could not do as notes."""

from __future__ import annotations

from typing import Any

from ..linux import cgroups

_LACKING = {
    "memory": "memory is not limited and not measured",
    "cpu": "processor time is not limited",
    "cpuacct": "processor time is measured by its processes",
    "cpuset": "processors cannot be chosen",
    "pids": "the number of processes is not limited",
    "blkio": "block I/O is not limited and not measured",
    "freezer": "it cannot be paused",
    "devices": "the use of devices is not controlled",
}


def make(spec: dict[str, Any]) -> cgroups.Group:
    """Make it, with its limits and device rules; ``notes`` says what is missing.

    A container that has /sys/fs/cgroup writable runs an init system, which makes groups of its own: the group is handed to its root, and
    it is a member of systemd's own v1 hierarchy where there is one (docs/cgroups.md).

    :raises LimitError, IsolationError, StateError: as :func:`pycontainers.linux.cgroups.create`; nothing is left then.
    """
    linux = spec["linux"]
    writable = _writable(spec)
    group = cgroups.create(linux["cgroupsPath"], linux.get("resources") or {}, named=writable)
    try:
        if writable:
            group.delegate(_root(linux.get("uidMappings")), _root(linux.get("gidMappings")))
    except BaseException:
        group.remove()
        raise
    group.notes += lacking(group)
    return group


def lacking(group: cgroups.Group) -> list[str]:
    """What the group cannot do on this machine, and why; one line where all has one reason."""
    missing = {name: why for name, why in group.missing.items() if name not in group.paths and name in _LACKING}
    if len(missing) == len(_LACKING) and len(set(missing.values())) == 1:
        return [f"no cgroup: nothing of it is limited by one, its processes are measured one by one: {missing['memory']}"]
    return [f"{_LACKING[name]}: {why}" for name, why in missing.items()]


def _writable(spec: dict[str, Any]) -> bool:
    """Whether it sees its own group, by a namespace of its own, and may write there."""
    own = any(kind["type"] == "cgroup" and not kind.get("path") for kind in spec["linux"].get("namespaces") or ())
    shown = [mount for mount in spec.get("mounts") or () if mount.get("type") in ("cgroup", "cgroup2")]
    return own and any("ro" not in (mount.get("options") or ()) for mount in shown)


def _root(maps: list[dict[str, Any]] | None) -> int:
    """The id here of the container's 0."""
    return next((row["hostID"] for row in maps or () if row["containerID"] == 0), 0)
