"""Pulling: in one pass, gone on with after a kill, by several at once, given up within a second; and what is not what it says."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pycontainers.errors import ContainersError, ImageError, NotFound, RegistryError
from pycontainers.events import Event, Note, Transfer, Work, finish
from pycontainers.images import manifest, reference
from pycontainers.images.crew import Stopped
from pycontainers.images.descriptor import OCI_CONFIG, OCI_LAYER, Descriptor, Platform
from pycontainers.images.fetch import _Tee, fetch
from pycontainers.images.ingest import Ingest
from pycontainers.images.manifest import Manifest
from pycontainers.images.store import Image, Store
from pycontainers.images.verify import verify
from pycontainers.images.view import View
from pycontainers.paths import Paths
from tests.images import peers, registries

NAME = reference.parse("example.com/a:1")


def layer(number: int, size: int = 1000, seed: int = 0) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(f"file{number}")
        info.size = size
        archive.addfile(info, io.BytesIO(random.Random(number + seed).randbytes(size)))
    return out.getvalue()


class Held:
    """A source in memory. ``slow``: seconds between two pieces; ``hang``: no more after so many bytes; ``change``: of what is read."""

    name = "held:1"

    def __init__(self, layers: list[bytes], *, packed: bool = True, config: dict[str, Any] | None = None) -> None:
        self.blobs = [gzip.compress(data, 1, mtime=0) if packed else data for data in layers]
        diffs = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]
        said = {"os": "linux", "architecture": Platform.own().architecture, "rootfs": {"type": "layers", "diff_ids": diffs}}
        self.raw = json.dumps({**said, **(config or {})}).encode()
        rows = [Descriptor(OCI_LAYER + "+gzip" * packed, manifest.digest(data), len(data)) for data in self.blobs]
        self.made = manifest.make(Descriptor(OCI_CONFIG, manifest.digest(self.raw), len(self.raw)), rows)
        self.opened: list[tuple[str, int]] = []
        self.slow, self.hang, self.piece = 0.0, -1, 1 << 16
        self.change: Callable[[bytes], bytes] = lambda data: data
        self.closed = threading.Event()

    def manifest(self, platform: Platform) -> Manifest:
        return self.made

    def config(self, manifest: Manifest) -> bytes:
        return self.raw

    def open(self, blob: Descriptor, offset: int = 0) -> Any:
        self.opened.append((blob.digest, offset))
        data = next(data for data in self.blobs if manifest.digest(data) == blob.digest)
        return _Reader(self, self.change(data), offset)

    def close(self) -> None:
        self.closed.set()


class _Reader:
    def __init__(self, held: Held, data: bytes, place: int) -> None:
        self.held, self.data, self.place = held, data, place
        self.closed = threading.Event()

    def read(self, size: int = -1) -> bytes:
        if self.held.slow:
            time.sleep(self.held.slow)
        if 0 <= self.held.hang <= self.place:
            self.closed.wait(30)
        if self.closed.is_set():
            raise RegistryError("the transfer was stopped")
        piece = self.data[self.place : self.place + min(self.held.piece, size if size >= 0 else 1 << 30)]
        self.place += len(piece)
        return piece

    def close(self) -> None:
        self.closed.set()


def check(store: Store, image: Image, layers: list[bytes]) -> None:
    view = View(image.rootfs)
    for data in layers:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None and view.read(f"/{member.name}", 1 << 26) == file.read()
    assert finish(verify(store)) == []


def test_an_image_keeps_its_digests(store: Store) -> None:
    layers = [layer(number, 300_000) for number in range(5)]
    held = Held(layers)
    events = list(fetch(store, held, [NAME], known_as=lambda: "sha256:" + "a" * 64))
    image = store.resolve("example.com/a:1")
    assert image.id == held.made.config.digest and store.info(image).manifest == held.made.digest
    assert store.info(image).digests == ("example.com/a@sha256:" + "a" * 64,)
    check(store, image, layers)
    shorts = {row.short for row in held.made.layers}
    for short in shorts:
        phases = [event.phase for event in events if isinstance(event, Transfer) and event.item == short]
        assert phases[-1] == "done" and "downloading" in phases
    assert sorted(os.listdir(f"{store.root}/blobs/sha256")) == sorted(
        digest[7:] for digest in [image.id, held.made.digest, *(row.digest for row in held.made.layers)]
    )
    assert os.listdir(f"{store.root}/leases") == os.listdir(store.ingest) == []
    again = list(fetch(store, held, [NAME]))
    assert {event.phase for event in again if isinstance(event, Transfer) and event.item in shorts} == {"exists"}
    assert len(held.opened) == 5


def test_shared_layers_are_unpacked_once(store: Store) -> None:
    layers = [layer(number) for number in range(4)]
    finish(fetch(store, Held(layers[:3])))
    held = Held(layers)
    finish(fetch(store, held))
    assert [digest for digest, _ in held.opened] == [held.made.layers[3].digest]
    other = Held([layers[3], layers[0]])  # the same blobs on another base: unpacked anew, not read anew
    image = finish(fetch(store, other))
    assert other.opened == [] and len(os.listdir(f"{store.root}/snapshots")) == 6
    check(store, image, [layers[3], layers[0]])


def test_the_same_layer_twice_in_an_image(store: Store) -> None:
    one = layer(1, 100_000)
    held = Held([one, one, one, layer(2), one])
    check(store, finish(fetch(store, held)), [one, layer(2)])
    assert len(held.opened) == 2


def test_an_image_for_another_platform_is_said(store: Store) -> None:
    events = list(fetch(store, Held([layer(1)], config={"architecture": "s390x"})))
    assert any(isinstance(event, Note) and "linux/s390x" in event.text for event in events)


@pytest.mark.parametrize("at", [0, 1, 100_000])
def test_it_goes_on_where_it_was_broken_off(store: Store, at: int) -> None:
    held = Held([layer(1, 400_000)])
    blob = held.made.layers[0]
    if at:
        Path(store.ingest, f"blob-{blob.hex}").write_bytes(held.blobs[0][:at])
    check(store, finish(fetch(store, held)), [layer(1, 400_000)])
    assert held.opened == [(blob.digest, at)]


def test_what_was_left_and_is_wrong_is_read_anew(store: Store) -> None:
    held = Held([layer(1, 400_000)])
    data = bytearray(held.blobs[0][:100_000])
    data[5_000:5_100] = bytes(100)
    Path(store.ingest, f"blob-{held.made.layers[0].hex}").write_bytes(data)
    check(store, finish(fetch(store, held)), [layer(1, 400_000)])
    assert [offset for _, offset in held.opened] == [100_000, 0]


def test_nothing_is_written_once_a_blob_is_forgotten(store: Store) -> None:
    """Somebody reads ahead while the disk becomes full under who unpacks: the next to get the blob would go on from what that leaves."""
    held = Held([layer(1, 400_000)])
    blob = held.made.layers[0]
    writing = Ingest.begin(store, blob.digest, blob.size)
    assert writing is not None
    tee = _Tee(SimpleNamespace(stop=threading.Event(), source=held, store=store), blob, writing, lambda *said: None)  # type: ignore[arg-type]
    assert tee.read(1 << 18)
    held.slow = 0.3
    ahead = threading.Thread(target=_quietly, args=(tee.read,))
    ahead.start()
    time.sleep(0.1)  # it is in the middle of reading
    assert tee._reader is not None
    tee._reader.close = lambda: None  # type: ignore[method-assign]  # one that gives what it has all the same
    tee.forget()
    ahead.join()
    assert os.path.getsize(Path(store.ingest, f"blob-{blob.hex}")) == 0
    with pytest.raises(Stopped):
        tee.read()
    writing.close()


def _quietly(read: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        read()


def nothing(store: Store) -> None:
    assert store.images() == [] and store.references() == {} and os.listdir(f"{store.root}/leases") == []
    left = [name for name in os.listdir(store.ingest) if not name.startswith("blob-")]
    assert left == [] and finish(verify(store)) == []


FLIPS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "exchanged": (lambda data: gzip.compress(layer(99, 400_000), 1, mtime=0)[: len(data)].ljust(len(data), b"\0"), "has the digest"),
    "flipped": (lambda data: data[:50_000] + bytes([data[50_000] ^ 1]) + data[50_001:], "has the digest"),
    "cut": (lambda data: data[:-100], "ends after"),
    "empty": (lambda data: b"", "ends after 0 of"),
    "html": (lambda data: (b"<html>" * len(data))[: len(data)], "has the digest"),
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", FLIPS)
def test_what_is_not_what_it_says(store: Store, kind: str, packed: bool) -> None:
    held = Held([layer(1, 400_000), layer(2)], packed=packed)
    change, words = FLIPS[kind]
    held.change = lambda data: change(data) if len(data) > 100_000 else data
    with pytest.raises(ImageError, match=words):
        finish(fetch(store, held, [NAME]))
    nothing(store)
    held.change = lambda data: data
    check(store, finish(fetch(store, held, [NAME])), [layer(1, 400_000), layer(2)])


def test_more_bytes_than_the_manifest_says_are_not_kept(store: Store) -> None:
    held = Held([layer(1)])
    held.change = lambda data: data + bytes(1 << 24)
    with pytest.raises(ImageError, match=f"larger than the {held.made.layers[0].size} bytes"):
        finish(fetch(store, held))
    nothing(store)


def test_a_layer_that_is_not_the_configs(store: Store) -> None:
    held = Held([layer(1)])
    wrong = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}).encode()
    held.raw = wrong
    with pytest.raises(ImageError, match="the config of held:1 has the digest"):
        finish(fetch(store, held))
    held.made = manifest.make(Descriptor(OCI_CONFIG, manifest.digest(wrong), len(wrong)), held.made.layers)
    with pytest.raises(ImageError, match="has the diff id"):
        finish(fetch(store, held))
    nothing(store)


def test_a_bomb_ends_at_the_disks_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that unpacks to more than there is room for is refused before the disk is full."""
    info = tarfile.TarInfo("big")
    info.size = 64 << 20
    held = Held([info.tobuf() + bytes(64 << 20) + bytes(1024)])
    assert len(held.blobs[0]) < 1 << 20
    real = os.statvfs(store.ingest)

    def small(path: Any) -> Any:
        return type("Found", (), {"f_bavail": (32 << 20) // real.f_frsize, "f_frsize": real.f_frsize})

    monkeypatch.setattr(os, "statvfs", small)
    with pytest.raises(ImageError, match="more than 33554432 bytes"):
        finish(fetch(store, held))
    nothing(store)


def test_given_up_within_a_second(store: Store) -> None:
    """Whoever closes the work waits for no network; nothing is visible, and the next try goes on."""
    layers = [layer(number, 400_000) for number in range(4)]
    for hang in (0, 100_000, 300_000):
        held = Held(layers)
        held.hang = hang
        work = fetch(store, held, [NAME])
        started = time.monotonic()
        for event in work:
            if isinstance(event, Transfer) and event.phase == "downloading" and event.done >= min(hang, 1):
                break
            assert time.monotonic() - started < 20
        time.sleep(0.1)
        started = time.monotonic()
        work.close()
        assert time.monotonic() - started < 1.5
        nothing(store)
    held = Held(layers)
    check(store, finish(fetch(store, held, [NAME])), layers)
    assert any(offset for _, offset in held.opened)


def test_an_error_ends_the_other_layers(store: Store) -> None:
    held = Held([layer(1, 400_000), layer(2, 400_000), layer(3)])
    held.hang = 200_000
    real = held.open

    def failing(blob: Descriptor, offset: int = 0) -> Any:
        if blob == held.made.layers[2]:
            raise RegistryError("no answer", "")
        return real(blob, offset)

    held.open = failing  # type: ignore[method-assign]
    started = time.monotonic()
    with pytest.raises(RegistryError, match="no answer"):
        finish(fetch(store, held))
    assert time.monotonic() - started < 5
    nothing(store)


def test_two_threads_and_two_images_at_once(store: Store) -> None:
    """The same layers wanted by several: each is read once."""
    layers = [layer(number, 200_000) for number in range(4)]
    helds = [Held(layers[:number]) for number in (4, 4, 3, 2)]
    failed: list[BaseException] = []

    def pull(held: Held) -> None:
        held.slow = 0.002
        try:
            finish(fetch(store, held))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=pull, args=(held,)) for held in helds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert sorted(digest for held in helds for digest, _ in held.opened) == sorted(row.digest for row in helds[0].made.layers)
    assert len(store.images()) == 3
    for image in store.images():
        check(store, image, layers[: len(image.layers)])


_PULL = """
import sys
from pathlib import Path
from pycontainers.images.crew import Stopped
from pycontainers.images.fetch import _Tee, fetch
from pycontainers.images.ingest import Ingest
from pycontainers.images.store import Store
from pycontainers.images.registry.client import Registry
from pycontainers.paths import Paths
from pycontainers.events import finish
from pycontainers.images import reference
home = Path(sys.argv[1]).parent
store = Store(Paths(home, home))
name = reference.parse(sys.argv[2])
with Registry(name) as registry:
    print("begun", flush=True)
    image = finish(fetch(store, registry, [name], known_as=lambda: registry.resolved.digest))
print(image.id, flush=True)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Server]:
    with registries.docker_registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def pushed(server: registries.Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[bytes], Held]:
    """An image that skopeo has pushed."""
    skopeo = peers.program("skopeo")
    layers = [layer(number, 3_000_000, 7) for number in range(5)]
    held = Held(layers)
    folder = tmp_path_factory.mktemp("layout")
    (folder / "blobs/sha256").mkdir(parents=True)
    for data in [*held.blobs, held.raw, held.made.raw]:
        (folder / "blobs/sha256" / manifest.digest(data)[7:]).write_bytes(data)
    row = Descriptor(held.made.media_type, held.made.digest, len(held.made.raw), {"org.opencontainers.image.ref.name": "1"}).json()
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [row]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    name = f"{server.host}/kill/me:1"
    skopeo("copy", "--dest-tls-verify=false", "--preserve-digests", f"oci:{folder}:1", f"docker://{name}")
    return name, layers, held


def test_two_processes_pull_the_same(store: Store, pushed: tuple[str, list[bytes], Held]) -> None:
    name, layers, held = pushed
    words = [sys.executable, "-c", _PULL, store.root, name]
    children = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for child in children:
        out, _ = child.communicate(timeout=60)
        assert child.returncode == 0 and out.split() == ["begun", held.made.config.digest]
    image = store.resolve(name)
    check(store, image, layers)
    assert store.info(image).digests == (f"{name.removesuffix(':1')}@{held.made.digest}",)


def test_ctrl_c_in_a_pull(store: Store, pushed: tuple[str, list[bytes], Held]) -> None:
    name, layers, _ = pushed
    child = subprocess.Popen([sys.executable, "-c", _PULL, store.root, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "begun\n"
    time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    started = time.monotonic()
    child.communicate(timeout=20)
    assert time.monotonic() - started < 5
    if child.returncode:
        nothing(store)
    with_registry = subprocess.run([sys.executable, "-c", _PULL, store.root, name], capture_output=True, text=True, check=True)
    check(store, store.resolve(with_registry.stdout.split()[1]), layers)


def collect(work: Work[Any]) -> tuple[list[Event], Any]:
    events = []
    while True:
        try:
            events.append(next(work))
        except StopIteration as stop:
            return events, stop.value


def test_the_engine_pulls_by_tag_digest_and_all_tags(disk: Path, server: registries.Server, pushed: tuple[str, list[bytes], Held]) -> None:
    from pycontainers.engines.native import NativeEngine

    name, layers, held = pushed
    engine = NativeEngine(Paths(disk / "home", disk / "run").prepare())
    events, (info,) = collect(engine.pull(name))
    assert info.id == held.made.config.digest and info.names == (name,) and type(events[-1]).__name__ == "Done"
    check(engine.store, engine.store.resolve(name), layers)
    pinned = f"{name.removesuffix(':1')}@{held.made.digest}"
    (by_digest,) = finish(engine.pull(pinned))
    assert by_digest.id == info.id and pinned in by_digest.names
    peers.program("skopeo")("copy", "--src-tls-verify=false", "--dest-tls-verify=false", f"docker://{name}", f"docker://{name[:-1]}2")
    assert engine.tags(name.removesuffix(":1")) == ["1", "2"]
    finish(engine.pull(name.removesuffix(":1"), all_tags=True))
    assert {f"{name[:-1]}{tag}" for tag in (1, 2)} <= set(engine.image(name).names)
    with pytest.raises(NotFound):
        finish(engine.pull(f"{server.host}/kill/nosuch:1"))
    for wrong in ("host", "scratch"):
        with pytest.raises(ContainersError):
            finish(engine.pull(wrong))
    with pytest.raises(RegistryError):
        finish(engine.pull("localhost:1/nothing/there:1"))
