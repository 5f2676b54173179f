"""A bundle's config.json: read, checked, and brought into the form that :mod:`pycontainers.runtime` takes.

What is checked here would otherwise fail late, or be passed over in silence. Every error names the field and its value.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ..errors import UsageError
from ..linux import capabilities, namespaces
from ..runtime import defaults
from ..runtime.rootfs import PROPAGATION
from .messages import Messages

#: sysctls that belong to a namespace (namespaces(7)): in the host's they would change the host
_NAMESPACED = {"net": "network", "fs.mqueue": "ipc", "kernel.msg": "ipc", "kernel.sem": "ipc", "kernel.shm": "ipc"}
_HOST_NAME = {"kernel.hostname": "uts", "kernel.domainname": "uts"}
_TYPES: dict[str, tuple[type, ...]] = {
    "hostname": (str,),
    "mounts": (list,),
    "annotations": (dict,),
    "process.args": (list,),
    "process.cwd": (str,),
    "process.env": (list,),
    "process.user": (dict,),
    "process.terminal": (bool,),
    "process.capabilities": (dict,),
    "process.rlimits": (list,),
    "process.oomScoreAdj": (int,),
    "process.noNewPrivileges": (bool,),
    "root.path": (str,),
    "root.readonly": (bool,),
    "linux.namespaces": (list,),
    "linux.devices": (list,),
    "linux.resources": (dict,),
    "linux.sysctl": (dict,),
    "linux.maskedPaths": (list,),
    "linux.readonlyPaths": (list,),
    "linux.seccomp": (dict,),
    "linux.cgroupsPath": (str,),
    "linux.uidMappings": (list,),
    "linux.gidMappings": (list,),
    "hooks": (dict,),
}


def load(bundle: str, name: str, container: str, *, messages: Messages, systemd: bool) -> dict[str, Any]:
    """The spec, complete: paths absolute, ``linux`` and what is in it there, ``linux.cgroupsPath`` a path from "/".

    :param container: the id, for a cgroup where the spec names none. :raises UsageError: a field that makes no sense.
    """
    path = os.path.join(bundle, name or "config.json")
    try:
        with open(path, encoding="utf-8") as file:
            spec = json.load(file)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "a bundle is a folder with a config.json") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from None
    if not isinstance(spec, dict):
        raise UsageError(f"{path} is not a JSON object")
    _check_types(spec)
    version = str(spec.get("ociVersion") or "")
    if version.split(".")[0] != "1":
        raise UsageError(f"ociVersion {version!r} is not 1.x", "the specification from 1.0.0 on is understood")
    linux = spec.setdefault("linux", {})
    for field in ("namespaces",):
        linux[field] = linux.get(field) or []
    _root(spec, bundle)
    process(spec.get("process"), "process", messages)
    _mounts(spec, bundle)
    _namespaces(spec)
    _sysctls(linux)
    for kind, hooks in (spec.get("hooks") or {}).items():
        for index, hook in enumerate(hooks or []):
            if not str(hook.get("path", "")).startswith("/"):
                raise UsageError(f"hooks.{kind}[{index}].path {hook.get('path')!r} is not absolute")
            if hook.get("timeout") is not None and hook["timeout"] <= 0:
                raise UsageError(f"hooks.{kind}[{index}].timeout {hook['timeout']} is not above 0")
    _default_devices(linux)
    linux["cgroupsPath"] = cgroup_path(linux.get("cgroupsPath") or "", container, systemd=systemd)
    return spec


def _check_types(spec: dict[str, Any]) -> None:
    for field, kinds in _TYPES.items():
        outer, _, inner = field.partition(".")
        value = spec.get(outer)
        if inner and value is not None and not isinstance(value, dict):
            raise UsageError(f"{outer} is {json.dumps(value)} and not an object")
        value = (value or {}).get(inner) if inner else value
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise UsageError(f"{field} is {json.dumps(value)} and not {'an object' if kinds == (dict,) else f'a {kinds[0].__name__}'}")


def _root(spec: dict[str, Any], bundle: str) -> None:
    root = spec.get("root") or {}
    if not root.get("path"):
        raise UsageError("root.path is missing", "the folder of the root file system, in or outside of the bundle")
    root["path"] = os.path.realpath(os.path.join(bundle, root["path"]))
    if not os.path.isdir(root["path"]):
        raise UsageError(f"root.path {root['path']} is not a folder")
    spec["root"] = root


def process(found: dict[str, Any] | None, field: str, messages: Messages) -> None:
    """Check an OCI process, of a spec or of exec. Capabilities that this kernel does not know are dropped with a warning (config.md)."""
    if not found:
        raise UsageError(f"{field} is missing", "an object with args, cwd and user")
    if not found.get("args"):
        raise UsageError(f"{field}.args is empty", "the program and its arguments")
    if not str(found.get("cwd") or "").startswith("/"):
        raise UsageError(f"{field}.cwd {found.get('cwd')!r} is not absolute")
    user = found.setdefault("user", {})
    user.pop("username", None)  # for Windows
    user.setdefault("uid", 0)
    user.setdefault("gid", 0)
    found["env"] = found.get("env") or []
    for entry in found["env"]:
        if "=" not in entry:
            raise UsageError(f"{field}.env: {entry!r} has no =", "NAME=VALUE")
    most = capabilities.last()
    for kind, names in (found.get("capabilities") or {}).items():
        unknown = [name for name in names or [] if capabilities.NUMBER.get(name, most + 1) > most]
        if unknown:
            messages.write("warning", f"{field}.capabilities.{kind}: this kernel does not know {', '.join(unknown)}")
            found["capabilities"][kind] = [name for name in names if name not in unknown]


def _default_devices(linux: dict[str, Any]) -> None:
    """What the specification lists as every container's (config-linux, Default Devices) may be used whatever the rules say, and any node
    may be made: making one opens nothing."""
    rules = (linux.get("resources") or {}).get("devices")
    if not rules:
        return
    pairs = [*defaults.DEVICES.values(), (136, None), (5, 2)]  # terminals, and what makes them
    allowed = [{"type": "c", "major": major, "minor": minor, "access": "rwm"} for major, minor in pairs]
    allowed += [{"type": kind, "major": None, "minor": None, "access": "m"} for kind in "cb"]
    linux["resources"]["devices"] = [
        *rules,
        *({"allow": True} | {key: value for key, value in rule.items() if value is not None} for rule in allowed),
    ]


def _mounts(spec: dict[str, Any], bundle: str) -> None:
    spec["mounts"] = spec.get("mounts") or []
    for index, mount in enumerate(spec["mounts"]):
        if not mount.get("destination"):
            raise UsageError(f"mounts[{index}].destination is missing")
        mount["destination"] = os.path.normpath("/" + mount["destination"].lstrip("/"))
        options = mount.setdefault("options", []) or []
        mount["options"] = options
        if mount.get("type") == "bind" or not {"bind", "rbind"}.isdisjoint(options):
            if not mount.get("source"):
                raise UsageError(f"mounts[{index}].source of the bind on {mount['destination']} is missing")
            mount["source"] = os.path.join(bundle, mount["source"])
        elif not mount.get("type"):
            raise UsageError(f"mounts[{index}].type of {mount['destination']} is missing")


def _namespaces(spec: dict[str, Any]) -> None:
    linux = spec["linux"]
    own = set()
    for index, namespace in enumerate(linux["namespaces"]):
        kind = namespace.get("type")
        if kind not in namespaces.KINDS:
            raise UsageError(f"linux.namespaces[{index}].type {kind!r} does not exist", f"one of {', '.join(namespaces.KINDS)}")
        if kind in own:
            raise UsageError(f"linux.namespaces: {kind} is there twice")
        if namespace.get("path") and not namespace["path"].startswith("/"):
            raise UsageError(f"linux.namespaces[{index}].path {namespace['path']!r} is not absolute")
        own.add(kind)
    new_user = any(n["type"] == "user" and not n.get("path") for n in linux["namespaces"])
    if new_user and not (linux.get("uidMappings") and linux.get("gidMappings")):
        raise UsageError("linux.namespaces has a new user namespace, and linux.uidMappings or gidMappings is missing")
    for field in ("hostname", "domainname"):
        if spec.get(field) and "uts" not in own:
            raise UsageError(f"{field} {spec[field]!r} without a uts namespace would rename the host", "add uts to linux.namespaces")
    propagation = linux.get("rootfsPropagation")
    if propagation and propagation not in PROPAGATION:
        raise UsageError(f"linux.rootfsPropagation {propagation!r} does not exist", f"one of {', '.join(PROPAGATION)}")


def _sysctls(linux: dict[str, Any]) -> None:
    own = {n["type"] for n in linux["namespaces"]}
    for key in linux.get("sysctl") or {}:
        name = key.replace("/", ".")
        kind = _HOST_NAME.get(name) or next((kind for prefix, kind in _NAMESPACED.items() if name.startswith(prefix)), "")
        if not kind or ".." in key:
            raise UsageError(f"linux.sysctl: {key} is not of a namespace", "it would change the host; set it there")
        if kind not in own:
            raise UsageError(f"linux.sysctl: {key} needs a {kind} namespace", "in the host's it would change the host")


def cgroup_path(asked: str, container: str, *, systemd: bool) -> str:
    """``linux.cgroupsPath`` as a path from "/". A relative one is taken from there too: which place it means is ours to say (config-linux).

    ``slice:prefix:name`` becomes the place that systemd would give to the scope; it is made by us and no unit of systemd's.
    """
    if asked.count(":") == 2 and (systemd or "/" not in asked):
        unit, prefix, name = asked.split(":")
        scope = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
        return f"{_slice(unit or 'system.slice')}/{scope}"
    path = os.path.normpath("/" + (asked or f"pycontainers-oci/{container}").lstrip("/"))
    return path if path != "/" else f"/{container}"


def _slice(unit: str) -> str:
    """``a-b.slice`` lies in ``a.slice`` (systemd.slice(5)); ``-.slice`` is the root."""
    name = unit.removesuffix(".slice")
    if not name or name == "-":
        return ""
    parts = name.split("-")
    return "".join(f"/{'-'.join(parts[: index + 1])}.slice" for index in range(len(parts)))
