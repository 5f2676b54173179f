"""Create a container: check everything that was asked, then write its folder in one rename. Bad input leaves nothing behind."""

from __future__ import annotations

import dataclasses
import os
import secrets
import stat
import sys
import time
from typing import Any

from ..errors import IsolationError, NameInUse, UsageError, near
from ..images.store import Store
from ..linux import trees
from ..linux.cgroups import limits
from ..network import names as network_names
from ..paths import Paths
from ..protocol import ContainerConfig, Mount
from ..runtime import client, isolation, recover, state
from ..runtime.spec import Facts, command_of, oci_spec
from . import naming
from .folders import STEP
from .keeping import keeping

NETWORKS = ("bridge", "none", "host")
_NO_USER_NAMESPACE = ("user namespace", "ID-mapped overlay (Linux 5.19)", "proc in a user namespace")


def create(paths: Paths, store: Store, config: ContainerConfig, *, step: dict[str, Any] | None = None, rootfs: Any = None) -> str:
    """Write the container's folder; returns its id.

    :param step: this is a build step: hidden from ``ps``, with these facts about its owner; ``rootfs`` then is what it stands on.
    :raises ContainersError: for whatever is wrong with the request; nothing has been made then.
    """
    image = store.resolve(config.image) if rootfs is None else None
    image_config: dict[str, Any] = (image.config.get("config") or {}) if image else {}
    _check(config, image_config)
    facts = machine_facts(paths, config)
    resources = limits.to_oci(config.resources)
    container_id = secrets.token_hex(32)
    folder = f"{paths.containers}/{container_id}"
    building = f"{paths.containers}/{recover.new_folder_name(container_id)}"
    os.mkdir(building, 0o711)
    name = ""
    try:
        resolv, notes = network_names.resolv_conf(config.network)
        files = _files(building, folder, config, container_id, resolv)
        roots = _rootfs(building, folder, image.rootfs if image else rootfs)
        spec = oci_spec(config, image_config, container_id=container_id, resources=resources, facts=facts, files=files)
        if config.read_only:
            spec["annotations"]["io.pycontainers.folders"] = ":".join(f for f in roots["folders"] if f != "/")
        name = _claim(paths, config.name, container_id)
        record = _record(config, image, image_config, container_id, name, spec, roots, [*facts.notes, *notes])
        state.write(building, "config.json", spec)
        state.write(building, "container.json", record)
        if step is not None:
            state.write(building, STEP, step)
        os.rename(building, folder)
    except BaseException:
        trees.remove(building)
        if name:
            state.release_name(str(paths.containers), name, container_id)
        raise
    return container_id


def before_start(paths: Paths, container_id: str) -> None:
    """What a start needs from this process: missing sources of ``-v`` as folders, and the network helper running."""
    record = state.read(f"{paths.containers}/{container_id}", "container.json") or {}
    for mount in record.get("mounts", []):
        if mount["type"] == "bind" and mount.get("create"):
            os.makedirs(mount["source"], exist_ok=True)
    if record.get("network") == "bridge":
        from ..network import client as network

        network.connect(paths).close()


def machine_facts(paths: Paths, config: ContainerConfig) -> Facts:
    """What the machine allows, as the spec needs to know it.

    :raises IsolationError: something without which no container can run is refused; or less than ``require_isolation`` asks.
    """
    probes = client.isolation(paths)
    refused = {p["name"]: p for p in probes if p["errno"]}
    for probe in refused.values():
        if probe["level"] == isolation.NEEDED:
            raise IsolationError(f"this machine refuses the {probe['name']} ({probe['why']})", probe["remedy"])
    notes = list(dict.fromkeys(p["note"] for p in refused.values()))
    if config.userns == "host":
        notes.append("--userns host: root inside is root outside")
    if config.require_isolation == "full" and notes:
        raise IsolationError(f"full isolation was asked for: {notes[0]}", "leave out --require-isolation, or see doctor")
    return Facts(
        user_namespace=not any(name in refused for name in _NO_USER_NAMESPACE),
        time_namespace="time namespace" not in refused,
        cgroup_namespace="cgroup namespace" not in refused,
        notes=tuple(notes),
    )


