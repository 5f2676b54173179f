"""Pushing: what came goes as it came, what was made here is packed once; others pull and run it. And root file systems in and out."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.errors import ContainersError, ImageError, NotFound, StateError, UsageError
from pycontainers.events import Note, Transfer, finish
from pycontainers.images import manifest
from pycontainers.images.apply import apply
from pycontainers.images.comparison import differences
from pycontainers.images.descriptor import Descriptor
from pycontainers.images.fetch import fetch
from pycontainers.images.manifest import Manifest
from pycontainers.images.ship import ship
from pycontainers.images.source import Reader
from pycontainers.images.store import Store
from pycontainers.paths import Paths
from pycontainers.protocol import BuildRequest, ContainerConfig
from tests.conftest import leave_launcher
from tests.images import peers, registries
from tests.images.test_archives import build, merged, run
from tests.images.test_fetch import NAME, Held, layer

root = pytest.mark.skipif(os.geteuid() != 0, reason="layers with devices and other owners need root")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Server]:
    with registries.docker_registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def own(disk: Path) -> NativeEngine:
    """An engine on a store of its own."""
    return NativeEngine(Paths(disk / "home", disk / "run").prepare())


class Shelf:
    """A target in memory."""

    name = "shelf"
    plain = False

    def __init__(self, plain: bool = False) -> None:
        self.plain = plain
        self.blobs: dict[str, bytes] = {}
        self.made: list[tuple[Manifest, list[str]]] = []
        self.hang = threading.Event()
        self.slow = False

    def has(self, blob: Descriptor) -> bool:
        return blob.digest in self.blobs

    def put(self, blob: Descriptor, open: Callable[[], Reader], sent: Callable[[int], None]) -> None:
        reader, data = open(), b""
        while piece := reader.read(1 << 16):
            data += piece
            sent(len(data))
            if self.slow:
                self.hang.wait(30)
        assert manifest.digest(data) == blob.digest and len(data) == blob.size
        self.blobs[blob.digest] = data

    def finish(self, manifest: Manifest, names: Sequence[str]) -> None:
        assert all(row.digest in self.blobs for row in (manifest.config, *manifest.layers))
        self.made.append((manifest, list(names)))

    def close(self) -> None:
        self.hang.set()


def test_what_came_goes_as_it_came(store: Store) -> None:
    held = Held([layer(1, 100_000), layer(2)])
    image = finish(fetch(store, held, [NAME]))
    shelf = Shelf()
    assert finish(ship(store, image, shelf, ["example.com/a:1"])) == held.made.digest
    assert shelf.made[0][0].raw == held.made.raw and set(shelf.blobs.values()) == {*held.blobs, held.raw}
    events = list(ship(store, image, shelf))
    assert {event.phase for event in events if isinstance(event, Transfer) and event.item != "manifest"} == {"exists"}


def test_plain_layers_that_came_are_compressed_for_a_registry(store: Store) -> None:
    """As docker does it; unless a registry knows the image so: then its digest is worth more."""
    held = Held([layer(1, 100_000), layer(2)], packed=False)
    image = finish(fetch(store, held))
    shelf = Shelf()
    digest = finish(ship(store, image, shelf))
    assert digest != held.made.digest and [row.compression for row in shelf.made[0][0].layers] == ["gzip", "gzip"]
    assert finish(ship(store, image, Shelf(), keep_plain=True)) == held.made.digest
    store.tag(image.id, NAME, held.made.digest)
    assert finish(ship(store, store.resolve(image.id), Shelf())) == held.made.digest


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
@root
def test_layers_made_here_are_packed_once(store: Store, kind: str) -> None:
    image = build(store)
    shelf = Shelf()
    events = list(ship(store, image, shelf, compression=kind))
    made = shelf.made[0][0]
    assert [row.compression for row in made.layers] == [kind] * 3 and "uploading" in {getattr(event, "phase", "") for event in events}
    assert store.record(image.id).manifest == made.digest and os.listdir(f"{store.root}/leases") == []
    times = {path.name: path.stat().st_mtime_ns for path in Path(store.root, "blobs/sha256").iterdir()}
    again = Shelf()
    assert finish(ship(store, image, again)) == made.digest, "as it was shipped before"
    assert {path.name: path.stat().st_mtime_ns for path in Path(store.root, "blobs/sha256").iterdir()} == times
    other = {"gzip": "zstd", "zstd": "gzip"}[kind]
    assert finish(ship(store, image, Shelf(), compression=other)) != made.digest
    assert finish(ship(store, image, Shelf(), compression=kind)) == made.digest
    plain = Shelf(plain=True)
    finish(ship(store, image, plain))
    assert [row.digest for row in plain.made[0][0].layers] == [row.diff_id for row in image.layers]
    assert store.prune() == [] and finish(ship(store, image, Shelf(), compression=kind)) == made.digest


def test_given_up_within_a_second(store: Store) -> None:
    image = finish(fetch(store, Held([layer(1, 3_000_000), layer(2)])))
    shelf = Shelf()
    shelf.slow = True
    work = ship(store, image, shelf)
    for event in work:
        if isinstance(event, Transfer) and event.phase == "uploading":
            break
    started = time.monotonic()
    work.close()
    assert time.monotonic() - started < 1.5 and shelf.made == [] and os.listdir(f"{store.root}/leases") == []


def test_an_error_is_the_end(store: Store) -> None:
    image = finish(fetch(store, Held([layer(1), layer(2)])))
    os.unlink(store.blob_path(store.blob_rows(os.path.dirname(image.layers[0].path))[0]["digest"]))
    with pytest.raises(ImageError, match="its blob is gone") as caught:
        finish(ship(store, image, Shelf()))
    assert "pull or load" in caught.value.hint


@root
def test_pushed_pulled_and_run_by_others(own: NativeEngine, server: registries.Server, disk: Path, busybox: str) -> None:
    podman, skopeo = peers.podman(disk / "podman"), peers.program("skopeo")
    image = build(own.store, busybox)
    name = f"{server.host}/ours/box:1"
    for tag, kind in (("1", ""), ("2", "zstd")):
        own.tag("box", f"{name[:-1]}{tag}")
        (digest,) = finish(own.push(f"{name[:-1]}{tag}", compression=kind))
        said = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name[:-1]}{tag}").encode()
        assert manifest.digest(said) == digest and json.loads(said)["config"]["digest"] == image.id
        assert f"{name[:-2]}@{digest}" in own.image("box").digests
        podman("pull", "--tls-verify=false", f"{name[:-1]}{tag}")
        tree = podman("image", "mount", f"{name[:-1]}{tag}").strip()
        assert [line for line in differences(tree, merged(image, disk)) if not line.startswith("/: ")] == []
        limits = ["--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000"]
        assert podman("run", "--rm", "--network", "none", *limits, f"{name[:-1]}{tag}") == "run\ncontent 1\n"
        podman("image", "umount", f"{name[:-1]}{tag}")
        podman("rmi", "-f", f"{name[:-1]}{tag}")
    assert own.tags(f"{server.host}/ours/box") == ["1", "2"]
    elsewhere = f"{server.host}/other/box:1"
    own.tag("box", elsewhere)
    events = list(own.push(elsewhere))
    phases = {event.phase for event in events if isinstance(event, Transfer) and event.item not in ("config", "manifest")}
    assert "uploading" not in phases, "taken from the other repository"
    digests = finish(own.push(f"{server.host}/ours/box", all_tags=True))
    assert len(digests) == 2
    assert own.delete_remote(f"{server.host}/ours/box@{digests[0]}") == digests[0]
    with pytest.raises(NotFound):
        finish(own.push(f"{server.host}/nobody/has:1"))
    for wrong, options in ((name, {"compression": "lz4"}), (f"{name[:-2]}@{digests[0]}", {})):
        with pytest.raises(UsageError):
            finish(own.push(wrong, **options))
    assert finish(own.verify()) == []


@root
def test_pushed_by_podman_pulled_and_run_here(engine: NativeEngine, server: registries.Server, disk: Path, busybox: str) -> None:
    podman = peers.podman(disk / "podman")
    shutil.copy(busybox, disk / "busybox")
    (disk / "Dockerfile").write_text('FROM scratch\nCOPY busybox /bin/busybox\nCMD ["/bin/busybox", "echo", "from podman"]\n')
    for kind in ("oci", "v2s2"):
        name = f"{server.host}/theirs/{kind}:1"
        podman("build", "-t", name, str(disk))
        podman("push", "--tls-verify=false", "--format", kind, name)
        (info,) = finish(engine.pull(name))
        assert run(engine, name) == "from podman\n"
        assert info.digests and info.manifest == info.digests[0].partition("@")[2]
        engine.tag(name, f"{server.host}/back/{kind}:1")
        assert finish(engine.push(f"{server.host}/back/{kind}:1")) == [info.manifest], "pushed again, it is the same"
    for kind in ("oci", "v2s2"):
        for place in ("theirs", "back"):
            engine.remove_image(f"{server.host}/{place}/{kind}:1")


# -- host


@root
@pytest.mark.root
def test_host_images_are_sent_only_when_asked(engine: NativeEngine, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small machine: this one's whole /usr would take minutes."""
    from pycontainers.images import host

    machine = disk / "machine"
    for path, text in {"usr/bin/sh": "x", "etc/passwd": "root:x:0:0::/root:/bin/sh\n", "opt/conda/bin/tool": "tool"}.items():
        (machine / path).parent.mkdir(parents=True, exist_ok=True)
        (machine / path).write_text(text)
    os.link(machine / "usr/bin/sh", machine / "usr/bin/hard")
    (machine / "opt/conda/.ssh").mkdir()
    (machine / "opt/conda/.ssh/key").write_text("secret")
    monkeypatch.setattr(host.Machine, "this", staticmethod(lambda: host.Machine(str(machine), ("/opt/conda",))))
    own = NativeEngine(Paths(disk / "home", disk / "run").prepare())
    info = finish(own.build(BuildRequest("FROM host\nCOPY --chmod=600 added /added\nLABEL a=b\n", str(_context(disk)), ("local",))))
    assert info.host
    for name in ("local", "host"):
        with pytest.raises(StateError, match="this machine's own system") as caught:
            finish(own.save([name], str(disk / "out.tar")))
        assert "--include-host" in caught.value.hint and not (disk / "out.tar").exists()
        with pytest.raises(ContainersError):
            finish(own.push("localhost:1/x:1" if name == "host" else name))
    for format in ("docker-archive", "oci-archive"):
        events = list(own.save(["local"], str(disk / "out.tar"), format, include_host=True))
        (note,) = [event.text for event in events if isinstance(event, Note)]
        assert "files" in note and "MB" in note
        theirs = NativeEngine(Paths(disk / f"{format}/home", disk / f"{format}/run").prepare())
        (loaded,) = finish(theirs.load(str(disk / "out.tar")))
        assert not loaded.host and len(loaded.layers) == 2 and loaded.config["config"]["Labels"] == {"a": "b"}
        whole, before = theirs.store.resolve(loaded.id), own.store.resolve("local")
        found = [line for line in differences(merged(whole, disk), merged(before, disk)) if not line.startswith("/: ")]
        assert found == []
        tree = merged(whole, disk)
        assert Path(f"{tree}/added").read_text() == "new" and Path(f"{tree}/opt/conda/bin/tool").read_text() == "tool"
        assert os.path.samefile(f"{tree}/usr/bin/sh", f"{tree}/usr/bin/hard")
        assert not os.path.lexists(f"{tree}/opt/conda/.ssh"), "what the allowlist hides is not sent either"
        assert os.listdir(f"{own.store.root}/leases") == []
    kept = {row["digest"][7:] for one in own.store.resolve("local").layers for row in own.store.blob_rows(os.path.dirname(one.path))}
    assert set(os.listdir(f"{own.store.root}/blobs/sha256")) == {own.image("local").id[7:], *kept}, "the host's own layer is not kept"


