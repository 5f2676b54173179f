"""Seccomp profiles in Docker's format, to the OCI ``linux.seccomp`` object that a container is started with.

Docker's format says for which architectures, capabilities and kernels a rule holds; the OCI object is what is left for one container.
The default profile, ``seccomp.json`` beside this file, is in that format as well: a copy of it is where one's own begins.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from ..errors import UsageError
from ..linux import seccomp

BUILTIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seccomp.json")

_ARCHES = {"x86_64": ("SCMP_ARCH_X86_64", "amd64"), "aarch64": ("SCMP_ARCH_AARCH64", "arm64")}  # uname -m -> OCI name, Go's name
_PASSED_ON = ("defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata")
_RULE = ("names", "action", "errnoRet", "args")


def resolve(value: str | None, capabilities: Sequence[str]) -> dict[str, Any] | None:
    """What ``--security-opt seccomp=VALUE`` means: ``unconfined`` (None), ``builtin`` (also for None), or the path of a profile.

    :param capabilities: the container's, by their full names. :raises UsageError: no profile there, or one that makes no sense.
    """
    if value == "unconfined":
        return None
    if value in (None, "", "builtin"):
        return default_profile(capabilities)
    assert value is not None
    return _convert(value, load(value), capabilities)


def default_profile(capabilities: Sequence[str]) -> dict[str, Any]:
    """The OCI object of the default profile, for a container with these capabilities on this machine. Shared: not to be changed."""
    return _default(tuple(capabilities))


@cache
def _default(capabilities: tuple[str, ...]) -> dict[str, Any]:
    """Most containers have the same capabilities, and reading the profile takes as long as writing a container's folder."""
    return from_docker(load(BUILTIN), capabilities, *_here())


def load(path: str) -> dict[str, Any]:
    """The JSON object in a file: Docker's format, or an OCI object as it is. :raises UsageError:"""
    try:
        with open(path, "rb") as file:
            profile = json.load(file)
    except OSError as error:
        raise UsageError(f"seccomp profile {path}: {error.strerror}", "give builtin, unconfined, or the path of a JSON file") from None
    except ValueError as error:
        raise UsageError(f"seccomp profile {path} is not JSON: {error}", "") from None
    if not isinstance(profile, dict):
        raise UsageError(f"seccomp profile {path}: not an object with a defaultAction", f"{BUILTIN} is an example")
    return profile


def from_docker(profile: dict[str, Any], capabilities: Collection[str], machine: str, kernel: str) -> dict[str, Any]:
    """The OCI object for a container with these capabilities, on this machine (uname -m) and kernel (uname -r).

    An OCI object comes out as it went in. :raises ValueError: what no profile of either kind may contain.
    """
    native, go_name = _ARCHES.get(machine, ("", machine))
    result = {key: profile[key] for key in _PASSED_ON if key in profile}
    if profile.get("archMap"):
        if profile.get("architectures"):
            raise ValueError("architectures and archMap exclude each other")
        found = [entry for entry in _objects(profile, "archMap") if entry.get("architecture") == native]
        result["architectures"] = [native, *(found[0].get("subArchitectures") or ())] if found else []
    _number(result, "defaultErrnoRet", profile.get("defaultErrno"))
    result["syscalls"] = [_rule(entry) for entry in _objects(profile, "syscalls") if _holds(entry, capabilities, go_name, _version(kernel))]
    return result


def _convert(path: str, profile: dict[str, Any], capabilities: Sequence[str]) -> dict[str, Any]:
    machine, kernel = _here()
    try:
        result = from_docker(profile, capabilities, machine, kernel)
        seccomp.check(result)  # now, not when the container starts
    except ValueError as error:
        raise UsageError(f"seccomp profile {path}: {error}", f"{BUILTIN} is an example") from None
    return result


def _here() -> tuple[str, str]:
    machine = os.uname()
    return machine.machine, machine.release


def _objects(holder: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = holder.get(key) or []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise ValueError(f"{key} is not a list of objects")
    return found


def _rule(entry: dict[str, Any]) -> dict[str, Any]:
    result = {key: entry[key] for key in _RULE if entry.get(key) is not None}
    if entry.get("name"):  # what the format had before there were lists of names
        if entry.get("names"):
            raise ValueError(f"{entry['name']}: name and names exclude each other")
        result["names"] = [entry["name"]]
    _number(result, "errnoRet", entry.get("errno"))
    return result


def _number(holder: dict[str, Any], key: str, name: Any) -> None:
    """Podman's way to give an error: by its name, which counts where both are given."""
    if name:
        number = getattr(errno, str(name), None)
        if not isinstance(number, int):
            raise ValueError(f"unknown error {name!r}")
        holder[key] = number


def _holds(entry: dict[str, Any], capabilities: Collection[str], machine: str, kernel: tuple[int, int]) -> bool:
    """Whether a rule is for this container: all capabilities and one of the architectures of ``includes``, none of ``excludes``."""
    includes, excludes = _filter(entry, "includes"), _filter(entry, "excludes")
    return not (
        (excludes["arches"] and machine in excludes["arches"])
        or any(capability in capabilities for capability in excludes["caps"])
        or (excludes["minKernel"] and kernel >= _version(excludes["minKernel"]))
        or (includes["arches"] and machine not in includes["arches"])
        or not all(capability in capabilities for capability in includes["caps"])
        or (includes["minKernel"] and kernel < _version(includes["minKernel"]))
    )


def _filter(entry: dict[str, Any], key: str) -> dict[str, Any]:
    found = entry.get(key) or {}
    if not isinstance(found, dict):
        raise ValueError(f"{key} is not an object")
    result = {"arches": found.get("arches") or [], "caps": found.get("caps") or [], "minKernel": found.get("minKernel") or ""}
    for name in ("arches", "caps"):
        if not isinstance(result[name], list):
            raise ValueError(f"{key}.{name} is not a list")
    return result


def _version(release: Any) -> tuple[int, int]:
    """(major, minor) of a kernel release."""
    parts = str(release).split("-")[0].split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        raise ValueError(f"kernel version {release!r} is not like 4.8") from None
