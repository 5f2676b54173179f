"""A layer's tar into overlay's form: each rule of OCI image-spec's layer.md by itself, then layers at random next to a model of the rules
and to what the kernel shows of the mounted layers.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import struct
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycontainers.images import layers
from pycontainers.images.apply import Applied, apply
from pycontainers.images.unpack import UnpackError
from pycontainers.images.view import Rootfs, View, is_opaque, is_whiteout, visible
from pycontainers.linux import idmap, syscalls, trees

from .conftest import overlay, seen

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and trusted attributes need root")

FILE, LINK, SYMLINK, FOLDER, DEVICE, FIFO = (getattr(tarfile, f"{kind}TYPE") for kind in ("REG", "LNK", "SYM", "DIR", "CHR", "FIFO"))


class Info(tarfile.TarInfo):
    data = b""


def archive(*entries: tarfile.TarInfo | str | tuple[str, Any]) -> bytes:
    """A name alone is an empty file, or a folder (a slash at its end); (name, bytes) is a file, "=x" a hard link, ">x" a link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                made.addfile(entry, io.BytesIO(getattr(entry, "data", b"")))
                continue
            name, more = entry if isinstance(entry, tuple) else (entry, b"")
            info = tarfile.TarInfo(name)
            info.mode = 0o755 if name.endswith("/") else 0o644
            info.type = FOLDER if name.endswith("/") else FILE
            if isinstance(more, str):
                info.type, info.linkname = (LINK if more[0] == "=" else SYMLINK), more[1:]
            else:
                info.size = len(more)
            made.addfile(info, io.BytesIO(more) if isinstance(more, bytes) else None)
    return out.getvalue()


def info(name: str, kind: bytes = FILE, data: bytes = b"", pax: dict[str, str] | None = None, **fields: Any) -> Info:
    made = Info(name)
    made.type, made.size, made.pax_headers = kind, len(data), pax or {}
    made.data = data
    for field, value in fields.items():
        setattr(made, field, value)
    return made


@pytest.fixture
def tree(disk: Path) -> Path:
    (disk / "tree").mkdir()
    return disk / "tree"


def put(tree: Path, *entries: Any) -> Applied:
    return apply(io.BytesIO(archive(*entries)), str(tree))


def names(folder: Path) -> list[str]:
    return sorted(os.path.relpath(os.path.join(at, name), folder) for at, folders, files in os.walk(folder) for name in [*folders, *files])


# -- one by one


def test_one_pass_unpacks_and_hashes(tree: Path) -> None:
    data = archive(("etc/app/config", b"a=1\n"), "etc/.wh.gone")
    moved: list[int] = []
    done = apply(io.BytesIO(gzip.compress(data)), str(tree), moved=moved.append)
    assert done == Applied("sha256:" + hashlib.sha256(data).hexdigest(), 4, len(data), "gzip", ())
    assert moved[-1] == len(data)
    assert (tree / "etc/app/config").read_text() == "a=1\n" and is_whiteout(os.lstat(tree / "etc/gone"))


