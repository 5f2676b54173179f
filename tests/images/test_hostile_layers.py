"""Layers that were made to get out. Each is first given to a plain extraction, where it does what it is meant to: a real attack."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from pycontainers.errors import ContainersError
from pycontainers.images.apply import apply
from pycontainers.images.unpack import UnpackError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an attack has most rights as root")

FILE, LINK, SYMLINK, FOLDER = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE
Row = tuple[str, bytes, str | bytes]
"""(name, type, link's target or file's content)."""


def layer(*rows: Row, **pax: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, more in rows:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o777
            if isinstance(more, str):
                info.linkname = more
            else:
                info.size = len(more)
            info.pax_headers = pax
            archive.addfile(info, io.BytesIO(more) if isinstance(more, bytes) else None)
    return out.getvalue()


def naive(data: bytes, dest: str) -> None:
    """What one writes in ten minutes: names joined to a path, whiteouts removed."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            path = os.path.join(dest, member.name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if member.name.endswith(".wh..wh..opq"):
                for name in os.listdir(os.path.dirname(path)):
                    remove(os.path.join(os.path.dirname(path), name))
            elif ".wh." in member.name:
                remove(os.path.join(dest, member.name.replace(".wh.", "")))
            elif member.isdir():
                os.makedirs(path, exist_ok=True)
                os.chmod(path, member.mode)
            elif member.issym():
                if os.path.lexists(path):
                    remove(path)
                os.symlink(member.linkname, path)
            elif member.islnk():
                os.link(os.path.join(dest, member.linkname), path, follow_symlinks=False)
                os.chmod(path, member.mode)
            else:
                with open(path, "wb") as file:
                    file.write(archive.extractfile(member).read())  # type: ignore[union-attr]


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


class World:
    """``base/victim`` is what must not change, ``base/store/tree`` where a layer goes."""

    def __init__(self, base: Path) -> None:
        self.base, self.victim, self.tree = base, base / "victim", base / "store/tree"
        self.tree.mkdir(parents=True)
        self.victim.mkdir(mode=0o700)
        (self.victim / "secret").write_text("secret")
        (self.victim / "secret").chmod(0o600)
        (self.base / "store/neighbour").write_text("another layer")
        self.before = self.look()

    def look(self) -> list[tuple[object, ...]]:
        found = []
        for folder, folders, files in os.walk(self.base):
            if folder.startswith(str(self.tree)):
                continue
            for name in [".", *folders, *files]:
                path = os.path.join(folder, name)
                if path == str(self.tree):
                    continue
                state = os.lstat(path)
                content = Path(path).read_bytes() if stat.S_ISREG(state.st_mode) else b""
                found.append((path, state.st_mode, state.st_uid, state.st_ino, state.st_nlink if content else 0, content))
        return sorted(found, key=str)

    def unharmed(self) -> bool:
        return self.base.exists() and self.victim.exists() and self.look() == self.before


@pytest.fixture
def worlds(disk: Path) -> Iterator[Callable[[str], World]]:
    yield lambda name: World(disk / name)


