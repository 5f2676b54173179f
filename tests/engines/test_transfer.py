"""cp: Docker's table of sources and destinations, whole trees there and back, in every status."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.errors import ContainersError, NotFound, StateError, UsageError
from pycontainers.protocol import ContainerInfo, ExecConfig, Mount

from .conftest import MOMENT, Copier, one_of_everything, tree

pytestmark = pytest.mark.root
Make = Callable[..., ContainerInfo]


@pytest.fixture
def inside(engine: NativeEngine) -> Callable[..., str]:
    def run(info: ContainerInfo, script: str) -> str:
        found = bytearray()
        engine.exec(info.id, ExecConfig(("sh", "-c", script)), None, lambda stream, data: found.extend(data))
        return found.decode()

    return run


def test_a_tree_comes_back_as_it_was_in_every_status(engine: NativeEngine, make: Make, disk: Path, status: str) -> None:
    (disk / "tree").mkdir()
    one_of_everything(disk / "tree")
    copy = Copier(engine, make(status).id)
    copy(disk / "tree", ":/opt/tree", archive=True)
    copy(":/opt/tree", disk / "back", archive=True)
    assert tree(disk / "back") == tree(disk / "tree")


def test_without_archive_files_are_roots_inside_and_the_callers_outside(
    engine: NativeEngine, make: Make, disk: Path, inside: Any
) -> None:
    (disk / "tree").mkdir()
    one_of_everything(disk / "tree")
    info = make()
    copy = Copier(engine, info.id)
    copy(disk / "tree", ":/opt/tree")
    assert set(inside(info, "find /opt/tree -exec stat -c %u:%g {} +").split()) == {"0:0"}
    assert inside(info, "stat -c %a /opt/tree/script /opt/tree/deep/er").split() == ["4755", "2750"]
    inside(info, "chown -R 1000:1000 /opt/tree; chmod 6755 /opt/tree/script")
    copy(":/opt/tree", disk / "back")
    found = tree(disk / "back")
    assert {entry[2] for entry in found.values()} == {(os.geteuid(), os.getegid())}
    # Whatever was made set-user-id inside would be the caller's, who is root: it gives nobody rights here.
    assert not any(entry[1] & 0o6000 for entry in found.values() if entry[0] == stat.S_IFREG)


@pytest.mark.parametrize(
    ("source", "before", "target", "after"),
    [  # https://docs.docker.com/reference/cli/docker/container/cp/
        ("file", "", "new", {"new": "f"}),
        ("file", "", "new/", NotFound),
        ("file", "old", "old", {"old": "f"}),
        ("file", "dir/", "dir", {"dir/file": "f"}),
        ("file", "dir/", "dir/", {"dir/file": "f"}),
        ("file", "dir/", "dir/other", {"dir/other": "f"}),
        ("file", "", "missing/other", NotFound),
        ("file", "old", "old/", ContainersError),
        ("file", "dir/file/", "dir", ContainersError),
        ("folder", "", "new", {"new/a": "f"}),
        ("folder", "", "new/", {"new/a": "f"}),
        ("folder", "", "missing/new", NotFound),
        ("folder", "old", "old", UsageError),
        ("folder", "dir/", "dir", {"dir/folder/a": "f"}),
        ("folder", "dir/folder", "dir", ContainersError),
        ("folder/", "dir/", "dir", {"dir/folder/a": "f"}),
        ("folder/.", "dir/", "dir", {"dir/a": "f"}),
        ("folder/.", "", "new", {"new/a": "f"}),
        ("folder/.", "old", "old", UsageError),
        ("file/", "dir/", "dir", ContainersError),
        ("missing", "dir/", "dir", NotFound),
        ("link", "", "new", {"new": "file"}),
        ("linkdir/", "dir/", "dir", {"dir/linkdir/a": "f"}),
        ("linkdir/.", "dir/", "dir", {"dir/a": "f"}),
        ("-L link", "", "new", {"new": "f"}),
        ("-L link", "dir/", "dir", {"dir/link": "f"}),
        ("-L linkdir", "", "new", {"new/a": "f"}),
        ("file", "@ old", "old", {"target": "f"}),
        ("file", "@/ old", "old", {"target/file": "f"}),
    ],
)
@pytest.mark.parametrize("direction", ["in", "out"])
def test_the_table(
    engine: NativeEngine, make: Make, disk: Path, direction: str, source: str, before: str, target: str, after: Any
) -> None:
    """The same table in both directions: what is on the one side the first time is on the other the second time."""
    volume = disk / "volume"
    sides = {"in": (disk / "here", volume), "out": (volume, disk / "here")}[direction]
    info = make(mounts=(Mount("bind", "/v", str(volume), create=True),))
    for side in sides:
        side.mkdir(exist_ok=True)
    (sides[0] / "file").write_text("f")
    (sides[0] / "folder").mkdir()
    (sides[0] / "folder/a").write_text("f")
    os.symlink("file", sides[0] / "link")
    os.symlink("folder", sides[0] / "linkdir")
    _prepare(sides[1], before)
    follow, name = source.startswith("-L "), source.removeprefix("-L ")
    copy = Copier(engine, info.id)
    words = (f"{sides[0]}/{name}", f":/v/{target}") if direction == "in" else (f":/v/{name}", f"{sides[1]}/{target}")
    if isinstance(after, type):
        standing = tree(sides[1])
        with pytest.raises(after):
            copy(*words, follow=follow)
        assert tree(sides[1]) == standing
        return
    copy(*words, follow=follow)
    for path, content in after.items():
        found = sides[1] / path
        assert (os.readlink(found) if found.is_symlink() else found.read_text()) == content, path


def _prepare(side: Path, before: str) -> None:
    if before.startswith("@"):
        os.symlink("target", side / "old")
        (side / "target").mkdir() if before[1] == "/" else (side / "target").write_text("old")
    elif before.endswith("/"):
        (side / before).mkdir(parents=True)
    elif before:
        (side / before).parent.mkdir(exist_ok=True)
        (side / before).write_text("old")


def test_what_is_mounted_is_seen_in_every_status(engine: NativeEngine, make: Make, disk: Path, status: str) -> None:
    (disk / "volume").mkdir()
    (disk / "file").write_text("into the volume")
    info = make(status, mounts=(Mount("bind", "/data", str(disk / "volume")), Mount("bind", "/locked", str(disk), read_only=True)))
    copy = Copier(engine, info.id)
    copy(disk / "file", ":/data/new")
    assert (disk / "volume/new").read_text() == "into the volume"
    assert (disk / "volume/new").stat().st_uid == 0
    copy(":/data/new", disk / "back")
    assert (disk / "back").read_text() == "into the volume"
    with pytest.raises(StateError, match="mounted volume is marked read-only"):
        copy(disk / "file", ":/locked/new")
    assert engine.diff(info.id) == []  # mount points that had to be made are nobody's change
    copy(":/etc/hosts", disk / "hosts")
    assert "localhost" in (disk / "hosts").read_text()


def test_a_read_only_root_stays_so_in_every_status(engine: NativeEngine, make: Make, disk: Path, status: str) -> None:
    (disk / "file").write_text("x")
    info = make(status, read_only=True, mounts=(Mount("bind", "/data", str(disk), create=True),))
    copy = Copier(engine, info.id)
    with pytest.raises(StateError, match="container rootfs is marked read-only"):
        copy(disk / "file", ":/etc/new")
    copy(disk / "file", ":/data/new")
    assert (disk / "new").exists()
    assert engine.diff(info.id) == []


@pytest.mark.parametrize("path", ["/proc/version", "/proc/1/root/etc/passwd", "/sys/kernel", "/dev/pts", "/proc/", "/dev/null", "/dev"])
def test_what_is_the_kernels_is_refused(engine: NativeEngine, make: Make, disk: Path, path: str) -> None:
    copy = Copier(engine, make().id)
    with pytest.raises(ContainersError):
        copy(f":{path}", disk / "x")
    with pytest.raises(ContainersError):
        (disk / "file").write_text("x")
        copy(disk / "file", f":{path}")
    assert not (disk / "x").exists()


def test_the_whole_root_comes_without_the_kernels(engine: NativeEngine, make: Make, disk: Path) -> None:
    Copier(engine, make().id)(":/", disk / "root")
    assert os.listdir(disk / "root/proc") == os.listdir(disk / "root/sys") == []
    assert (disk / "root/etc/motd").read_text() == "from the image\n"


def test_a_tar_goes_in_and_comes_out(engine: NativeEngine, make: Make, disk: Path, inside: Any) -> None:
    info = make()
    copy = Copier(engine, info.id)
    (disk / "src").mkdir()
    one_of_everything(disk / "src")
    os.unlink(disk / "src/sparse")
    os.unlink(disk / "src/all hole")
    for flag in ("", "z", "j", "J"):
        made = subprocess.run(["tar", f"c{flag}", "-C", str(disk), "src"], stdout=subprocess.PIPE, check=True).stdout
        copy(io.BytesIO(made), ":/tmp")
        assert inside(info, "stat -c '%u:%g %a' /tmp/src/script; rm -r /tmp/src") == "1000:2000 4755\n"  # what a tar says holds
    # Names that go through links of the container resolve inside it.
    with tarfile.open(disk / "l.tar", "w") as archive:
        archive.add(disk / "src/nothing", "linked/through")
    with open(disk / "l.tar", "rb") as file:
        copy(file, ":/")
    assert inside(info, "ls /opt/old") == "one\nthrough\ntwo\n"
    out = io.BytesIO()
    copy(":/opt/old", out)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        assert archive.getnames() == ["old", "old/one", "old/through", "old/two"]


@pytest.mark.parametrize("data", [b"no tar at all" * 100, b"\x1f\x8bbroken", b""])
def test_what_is_no_tar_is_said(engine: NativeEngine, make: Make, data: bytes) -> None:
    info = make()
    if data:
        with pytest.raises(ContainersError, match=r"tar archive|uncompressed"):
            Copier(engine, info.id)(io.BytesIO(data), ":/tmp")
    assert engine.diff(info.id) == []


def test_a_folder_that_is_there_keeps_its_attributes(engine: NativeEngine, make: Make, disk: Path, inside: Any) -> None:
    info = make()
    (disk / "src").mkdir(mode=0o700)
    (disk / "src/x").write_text("x")
    Copier(engine, info.id)(f"{disk}/src/.", ":/tmp")
    assert inside(info, "stat -c %a /tmp") == "1777\n"


def test_times_are_kept_to_the_nanosecond(engine: NativeEngine, make: Make, disk: Path) -> None:
    (disk / "f").write_text("x")
    os.utime(disk / "f", ns=(MOMENT, MOMENT))
    copy = Copier(engine, make().id)
    copy(disk / "f", ":/tmp/f")
    copy(":/tmp/f", disk / "g")
    assert (disk / "g").stat().st_mtime_ns == MOMENT