def test_what_a_file_is_comes_along(tree: Path) -> None:
    capability = b"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"  # cap_net_bind_service=ep, struct vfs_cap_data
    attributes = {"security.capability": capability, "user.a": b"\xff\0=\n", "trusted.b": b"2"}
    pax = {f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape") for key, value in attributes.items()}
    put(
        tree,
        info("bin/su", data=b"#!", mode=0o6755, uid=0, gid=42, mtime=1_600_000_000),
        info("bin/ping", data=b"#!", mode=0o755, uid=1, gid=2, pax={**pax, "mtime": "1600000000.123456789"}),
        info("old", mtime=-86400, mode=0, uid=2**32 - 2, gid=70_000),
        info("null", DEVICE, devmajor=1, devminor=3, mode=0o666, uid=7),
        info("pipe", FIFO, mode=0o620, gid=8, mtime=5),
        info("link", SYMLINK, linkname="../any/\udcff", uid=9, gid=10, mtime=6, pax={"SCHILY.xattr.trusted.l": "1"}),
        info("d", FOLDER, mode=0o3770, uid=11, gid=12, pax={"mtime": "7.5", "SCHILY.xattr.user.d": "d"}),
        info("d/inside", mode=0o600, uid=0, gid=0),
    )
    found = {name: os.lstat(tree / name) for name in names(tree)}
    modes = {name: (stat.S_IMODE(f.st_mode), f.st_uid, f.st_gid) for name, f in found.items() if name != "link"}
    assert modes == {"bin": (0o755, 0, 0), "bin/su": (0o6755, 0, 42), "bin/ping": (0o755, 1, 2), "old": (0, 2**32 - 2, 70_000),
                     "pipe": (0o620, 0, 8), "null": (0o666, 7, 0), "d": (0o3770, 11, 12), "d/inside": (0o600, 0, 0)}  # fmt: skip
    assert found["bin/ping"].st_mtime_ns == 1_600_000_000_123_456_789 and found["old"].st_mtime_ns == -86400 * 10**9
    assert [found[name].st_mtime_ns for name in ("pipe", "link", "d", "bin")] == [5 * 10**9, 6 * 10**9, 7_500_000_000, 0]
    assert {name: os.getxattr(tree / "bin/ping", name) for name in attributes} == attributes
    assert os.getxattr(tree / "d", "user.d") == b"d" and os.getxattr(tree / "link", "trusted.l", follow_symlinks=False) == b"1"
    assert found["null"].st_rdev == os.makedev(1, 3) and stat.S_ISFIFO(found["pipe"].st_mode)
    assert os.readlink(os.fsencode(tree / "link")) == b"../any/\xff" and (found["link"].st_uid, found["link"].st_gid) == (9, 10)


def test_holes_stay_holes(tree: Path) -> None:
    parts = b"1\n3145728\n512\n".ljust(512, b"\0") + b"x" * 512
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "holes", "GNU.sparse.realsize": str(4 << 20)}
    done = put(tree, info("GNUSparseFile.0/holes", data=parts, pax=pax))
    found = (tree / "holes").stat()
    assert found.st_size == done.size == 4 << 20 and found.st_blocks * 512 < 1 << 16
    assert (tree / "holes").read_bytes() == bytes(3 << 20) + b"x" * 512 + bytes((1 << 20) - 512)


