"""Where this machine's controllers are: v1, v2 or hybrid, from /proc/self/mountinfo (proc(5)) and /proc/self/cgroup (cgroups(7))."""

from __future__ import annotations

import os

from ..idmap import outer_uid

#: Controllers that limits and metrics use, by their v1 names (v2's io is blkio).
CONTROLLERS = ("memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "freezer", "devices")
#: Hierarchies in which a container gets a group only where it asks for one: a limit of theirs, or (systemd's named one and the v2 tree of a
#: hybrid machine, which control nothing) an init system inside that needs it. Every group more is time at each start and end.
OPTIONAL = ("hugetlb", "net_cls", "net_prio", "rdma", "name=systemd")
_FROM_V2 = {"io": "blkio"}


class Tree:
    """One mounted hierarchy.

    ``kind``: "v1" or "v2". ``controllers``: those that live in it. ``base``: the folder under which our groups are made: the mount point,
    or deeper where only a part was delegated to this user. ``why``: why no group can be made there, "" when it can.
    ``optional``: it has none of :data:`CONTROLLERS`.
    """

    __slots__ = ("base", "controllers", "kind", "mountpoint", "optional", "why")

    def __init__(self, kind: str, mountpoint: str, controllers: tuple[str, ...], base: str, why: str) -> None:
        self.kind, self.mountpoint, self.controllers, self.base, self.why = kind, mountpoint, controllers, base, why
        self.optional = not any(name in CONTROLLERS for name in controllers)


class Layout:
    """``version``: "v1", "v2", "hybrid" (v1 controllers beside a v2 tree) or "none". ``trees``: every hierarchy that is used.

    ``controllers``: name -> mount point of its hierarchy, without optional ones. CPU time and the freezer belong to the core of v2 and
    are always there (cgroup-v2, Core Interface Files). ``writable``, ``why``: whether groups can be made anywhere, and why not. An
    administrator may delegate some hierarchies of v1 and not others: each tree says its own ``why``.
    """

    __slots__ = ("controllers", "trees", "version", "why", "writable")

    def __init__(self, version: str, trees: list[Tree]) -> None:
        self.version, self.trees = version, trees
        used = [tree for tree in trees if not tree.optional]
        self.controllers = {name: tree.mountpoint for tree in used for name in tree.controllers}
        self.writable = any(not tree.why for tree in used)
        self.why = "" if self.writable else next((tree.why for tree in used), "no cgroup file system is mounted")

    @property
    def missing(self) -> dict[str, str]:
        """controller -> why nobody can make a group with it here."""
        return {name: tree.why for tree in self.trees if tree.why for name in tree.controllers if name in CONTROLLERS}


class _Mount:
    __slots__ = ("controllers", "kind", "place", "read_only", "root")

    def __init__(self, kind: str, place: str, root: str, read_only: bool, controllers: tuple[str, ...]) -> None:
        self.kind, self.place, self.root, self.read_only, self.controllers = kind, place, root, read_only, controllers


def parse(mountinfo: str, own: str = "", root: str = "") -> Layout:
    """The layout that the two texts describe.

    :param mountinfo: /proc/self/mountinfo; ``own``: /proc/self/cgroup, for the part that belongs to this process.
    :param root: where files are looked for instead of "/" (tests run on folders).
    """
    mounts: dict[tuple[str, ...], _Mount] = {}
    for line in mountinfo.splitlines():
        mount = _mount(line)
        # The same hierarchy may be mounted twice (a read-only view inside a sandbox): the first that can be written counts.
        if mount and (mount.controllers not in mounts or (mounts[mount.controllers].read_only and not mount.read_only)):
            mounts[mount.controllers] = mount
    trees = []
    places = _own(own)
    taken: set[str] = set()
    for mount in sorted(mounts.values(), key=lambda mount: mount.kind):  # v1 first: a controller is in one hierarchy only
        place = root + mount.place
        names = mount.controllers if mount.kind == "v1" else _v2_controllers(place, taken)
        if mount.kind == "v1" and not names:
            continue  # a controller that we do not use
        taken.update(names)
        base, why = _base(mount, place, places)
        if mount.kind == "v2" and why and not (set(names) - {"cpuacct", "freezer", "devices", *OPTIONAL}):
            continue  # hybrid: the v2 tree controls nothing here and can be done without
        trees.append(Tree(mount.kind, place, names, base, why))
    kinds = {tree.kind for tree in trees if not tree.optional}
    has_v2 = any(mount.kind == "v2" for mount in mounts.values())
    version = "none" if not kinds else ("hybrid" if has_v2 else "v1") if "v1" in kinds else "v2"
    return Layout(version, trees)


def _mount(line: str) -> _Mount | None:
    """One line of mountinfo: ``36 35 0:30 ROOT PLACE OPTIONS [tags] - TYPE SOURCE SUPER_OPTIONS``."""
    before, _, after = line.partition(" - ")
    fields, rest = before.split(), after.split()
    if len(fields) < 6 or len(rest) < 3 or rest[0] not in ("cgroup", "cgroup2"):
        return None
    options = rest[2].split(",")
    read_only = "ro" in fields[5].split(",") or "ro" in options
    controllers = tuple(name for name in options if name in CONTROLLERS or name in OPTIONAL)
    if rest[0] == "cgroup2":
        return _Mount("v2", _unescape(fields[4]), _unescape(fields[3]), read_only, ("cgroup2",))
    return _Mount("v1", _unescape(fields[4]), _unescape(fields[3]), read_only, controllers)


def _unescape(text: str) -> str:
    """Space, tab, newline and backslash are written as three octal digits (proc(5))."""
    first, *rest = text.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] if part[:3].isdigit() else "\\" + part for part in rest)


