"""Our look into layers against the kernel's: the same layers, really mounted."""

from __future__ import annotations

import os
import random
import stat
import time
from pathlib import Path

import pytest

from pycontainers.errors import ImageError
from pycontainers.images.view import Rootfs, View

from .conftest import fill, overlay, seen

NAMES = ("a", "b", "c", "usr")
TARGETS = ("/a", "b", "../c", "/usr/a", "../../../a/b", "./b/..", "nowhere", "/")


def random_layer(rng: random.Random, folder: str, depth: int = 0) -> None:
    """Files, links, folders, whiteouts and opaque folders, below a few names so that layers meet."""
    for name in NAMES:
        path = f"{folder}/{name}"
        must = depth == 0 and name == "usr"  # a listed folder is a folder in each layer that has it
        kind = "folder" if must else rng.choice(["none", "none", "file", "folder", "folder", "link", "whiteout"])
        if kind == "folder":
            os.mkdir(path, rng.choice([0o755, 0o750]))
            if not must and rng.random() < 0.3:
                os.setxattr(path, "trusted.overlay.opaque", b"y")
            if depth < 3:
                random_layer(rng, path, depth + 1)
        elif kind == "file":
            Path(path).write_text(path)
        elif kind == "link":
            os.symlink(rng.choice(TARGETS), path)
        elif kind == "whiteout":
            os.mknod(path, stat.S_IFCHR, 0)


@pytest.mark.root
@pytest.mark.parametrize("seed", range(12))
def test_the_kernel_sees_the_same(disk: Path, seed: int) -> None:
    rng = random.Random(seed)
    places = [str(disk / f"layer{index}") for index in range(4)]
    for place in (*places, str(disk / "base")):
        os.mkdir(place)
        random_layer(rng, place)
    base = {"/": str(disk / "base"), "/usr": str(disk / "base/c") if (disk / "base/c").is_dir() else str(disk / "base/usr")}
    rootfs = Rootfs(tuple(places), ("/", "/usr"), base)
    view = View(rootfs)
    paths = [f"/{x}/{y}/{z}" for x in NAMES for y in NAMES for z in (*NAMES, "..")]
    found = overlay(rootfs, disk, walk=["/"], resolve=paths)
    assert seen(view) == found["tree"]
    assert len(found["tree"]) > 5
    for path in paths:
        try:
            ours = view.resolve(path)
        except ImageError:
            continue  # a loop; realpath() leaves the path as it is there
        assert ours == found["real"][path], path


@pytest.fixture
def view(disk: Path) -> View:
    fill(str(disk / "base"), {"/etc/passwd": "root", "/etc/deep/x": "old", "/f": "base"})
    fill(str(disk / "top"), {"/etc/new": "new"})
    return View(Rootfs((str(disk / "top"),), ("/",), {"/": str(disk / "base")}))


def link(view: View, target: str, path: str) -> None:
    os.symlink(target, view.rootfs.layers[0] + path)


def test_a_link_never_leaves_the_image(view: View) -> None:
    link(view, "/etc/passwd", "/absolute")
    link(view, "../../../../../../etc/passwd", "/relative")
    assert view.read("/absolute") == view.read("/relative") == b"root"
    node = view.lookup("/absolute", follow=True)
    assert node is not None and node.path.startswith(view.rootfs.base["/"]) and node.real == "/etc/passwd"
    node = view.lookup("/absolute")
    assert node is not None and stat.S_ISLNK(node.stat.st_mode)


def test_a_link_in_the_middle(view: View) -> None:
    link(view, "etc/deep", "/short")
    assert view.read("/short/x") == b"old" and view.listdir("/short") == ["x"]
    assert view.resolve("/short/../new") == "/etc/new"


def test_a_loop_is_said(view: View) -> None:
    link(view, "two", "/one")
    link(view, "one", "/two")
    with pytest.raises(ImageError, match="/one/x: more than 40 links"):
        view.resolve("/one/x")


def test_what_is_not_there(view: View) -> None:
    assert view.lookup("/missing/x") is None and view.lookup("/f/x") is None
    with pytest.raises(FileNotFoundError):
        view.read("/etc")
    with pytest.raises(FileNotFoundError):
        view.listdir("/f")


def test_a_pipe_is_not_read(view: View) -> None:
    os.mkfifo(view.rootfs.layers[0] + "/pipe")
    with pytest.raises(FileNotFoundError):
        view.read("/pipe")


def test_reading_ends_at_the_limit(view: View) -> None:
    assert view.read("/f", 2) == b"ba"


def test_names_that_no_file_can_have_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    view = View(Rootfs((str(tmp_path),), ("/",), {}))
    for name in ("n" * 256, "a\0b", "a/" * 3000, "/".join(["x" * 200] * 30)):
        for folder in ("/", "/d/", "/nowhere/"):
            assert view.lookup(folder + name) is None and view.lookup(folder + name, follow=True) is None
    assert view.lookup("/d/..") == view.lookup("/") and view.lookup("/..") == view.lookup("/")


def test_deep_folders_are_found_in_no_time(tmp_path: Path) -> None:
    layers = tuple(str(tmp_path / f"layer{number}") for number in range(5))
    deep = "/".join(["a"] * 500)
    for layer in layers:
        os.makedirs(f"{layer}/{deep}")
    view = View(Rootfs(layers, ("/",), {}))
    began = time.process_time()
    assert view.lookup(f"/{deep}/x", follow=True) is None and view.lookup(f"/{deep}", follow=True) is not None
    assert view.lookup("/n/" + "a/" * 50_000) is None
    assert time.process_time() - began < 1
