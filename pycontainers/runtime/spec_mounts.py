"""The ``mounts`` of an OCI runtime spec: what every container has, what it shares with others, what was asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..protocol import ContainerConfig, Mount
from . import defaults
from .privileges import Privileges

_BIND = ["bind", "nosuid", "noexec", "nodev"]
#: word of a tmpfs that is on unless its opposite is asked for (Docker)
_TMPFS = {"noexec": "exec", "nosuid": "suid", "nodev": "dev"}


def mounts(
    config: ContainerConfig,
    files: Mapping[str, str],
    privileges: Privileges,
    groups: Sequence[int] = (),
    *,
    private_user: bool,
    fresh: bool = True,
) -> list[dict[str, Any]]:
    """In the order in which they are mounted.

    :param files: container path -> host path of the files that the runtime makes.
    :param groups: pieces of an ordinary user's map of groups. ``private_user``: what is bound is ID-mapped.
    :param fresh: new instances of proc and sysfs may be mounted. Else the machine's are bound, with all that is mounted below, which in
        a user namespace cannot be left out; all of /sys is read-only then (CVE-2023-25809: the cgroups in it).
    """
    found = {mount["destination"]: dict(mount) for mount in defaults.MOUNTS}
    if not fresh:
        for place, words in (("/proc", []), ("/sys", ["rro"])):
            found[place].update(type="bind", source=place, options=["rbind", "rnosuid", "rnoexec", "rnodev", *words])
    if 0 < sum(groups) <= 5:  # tty, whose the terminals are, does not exist
        found["/dev/pts"]["options"] = [word for word in found["/dev/pts"]["options"] if not word.startswith("gid=")]
    _kernel(found, privileges)
    _ipc(found, config)
    made = [bind(source, target, private_user) for target, source in files.items()]
    asked = [_asked(mount, config.privileged, private_user) for mount in sorted(config.mounts, key=lambda mount: mount.target.count("/"))]
    return [*found.values(), *made, *asked]


def _kernel(found: dict[str, dict[str, Any]], privileges: Privileges) -> None:
    """What shows namespaces that are not its own is bound: :mod:`.rootfs` sees that, and the specification needs not say it."""
    if privileges.writable_sys:
        found["/sys"]["options"] = [word for word in found["/sys"]["options"] if word != "ro"]
    if privileges.writable_cgroups:
        found["/sys/fs/cgroup"]["options"] = [word for word in found["/sys/fs/cgroup"]["options"] if word != "ro"]


def _ipc(found: dict[str, dict[str, Any]], config: ContainerConfig) -> None:
    """POSIX shared memory is a file system, not part of the IPC namespace: who shares the one gets the other (Docker)."""
    if config.ipc == "none":
        del found["/dev/shm"]
    elif config.ipc == "host":
        found["/dev/shm"].update(type="bind", source="/dev/shm", options=list(_BIND))
        if not os.path.isdir("/dev/mqueue"):
            del found["/dev/mqueue"]
    elif config.ipc.startswith("container:"):
        found["/dev/shm"].update(type="bind", source="/proc/0/root/dev/shm", options=list(_BIND))  # :mod:`.joining` puts the pid in
    elif config.shm_size is not None:
        kept = [word for word in found["/dev/shm"]["options"] if not word.startswith("size=")]
        found["/dev/shm"]["options"] = [*kept, f"size={config.shm_size}"]


def _asked(mount: Mount, privileged: bool, private_user: bool) -> dict[str, Any]:
    if mount.type == "tmpfs":
        given = {option.partition("=")[0] for option in mount.options}
        base = [word for word, opposite in _TMPFS.items() if opposite not in given and word not in given]
        base += [] if "mode" in given else ["mode=1777"]
        options = [*base, "ro" if mount.read_only else "rw", *mount.options]
        return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options}
    alone, below = "bind" in mount.options, "writable" in mount.options
    words = ["bind" if alone else "rbind", *([] if privileged else ["rnodev"])]
    if mount.read_only:
        words.append("ro" if alone or below else "rro")  # also what is mounted below it, as Docker does
    if private_user:
        words.append("idmap" if alone else "ridmap")
    words += [word for word in mount.options if word not in ("bind", "writable", "z", "Z")]
    return {"destination": mount.target, "type": "bind", "source": mount.source, "options": words}


def bind(source: str, target: str, private_user: bool, *more: str) -> dict[str, Any]:
    """One file or folder of ours."""
    options = ["bind", *more, *(["idmap"] if private_user else [])]
    return {"destination": target, "type": "bind", "source": source, "options": options}


def device_binds(devices: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """The host's own nodes, with the host's owners, as (source, target)."""
    return [
        {"destination": target, "type": "bind", "source": source, "options": ["bind", "nosuid", "noexec"]} for source, target in devices
    ]