#: name → (rows, whether it is an error here); "V" in them is the victim's absolute path, "U" the way up from the tree to it.
ATTACKS: dict[str, tuple[list[Row], bool]] = {
    "a name that leads up": ([("U/new", FILE, b"x")], True),
    "a name that leads up from within": ([("a/b/../../U/new", FILE, b"x")], True),
    "an absolute name": ([("V/new", FILE, b"x")], False),
    "a folder's link on the way (CVE-2021-29136)": ([("d", SYMLINK, "V"), ("d/new", FILE, b"x")], True),
    "a relative link on the way (CVE-2020-27833)": ([("d", SYMLINK, "U"), ("d/secret", FILE, b"x")], True),
    "a link on the way to the root": ([("d", SYMLINK, "../.."), ("d/victim/secret", FILE, b"x")], False),
    "two links on the way": ([("a", SYMLINK, ".."), ("b", SYMLINK, "a/.."), ("b/victim/new", FILE, b"x")], False),
    "a folder that becomes a link": ([("d/", FOLDER, b""), ("d/a", FILE, b"x"), ("d", SYMLINK, "V"), ("d/new", FILE, b"x")], True),
    "a file through a link": ([("f", SYMLINK, "V/secret"), ("f", FILE, b"x")], False),
    "a folder's mode through a link": ([("d", SYMLINK, "V"), ("d/", FOLDER, b"")], False),
    "a hard link that leads up": ([("h", LINK, "U/secret"), ("h", FILE, b"x")], True),
    "a hard link to an absolute name": ([("h", LINK, "V/secret"), ("h", FILE, b"x")], True),
    "a hard link through a link": ([("d", SYMLINK, "V"), ("h", LINK, "d/secret"), ("h", FILE, b"x")], True),
    "a hard link to a link, and its mode": ([("s", SYMLINK, "V/secret"), ("h", LINK, "s")], False),
    "a whiteout through a link": ([("d", SYMLINK, "V"), ("d/.wh.secret", FILE, b"")], True),
    "an opaque folder through a link": ([("d", SYMLINK, "V"), ("d/.wh..wh..opq", FILE, b"")], True),
    "a whiteout of what lies above": ([(".wh...", FILE, b"")], True),
    "a whiteout of what lies above a folder": ([("a/", FOLDER, b""), ("a/.wh.../../.wh.neighbour", FILE, b"")], True),
    "a whiteout that leads up": ([(".wh.../../victim", FILE, b"")], True),
    "a whiteout that is a folder on the way": ([(".wh.../neighbour", FILE, b"x")], True),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_gets_out(name: str, worlds: Callable[[str], World]) -> None:
    rows, refused = ATTACKS[name]

    def made(world: World) -> bytes:
        def real(text: str) -> str:
            up = "../../victim"
            return text.replace("V", str(world.victim)).replace("U", up)

        return layer(*[(real(path), kind, real(more) if isinstance(more, str) else more) for path, kind, more in rows])

    attacked, world = worlds("naive"), worlds("ours")
    try:
        naive(made(attacked), str(attacked.tree))
    except OSError:
        pass  # it took itself the ground from under its feet
    assert not attacked.unharmed(), "this is no attack"
    if refused:
        with pytest.raises(UnpackError) as caught:
            apply(io.BytesIO(made(world)), str(world.tree))
        assert "\n" not in caught.value.message
        assert os.listdir(world.tree) == []
    else:
        apply(io.BytesIO(made(world)), str(world.tree))
        assert os.listdir(world.tree)
    assert world.unharmed()


def _long_way(victim: Path) -> bytes:
    """Folders and links whose real path is longer than realpath(3) follows: what is checked and what is opened differ (CVE-2025-4517)."""
    folder, steps = "d" * 247, "abcdefghijklmnop"
    rows: list[Row] = []
    path = ""
    for step in steps:
        rows += [(path + folder, FOLDER, b""), (path + step, SYMLINK, folder)]
        path += folder + "/"
    top = "/".join(steps) + "/" + "l" * 254
    rows += [
        (top, SYMLINK, "../" * len(steps)),
        ("escape", SYMLINK, f"{top}/../../victim"),
        ("h", LINK, "escape/secret"),
        ("h", FILE, b"owned!"),
    ]
    return layer(*rows)


def test_what_gets_past_tarfiles_filter_stays_inside(worlds: Callable[[str], World]) -> None:
    attacked, world = worlds("naive"), worlds("ours")
    fixed = {(3, 11): (3, 11, 13), (3, 12): (3, 12, 11), (3, 13): (3, 13, 4)}.get(sys.version_info[:2], (3, 14))
    if sys.version_info < fixed:
        with tarfile.open(fileobj=io.BytesIO(_long_way(attacked.victim))) as archive:
            archive.extractall(attacked.tree, filter="data")
        assert (attacked.victim / "secret").read_text() == "owned!"
    with pytest.raises(UnpackError, match="hard link to"):
        apply(io.BytesIO(_long_way(world.victim)), str(world.tree))
    assert world.unharmed() and os.listdir(world.tree) == []


def test_a_name_with_a_nul_is_refused(worlds: Callable[[str], World]) -> None:
    world = worlds("ours")
    for record in ("path", "linkpath"):
        data = layer(("safe", SYMLINK, "x"), **{record: "etc/passwd\0.txt"})
        assert b"passwd\0" in data
        with pytest.raises(ContainersError, match="record"):
            apply(io.BytesIO(data), str(world.tree))
    assert os.listdir(world.tree) == [] and world.unharmed()


def test_a_file_does_not_go_into_a_device_or_pipe_of_its_name(worlds: Callable[[str], World]) -> None:
    world = worlds("ours")
    null = tarfile.TarInfo("null")
    null.type, null.devmajor, null.devminor = tarfile.CHRTYPE, 1, 3
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        pipe = tarfile.TarInfo("pipe")
        pipe.type = tarfile.FIFOTYPE
        for info in (null, pipe):
            archive.addfile(info)
        for name in ("null", "pipe"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"data"))
    apply(io.BytesIO(out.getvalue()), str(world.tree))
    assert {name: (world.tree / name).read_text() for name in os.listdir(world.tree)} == {"null": "data", "pipe": "data"}


