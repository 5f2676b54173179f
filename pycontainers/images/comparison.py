"""Whether two trees are the same: type, mode, owner, time, extended attributes, content, links; by descriptors, however deep they are."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from .view import is_whiteout

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 1 << 20


def differences(one: str, other: str) -> Iterator[str]:
    """A line for each entry that is not the same in both folders: its path, and in what it differs. Their own times are not looked at."""
    links: tuple[dict[tuple[int, int], str], dict[tuple[int, int], str]] = ({}, {})
    stack = [(os.open(one, _FOLDER), os.open(other, _FOLDER), "")]
    try:
        yield from (f"/: {what}" for what in _attributes(stack[0][0], stack[0][1], ""))
        while stack:
            left, right, prefix = stack.pop()
            try:
                names = set(os.listdir(left)), set(os.listdir(right))
                for name in sorted(names[0] | names[1], key=os.fsencode, reverse=True):
                    path = f"{prefix}/{name}"
                    if name not in names[0] or name not in names[1]:
                        yield f"{path}: {'missing' if name in names[1] else 'too much'}"
                        continue
                    found = _entry(left, right, name, path, links, stack)
                    if found:
                        yield f"{path}: {found}"
            finally:
                os.close(left)
                os.close(right)
    finally:
        for left, right, _ in stack:
            os.close(left)
            os.close(right)


def _entry(left: int, right: int, name: str, path: str, links: tuple[dict[tuple[int, int], str], ...],
           stack: list[tuple[int, int, str]]) -> str:  # fmt: skip
    one, other = (os.stat(name, dir_fd=fd, follow_symlinks=False) for fd in (left, right))
    if is_whiteout(one) and is_whiteout(other):
        return ""  # only that it is there means something
    if one.st_mode != other.st_mode:
        return f"mode {one.st_mode:o} instead of {other.st_mode:o}"
    if (one.st_uid, one.st_gid) != (other.st_uid, other.st_gid):
        return f"owner {one.st_uid}:{one.st_gid} instead of {other.st_uid}:{other.st_gid}"
    if one.st_mtime_ns != other.st_mtime_ns:
        return f"time {one.st_mtime_ns} instead of {other.st_mtime_ns}"
    if one.st_rdev != other.st_rdev:
        return "another device"
    if stat.S_ISLNK(one.st_mode):
        targets = os.readlink(name, dir_fd=left), os.readlink(name, dir_fd=right)
        return "" if targets[0] == targets[1] else f"link to {targets[0]!r} instead of {targets[1]!r}"
    if stat.S_ISDIR(one.st_mode):
        fds = os.open(name, _FOLDER, dir_fd=left), os.open(name, _FOLDER, dir_fd=right)
        stack.append((*fds, path))
        return "; ".join(_attributes(*fds, ""))
    if stat.S_ISREG(one.st_mode):
        first = [seen.setdefault((found.st_dev, found.st_ino), path) for seen, found in zip(links, (one, other), strict=True)]
        if first[0] != first[1]:
            return f"the same file as {first[0]}, not as {first[1]}"
        return _content(left, right, name) if first[0] == path else ""
    return ""


def _content(left: int, right: int, name: str) -> str:
    one, other = os.open(name, _FILE, dir_fd=left), os.open(name, _FILE, dir_fd=right)
    try:
        what = next(_attributes(one, other, ""), "")
        while not what:
            pieces = os.read(one, _CHUNK), os.read(other, _CHUNK)
            if pieces[0] != pieces[1]:
                what = "other content"
            if not pieces[0]:
                break
        return what
    finally:
        os.close(one)
        os.close(other)


def _attributes(left: int, right: int, what: str) -> Iterator[str]:
    found = [{name: os.getxattr(fd, name) for name in os.listxattr(fd)} for fd in (left, right)]
    for name in sorted(found[0].keys() | found[1].keys()):
        if found[0].get(name) != found[1].get(name):
            yield f"attribute {name} {found[0].get(name)!r} instead of {found[1].get(name)!r}"
