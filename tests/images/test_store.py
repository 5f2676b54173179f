from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pycontainers.errors import ImageError, NotFound, StateError, UsageError
from pycontainers.images import durable, reference
from pycontainers.images.descriptor import Descriptor
from pycontainers.images.manifest import digest, make
from pycontainers.images.store import Image, Layer, Store
from pycontainers.images.view import View

from .conftest import config, fill

Make = Callable[..., Image]


def files(store: Store, folder: str) -> set[str]:
    return set(os.listdir(f"{store.root}/{folder}"))


def test_resolve_by_name_and_id(store: Store, image: Make) -> None:
    made = image("visits", "example.com/a/b:1")
    assert made.names == ("example.com/a/b:1", "visits:latest") and made.id.startswith("sha256:")
    for name in ("visits", "visits:latest", "docker.io/library/visits", "example.com/a/b:1", made.id, made.id[7:], made.id[7:19]):
        assert store.resolve(name).id == made.id
    assert View(made.rootfs).read("/content") == b"x"
    assert store.info(made).size == 1 and store.info(made).created == 1767323045.0


def test_not_found_offers_near_names(store: Store, image: Make) -> None:
    image("visits")
    with pytest.raises(NotFound, match="no image 'vists'") as caught:
        store.resolve("vists")
    assert "visits" in caught.value.hint
    for name in ("hots", "Visits", "sha256:beef", "abc", "", "../../etc/passwd", "x" * 300):
        with pytest.raises(NotFound) as caught:
            store.resolve(name)
        assert caught.value.hint


def test_the_id_is_the_digest_of_the_config(store: Store, image: Make) -> None:
    made = image("visits")
    data = Path(store.root, "blobs/sha256", made.id[7:]).read_bytes()
    import hashlib

    assert made.id == f"sha256:{hashlib.sha256(data).hexdigest()}" and json.loads(data) == made.config
    assert image("again").id == made.id


def test_scratch_is_an_empty_folder(store: Store) -> None:
    empty = store.resolve("scratch")
    assert View(empty.rootfs).listdir("/") == [] and empty.layers == () and empty.chain_id == ""
    with pytest.raises(ImageError):
        store.tag(empty.id, "x")


def test_equal_content_is_one_snapshot(store: Store, layer: Callable[..., Layer]) -> None:
    one, two = (store.new_layer() for _ in range(2))
    for tree in (one, two):
        fill(tree, {"/a": "1"})
        for path in (tree, f"{tree}/a"):
            os.utime(path, (0, 0))
    first, second = store.commit(one, ""), store.commit(two, "")
    assert first == second and len(files(store, "snapshots")) == 1 and files(store, "ingest") == set()
    other = store.new_layer()
    fill(other, {"/a": "1"})
    os.utime(f"{other}/a", (0, 0))
    above = store.commit(other, first.chain_id)
    assert above.diff_id == first.diff_id and above.chain_id != first.chain_id


def test_a_tag_moves(store: Store, image: Make) -> None:
    first, second = image("visits", content="1"), image("visits", content="2")
    assert store.resolve("visits").id == second.id != first.id
    assert store.resolve(first.id).names == ()
    with pytest.raises(UsageError):
        store.tag(first.id, "host")
    with pytest.raises(NotFound):
        store.tag("sha256:" + "0" * 64, "x")
    store.untag("visits")
    with pytest.raises(NotFound):
        store.untag("visits")


def test_history_is_newest_first(store: Store, image: Make) -> None:
    rows = store.history(image("visits"))
    assert [(row.created_by, row.size, row.empty) for row in rows] == [("CMD x", 0, True), ("COPY x", 1, False)]


def test_remove_takes_names_first(store: Store, image: Make) -> None:
    made = image("one", "two")
    with pytest.raises(StateError, match="has 2 names"):
        store.remove(made.id)
    assert store.remove("one") == ["Untagged: one:latest"]
    said = store.remove("two")
    assert said[:2] == ["Untagged: two:latest", f"Deleted: {made.id}"] and said[2].startswith("Deleted layer: ")
    for folder in ("snapshots", "blobs/sha256", "manifests", "refs", "ingest", "leases"):
        assert files(store, folder) == set(), folder
    with pytest.raises(NotFound):
        store.remove("two")
    for name in ("host", "host:latest", "scratch"):
        with pytest.raises(StateError):
            store.remove(name, force=True)