def _check(config: ContainerConfig, image_config: dict[str, Any]) -> None:
    if config.name:
        naming.check(config.name)
    if config.network not in NETWORKS:
        raise UsageError(f"network {config.network!r} does not exist", near(config.network, NETWORKS) or f"one of {', '.join(NETWORKS)}")
    if config.ports and config.network == "none":
        raise UsageError("a container with --network none has no ports to publish", "leave out -p, or use --network bridge")
    if config.userns not in ("auto", "host", ""):
        raise UsageError(f"--userns {config.userns!r} is unknown", "auto or host")
    if config.require_isolation not in ("", "full"):
        raise UsageError(f"--require-isolation {config.require_isolation!r} is unknown", "full")
    if config.hostname and (len(config.hostname) > 63 or not all(c.isalnum() or c in "-." for c in config.hostname)):
        raise UsageError(f"hostname {config.hostname!r} is not valid", "letters, digits and '-', at most 63")
    if not command_of(config, image_config):
        raise UsageError(f"image {config.image!r} has no command of its own", "give one after the image's name")
    workdir = config.workdir or image_config.get("WorkingDir") or "/"
    if not workdir.startswith("/"):
        raise UsageError(f"working directory {workdir!r} is not an absolute path", "for example -w /data")
    for text in (*command_of(config, image_config), *config.env, *config.env.values()):
        if "\0" in text:
            raise UsageError("a command or environment value holds a NUL byte", "")
    limits.check_resources(config.resources)
    targets = set()
    for mount in config.mounts:
        _check_mount(mount)
        if mount.target in targets:
            raise UsageError(f"two mounts on {mount.target}", "give each its own target")
        targets.add(mount.target)


def _check_mount(mount: Mount) -> None:
    if not mount.target.startswith("/") or os.path.normpath(mount.target) == "/" or ".." in mount.target.split("/"):
        raise UsageError(f"mount target {mount.target!r} is not an absolute path below /", "for example -v DIR:/data")
    if mount.type == "bind":
        if not mount.source.startswith("/"):
            raise UsageError(f"mount source {mount.source!r} is not an absolute path", "for example -v $PWD/data:/data")
        if not mount.create and not os.path.exists(mount.source):
            raise UsageError(f"mount source {mount.source} does not exist", "make it first, or use -v, which makes a folder")
    elif mount.type != "tmpfs":
        raise UsageError(f"mount type {mount.type!r} is not supported", "bind or tmpfs")


def _files(building: str, folder: str, config: ContainerConfig, container_id: str, resolv: str) -> dict[str, str]:
    hostname = config.hostname or container_id[:12]
    os.mkdir(f"{building}/etc", 0o711)
    texts = {"hosts": network_names.hosts(hostname, config.network), "hostname": hostname + "\n", "resolv.conf": resolv}
    for name, text in texts.items():
        with open(f"{building}/etc/{name}", "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(f"{building}/etc/{name}", 0o644)
    return {f"/etc/{name}": f"{folder}/etc/{name}" for name in texts}


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
            os.chown(upper, covered.st_uid, covered.st_gid)
    return {
        "layers": list(rootfs.layers),
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
    config: ContainerConfig,
    image: Any,
    image_config: dict[str, Any],
    container_id: str,
    name: str,
    spec: dict[str, Any],
    roots: dict[str, Any],
    notes: list[str],
) -> dict[str, Any]:
    return {
        "id": container_id,
        "name": name,
        "image": config.image,
        "image_id": image.id if image else "",
        "rootfs": roots,
        "command": spec["process"]["args"],
        "created": time.time(),
        "ports": [dataclasses.asdict(port) for port in config.ports],
        "mounts": [dataclasses.asdict(mount) for mount in config.mounts],
        "network": config.network,
        "hostname": spec["hostname"],
        "labels": {**(image_config.get("Labels") or {}), **config.labels},
        "resources": dataclasses.asdict(config.resources),
        "auto_remove": config.auto_remove,
        "stop_signal": config.stop_signal or image_config.get("StopSignal") or "SIGTERM",
        "notebook": os.environ.get("JPY_SESSION_NAME", ""),
        "notes": notes,
        **keeping(config, image_config),
        # whose packages the network helper needs; a supervisor may have to start it when no notebook is there
        "python": sys.executable,
    }