def test_odd_names_and_long_paths(tree: Path) -> None:
    name = "new\nline \udcff\udcfe"
    deep = "/".join(["d" * 200] * 30)
    put(tree, ("./" + name, b"1"), ("/abs//olute/./f", b"2"), (f"{deep}/f", b"3"), (f"{deep}/g", f"={deep}/f"), "./", "/", ("...", b"4"))
    assert sorted(os.listdir(os.fsencode(tree))) == sorted([os.fsencode(name), b"abs", b"d" * 200, b"..."])
    assert (tree / "abs/olute/f").read_bytes() == b"2"
    fd = os.open(tree, os.O_PATH)
    for _ in range(30):
        below = os.open("d" * 200, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = below
    assert os.stat("f", dir_fd=fd).st_ino == os.stat("g", dir_fd=fd).st_ino
    os.close(fd)
    trees.remove(str(tree / ("d" * 200)))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (["a/../b"], "outside"), (["../a"], "outside"), ([".."], "outside"), ([".wh.d/f"], "in a whiteout"), (["f", "f/g"], "not a folder"),
        ([".wh."], "whiteout of no file"), (["d/.wh."], "whiteout of no file"), ([".wh.."], "of no file"), ([".wh..."], "of no file"),
        ([("h", "=missing")], "not in this layer"), ([("h", "=")], "not in this layer"), (["f", ("h", "=../f")], "outside"),
        ([("h", "=h")], "not in this layer"), ([".wh.g", ("h", "=g")], "not in this layer"), (["d/", ("h", "=d")], "to a folder"),
        ([("l", ">gone"), "l/f"], "not in this layer"), ([("l", ">l"), "l/f"], "symbolic links"), (["x" * 256], "too long"),
        ([("l", ">f"), "f", "l/g"], "not a folder"), ([info("odd", b"Z")], "type b'Z'"), ([info(".", FILE, b"x")], "no name for a file"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_leaves_nothing(entries: list[Any], said: str, tree: Path) -> None:
    with pytest.raises(UnpackError, match=said) as caught:
        put(tree, "before/file", *entries)
    assert "\n" not in caught.value.message and os.listdir(tree) == []


def test_links_of_the_layer_lead_through_it(tree: Path) -> None:
    """Docker unpacks in a chroot: absolute links start at the layer's root, and nothing is above that."""
    put(tree, "usr/lib/", ("lib", ">usr/lib"), ("abs", ">/usr/lib"), ("up", ">../../../usr"), ("lib/a", b"1"), ("abs/b", b"2"),
        ("up/lib/c", b"3"), "lib/.wh.gone", ("usr/lib/d", "=abs/a"), ("both", ">up/../abs"), ("both/e", b"5"))  # fmt: skip
    assert sorted(os.listdir(tree / "usr/lib")) == ["a", "b", "c", "d", "e", "gone"]
    assert is_whiteout(os.lstat(tree / "usr/lib/gone")) and os.stat(tree / "usr/lib/a").st_nlink == 2
    assert (tree / "usr/lib").stat().st_mtime_ns == 0  # its own, though things were made in it by other ways


def test_a_later_entry_takes_the_place_of_an_earlier_one(tree: Path) -> None:
    put(tree, ("a", b"old"), ("a2", "=a"), ("a", b"new"), "b/c/d", ("b", b"file"), ("l", ">a"), ("l", b"file"), ("m", ">b"), "m/", "c/",
        ("e/f", b"1"), ("e", ">c"), ("e/g", b"2"))  # fmt: skip
    assert names(tree) == ["a", "a2", "b", "c", "c/g", "e", "l", "m"]
    assert [(tree / name).read_bytes() for name in ("a", "a2", "b", "l")] == [b"new", b"old", b"file", b"file"]
    assert is_opaque(str(tree / "m")) and not is_opaque(str(tree / "c"))


def test_the_size_counts_what_is_there_in_the_end(tree: Path) -> None:
    assert put(tree, ("a", b"x" * 1000), ("a", b"12"), ("b", "=a"), ("c", b"345")).size == 5


def test_a_hard_link_to_a_link_is_one(tree: Path) -> None:
    put(tree, ("s", ">/etc/passwd"), ("h", "=s"))
    assert os.lstat(tree / "h").st_ino == os.lstat(tree / "s").st_ino and os.readlink(tree / "h") == "/etc/passwd"


def test_a_hard_links_own_mode_counts_and_keeps_capabilities_where_it_is_the_same(tree: Path) -> None:
    capability = {"SCHILY.xattr.security.capability": (b"\1\0\0\2\0\4" + bytes(14)).decode()}
    put(tree, info("ping", data=b"x", mode=0o755, mtime=9, pax=capability), info("p", LINK, linkname="ping", mode=0o755, mtime=9),
        info("f", data=b"x", mode=0o644), info("g", LINK, linkname="f", mode=0o4700, uid=3))  # fmt: skip
    assert os.getxattr(tree / "ping", "security.capability")[:6] == b"\1\0\0\2\0\4"
    assert (stat.S_IMODE(os.stat(tree / "f").st_mode), os.stat(tree / "f").st_uid) == (0o4700, 3)


def test_whiteouts_hide_what_is_below_and_nothing_of_the_layer(tree: Path) -> None:
    put(tree, "d/.wh.gone", "a/new", ".wh.a", ".wh.b", "b/new", ".wh.c", ("c", b"new"), ("e", b"new"), ".wh.e", "o/mine", "o/.wh..wh..opq",
        "o/.wh.x", ".wh..wh.plnk/1.2", ".wh..wh.aufs", "p/.wh..wh.orph/")  # fmt: skip
    assert names(tree) == ["a", "a/new", "b", "b/new", "c", "d", "d/gone", "e", "o", "o/mine", "o/x"]
    assert {name for name in ("a", "b", "d", "o") if is_opaque(str(tree / name))} == {"a", "b", "o"}
    assert (tree / "c").read_bytes() == (tree / "e").read_bytes() == b"new"


def test_whiteouts_of_what_nobody_has_are_not_listed(tree: Path, disk: Path) -> None:
    """In a folder that one layer alone has, overlayfs lists names of whiteouts, unless it takes it for one that was copied up."""
    put(tree, "d/.wh.gone", "d/here", "o/.wh.gone", "o/.wh..wh..opq")
    (disk / "below").mkdir()
    script = "import os, sys; print(sorted(os.listdir(sys.argv[1] + '/d')), os.listdir(sys.argv[1] + '/o'))"
    shell = 'mount -t overlay o -o lowerdir="$1:$2",upperdir="$3/u",workdir="$3/w" "$3/m" && exec "$4" -c "$5" "$3/m"'
    for name in ("u", "w", "m"):
        (disk / name).mkdir()
    argv = ["unshare", "--mount", "sh", "-c", shell, "sh", str(tree), str(disk / "below"), str(disk), sys.executable, script]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "['here'] []\n"


def test_overlays_own_whiteout_in_a_layer_is_one(tree: Path) -> None:
    put(tree, info("gone", DEVICE, devmajor=0, devminor=0), "d/f", info("d", DEVICE, devmajor=0, devminor=0))
    assert is_whiteout(os.lstat(tree / "gone")) and is_opaque(str(tree / "d"))


def test_folders_that_give_their_group_or_acl_give_it_to_nobody_here(tree: Path) -> None:
    parts = [
        (1, 7, 2**32 - 1),
        (2, 7, 5),
        (4, 5, 2**32 - 1),
        (16, 7, 2**32 - 1),
        (32, 5, 2**32 - 1),
    ]  # user::rwx user:5:rwx group:: mask:: other::
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *part) for part in parts)
    put(tree, info("d", FOLDER, mode=0o2775, gid=50, pax={"SCHILY.xattr.system.posix_acl_default": acl.decode("utf-8", "surrogateescape")}),
        info("d/f", mode=0o640), info("d/s", FOLDER, mode=0o750), "d/implied/x", ("d/l", ">f"))  # fmt: skip
    assert os.getxattr(tree / "d", "system.posix_acl_default") == acl
    for name, mode in {"f": 0o640, "s": 0o750, "implied": 0o755, "l": None}.items():
        found = os.lstat(tree / "d" / name)
        assert found.st_gid == 0 and (mode is None or stat.S_IMODE(found.st_mode) == mode)
        assert not [key for key in os.listxattr(tree / "d" / name, follow_symlinks=False) if "acl" in key]


