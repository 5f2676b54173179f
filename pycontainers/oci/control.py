"""pause, resume, update: what is done to a running container through its cgroup."""

from __future__ import annotations

import errno
import json
import sys
from typing import Any

from ..errors import StateError, UsageError
from ..linux.cgroups.limits import parse_size
from .messages import Messages
from .store import CREATED, PAUSED, RUNNING, Container

#: option -> (controller, field of linux.resources)
_FIELDS = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-idle": ("cpu", "idle"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-share": ("cpu", "shares"),
    "cpuset-cpus": ("cpu", "cpus"),
    "cpuset-mems": ("cpu", "mems"),
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "pids-limit": ("pids", "limit"),
}
_SIZES = ("memory", "memory-reservation", "memory-swap")


def pause(container: Container) -> None:
    """:raises StateError: it does not run, or is paused already."""
    with container.locked():
        status = container.status()
        if status not in (RUNNING, CREATED):
            raise StateError(f"container not running or created: {status}", f"{container.id} cannot be paused")
        _freezer(container, "freeze")


def resume(container: Container) -> None:
    """:raises StateError: it is not paused."""
    with container.locked():
        status = container.status()
        if status != PAUSED:
            raise StateError(f"container not paused: {container.id} is {status}", "pause it first")
        _freezer(container, "thaw")


def _freezer(container: Container, what: str) -> None:
    try:
        getattr(container.group, what)()
    except KeyError:
        raise StateError(f"container {container.id} has no freezer cgroup", "on v1 the freezer hierarchy has to be mounted") from None


def update(container: Container, options: dict[str, Any], messages: Messages) -> None:
    """Set the limits that are given; 0 and "" leave one as it is (runc). :raises LimitError: the kernel refuses one."""
    resources = _resources(options)
    with container.locked():
        if container.status() not in (RUNNING, CREATED, PAUSED):
            raise StateError(f"container not running: {container.id} is {container.status()}", "its cgroup is gone")
        for note in container.group.update(resources) or []:
            messages.write("warning", note)
        spec = container.spec()
        kept = spec["linux"].setdefault("resources", {})
        for controller, values in resources.items():
            if isinstance(values, dict):
                kept[controller] = (kept.get(controller) or {}) | values
            else:
                kept[controller] = values
        container.write_spec(spec)


def _resources(options: dict[str, Any]) -> dict[str, Any]:
    if options.get("resources"):
        name = options["resources"]
        try:
            if name == "-":
                found = json.load(sys.stdin)
            else:
                with open(name, encoding="utf-8") as file:
                    found = json.load(file)
        except (OSError, ValueError) as error:
            raise UsageError(f"--resources {name}: {error}", "a file with an OCI linux.resources object") from None
        return _without_unset(found)
    for name in ("l3-cache-schema", "mem-bw-schema"):
        if options.get(name):
            raise UsageError(f"--{name} {options[name]}: this machine has no resctrl", f"errno {errno.errorcode[errno.ENODEV]}")
    resources: dict[str, Any] = {}
    for option, (controller, field) in _FIELDS.items():
        if option in options:
            resources.setdefault(controller, {})[field] = _value(option, options[option])
    return _without_unset(resources)


def _value(option: str, text: str) -> int | str:
    if option.startswith("cpuset"):
        return text
    if option in _SIZES:
        return parse_size(text, f"--{option}")
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--{option} {text!r} is not a number") from None


def _without_unset(resources: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for controller, values in resources.items():
        kept = {key: value for key, value in values.items() if value not in (0, "", None)} if isinstance(values, dict) else values
        if kept:
            result[controller] = kept
    return result
