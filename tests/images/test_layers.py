from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycontainers.errors import ImageError
from pycontainers.images import layers
from pycontainers.images.view import Rootfs

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
