"""Words to ports and mounts: ``-p``, ``-v``, ``--mount``, ``--tmpfs``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from ..errors import UsageError
from ..linux.cgroups.limits import parse_size
from ..protocol import Mount, Port

_MAX_PORT = 65535
_LOOPBACK = "127.0.0.1"
Ports = Iterable[str | int | Port] | Mapping[int | str, int | str] | str | int | None
Volumes = Iterable[str | Mount] | Mapping[str, str] | str | None
_MOUNT_KEYS = {
    "type": "type",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "readonly": "readonly",
    "ro": "readonly",
    "tmpfs-size": "size",
    "tmpfs-mode": "mode",
    "bind-propagation": "propagation",
}


def port_list(ports: Ports) -> tuple[Port, ...]:
    """``["8080:80"]``, ``{8080: 80}`` (host port to container port), ``8080`` or Port objects."""
    if ports is None:
        return ()
    if isinstance(ports, str | int):
        ports = [ports]
    if isinstance(ports, Mapping):
        ports = [f"{host}:{container}" for host, container in ports.items()]
    found: list[Port] = []
    for port in ports:
        found += [port] if isinstance(port, Port) else parse_port(str(port))
    seen: set[tuple[str, int, str]] = set()
    for item in found:
        key = (item.host_ip, item.host_port, item.protocol)
        if item.host_port and key in seen:
            raise UsageError(f"host port {item.host_ip}:{item.host_port}/{item.protocol} is published twice", "give each its own host port")
        seen.add(key)
    return tuple(found)


def parse_port(text: str) -> list[Port]:
    """``[[ip:]hostport:]containerport[/proto]``; both may be ranges of one length; no host port means any free one.

    Without an address the port listens on loopback only (Docker: everywhere); ``0.0.0.0:8080:80`` opens it.
    """
    hint = "[[IP:]HOSTPORT:]CONTAINERPORT[/tcp|udp], for example 8080:80"
    spec, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if protocol not in ("tcp", "udp"):
        raise UsageError(f"port {text!r}: protocol {protocol!r} is neither tcp nor udp", hint)
    match = re.fullmatch(r"(?:(?:(?P<ip>\[[^\]]*\]|[^:]*):)?(?P<host>[\d-]*):)?(?P<container>[\d-]+)", spec)
    if match is None:
        raise UsageError(f"{text!r} is not a port", hint)
    address = (match["ip"] or _LOOPBACK).strip("[]")
    _check_address(address, text)
    inside = _port_range(match["container"], text)
    outside = _port_range(match["host"], text) if match["host"] else [0] * len(inside)
    if len(outside) != len(inside):
        raise UsageError(f"port {text!r}: {len(outside)} host ports for {len(inside)} container ports", "ranges must be of one length")
    return [Port(container, host, address, protocol) for container, host in zip(inside, outside, strict=True)]


def _check_address(address: str, text: str) -> None:
    import ipaddress  # 6 ms at import: only when ports are published

    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise UsageError(f"port {text!r}: {address!r} is not an IP address", "for example 0.0.0.0:8080:80") from None


def _port_range(text: str, whole: str) -> list[int]:
    first, dash, last = text.partition("-")
    if not first.isdigit() or (dash and not last.isdigit()):
        raise UsageError(f"{whole!r} is not a port", "for example 8080:80, or a range: 8000-8010:8000-8010")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= _MAX_PORT:
        raise UsageError(f"port {whole!r}: {text} is not within 1 to {_MAX_PORT}", "")
    return list(range(low, high + 1))


def volume_list(volumes: Volumes) -> tuple[Mount, ...]:
    """``["./data:/data:ro"]``, ``{"./data": "/data"}`` or Mount objects."""
    if volumes is None:
        return ()
    if isinstance(volumes, str):
        volumes = [volumes]
    if isinstance(volumes, Mapping):
        volumes = [f"{source}:{target}" for source, target in volumes.items()]
    return tuple(volume if isinstance(volume, Mount) else parse_volume(str(volume)) for volume in volumes)


def parse_volume(text: str) -> Mount:
    """``SRC:DST[:ro|rw]``. The source is absolute or starts with ``.`` or ``~``; a missing one is made, as Docker does."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    hint = "-v SOURCE:TARGET[:ro], for example -v ./data:/data"
    if not source or not target:
        raise UsageError(f"volume {text!r} has no {'source' if not source else 'target'}", hint)
    modes = set(filter(None, mode.split(",")))
    unknown = modes - {"ro", "rw", "z", "Z", "rprivate"}
    if unknown or {"ro", "rw"} <= modes:
        raise UsageError(f"volume {text!r}: unknown mode {mode!r}", "ro or rw")
    return Mount("bind", _target(target, text), host_path(source, text), read_only="ro" in modes, create=True)


