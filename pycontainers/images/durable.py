"""Whole or not at all: writing and removing so that no crash, no SIGKILL and no power cut leaves half of anything.

Everything is made under a name that says which process works on it (pid, start time, boot, pid namespace), synced, and renamed.
So what a killed process left can be told from what a living one is making, also on a home that machines share.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from ..linux import idmap, process, syscalls, trees

_ONE_BY_ONE = 16  # files; for more, syncing the file system once is faster (measured: 450 files 240 ms one by one, 5 ms at once)
_OWNER = re.compile(r"-(?P<pid>[0-9]+)-(?P<start>[0-9]+)-(?P<boot>[0-9a-f]+)-(?P<pidns>[0-9]+)\Z")
_PARTIAL = ".pycontainers-"
_UNKNOWN_AFTER = 86400.0  # seconds: what a process of another boot or machine has not touched for so long is taken as left behind


def owner() -> str:
    """This process, as the end of a file name: ``pid-start-boot-pidns``."""
    me = process.identity(os.getpid())
    return f"{me['pid']}-{me['start']}-{_plain(me['boot'])}-{_digits(me['pidns'])}"


def fresh_name() -> str:
    """A name that nobody else has, ending in :func:`owner`."""
    return f"{secrets.token_hex(8)}-{owner()}"


def abandoned(path: str) -> bool:
    """Whether the process that the name of ``path`` tells of is gone."""
    here, namespace = process.boot_id(), process.pid_namespace()
    found = _OWNER.search(path)
    if found and (found["boot"], found["pidns"]) == (_plain(here), _digits(namespace)):
        return process.alive({"pid": int(found["pid"]), "start": int(found["start"]), "boot": here, "pidns": namespace}) is False
    try:
        return time.time() - os.lstat(path).st_mtime > _UNKNOWN_AFTER
    except FileNotFoundError:
        return False


def write(workshop: str, path: str, data: bytes, synced: bool = True) -> None:
    """Temporary file in ``workshop`` (same file system) → fsync → rename → fsync of the folder.

    :param synced: False: without the fsyncs, for what may be lost, or be empty, after a power cut.
    """
    temporary = f"{workshop}/{fresh_name()}"
    try:
        with open(temporary, "xb", opener=_private) as file:
            file.write(data)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if synced:
        sync_folder(os.path.dirname(path))


@contextlib.contextmanager
def whole(path: str) -> Iterator[BinaryIO]:
    """A file of the user's, written beside its place and renamed when it is whole; not synced. What a killed process left there goes."""
    folder = os.path.dirname(path) or "."
    for name in os.listdir(folder):
        if name.startswith(_PARTIAL) and abandoned(f"{folder}/{name}"):
            with contextlib.suppress(OSError):
                os.unlink(f"{folder}/{name}")
    temporary = f"{folder}/{_PARTIAL}{fresh_name()}"
    try:
        with open(temporary, "xb") as file:
            yield file
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def bury(workshop: str, path: str) -> str:
    """Take a folder out of sight by one rename; :func:`empty` the grave that is returned later, or a sweep will."""
    grave = f"{workshop}/{fresh_name()}"
    os.rename(path, grave)
    return grave


def empty(graves: Iterable[str]) -> None:
    for grave in graves:
        trees.remove(grave)


def sweep(workshop: str) -> None:
    """Remove what processes left that were killed."""
    for name in os.listdir(workshop):
        path = f"{workshop}/{name}"
        if abandoned(path):
            if os.path.isdir(path) and not os.path.islink(path):
                trees.remove(path)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)


def make_folder(path: str, mode: int) -> None:
    """One folder with exactly this mode: mkdir(2) subtracts the umask, and changing that would change it for every thread."""
    os.mkdir(path)
    os.chmod(path, mode)


def give(path: str, like: os.stat_result) -> None:
    """Owner and group of ``like``. An ordinary user can give nothing away: what he makes is his own, and root's inside. So is, in
    his namespace, what belongs to somebody who has no id there (the machine's own root).
    """
    if os.geteuid() == 0 and like.st_uid == idmap.OVERFLOW_ID and not idmap.initial():
        return
    with contextlib.suppress(PermissionError):
        os.chown(path, like.st_uid, like.st_gid)


def sync_tree(tree: str) -> None:
    """Bring a tree to the disk: a few files one by one, many through the file system."""
    files, folders = [], []
    for folder, _, names in os.walk(tree):
        folders.append(folder)
        for name in names:
            path = f"{folder}/{name}"
            if os.path.isfile(path) and not os.path.islink(path):
                files.append(path)
        if len(files) + len(folders) > _ONE_BY_ONE:
            return sync_file_system(tree)
    for path in files:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    for folder in folders:
        sync_folder(folder)


def sync_files(folder: str) -> None:
    """The files that lie in ``folder``, and it."""
    for entry in os.scandir(folder):
        if entry.is_file(follow_symlinks=False):
            fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
    sync_folder(folder)


def sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(path: str) -> None:
    """syncfs(2) of the file system that holds ``path``."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if syscalls.libc.syncfs(fd) < 0:
            raise syscalls.fail("syncfs", path)
    finally:
        os.close(fd)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _plain(boot: str) -> str:
    return boot.replace("-", "")


def _digits(pidns: str) -> str:
    return "".join(char for char in pidns if char.isdigit())
