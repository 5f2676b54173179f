"""From what is asked and what the image says to an OCI runtime spec (``config.json``, runtime-spec 1.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..linux.idmap import onto_itself
from ..linux.namespaces import KINDS
from ..protocol import ContainerConfig
from . import defaults
from .owners import with_agent
from .privileges import Privileges
from .spec_mounts import mounts

INIT = "/sbin/docker-init"
"""Where ``--init`` puts its program (Docker's own place)."""
_UNLIMITED = (1 << 64) - 1  # RLIM_INFINITY as the specification writes it


@dataclass(frozen=True)
class Facts:
    """What the machine allows, as :mod:`pycontainers.runtime.isolation` found it; plain data.

    ``user_namespace``: the container gets one (its own, or that of the containers it shares namespaces with).
    """

    user_namespace: bool = True
    time_namespace: bool = True
    cgroup_namespace: bool = True
    swap_accounting: bool = True
    fresh_proc: bool = True  # a new proc and a new sysfs may be mounted
    uids: tuple[int, ...] = ()  # pieces of an ordinary user's map, each id onto itself; (): root, whose containers get ids of nobody
    gids: tuple[int, ...] = ()
    no_groups: str = ""  # why an ordinary user has no control groups
    agents: str = ""  # folder of the agents' sockets where a container has a single id (:mod:`.owners`)
    notes: tuple[str, ...] = field(default=())

    @property
    def idmapped(self) -> bool:
        """Mounts show owners through the container's map. Not an ordinary user's: there each id is mapped onto itself."""
        return self.user_namespace and not self.uids


def oci_spec(
    config: ContainerConfig,
    image: Mapping[str, Any],
    *,
    container_id: str,
    resources: Mapping[str, Any],
    facts: Facts,
    files: Mapping[str, str],
    privileges: Privileges,
    joins: Mapping[str, str],
    devices: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The runtime spec of a container.

    :param config: checked, with ids for the names of other containers and with its host name.
    :param image: the ``config`` part of the OCI image config.
    :param resources: the OCI ``linux.resources`` object. ``devices``: OCI ``linux.devices``.
    :param files: container path -> host path of the files that the runtime makes (/etc/hosts, …), bound over the image's.
    :param joins: namespace type -> id of the container whose namespace is joined; the path is put in at each start (:mod:`.joining`).
    """
    kinds = namespaces(config, facts)
    linux: dict[str, Any] = {
        "namespaces": [_namespace(kind, kind in joins) for kind in kinds],
        "resources": dict(resources),
        "cgroupsPath": f"/pycontainers/{container_id}",
        "maskedPaths": privileges.masked,
        "readonlyPaths": privileges.readonly,
        "rootfsPropagation": "private",
    }
    if privileges.seccomp is not None:
        linux["seccomp"] = privileges.seccomp
    if facts.agents and not (privileges.seccomp or {}).get("listenerPath"):
        linux["seccomp"] = with_agent(privileges.seccomp, f"{facts.agents}/{container_id[:12]}.owners")
    if devices:
        linux["devices"] = [dict(device) for device in devices]
    if facts.user_namespace:
        # Of a joined user namespace too: it says how owners are mapped in the mounts.
        linux["uidMappings"], linux["gidMappings"] = _mapping(facts.uids), _mapping(facts.gids)
    own_network = "network" in kinds and "network" not in joins
    if own_network or config.sysctls:
        ping = {"net.ipv4.ping_group_range": f"0 {(sum(facts.gids) or defaults.ID_COUNT) - 1}"}
        linux["sysctl"] = (defaults.SYSCTLS | ping if own_network else {}) | config.sysctls
    spec = {
        "ociVersion": "1.2.0",
        "process": _process(config, image, privileges),
        "root": {"path": "rootfs", "readonly": config.read_only},
        "mounts": mounts(config, files, privileges, facts.gids, private_user=facts.idmapped, fresh=facts.fresh_proc),
        "annotations": config.annotations | {"io.pycontainers.image": config.image},
        "linux": linux,
    }
    if "uts" in kinds and "uts" not in joins:
        spec["hostname"] = config.hostname
        if config.domainname:
            spec["domainname"] = config.domainname
    return spec


def namespaces(config: ContainerConfig, facts: Facts) -> list[str]:
    """The types that the container has of its own or shares with another container; of what is missing it shares the host's."""
    kinds = ["user"] if facts.user_namespace else []
    kinds.append("mount")
    kinds += [kind for kind in ("pid", "uts", "ipc", "network") if getattr(config, kind) != "host"]
    if facts.cgroup_namespace and config.cgroupns != "host":
        kinds.append("cgroup")
    if facts.time_namespace:
        kinds.append("time")
    return kinds


def _namespace(kind: str, joined: bool) -> dict[str, str]:
    return {"type": kind, "path": f"/proc/0/ns/{KINDS[kind][1]}"} if joined else {"type": kind}


def _mapping(pieces: Sequence[int]) -> list[dict[str, int]]:
    maps = onto_itself(pieces) if pieces else [(0, defaults.HOST_ID_BASE, defaults.ID_COUNT)]
    return [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in maps]


def command_of(config: ContainerConfig, image: Mapping[str, Any]) -> list[str]:
    """ENTRYPOINT and CMD combined as Docker does: a new entry point drops the image's CMD."""
    if config.entrypoint is not None:
        return [*config.entrypoint, *config.command]
    entrypoint: Sequence[str] = image.get("Entrypoint") or ()
    return [*entrypoint, *(config.command or image.get("Cmd") or ())]


def _process(config: ContainerConfig, image: Mapping[str, Any], privileges: Privileges) -> dict[str, Any]:
    environment = {"PATH": defaults.PATH, "HOSTNAME": config.hostname}
    if config.tty:
        environment["TERM"] = "xterm"
    environment.update(item.partition("=")[::2] for item in image.get("Env") or ())
    environment.update(config.env)
    # HOME follows from the image's passwd; init adds it when it is not given.
    user: dict[str, Any] = {"uid": 0, "gid": 0, "username": config.user or image.get("User") or "0"}
    if config.group_add:
        user["additionalGids"] = [int(group) if group.isdigit() else group for group in config.group_add]
    names = privileges.capabilities
    process: dict[str, Any] = {
        "terminal": config.tty,
        # Names of users and groups are resolved in the image's own files by init, and shown here as given.
        "user": user,
        "args": [*([INIT, "--"] if config.init else []), *command_of(config, image)],
        "env": [f"{key}={value}" for key, value in environment.items()],
        "cwd": config.workdir or image.get("WorkingDir") or "/",
        "capabilities": {"bounding": names, "effective": names, "permitted": names},
        "noNewPrivileges": privileges.no_new_privileges,
        "rlimits": [
            {
                "type": f"RLIMIT_{limit.name.upper()}",
                "soft": _UNLIMITED if limit.soft == -1 else limit.soft,
                "hard": _UNLIMITED if limit.hard == -1 else limit.hard,
            }
            for limit in config.ulimits
        ],
    }
    if config.oom_score_adj is not None:
        process["oomScoreAdj"] = config.oom_score_adj
    if privileges.apparmor:
        process["apparmorProfile"] = privileges.apparmor
    return process
