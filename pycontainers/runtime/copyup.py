"""``tmpcopyup``: what an image has in a folder, copied into the tmpfs that will cover it. By descriptor, without following a link."""

from __future__ import annotations

import os
import stat

_CHUNK = 1 << 20


def copy_up(source: int, target: int) -> None:
    """The content of the folder ``source`` into the folder ``target``, with owners, modes and times."""
    reader = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source)
    try:
        for name in os.listdir(reader):
            _copy(reader, target, name)
    finally:
        os.close(reader)


def _copy(source: int, target: int, name: str) -> None:
    found = os.stat(name, dir_fd=source, follow_symlinks=False)
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif kind == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=target)
        inner, copy = (os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at) for at in (source, target))
        for entry in os.listdir(inner):
            _copy(inner, copy, entry)
        os.close(inner)
        os.close(copy)
    elif kind == stat.S_IFREG:
        reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        writer = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=target)
        while data := os.read(reader, _CHUNK):
            os.write(writer, data)
        os.close(reader)
        os.close(writer)
    elif kind == stat.S_IFIFO:
        os.mkfifo(name, 0o600, dir_fd=target)
    else:
        return  # devices and sockets mean nothing in a copy
    os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
    if kind != stat.S_IFLNK:
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=target)
    os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)