def _own(text: str) -> dict[str, str]:
    """controller -> path of this process's group, "cgroup2" for v2's (lines ``4:memory:/path`` and ``0::/path``)."""
    found = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        for name in names.split(",") if names else ["cgroup2"] if number == "0" else []:
            found[name] = path
    return found


def _v2_controllers(place: str, taken: set[str]) -> tuple[str, ...]:
    try:
        with open(f"{place}/cgroup.controllers", encoding="utf-8") as file:
            names = file.read().split()
    except OSError:
        names = []
    found = [_FROM_V2.get(name, name) for name in names]
    return tuple(name for name in [*found, "cpuacct", "freezer", "devices"] if name in (*CONTROLLERS, *OPTIONAL) and name not in taken)


def _base(mount: _Mount, place: str, own: dict[str, str]) -> tuple[str, str]:
    """(where groups can be made, "") or (``place``, why not).

    Without root, systemd delegates a subtree (user@1000.service) to its user: the highest group above this process that it may write.
    A group outside of that subtree could be made perhaps, but no process moved into it: the common ancestor must be writable too
    (cgroup-v2, Delegation Containment).
    """
    if mount.read_only:
        return place, f"{mount.place} is mounted read-only"
    if _may_write(mount, place):
        return place, ""
    path = own.get(mount.controllers[0], "/")
    if mount.root not in ("", "/") and (path + "/").startswith(mount.root + "/"):
        path = path[len(mount.root) :]  # the mount shows only this part of the hierarchy
    current = place
    for part in path.strip("/").split("/"):
        current = f"{current}/{part}"
        if part and part != ".." and _may_write(mount, current):
            return current, ""
    uid = os.geteuid() or outer_uid()  # root of an ordinary user's namespace is that user
    return place, f"{mount.place} is not writable for uid {uid}, and no part of it was delegated to it"


def _may_write(mount: _Mount, folder: str) -> bool:
    names = ("", "/cgroup.procs", "/cgroup.subtree_control") if mount.kind == "v2" else ("", "/cgroup.procs", "/tasks")
    return all(os.access(folder + name, os.W_OK) for name in names)


_KEPT: list[Layout] = []


def layout() -> Layout:
    """This machine's layout, read once a process."""
    if not _KEPT:
        texts = []
        for name in ("mountinfo", "cgroup"):
            with open(f"/proc/self/{name}", encoding="utf-8", errors="surrogateescape") as file:
                texts.append(file.read())
        _KEPT.append(parse(*texts))
    return _KEPT[0]
