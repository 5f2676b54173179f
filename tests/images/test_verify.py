"""Each kind of damage is found and named; what can be repaired is whole afterwards, what cannot is gone, and said how to get again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pycontainers.events import finish
from pycontainers.images.fetch import fetch
from pycontainers.images.store import Image, Store
from pycontainers.images.usage import usage
from pycontainers.images.verify import verify
from pycontainers.images.view import View
from pycontainers.protocol import Problem
from tests.images.conftest import config
from tests.images.test_fetch import NAME, Held, layer

DATA = [layer(1, 300_000), layer(2)]


def problems(store: Store, repair: bool = False, running: Callable[[], set[str]] = set) -> list[Problem]:
    return finish(verify(store, repair, running))


@pytest.fixture
def pulled(store: Store) -> Image:
    return finish(fetch(store, Held(DATA), [NAME]))


@pytest.fixture
def built(store: Store, layer: Callable[..., object]) -> Image:
    """Two layers; the second hides something of the first."""
    tree = store.new_layer()
    Path(f"{tree}/a").write_text("1")
    os.makedirs(f"{tree}/folder/below")
    base = store.commit(tree, "")
    tree = store.new_layer()
    os.mknod(f"{tree}/a", 0o020000, 0)
    Path(f"{tree}/b").write_text("2")
    top = store.commit(tree, base.chain_id)
    said = {**config("built"), "rootfs": {"type": "layers", "diff_ids": [base.diff_id, top.diff_id]}}
    made = store.save_image(said, [base, top], "")
    store.tag(made.id, "built")
    return store.resolve("built")


def test_a_whole_store_has_no_problems(store: Store, pulled: Image, built: Image) -> None:
    assert problems(store) == problems(store, repair=True) == []
    assert store.resolve("built").id == built.id and store.resolve("example.com/a:1").id == pulled.id
    assert os.listdir(store.ingest) == os.listdir(f"{store.root}/leases") == []


def damage(path: str) -> None:
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 1
    Path(path).write_bytes(data)


TREES: dict[str, tuple[Callable[[str], object], str]] = {
    "content": (lambda tree: damage(f"{tree}/file1"), "/file1"),
    "mode": (lambda tree: os.chmod(f"{tree}/file1", 0o600), "/file1: mode"),
    "owner": (lambda tree: os.chown(f"{tree}/file1", 5, 5), "/file1: owner"),
    "time": (lambda tree: os.utime(f"{tree}/file1", (5, 5)), "/file1: time"),
    "missing": (lambda tree: os.unlink(f"{tree}/file1"), "/file1: missing"),
    "too much": (lambda tree: Path(f"{tree}/more").touch(), "/more: too much"),
    "attribute": (lambda tree: os.setxattr(f"{tree}/file1", "user.x", b"y"), "/file1: attribute user.x"),
    "link": (lambda tree: (os.unlink(f"{tree}/file1"), os.symlink("x", f"{tree}/file1")), "/file1: mode"),
    "opaque": (lambda tree: os.setxattr(tree, "trusted.overlay.opaque", b"y"), "/: attribute"),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="owners and trusted attributes are root's")
@pytest.mark.parametrize("kind", TREES)
def test_a_damaged_layer_comes_back_from_its_blob(store: Store, pulled: Image, kind: str) -> None:
    act, words = TREES[kind]
    act(pulled.layers[0].path)
    (found,) = problems(store)
    assert found.kind == "layer" and words in found.what and "example.com/a:1" in found.what and not found.repaired
    running = problems(store, True, lambda: {pulled.id})
    assert not running[0].repaired and "stop it" in running[0].what
    (repaired,) = problems(store, repair=True)
    assert repaired.repaired and problems(store) == []
    image = store.resolve("example.com/a:1")
    assert image.layers == pulled.layers and len(View(image.rootfs).read("/file1", 1 << 20)) == 300_000


def test_a_damaged_layer_that_was_made_here_goes(store: Store, built: Image, pulled: Image) -> None:
    damage(f"{built.layers[1].path}/b")
    layer, image = problems(store)
    assert layer.kind == "layer" and "of built:latest is damaged" in layer.what
    assert image.kind == "image" and "built:latest" in image.what and "pull built:latest" in image.what
    assert [found.repaired for found in problems(store, repair=True)] == [True, True]
    assert problems(store) == [] and list(store.references()) == ["example.com/a:1"]
    assert "Deleted layer" in "".join(store.prune()) and problems(store) == []


def test_a_damaged_blob(store: Store, pulled: Image) -> None:
    (row,) = store.blob_rows(os.path.dirname(pulled.layers[0].path))
    damage(store.blob_path(row["digest"]))
    found = problems(store, repair=True)
    assert [(one.kind, one.repaired) for one in found] == [("blob", True), ("layer", False)]
    assert "neither checked nor shipped; pull or load it again" in found[1].what
    assert len(View(store.resolve("example.com/a:1").rootfs).read("/file1", 1 << 20)) == 300_000, "it runs"
    held = Held(DATA)
    finish(fetch(store, held, [NAME]))
    assert [digest for digest, _ in held.opened] == [row["digest"]] and problems(store) == []


def test_damaged_records(store: Store, pulled: Image, built: Image) -> None:
    record, name = store.manifest_path(built.id), next(os.scandir(f"{store.root}/refs")).path
    kept = Path(record).read_bytes()
    for data in (b"", b"[]", b"{", kept.replace(built.layers[0].chain_id.encode(), b"sha256:" + b"0" * 64)):
        Path(record).write_bytes(data)
        (found,) = problems(store)
        assert (found.kind, found.path) == ("image", record)
    Path(record).write_bytes(kept)
    Path(name).write_bytes(b"{}")
    Path(f"{store.root}/leases/whatever").touch()
    assert {found.kind for found in problems(store)} == {"name", "lease"}
    assert all(found.repaired for found in problems(store, repair=True)) and problems(store) == []


def test_lost_configs_manifests_and_layers(store: Store, pulled: Image, built: Image) -> None:
    os.unlink(store.blob_path(store.record(pulled.id).manifest))
    assert [found.kind for found in problems(store, repair=True)] == ["image"]
    assert store.record(pulled.id).manifest == "" and problems(store) == []
    os.unlink(store.blob_path(pulled.id))
    shutil.rmtree(os.path.dirname(built.layers[0].path))
    found = problems(store, repair=True)
    assert {one.what.partition(": ")[0] for one in found} == {"image example.com/a:1 is damaged", "image built:latest is damaged"}
    assert problems(store) == [] and store.images() == []


def test_a_layers_record(store: Store, pulled: Image) -> None:
    path = f"{os.path.dirname(pulled.layers[1].path)}/layer.json"
    Path(path).write_text(json.dumps({**json.loads(Path(path).read_text()), "parent": "sha256:" + "1" * 64}))
    assert [found.kind for found in problems(store, repair=True)] == ["layer", "image"]
    assert problems(store) == []


def test_what_is_used(store: Store, pulled: Image, built: Image) -> None:
    store.remember("key", built.layers[1])
    images, cache, blobs = usage(store, {pulled.id: 2})
    assert (images.total, images.active, images.size, images.reclaimable) == (2, 1, 301_000 + 2, 2)
    assert {item.name: (item.size, item.unique, item.uses) for item in images.items} == {
        "example.com/a:1": (301_000, 301_000, 2),
        "built:latest": (2, 2, 0),
    }
    assert (cache.total, cache.size) == (0, 0)
    assert blobs.total == blobs.active == 5 and blobs.reclaimable == 0
    assert blobs.size == sum(os.path.getsize(path) for path in Path(store.root, "blobs/sha256").iterdir())
    store.remove("built")
    Path(store.ingest, "blob-" + "0" * 64).write_bytes(b"x" * 100)
    images, cache, blobs = usage(store, {})
    assert (images.total, images.reclaimable) == (1, 301_000)
    assert (cache.total, cache.active, cache.size, cache.reclaimable) == (1, 0, 1, 1)
    assert blobs.reclaimable == 100
    expected = cache.reclaimable + blobs.reclaimable
    assert store.prune().reclaimed == expected
    assert all(row.reclaimable == 0 for row in usage(store, {pulled.id: 1}))
