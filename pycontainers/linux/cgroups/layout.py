"""Where this machine's controllers are: v1, v2 or hybrid, from /proc/self/mountinfo (proc(5)) and /proc/self/cgroup (cgroups(7))."""

from __future__ import annotations

import os

#: Controllers that limits and metrics use.
CONTROLLERS = ("memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "freezer", "devices")
_V2_ALIASES = {"io": "blkio"}


class Layout:
    """``version``: "v1", "v2", "hybrid" (v1 controllers beside an empty v2 tree) or "none".

    ``controllers``: name -> mount point of its hierarchy (v2 names are given as v1's: io is blkio, cpuacct and freezer are always there).
    ``unified``: mount point of the v2 tree or "". ``writable``, ``why``: whether groups can be made, and why not.
    """

    __slots__ = ("controllers", "unified", "version", "why", "writable")

    def __init__(self, version: str, controllers: dict[str, str], unified: str, writable: bool, why: str) -> None:
        self.version, self.controllers, self.unified, self.writable, self.why = version, controllers, unified, writable, why


def parse(mountinfo: str, root: str = "") -> Layout:
    """The layout that a mountinfo text describes; files are looked for below ``root`` (tests)."""
    unified, read_only = "", []
    controllers: dict[str, str] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) < 6 or len(rest) < 2 or rest[0] not in ("cgroup", "cgroup2"):
            continue
        place = root + fields[4].encode().decode("unicode_escape")  # spaces are written \\040
        if rest[0] == "cgroup2":
            unified = unified or place
        else:
            options = rest[2].split(",") if len(rest) > 2 else []
            for controller in options:
                if controller in CONTROLLERS:
                    controllers.setdefault(controller, place)
        if "ro" in fields[5].split(","):
            read_only.append(place)
    if controllers:
        version = "hybrid" if unified else "v1"
    elif unified:
        version, controllers = "v2", _v2_controllers(unified)
    else:
        return Layout("none", {}, "", False, "no cgroup file system is mounted")
    places = sorted({*controllers.values(), *([unified] if version == "v2" else [])})
    frozen = [place for place in places if place in read_only]
    closed = [place for place in places if not os.access(place, os.W_OK)]
    why = f"{frozen[0]} is mounted read-only" if frozen else f"{closed[0]} is not writable" if closed else ""
    return Layout(version, controllers, unified, not why, why)


def _v2_controllers(unified: str) -> dict[str, str]:
    try:
        with open(f"{unified}/cgroup.controllers", encoding="ascii") as file:
            names = file.read().split()
    except OSError:
        names = []
    found = {_V2_ALIASES.get(name, name): unified for name in names if _V2_ALIASES.get(name, name) in CONTROLLERS}
    # CPU time (cpu.stat) and the freezer belong to the core of v2 and need no controller (cgroup-v2, Core Interface Files).
    return found | {"cpuacct": unified, "freezer": unified}


_KEPT: list[Layout] = []


def layout() -> Layout:
    """This machine's layout, read once a process."""
    if not _KEPT:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            _KEPT.append(parse(file.read()))
    return _KEPT[0]
