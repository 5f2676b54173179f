"""Create a container: check everything that was asked, then write its folder in one rename. Bad input leaves nothing behind."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import stat
import time
from typing import Any

from ..errors import IsolationError, NameInUse, NotFound, UsageError
from ..images.durable import give
from ..images.store import Store
from ..images.view import visible
from ..linux import holder, trees
from ..linux.cgroups import limits
from ..network import names as network_names
from ..paths import Paths
from ..protocol import ContainerConfig, Port
from ..runtime import client, init_program, isolation, recover, state
from ..runtime.confine import OWN_INIT
from ..runtime.marks import mark
from ..runtime.privileges import privileges_of
from ..runtime.spec import INIT, Facts, command_of, oci_spec
from ..runtime.spec_mounts import bind, device_binds
from . import devices, naming, sharing, validity
from .folders import STEP, Folders
from .keeping import keeping

ONE_ID = "one id: every user inside is the same to the machine; owners are recorded, not given"
_NO_USER_NAMESPACE = ("user namespace", "ID-mapped overlay (Linux 5.19)", "proc in a user namespace")


def create(paths: Paths, store: Store, config: ContainerConfig, *, step: dict[str, Any] | None = None, rootfs: Any = None) -> str:
    """Write the container's folder; returns its id.

    :param step: this is a build step: hidden from ``ps``, with these facts about its owner; ``rootfs`` then is what it stands on.
    :raises ContainersError: for whatever is wrong with the request; nothing has been made then.
    """
    image = store.resolve(config.image) if rootfs is None else None
    image_config: dict[str, Any] = (image.config.get("config") or {}) if image else {}
    folders = Folders(paths)
    shared = sharing.resolve(config, folders.root, folders.find)
    config = shared.config
    validity.check(config, image_config)
    facts = machine_facts(paths, shared)
    privileges = privileges_of(config, facts.user_namespace)
    _require(config, [*facts.notes, *privileges.notes])
    resources = limits.to_oci(config.resources) | {"devices": devices.rules(config)}
    rlimits: list[dict[str, Any]] = []
    limited: list[str] = []
    if facts.no_groups:
        rlimits, limited = limits.to_rlimits(resources, facts.no_groups)
        resources = {"devices": resources["devices"]}
    nodes = devices.nodes(config)
    kept = keeping(config, image_config)
    container_id = secrets.token_hex(32)
    config = dataclasses.replace(config, hostname=shared.hostname or config.hostname or container_id[:12])
    folder = f"{paths.containers}/{container_id}"
    building = f"{paths.containers}/{recover.new_folder_name(container_id)}"
    os.mkdir(building, 0o711)
    mark("client", "building")
    name, cidfile = "", ""
    try:
        files, notes = _files(building, folder, config, shared.joins, folders)
        roots = _rootfs(building, folder, image.rootfs if image else rootfs)
        spec = oci_spec(
            config,
            image_config,
            container_id=container_id,
            resources=resources,
            facts=facts,
            files=files,
            privileges=privileges,
            joins=shared.joins,
            devices=nodes,
        )
        if step is not None and "HOSTNAME" not in config.env:  # as in Docker's builds: what is built does not depend on it
            spec["process"]["env"] = [item for item in spec["process"]["env"] if not item.startswith("HOSTNAME=")]
        asked = {limit["type"] for limit in spec["process"]["rlimits"]}
        spec["process"]["rlimits"] += [limit for limit in rlimits if limit["type"] not in asked]
        if config.init:
            spec["mounts"].append(bind(init_program.path(str(paths.home)), INIT, facts.idmapped, "ro"))
            spec["annotations"][OWN_INIT] = "true"
        if config.privileged:
            spec["mounts"] += device_binds([(node, node) for node in devices.of_the_machine()])
        if config.read_only:
            spec["annotations"]["io.pycontainers.folders"] = ":".join(f for f in roots["folders"] if f != "/")
        cidfile = _write_cidfile(config.cidfile, container_id)
        name = _claim(paths, config.name, container_id)
        mark("client", "claimed")
        record = {
            **_record(config, image, image_config, container_id, name, roots),
            **kept,
            "joins": shared.joins,
            "notes": list(dict.fromkeys([*facts.notes, *privileges.notes, *limited, *notes])),
        }
        state.write(building, "config.json", spec)
        state.write(building, "container.json", record)
        if step is not None:
            state.write(building, STEP, step)
        mark("client", "written")
        with store.locked(shared=True):  # whoever removes images sees the container from here on
            known = image is None or not image.id.startswith("sha256:") or os.path.exists(store.manifest_path(image.id))
            if not known or not all(map(os.path.isdir, roots["layers"])):
                raise NotFound(f"image {config.image} was removed meanwhile", "create the container again")
            os.rename(building, folder)
    except BaseException:
        trees.remove(building)
        if name:
            state.release_name(str(paths.containers), name, container_id)
        if cidfile:
            os.unlink(cidfile)
        raise
    mark("client", "created")
    return container_id


def before_start(paths: Paths, container_id: str) -> None:
    """What a start needs from this process: missing sources of ``-v`` as folders, and the network helper running."""
    record = state.read(f"{paths.containers}/{container_id}", "container.json") or {}
    for mount in record.get("mounts", []):
        if mount["type"] == "bind" and mount.get("create"):
            with contextlib.suppress(FileExistsError):  # a file
                os.makedirs(mount["source"], exist_ok=True)
    if record.get("network") == "bridge":
        from ..network import wayout
        from ..runtime import network

        if os.geteuid() != 0:
            client.connect(paths).close()  # one that is replaced takes its namespaces along: the way out must be that of the new ones
            wayout.ensure(paths)
        network.connect(paths).close()
    mark("client", "prepared")


def machine_facts(paths: Paths, shared: sharing.Sharing) -> Facts:
    """What the machine allows and the container gets, as the spec needs to know it.

    :raises IsolationError: something without which no container can run is refused.
    """
    probes = client.isolation(paths)
    refused = {p["name"]: p for p in probes if p["errno"]}
    for probe in refused.values():
        if probe["level"] == isolation.NEEDED:
            raise IsolationError(f"this machine refuses the {probe['name']} ({probe['why']})", probe["remedy"])
    notes = list(dict.fromkeys(p["note"] for p in refused.values() if p["note"]))
    held = holder.read(str(paths.run)) or {}
    if held and shared.config.userns == "host":
        raise UsageError("--userns host needs root: an ordinary user's container has a user namespace of its own", "leave it out")
    if sum(held.get("uids", ())) == 1:
        notes.append(ONE_ID)
    if shared.config.userns == "host":
        notes.append("--userns host: root inside is root outside")
    elif shared.host_user:
        notes.append(f"shares namespaces with {shared.host_user!r}, which has no user namespace: root inside is root outside")
    able = not any(name in refused for name in _NO_USER_NAMESPACE)
    return Facts(
        user_namespace=able and shared.config.userns != "host" and not shared.host_user,
        time_namespace="time namespace" not in refused,
        cgroup_namespace="cgroup namespace" not in refused,
        fresh_proc=not {"fresh proc", "fresh sysfs"} & set(refused),
        uids=tuple(held.get("uids", ())),
        gids=tuple(held.get("gids", ())),
        no_groups=refused.get(isolation.GROUPS, {}).get("why", "").partition(": ")[2],  # without the name of the errno
        agents=str(paths.run) if sum(held.get("uids", ())) == 1 else "",
        notes=tuple(notes),
    )


def _require(config: ContainerConfig, notes: list[str]) -> None:
    """:raises IsolationError: isolation is less than ``require_isolation`` asks."""
    shared = [f"--{kind} {mode}" for kind in ("pid", "ipc", "uts", "network", "cgroupns") if (mode := getattr(config, kind)) == "host"]
    if config.require_isolation == "full" and (notes or shared):
        raise IsolationError(f"full isolation was asked for: {[*notes, *shared][0]}", "leave out --require-isolation, or see doctor")


def _files(
    building: str, folder: str, config: ContainerConfig, joins: dict[str, str], folders: Folders
) -> tuple[dict[str, str], list[str]]:
    """(container path -> host path of /etc/hosts, hostname and resolv.conf, notes). Who shares a network shares these files (Docker)."""
    os.mkdir(f"{building}/etc", 0o711)
    names = ("hosts", "hostname", "resolv.conf")
    if owner := joins.get("network"):
        return {f"/etc/{name}": f"{folders.path(owner)}/etc/{name}" for name in names}, []
    resolv, notes = network_names.resolv_conf(config.network, config.dns, config.dns_search, config.dns_options)
    hosts = network_names.hosts(config.hostname, config.network, config.extra_hosts)
    for name, text in zip(names, (hosts, config.hostname + "\n", resolv), strict=True):
        with open(f"{building}/etc/{name}", "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(f"{building}/etc/{name}", 0o644)
    return {f"/etc/{name}": f"{folder}/etc/{name}" for name in names}, notes


def _write_cidfile(path: str, container_id: str) -> str:
    """The file whose removal undoes it, "" where none was asked for."""
    if not path:
        return ""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(container_id)
    except OSError as error:
        raise UsageError(f"--cidfile {path}: {error.strerror}", "choose another file") from None
    return os.path.abspath(path)


def _rootfs(building: str, folder: str, rootfs: Any) -> dict[str, Any]:
    """The description that the runtime takes, and the empty upper folders, each with mode and owner of what it covers."""
    for kind in ("upper", "work"):
        os.mkdir(f"{building}/{kind}", 0o711)
    for index, place in enumerate(rootfs.folders):
        inside = "" if place == "/" else place
        sources = [path + inside for path in reversed(rootfs.layers)] + [rootfs.base[place]] * (place in rootfs.base)
        covered = next((os.stat(path) for path in sources if os.path.isdir(path)), None)
        upper = f"{building}/upper/{index}"
        os.mkdir(upper)
        os.mkdir(f"{building}/work/{index}", 0o711)
        os.chmod(upper, stat.S_IMODE(covered.st_mode) if covered else 0o755)
        if covered:
            give(upper, covered)
    return {
        "layers": list(visible(rootfs.layers)),
        "folders": list(rootfs.folders),
        "base": dict(rootfs.base),
        "upper": f"{folder}/upper",
        "work": f"{folder}/work",
    }


def _claim(paths: Paths, name: str, container_id: str) -> str:
    if name:
        state.claim_name(str(paths.containers), name, container_id)
        return name
    while True:
        name = naming.invent()
        try:
            state.claim_name(str(paths.containers), name, container_id)
            return name
        except NameInUse:
            name = f"{name}_{secrets.token_hex(2)}"
            state.claim_name(str(paths.containers), name, container_id)
            return name


def _record(
    config: ContainerConfig, image: Any, image_config: dict[str, Any], container_id: str, name: str, roots: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": container_id,
        "name": name,
        "image": config.image,
        "image_id": image.id if image else "",
        "rootfs": roots,
        "command": command_of(config, image_config),
        "created": time.time(),
        "ports": [dataclasses.asdict(port) for port in _ports(config, image_config)],
        "mounts": [dataclasses.asdict(mount) for mount in config.mounts],
        "network": config.network,
        "pid": config.pid,
        "ipc": config.ipc,
        "uts": config.uts,
        "hostname": config.hostname,
        "gateway_hosts": network_names.gateway_hosts(config.network, config.extra_hosts),
        "labels": {**(image_config.get("Labels") or {}), **config.labels},
        "resources": dataclasses.asdict(config.resources),
        "auto_remove": config.auto_remove,
        "stop_signal": config.stop_signal or image_config.get("StopSignal") or "SIGTERM",
        "notebook": os.environ.get("JPY_SESSION_NAME", ""),
    }


def _ports(config: ContainerConfig, image_config: dict[str, Any]) -> list[Port]:
    """What is published; with ``--publish-all`` every exposed port that is not yet, on a free one."""
    found = list(config.ports)
    if config.publish_all:
        taken = {(port.container_port, port.protocol) for port in found}
        for exposed in (*config.expose, *(image_config.get("ExposedPorts") or ())):
            number, _, protocol = exposed.partition("/")
            key = (int(number), protocol or "tcp")
            if key not in taken:
                taken.add(key)
                found.append(Port(*key[:1], protocol=key[1]))
    return found