def _context(disk: Path) -> Path:
    folder = disk / "context"
    folder.mkdir()
    (folder / "added").write_text("new")
    return folder


# -- root file systems


@root
@pytest.mark.parametrize("packed", ["plain", "gzip", "zstd", "folder", "stream"])
def test_import_and_export(own: NativeEngine, disk: Path, packed: str, busybox: str) -> None:
    image = build(own.store, busybox)
    tree = merged(image, disk)
    out = io.BytesIO()
    size = finish(own.export_image("box", out, packed if packed in ("gzip", "zstd") else ""))
    assert size == len(out.getvalue())
    source: Any = tree if packed == "folder" else out if packed == "stream" else str(disk / "root.tar")
    out.seek(0)
    (disk / "root.tar").write_bytes(out.getvalue())
    changes = ('CMD ["/bin/sh", "-c", "cat /data1/file"]', "ENV A=b", "WORKDIR /tmp", "EXPOSE 80", "LABEL x=y", "USER 0", "VOLUME /v")
    info = finish(own.import_image(source, "flat", changes, "a message"))
    assert info.names == ("flat:latest",) and len(info.layers) == 1
    settings = info.config["config"]
    assert settings["Cmd"] == ["/bin/sh", "-c", "cat /data1/file"] and "A=b" in settings["Env"] and settings["WorkingDir"] == "/tmp"
    assert settings["ExposedPorts"] == {"80/tcp": {}} and settings["Labels"] == {"x": "y"} and settings["Volumes"] == {"/v": {}}
    assert info.config["history"][0]["comment"] == "a message" and info.config["created"]
    flat = own.store.resolve("flat")
    found = [line for line in differences(merged(flat, disk), tree) if not line.startswith("/: ")]
    assert found == [] and finish(own.verify()) == []
    assert own.image("flat").layers == info.layers
    os.environ["SOURCE_DATE_EPOCH"] = "1700000000"
    try:
        ids = {finish(own.import_image(tree, changes=changes)).id for _ in range(2)}
    finally:
        del os.environ["SOURCE_DATE_EPOCH"]
    assert len(ids) == 1


