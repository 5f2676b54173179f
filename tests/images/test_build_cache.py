"""What builds leave for later builds is kept, counted, bounded and pruned, and never taken from a build that goes on."""

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
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.errors import BuildError, LimitError
from pycontainers.events import finish
from pycontainers.images import build_cache, collect, forms
from pycontainers.images.descriptor import OCI_CONFIG, Descriptor
from pycontainers.images.manifest import make
from pycontainers.images.store import Image, Layer, Store
from pycontainers.images.usage import usage
from pycontainers.images.verify import verify
from pycontainers.images.view import View
from pycontainers.protocol import BuildRequest

from .conftest import config, fill

Make = Callable[..., Layer]


def let_go(store: Store) -> None:
    """As if the processes that had made what is here were gone."""
    for name in os.listdir(f"{store.root}/leases"):
        os.unlink(f"{store.root}/leases/{name}")


def step(store: Store, key: str, used: float, parent: str = "", size: int = 100) -> Layer:
    """A finished step whose layer has ``size`` bytes, last used so many seconds ago."""
    tree = store.new_layer()
    Path(tree, key).write_bytes(random.Random(key).randbytes(size))
    made = store.commit(tree, parent)
    store.remember(key, made, {"kind": "run", "text": key})
    os.utime(store.cache_path(key), (time.time() - used,) * 2)
    return made


def known(store: Store, *keys: str) -> str:
    return "".join(key for key in keys if store.cache_entry(store.cache_path(key)))


def size(store: Store) -> int:
    return next(row.size for row in usage(store, {}) if row.kind == "Build cache")


# -- cache mounts


def used(store: Store, id: str) -> str:
    """The folder of a cache mount that somebody had a moment ago."""
    held = store.hold_cache_mount(id)
    assert held is not None
    os.close(held[1])
    return held[0]


def test_a_cache_mount_is_one_folder_for_one_id(store: Store) -> None:
    ids = ["/root/.cache", "apt", "../../etc", "a\nb", "ä" * 300, "\udcff", ""]
    folders = [used(store, id) for id in ids]
    assert len(set(folders)) == len(ids)
    for id, folder in zip(ids, folders, strict=True):
        assert os.path.dirname(os.path.dirname(folder)) == f"{store.root}/cachemounts" and os.listdir(folder) == []
        assert os.stat(folder).st_mode & 0o7777 == 0o755
        Path(folder, "mine").write_text(repr(id))
        assert used(store, id) == folder and json.loads(Path(folder, "../mount.json").read_bytes()) == {"id": id}
    assert [Path(folder, "mine").read_text() for folder in folders] == [repr(id) for id in ids]
    assert finish(verify(store)) == []


def test_cache_mounts_are_counted_as_they_grow(store: Store) -> None:
    folder = Path(used(store, "pip"))
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/a").write_bytes(b"x" * 1000)
    os.link(folder / "deep/er/a", folder / "b")
    os.symlink("/etc/passwd", folder / "c")
    row = next(row for row in usage(store, {}) if row.kind == "Build cache")
    assert (row.total, row.active, row.size, row.reclaimable) == (1, 0, 1000, 1000)
    assert [(item.name, item.id) for item in row.items] == [("cache mount", "pip")]
    (folder / "d").write_bytes(b"x" * 500)
    assert size(store) == 1000  # nobody has used it as far as anybody knows: it is not looked through again
    used(store, "pip")
    assert size(store) == 1500
    used(store, "pip")
    (folder / "e").write_bytes(b"x" * 250)
    pruned = store.prune_builds()
    assert pruned == ["Deleted cache mount: pip"] and pruned.reclaimed == 1750 and size(store) == 0
    assert not folder.exists() and os.listdir(store.ingest) == []
    assert os.listdir(used(store, "pip")) == []