def test_attributes_that_overlayfs_would_obey_are_shown_and_not_obeyed(worlds: Callable[[str], World], disk: Path) -> None:
    """``redirect`` lets one folder be another one, ``opaque`` hides what lies below, ``metacopy`` is another file's content."""
    names = ["redirect", "opaque", "metacopy", "origin", "whiteout"]
    rows = {f"SCHILY.xattr.trusted.overlay.{name}": "y" for name in names} | {"SCHILY.xattr.user.pycontainers.owner": "0:0"}
    world = worlds("ours")
    done = apply(io.BytesIO(layer(("d", FOLDER, b""), **rows)), str(world.tree))
    assert sorted(os.listxattr(world.tree / "d")) == sorted(f"trusted.overlay.overlay.{name}" for name in names)
    assert any("own" in note for note in done.notes)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, bytes])
def test_what_is_endless_ends(pack: Callable[[bytes], bytes], worlds: Callable[[str], World]) -> None:
    """Some kilobytes that become as much as one likes: what the tar may have is the caller's limit, what follows it has one always."""
    world = worlds("ours")
    large = pack(layer(("zeros", FILE, bytes(30 << 20))))
    with pytest.raises(ContainersError, match="more than 10485760 bytes"):
        apply(io.BytesIO(large), str(world.tree), limit=10 << 20)
    assert os.listdir(world.tree) == []
    with pytest.raises(ContainersError, match="follow the end"):
        apply(io.BytesIO(pack(layer(("a", FILE, b"a")) + bytes(40 << 20))), str(world.tree))
    assert os.listdir(world.tree) == [] and world.unharmed()


def test_a_file_of_exbibytes_is_no_file(worlds: Callable[[str], World]) -> None:
    world = worlds("ours")
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "huge", "GNU.sparse.realsize": str(2**63 - 1)}
    with pytest.raises(UnpackError, match="huge"):
        apply(io.BytesIO(layer(("x", FILE, b"0\n".ljust(512, b"\0")), **sparse)), str(world.tree))
    assert os.listdir(world.tree) == []


@pytest.mark.parametrize("size", [0, 100, 511, 512, 700, 800, 1300])
def test_half_a_layer_is_none(size: int, worlds: Callable[[str], World]) -> None:
    world = worlds("ours")
    data = layer(("f", FILE, b"x" * 300), ("g", FILE, b"y" * 1000))
    half = gzip.compress(data)[: 20 + size // 20] if size else gzip.compress(data)[:-9]
    for cut in (half, data[:size] if size % 512 else data[:1800]):
        with pytest.raises(ContainersError, match="ends"):
            apply(io.BytesIO(cut), str(world.tree))
        assert os.listdir(world.tree) == []


def test_what_reading_raises_leaves_nothing(worlds: Callable[[str], World]) -> None:
    world = worlds("ours")
    data = io.BytesIO(layer(("f", FILE, b"x" * 300), ("g", FILE, os.urandom(2 << 20))))

    class Broken:
        def read(self, size: int) -> bytes:
            piece = data.read(min(size, 1 << 16))
            if data.tell() > 1 << 20:
                raise ConnectionResetError(104, "reset")
            return piece

    with pytest.raises(ConnectionResetError):
        apply(Broken(), str(world.tree))  # type: ignore[arg-type]
    assert os.listdir(world.tree) == []


def test_thousands_of_folders_one_in_the_other_cost_no_descriptors(worlds: Callable[[str], World]) -> None:
    world = worlds("ours")
    deep = "/".join(["deep"] * 3000)
    before = len(os.listdir("/proc/self/fd"))
    apply(io.BytesIO(layer((deep + "/f", FILE, b"x"), (deep + "/g", FILE, b"y"))), str(world.tree))
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(UnpackError, match="bytes"):
        apply(io.BytesIO(layer(("/".join(["d"] * 10_000), FILE, b"x"))), str(disk_of(world)))
    from pycontainers.linux import trees

    trees.remove(str(world.tree / "deep"))
    assert os.listdir(world.tree) == []


def disk_of(world: World) -> Path:
    other = world.base / "store/other"
    other.mkdir()
    return other
