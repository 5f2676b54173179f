"""From what is asked and what the image says to an OCI runtime spec (``config.json``, runtime-spec 1.2)."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..protocol import ContainerConfig, Mount
from . import defaults
from .seccomp_profile import default_profile


@dataclass(frozen=True)
class Facts:
    """What the machine allows, as :mod:`pycontainers.runtime.isolation` found it; plain data."""

    user_namespace: bool = True
    time_namespace: bool = True
    cgroup_namespace: bool = True
    swap_accounting: bool = True
    notes: tuple[str, ...] = field(default=())


def oci_spec(
    config: ContainerConfig,
    image: Mapping[str, Any],
    *,
    container_id: str,
    resources: Mapping[str, Any],
    facts: Facts,
    files: Mapping[str, str],
) -> dict[str, Any]:
    """The runtime spec of a container.

    :param image: the ``config`` part of the OCI image config (Env, Cmd, Entrypoint, WorkingDir, User, …).
    :param resources: the OCI ``linux.resources`` object.
    :param files: container path -> host path of the files that the runtime makes (/etc/hosts, …), bound over the image's.
    """
    private_user = facts.user_namespace and config.userns != "host"
    namespaces = ["pid", "mount", "uts", "ipc"]
    if private_user:
        namespaces.insert(0, "user")
    if config.network != "host":
        namespaces.append("network")
    if facts.cgroup_namespace:
        namespaces.append("cgroup")
    if facts.time_namespace:
        namespaces.append("time")
    capabilities = list(defaults.CAPABILITIES)
    if not private_user:
        # Without a user namespace a device node made inside would be the host's disk.
        capabilities.remove("CAP_MKNOD")
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in namespaces],
        "resources": dict(resources),
        "cgroupsPath": f"/pycontainers/{container_id}",
        "maskedPaths": defaults.MASKED_PATHS + sorted(glob.glob("/sys/devices/system/cpu/cpu*/thermal_throttle")),
        "readonlyPaths": list(defaults.READONLY_PATHS),
        "seccomp": default_profile(capabilities),
        "rootfsPropagation": "rprivate",
    }
    if private_user:
        mapping = [{"containerID": 0, "hostID": defaults.HOST_ID_BASE, "size": defaults.ID_COUNT}]
        linux["uidMappings"] = linux["gidMappings"] = mapping
    if config.network != "host":
        linux["sysctl"] = dict(defaults.SYSCTLS)
    return {
        "ociVersion": "1.2.0",
        "process": _process(config, image, capabilities, config.hostname or container_id[:12]),
        "root": {"path": "rootfs", "readonly": config.read_only},
        "hostname": config.hostname or container_id[:12],
        "mounts": _mounts(config, files),
        "annotations": {"io.pycontainers.image": config.image},
        "linux": linux,
    }


def command_of(config: ContainerConfig, image: Mapping[str, Any]) -> list[str]:
    """ENTRYPOINT and CMD combined as Docker does: a new entry point drops the image's CMD."""
    if config.entrypoint is not None:
        return [*config.entrypoint, *config.command]
    entrypoint: Sequence[str] = image.get("Entrypoint") or ()
    return [*entrypoint, *(config.command or image.get("Cmd") or ())]


def _process(config: ContainerConfig, image: Mapping[str, Any], capabilities: list[str], hostname: str) -> dict[str, Any]:
    environment = {"PATH": defaults.PATH, "HOSTNAME": hostname}
    environment.update(item.partition("=")[::2] for item in image.get("Env") or ())
    environment.update(config.env)
    # init adds HOME from the image's passwd when it is not given.
    return {
        "terminal": False,
        # The name is resolved in the image's own passwd by init, and shown here as given.
        "user": {"uid": 0, "gid": 0, "username": config.user or image.get("User") or ""},
        "args": command_of(config, image),
        "env": [f"{key}={value}" for key, value in environment.items()],
        "cwd": config.workdir or image.get("WorkingDir") or "/",
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        "noNewPrivileges": True,
        "rlimits": [],
    }


def _mounts(config: ContainerConfig, files: Mapping[str, str]) -> list[dict[str, Any]]:
    mounts = [dict(mount) for mount in defaults.MOUNTS]
    if config.network == "host":
        # A fresh sysfs needs to own the network namespace (it shows its devices): the host's is bound, without what is mounted
        # below it, read-only.
        for mount in mounts:
            if mount["destination"] == "/sys":
                mount.update(type="bind", source="/sys", options=["bind", "nosuid", "noexec", "nodev", "ro"])
    mounts += [{"destination": target, "type": "bind", "source": source, "options": ["bind", "rw"]} for target, source in files.items()]
    return mounts + [_user_mount(mount) for mount in sorted(config.mounts, key=lambda mount: mount.target.count("/"))]


def _user_mount(mount: Mount) -> dict[str, Any]:
    read_only = ["ro"] if mount.read_only else ["rw"]
    below = ["rro"] if mount.read_only else []
    if mount.type == "tmpfs":
        given = {option.partition("=")[0] for option in mount.options}
        base = ["nosuid", "nodev", "noexec", *([] if "mode" in given else ["mode=1777"])]
        return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": [*base, *read_only, *mount.options]}
    return {"destination": mount.target, "type": "bind", "source": mount.source, "options": ["rbind", "rnodev", *below]}
