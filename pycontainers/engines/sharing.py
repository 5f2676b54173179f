"""Namespaces shared with the host or with another container: ``--network``, ``--pid``, ``--ipc``, ``--uts`` and ``--userns``."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

from ..errors import StateError, UsageError, near
from ..protocol import ContainerConfig
from ..runtime import state

_MODES = {
    "network": ("bridge", "none", "host"),
    "pid": ("host", "private"),
    "ipc": ("private", "shareable", "none", "host"),
    "uts": ("host", "private"),
    "cgroupns": ("private", "host"),
    "userns": ("auto", "host"),
}
_OTHER = "container:"
_SHARED = ("network", "pid", "ipc", "uts")


@dataclasses.dataclass(frozen=True)
class Sharing:
    """Whose namespaces a container gets.

    :ivar config: with the ids of other containers in place of their names, and ``host`` where theirs is the host's.
    :ivar joins: OCI namespace type -> id of the container that owns it; ``user`` where that user namespace is joined with it.
    :ivar host_user: a container whose namespaces are joined has no user namespace, so this one has none either (its name, else "").
    :ivar hostname: that of whoever it shares network or host name with, "" where it has its own.
    """

    config: ContainerConfig
    joins: dict[str, str]
    host_user: str = ""
    hostname: str = ""


def resolve(config: ContainerConfig, containers: str, find: Callable[[str], str]) -> Sharing:
    """:raises UsageError: an unknown mode, or modes that contradict each other. :raises NotFound: no such container."""
    _check_modes(config)
    changed: dict[str, Any] = {}
    joins: dict[str, str] = {}
    users: dict[str, str] = {}  # whose user namespace -> the option that brings it; "" is the host's
    hostname, host_user = os.uname().nodename if config.uts == "host" else "", ""
    for kind in _SHARED:
        mode = getattr(config, kind)
        if not mode.startswith(_OTHER):
            continue
        other = _record(containers, find(mode.removeprefix(_OTHER)))
        theirs = other.get(kind) or ""
        if kind == "ipc" and theirs in ("", "private", "none"):
            raise UsageError(f"--ipc {mode}: that container does not share its IPC", f"create {other['name']!r} with --ipc shareable")
        if kind in ("network", "uts"):
            hostname = hostname or other["hostname"]
        if theirs == "host":
            changed[kind] = "host"
        else:
            joins[kind] = (other.get("joins") or {}).get(kind) or other["id"]
            changed[kind] = f"{_OTHER}{joins[kind]}"
        user = _user_of(containers, other)
        users.setdefault(user, f"--{kind} {mode}")
        host_user = host_user or ("" if user else other["name"])
    if config.userns != "host" and len(users) > 1:
        first, second = list(users.values())[:2]
        message = f"{first} and {second} are of two user namespaces, and a process is in one"
        raise UsageError(message, "join one of them, or use --userns host")
    if config.userns != "host" and users and not host_user:
        joins["user"] = next(iter(users))
    return Sharing(dataclasses.replace(config, **changed), joins, host_user, hostname)


def _check_modes(config: ContainerConfig) -> None:
    for kind, modes in _MODES.items():
        mode = getattr(config, kind)
        named = kind in _SHARED and mode.startswith(_OTHER) and mode != _OTHER
        if mode in modes or named or (mode == "" and kind != "network"):
            continue
        known = (*modes, *([f"{_OTHER}NAME"] if kind in _SHARED else []))
        if kind == "network":
            raise UsageError(f"network {mode!r} does not exist", near(mode, modes) or f"one of {', '.join(known)}")
        raise UsageError(f"--{kind} {mode!r} is unknown", near(mode, known) or f"one of {', '.join(known)}")
    if config.network.startswith(_OTHER):
        _check_shared_network(config)
    if config.uts == "host" or config.uts.startswith(_OTHER):
        for option in ("hostname", "domainname"):
            if getattr(config, option):
                raise UsageError(f"--{option} and --uts {config.uts} contradict each other", "leave one of them out")
    if config.init and config.pid not in ("", "private"):
        raise UsageError(f"--init and --pid {config.pid} contradict each other: there is a process 1 already", "leave out --init")
    if config.shm_size is not None and (config.ipc in ("none", "host") or config.ipc.startswith(_OTHER)):
        raise UsageError(f"--shm-size and --ipc {config.ipc} contradict each other", "the size is that of a /dev/shm of its own")


def _check_shared_network(config: ContainerConfig) -> None:
    """What belongs to whoever owns the network (Docker's own refusals)."""
    given = {
        "-p": config.ports,
        "--publish-all": config.publish_all,
        "--expose": config.expose,
        "--hostname": config.hostname,
        "--add-host": config.extra_hosts,
        "--dns": config.dns or config.dns_search or config.dns_options,
    }
    for option, value in given.items():
        if value:
            other = config.network.removeprefix(_OTHER)
            raise UsageError(f"{option} and --network {config.network} contradict each other", f"give {option} to {other!r}")


def _record(containers: str, container_id: str) -> dict[str, Any]:
    record = state.read(f"{containers}/{container_id}", "container.json")
    if record is None:
        raise StateError(f"container {container_id[:12]} was removed meanwhile", "ps -a lists those that are there")
    return record


def _user_of(containers: str, record: dict[str, Any]) -> str:
    """The id of the container that owns the user namespace of ``record``; "" is the host's."""
    spec = state.read(f"{containers}/{record['id']}", "config.json") or {}
    if not any(namespace["type"] == "user" for namespace in spec.get("linux", {}).get("namespaces", [])):
        return ""
    return str((record.get("joins") or {}).get("user") or record["id"])