@pytest.mark.parametrize("alone", [False, True])
def test_a_cache_mount_in_use_stays(store: Store, alone: bool) -> None:
    held = store.hold_cache_mount("apt", alone)
    assert held is not None
    folder, fd = held
    assert (store.hold_cache_mount("apt", True), store.hold_cache_mount("npm", True) is not None) == (None, True)
    second = store.hold_cache_mount("apt", False)
    assert (second is None) == alone
    if second is not None:
        os.close(second[1])
    let_go(store)
    for _ in (store.prune(), store.prune_builds(all=True), store.bound_cache(0)):
        assert os.path.isdir(folder)
    os.close(fd)
    assert "Deleted cache mount: apt" in store.prune_builds() and not os.path.exists(folder)


_USER = """
import os, sys, time
from pathlib import Path
from typing import Any
from pycontainers.images.store import Store
from pycontainers.paths import Paths
home = Path(sys.argv[1]).parent
store = Store(Paths(home, home))
until = time.monotonic() + 1.2
count = 0
while time.monotonic() < until:
    held = store.hold_cache_mount("shared", alone=False)
    if held is None:
        continue
    folder, fd = held
    name = f"{folder}/{os.getpid()}-{count}"
    with open(name, "w") as file:
        file.write("x")
    time.sleep(0.001)
    assert os.path.exists(name), "it was taken away under our feet"
    os.unlink(name)
    os.close(fd)
    count += 1
print(count)
"""