def test_an_image_in_use_stays(store: Store, image: Make) -> None:
    made = image("visits")
    for in_use in ({made.id}, lambda: [made.id]):
        with pytest.raises(StateError, match="used by a container"):
            store.remove("visits", in_use=in_use)
    assert store.remove("visits", force=True, in_use={made.id}) == ["Untagged: visits:latest"]
    assert store.prune({made.id}) == []
    assert os.path.isdir(made.layers[0].path)
    assert f"Deleted: {made.id}" in store.prune()
    assert files(store, "snapshots") == set()


def test_a_shared_layer_stays(store: Store, layer: Callable[..., Layer]) -> None:
    base = layer({"/a": "1"})
    top = layer({"/b": "2"}, base.chain_id)
    for name, stack in (("small", [base]), ("large", [base, top])):
        store.tag(store.save_image(config(name), stack, "").id, name)
    store.remove("large")
    assert os.path.isdir(base.path) and not os.path.exists(top.path)
    assert View(store.resolve("small").rootfs).read("/a") == b"1"


def test_the_cache_keeps_its_layers_until_prune(store: Store, image: Make) -> None:
    made = image("visits")
    store.remember("key", made.layers[0])
    store.remove("visits")
    assert store.cached("key") == made.layers[0]
    store.release([os.path.dirname(made.layers[0].path)])
    store.prune()
    assert store.cached("key") is None and files(store, "snapshots") == set()


def test_what_a_build_counts_on_survives_a_prune(store: Store, layer: Callable[..., Layer]) -> None:
    """A layer is committed, or found in the cache, some time before its image exists."""
    made = layer({"/a": "1"})
    assert store.prune() == []
    assert store.save_image(config(), [made], "").layers == (made,)
    assert files(store, "leases") == set()


def test_the_lease_of_an_ended_process_is_void(store: Store, layer: Callable[..., Layer]) -> None:
    made = layer({"/a": "1"})
    name = next(iter(files(store, "leases")))
    ended = subprocess.Popen(["true"])
    ended.wait()
    start, _, rest = name.partition("-")
    os.rename(f"{store.root}/leases/{name}", f"{store.root}/leases/{start}-{ended.pid}-{rest.partition('-')[2]}")
    assert [line[:14] for line in store.prune()] == ["Deleted layer:"] and not os.path.exists(made.path)


def test_an_image_of_removed_layers_is_refused(store: Store, layer: Callable[..., Layer]) -> None:
    made = layer({"/a": "1"})
    store.release([os.path.dirname(made.path)])
    store.prune()
    with pytest.raises(ImageError, match="was removed while"):
        store.save_image(config(), [made], "")
    assert store.images() == [] and files(store, "manifests") == set()


def test_a_damaged_image_is_not_listed_and_can_be_removed(store: Store, image: Make) -> None:
    good, bad = image("good", content="1"), image("bad", content="2")
    os.unlink(f"{store.root}/blobs/sha256/{bad.id[7:]}")
    assert [found.id for found in store.images()] == [good.id]
    with pytest.raises(ImageError, match="damaged"):
        store.resolve("bad")
    store.remove("bad")
    with pytest.raises(NotFound):
        store.resolve("bad")


def test_modes_do_not_depend_on_the_umask(disk: Path) -> None:
    from pycontainers.paths import Paths

    before = os.umask(0o077)
    try:
        store = Store(Paths(disk / "h", disk / "r").prepare())
        tree, empty = store.new_layer(), store.scratch().rootfs.base["/"]
        assert os.stat(tree).st_mode & 0o777 == 0o755 and os.stat(empty).st_mode & 0o777 == 0o755
        if os.geteuid() == 0:
            skeleton = store.resolve("host").rootfs.base["/"]
            assert os.stat(f"{skeleton}/etc/passwd").st_mode & 0o777 == 0o644
            closed = [p for p in Path(skeleton).rglob("*") if p.is_dir() and not p.is_symlink() and not p.stat().st_mode & 0o001]
            assert [p.name for p in closed] in ([], ["root"])
    finally:
        os.umask(before)


