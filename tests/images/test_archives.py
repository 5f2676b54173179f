"""Archives both ways: what we write skopeo, podman, umoci and dockerd read, and what they write we read; trees compared entry by entry."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.errors import ContainersError, ImageError, NotFound, StateError, UsageError
from pycontainers.events import Note, Transfer, finish
from pycontainers.images import manifest, rootfs
from pycontainers.images.apply import apply
from pycontainers.images.comparison import differences
from pycontainers.images.store import Image, Store
from pycontainers.paths import Paths
from pycontainers.protocol import ContainerConfig, ImageInfo
from tests.images import peers

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers with devices and other owners need root")
Make = Callable[[], NativeEngine]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="pyct-archives-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def fresh(disk: Path) -> Make:
    """Engines, each on a store of its own."""
    count = iter(range(100))

    def make() -> NativeEngine:
        number = next(count)
        return NativeEngine(Paths(disk / f"home{number}", disk / f"run{number}").prepare())

    return make


def fill(tree: str, number: int, busybox: str = "") -> None:
    """One of each that a layer can hold."""
    root = Path(tree)
    if busybox:
        (root / "bin").mkdir()
        shutil.copy(busybox, root / "bin/busybox")
        for name in ("sh", "cat", "ls", "echo", "id", "stat"):
            (root / "bin" / name).symlink_to("busybox")
        for name in ("proc", "sys", "dev", "tmp", "etc"):
            (root / name).mkdir()
        (root / "tmp").chmod(0o1777)
    data = root / f"data{number}"
    data.mkdir(0o750)
    (data / "file").write_text(f"content {number}\n" * 100)
    (data / "block").write_bytes(b"b" * 1024)  # whole blocks: no padding follows
    (data / "set").write_text("x")
    (data / "set").chmod(0o4755)
    os.link(data / "file", data / "hard")
    (data / "link").symlink_to("../elsewhere/ü")
    os.mkfifo(data / "fifo", 0o640)
    os.mknod(data / "null", 0o020666, os.makedev(1, 3))
    os.chown(data / "file", 1000, 1001)
    os.chown(data / "link", 7, 8, follow_symlinks=False)
    Path(os.fsdecode(os.fsencode(data) + b"/odd \xff\nname")).write_text("odd")
    long = data / ("d" * 100) / ("e" * 100) / ("f" * 100)
    long.mkdir(parents=True)
    (long / ("g" * 200)).write_text("deep")
    os.setxattr(data / "file", "user.note", b"a\0b\xff")
    os.setxattr(data / "set", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    for path in [root, *root.rglob("*")]:
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number), follow_symlinks=False)


def build(store: Store, busybox: str = "", name: str = "box") -> Image:
    """An image of three layers; the last removes, hides and replaces what the others have."""
    made, chain = [], ""
    for number in (1, 2, 3):
        tree = store.new_layer()
        fill(tree, number, busybox if number == 1 else "")
        if number == 3:
            os.mkdir(f"{tree}/data1", 0o700)
            os.mknod(f"{tree}/data1/hard", 0o020000, 0)
            shutil.rmtree(f"{tree}/data3/{'d' * 100}")
            os.mkdir(f"{tree}/data2", 0o711)
            os.setxattr(f"{tree}/data2", "trusted.overlay.opaque", b"y")
            Path(f"{tree}/data2/new").write_text("alone")
            for path in (f"{tree}/data1", f"{tree}/data2/new", f"{tree}/data2", f"{tree}/data3"):
                os.utime(path, (1_700_000_009, 1_700_000_009))
        made.append(store.commit(tree, chain))
        chain = made[-1].chain_id
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": {"Env": ["PATH=/bin", "A=ü"], "Cmd": ["sh", "-c", "echo run; cat /data1/file | head -n 1"], "Labels": {"a": "b"}},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in made]},
        "history": [{"created_by": f"step {number}", "created": "2026-01-02T03:04:05Z"} for number in (1, 2, 3)],
    }
    image = store.save_image(config, made, "")
    store.tag(image.id, name)
    return store.resolve(name)


def merged(image: Image, disk: Path) -> str:
    """Its root file system as plain files."""
    tree = tempfile.mkdtemp(prefix="merged-", dir=disk)
    data = b"".join(rootfs.pack(image.rootfs))
    apply(io.BytesIO(data), tree)
    return tree


def same_snapshots(one: Image, other: Image) -> None:
    assert [layer.chain_id for layer in one.layers] == [layer.chain_id for layer in other.layers]
    for left, right in zip(one.layers, other.layers, strict=True):
        # What overlayfs alone looks at (an unpacked layer says that it holds whiteouts; ours needs not) is no difference.
        assert [line for line in differences(left.path, right.path) if "attribute trusted.overlay.origin" not in line] == []


def loaded(engine: NativeEngine, source: Any) -> ImageInfo:
    (info,) = finish(engine.load(source))
    assert finish(engine.verify()) == []
    return info


FORMATS = ["docker-archive", "oci-archive", "oci-dir"]


@pytest.mark.parametrize("format", FORMATS)
def test_there_and_back(fresh: Make, disk: Path, format: str) -> None:
    ours, theirs = fresh(), fresh()
    image = build(ours.store)
    path = str(disk / "out")
    size = finish(ours.save(["box"], path, format))
    assert size == sum(file.stat().st_size for file in [Path(path), *Path(path).rglob("*")] if file.is_file())
    info = loaded(theirs, path)
    assert info.id == image.id and info.names == ("box:latest",)
    same_snapshots(image, theirs.store.resolve("box"))
    again = str(disk / "again")
    finish(theirs.save(["box"], again, format))
    if format == "oci-dir":
        assert sorted(os.listdir(f"{path}/blobs/sha256")) == sorted(os.listdir(f"{again}/blobs/sha256"))
        assert Path(f"{path}/index.json").read_bytes() == Path(f"{again}/index.json").read_bytes()
    else:
        assert Path(path).read_bytes() == Path(again).read_bytes()
    assert [line for line in theirs.prune() if "Deleted" in line] == []


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_image_gives_the_same_archive(fresh: Make, disk: Path, format: str) -> None:
    for number in range(2):
        engine = fresh()
        build(engine.store)
        finish(engine.save(["box"], str(disk / f"{number}"), format))
    done = subprocess.run(["diff", "-r", str(disk / "0"), str(disk / "1")], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("format", FORMATS[:2])
@pytest.mark.parametrize("packed", ["plain", "gzip", "zstd", "bzip2", "xz"])
@pytest.mark.parametrize("way", ["file", "stream", "memory"])
def test_compressed_archives_and_streams(fresh: Make, disk: Path, format: str, packed: str, way: str) -> None:
    engine = fresh()
    image = build(engine.store)
    path = str(disk / "out")
    finish(engine.save(["box"], path, format))
    if packed != "plain":
        data = subprocess.run([packed, "-c", path], capture_output=True, check=True).stdout
        Path(path).write_bytes(data)
    theirs = fresh()
    if way == "file":
        assert loaded(theirs, path).id == image.id
    elif way == "memory":
        assert loaded(theirs, io.BytesIO(Path(path).read_bytes())).id == image.id
    else:
        cat = subprocess.Popen(["cat", path], stdout=subprocess.PIPE)
        assert cat.stdout is not None
        with cat.stdout:
            assert loaded(theirs, cat.stdout).id == image.id
        assert cat.wait() == 0
    same_snapshots(image, theirs.store.resolve("box"))


def test_several_images_and_names_in_one_archive(fresh: Make, disk: Path) -> None:
    engine = fresh()
    image = build(engine.store)
    engine.tag("box", "example.com:5000/other/name:1")
    tree = engine.store.new_layer()
    Path(f"{tree}/small").write_text("x")
    small = engine.store.commit(tree, "")
    second = engine.store.save_image({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [small.diff_id]}}, [small], "")
    engine.store.tag(second.id, "second")
    for format in FORMATS:
        path = str(disk / format)
        finish(engine.save(["box", "second", "example.com:5000/other/name:1"], path, format))
        theirs = fresh()
        found = finish(theirs.load(path))
        names = {info.id: set(info.names) for info in theirs.images()}
        assert {info.id for info in found} == {image.id, second.id}
        assert names == {image.id: {"box:latest", "example.com:5000/other/name:1"}, second.id: {"second:latest"}}
    with open(disk / "by-id.tar", "wb") as file:
        finish(engine.save([image.id], file))
    assert loaded(fresh(), str(disk / "by-id.tar")).names == ()


def test_what_cannot_be_saved_leaves_nothing(fresh: Make, disk: Path) -> None:
    engine = fresh()
    build(engine.store)
    cases: list[tuple[type[ContainersError], Any, str]] = [
        (NotFound, ["nosuch"], "docker-archive"),
        (StateError, ["host"], "docker-archive"),
        (StateError, ["scratch"], "oci-dir"),
        (UsageError, ["box"], "tar"),
        (UsageError, [], "docker-archive"),
    ]
    for kind, names, format in cases:
        with pytest.raises(kind) as caught:
            finish(engine.save(names, str(disk / "out"), format))
        assert caught.value.hint
    with pytest.raises(UsageError):
        finish(engine.save(["box"], str(disk / "out"), "docker-archive", compression="gzip"))
    with pytest.raises(NotFound):
        finish(engine.save(["box"], str(disk / "no/such/out")))
    work = engine.save(["box"], str(disk / "out"))
    next(work)
    work.close()
    assert not (disk / "out").exists() and not [name for name in os.listdir(disk) if name.startswith(".")]


# -- others


def test_skopeo_reads_and_writes(fresh: Make, disk: Path) -> None:
    skopeo = peers.program("skopeo")
    engine = fresh()
    image = build(engine.store)
    for format, kind in (("docker-archive", "docker-archive"), ("oci-archive", "oci-archive"), ("oci-dir", "oci")):
        path = str(disk / format)
        finish(engine.save(["box"], path, format))
        skopeo("copy", "--preserve-digests", f"{kind}:{path}", f"dir:{disk}/{format}.copy")
        said = json.loads((disk / f"{format}.copy/manifest.json").read_bytes())
        assert said["config"]["digest"] == image.id
        if format != "docker-archive":
            assert manifest.digest((disk / f"{format}.copy/manifest.json").read_bytes()) == engine.image("box").manifest
    for target in (f"docker-archive:{disk}/s1.tar:localhost/their:1", f"oci-archive:{disk}/s2.tar:localhost/their:1", f"oci:{disk}/s3:x"):
        skopeo("copy", f"oci:{disk}/oci-dir", target)
        theirs = fresh()
        info = loaded(theirs, target.split(":")[1])
        assert info.id == image.id and info.names == (("localhost/their:1",) if "their" in target else ())
        same_snapshots(image, theirs.store.resolve(info.id))


def test_umoci_reads_and_writes(fresh: Make, disk: Path) -> None:
    umoci = peers.program("umoci")
    engine = fresh()
    image = build(engine.store)
    finish(engine.save(["box"], str(disk / "oci"), "oci-dir"))
    umoci("unpack", "--image", f"{disk}/oci:latest", f"{disk}/bundle")
    ours = merged(image, disk)
    found = [line for line in differences(f"{disk}/bundle/rootfs", ours) if not line.startswith("/: ")]
    assert found == []
    (disk / "bundle/rootfs/added").write_text("by umoci")
    umoci("repack", "--image", f"{disk}/oci:new", f"{disk}/bundle")
    theirs = fresh()
    infos = finish(theirs.load(str(disk / "oci")))
    assert finish(theirs.verify()) == []
    (new,) = (info for info in infos if info.id != image.id)
    assert len(new.layers) == 4 and new.names == ("box:new",)
    tree = merged(theirs.store.resolve(new.id), disk)
    assert Path(f"{tree}/added").read_text() == "by umoci"
    os.unlink(f"{tree}/added")
    assert [line for line in differences(tree, ours) if not line.startswith("/: ")] == []


def test_podman_reads_writes_and_runs(fresh: Make, disk: Path, busybox: str) -> None:
    podman = peers.podman(disk / "podman")
    engine = fresh()
    image = build(engine.store, busybox)
    ours = merged(image, disk)
    for format in FORMATS[:2]:
        finish(engine.save(["box"], str(disk / format), format))
        podman("load", "-i", str(disk / format))
        name = "docker.io/library/box:latest"
        podman("image", "exists", name)
        assert podman("image", "inspect", "--format", "{{.Id}}", name).strip() == image.id[7:]
        tree = podman("image", "mount", name).strip()
        assert [line for line in differences(tree, ours) if not line.startswith("/: ")] == []
        out = podman("run", "--rm", "--network", "none", "--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000", name)
        assert out == "run\ncontent 1\n"
        podman("image", "umount", name)
        for kind in ("docker-archive", "oci-archive"):
            podman("save", "--format", kind, "-o", f"{disk}/p-{kind}.tar", name)
            theirs = fresh()
            info = loaded(theirs, f"{disk}/p-{kind}.tar")
            assert info.id == image.id
            same_snapshots(image, theirs.store.resolve(info.id))
            os.unlink(f"{disk}/p-{kind}.tar")
        podman("rmi", "-f", name)


def test_what_buildah_builds_runs_here(engine: NativeEngine, disk: Path, busybox: str) -> None:
    buildah = peers.buildah(disk / "podman")
    shutil.copy(busybox, disk / "busybox")
    (disk / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nENV GREETING=hi\nLABEL x=y\n"
        'RUN ["/bin/busybox", "sh", "-c", "/bin/busybox mkdir /made; echo data >/made/file; /bin/busybox rm /bin/sh"]\n'
        'CMD ["/bin/busybox", "sh", "-c", "echo $GREETING; /bin/busybox cat /made/file; /bin/busybox ls /bin"]\n'
    )
    buildah("bud", "--layers", "--isolation", "chroot", "-t", "theirs", str(disk))
    image_id = buildah("images", "-q", "--no-trunc", "theirs").strip().removeprefix("sha256:")
    for target in ("docker-archive", "oci-archive"):
        buildah("push", "theirs", f"{target}:{disk}/b.tar:localhost/theirs:1")
        (info,) = finish(engine.load(str(disk / "b.tar")))
        assert info.id == f"sha256:{image_id}" and info.config["config"]["Labels"]["x"] == "y"
        assert run(engine, "localhost/theirs:1") == "hi\ndata\nbusybox\n"
        engine.remove_image("localhost/theirs:1")
        os.unlink(disk / "b.tar")
    assert finish(engine.verify()) == []


def run(engine: NativeEngine, image: str) -> str:
    out = bytearray()
    config = ContainerConfig(image=image, network="none", auto_remove=True)
    engine.run(config, None, lambda stream, data: out.extend(data))
    return out.decode()


@pytest.mark.root
def test_dockerd_reads_writes_and_runs(fresh: Make, engine: NativeEngine, place: Path, disk: Path, busybox: str) -> None:
    with peers.dockerd(place / "docker") as docker:
        image = build(engine.store, busybox)
        for format in ("docker-archive",):
            finish(engine.save(["box"], str(disk / format), format))
            said = docker("load", "-i", str(disk / format))
            assert "Loaded image: box:latest" in said
            assert docker("image", "inspect", "--format", "{{.Id}}", "box").strip() == image.id
            assert docker("run", "--rm", "--network", "none", "box") == "run\ncontent 1\n"
        cid = docker("create", "box").strip()
        with open(disk / "export.tar", "wb") as file:
            subprocess.run([*docker.words, "export", cid], stdout=file, check=True)
        tree = tempfile.mkdtemp(dir=disk)
        with open(disk / "export.tar", "rb") as file:
            apply(file, tree)
        ours = merged(image, disk)
        mine = {".dockerenv", "dev", "proc", "sys", "etc"}  # docker puts its own there
        for name in mine:
            for folder in (tree, ours):
                shutil.rmtree(f"{folder}/{name}", ignore_errors=True)
                Path(f"{folder}/{name}").unlink(missing_ok=True)
        # Docker's export leaves user.* attributes out.
        assert [line for line in differences(tree, ours) if not line.startswith("/: ") and "user.note" not in line] == []
        docker("rm", cid)
        docker("save", "-o", str(disk / "d.tar"), "box")
        theirs = fresh()
        info = loaded(theirs, str(disk / "d.tar"))
        assert info.id == image.id and info.names == ("box:latest",)
        same_snapshots(image, theirs.store.resolve("box"))
        docker("import", str(disk / "export.tar"), "flat")
        docker("save", "-o", str(disk / "f.tar"), "flat", "box")
        assert {info.names[0] for info in finish(theirs.load(str(disk / "f.tar")))} == {"flat:latest", "box:latest"}
        assert finish(theirs.verify()) == []
        engine.remove_image("box", force=True)


@pytest.fixture(scope="module")
def debian(place: Path) -> str:
    """A small real system, as a tar."""
    mmdebstrap = peers.program("mmdebstrap")
    path = str(place / "debian.tar")
    done = subprocess.run([*mmdebstrap.words, "--variant=essential", "bookworm", path], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mmdebstrap makes no Debian here: {done.stderr.strip()[-200:]}")
    return path


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(600)
def test_a_real_system_both_ways(engine: NativeEngine, fresh: Make, disk: Path, debian: str) -> None:
    """Thousands of files of a real Debian: the same at podman as here, and its programs run."""
    podman, buildah = peers.podman(disk / "podman"), peers.buildah(disk / "podman")
    finish(engine.import_image(debian, "debian:try", ['CMD ["cat", "/etc/debian_version"]']))
    version = run(engine, "debian:try")
    assert version.startswith("12")
    finish(engine.save(["debian:try"], str(disk / "ours.tar"), "oci-archive"))
    podman("load", "-i", str(disk / "ours.tar"))
    tree = podman("image", "mount", "debian:try").strip()
    assert [line for line in differences(tree, engine.store.resolve("debian:try").layers[0].path) if not line.startswith("/: ")] == []
    (disk / "Dockerfile").write_text(
        "FROM docker.io/library/debian:try\nRUN dpkg --version >/version && rm -r /usr/share/doc && ln -s version /link\n"
    )
    buildah("bud", "--layers", "--isolation", "chroot", "-t", "theirs", str(disk))
    buildah("push", "theirs", f"docker-archive:{disk}/theirs.tar:localhost/theirs:1")
    (info,) = finish(engine.load(str(disk / "theirs.tar")))
    assert len(info.layers) == 2 and info.layers[0] == engine.image("debian:try").layers[0]
    config = ContainerConfig(image="localhost/theirs:1", command=("sh", "-c", "head -c6 /link; ls -d /usr/share/doc 2>&1"), network="none",
                             auto_remove=True)  # fmt: skip
    out = bytearray()
    engine.run(config, None, lambda stream, data: out.extend(data))
    assert out.startswith(b"Debian") and b"cannot access '/usr/share/doc'" in out
    theirs = podman("image", "mount", "theirs").strip()
    ours = merged(engine.store.resolve("localhost/theirs:1"), disk)
    found = [line for line in differences(theirs, ours) if not line.startswith("/: ") and ": time " not in line]
    assert found == []
    assert finish(engine.verify()) == []
    for name in ("localhost/theirs:1", "debian:try"):
        engine.remove_image(name)


# -- archives that mean harm, or are broken


def old_form(path: Path, layers: list[bytes], config: dict[str, Any] | None = None, **change: Any) -> str:
    """As ``docker save`` of 1.10 to 24 wrote it; of equal layers all but the first are links."""
    import hashlib

    plain = [gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data for data in layers]
    diffs = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in plain]
    raw = json.dumps(config or {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diffs}}).encode()
    name = f"{hashlib.sha256(raw).hexdigest()}.json"
    image_id = hashlib.sha256(raw).hexdigest()
    seen: dict[bytes, str] = {}
    with tarfile.open(path, "w") as archive:

        def add(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

        paths = []
        for number, data in enumerate(layers):
            folder = f"{number:064x}"
            paths.append(f"{folder}/layer.tar")
            add(f"{folder}/VERSION", b"1.0")
            add(f"{folder}/json", b"{}")
            if data in seen:
                info = tarfile.TarInfo(paths[-1])
                info.type, info.linkname = tarfile.SYMTYPE, f"../{seen[data]}"
                archive.addfile(info)
            else:
                add(paths[-1], data)
                seen[data] = paths[-1]
        add(name, raw)
        row = {"Config": name, "RepoTags": ["old:1"], "Layers": paths} | change
        add("manifest.json", json.dumps([row]).encode())
        add("repositories", json.dumps({"old": {"1": image_id}}).encode())
    return image_id


def layer_tar(name: str = "file", data: bytes = b"x") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_docker_archives_of_the_old_form(fresh: Make, disk: Path) -> None:
    one, two = layer_tar("a"), gzip.compress(layer_tar("b"), mtime=0)
    image_id = old_form(disk / "old.tar", [one, two, one])
    engine = fresh()
    info = loaded(engine, str(disk / "old.tar"))
    assert info.id == f"sha256:{image_id}" and info.names == ("old:1",) and len(info.layers) == 3
    assert sorted(os.listdir(merged(engine.store.resolve("old:1"), disk))) == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Config": "../../etc/passwd"}, "has no file"),
        ({"Config": "/etc/passwd"}, "has no file"),
        ({"Config": 7}, "without Config or Layers"),
        ({"Layers": ["0" * 64 + "/layer.tar"] * 2}, "2 layers, but its config names 1"),
        ({"Layers": ["nosuch"]}, "has no file nosuch"),
        ({"RepoTags": 7}, "not a list"),
    ],
)
def test_a_broken_list(fresh: Make, disk: Path, change: dict[str, Any], words: str) -> None:
    old_form(disk / "bad.tar", [layer_tar()], **change)
    refused(fresh(), disk / "bad.tar", words)


def refused(engine: NativeEngine, path: Path, words: str) -> None:
    with pytest.raises(ContainersError, match=words):
        finish(engine.load(str(path)))
    assert engine.images() == [] and engine.store.references() == {}
    assert finish(engine.verify()) == []
    assert [name for name in os.listdir(engine.store.ingest) if not name.startswith("blob-")] == []
    engine.prune()
    assert os.listdir(engine.store.ingest) == os.listdir(f"{engine.store.root}/leases") == []
    assert os.listdir(f"{engine.store.root}/snapshots") == os.listdir(f"{engine.store.root}/blobs/sha256") == []


def test_a_layer_that_is_not_the_configs(fresh: Make, disk: Path) -> None:
    config = {"os": "linux", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}
    for data, words in ((layer_tar(), "has the digest"), (gzip.compress(layer_tar()), "has the diff id")):
        old_form(disk / "bad.tar", [data], config)
        refused(fresh(), disk / "bad.tar", words)


def test_what_is_no_archive(fresh: Make, disk: Path) -> None:
    (disk / "text").write_text("hello" * 1000)
    (disk / "empty").write_bytes(b"")
    (disk / "rootfs.tar").write_bytes(layer_tar("bin/sh"))
    (disk / "folder").mkdir()
    old_form(disk / "cut.tar", [layer_tar("a", b"x" * 50_000)])
    (disk / "cut.tar").write_bytes((disk / "cut.tar").read_bytes()[:30_000])
    cases = {"text": "no whole tar", "empty": "no whole tar|no archive", "rootfs.tar": "no archive of images", "nosuch": "does not exist"}
    for name, words in {**cases, "folder": "no archive of images", "cut.tar": "no whole tar|ends in the middle"}.items():
        refused(fresh(), disk / name, words)


def test_a_file_of_an_archive_that_is_larger_than_any_disk(fresh: Make, disk: Path) -> None:
    info = tarfile.TarInfo("layer.tar")
    info.size = (1 << 63) - 1
    for count in (1, 2):
        (disk / "huge.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) * count)
        refused(fresh(), disk / "huge.tar", "ends in the middle of layer.tar|no whole tar")


def test_links_in_an_archive_lead_nowhere_else(fresh: Make, disk: Path) -> None:
    with tarfile.open(disk / "links.tar", "w") as archive:
        for name, target in (("manifest.json", "/etc/hostname"), ("a", "b"), ("b", "a")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    refused(fresh(), disk / "links.tar", "no archive of images")


def test_a_reserved_name_is_not_taken(fresh: Make, disk: Path) -> None:
    image_id = old_form(disk / "host.tar", [layer_tar()], RepoTags=["host:latest", "good:1", "Bad Name"])
    engine = fresh()
    events = list(engine.load(str(disk / "host.tar")))
    assert any(isinstance(event, Note) and "reserved" in event.text for event in events)
    assert engine.image("good:1").id == f"sha256:{image_id}" and engine.image("host").id.startswith("host:")
    assert {event.phase for event in events if isinstance(event, Transfer)} >= {"downloading", "done"}


def test_a_layout_for_several_platforms(fresh: Make, disk: Path) -> None:
    """An index in an index, and the same name for two platforms."""
    engine = fresh()
    build(engine.store)
    finish(engine.save(["box"], str(disk / "oci"), "oci-dir"))
    layout = disk / "oci"
    row = json.loads((layout / "index.json").read_bytes())["manifests"][0]

    def blob(data: bytes) -> dict[str, Any]:
        (layout / "blobs/sha256" / manifest.digest(data)[7:]).write_bytes(data)
        return {"digest": manifest.digest(data), "size": len(data)}

    config = json.dumps({"os": "linux", "architecture": "arm64", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    other = {"schemaVersion": 2, "mediaType": row["mediaType"], "layers": []}
    other["config"] = {"mediaType": "application/vnd.oci.image.config.v1+json", **blob(config)}
    rows = [
        {"mediaType": row["mediaType"], **blob(json.dumps(other).encode()), "platform": {"os": "linux", "architecture": "arm64"}},
        {**row, "platform": {"os": "linux", "architecture": os.uname().machine.replace("x86_64", "amd64")}, "annotations": {}},
    ]
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": rows}
    top = {**index, "manifests": [{"mediaType": index["mediaType"], **blob(json.dumps(index).encode()), "annotations": row["annotations"]}]}
    for said in (top, index):
        (layout / "index.json").write_text(json.dumps(said))
        theirs = fresh()
        assert loaded(theirs, str(layout)).id == engine.image("box").id
        events = list(theirs.load(str(layout), "linux/arm64"))
        assert any(isinstance(event, Note) and "linux/arm64" in event.text for event in events)
        assert manifest.digest(config) in {info.id for info in theirs.images()}
        with pytest.raises(NotFound, match="no image for linux/riscv64") as caught:
            finish(theirs.load(str(layout), "linux/riscv64"))
        assert "linux/arm64" in caught.value.hint


def test_a_damaged_layout(fresh: Make, disk: Path) -> None:
    engine = fresh()
    build(engine.store)
    for what in ("config", "layer", "manifest", "missing"):
        path = disk / what
        finish(engine.save(["box"], str(path), "oci-dir"))
        said = json.loads((path / "index.json").read_bytes())["manifests"][0]
        made = json.loads((path / "blobs/sha256" / said["digest"][7:]).read_bytes())
        digest = {"config": made["config"], "manifest": said}.get(what, made["layers"][1])["digest"]
        file = path / "blobs/sha256" / digest[7:]
        if what == "missing":
            file.unlink()
        else:
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
        refused(fresh(), path, "has no file" if what == "missing" else "digest|damaged")


def test_an_archives_limits(fresh: Make, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pycontainers.images import archives

    monkeypatch.setattr(archives, "_MEMBERS", 3)
    old_form(disk / "many.tar", [layer_tar()])
    with pytest.raises(ImageError, match="more than 3 files"):
        finish(fresh().load(str(disk / "many.tar")))
