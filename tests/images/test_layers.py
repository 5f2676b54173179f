from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycontainers.errors import ImageError
from pycontainers.images import layers
from pycontainers.images import tar as reading
from pycontainers.images.apply import apply
from pycontainers.images.pack import header
from pycontainers.images.view import Rootfs, is_opaque
from pycontainers.linux import trees

from .conftest import fill

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts, owners and trusted attributes need root")


def tar(folder: Path) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(b"".join(layers.tar_stream(str(folder)))))


def make_tree(folder: Path) -> None:
    """One of everything."""
    fill(str(folder), {"/etc/app/config": "a=1\n", "/bin/tool": "#!", "/empty/": "", "/gone": None, "/etc/gone": None})
    os.chmod(folder / "bin/tool", 0o4755)
    os.chown(folder / "etc/app", 1000, 100)
    os.symlink("../etc/app/config", folder / "bin/link")
    os.link(folder / "etc/app/config", folder / "etc/hard")
    os.mkfifo(folder / "pipe")
    os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.setxattr(folder / "etc/app", "trusted.overlay.opaque", b"y")
    os.setxattr(folder / "etc/app/config", "user.b", b"\xff\x00")
    os.setxattr(folder / "etc/app/config", "user.a", b"1")
    (folder / "long-" / ("x" * 200)).parent.mkdir()
    (folder / "long-" / ("x" * 200)).write_bytes(b"z" * 100_000)
    (folder / "ümlaut").write_text("ü")
    fd = os.open(os.fsencode(folder) + b"/raw-\xff", os.O_CREAT | os.O_WRONLY)
    os.close(fd)
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, ns=(0, 1_700_000_000_123_456_789), follow_symlinks=False)


@needs_root
def test_tar_says_what_the_folder_says(disk: Path) -> None:
    make_tree(disk)
    with tar(disk) as archive:
        found = {member.name: member for member in archive}
        assert list(found) == [
            "bin", "bin/link", "bin/tool", "empty", "etc", "etc/app", "etc/app/.wh..wh..opq", "etc/app/config", "etc/.wh.gone", "etc/hard",
            ".wh.gone", "long-", "long-/" + "x" * 200, "null", "pipe", "raw-\udcff", "ümlaut",
        ]  # fmt: skip
        assert found["bin/tool"].mode == 0o4755
        assert (found["etc/app"].uid, found["etc/app"].gid, found["etc/app"].uname) == (1000, 100, "")
        assert found["bin/link"].linkname == "../etc/app/config"
        assert found["etc/hard"].islnk() and found["etc/hard"].linkname == "etc/app/config"
        assert found["pipe"].isfifo() and found["null"].ischr() and found["null"].devminor == 3
        config = archive.extractfile("etc/app/config")
        assert config is not None and config.read() == b"a=1\n"
        attributes = {k: v for k, v in found["etc/app/config"].pax_headers.items() if k.startswith("SCHILY")}
        assert attributes == {"SCHILY.xattr.user.a": "1", "SCHILY.xattr.user.b": "\udcff\0"}
        assert not any("overlay" in key for member in archive for key in member.pax_headers)
        assert found["empty"].mtime == 1_700_000_000


@needs_root
def test_the_same_tree_twice_has_one_digest(disk: Path) -> None:
    for name in ("one", "two"):
        (disk / name).mkdir()
        make_tree(disk / name)
    first, second = (layers.diff_id(str(disk / name)) for name in ("one", "two"))
    assert first == second
    data = b"".join(layers.tar_stream(str(disk / "one")))
    assert first[0] == "sha256:" + hashlib.sha256(data).hexdigest()
    assert first[1] == 100_000 + len("a=1\n") + len("#!") + len("ü".encode())  # the hard link counts once
    os.chmod(disk / "two/empty", 0o700)
    assert layers.diff_id(str(disk / "two")) != first


_names = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(_names, st.binary(max_size=1500), max_size=8))
def test_any_names_and_contents_survive(disk: Path, files: dict[str, bytes]) -> None:
    files = {name: data for name, data in files.items() if name not in (".", "..") and not name.startswith(".wh.")}
    folder = disk / os.urandom(6).hex()
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with tar(folder) as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert found == files