def test_work_of_a_killed_process_is_swept_and_of_a_living_one_spared(store: Store) -> None:
    child = subprocess.Popen([sys.executable, "-c", _BEGIN, store.root], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    begun = child.stdout.readline().strip()
    store.new_layer()
    assert os.path.isdir(begun)
    child.kill()
    child.wait()
    child.stdout.close()
    mine = store.new_layer()
    assert not os.path.exists(begun) and os.path.isdir(mine)


def test_work_on_another_machine_is_left_alone_for_a_day(store: Store) -> None:
    path = f"{store.ingest}/abcdef-1-2-{'0' * 32}-4026531836"
    for name in (path, f"{store.ingest}/somebody's"):
        os.mkdir(name)
        assert not durable.abandoned(name)
        os.utime(name, (0, time.time() - 2 * 86400))
        assert durable.abandoned(name)


# -- images from outside


def outside(store: Store, layer: Callable[..., Layer], **config_of: object) -> tuple[Image, bytes, bytes]:
    """An image as if it had come from a registry: one layer, and a blob for it."""
    made = layer({"/a": "1"})
    blob = b"as it came"
    store.add_blob(blob)
    form = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", digest(blob), len(blob))
    store.add_forms(made, [form])
    raw = json.dumps({"os": "linux", "config": config_of, "rootfs": {"type": "layers", "diff_ids": [made.diff_id]}}, indent=3).encode()
    sent = b" " + make(Descriptor("application/vnd.oci.image.config.v1+json", digest(raw), len(raw)), [form]).raw
    return store.add_image(raw, [made], manifest=sent), raw, sent


def test_an_image_from_outside_keeps_its_bytes(store: Store, layer: Callable[..., Layer]) -> None:
    made, raw, sent = outside(store, layer, Env=["A=b"], Cmd=None)
    assert made.id == digest(raw) and Path(store.blob_path(made.id)).read_bytes() == raw
    assert made.config["config"] == {"Env": ["A=b"]}, "null is what is not there"
    info = store.info(made)
    assert info.manifest == digest(sent) and Path(store.blob_path(info.manifest)).read_bytes() == sent and store.whole(info.manifest)
    store.tag(made.id, reference.parse("example.com/a:1"), digest(sent))
    store.tag(made.id, "mine")
    info = store.info(store.resolve("mine"))
    assert info.digests == (f"example.com/a@{digest(sent)}",) and info.layers == (made.layers[0].diff_id,)
    for name in (f"example.com/a@{digest(sent)}", f"example.com/a:1@{digest(sent)}", f"mine@{digest(sent)}"):
        assert store.resolve(name).id == made.id
    with pytest.raises(NotFound):
        store.resolve(f"example.com/b@{digest(sent)}")


def test_a_label_from_outside_makes_no_host_image(store: Store, layer: Callable[..., Layer]) -> None:
    """It would let an image say which folders of this machine it has for its own."""
    made, _, _ = outside(store, layer, Labels={"io.pycontainers.host": store.resolve("host").host, "a": "b"})
    assert made.host == "" and made.config["config"]["Labels"] == {"a": "b"} and made.rootfs.folders == ("/",)


def test_blobs_go_with_the_image(store: Store, layer: Callable[..., Layer]) -> None:
    made, raw, sent = outside(store, layer)
    store.tag(made.id, "a")
    assert store.prune() == [] and len(files(store, "blobs/sha256")) == 3
    store.add_blob(b"leased")
    store.lease(store.blob_path(digest(b"leased")))
    gone = store.remove("a")
    assert gone.reclaimed == 1 + len(b"as it came") + len(raw) + len(sent)
    assert files(store, "blobs/sha256") == {digest(b"leased")[7:]}
    store.release([store.blob_path(digest(b"leased"))])
    assert store.prune().reclaimed == len(b"leased") and files(store, "blobs/sha256") == set()


def test_a_second_manifest_counts_where_the_first_misses_a_layer(store: Store, layer: Callable[..., Layer]) -> None:
    made, raw, sent = outside(store, layer)
    other = sent + b" "
    store.add_image(raw, made.layers, manifest=other)
    assert store.info(store.resolve(made.id)).manifest == digest(sent)
    missing = sent.replace(digest(b"as it came").encode(), digest(b"x").encode())
    for manifest in (missing, other):
        store.write_record(made.id, replace(store.record(made.id), manifest=""))
        store.add_image(raw, made.layers, manifest=missing)
        store.add_image(raw, made.layers, manifest=manifest)
        assert store.info(store.resolve(made.id)).manifest == digest(manifest)


def test_a_record_of_an_earlier_version(store: Store, image: Make) -> None:
    made = image("old")
    path = store.manifest_path(made.id)
    kept = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps({**kept, "manifest": {"schemaVersion": 2}}))
    assert store.resolve("old").layers == made.layers and store.info(store.resolve("old")).manifest == ""


