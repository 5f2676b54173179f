"""explore: what each layer does, against trees that are known, and against the same image merged by the kernel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pycontainers.contents import Contents, shown
from pycontainers.images.contents import contents
from pycontainers.images.store import Image, Layer, Store
from pycontainers.images.view import opaque_attribute

from .conftest import config

Make = Callable[[Callable[[str], None]], None]


def build(store: Store, *fills: Callable[[str], None]) -> Image:
    """An image whose layers are filled one after the other."""
    layers: list[Layer] = []
    for fill in fills:
        tree = store.new_layer()
        fill(tree)
        layers.append(store.commit(tree, layers[-1].chain_id if layers else ""))
    steps = [{"created": "2026-01-02T03:04:05Z", "created_by": f"step {number}"} for number in range(1, len(fills) + 1)]
    rootfs = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    data = {**config("x"), "rootfs": rootfs, "history": [steps[0], {"created_by": "ENV x=1", "empty_layer": True}, *steps[1:]]}
    return store.resolve(store.save_image(data, layers, "").id)


def put(path: str, size: int) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path).write_bytes(os.urandom(size))


def whiteout(path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.mknod(path, 0o600 | 0o020000, 0)


def kinds(found: Contents, layer: int) -> dict[str, str]:
    return {change.path: change.kind for change in found.layers[layer - 1].changes}


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts and owners need root")


def base(tree: str) -> None:
    put(f"{tree}/a/one", 1000)
    put(f"{tree}/a/two", 2000)
    put(f"{tree}/b/deep/three", 3000)
    put(f"{tree}/kept", 10)
    os.symlink("/a", f"{tree}/link")


def test_added_changed_and_removed(store: Store) -> None:
    def second(tree: str) -> None:
        put(f"{tree}/a/one", 1500)  # replaced
        put(f"{tree}/a/new", 7)
        whiteout(f"{tree}/b")  # with all that is in it
        whiteout(f"{tree}/never")  # of nothing

    found = contents(build(store, base, second))
    assert kinds(found, 1)["/a/one"] == "A" and len(found.layers[0].changes) == 8
    assert kinds(found, 2) == {"/a/new": "A", "/a/one": "C", "/b": "D"}  # /a only holds something
    assert found.layers[1].hidden == 1000 + 3000 and found.wasted_size == 4000 and found.size == 6010 + 1507
    assert [(waste.path, waste.size, waste.times) for waste in found.wasted] == [("/b/deep/three", 3000, 1), ("/a/one", 1000, 1)]
    assert found.efficiency == pytest.approx(1 - 4000 / 7517)
    assert [layer.created_by for layer in found.layers] == ["step 1", "step 2"]  # a step without a layer is passed over
    assert {change.path for change in found.files()} == {"/a", "/a/new", "/a/one", "/a/two", "/kept", "/link"}
    assert [(change.path, change.size) for change in found.biggest(2)] == [("/b/deep/three", 3000), ("/a/two", 2000)]


def test_an_opaque_folder_a_link_in_place_of_a_folder_and_a_folder_in_place_of_a_link(store: Store) -> None:
    def second(tree: str) -> None:
        put(f"{tree}/a/three", 5)
        os.setxattr(f"{tree}/a", opaque_attribute(), b"y")
        os.symlink("/etc/shadow", f"{tree}/b")
        put(f"{tree}/link/x", 1)

    found = contents(build(store, base, second))
    assert kinds(found, 2) == {"/a/one": "D", "/a/two": "D", "/a/three": "A", "/b": "C", "/link": "C", "/link/x": "A"}
    assert found.wasted_size == 6000
    link = next(change for change in found.layers[1].changes if change.path == "/b")
    assert (link.type, link.target, link.size, link.hidden) == ("link", "/etc/shadow", 0, 3000)  # not what it leads to
    assert {change.path for change in found.files()} == {"/a", "/a/three", "/b", "/kept", "/link", "/link/x"}


def test_a_hard_links_data_is_wasted_with_its_last_name(store: Store) -> None:
    def first(tree: str) -> None:
        put(f"{tree}/x", 4000)
        os.link(f"{tree}/x", f"{tree}/y")

    one = contents(build(store, first, lambda tree: whiteout(f"{tree}/x")))
    assert one.size == 4000 and one.wasted_size == 0
    both = contents(build(store, first, lambda tree: (whiteout(f"{tree}/x"), whiteout(f"{tree}/y"))[0]))
    assert both.wasted_size == 4000


def test_a_folder_whose_owner_or_mode_changes(store: Store) -> None:
    def second(tree: str) -> None:
        os.mkdir(f"{tree}/a", 0o700)
        os.makedirs(f"{tree}/b/deep")
        os.chown(f"{tree}/b", 7, 8)

    found = contents(build(store, base, second))
    assert {change.path: (change.kind, change.mode, change.uid, change.gid) for change in found.layers[1].changes} == {
        "/a": ("C", 0o700, 0, 0), "/b": ("C", 0o755, 7, 8),
    }  # fmt: skip
    assert found.wasted_size == 0


def test_names_of_any_bytes_deep_folders_and_links_that_lead_out(store: Store, disk: Path) -> None:
    secret = disk / "secret"
    secret.mkdir()
    put(f"{secret}/inside", 5)
    names = [b"\xff\xfe", b"a\x1b[31mred", b"line\nbreak", "e\u202egnp.exe".encode(), b"<img src=x onerror=alert(1)>", b"back\\slash"]

    def first(tree: str) -> None:
        for name in names:
            Path(os.fsdecode(os.fsencode(tree) + b"/" + name)).write_bytes(b"x")
        os.symlink(str(secret), f"{tree}/out")
        folder = tree
        for _ in range(60):
            folder += "/" + "d" * 30
            os.mkdir(folder)

    found = contents(build(store, first))
    paths = {change.path for change in found.layers[0].changes}
    assert {os.fsencode(path)[1:] for path in paths} >= set(names) and not any("inside" in path for path in paths)
    assert max(path.count("/") for path in paths) == 60
    told = [shown(path) for path in paths]
    assert len(set(told)) == len(paths) and all(text.isprintable() for text in told)
    assert {r"/\xff\xfe", r"/a\x1b[31mred", r"/line\x0abreak", r"/e\u202egnp.exe", r"/back\\slash"} <= set(told)


def test_the_files_of_all_layers_are_those_that_the_kernel_merges(store: Store, tmp_path: Path) -> None:
    """Three layers of generated changes; overlayfs itself is the reference."""
    import random

    chance = random.Random(20)

    def change(tree: str) -> None:
        for _ in range(60):
            path = f"{tree}/" + "/".join(chance.choice("abc") for _ in range(chance.randint(1, 4)))
            if os.path.lexists(path) or any(os.path.lexists(up) and not os.path.isdir(up) for up in _above(path, tree)):
                continue
            what = chance.random()
            if what < 0.55:
                put(path, chance.randint(0, 99))
            elif what < 0.75 and len(os.listdir(f"{store.root}/snapshots")):
                whiteout(path)
            elif what < 0.9:
                os.makedirs(path)
                if chance.random() < 0.5:
                    os.setxattr(path, opaque_attribute(), b"y")
            else:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.symlink("a", path)

    image = build(store, change, change, change)
    merged = tmp_path / "merged"
    merged.mkdir()
    lower = ":".join(layer.path for layer in reversed(image.layers))
    # In a folder that one layer alone has, the kernel shows whiteouts (of nothing) as the devices that they are.
    script = 'mount -t overlay -o "ro,lowerdir=$0" overlay "$1" && cd "$1" && find . -mindepth 1 ! -type c -printf "/%P %y\\n"'
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script, lower, str(merged)], capture_output=True, text=True, check=True)
    letters = {"file": "f", "folder": "d", "link": "l"}
    found = contents(image)
    assert sorted(f"{change.path} {letters[change.type]}" for change in found.files()) == sorted(done.stdout.splitlines())
    assert len(done.stdout.splitlines()) > 20


def _above(path: str, top: str) -> list[str]:
    found = []
    while (path := os.path.dirname(path)) != top:
        found.append(path)
    return found


def test_on_the_host_only_what_the_layers_bring_is_counted(store: Store) -> None:
    tree = store.new_layer()
    put(f"{tree}/usr/bin/env", 50)  # this machine has one
    put(f"{tree}/opt/own", 60)
    host = store.resolve("host")
    layer = store.commit(tree, f"host:{host.host}")
    made = store.save_image({**config("x"), "history": [{"created_by": "step"}]}, [layer], host.host)
    found = contents(store.resolve(made.id))
    assert kinds(found, 1) == {"/usr/bin/env": "C", "/opt/own": "A"} and found.host and found.wasted_size == 0
