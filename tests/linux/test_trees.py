"""Removal of what others filled."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from pycontainers.linux import trees


def deep(folder: Path, levels: int, name: str = "d") -> None:
    """Folders one in the other, longer than any path may be; with a file in each hundredth."""
    here = os.open(folder, os.O_RDONLY)
    for level in range(levels):
        os.mkdir(name, dir_fd=here)
        if level % 100 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_tree_deeper_than_any_path_is_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    deep(tree, 3000)
    for number in range(3):
        (tree / f"side-{number}").mkdir()
        deep(tree / f"side-{number}", 200, "n" * 200)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 200, limits[1]))
    try:
        trees.remove(str(tree))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not tree.exists()


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "below/way").symlink_to(outside)
    (tree / "hole").symlink_to("nowhere")
    os.mkfifo(tree / "fifo")
    trees.remove(str(tree))
    assert not tree.exists()
    assert (outside / "kept").exists()
    (tmp_path / "link").symlink_to(outside)
    trees.remove(str(tmp_path / "link"))
    assert not (tmp_path / "link").is_symlink()
    assert (outside / "kept").exists()


def test_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    trees.remove(str(tmp_path / "nothing"))