def test_a_large_layer_costs_little_memory(tree: Path) -> None:
    """In a process of its own, whose peak is its own."""
    program = textwrap.dedent("""
        import io, os, resource, sys, tarfile
        from pycontainers.images.apply import apply
        size, block = 192 << 20, os.urandom(1 << 20)
        info = tarfile.TarInfo("large")
        info.size = size
        pieces = iter([info.tobuf(), *[block] * (size >> 20), bytes(1024)])
        class Source:
            def read(self, count):
                rest = getattr(self, "rest", b"") or next(pieces, b"")
                self.rest = rest[count:]
                return rest[:count]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        apply(Source(), sys.argv[1])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    done = subprocess.run([sys.executable, "-c", program, str(tree)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50 << 10 and (tree / "large").stat().st_size == 192 << 20


# -- an ordinary user's namespaces

_NEW_USER = 0x10000000  # CLONE_NEWUSER


def as_user(first: int, count: int, data: bytes, folder: Path) -> tuple[str, bytes]:
    """Apply and pack again as root of a user namespace that has ``count`` ids from ``first`` on: (notes or error, the tar)."""
    (folder / "tree").mkdir()
    for path in (folder, folder / "tree"):
        os.chown(path, first, first)
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()  # not another program: an ordinary user may not be let to this interpreter
    if pid == 0:
        try:
            assert syscalls.libc.unshare(_NEW_USER) == 0
            os.write(ready[1], b"1")
            os.read(go[0], 1)
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            idmap.single.cache_clear()
            idmap.initial.cache_clear()
            try:
                said = "\n".join(apply(io.BytesIO(data), str(folder / "tree")).notes)
                (folder / "out").write_bytes(b"".join(layers.tar_stream(str(folder / "tree"))))
            except UnpackError as error:
                said = error.message
            (folder / "said").write_text(said)
            os._exit(0)
        finally:
            os._exit(1)
    os.read(ready[0], 1)
    idmap.write_maps(pid, [(0, first, count)], [(0, first, count)])
    os.write(go[1], b"1")
    assert os.waitpid(pid, 0)[1] == 0
    for fd in (*ready, *go):
        os.close(fd)
    return (folder / "said").read_text(), (folder / "out").read_bytes() if (folder / "out").exists() else b""


@pytest.mark.parametrize(("first", "count"), [(65534, 1), (100_000, 65536)])
def test_an_ordinary_user_keeps_all_but_devices_and_gives_owners_back(first: int, count: int, disk: Path) -> None:
    """With a single id, owners are recorded; with a range they are the range's. Packed, both give them back."""
    disk.chmod(0o755)
    (disk / "own").mkdir()
    owned = {"mode": 0o4755, "uid": 33, "gid": 44, "mtime": 1_600_000_000}
    data = archive(
        info("f", data=b"x", **owned), info("d", FOLDER, mode=0o750, uid=1000), "d/.wh.gone", "o/.wh..wh..opq",
        info("l", SYMLINK, linkname="f", mode=0o777), info("h", LINK, linkname="f", **owned), info("null", DEVICE, devmajor=1, devminor=3),
        info("p", FIFO, mode=0o600), info("x", pax={"SCHILY.xattr.user.overlay.opaque": "y"}),
    )  # fmt: skip
    said, packed = as_user(first, count, data, disk / "own")
    assert said == "device 'null' was left out: an ordinary user cannot make it"
    tree = disk / "own/tree"
    found = os.stat(tree / "f")
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (first + 33 if count > 1 else first, 0o4755)
    assert is_whiteout(os.lstat(tree / "d/gone")) and os.getxattr(tree / "o", "user.overlay.opaque") == b"y"
    assert os.listxattr(tree / "x") == ["user.overlay.overlay.opaque"]
    with tarfile.open(fileobj=io.BytesIO(packed)) as made:
        back = {member.name: member for member in made}
    assert sorted(back) == ["d", "d/.wh.gone", "f", "h", "l", "o", "o/.wh..wh..opq", "p", "x"]
    assert {(back[name].uid, back[name].gid, back[name].mode) for name in ("f", "h")} == {(33, 44, 0o4755)}
    assert (back["d"].uid, back["d"].gid, back["d"].mode) == (1000, 0, 0o750)
    assert back["x"].pax_headers == {"SCHILY.xattr.user.overlay.opaque": "y"}


def test_an_owner_outside_of_the_range_is_said(disk: Path) -> None:
    disk.chmod(0o755)
    (disk / "own").mkdir()
    said, _ = as_user(100_000, 1000, archive("a", info("f", uid=5000)), disk / "own")
    assert said == "'f' in the layer belongs to 5000:0, which this user has no id for" and os.listdir(disk / "own/tree") == []


# -- at random


NAMES = st.sampled_from("abc")
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
ENTRIES = st.lists(
    st.one_of(
        st.tuples(st.just("file"), PATHS, st.integers(0, 9)),
        st.tuples(st.just("folder"), PATHS, st.sampled_from([0o755, 0o700])),
        st.tuples(st.just("link"), PATHS, PATHS),
        st.tuples(st.just("symlink"), PATHS, st.sampled_from(["nowhere", "no/where"])),
        st.tuples(st.just("whiteout"), PATHS, st.none()),
        st.tuples(st.just("opaque"), st.one_of(PATHS, st.just(())), st.none()),
    ),
    max_size=9,
)
Tree = dict[tuple[str, ...], list[Any]]
"""path → [kind, mode, content, the layer that it is of]; a hard link is the same list."""


class Wrong(Exception):
    """This layer is one that cannot be."""


def model(below: Tree, entries: list[Any], number: int) -> Tree:
    """layer.md as one would write it down: whiteouts act on what was there before, entries one after the other on what is there then."""
    now = dict(below)

    def drop(path: tuple[str, ...], older: bool = False) -> None:
        for known in [known for known in now if known[: len(path)] == path and not (older and now[known][3] == number)]:
            del now[known]

    def ours(path: tuple[str, ...]) -> bool:
        return not path or (path in now and now[path][3] == number)

    def parents(path: tuple[str, ...]) -> None:
        for length in range(1, len(path)):
            if ours(path[:length]):
                if now[path[:length]][0] != "folder":
                    raise Wrong
                continue
            if path[:length] in now and now[path[:length]][0] != "folder":
                drop(path[:length])
            now[path[:length]] = ["folder", 0o755, "", number]

    for kind, path, more in entries:
        if kind == "opaque":
            parents((*path, "x"))
            for known in [known for known in now if len(known) > len(path) and known[: len(path)] == path and now[known][3] != number]:
                del now[known]
            continue
        parents(path)
        if kind == "whiteout":
            if ours(path):
                if now[path][0] == "folder":
                    for known in [known for known in now if known[: len(path)] == path and now[known][3] != number]:
                        del now[known]
            else:
                drop(path)
        elif kind == "folder":
            if path in now and now[path][0] != "folder":
                drop(path)
            now[path] = ["folder", more, "", number]
        elif kind == "link":
            if not all(ours(more[:length]) for length in range(1, len(more) + 1)) or now[more][0] == "folder" or more == path:
                raise Wrong
            if any(now[more[:length]][0] != "folder" for length in range(1, len(more))) or more[: len(path)] == path:
                raise Wrong
            target = now[more]
            drop(path)
            now[path] = target
        else:
            drop(path)
            now[path] = ["file", 0o644, str(more), number] if kind == "file" else ["link", 0, more, number]
    return now


def written(entries: list[Any]) -> bytes:
    rows: list[Any] = []
    for kind, path, more in entries:
        name = "/".join(path)
        if kind == "opaque":
            rows.append("/".join((*path, ".wh..wh..opq")))
        elif kind == "whiteout":
            rows.append("/".join((*path[:-1], ".wh." + path[-1])))
        elif kind == "folder":
            rows.append(info(name, FOLDER, mode=more))
        elif kind == "link":
            rows.append(info(name, LINK, linkname="/".join(more), mode=0o644))
        else:
            rows.append(info(name, data=str(more).encode(), mode=0o644) if kind == "file" else info(name, SYMLINK, linkname=more))
    return archive(*rows)


def listed(now: Tree) -> dict[str, list[Any]]:
    """A model's tree in the form of ``conftest.seen``."""
    found: dict[str, list[Any]] = {"/": ["folder", 0o755, 0, sorted(path[0] for path in now if len(path) == 1)]}
    for path, (kind, mode, content, _) in now.items():
        below = sorted(other[-1] for other in now if len(other) == len(path) + 1 and other[: len(path)] == path)
        found["/" + "/".join(path)] = [kind, mode, 0, below if kind == "folder" else content]
    return found


def compare(disk: Path, stack: list[list[Any]], mounted: bool) -> None:
    now: Tree = {}
    folders: list[str] = []
    base = disk / os.urandom(6).hex()
    (base / "empty").mkdir(parents=True)
    for number, entries in enumerate(stack):
        (base / str(number)).mkdir()
        try:
            wanted = model(now, entries, number)
        except Wrong:
            with pytest.raises(UnpackError):
                apply(io.BytesIO(written(entries)), f"{base}/{number}")
            assert os.listdir(f"{base}/{number}") == []
            continue
        apply(io.BytesIO(written(entries)), f"{base}/{number}")
        for path, row in wanted.items():
            if row[3] == number and row[0] != "folder":
                same = sorted("/".join(other) for other, its in wanted.items() if its is row)
                inode = os.lstat(f"{base}/{number}/{'/'.join(path)}").st_ino
                assert [name for name in same if os.lstat(f"{base}/{number}/{name}").st_ino == inode] == same
        now = wanted
        folders.append(f"{base}/{number}")
    stacked = Rootfs(tuple(folders), ("/",), {"/": str(base / "empty")})
    assert seen(View(stacked)) == listed(now)
    if mounted:
        stacked = Rootfs(visible(folders), ("/",), {"/": str(base / "empty")})
        assert overlay(stacked, base, walk=["/"])["tree"] == listed(now)
    trees.remove(str(base))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ENTRIES, min_size=1, max_size=3))
def test_layers_mean_what_the_model_says(disk: Path, stack: list[list[Any]]) -> None:
    compare(disk, stack, mounted=False)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ENTRIES, min_size=1, max_size=3))
def test_and_what_the_kernel_shows(disk: Path, stack: list[list[Any]]) -> None:
    compare(disk, stack, mounted=True)
