"""Put right what a killed process left: run at the start of every command that looks at containers.

A supervisor that was killed took its container with it (the first process has SIGKILL as its parent-death signal); what may
stay is the cgroup, an address lease, its control socket, a state file that says "running". Should the container have
escaped that signal (it can clear it), it is ended here, by its cgroup: it has lost its log and nobody reads its exit.
"""

from __future__ import annotations

import os
import time
from typing import Any

from ..errors import NotFound
from ..linux import cgroups, locks, process, trees
from . import network, state
from .places import Places

_NEW = ".new-"
_GONE = ".gone-"
_DAY = 86400.0


def sweep(containers: str) -> list[str]:
    """Recover every container whose supervisor is dead; returns their ids. Costs a question about its lock for a container that
    lives or was never started, and one small read for one that has ended."""
    found = []
    try:
        entries = os.listdir(containers)
    except FileNotFoundError:
        return []
    for name in entries:
        if name.startswith(_GONE):
            trees.remove(f"{containers}/{name}")
        elif name.startswith(_NEW):
            _drop_half_made(containers, name)
        elif len(name) == 64:
            folder = f"{containers}/{name}"
            if not _is_held(folder) and _needs_recovery(folder) and _recovered(containers, name):
                found.append(name)
    return found


def _is_held(folder: str) -> bool:
    """Whether somebody looks after this container, or nobody has ever begun to start it: then there is nothing to put right. One whose lock
    nobody can be asked about has its ``state.json`` read."""
    try:
        return locks.held(f"{folder}/lock")
    except FileNotFoundError:
        return True
    except OSError:
        return False


def new_folder_name(container_id: str) -> str:
    """Where a container is put together: carries who makes it, so that a sweep knows whether he still works."""
    me = process.identity(os.getpid())
    return f"{_NEW}{container_id}-{me['pid']}-{me['start']}-{_place(me)}"


def _place(identity: dict[str, Any]) -> str:
    """Boot and pid namespace, short: a home may be shared between machines, where the same pid is somebody else's."""
    return f"{identity['boot'].replace('-', '')[:12]}.{identity['pidns'].strip('pid:[]')}"


def _drop_half_made(containers: str, name: str) -> None:
    parts = name.removeprefix(_NEW).split("-")
    if len(parts) != 4:
        return  # not made by us
    _, pid, start, place = parts
    if place != _place(process.identity(os.getpid())):
        # Made on another machine, or before this one was booted: nobody here can say whether he still works, but nobody works for a day.
        try:
            if time.time() - os.stat(f"{containers}/{name}").st_mtime < _DAY:
                return
        except FileNotFoundError:
            return
    else:
        try:
            if process.start_time(int(pid)) == int(start):
                return
        except (ProcessLookupError, ValueError):
            pass
    trees.remove(f"{containers}/{name}")
    container_id = name.removeprefix(_NEW)[:64]
    for claimed in os.listdir(f"{containers}/names") if os.path.isdir(f"{containers}/names") else []:
        state.release_name(containers, claimed, container_id)


def _needs_recovery(folder: str) -> bool:
    now = state.read(folder, "state.json")
    return now is not None and now["status"] in state.ACTIVE and not state.lives(now)


def _recovered(containers: str, container_id: str) -> bool:
    try:
        return recover(containers, container_id)
    except (OSError, NotFound):  # removed meanwhile; or a read-only disk, which is no reason to show nothing
        return False


def recover(containers: str, container_id: str) -> bool:
    """End what is left of one container, mark its exit as unknown. False when somebody else is at it."""
    folder = f"{containers}/{container_id}"
    lock = state.lock(folder)
    if lock is None:
        return False
    try:
        return put_right(containers, container_id)
    finally:
        os.close(lock)


def put_right(containers: str, container_id: str) -> bool:
    """:func:`recover` for who holds the container's lock: then no supervisor lives, whatever its ``state.json`` says."""
    folder = f"{containers}/{container_id}"
    now = state.read(folder, "state.json")
    if now is None or now["status"] == state.EXITED:
        return False
    record: dict[str, Any] = state.read(folder, "container.json") or {}
    _end_cgroup(folder)
    _free(containers, container_id, now, record)
    ended = {"status": state.EXITED, "machine": now.get("machine"), "address": "", "started": now.get("started", 0.0)}
    why = "its supervisor was killed: the container was ended, its exit code is unknown"
    unknown = state.exit_record(None, error=why, started=ended["started"])
    state.write_end(folder, ended, None if state.read(folder, "exit.json") else unknown)
    if record.get("auto_remove"):
        state.remove_folder(containers, container_id, record.get("name", ""))
    return True


def _free(containers: str, container_id: str, now: dict[str, Any], record: dict[str, Any]) -> None:
    """What it had outside of itself: the socket at which its supervisor could be asked, and its address."""
    try:
        os.unlink(now.get("control") or "")
    except OSError:
        pass
    if record.get("network") == "bridge":
        network.detach(Places(os.path.dirname(containers), ""), container_id, now.get("address") or "")


def _end_cgroup(folder: str) -> None:
    spec = state.read(folder, "config.json")
    if spec is None:
        return
    try:
        group = cgroups.open(spec["linux"]["cgroupsPath"])
        group.kill()
        group.remove()
    except OSError:
        pass  # it was never made, or is gone already