@root
def test_an_imported_system_runs(engine: NativeEngine, disk: Path, busybox: str) -> None:
    folder = disk / "tree"
    (folder / "bin").mkdir(parents=True)
    shutil.copy(busybox, folder / "bin/busybox")
    subprocess.run(["tar", "-C", str(folder), "-czf", str(disk / "x.tgz"), "."], check=True)
    finish(engine.import_image(str(disk / "x.tgz"), "flat", ['ENTRYPOINT ["/bin/busybox"]', 'CMD ["echo", "hello"]']))
    assert run(engine, "flat") == "hello\n"
    engine.remove_image("flat")


def test_what_cannot_be_imported(own: NativeEngine, disk: Path) -> None:
    (disk / "text").write_text("no tar" * 1000)
    (disk / "empty").write_bytes(b"")
    (disk / "folder").mkdir()
    with tarfile.open(disk / "good.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    cases: list[tuple[Any, ...]] = [
        (ContainersError, str(disk / "text"), ()),
        (ContainersError, str(disk / "empty"), ()),
        (ImageError, str(disk / "folder"), ()),
        (NotFound, str(disk / "nosuch"), ()),
        (UsageError, str(disk / "good.tar"), ("RUN x",)),
    ]
    for kind, source, changes in cases:
        with pytest.raises(kind) as caught:
            finish(own.import_image(source, "x", changes))
        assert "\n" not in caught.value.message
    with pytest.raises(UsageError):
        finish(own.import_image(str(disk / "good.tar"), "host"))
    with pytest.raises(NotFound):
        finish(own.export_image("nosuch", io.BytesIO()))
    assert own.images() == [] and os.listdir(own.store.ingest) == [] and finish(own.verify()) == []


