"""ADD of archives: every packing, Docker's rules for what is in the way, and no way out."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

from pycontainers.builder.archives import is_archive, marked
from pycontainers.builder.context import Context, digest, select
from pycontainers.builder.copying import CopyError
from tests.builder.placing import Image, make

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing owners needs root")
FOLDER, LINK, SYMLINK, FIFO, CHARACTER = tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE


class Member(tarfile.TarInfo):
    content = b""


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644, **fields) -> Member:
    made = Member(name)
    made.type, made.linkname, made.mode, made.size = kind, target, mode, len(content)
    made.content = content
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def pack(*entries: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for one in entries:
            archive.addfile(one, io.BytesIO(one.content))
    return out.getvalue()


@pytest.fixture
def add(tmp_path):
    """Adds archives to an image that has what is in ``base``."""
    make(tmp_path / "base")
    image = Image(tmp_path / "image", make(tmp_path / "base"))
    (tmp_path / "context").mkdir(exist_ok=True)

    def run(data: bytes, to: str = "/x/", **options) -> dict[str, str]:
        (tmp_path / "context/t").write_bytes(data)
        items = marked(select(Context(str(tmp_path / "context")), "t"), options.pop("unpack", None))
        return image.copy(None, items=items, to=to, **options)
    run.image, run.base = image, tmp_path / "base"
    return run


@pytest.mark.parametrize("packed", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress,
                                    lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:])])
def test_every_packing(add, packed):
    data = packed(pack(entry("a", b"1" * 5000), entry("d/b", b"2")))
    made = add(data)
    assert made == {"/x": "/", "/x/a": "1" * 5000, "/x/d": "/", "/x/d/b": "2"}
    assert add(data, to="/y/", unpack=False).keys() == {"/y", "/y/t"}
    assert add(data, to="/z").keys() == {"/z", "/z/a", "/z/d", "/z/d/b"}  # always a folder


@pytest.mark.parametrize("data", [b"", b"text", gzip.compress(b"text"), b"\0" * 10240, b"\x1f\x8b\x08", pack(entry("a"))[1:], b"BZh9",
                                  zstandard.compress(b"x" * 600), lzma.compress(b"")])
def test_what_is_no_archive_is_copied(add, data):
    assert add(data).keys() == {"/x", "/x/t"} and Path(f"{add.image.layers[-1]}/x/t").read_bytes() == data


def test_only_regular_files_are_archives(tmp_path):
    make(tmp_path, "d/", "link -> t.tar")
    (tmp_path / "t.tar").write_bytes(pack(entry("a")))
    os.mkfifo(tmp_path / "pipe")
    context = Context(str(tmp_path))
    assert [is_archive(item) for name in ("d", "link", "t.tar", "pipe") for item in select(context, name)] == [False, True, True, False]


def test_an_archive_unpacked_is_not_one_copied(tmp_path):
    (tmp_path / "t.tar").write_bytes(pack(entry("a")))
    items = select(Context(str(tmp_path)), "t.tar")
    assert digest(items[0]) != digest(marked(items)[0])


@needs_root
def test_attributes(add):
    data = pack(
        entry("./", kind=FOLDER, mode=0o700, uid=3), entry("d", kind=FOLDER, mode=0o1711, uid=1, gid=2, mtime=5),
        entry("d/run", b"x", mode=0o4755, uid=70000),
        entry("d/l", kind=SYMLINK, target="run", uid=4), entry("e/f", b"y", uid=9, mtime=3.5, pax_headers={"SCHILY.xattr.user.k": "v",
              "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.opaque": "y", "mtime": "3.5"}),
        entry("p", kind=FIFO), entry("null", kind=CHARACTER, devmajor=1, devminor=3),
    )
    add(data, chmod="777")
    look = add.image.view.lookup
    assert stat.S_IMODE(look("/x").stat.st_mode) == 0o755 and look("/x").stat.st_uid == 0  # not the archive's own top
    folder = look("/x/d").stat
    assert (stat.S_IMODE(folder.st_mode), folder.st_uid, folder.st_gid, folder.st_mtime) == (0o1711, 1, 2, 5)
    assert (look("/x/d/run").stat.st_mode, look("/x/d/run").stat.st_uid, look("/x/d/l").stat.st_uid) == (0o104755, 70000, 4)
    assert stat.S_IMODE(look("/x/e").stat.st_mode) == 0o755 and look("/x/e").stat.st_uid == 0 and look("/x/e/f").stat.st_mtime == 3.5
    assert os.listxattr(look("/x/e/f").path) == ["user.k"] and stat.S_ISFIFO(look("/x/p").stat.st_mode)
    assert look("/x/null").stat.st_rdev == os.makedev(1, 3)
    add(data, to="/y/", chown="7:8", epoch=2)
    look = add.image.view.lookup
    assert {(look(path).stat.st_uid, look(path).stat.st_gid) for path in ("/y", "/y/d", "/y/d/run", "/y/d/l", "/y/e/f")} == {(7, 8)}
    assert look("/y/e/f").stat.st_mtime == 2 == look("/y/d").stat.st_mtime


def test_what_is_in_the_way(add):
    make(add.base, "x/file", "x/folder/old", "x/kept/old", "x/link -> kept", "x/other -> kept")
    data = pack(
        entry("file", kind=FOLDER), entry("file/new", b"1"), entry("folder", b"now a file"), entry("kept", kind=FOLDER),
        entry("kept/new", b"2"), entry("link/through", b"3"), entry("other", b"4"),
    )
    made = add(data)
    assert made == {"/x": "/", "/x/file": "/", "/x/file/new": "1", "/x/folder": "now a file", "/x/kept": "/", "/x/kept/new": "2",
                    "/x/kept/through": "3", "/x/other": "4"}
    assert add.image.view.listdir("/x/kept") == ["new", "old", "through"] and add.image.view.lookup("/x/folder/old") is None


def test_a_folder_that_was_replaced_and_came_back_is_empty(add):
    make(add.base, "x/d/old")
    made = add(pack(entry("d/one", b""), entry("d", b"file"), entry("d", kind=FOLDER), entry("d/two", b"2")))
    assert made == {"/x": "/", "/x/d": "/", "/x/d/two": "2"} and add.image.view.listdir("/x/d") == ["two"]


def test_hard_links(add):
    make(add.base, "x/below")
    made = add(pack(entry("a", b"1"), entry("d/b", kind=LINK, target="a"), entry("c", kind=LINK, target="./below"),
                    entry("l", kind=SYMLINK, target="a"), entry("m", kind=LINK, target="l"), entry("a", kind=LINK, target="a")))
    assert made == {"/x": "/", "/x/a": "1", "/x/d": "/", "/x/d/b": "1", "/x/below": "x/below", "/x/c": "x/below", "/x/l": "->a",
                    "/x/m": "->a"}
    look = add.image.view.lookup
    assert look("/x/a").stat.st_ino == look("/x/d/b").stat.st_ino and look("/x/c").stat.st_ino == look("/x/below").stat.st_ino


def test_links_on_the_way_are_followed_beneath_the_destination(add):
    make(add.base, "x/usr/lib/", "x/lib -> usr/lib", "x/absolute -> /usr", "x/up -> ../../../usr", "x/loop -> loop", "usr/real")
    made = add(pack(entry("lib/a", b"1"), entry("absolute/b", b"2"), entry("later", kind=SYMLINK, target="/usr"),
                    entry("later/d", b"4")))
    assert {path: what for path, what in made.items() if what != "/"} == {
        "/x/usr/lib/a": "1", "/x/usr/b": "2", "/x/usr/d": "4", "/x/later": "->/usr",
    }
    with pytest.raises(CopyError, match="more than 40 links"):
        add(pack(entry("loop/x", b"")))
    with pytest.raises(CopyError, match="a link on the way to 'up' leads out"):
        add(pack(entry("up/c", b"3")))


def test_a_destination_with_links(add, tmp_path):
    make(add.base, "usr/lib/", "lib -> usr/lib", f"out -> {tmp_path}/outside")
    (tmp_path / "outside").mkdir()
    assert "/usr/lib/a" in add(pack(entry("a", b"")), to="/lib/")
    assert f"{tmp_path}/outside/a" in add(pack(entry("a", b"")), to="/out/")  # inside the image
    assert os.listdir(tmp_path / "outside") == []


@pytest.mark.parametrize("entries", [
    [entry("../out", b"")], [entry("a/../../out", b"")], [entry("x", kind=LINK, target="../../etc/passwd")],
    [entry("x", kind=LINK, target="/etc/passwd")], [entry("x", kind=LINK, target="")],
    [entry("d", kind=FOLDER), entry("x", kind=LINK, target="d")],
    [entry(".wh.etc", b"")], [entry(".wh..wh..opq", b"")], [entry("x", kind=CHARACTER, devmajor=0, devminor=0)], [entry("x", kind=b"Z")],
    [entry("f", b""), entry("f/g", b"")],
])
def test_what_is_refused(add, entries):
    with pytest.raises(CopyError, match=r"^t: |^t cannot be unpacked|not a folder"):
        add(pack(*entries))


@pytest.mark.parametrize("entries", [
    [entry("l", kind=SYMLINK, target="{out}"), entry("l/evil", b"1")],
    [entry("l", kind=SYMLINK, target="../../../../../../../../{out}"), entry("l/evil", b"1")],
    [entry("a", kind=SYMLINK, target="."), entry("a/l", kind=SYMLINK, target="{out}"), entry("a/l/evil", b"1")],
    [entry("l", kind=SYMLINK, target="{out}/evil"), entry("l", b"1")],
    [entry("d", kind=FOLDER), entry("d/l", kind=SYMLINK, target=".."),
     entry("d/l/d/l/l", kind=SYMLINK, target="{out}"), entry("l/evil", b"")],
    [entry("{out}/evil", b"1")],
    [entry("l", kind=SYMLINK, target="{out}"), entry("l", kind=FOLDER, mode=0o777), entry("l/evil", b"1")],
    [entry("d/", kind=FOLDER), entry("d", kind=SYMLINK, target="{out}"), entry("d/evil", b"1")],
    [entry("l", kind=SYMLINK, target="{out}/secret"), entry("h", kind=LINK, target="l"), entry("h", b"1")],
    [entry("l", kind=SYMLINK, target="{out}"), entry("h", kind=LINK, target="l/secret")],
])
def test_nothing_lands_outside(add, tmp_path, entries):
    out = make(tmp_path / "outside", "secret")
    for one in entries:
        one.name, one.linkname = one.name.replace("{out}", str(out)), one.linkname.replace("{out}", str(out))
    for to in ("/", "/x/"):
        try:
            made = add(pack(*entries), to=to)
        except CopyError:
            continue
        assert "secret" not in made.values()
    assert os.listdir(out) == ["secret"] and (out / "secret").read_text() == "secret" and stat.S_IMODE(out.stat().st_mode) != 0o777


def test_broken_archives_say_so(add):
    whole = pack(entry("a", random.Random(1).randbytes(100_000)), entry("b", b"2"))
    large = pack(entry("a", random.Random(1).randbytes(500_000)))
    for data in (whole[:50_000], gzip.compress(whole)[:50_000], gzip.compress(whole)[:-4], bz2.compress(whole)[:-9],
                 lzma.compress(whole)[:-30], zstandard.compress(large)[:400_000], gzip.compress(whole) + b"junk", whole[:101_000]):
        with pytest.raises(CopyError, match=r"^t cannot be unpacked"):
            add(data)


def test_damage_anywhere_is_an_error_in_words_or_nothing(add):
    chance = random.Random(3)
    whole = pack(entry("d", kind=FOLDER), entry("d/a", b"1" * 600), entry("l", kind=SYMLINK, target="d"), entry("l/b", b"2"),
                 entry("h", kind=LINK, target="d/a"), entry("long" * 60, b"3"))
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            add(bytes(data))
        except CopyError:
            pass
        add.image.layers[1:] = []


def test_sparse_files_and_gnu_tar(add, tmp_path):
    folder = make(tmp_path / "source", "a/b", "l -> a/b")
    with (folder / "hole").open("wb") as file:
        file.truncate(3_000_000)
        file.seek(2_000_000)
        file.write(b"end")
    subprocess.run(["tar", "-C", folder, "-czSf", tmp_path / "t.tgz", "."], check=True)
    made = add((tmp_path / "t.tgz").read_bytes(), to="/")
    assert made["/a/b"] == "a/b" and made["/l"] == "->a/b"
    found = Path(f"{add.image.layers[-1]}/hole")
    assert found.read_bytes() == (folder / "hole").read_bytes() and found.stat().st_blocks * 512 < 1_000_000


def test_several_archives_and_files(tmp_path, add):
    make(tmp_path / "context", "plain")
    (tmp_path / "context/one.tar").write_bytes(pack(entry("a", b"1")))
    (tmp_path / "context/two.tar").write_bytes(pack(entry("b", b"2"), entry("a", b"3")))
    items = marked(select(Context(str(tmp_path / "context")), "*"))
    assert add.image.copy(None, items=items, to="/x/") == {"/x": "/", "/x/a": "3", "/x/b": "2", "/x/plain": "plain"}


def test_cancelling(add):
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        add(pack(entry("big", b"1" * 10_000_000)), check=check)
