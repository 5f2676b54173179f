"""Owners that cannot be given, recorded: where a user namespace has a single id, every file is that id's.

The record is an extended attribute of the file, ``user.pycontainers.owner`` = ``UID:GID``. Links and special files have none
(xattr(7)): theirs is forgotten.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from . import idmap

ATTRIBUTE = "user.pycontainers.owner"
_NO_PLACE = (errno.ENOTSUP, errno.ENODATA, errno.EPERM)  # a file system without such attributes; none there; not a file or folder


def recorded(path: str | int) -> tuple[int, int] | None:
    """The owner that a file should have, None when it is the one that it has."""
    try:
        uid, _, gid = os.getxattr(path, ATTRIBUTE, follow_symlinks=isinstance(path, int)).partition(b":")
        return int(uid), int(gid)
    except (OSError, ValueError):
        return None


def record(path: str | int, kind: int, uid: int, gid: int) -> None:
    """Record an owner; -1 leaves a part as it is. ``path`` may be ``/proc/self/fd/N`` of an O_PATH descriptor (followed).

    :param kind: its st_mode. :raises OSError: EROFS and the like, as chown(2) would.
    """
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        return
    try:
        old = os.getxattr(path, ATTRIBUTE).partition(b":")
        before = int(old[0]), int(old[2])
    except (OSError, ValueError):
        before = (0, 0)
    wanted = (before[0] if uid == -1 else uid, before[1] if gid == -1 else gid)
    try:
        if wanted == (0, 0):
            with contextlib.suppress(OSError):
                os.removexattr(path, ATTRIBUTE)
        else:
            os.setxattr(path, ATTRIBUTE, b"%d:%d" % wanted)
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise


def give(path: str, uid: int, gid: int) -> None:
    """lchown(2); recorded where the namespace has a single id, and another is meant (EINVAL). :raises OSError: as chown(2)."""
    try:
        os.chown(path, uid, gid, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EINVAL or not idmap.single():
            raise
        record(path, os.lstat(path).st_mode, uid, gid)