_BEGIN = """
import sys, time
from pathlib import Path
from pycontainers.images.store import Store
from pycontainers.paths import Paths
home = Path(sys.argv[1]).parent
print(Store(Paths(home, home)).new_layer(), flush=True)
time.sleep(60)
"""

_BUSY = """
import os, sys
from pathlib import Path
from pycontainers.images.store import Store
from pycontainers.paths import Paths
home = Path(sys.argv[1]).parent
store = Store(Paths(home, home))
print("ready", flush=True)
for number in range(10**6):
    tree = store.new_layer()
    for index in range(3):
        with open(f"{tree}/{index}", "w") as file:
            file.write(f"{number % 7} {index}")
    layer = store.commit(tree, "")
    store.remember(f"key{number % 7}", layer)
    config = {"number": number % 7, "config": {}, "history": []}
    image = store.save_image(config, [layer], "")
    store.tag(image.id, f"name{number % 3}")
    if number % 5 == 4:
        store.remove(f"name{number % 3}")
    if number % 11 == 10:
        store.prune()
"""


def test_killed_at_any_moment_the_store_is_whole(store: Store) -> None:
    rng = random.Random(7)
    images = 0
    for _ in range(12):
        child = subprocess.Popen([sys.executable, "-c", _BUSY, store.root], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.12))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        images += len(check_whole(store))
    assert images > 0, "no child got far enough to be killed at work"
    store.new_layer()
    assert len(files(store, "ingest")) == 1
    store.prune()
    for found in store.images():
        for name in found.names or [found.id]:
            store.remove(name, force=True)
    store.prune()
    assert files(store, "snapshots") == files(store, "manifests") == files(store, "blobs/sha256") == set()


def check_whole(store: Store) -> list[Image]:
    """Every image of the store, each complete; every name leads to one of them."""
    found = store.images()
    assert len(found) == len(files(store, "manifests")), "an image that cannot be loaded is left"
    for image in found:
        assert image.config["config"] == {}
        number = image.config["number"]
        view = View(image.rootfs)
        assert [view.read(f"/{index}").decode() for index in range(3)] == [f"{number} {index}" for index in range(3)]
    assert set(store.references().values()) <= {image.id for image in found}
    return found


def test_builders_and_prunes_side_by_side(store: Store) -> None:
    """Four builders and a pruner at once: no builder ever loses a layer under its feet."""
    failed: list[BaseException] = []
    until = time.monotonic() + 1.0

    def build(number: int) -> None:
        count = 0
        try:
            while time.monotonic() < until:
                count += 1
                tree = store.new_layer()
                fill(tree, {"/a": f"{number} {count % 3}"})
                layer = store.commit(tree, "")
                store.remember(f"{number} {count % 3}", layer)
                store.cached(f"{number} {count % 3}")
                image = store.save_image(config(f"{number} {count}"), [layer], "")
                store.resolve(image.id)
        except NotFound:
            pass
        except BaseException as error:
            if "damaged" not in str(error):  # pruned between save_image and the look: it never had a name
                failed.append(error)

    def prune() -> None:
        while time.monotonic() < until:
            store.prune()

    threads = [threading.Thread(target=build, args=(number,)) for number in range(3)] + [threading.Thread(target=prune)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_what_is_begun_lies_in_parts_of_the_disk_of_its_own(store: Store) -> None:
    """ext4 looks for inodes among those that were just given back otherwise (chattr +T)."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", store.ingest], capture_output=True, text=True, check=True).stdout.strip()
    if kind != "ext2/ext3":
        pytest.skip(f"ext4 alone knows it, this is {kind}")
    flags = subprocess.run(["lsattr", "-d", store.ingest], capture_output=True, text=True, check=True).stdout.split()[0]
    assert "T" in flags
