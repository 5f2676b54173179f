"""What this user may do with control groups: which part was given to him, with which controllers, and what is in the way.

An ordinary user makes groups only in a subtree that was delegated (cgroup-v2.rst, Delegation): systemd gives each its
``user@UID.service``, a container's start may give its whole cgroup namespace. But owning a subtree is not enough. A process may be moved
only within it: who moves it must be allowed to write to the nearest group above both places. A shell of an ssh session
(``session-2.scope``) lies beside ``user@1000.service``, not in it, so nothing of it can go there; asked through its manager, systemd
starts a process inside. :func:`way_in` is that command.
"""

from __future__ import annotations

import os
from typing import Any

from . import files, v2
from .layout import CONTROLLERS, Layout, layout

_LIMITS = ("memory", "cpu", "cpuset", "pids", "blkio", "devices")


class Delegation:
    """What was found, for doctor, the specification and the launcher; :meth:`facts` is the same as plain data.

    ``version``: "v1", "v2", "hybrid" or "none". ``folders``: controller -> the highest folder under which groups with it can be made.
    ``missing``: controller -> why not, one line. ``in_the_way``: processes in the v2 folder, which must move into a leaf before it
    passes controllers on (:func:`pycontainers.linux.cgroups.v2.make_room`, done at the first group). ``way_in``: the command to put
    before the launcher's so that more is delegated to it; empty where nothing more can be had like that.
    """

    __slots__ = ("folders", "in_the_way", "missing", "version", "way_in")

    def __init__(
        self, version: str, folders: dict[str, str], missing: dict[str, str], in_the_way: list[int], way_in: tuple[str, ...]
    ) -> None:
        self.version, self.folders, self.missing = version, folders, missing
        self.in_the_way, self.way_in = in_the_way, way_in

    @property
    def why(self) -> str:
        """Why no group can be made at all, "" when one can."""
        return "" if self.folders else next(iter(self.missing.values()), "no cgroup file system is mounted")

    def facts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*self.__slots__, "why")}


def delegation(where: Layout | None = None, uid: int | None = None) -> Delegation:
    """Look; nothing is made or moved. Which limits really work is found out by :func:`pycontainers.linux.cgroups.check`."""
    where = where or layout()
    folders: dict[str, str] = {}
    missing: dict[str, str] = {}
    in_the_way: list[int] = []
    for tree in where.trees:
        for name in tree.controllers:
            if name not in CONTROLLERS:
                continue
            if tree.why:
                missing[name] = tree.why
            elif tree.kind == "v2" and name not in v2.controllers(tree.base):
                missing[name] = f"{tree.base} was given no {name} controller ({_remedy(name)})"
            else:
                folders[name] = tree.base
        if tree.kind == "v2" and not tree.why and tree.base != tree.mountpoint:
            in_the_way = _processes(tree.base)
    for name in CONTROLLERS:
        if name not in folders:
            missing.setdefault(name, f"this machine has no {name} controller")
    complete = all(name in folders for name in _LIMITS[:5])
    return Delegation(where.version, folders, missing, in_the_way, () if complete else way_in(uid))


def _remedy(name: str) -> str:
    known = {"cpuset": "cpuset", "blkio": "io", "cpu": "cpu", "memory": "memory", "pids": "pids"}.get(name)
    return f"systemd: Delegate= of user@.service must name {known}" if known else "it comes with the kernel"


def _processes(folder: str) -> list[int]:
    try:
        return files.pids(folder)
    except OSError:
        return []


def way_in(uid: int | None = None) -> tuple[str, ...]:
    """systemd's command that starts another in a scope of the user's own, with its controllers delegated; () where there is no manager.

    The launcher outlives the session in which it was started only if lingering is enabled (``loginctl enable-linger``).
    """
    uid = os.geteuid() if uid is None else uid
    if uid == 0:
        return ()
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    has_manager = os.path.exists(f"{runtime}/systemd/private") or os.path.exists(f"{runtime}/bus")
    program = next((f"{place}/systemd-run" for place in ("/usr/bin", "/bin") if os.access(f"{place}/systemd-run", os.X_OK)), "")
    if not has_manager or not program:
        return ()
    return (program, "--user", "--scope", "--quiet", "--collect", "--property=Delegate=yes", "--")
