"""User namespaces that carry an ID map: for clone'd children, and kept open for ID-mapped mounts."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Iterable

from . import syscalls
from .namespaces import CLONE_NEWUSER, clone

Mapping = tuple[int, int, int]
"""(first id inside, first id outside, how many), as in /proc/PID/uid_map (user_namespaces(7))."""


OVERFLOW_ID = 65534
"""Whom an id shows as that a user namespace does not have (/proc/sys/kernel/overflowuid)."""


def write_maps(pid: int, uids: list[Mapping], gids: list[Mapping]) -> None:
    """Write both maps of a child in a new user namespace. gid first: afterwards the child may already act as mapped root."""
    for name, maps in (("gid_map", gids), ("uid_map", uids)):
        text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in maps).encode()
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text)  # one write: the kernel takes the whole map or nothing
        finally:
            os.close(fd)


def namespace_with(uids: list[Mapping], gids: list[Mapping]) -> int:
    """A descriptor of a fresh user namespace with these maps, for ``mount_setattr(MOUNT_ATTR_IDMAP)``. Costs about 1 ms.

    The namespace lives as long as its descriptor: the child that made it is ended at once. Should the caller be killed meanwhile, it ends
    too; and it holds nothing of the caller's, such as a socket at which others would go on waiting for an answer.
    """
    parent = os.getpid()
    pid = clone(CLONE_NEWUSER)
    if pid == 0:
        try:
            syscalls.close_range(0)
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            while os.getppid() == parent:  # else it was killed before the line above
                signal.pause()
        finally:
            os._exit(0)
    try:
        write_maps(pid, uids, gids)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # a caller that ignores SIGCHLD has it reaped by the kernel
            os.waitpid(pid, 0)


def outside(maps: list[Mapping], inside: int) -> int:
    """The id outside of ``inside``. KeyError when it is not mapped."""
    for first, base, count in maps:
        if first <= inside < first + count:
            return base + inside - first
    raise KeyError(inside)


def onto_itself(pieces: Iterable[int]) -> list[Mapping]:
    """A map of every id onto itself inside a namespace whose own map consists of pieces of these sizes.

    The kernel takes a range only when one piece of the parent's map holds all of it (map_write in kernel/user_namespace.c).
    """
    maps, first = [], 0
    for size in pieces:
        maps.append((first, first, size))
        first += size
    return maps


def pieces(kind: str = "uid", pid: int | str = "self") -> list[int]:
    """The sizes of the pieces of a process's map ("uid" or "gid"), from id 0 on without a gap."""
    sizes: list[int] = []
    with open(f"/proc/{pid}/{kind}_map", encoding="utf-8") as file:
        for first, _, count in sorted(tuple(map(int, line.split())) for line in file):
            if first != sum(sizes):
                break
            sizes.append(count)
    return sizes


def outer_uid() -> int:
    """Whom this process's root is in the user namespace around its own; 0 in the initial one."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return next((int(outside) for inside, outside, _ in map(str.split, file) if inside == "0"), 0)


@functools.cache
def initial() -> bool:
    """Whether this process is in the initial user namespace, or in one that has all its ids: only there may a root ID-map mounts
    (the file system belongs to the namespace that mounted it) and use ``trusted.*`` attributes.
    """
    return pieces() == [0xFFFFFFFF]


@functools.cache
def single() -> bool:
    """Whether this process's user namespace has one id and no more. Asked once: in a container's root there may be no /proc to ask."""
    return pieces() == [1]


def set_groups(groups: list[int]) -> None:
    """setgroups(2). Where the user namespace gave it up (a single id, user_namespaces(7)) the groups stay as they are: none of them
    is mapped, and nobody in there can become another user anyway.
    """
    try:
        os.setgroups(groups)
    except PermissionError:
        with open("/proc/self/setgroups", encoding="utf-8") as file:
            if file.read().strip() != "deny":
                raise
