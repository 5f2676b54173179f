"""A store of its own for each test, on the root file system, where real ones live; and what the kernel makes of a root file system."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.images.store import Image, Layer, Store
from pycontainers.images.view import Rootfs, View
from pycontainers.paths import Paths

from .registries import Faulty


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder on the root file system, removed afterwards."""
    path = tempfile.mkdtemp(prefix="pyct-images-", dir="/var/tmp")
    yield Path(path)
    shutil.rmtree(path)


@pytest.fixture
def faulty() -> Iterator[Faulty]:
    """A registry that misbehaves as it is told."""
    found = Faulty()
    yield found
    found.close()


@pytest.fixture
def other() -> Iterator[Faulty]:
    """A second one: another host, a mirror."""
    found = Faulty()
    yield found
    found.close()


@pytest.fixture
def store(disk: Path) -> Store:
    return Store(Paths(disk / "home", disk / "run").prepare())


@pytest.fixture
def layer(store: Store) -> Callable[..., Layer]:
    """Commit a layer: ``layer({"/etc/x": "text", "/gone": None, "/folder/": ""}, parent chain)``; None is a whiteout."""

    def make(entries: dict[str, str | None], parent: str = "") -> Layer:
        tree = store.new_layer()
        fill(tree, entries)
        return store.commit(tree, parent)

    return make


@pytest.fixture
def image(store: Store, layer: Callable[..., Layer]) -> Callable[..., Image]:
    """Save an image with one layer, and name it."""

    def make(*names: str, content: str = "x") -> Image:
        made = store.save_image(config(content), [layer({"/content": content})], "")
        for name in names:
            store.tag(made.id, name)
        return store.resolve(made.id)

    return make


def config(comment: str = "", created: str = "2026-01-02T03:04:05Z") -> dict:
    return {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {"Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [{"created_by": f"COPY {comment}", "created": created}, {"created_by": "CMD x", "empty_layer": True}],
    }


def fill(tree: str, entries: dict[str, str | None]) -> None:
    for path, content in entries.items():
        place = tree + path
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if content is None:
            os.mknod(place, 0o020000, 0)
        elif path.endswith("/"):
            os.makedirs(place, exist_ok=True)
        else:
            Path(place).write_text(content)


def overlay(rootfs: Rootfs, disk: Path, **asked: Any) -> dict[str, Any]:
    """What the kernel shows of ``rootfs``: see ``overlay_program.py``. Its mounts go with the process's own mount namespace."""
    work = tempfile.mkdtemp(prefix="overlay-", dir=disk)
    asked |= {"layers": rootfs.layers, "folders": rootfs.folders, "base": rootfs.base, "work": work}
    argv = ["unshare", "--mount", sys.executable, str(Path(__file__).parent / "overlay_program.py")]
    done = subprocess.run(argv, input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def seen(view: View, path: str = "/") -> dict[str, list[Any]]:
    """The same as ``overlay_program.walk``, by our own look."""
    node = view.lookup(path)
    assert node is not None, path
    found, mode = node.stat, stat.S_IMODE(node.stat.st_mode)
    if stat.S_ISDIR(found.st_mode):
        names = view.listdir(path)
        tree = {path: ["folder", mode, found.st_uid, names]}
        for name in names:
            tree |= seen(view, f"{path.rstrip('/')}/{name}")
        return tree
    if stat.S_ISLNK(found.st_mode):
        return {path: ["link", 0, found.st_uid, os.readlink(node.path)]}
    if stat.S_ISREG(found.st_mode):
        return {path: ["file", mode, found.st_uid, view.read(path, 1000).decode("latin-1")]}
    return {path: ["other", found.st_mode, found.st_uid, str(found.st_rdev)]}
