"""What the first processes of usual containers have in common, and can be made ahead of need (:mod:`.ahead`): their namespaces with the
ID maps, and the mounts that show nothing but those.

It is plain data, taken from the specification of a container that was started. A container fits when its own is the same, to the letter.
"""

from __future__ import annotations

import os
from typing import Any

from ..linux.mount_options import Options

_PLACES = {"proc": "/proc", "sysfs": "/sys"}
_SHOWS = {"proc": "pid", "sysfs": "network", "mqueue": "ipc"}  # file system -> the namespace that it shows
_CGROUPS = ("cgroup", "cgroup2")
_VALUE_LIMIT = 256  # bytes of an option: longer ones take another way (:mod:`.inside`)
_COVERS = ("/", "/proc", "/dev", "/dev/null")  # a volume there decides what is seen, and what masked files are covered with
_LATE = "/proc/sys"  # after the sysctls are written


class Pattern:
    """:ivar kinds: types of the namespaces, all of them new. ``users``, ``groups``: ID maps as in the specification. ``ready``: what can be
    mounted ahead, as (index in the spec's ``mounts``, mount). ``frozen``, ``masked``: paths in proc to be hidden ahead."""

    __slots__ = ("frozen", "groups", "kinds", "masked", "ready", "users")

    def __init__(
        self, kinds: list[str], users: list[Any], groups: list[Any], ready: list[Any], frozen: list[str], masked: list[str]
    ) -> None:
        self.kinds, self.users, self.groups = kinds, users, groups
        self.ready, self.frozen, self.masked = ready, frozen, masked

    @property
    def data(self) -> list[Any]:
        """As JSON, and what two are compared by; ``Pattern(*data)`` is the same again."""
        return [self.kinds, self.users, self.groups, self.ready, self.frozen, self.masked]

    @property
    def sample(self) -> dict[str, Any]:
        """A specification that this is the pattern of, about as large as a real one, for rehearsals: mostly its seccomp profile."""
        profile = [{"names": [f"call {number}" for number in range(400)]}] * 2
        linux = {
            "namespaces": [{"type": kind} for kind in self.kinds],
            "uidMappings": self.users,
            "gidMappings": self.groups,
            "readonlyPaths": self.frozen,
            "maskedPaths": self.masked,
            "resources": {"memory": {}, "cpu": {}, "pids": {"limit": 100}},
            "cgroupsPath": "/",
            "seccomp": profile,
        }
        process = {"args": [""], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
        return {"process": process, "linux": linux, "mounts": [mount for _, mount in self.ready], "root": {"path": "rootfs"}}


def of(spec: dict[str, Any]) -> Pattern | None:
    """The pattern of a specification. None where its first process has to be made for it: it joins namespaces or shifts clocks, hooks
    have their say in between, or nodes are made for it."""
    linux = spec["linux"]
    kinds = sorted(namespace["type"] for namespace in linux["namespaces"])
    if spec.get("hooks") or linux.get("timeOffsets") or linux.get("devices") or "mount" not in kinds:
        return None
    if any(namespace.get("path") for namespace in linux["namespaces"]):
        return None
    ready = _ready(spec.get("mounts") or [], kinds)
    there = {mount["destination"] for _, mount in ready}
    indexes = {index for index, _ in ready}
    later = (mount["destination"] for index, mount in enumerate(spec.get("mounts") or []) if index not in indexes)
    if "/dev" not in there or any(os.path.normpath(target) in _COVERS for target in later):
        return None
    frozen, masked = linux.get("readonlyPaths") or [], linux.get("maskedPaths") or []
    if "/proc" not in there or any("/proc".startswith(path.rstrip("/")) for path in (*frozen, *masked)):
        frozen = masked = []  # what would be frozen with all that lies in it comes first
    frozen, masked = ([path for path in paths if _is_in_proc(path) and path != _LATE] for paths in (frozen, masked))
    return Pattern(kinds, linux.get("uidMappings") or [], linux.get("gidMappings") or [], ready, frozen, masked)


def _ready(asked: list[dict[str, Any]], kinds: list[str]) -> list[list[Any]]:
    """The mounts with which the list begins, as far as they need nothing but the namespaces: between them nothing else is mounted, so it
    makes no difference when they are. What shows the cgroup, among them, has to wait until the process is in it."""
    found: list[list[Any]] = []
    there: set[str] = set()
    for index, mount in enumerate(asked):
        kind, target = mount.get("type") or "", mount["destination"]
        if kind in _CGROUPS and target == "/sys/fs/cgroup" and "/sys" in there:
            continue
        if target in there or os.path.normpath(target) != target or not _is_ready(mount, kind, target, there, kinds):
            break
        found.append([index, {key: mount[key] for key in ("destination", "type", "source", "options") if key in mount}])
        there.add(target)
    return found


def _is_ready(mount: dict[str, Any], kind: str, target: str, there: set[str], kinds: list[str]) -> bool:
    options = Options(mount.get("options") or [])
    if options.bind or options.copy_up or (mount.get("source") or "").startswith("/") or kind == "bind":
        return False
    if any(len(value) >= _VALUE_LIMIT for _, value in options.data) or (kind in _SHOWS and _SHOWS[kind] not in kinds):
        return False
    if kind in _PLACES:
        return target == _PLACES[kind]
    if kind == "tmpfs" and not any(key == "mode" for key, _ in options.data):
        return False  # it looks as what it covers does
    if target == "/dev":
        return kind == "tmpfs"
    return kind in ("tmpfs", "devpts", "mqueue") and os.path.dirname(target) == "/dev" and "/dev" in there


def _is_in_proc(path: str) -> bool:
    return path.startswith("/proc/") and os.path.normpath(path) == path
