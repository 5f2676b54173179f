"""A container's folder: the truth about it. Every write is temp file → rename; one lock per container.

``state.json`` is missing until the first start: replacing a file costs a millisecond on ext4, which starts to write the new one out
(auto_da_alloc, ext4(5)).

``lock`` in the folder is held (:mod:`..linux.locks`) by the supervisor for its whole life, by ``recover`` while it puts right what a killed
supervisor left, and by ``remove``. Nothing here is fsynced: after a power cut a folder that cannot be read is swept, its
container was gone anyway.
"""

from __future__ import annotations

import functools
import json
import os
import time
from typing import Any

from ..errors import NameInUse, NotFound, StateError
from ..linux import files, locks, process, trees
from .marks import mark

CREATED, STARTING, RUNNING, PAUSED, RESTARTING, EXITED = "created", "starting", "running", "paused", "restarting", "exited"
ACTIVE = (STARTING, RUNNING, PAUSED, RESTARTING)
"""While it is in one of these, a supervisor has it."""


def exit_record(
    code: int | None,
    signal: int = 0,
    oom_killed: bool = False,
    *,
    error: str = "",
    hint: str = "",
    started: float = 0.0,
    finished: float = 0.0,
    memory_peak: int = 0,
) -> dict[str, Any]:
    """``exit.json``: the fields of :class:`pycontainers.protocol.ExitStatus`. A ``code`` of None: nobody could read it."""
    return {
        "code": code,
        "signal": signal,
        "oom_killed": oom_killed,
        "error": error,
        "hint": hint,
        "started": started,
        "finished": finished or time.time(),
        "memory_peak": memory_peak,
    }


def write(folder: str, name: str, data: dict[str, Any]) -> None:
    """Replace ``folder/name`` by ``data`` as JSON; readers see the old or the new file, never a half one."""
    files.replace(f"{folder}/{name}", json.dumps(data, separators=(",", ":")).encode(), fleeting=name == "state.json")


def write_end(folder: str, now: dict[str, Any], record: dict[str, Any] | None) -> None:
    """``exit.json`` and ``state.json`` of an end. On a full disk both go into the blocks that ``state.json`` has already.

    :param record: the exit record, None where ``exit.json`` is written.
    """
    try:
        if record is not None:
            write(folder, "exit.json", record)
            record = None
        write(folder, "state.json", now)
    except OSError:
        _overwrite(f"{folder}/state.json", {**now, "exit": record} if record is not None else now)


def _overwrite(path: str, data: dict[str, Any]) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return  # read-only, or never written: whoever comes next sees that the supervisor is gone
    try:
        text = json.dumps(data, separators=(",", ":")).encode()
        os.write(fd, text.ljust(os.fstat(fd).st_size))  # spaces over the rest of what was there: at no moment it is cut
    except OSError:
        pass
    finally:
        os.close(fd)


def ending(folder: str) -> dict[str, Any] | None:
    """The exit record of its last end, None where there is none (yet)."""
    found = read(folder, "exit.json") or (read(folder, "state.json") or {}).get("exit")
    return found if isinstance(found, dict) else None


def add_made(folder: str, points: list[str]) -> None:
    """Note mount points that the image lacked. A later start finds those of an earlier one, and does not report them again."""
    known = (read(folder, "made.json") or {}).get("made", [])
    if new := [point for point in points if point not in known]:
        write(folder, "made.json", {"made": [*known, *new]})


def read(folder: str, name: str) -> dict[str, Any] | None:
    """The JSON object in ``folder/name``; None when it is missing or was cut by a power failure."""
    try:
        with open(f"{folder}/{name}", "rb") as file:
            found = json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def lock(folder: str) -> int | None:
    """Take the container's lock; None when somebody else holds it. Closing the descriptor gives it back."""
    try:
        fd = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise NotFound(f"no container {os.path.basename(folder)[:12]}", "it was removed meanwhile") from None
    taken = False
    try:
        taken = locks.take(fd)
    finally:
        if not taken:
            os.close(fd)
    return fd if taken else None


def lock_within(folder: str, seconds: float) -> int:
    """Take the lock, waiting for a holder that is about to end. StateError when it does not."""
    deadline = time.monotonic() + seconds
    while (fd := lock(folder)) is None:
        if time.monotonic() > deadline:
            raise StateError(f"container {os.path.basename(folder)[:12]} is being worked on by another command", "try again")
        time.sleep(0.002)
    return fd


@functools.cache  # asked for each container that is written down, or looked at
def machine() -> str:
    """What tells this machine from another that shares the folder (a home on NFS)."""
    try:
        with open("/etc/machine-id", encoding="utf-8") as file:
            return f"{file.read().strip()}/{os.uname().nodename}"
    except OSError:
        return os.uname().nodename


def lives(state: dict[str, Any]) -> bool:
    """Whether the supervisor that wrote ``state`` still runs, or runs elsewhere, where nobody here may repair anything."""
    identity = state.get("supervisor")
    if not identity:
        return False
    found = process.alive(identity)
    if found is None:
        # Another pid namespace or machine: hands off. An earlier boot of this machine: it is gone.
        return state.get("machine") != machine() or identity.get("boot") == process.boot_id()
    return found


def claim_name(containers: str, name: str, container_id: str) -> None:
    """Reserve ``name`` for ``container_id``: a link, which the kernel makes for one of several askers.

    :raises NameInUse: it belongs to a container that exists.
    """
    os.makedirs(f"{containers}/names", mode=0o700, exist_ok=True)
    link = f"{containers}/names/{name}"
    for _ in range(3):
        try:
            os.symlink(container_id, link)
            return
        except FileExistsError:
            owner = named(containers, name)
            if owner and _exists(containers, owner):
                raise NameInUse(
                    f"name {name!r} is in use by container {owner[:12]}",
                    f"--replace takes its place, or remove it: %container rm -f {name}",
                ) from None
            release_name(containers, name, owner)
    raise NameInUse(f"name {name!r} is being taken by somebody else", "try again")


def _exists(containers: str, container_id: str) -> bool:
    """Whether it is there, or being put together: then its name is claimed and its folder not yet renamed."""
    return os.path.isdir(f"{containers}/{container_id}") or any(e.startswith(f".new-{container_id}-") for e in os.listdir(containers))


def named(containers: str, name: str) -> str | None:
    try:
        return os.readlink(f"{containers}/names/{name}")
    except OSError:
        return None


def release_name(containers: str, name: str, container_id: str | None) -> None:
    """Give a name back, if it still means this container."""
    if name and named(containers, name) == container_id:
        try:
            os.unlink(f"{containers}/names/{name}")
        except FileNotFoundError:
            pass


def remove_folder(containers: str, container_id: str, name: str) -> None:
    """Delete a container's folder: first renamed, so that no reader sees a half one, and a sweep finds it if we are killed."""
    folder = f"{containers}/{container_id}"
    grave = f"{containers}/.gone-{container_id}"
    release_name(containers, name, container_id)
    mark("removal", "unnamed")
    try:
        os.rename(folder, grave)
    except FileNotFoundError:
        return
    mark("removal", "renamed")
    trees.remove(grave)
    mark("removal", "removed")