def test_a_name_that_means_deletion_is_refused(disk: Path) -> None:
    (disk / ".wh.passwd").write_text("")
    with pytest.raises(ImageError, match=r"/\.wh\.passwd cannot be kept"):
        layers.diff_id(str(disk))


def test_sockets_stay_out(disk: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(disk / "s"))
        with tar(disk) as archive:
            assert archive.getnames() == []


def test_chain_id_is_that_of_the_image_spec() -> None:
    assert layers.chain_id("", "sha256:a") == "sha256:a"
    assert layers.chain_id("sha256:a", "sha256:b") == "sha256:" + hashlib.sha256(b"sha256:a sha256:b").hexdigest()


@needs_root
def test_merging_uppers_keeps_the_modes_of_folders_passed_through(disk: Path) -> None:
    skeleton, base = disk / "skeleton", disk / "venv"
    fill(str(skeleton), {"/tmp/venv/": "", "/usr/": ""})
    fill(str(disk / "usr"), {"/bin/": ""})
    fill(str(base), {"/bin/python": ""})
    os.chmod(skeleton / "tmp", 0o1777)
    uppers = {"/": str(disk / "u0"), "/tmp/venv": str(disk / "u1"), "/usr": str(disk / "u2")}
    fill(uppers["/"], {"/etc/made": "1", "/usr/": ""})
    fill(uppers["/tmp/venv"], {"/lib/new": "2", "/bin/python": None})
    os.setxattr(uppers["/tmp/venv"] + "/lib", "user.kept", b"yes")
    os.chown(uppers["/tmp/venv"], 1000, 1000)
    fill(uppers["/usr"], {"/": ""})
    tree = disk / "tree"
    tree.mkdir()
    below = {"/": str(skeleton), "/tmp/venv": str(base), "/usr": str(disk / "usr")}
    layers.merge_uppers(uppers, str(tree), Rootfs((), tuple(below), below))
    assert stat.S_IMODE((tree / "tmp").stat().st_mode) == 0o1777
    assert (tree / "etc/made").read_text() == "1" and (tree / "tmp/venv/lib/new").read_text() == "2"
    assert (tree / "tmp/venv").stat().st_uid == 1000
    assert os.getxattr(tree / "tmp/venv/lib", "user.kept") == b"yes"
    assert (tree / "tmp/venv/bin/python").is_char_device()
    assert sorted(os.listdir(tree)) == ["etc", "tmp"]  # /usr was a mount point and nothing more


@needs_root
def test_a_listed_folder_whose_mode_alone_changed_is_kept(disk: Path) -> None:
    for name in ("skeleton/venv", "base", "u0", "u1", "tree"):
        (disk / name).mkdir(parents=True)
    (disk / "u1").chmod(0o700)
    rootfs = Rootfs((), ("/", "/venv"), {"/": str(disk / "skeleton"), "/venv": str(disk / "base")})
    layers.merge_uppers({"/": str(disk / "u0"), "/venv": str(disk / "u1")}, str(disk / "tree"), rootfs)
    assert stat.S_IMODE((disk / "tree/venv").stat().st_mode) == 0o700


# -- the writer, next to tarfile's of the Python whose bytes it keeps