def host_path(source: str, text: str) -> str:
    """An absolute path of this machine. :raises UsageError: a bare name, which means a named volume."""
    if "/" not in source and source not in (".", "..") and not source.startswith("~"):
        raise UsageError(f"{text!r}: {source!r} names a volume, and named volumes come later", f"use a path: ./{source}")
    return os.path.abspath(os.path.expanduser(source))


def _target(target: str, text: str) -> str:
    if not target.startswith("/"):
        raise UsageError(f"{text!r}: target {target!r} is not an absolute path", "write it from /, for example /data")
    path = os.path.normpath(target)
    if path in ("/", "//"):
        raise UsageError(f"{text!r}: the target cannot be /", "mount on a folder below /")
    return path


def parse_mount(value: str | Mount) -> Mount:
    """``type=bind,source=…,target=…[,readonly]`` or ``type=tmpfs,target=…[,tmpfs-size=64m][,tmpfs-mode=1777]``."""
    if isinstance(value, Mount):
        return value
    hint = "--mount type=bind,source=./data,target=/data[,readonly] or type=tmpfs,target=/tmp[,tmpfs-size=64m]"
    given: dict[str, str] = {}
    for item in value.split(","):
        key, equals, text = item.partition("=")
        if key not in _MOUNT_KEYS:
            raise UsageError(f"mount {value!r}: unknown key {key!r}", hint)
        given[_MOUNT_KEYS[key]] = text if equals else "true"
    kind = given.get("type", "volume")
    if "target" not in given:
        raise UsageError(f"mount {value!r} has no target", hint)
    target = _target(given["target"], value)
    read_only = given.get("readonly", "false").lower() in ("true", "1")
    if kind == "tmpfs":
        if "source" in given:
            raise UsageError(f"mount {value!r}: a tmpfs has no source", hint)
        return Mount("tmpfs", target, read_only=read_only, options=_tmpfs_options(given.get("size"), given.get("mode"), value))
    if kind != "bind":
        raise UsageError(f"mount {value!r}: type {kind!r} is neither bind nor tmpfs", "named volumes come later; use type=bind")
    if "source" not in given:
        raise UsageError(f"mount {value!r} has no source", hint)
    if "size" in given or "mode" in given:
        raise UsageError(f"mount {value!r}: tmpfs-size and tmpfs-mode belong to type=tmpfs", hint)
    if given.get("propagation", "rprivate") not in ("rprivate", "private"):
        raise UsageError(f"mount {value!r}: only bind-propagation=rprivate is supported", "leave it out")
    return Mount("bind", target, host_path(given["source"], value), read_only=read_only)


def _tmpfs_options(size: str | None, mode: str | None, text: str) -> tuple[str, ...]:
    options = []
    if size:
        options.append(f"size={parse_size(size)}")
    if mode:
        if not re.fullmatch("[0-7]{3,4}|0[0-7]{3,4}", mode):
            raise UsageError(f"{text!r}: mode {mode!r} is not octal", "for example 1777")
        options.append(f"mode={mode}")
    return tuple(options)


def tmpfs_list(tmpfs: Iterable[str] | Mapping[str, str] | None) -> tuple[Mount, ...]:
    """``--tmpfs /run[:size=64m,mode=1777,ro]``."""
    if isinstance(tmpfs, Mapping):
        tmpfs = [f"{target}:{options}" if options else target for target, options in tmpfs.items()]
    found = []
    for text in tmpfs or ():
        target, _, rest = text.partition(":")
        options: list[str] = []
        read_only = False
        for item in filter(None, rest.split(",")):
            key, _, value = item.partition("=")
            if key in ("ro", "rw"):
                read_only = key == "ro"
            elif key in ("size", "mode"):
                options += _tmpfs_options(value if key == "size" else None, value if key == "mode" else None, text)
            elif key not in ("nosuid", "nodev", "noexec"):
                raise UsageError(f"tmpfs {text!r}: unknown option {key!r}", "size=64m, mode=1777, ro")
        found.append(Mount("tmpfs", _target(target, text), read_only=read_only, options=tuple(options)))
    return tuple(found)
