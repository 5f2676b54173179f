"""Making a container's group in every hierarchy of this machine, all or nothing; and trying out what works here."""

from __future__ import annotations

import errno
import os
import time
from typing import Any

from . import files, v1, v2
from .group import Group, limit_error, rmdir
from .layout import CONTROLLERS, Layout, Tree, layout


def create(path: str, resources: dict[str, Any], where: Layout | None = None, named: bool = False) -> Group:
    """Make the group in every hierarchy and set its limits. On any error everything that was made is removed again.

    Where this machine lets nobody make groups and no limit is asked for, the group has no ``paths`` and does nothing: the container
    runs uncontrolled and unmeasured, and ``missing`` says why.

    :param resources: the OCI runtime specification's ``linux.resources``.
    :param named: also where nothing is controlled, in systemd's own hierarchy (``name=systemd``) and the v2 tree of a hybrid machine:
        an init system inside needs it.
    :raises LimitError: a limit cannot be set; the reason and errno are in the message.
    :raises IsolationError: the kernel refused to make the group. :raises StateError: a group of that path has processes.
    """
    where = where or layout()
    parts = path.strip("/").split("/")
    if not path.startswith("/") or not all(parts) or ".." in parts or "." in parts:
        raise ValueError(f"{path!r} is not an absolute cgroup path")
    needed = _needed(resources)
    if not where.writable:
        asked = [row for row in v2.settings(resources, {}) if row.asked]
        if asked:
            raise limit_error(asked[0], where.why)
        return Group(path, Layout("none", []), dict.fromkeys(CONTROLLERS, where.why))
    made: list[str] = []
    missing = where.missing
    try:
        for tree in where.trees:
            told = named and (tree.kind == "v2" or "name=systemd" in tree.controllers)
            wanted = not tree.optional or needed.intersection(tree.controllers) or told
            if wanted and not tree.why:
                missing |= _make(tree, path, needed)
                made.append(tree.base + path)
        group = Group(path, where, missing)
        group.notes = group.update(resources, fresh=True)
    except BaseException:
        for folder in made:
            rmdir(folder, time.monotonic() + 1.0)
        raise
    return group


def _needed(resources: dict[str, Any]) -> set[str]:
    """The optional controllers a limit of which is asked for."""
    keys = {"hugepageLimits": ("hugetlb",), "rdma": ("rdma",), "network": ("net_cls", "net_prio")}
    named = {name.partition(".")[0] for name in resources.get("unified") or ()}
    return named | {controller for key, controllers in keys.items() if resources.get(key) for controller in controllers}


def _make(tree: Tree, path: str, needed: set[str]) -> dict[str, str]:
    from ...errors import IsolationError

    make = v1.make if tree.kind == "v1" else v2.make
    try:
        try:
            return make(tree, path, needed)
        except FileExistsError:
            # What a killed supervisor left: an old group would go on with its old limits and counters, so it must be a new one.
            _replace(tree.base + path)
            return make(tree, path, needed)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "?")
        raise IsolationError(
            f"cgroup {error.filename or tree.base + path} cannot be made: {error.strerror} ({name})",
            "`pycontainers doctor` shows what this machine allows",
        ) from None


def _replace(folder: str) -> None:
    from ...errors import StateError

    left = [pid for each in files.below(folder) for pid in files.pids(each)]
    if left:
        raise StateError(f"cgroup {folder} is in use by process {left[0]}", "stop it first")
    for each in files.below(folder):
        rmdir(each, time.monotonic() + 1.0)


def open(path: str, where: Layout | None = None) -> Group:
    """The group as far as it exists; without ``paths`` when it does not."""
    return Group(path, where or layout())


_CHECKS: dict[str, dict[str, Any]] = {
    "memory": {"memory": {"limit": 64 << 20}},
    "swap": {"memory": {"limit": 64 << 20, "swap": 96 << 20}},
    "memory reservation": {"memory": {"reservation": 32 << 20}},
    "cpus": {"cpu": {"quota": 50000, "period": 100000}},
    "cpu shares": {"cpu": {"shares": 512}},
    "cpuset": {"cpu": {"cpus": "0"}},
    "pids": {"pids": {"limit": 64}},
    "cpu burst": {"cpu": {"quota": 50000, "period": 100000, "burst": 10000}},
    "devices": {"devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}]},
    "block I/O weight": {"blockIO": {"weight": 500}},
}


def check(where: Layout | None = None) -> list[tuple[str, bool, str]]:
    """(limit, works, why not) for each: one group is made, each limit is really set in it, and it is removed."""
    from ...errors import ContainersError

    where = where or layout()
    if not where.writable:
        return [(name, False, where.why) for name in _CHECKS]
    try:
        group = create(f"/pycontainers-check-{os.getpid()}", {}, where)
    except ContainersError as error:
        return [(name, False, error.message) for name in _CHECKS]
    found = []
    try:
        for name, resources in _CHECKS.items():
            try:
                notes = group.update(resources)
                found.append((name, not notes, "; ".join(notes)))
            except ContainersError as error:
                found.append((name, False, error.message.partition(": ")[2] or error.message))
    finally:
        group.remove()
    return found