_raw = st.binary(min_size=1, max_size=160).map(lambda name: name.replace(b"\0", b"n")).filter(lambda name: not name.endswith(b"/"))


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="a layer's digest must not hang on how another Python's tarfile writes")
@settings(max_examples=300, deadline=None)
@given(
    _raw, st.sampled_from([reading.FILE, reading.FOLDER, reading.SYMLINK, reading.LINK, reading.CHARACTER, reading.FIFO]), _raw,
    st.integers(0, 0o7777),
    st.tuples(*[st.one_of(st.integers(0, 3000), st.integers(0, 2**32 - 2))] * 2), st.one_of(st.integers(0, 2**16), st.integers(0, 2**40)),
    st.integers(-(2**33), 2**35), st.dictionaries(st.sampled_from([b"user.a", b"user.b"]), st.binary(max_size=300)),
)  # fmt: skip
def test_headers_are_the_bytes_that_tarfile_writes(
    name: bytes, kind: bytes, target: bytes, mode: int, owner: tuple[int, int], size: int, mtime: int, attributes: dict[bytes, bytes]
) -> None:
    entry, info = reading.Entry(name, kind), tarfile.TarInfo(os.fsdecode(name))
    entry.mode, (entry.uid, entry.gid), entry.mtime, entry.attributes = mode, owner, mtime * 10**9, attributes
    info.mode, (info.uid, info.gid), info.mtime, info.type = mode, owner, mtime, kind
    info.pax_headers = {f"SCHILY.xattr.{key.decode()}": value.decode("utf-8", "surrogateescape") for key, value in attributes.items()}
    if kind in (reading.SYMLINK, reading.LINK):
        entry.target, info.linkname = target, os.fsdecode(target)
    if kind == reading.FILE:
        entry.size = info.size = size
    if kind == reading.CHARACTER:
        entry.device, (info.devmajor, info.devminor) = (4, 511), (4, 511)
    assert header(entry) == info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


@given(st.integers(-(2**62), 2**62))
def test_times_are_written_as_they_are_read(nanoseconds: int) -> None:
    entry = reading.Entry(b"f")
    entry.mtime = nanoseconds
    (found,) = reading.Reader(io.BytesIO(header(entry)).read)
    assert found.mtime == nanoseconds


# -- there and back


def everything(folder: str) -> dict[bytes, tuple[object, ...]]:
    """All that a tree is: type, mode, owner, time, device, target, attributes, content, and which names are one file."""
    first: dict[int, bytes] = {}
    tree: dict[bytes, tuple[object, ...]] = {}
    for at, folders, files in os.walk(os.fsencode(folder)):
        for name in sorted([*folders, *files]):
            path = os.path.join(at, name)
            found, inside = os.lstat(path), os.path.relpath(path, os.fsencode(folder))
            attributes = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}
            attributes.pop("trusted.overlay.origin", None)  # a mark for the kernel's listing
            content: bytes = b""
            if stat.S_ISREG(found.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(found.st_mode):
                content = os.readlink(path)
            whiteout = stat.S_ISCHR(found.st_mode) and not found.st_rdev
            state = (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode), found.st_mtime_ns) if not whiteout else ()
            same = b"" if stat.S_ISDIR(found.st_mode) else min(first.setdefault(found.st_ino, inside), inside)
            tree[inside] = (stat.S_IFMT(found.st_mode), state, found.st_rdev, tuple(sorted(attributes.items())), content, same)
    return tree


_name = st.binary(min_size=1, max_size=60).filter(lambda n: not set(n) & {0, 47} and n not in (b".", b"..") and not n.startswith(b".wh."))
_ids = st.one_of(st.just(0), st.integers(0, 70_000), st.just(2**32 - 2))
_file = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["file", "file", "folder", "folder", "link", "hard", "device", "pipe", "whiteout", "holes"]),
        "way": st.integers(0, 1 << 30), "name": _name, "mode": st.integers(0, 0o7777), "owner": st.tuples(_ids, _ids),
        "mtime": st.integers(-(2**31), 2**33), "content": st.binary(max_size=2000), "opaque": st.booleans(),
        "attributes": st.dictionaries(st.sampled_from(["user.a", "trusted.b", "user.overlay.opaque", "trusted.overlay.overlay.redirect"]),
                                      st.binary(max_size=200), max_size=2),
    }
)  # fmt: skip


