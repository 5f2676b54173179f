"""Remove folders that somebody else filled: as deep as he liked, with names as long as he liked, and links to anywhere."""

from __future__ import annotations

import contextlib
import os

_DEPTH = 64
"""Folders that are held open, one in the other. ``shutil.rmtree`` of Python before 3.13 calls itself for each: a container whose
program makes a thousand ends it with RecursionError, and every command that tries to clean up after it (or with EMFILE)."""


def remove(path: str) -> None:
    """Remove ``path`` and all below it; follows no link, leaves what cannot be removed (a mount point), and raises nothing for it.

    Works by descriptors, so that the length of a path does not matter. What lies deeper than :data:`_DEPTH` is moved to the top and
    removed from there.
    """
    try:
        top = _open(path, None)
    except NotADirectoryError:
        with contextlib.suppress(OSError):
            os.unlink(path)
        return
    except OSError:
        return
    try:
        moved = 1
        while moved:
            moved = _empty(top, top, 0)
    finally:
        os.close(top)
    with contextlib.suppress(OSError):
        os.rmdir(path)


def _open(name: str, parent: int | None) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _empty(folder: int, top: int, depth: int) -> int:
    """Remove what lies in ``folder``; returns how many folders were moved to ``top`` instead."""
    moved = 0
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        try:
            if not is_folder:
                os.unlink(name, dir_fd=folder)
            elif depth < _DEPTH:
                below = _open(name, folder)
                try:
                    moved += _empty(below, top, depth + 1)
                finally:
                    os.close(below)
                os.rmdir(name, dir_fd=folder)
            else:
                os.rename(name, f".deep-{os.urandom(8).hex()}", src_dir_fd=folder, dst_dir_fd=top)
                moved += 1
        except OSError:
            continue  # another process removes the same, or it is busy: the next sweep tries again
    return moved
