"""Words to ports and mounts: ``-p``, ``--expose``, ``-v``, ``--mount``, ``--tmpfs``."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping

from ..errors import UsageError
from ..linux.cgroups.limits import parse_size
from ..protocol import Mount, Port
from .settings import check_address

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
    "bind-recursive": "recursive",
    "bind-nonrecursive": "nonrecursive",
    "consistency": "consistency",
}
_OF_TMPFS, _OF_BIND = ("size", "mode"), ("propagation", "recursive", "nonrecursive")
_PROPAGATION = ("rprivate", "private", "rshared", "shared", "rslave", "slave")
#: Docker's own words that ask for nothing here: how caches of a virtual machine's file system behave
_CONSISTENCY = ("consistent", "cached", "delegated", "default")
#: SELinux labels of the source: nothing to do where SELinux is not enabled, and refused by the engine where it is
_RELABEL = ("z", "Z")
_RECURSIVE = {"enabled": (), "disabled": ("bind",), "writable": ("writable",), "readonly": ()}
_TMPFS_WORDS = (
    "ro rw exec noexec suid nosuid dev nodev sync async dirsync atime noatime diratime nodiratime relatime norelatime strictatime "
    "nostrictatime"
).split()
_TMPFS_VALUES = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol")


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
    check_address(address, f"port {text!r}", "for example 0.0.0.0:8080:80")
    inside = _port_range(match["container"], text)
    outside = _port_range(match["host"], text) if match["host"] else [0] * len(inside)
    if len(outside) != len(inside):
        raise UsageError(f"port {text!r}: {len(outside)} host ports for {len(inside)} container ports", "ranges must be of one length")
    return [Port(container, host, address, protocol) for container, host in zip(inside, outside, strict=True)]


def _port_range(text: str, whole: str) -> list[int]:
    first, dash, last = text.partition("-")
    if not first.isdigit() or (dash and not last.isdigit()):
        raise UsageError(f"{whole!r} is not a port", "for example 8080:80, or a range: 8000-8010:8000-8010")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= _MAX_PORT:
        raise UsageError(f"port {whole!r}: {text} is not within 1 to {_MAX_PORT}", "")
    return list(range(low, high + 1))


def exposed_list(values: Iterable[str | int] | str | int | None) -> tuple[str, ...]:
    """``--expose 80[/udp]``, or a range, as ``80/tcp`` each. :raises UsageError:"""
    found: list[str] = []
    for value in [values] if isinstance(values, str | int) else values or ():
        ports, _, protocol = str(value).partition("/")
        if (protocol or "tcp") not in ("tcp", "udp"):
            raise UsageError(f"--expose {value!r}: protocol {protocol!r} is neither tcp nor udp", "for example --expose 8080/tcp")
        found += [f"{port}/{protocol or 'tcp'}" for port in _port_range(ports, str(value))]
    return tuple(dict.fromkeys(found))


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
    """``SRC:DST[:MODE,…]``: ro or rw, a propagation (rslave), z, Z. The source is absolute or starts with ``.`` or ``~``; a missing one
    is made, as Docker does.
    """
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    hint = "-v SOURCE:TARGET[:ro], for example -v ./data:/data"
    if not source or not target:
        raise UsageError(f"volume {text!r} has no {'source' if not source else 'target'}", hint)
    modes = list(filter(None, mode.split(",")))
    unknown = [word for word in modes if word not in ("ro", "rw", *_PROPAGATION, *_CONSISTENCY, *_RELABEL)]
    clashing = [kind for kind in (("ro", "rw"), _PROPAGATION, _RELABEL) if len(set(kind) & set(modes)) > 1]
    if unknown or clashing:
        what = f"unknown mode {unknown[0]!r}" if unknown else f"mode {mode!r} contradicts itself"
        raise UsageError(f"volume {text!r}: {what}", "ro, rw, z, Z, rslave, rshared or rprivate")
    words = tuple(word for word in modes if word in (*_PROPAGATION, *_RELABEL) and word != "rprivate")
    return Mount("bind", _target(target, text), host_path(source, text), read_only="ro" in modes, create=True, options=words)


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
    """``type=bind,source=…,target=…[,readonly][,bind-propagation=rslave][,bind-recursive=disabled]`` or
    ``type=tmpfs,target=…[,tmpfs-size=64m][,tmpfs-mode=1777]``. A part with a comma in it is put in quotes (CSV), as Docker reads it.
    """
    if isinstance(value, Mount):
        return value
    hint = "--mount type=bind,source=./data,target=/data[,readonly] or type=tmpfs,target=/tmp[,tmpfs-size=64m]"
    given: dict[str, str] = {}
    for item in next(csv.reader([value]), []):
        key, equals, text = item.partition("=")
        if key.startswith("volume-"):
            raise UsageError(f"mount {value!r}: {key} is for named volumes, which come later", "use type=bind")
        if key not in _MOUNT_KEYS:
            raise UsageError(f"mount {value!r}: unknown key {key!r}", hint)
        given[_MOUNT_KEYS[key]] = text if equals else "true"
    kind = given.get("type", "volume")
    if kind not in ("bind", "tmpfs"):
        raise UsageError(f"mount {value!r}: type {kind!r} is neither bind nor tmpfs", "named volumes come later; use type=bind")
    if not given.get("target"):
        raise UsageError(f"mount {value!r} has no target", hint)
    foreign = [key for key, name in _MOUNT_KEYS.items() if name in given and name in (_OF_BIND if kind == "tmpfs" else _OF_TMPFS)]
    if foreign:
        raise UsageError(f"mount {value!r}: {foreign[0]} does not belong to type={kind}", hint)
    target = _target(given["target"], value)
    read_only = _flag(given.get("readonly", "false"), value)
    if kind == "tmpfs":
        if "source" in given:
            raise UsageError(f"mount {value!r}: a tmpfs has no source", hint)
        return Mount("tmpfs", target, read_only=read_only, options=_tmpfs_options(given.get("size"), given.get("mode"), value))
    if not given.get("source"):
        raise UsageError(f"mount {value!r} has no source", hint)
    return Mount("bind", target, host_path(given["source"], value), read_only=read_only, options=_bind_options(given, read_only, value))


def _flag(text: str, whole: str) -> bool:
    if text.lower() not in ("true", "1", "false", "0"):
        raise UsageError(f"mount {whole!r}: {text!r} is neither true nor false", "for example readonly=true")
    return text.lower() in ("true", "1")


def _bind_options(given: Mapping[str, str], read_only: bool, text: str) -> tuple[str, ...]:
    propagation = given.get("propagation", "rprivate")
    recursive = "disabled" if _flag(given.get("nonrecursive", "false"), text) else given.get("recursive", "enabled")
    if propagation not in _PROPAGATION:
        raise UsageError(f"mount {text!r}: unknown bind-propagation {propagation!r}", f"one of {', '.join(_PROPAGATION)}")
    if recursive not in _RECURSIVE:
        raise UsageError(f"mount {text!r}: unknown bind-recursive {recursive!r}", f"one of {', '.join(_RECURSIVE)}")
    if recursive in ("writable", "readonly") and not read_only:
        raise UsageError(f"mount {text!r}: bind-recursive={recursive} says how readonly is meant", "add readonly")
    if recursive == "readonly" and propagation != "rprivate":
        raise UsageError(f"mount {text!r}: bind-recursive=readonly needs bind-propagation=rprivate", "what is mounted later is not frozen")
    return (*_RECURSIVE[recursive], *([propagation] if propagation != "rprivate" else []))


def _tmpfs_options(size: str | None, mode: str | None, text: str) -> tuple[str, ...]:
    options = []
    if size:
        options.append(f"size={parse_size(size)}")
    if mode:
        if not re.fullmatch("[0-7]{3,4}|0[0-7]{3,4}", mode):
            raise UsageError(f"{text!r}: mode {mode!r} is not octal", "for example 1777")
        options.append(f"mode={mode}")
    return tuple(options)


def tmpfs_list(tmpfs: Iterable[str] | Mapping[str, str] | str | None) -> tuple[Mount, ...]:
    """``--tmpfs /run[:size=64m,mode=1777,exec]``; noexec, nosuid and nodev unless their opposites are given."""
    if isinstance(tmpfs, Mapping):
        tmpfs = [f"{target}:{options}" if options else target for target, options in tmpfs.items()]
    found = []
    for text in [tmpfs] if isinstance(tmpfs, str) else tmpfs or ():
        target, _, rest = text.partition(":")
        options: list[str] = []
        read_only = False
        for item in filter(None, rest.split(",")):
            key, equals, value = item.partition("=")
            if item in ("ro", "rw"):
                read_only = key == "ro"
            elif key in ("size", "mode") and not value.endswith("%"):
                options += _tmpfs_options(value if key == "size" else None, value if key == "mode" else None, text)
            elif item in _TMPFS_WORDS or (key in _TMPFS_VALUES and equals and value):
                options.append(item)
            else:
                raise UsageError(f"tmpfs {text!r}: unknown option {item!r}", "size=64m, mode=1777, exec, ro")
        found.append(Mount("tmpfs", _target(target, text), read_only=read_only, options=tuple(options)))
    return tuple(found)