def test_several_processes_and_a_prune(store: Store) -> None:
    users = [subprocess.Popen([sys.executable, "-c", _USER, store.root], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    pruned = 0
    while any(user.poll() is None for user in users):
        pruned += len(store.prune_builds(all=True))
    counts = [int(user.communicate()[0]) for user in users]
    assert [user.returncode for user in users] == [0, 0, 0] and min(counts) > 0 and pruned > 0


# -- steps


def test_what_is_known_of_steps(store: Store, layer: Make) -> None:
    made = layer({"/a": "1"})
    files = {f"file{number}\udcff": f"{number:08x}" for number in range(10_000)}
    store.remember("key", made, {"kind": "copy", "files": files})
    store.remember("other", made)
    (facts,) = store.cache_facts()
    assert facts == {"kind": "copy", "files": files, "key": "key", "layer": made.chain_id, "when": facts["when"], "kept": True}
    assert abs(facts["when"] - time.time()) < 5
    assert os.path.getsize(store.facts_path("key")) < 200_000
    assert os.path.getsize(store.cache_path("key")) < 300  # what every build reads has not grown
    os.unlink(store.cache_path("key"))
    (facts,) = store.cache_facts()
    assert facts["kept"] is False and facts["kind"] == "copy"
    Path(store.facts_path("key")).write_bytes(b"")
    assert list(store.cache_facts()) == []


def test_use_is_noted_at_most_once_a_minute(store: Store) -> None:
    step(store, "key", used=30)
    before = os.stat(store.cache_path("key")).st_mtime
    assert store.cached("key") and os.stat(store.cache_path("key")).st_mtime == before
    os.utime(store.cache_path("key"), (0, before - 60))
    assert store.cached("key") and os.stat(store.cache_path("key")).st_mtime > before


# -- bounds


def test_what_was_used_longest_ago_goes_first(store: Store) -> None:
    base = step(store, "a", used=5000)
    step(store, "b", used=100, parent=base.chain_id)  # keeps what it stands on
    step(store, "c", used=3000)
    step(store, "d", used=200)
    let_go(store)
    assert size(store) == 400
    assert store.bound_cache(400) == [] and known(store, *"abcd") == "abcd"
    pruned = store.bound_cache(399)
    assert known(store, *"abcd") == "abd" and pruned.reclaimed == 100 and size(store) == 300
    pruned = store.bound_cache(250)
    assert known(store, *"abcd") == "ab" and size(store) == 200
    pruned = store.bound_cache(150)
    assert known(store, *"abcd") == "a" and size(store) == 100
    assert {facts["key"]: facts["kept"] for facts in store.cache_facts()} == {"a": True, "b": False, "c": False, "d": False}
    store.bound_cache(0)
    assert known(store, *"abcd") == "" and size(store) == 0 and finish(verify(store)) == []


def test_cache_mounts_and_blobs_count_in_the_bound(store: Store) -> None:
    step(store, "a", used=50, size=1000)
    folder = used(store, "m")
    Path(folder, "x").write_bytes(b"x" * 5000)
    os.utime(f"{folder}/../mount.json", (0, time.time() - 500))
    let_go(store)
    assert store.bound_cache(6000) == []
    assert store.bound_cache(5999) == ["Deleted cache mount: m"] and known(store, "a") == "a"


def test_what_an_image_has_costs_the_cache_nothing(store: Store) -> None:
    made = step(store, "a", used=5000)
    alone = step(store, "b", used=10)
    image = store.save_image({**config(), "rootfs": {"type": "layers", "diff_ids": [made.diff_id]}}, [made], "")
    store.tag(image.id, "app")
    let_go(store)
    assert size(store) == 100 and store.bound_cache(100) == []
    assert store.bound_cache(0) != [] and known(store, "a", "b") == "a" and not os.path.exists(alone.path)
    assert store.prune_builds() == [] and known(store, "a") == "a"
    assert store.prune() == [] and known(store, "a") == "a"
    assert store.prune_builds(all=True) == [] and known(store, "a") == ""
    assert View(store.resolve("app").rootfs).read("/a") and list(store.cache_facts()) == []
    store.remember("a", made)
    store.remove("app")
    assert store.bound_cache(100) == [] and known(store, "a") == "a"  # what was the image's is the cache's now, and counts
    assert size(store) == 100 and len(store.bound_cache(99)) == 1 and not os.path.exists(made.path)


def test_sizes_add_up(store: Store) -> None:
    """What df says could go comes back, and is what it was in the bound: layers, their blobs, cache mounts."""
    mine, alone = step(store, "a", used=10, size=3000), step(store, "b", used=10, size=70_000)
    image = store.save_image({**config(), "rootfs": {"type": "layers", "diff_ids": [mine.diff_id]}}, [mine], "")
    store.tag(image.id, "app")
    for layer in (mine, alone):
        forms.blob_of(store, layer, "gzip", False, lambda done: None, "x")
    Path(used(store, "m"), "x").write_bytes(b"x" * 500)
    let_go(store)
    before = {row.kind: row for row in usage(store, {image.id: 1})}
    (blob,) = store.blob_rows(os.path.dirname(alone.path))
    assert before["Build cache"].reclaimable == 70_500 and before["Blobs"].reclaimable == blob["size"] > 70_000
    whole = 70_500 + blob["size"]
    assert store.bound_cache(whole) == [] and known(store, "a", "b") == "ab"
    assert store.prune_builds().reclaimed == whole
    after = {row.kind: row for row in usage(store, {image.id: 1})}
    assert before["Build cache"].size - after["Build cache"].size + before["Blobs"].size - after["Blobs"].size == whole
    assert store.whole(make(Descriptor(OCI_CONFIG, image.id, 1), forms.forms_of(store, mine)).raw), "the image can be shipped as before"


def test_who_is_killed_holds_nothing(store: Store) -> None:
    program = "import sys; exec(sys.argv[2]); print(store.hold_cache_mount('m', True)[0], flush=True); sys.stdin.read()"
    prelude = "from pathlib import Path; from pycontainers.images.store import Store; from pycontainers.paths import Paths\n"
    prelude += "home = Path(sys.argv[1]).parent; store = Store(Paths(home, home))"
    words = [sys.executable, "-c", program, store.root, prelude]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        folder = child.stdout.readline().strip()
        Path(folder, "kept").touch()
        assert store.hold_cache_mount("m") is None and store.prune_builds(all=True) == []
        child.kill()
        child.wait()
    assert used(store, "m") == folder and os.listdir(folder) == ["kept"]


def test_what_a_running_build_has_found_stays(store: Store) -> None:
    for key in "abc":
        step(store, key, used=1000)
    let_go(store)
    layer = store.cached("b")
    assert layer is not None
    for pruned in (store.prune_builds(all=True), store.bound_cache(0), store.prune()):
        assert os.path.isdir(layer.path) and known(store, *"abc") == "b", pruned
    assert store.save_image(config(), [layer], "").layers == (layer,)


def test_each_build_counts_on_its_own(store: Store) -> None:
    """Two in one process: what one gives up the other keeps, for as long as it takes."""
    step(store, "a", used=1000)
    let_go(store)
    one, two = Store(store.paths, holder="b1"), Store(store.paths, holder="b2")
    layer = one.cached("a")
    assert layer is not None and two.cached("a") == layer
    one.release_all()
    for name in os.listdir(f"{store.root}/leases"):
        os.utime(f"{store.root}/leases/{name}", (time.time() - 3600,) * 2)
    assert store.prune_builds(all=True) == [] and os.path.isdir(layer.path)
    two.release_all()
    assert os.listdir(f"{store.root}/leases") == [] and len(store.prune_builds()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's build is done elsewhere")
def test_a_build_that_is_over_counts_on_nothing(store: Store, disk: Path) -> None:
    engine = NativeEngine(store.paths)
    (disk / "a").write_text("a")
    made = finish(engine.build(BuildRequest("FROM scratch AS x\nCOPY a /a\nFROM scratch\nCOPY --from=x /a /b", str(disk), ("app",))))
    with pytest.raises(BuildError):
        finish(engine.build(BuildRequest("FROM scratch\nCOPY a /c\nCOPY missing /d", str(disk))))
    assert os.listdir(f"{store.root}/leases") == []
    assert size(store) == 2 and engine.prune_builds().reclaimed == 2
    assert View(store.resolve("app").rootfs).read("/b") == b"a" and made.id == store.resolve("app").id


def test_prune_by_age_and_by_size(store: Store) -> None:
    for number, key in enumerate("abcd"):
        step(store, key, used=1000 * number)
    let_go(store)
    store.prune_builds(until=time.time() - 2500)
    assert known(store, *"abcd") == "abc"
    assert store.prune_builds(keep_bytes=200).reclaimed == 100 and known(store, *"abcd") == "ab"
    assert store.prune_builds(keep_bytes=200) == []
    assert store.prune_builds(keep_bytes=0, until=time.time() - 500).reclaimed == 100 and known(store, *"abcd") == "a"
    os.utime(store.cache_path("a"), (time.time() + 3600,) * 2)  # a clock that was set back
    assert store.prune_builds().reclaimed == 100


def test_the_bound_costs_nothing_where_nothing_changed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    step(store, "a", used=10)
    store.bound_cache(1000)
    monkeypatch.setattr(build_cache, "contents", lambda *_, **__: pytest.fail("it looked again"))
    assert store.cached("a") and store.bound_cache(1000) == []
    monkeypatch.undo()
    step(store, "old", used=1000, size=950)
    let_go(store)
    assert len(store.bound_cache(1000)) == 1 and store.cached("a")
    monkeypatch.setattr(build_cache, "contents", lambda *_, **__: pytest.fail("it looked again"))
    assert store.bound_cache(1000) == []
    for change in (lambda: step(store, "b", used=1), lambda: used(store, "m"), lambda: store.bound_cache(999)):
        monkeypatch.undo()
        let_go(store)
        store.bound_cache(1000)
        monkeypatch.setattr(build_cache, "contents", lambda *_, **__: pytest.fail("it looked again"))
        with pytest.raises(pytest.fail.Exception):
            change()
            store.bound_cache(1000)


def test_the_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(build_cache.LIMIT, raising=False)
    assert 2_000_000_000 <= build_cache.limit(store.root) <= 20_000_000_000
    for said, meant in (("5g", 5 << 30), ("0", 0), ("123", 123)):
        monkeypatch.setenv(build_cache.LIMIT, said)
        assert build_cache.limit(store.root) == meant
    monkeypatch.setenv(build_cache.LIMIT, "-1")
    assert build_cache.limit(store.root) > 1 << 60
    monkeypatch.setenv(build_cache.LIMIT, "lots")
    with pytest.raises(LimitError, match="PYCONTAINERS_BUILD_CACHE 'lots' is not a size"):
        build_cache.limit(store.root)
    step(store, "a", used=10)
    let_go(store)
    monkeypatch.setenv(build_cache.LIMIT, "99")
    assert len(store.bound_cache()) == 1


def test_few_facts_of_what_is_gone_stay(store: Store, layer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_cache, "_FACTS", 3)
    made = layer({"/a": "1"})
    for number in range(8):
        store.remember(str(number), made, {"number": number})
        os.utime(store.facts_path(str(number)), (0, 1000 + number))
    store.bound_cache(10**9)
    assert len(list(store.cache_facts())) == 8  # their layer is here
    for number in range(8):
        os.unlink(store.cache_path(str(number)))
    store.bound_cache(10**9 + 1)
    assert [facts["number"] for facts in store.cache_facts()] == [7, 6, 5]
    store.prune_builds()
    assert list(store.cache_facts()) == []


def test_builds_and_prunes_side_by_side(store: Store) -> None:
    """No build loses a layer that it has found; what is found is whole."""
    failed: list[BaseException] = []
    until, found = time.monotonic() + 1.5, [0]

    def build(number: int) -> None:
        try:
            for count in range(10**6):
                if time.monotonic() > until:
                    return
                layer = store.cached(f"{number} {count % 4}")
                if layer is None:
                    tree = store.new_layer()
                    fill(tree, {"/a": f"{number} {count % 4}"})
                    layer = store.commit(tree, "")
                    store.remember(f"{number} {count % 4}", layer, {"count": count})
                else:
                    found[0] += 1
                assert Path(layer.path, "a").read_text() == f"{number} {count % 4}"
                image = store.save_image({**config(f"{number}"), "rootfs": {"diff_ids": [layer.diff_id]}}, [layer], "")
                store.tag(image.id, f"name{number}")
                assert Path(layer.path, "a").exists()
        except BaseException as error:
            failed.append(error)

    def prune() -> None:
        try:
            while time.monotonic() < until:
                store.prune_builds()
                store.bound_cache(1)
                time.sleep(0.005)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=build, args=(number,)) for number in range(3)] + [threading.Thread(target=prune)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and found[0] > 0


# -- killed


_STEPS = ("rename", "unlink", "rmdir", "mkdir", "chmod", "utime", "open", "close")


def killed(act: Callable[[], object], at: int) -> bool:
    """Do ``act`` in a child that is killed before its system call number ``at``; whether it came that far."""
    child = os.fork()
    if child == 0:
        left = [at]

        def counted(call: Callable[..., object]) -> Callable[..., object]:
            def counting(*arguments: object, **options: object) -> object:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)

            return counting

        try:
            for name in _STEPS:
                setattr(os, name, counted(getattr(os, name)))
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_a_cache_mount_killed_at_any_moment(store: Store) -> None:
    at = 0
    while killed(lambda: Path(used(store, "m"), "x").touch(), at):
        at += 1
        assert finish(verify(store)) == []
        assert os.path.isdir(used(store, "m"))
        store.prune_builds(all=True)
        store.new_layer()
        store.prune()
        let_go(store)
        store.prune_builds(all=True)
        assert os.listdir(f"{store.root}/cachemounts") == []
    assert at > 8


def test_a_bound_killed_at_any_moment(store: Store) -> None:
    kept = step(store, "kept", used=10_000)
    image = store.save_image({**config(), "rootfs": {"type": "layers", "diff_ids": [kept.diff_id]}}, [kept], "")
    store.tag(image.id, "app")
    at, after = 0, 0

    def fill_up() -> None:
        parent = ""
        for number in range(3):
            parent = step(store, f"key{number}", used=100, parent=parent).chain_id
        Path(used(store, "m"), "x").write_bytes(b"x" * 100)
        os.utime(f"{store.mount_path('m')}/mount.json", (0, time.time() - 1000))
        let_go(store)

    fill_up()
    while killed(lambda: store.bound_cache(150), at):
        at += 1
        assert finish(verify(store)) == []
        assert View(store.resolve("app").rootfs).read("/kept") and store.cached("kept") == kept
        let_go(store)
        after += size(store) < 400
        store.bound_cache(150)
        assert size(store) <= 150 and known(store, "key0") and finish(verify(store)) == []
        store.new_layer()
        store.discard(store.new_layer())
        fill_up()
    assert at > 30 and after > 3


# -- damage


def test_damage_is_found_and_put_right(store: Store) -> None:
    made = step(store, "key", used=0)
    mount = store.mount_path("m")
    used(store, "m")
    let_go(store)
    damages: list[Callable[[], object]] = [
        lambda: Path(store.cache_path("key")).write_text("{"),
        lambda: Path(f"{store.root}/cache/what").touch(),
        lambda: Path(store.facts_path("key")).write_bytes(b"no"),
        lambda: Path(f"{mount}/mount.json").write_text(""),
        lambda: Path(f"{mount}/mount.json").write_text('{"id": "other"}'),
        lambda: os.rmdir(f"{mount}/data"),
        lambda: os.mkdir(f"{store.root}/cachemounts/{'0' * 32}"),
    ]
    for damage in damages:
        damage()
        (found,) = finish(verify(store))
        assert found.kind == "cache" and not found.repaired and "\n" not in found.what
        usage(store, {})
        store.cached("key"), list(store.cache_facts())
        assert [one.repaired for one in finish(verify(store, repair=True))] == [True]
        assert finish(verify(store)) == []
        store.remember("key", made, {})
        assert os.listdir(used(store, "m")) == []
        let_go(store)


# -- the engine


def test_the_engine_prunes_builds(store: Store, image: Callable[..., Image]) -> None:
    engine = NativeEngine(store.paths)
    step(store, "a", used=100)
    step(store, "b", used=1000)
    let_go(store)
    before = next(row for row in engine.system_df() if row.kind == "Build cache")
    assert (before.total, before.size, before.reclaimable) == (2, 200, 200)
    assert engine.prune_builds(until=time.time() - 500).reclaimed == 100
    assert engine.prune_builds().reclaimed == 100
    assert collect.needed(store) == set()


_BUILDER = """
import sys, time
from pycontainers.engines.native import engine
from pycontainers.events import finish
from pycontainers.protocol import BuildRequest
until, count = time.monotonic() + 4.0, 0
while time.monotonic() < until:
    text = f'''FROM host AS tools
RUN --mount=type=cache,target=/kept,sharing={sys.argv[1]} \\
    echo {count % 3} >/kept/$$ && sleep 0.05 && rm /kept/$$ && echo {sys.argv[1]} >/made
FROM host
RUN echo {count % 3} >/first
COPY --from=tools /made /made
RUN cat /first /made'''
    finish(engine().build(BuildRequest(text, "", network="none", tags=(sys.argv[1],))))
    count += 1
print(count)
"""


@pytest.mark.root
def test_real_builds_and_prunes_side_by_side(engine: NativeEngine) -> None:
    """Two processes build with one cache mount, this one takes away whatever it may; every build ends well."""
    words = [sys.executable, "-c", _BUILDER]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    builders = [subprocess.Popen([*words, sharing], **pipes) for sharing in ("shared", "locked")]
    pruned = []
    while any(builder.poll() is None for builder in builders):
        pruned += engine.prune_builds(all=True)
        pruned += engine.store.bound_cache(0)
    for builder in builders:
        out, err = builder.communicate()
        assert builder.returncode == 0 and int(out) > 1, err
    assert any("cache mount" in line for line in pruned) and any("Deleted layer" in line for line in pruned)
    engine.prune_builds(all=True)
    assert os.listdir(f"{engine.store.root}/cachemounts") == [] and finish(verify(engine.store)) == []
    for sharing in ("shared", "locked"):
        engine.remove_image(sharing)
