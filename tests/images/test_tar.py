"""The reader of archives, next to those who have read and written them for long: Python's tarfile, GNU tar and bsdtar."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycontainers.images import tar
from pycontainers.images.tar import ArchiveError, Entry, Reader

needs_bsdtar = pytest.mark.skipif(shutil.which("bsdtar") is None, reason="bsdtar is not installed")


def read(data: bytes, step: int = 1 << 18, **settings: Any) -> list[tuple[Entry, bytes]]:
    """All entries with their content, holes filled; read in steps that need not be blocks."""
    file = io.BytesIO(data)
    reader = Reader(lambda size: file.read(min(size, step)), **settings)
    found = []
    for entry in reader:
        content = bytearray(entry.size if entry.size < 1 << 24 else 0)
        for offset, piece in reader.content():
            content[offset : offset + len(piece)] = piece
        found.append((entry, bytes(content)))
    reader.drain()
    assert reader.position == len(data)
    return found


def only(data: bytes, **settings: Any) -> Entry:
    ((entry, _),) = read(data, **settings)
    return entry


def block(name: bytes = b"f", size: bytes = b"00000000000\0", kind: bytes = b"0", **fields: bytes) -> bytes:
    """One header, its checksum right."""
    made = bytearray(512)
    layout = {"mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "mtime": (136, 12), "link": (157, 100), "magic": (257, 8),
              "major": (329, 8), "minor": (337, 8), "prefix": (345, 155), "rest": (500, 12)}  # fmt: skip
    made[0 : len(name)], made[124:136], made[156:157], made[257:265] = name, size, kind, b"ustar\x0000"
    for field, value in fields.items():
        at, length = layout[field]
        made[at : at + length] = value.ljust(length, b"\0")
    return summed(made)


def summed(made: bytearray) -> bytes:
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


def body(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 512)


def extended(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    data = b""
    for key, value in records:
        size = len(key) + len(value) + 3
        size += len(str(size + len(str(size))))
        data += b"%d %s=%s\n" % (size, key, value)
    return block(b"PaxHeader", b"%011o\0" % len(data), kind) + body(data)


END = bytes(1024)


# -- what others write


names = (
    st.binary(min_size=1, max_size=300)
    .map(lambda raw: raw.replace(b"\0", b"n").replace(b"/", b"s"))
    .filter(lambda n: n not in (b".", b".."))
)
infos = st.fixed_dictionaries(
    {
        "name": st.lists(names, min_size=1, max_size=3).map(b"/".join),
        "mode": st.integers(0, 0o7777),
        "uid": st.one_of(st.integers(0, 2000), st.integers(0, 2**32 - 2)),
        "gid": st.one_of(st.integers(0, 2000), st.integers(0, 2**32 - 2)),
        "mtime": st.integers(-(2**33), 2**34),
        "type": st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]),
        "target": names,
        "data": st.binary(max_size=1500),
        "device": st.tuples(st.integers(0, 4095), st.integers(0, 2**20 - 1)),
        "attributes": st.dictionaries(st.sampled_from([b"user.a", b"security.capability", b"trusted.x"]), st.binary(max_size=600)),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(infos, max_size=5),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.sampled_from([1, 511, 512, 513, 4096, 1 << 18]),
)
def test_what_tarfile_writes_is_read_as_it_was_meant(entries: list[dict[str, Any]], form: int, step: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for wanted in entries:
            info = tarfile.TarInfo(os.fsdecode(wanted["name"]))
            info.mode, info.uid, info.gid, info.mtime, info.type = (wanted[key] for key in ("mode", "uid", "gid", "mtime", "type"))
            if info.issym() or info.islnk():
                info.linkname = os.fsdecode(wanted["target"])
            if info.ischr():
                info.devmajor, info.devminor = wanted["device"]
            if info.isreg():
                info.size = len(wanted["data"])
            if form == tarfile.PAX_FORMAT:
                info.pax_headers = {
                    f"SCHILY.xattr.{k.decode()}": v.decode("utf-8", "surrogateescape") for k, v in wanted["attributes"].items()
                }
            archive.addfile(info, io.BytesIO(wanted["data"]))
    found = read(out.getvalue(), step)
    assert len(found) == len(entries)
    for (entry, content), wanted in zip(found, entries, strict=True):
        assert entry.name.rstrip(b"/") == wanted["name"].rstrip(b"/") and entry.kind == wanted["type"]
        assert (entry.mode, entry.uid, entry.gid) == (wanted["mode"], wanted["uid"], wanted["gid"])
        assert entry.mtime == wanted["mtime"] * 10**9
        assert content == (wanted["data"] if entry.kind == tar.FILE else b"")
        assert entry.target == (wanted["target"] if entry.kind in (tar.LINK, tar.SYMLINK) else b"")
        assert entry.device == (wanted["device"] if entry.kind == tar.CHARACTER else (0, 0))
        assert entry.attributes == (wanted["attributes"] if form == tarfile.PAX_FORMAT else {})


def make_tree(folder: Path) -> dict[bytes, tuple[int, int, bytes]]:
    """Names, times and holes of all kinds: path → (size, mtime, content)."""
    (folder / "sub").mkdir()
    paths = [b"plain", b"sub/" + b"x" * 150, b"n" * 99, b"n" * 100, b"n" * 101, b"raw-\xff\xfe", "ümlaut".encode(), b"new\nline", b"empty"]
    for number, path in enumerate(paths):
        with open(os.path.join(os.fsencode(folder), path), "wb") as file:
            file.write(b"" if path == b"empty" else os.urandom(500 + 300 * number))
    sparse = {"holes": [(1 << 20, 70_000), (3 << 20, 4096)], "start": [(0, 4096), (2 << 20, 0)], "none": [(1 << 19, 0)]}
    for number, (name, parts) in enumerate({**sparse, "many": [(n << 17, 4096) for n in range(60)]}.items()):
        with open(folder / name, "wb") as file:
            for offset, size in parts:
                file.seek(offset)
                file.write(bytes([65 + number]) * size)
                file.truncate(offset + size)
        paths.append(name.encode())
    os.symlink(b"t" * 200, folder / "link")
    os.link(folder / "plain", folder / "zz-hard")
    found = {}
    for number, path in enumerate(paths):
        place = os.path.join(os.fsencode(folder), path)
        os.utime(place, ns=(0, 1_600_000_000_000_000_000 + number * 1_000_000_007))
        with open(place, "rb") as file:
            content = file.read()
        found[path] = len(content), os.stat(place).st_mtime_ns, content
    return found


@pytest.mark.parametrize(
    "command",
    ["tar --format=gnu", "tar --format=gnu -S", "tar --format=pax", "tar --format=pax -S --sparse-version=0.0",
     "tar --format=pax -S --sparse-version=0.1", "tar --format=pax -S --sparse-version=1.0",
     "bsdtar --format=pax", "bsdtar --format=gnutar", "bsdtar --format=pax --read-sparse"],
)  # fmt: skip
def test_what_other_programs_write_is_read_as_it_is_on_the_disk(command: str, disk: Path) -> None:
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    (disk / "src").mkdir()
    wanted = make_tree(disk / "src")
    os.setxattr(disk / "src/plain", "user.note", b"a=\xff\0\n")
    done = subprocess.run([*command.split(), *(["--xattrs"] if "pax" in command else []), "-cf", "-", "-C", str(disk / "src"), "."],
                          capture_output=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"})  # fmt: skip
    assert done.stdout
    found = {entry.name.removeprefix(b"./"): (entry, content) for entry, content in read(done.stdout, 7000)}
    assert found[b"link"][0].target == b"t" * 200
    data = [name for name in (b"plain", b"zz-hard") if found[name][0].kind == tar.FILE]
    assert len(data) == 1 and {found[name][0].target.removeprefix(b"./") for name in (b"plain", b"zz-hard")} == {b"", *data}
    for path, (size, mtime, content) in wanted.items():
        entry, got = found[data[0]] if path == b"plain" else found[path]
        assert (entry.size, got) == (size, content), path
        assert entry.mtime == (mtime if "pax" in command else mtime // 10**9 * 10**9), path
        if path == b"holes" and ("-S" in command or "sparse" in command):
            assert entry.parts is not None and entry.stored < size
    if "pax" in command:
        assert found[data[0]][0].attributes.get(b"user.note") == b"a=\xff\0\n"


@needs_bsdtar
def test_bsdtars_own_attribute_form_is_known() -> None:
    header = extended((b"LIBARCHIVE.xattr.user.a%25b", b"AAE"), (b"path", b"f"))
    assert only(header + block() + END).attributes == {b"user.a%b": b"\0\1"}


# -- forms that few programs write any more


def test_old_forms() -> None:
    assert only(block(b"d/", kind=b"\0", magic=b"") + END).kind == tar.FOLDER
    assert only(block(b"f", kind=b"\0", magic=b"") + END).kind == tar.FILE
    assert only(block(b"f", magic=b"", prefix=b"nothing") + END).name == b"f"
    assert only(block(b"f", prefix=b"pre") + END).name == b"pre/f"
    assert only(block(b"f", prefix=b"pre".ljust(131, b"\0") + b"\x31" * 24, rest=b"\0" * 8 + b"tar\0") + END).name == b"pre/f"  # star
    assert only(block(b"f", kind=b"7") + END).kind == tar.FILE
    assert only(block(b"c", kind=b"3", major=b"0000001\0", minor=b"0000003\0") + END).device == (1, 3)
    spaced = only(block(b"f", size=b"      12 \0  ", mode=b"  644 \0") + body(b"twelve bytes"[:10]) + END)
    assert (spaced.size, spaced.mode) == (10, 0o644)


def test_sums_of_signed_bytes_are_known() -> None:
    made = bytearray(block(b"\xff\xfe"))
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(struct.unpack("512b", made))
    assert only(bytes(made) + END).name == b"\xff\xfe"


@pytest.mark.parametrize(
    ("mtime", "wanted"), [(b"\xff" * 12, -1), (b"\xff" * 11 + b"\x9c", -100), (b"\x80" + b"\0" * 6 + b"\1" + b"\0" * 4, 1 << 32)]
)
def test_numbers_to_the_base_256(mtime: bytes, wanted: int) -> None:
    assert only(block(mtime=mtime) + END).mtime == wanted * 10**9


@pytest.mark.parametrize(
    ("text", "wanted"),
    [(b"1.5", 1_500_000_000), (b"-1.5", -1_500_000_000), (b"1.", 10**9), (b"1.0000000019", 1_000_000_001), (b"-0.25", -250_000_000)],
)
def test_times_are_exact(text: bytes, wanted: int) -> None:
    assert only(extended((b"mtime", text)) + block() + END).mtime == wanted


def test_what_extended_headers_say() -> None:
    records = [
        (b"path", b"a\xff/b"),
        (b"size", b"3"),
        (b"uid", b"4000000000"),
        (b"gid", b"7"),
        (b"mtime", b""),
        (b"comment", b"x\0y"),
        (b"SCHILY.xattr.user.e", b""),
    ]
    ((entry, content),) = read(extended(*records) + block(mtime=b"00000000001\0") + body(b"abc") + END)
    assert (entry.name, entry.uid, entry.gid, content, entry.mtime) == (b"a\xff/b", 4_000_000_000, 7, b"abc", 10**9)
    assert entry.attributes == {b"user.e": b""}
    # One more after it: nothing is left over.
    first, second = read(extended((b"path", b"long")) + block() + block(b"next") + END)
    assert (first[0].name, second[0].name) == (b"long", b"next")


def test_global_headers_hold_for_all_or_are_passed_over() -> None:
    data = (
        extended((b"uid", b"5"), (b"path", b"everybody"), (b"size", b"512"), kind=b"g")
        + block(b"a")
        + extended((b"uid", b"6"))
        + block(b"b")
        + END
    )
    assert [(entry.name, entry.uid, entry.size) for entry, _ in read(data)] == [(b"a", 5, 0), (b"b", 6, 0)]
    assert [(entry.name, entry.uid) for entry, _ in read(data, defaults=False)] == [(b"a", 0), (b"b", 6)]


def test_a_size_counts_once_and_for_everybody() -> None:
    """CVE-2025-62518: a reader that skips by the header's size and another one by PAX's see different archives."""
    inner = block(b"smuggled") + bytes(512)
    data = extended((b"size", b"%d" % len(inner))) + block(b"outer") + inner + END
    assert [entry.name for entry, _ in read(data)] == [b"outer"]
    assert [member.name for member in tarfile.open(fileobj=io.BytesIO(data))] == ["outer"]


def test_links_and_folders_have_no_content_whatever_their_size_says() -> None:
    for kind in (b"1", b"2", b"5", b"6"):
        data = block(b"l", b"00000001000\0", kind, link=b"t") + block(b"next") + END
        assert [entry.name for entry, _ in read(data)] == [b"l", b"next"]


def test_the_end() -> None:
    whole = block() + END
    assert len(read(whole)) == len(read(block())) == len(read(block() + bytes(512))) == 1
    assert read(b"") == []
    assert len(read(whole + b"anything" * 1000)) == 1  # as GNU tar and Go: what follows is another's


# -- what is wrong


def old_sparse(*numbers: int, size: int, real: int) -> bytes:
    made = bytearray(block(b"s", b"%011o\0" % size, b"S"))
    for at, number in enumerate(numbers):
        made[386 + 12 * at : 398 + 12 * at] = b"%011o\0" % number
    made[483:495] = b"%011o\0" % real
    return summed(made) + bytes(-(-size // 512) * 512) + END


def new_sparse(text: bytes, real: bytes = b"9") -> bytes:
    records = (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", real), (b"GNU.sparse.name", b"s")
    return extended(*records) + block(b"x", b"%011o\0" % (512 + 5)) + body(text) + body(b"hello") + END


def test_sparse_maps_by_hand() -> None:
    ((entry, content),) = read(new_sparse(b"1\n2\n5\n"))
    assert (entry.name, content) == (b"s", b"\0\0hello\0\0")
    assert only(old_sparse(512, 512, size=512, real=2000)).parts == [(512, 512)]


def broken() -> dict[str, tuple[bytes, str]]:
    good = bytearray(block(b"name"))
    good[0] ^= 1
    damaged = {
        "sum": bytes(good) + END,
        "no octal": block(size=b"0000000000x\0") + END,
        "sign": block(size=b"-0000000001\0") + END,
        "underscore": block(size=b"0000_000001\0") + END,
        "eight": block(mode=b"0000088\0") + END,
        "negative": block(size=b"\xff" * 12) + END,
        "huge": block(size=b"\x80" + b"\x7f" * 11) + END,
        "nobody": block(uid=b"\x80\0\0\0\xff\xff\xff\xff") + END,  # chown(-1) would leave it as it is
        "nobody in PAX": extended((b"uid", b"4294967295")) + block() + END,
        "negative in PAX": extended((b"size", b"-1")) + block() + END,
        "spaced in PAX": extended((b"size", b" 1")) + block() + END,
        "NUL in a path": extended((b"path", b"a\0b")) + block() + END,
        "NUL in a link": extended((b"linkpath", b"a\0b")) + block(kind=b"2") + END,
        "time": extended((b"mtime", b"1e9")) + block() + END,
        "no time": extended((b"mtime", b"9" * 30)) + block() + END,
        "attribute without a name": extended((b"SCHILY.xattr.", b"1")) + block() + END,
        "sparse beyond its size": new_sparse(b"1\n6\n5\n"),
        "sparse backwards": new_sparse(b"2\n4\n2\n0\n3\n"),
        "sparse of another size": new_sparse(b"1\n0\n4\n"),
        "sparse map of words": new_sparse(b"1\nx\n5\n"),
        "sparse map without end": new_sparse(b"9" * 512),
        "sparse map that promises": new_sparse(b"1000000\n0\n5\n"),
        "old sparse": old_sparse(512, 100, size=512, real=2000),
        "old sparse beyond": old_sparse(1512, 512, size=512, real=2000),
        "volume": block(kind=b"M") + END,
        "empty block": block() + bytes(512) + block() + END,
    }  # fmt: skip
    for number, data in enumerate(
        [b"5 a=b\n", b"999 a=b\n", b"6 a=bx", b"4 =\n", b"x a=b\n", b"6  a=b", b"0 a=b\n", b"07 a=bc", b"6 abc\n", b"6 a=b\nz"]
    ):
        damaged[f"record {number}"] = block(b"x", b"%011o\0" % len(data), b"x") + body(data) + block() + END
    cut = {
        "header": block()[:300],
        "content": block(size=b"00000002000\0") + bytes(512),
        "content of one": block(size=b"00000000001\0"),
        "extended header": extended((b"path", b"x" * 900))[:600],
        "after an extended header": extended((b"path", b"x")) + END,
        "long name": block(b"x", b"00000001000\0", b"L") + bytes(100),
        "after a long name": block(b"x", b"00000000005\0", b"L") + body(b"name\0"),
    }
    return {key: (data, r"ends") for key, data in cut.items()} | {key: (data, "") for key, data in damaged.items()}


@pytest.mark.parametrize("case", broken())
def test_what_is_wrong_is_one_line(case: str) -> None:
    data, said = broken()[case]
    with pytest.raises(ArchiveError, match=said or None) as caught:
        read(data)
    assert "\n" not in caught.value.message


def test_extended_headers_are_no_bombs() -> None:
    for kind in (b"x", b"g", b"L", b"K"):
        with pytest.raises(ArchiveError, match="2097152 bytes"):
            read(block(b"x", b"%011o\0" % (2 << 20), kind))  # before it is read


def test_what_follows_the_end_does_so_for_a_while_only() -> None:
    endless = iter([block() + END])
    with pytest.raises(ArchiveError, match="follow the end"):
        reader = Reader(lambda size: next(endless, bytes(size)))
        list(reader)
        reader.drain()


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_damage_ends_in_anything_but_an_error(data: st.DataObject) -> None:
    """Any byte of real headers changed: the entries, or one error; never a traceback of another kind, nothing without end."""
    whole = bytearray(extended((b"path", b"p" * 120), (b"SCHILY.xattr.user.a", b"v")) + block(size=b"00000000010\0") + body(b"8 bytes!")
                      + old_sparse(512, 512, size=512, real=2000)[:-1024] + new_sparse(b"1\n2\n5\n"))  # fmt: skip
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):  # let damage get past the sum
        for at in range(0, len(whole) - 511, 512):
            if whole[at + 257 : at + 262] == b"ustar":
                whole[at : at + 512] = summed(whole[at : at + 512])
    try:
        for entry in Reader(io.BytesIO(whole[: data.draw(st.integers(0, len(whole)))]).read):
            repr(entry)
    except ArchiveError:
        pass