@root
def test_others_read_an_exported_system(own: NativeEngine, disk: Path) -> None:
    image = build(own.store)
    with open(disk / "x.tar.zst", "wb") as file:
        finish(own.export_image("box", file, "zstd"))
    (disk / "gnu").mkdir()
    words = ["tar", "-C", str(disk / "gnu"), "--zstd", "--xattrs", "--xattrs-include=*", "--same-owner", "-xpf", str(disk / "x.tar.zst")]
    subprocess.run(words, check=True)
    assert [line for line in differences(str(disk / "gnu"), merged(image, disk)) if not line.startswith("/: ")] == []


# -- the disk


@pytest.mark.root
def test_what_containers_take_up(own: NativeEngine) -> None:
    try:
        kinds = ("Images", "Containers", "Build cache", "Blobs")
        assert [(row.kind, row.total, row.size) for row in own.system_df()] == [(kind, 0, 0) for kind in kinds]
        info = own.create(ContainerConfig(image="host", command=("true",), network="none"))
        Path(info.folder, "upper/0/file").write_bytes(b"x" * 5000)
        row = own.system_df()[1]
        assert (row.total, row.active, row.size, row.reclaimable) == (1, 0, 5000, 5000)
        assert [(item.id, item.size) for item in row.items] == [(info.id, 5000)]
        own.run(ContainerConfig(image="host", command=("sh", "-c", "head -c 7000 /dev/zero >/var/local/file"), network="none"))
        before = sum(row.reclaimable for row in own.system_df()) - 5000  # one that never ran is not pruned
        assert own.prune().reclaimed == before >= 7000
        own.remove(info.id)
    finally:
        leave_launcher(own.paths)


@root
def test_apply_of_what_was_packed(own: NativeEngine, disk: Path) -> None:
    """The tar of an image's root is a layer like any other."""
    from pycontainers.images import rootfs

    image = build(own.store)
    tree = disk / "tree"
    tree.mkdir()
    made = apply(io.BytesIO(b"".join(rootfs.pack(image.rootfs))), str(tree))
    assert made.notes == ()