def grow(folder: str, files: list[dict[str, object]]) -> None:
    folders, plain, made = [os.fsencode(folder)], [], []
    for want in files:
        path = os.path.join(folders[want["way"] % len(folders)], want["name"])  # type: ignore[operator, arg-type]
        if os.path.lexists(path):
            continue
        kind, content = want["kind"], want["content"]
        if kind == "folder":
            os.mkdir(path)
            folders.append(path)
            if want["opaque"]:
                os.setxattr(path, "trusted.overlay.opaque", b"y")
        elif kind == "link":
            os.symlink(content.replace(b"\0", b"0") or b"x", path)  # type: ignore[attr-defined]
        elif kind == "hard" and plain:
            os.link(plain[want["way"] % len(plain)], path)  # type: ignore[operator]
            continue
        elif kind == "device":
            os.mknod(path, stat.S_IFBLK, os.makedev(7, want["way"] % 1000))  # type: ignore[operator]
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "whiteout":
            os.mknod(path, stat.S_IFCHR, 0)
            continue
        else:
            with open(path, "wb") as file:
                if kind == "holes":
                    file.seek(1 << 18)
                file.write(content)  # type: ignore[arg-type]
            plain.append(path)
        made.append((path, want))
    for path, want in reversed(made):
        os.chown(path, *want["owner"], follow_symlinks=False)  # type: ignore[misc]
        if not os.path.islink(path):
            os.chmod(path, want["mode"])  # type: ignore[arg-type]
        for key, value in want["attributes"].items():  # type: ignore[attr-defined]
            if key.startswith("trusted.") or os.path.isdir(path) or (os.path.isfile(path) and not os.path.islink(path)):
                os.setxattr(path, key, value, follow_symlinks=False)
        os.utime(path, ns=(0, want["mtime"] * 10**9), follow_symlinks=False)  # type: ignore[operator]


@needs_root
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_file, max_size=12))
def test_what_is_packed_and_applied_is_what_it_was(disk: Path, files: list[dict[str, object]]) -> None:
    base = disk / os.urandom(6).hex()
    for name in ("before", "after"):
        (base / name).mkdir(parents=True)
    grow(str(base / "before"), files)
    data = b"".join(layers.tar_stream(str(base / "before")))
    done = apply(io.BytesIO(data), str(base / "after"))
    assert everything(str(base / "after")) == everything(str(base / "before"))
    assert (done.diff_id, done.size) == layers.diff_id(str(base / "before")) == layers.diff_id(str(base / "after"))
    assert done.notes == () and done.size == layers.content_size(str(base / "after"))
    trees.remove(str(base))


@needs_root
def test_an_opaque_root_is_packed_too(disk: Path) -> None:
    for name in ("one", "two"):
        (disk / name).mkdir()
    os.setxattr(disk / "one", "trusted.overlay.opaque", b"y")
    (disk / "one/f").write_text("x")
    data = b"".join(layers.tar_stream(str(disk / "one")))
    assert len(data) % 10240 == 0
    apply(io.BytesIO(data), str(disk / "two"))
    assert is_opaque(str(disk / "two")) and os.listdir(disk / "two") == ["f"]


@needs_root
def test_capabilities_of_a_file_with_two_names_outlive_programs_that_chown_both(disk: Path) -> None:
    """Docker gives every entry its owner, a hard link's as well, and chown(2) drops capabilities: so each entry tells them."""
    (disk / "ping").write_text("x")
    os.setxattr(disk / "ping", "security.capability", b"\1\0\0\2\0\4" + bytes(14))
    os.link(disk / "ping", disk / "ping6")
    with tar(disk) as archive:
        assert all("SCHILY.xattr.security.capability" in member.pax_headers for member in archive)


@needs_root
@pytest.mark.parametrize("command", ["tar --xattrs --xattrs-include=* -xpf -", "bsdtar -xpf -"])
def test_other_programs_unpack_what_we_pack(command: str, disk: Path) -> None:
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    for name in ("one", "two"):
        (disk / name).mkdir()
    make_tree(disk / "one")
    for name in ("gone", "etc/gone"):
        (disk / "one" / name).unlink()
    os.removexattr(disk / "one/etc/app", "trusted.overlay.opaque")
    for path in [*(disk / "one").rglob("*")]:
        os.utime(path, ns=(0, 1_700_000_000 * 10**9), follow_symlinks=False)
    subprocess.run([*command.split(), "-C", str(disk / "two")], input=b"".join(layers.tar_stream(str(disk / "one"))), check=True,
                   env={**os.environ, "LC_ALL": "C.UTF-8"})  # fmt: skip
    assert everything(str(disk / "two")) == everything(str(disk / "one"))
