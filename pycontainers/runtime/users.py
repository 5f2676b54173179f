"""Users of an image: ``/etc/passwd`` and ``/etc/group`` read by us.

Never by the C library: its name service would load modules of the image into a process that still has privileges
(CVE-2019-14271). Called after pivot_root, so the kernel resolves links inside the image.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from ..errors import ContainersError

_LIMIT = 1 << 20  # bytes read of a file that the image controls


def read_in_root(path: str) -> str:
    """A text file of the image; "" when it is missing, too large to be true, or not a regular file (a FIFO would block)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        return os.read(fd, _LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def resolve(spec: str, read: Callable[[str], str] = read_in_root) -> tuple[int, int, list[int], str]:
    """(uid, gid, supplementary gids, home) of Docker's ``--user``: ``name|uid[:group|gid]``, "" is root.

    :raises ContainersError: a name that the image's passwd or group does not have; an id outside 0..65535.
    """
    name, _, group = spec.partition(":")
    users = _rows(read("/etc/passwd"), 7)
    row = _find(users, name or "0")
    if row is None and not (name or "0").isdecimal():
        raise ContainersError(f"user {name!r} is not in the image's /etc/passwd", "use a numeric id, or a user that the image has")
    uid = int(row[2]) if row else int(name or "0")
    gid = int(row[3]) if row and row[3].isdecimal() else 0
    home = row[5] if row and row[5] else "/"
    groups = _rows(read("/etc/group"), 4)
    if group:
        found = _find(groups, group)
        if found is None and not group.isdecimal():
            raise ContainersError(f"group {group!r} is not in the image's /etc/group", "use a numeric id, or a group that the image has")
        gid = int(found[2]) if found else int(group)
        extra: list[int] = []
    else:
        extra = [int(g[2]) for g in groups if row and row[0] in g[3].split(",") and g[2].isdecimal()]
    for number in (uid, gid, *extra):
        if not 0 <= number < 65536:
            raise ContainersError(f"id {number} of user {spec!r} is outside the container's 0..65535", "use an id that is mapped")
    # Its own group is among them: a file that denies it something denies that also when the process has another group (CVE-2022-36109).
    return uid, gid, [gid, *(number for number in dict.fromkeys(extra) if number != gid)], home


def numeric(spec: str) -> tuple[int, int, list[int], str]:
    """The same of ``uid:gid``, whatever the image's files say about it; any id that the kernel takes."""
    uid, _, gid = spec.partition(":")
    row = _find([row for row in _rows(read_in_root("/etc/passwd"), 7) if row[2] == uid], uid)
    return int(uid), int(gid), [], row[5] if row and row[5] else "/"


def group_id(name: int | str) -> int:
    """A group of the image by name or id. :raises ContainersError: there is none."""
    if isinstance(name, int) or name.isdecimal():
        return int(name)
    row = _find(_rows(read_in_root("/etc/group"), 4), name)
    if row is None:
        raise ContainersError(f"group {name!r} is not in the image's /etc/group", "use a numeric id, or a group that the image has")
    return int(row[2])


def _rows(text: str, fields: int) -> list[list[str]]:
    rows = (line.split(":") for line in text.splitlines())
    return [row for row in rows if len(row) >= fields and row[2].isdecimal()]


def _find(rows: list[list[str]], wanted: str) -> list[str] | None:
    for row in rows:
        if row[0] == wanted:
            return row
    for row in rows:
        if wanted.isdecimal() and row[2] == wanted:
            return row
    return None
