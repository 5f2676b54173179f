"""A small image of its own (busybox and one of every kind of file), and trees that can be compared."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.events import finish
from pycontainers.paths import Paths
from pycontainers.protocol import ContainerConfig, ContainerInfo

MOMENT = 1_700_000_000_123_456_789


@pytest.fixture(scope="session")
def small(state: Paths, busybox: str) -> str:
    """Name of an image ``FROM scratch`` whose shell is a static busybox."""
    store = NativeEngine(state).store
    tree = store.new_layer()
    for folder in ("bin", "etc", "tmp", "opt/old", "var/lib"):
        os.makedirs(f"{tree}/{folder}")
    os.chmod(f"{tree}/tmp", 0o1777)
    shutil.copy2(busybox, f"{tree}/bin/busybox")
    for name in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            os.symlink("busybox", f"{tree}/bin/{name}")
    Path(tree, "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n")
    Path(tree, "etc/motd").write_text("from the image\n")
    Path(tree, "opt/old/one").write_text("1\n")
    Path(tree, "opt/old/two").write_text("2\n")
    os.symlink("../etc/motd", f"{tree}/opt/link")
    os.symlink("/opt/old", f"{tree}/linked")
    layer = store.commit(tree, "")
    config = {
        "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin", "A=1"], "Labels": {"a": "1"}},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}, "history": [{"created_by": "COPY"}],
    }  # fmt: skip
    store.tag(store.save_image(config, [layer], "").id, "small")
    return "small"


@pytest.fixture
def disk() -> Iterator[Path]:
    path = tempfile.mkdtemp(prefix="pyct-transfer-", dir="/var/tmp")
    yield Path(path)
    shutil.rmtree(path)


@pytest.fixture(params=["running", "paused", "stopped", "created"])
def status(request: Any) -> str:
    return str(request.param)


@pytest.fixture
def make(engine: NativeEngine, small: str) -> Callable[..., ContainerInfo]:
    """A container of the small image, brought to a status."""

    def container(status: str = "running", command: tuple[str, ...] = ("sleep", "1000"), **more: Any) -> ContainerInfo:
        info = engine.create(ContainerConfig(small, command, network="none", **more))
        if status != "created":
            info = engine.start(info.id)
        if status == "stopped":
            info = engine.stop(info.id, 0)
        return engine.pause(info.id) if status == "paused" else info

    return container


class Copier:
    """``cp`` as a function of two words, one of them ``:PATH`` in the container."""

    def __init__(self, engine: NativeEngine, container: str) -> None:
        self.engine, self.container = engine, container

    def __call__(self, source: Any, target: Any, **options: bool) -> int:
        if isinstance(target, str) and target.startswith(":"):
            given = source if hasattr(source, "read") else os.fspath(source)
            return finish(self.engine.copy_in(self.container, given, target[1:], **options))
        given = target if hasattr(target, "write") else os.fspath(target)
        return finish(self.engine.copy_out(self.container, source[1:], given, **options))


def one_of_everything(top: Path) -> None:
    """Every kind of file, and every kind of name."""
    os.makedirs(top / "deep/er")
    (top / "deep/er/file").write_bytes(os.urandom(300_000))
    (top / "empty").mkdir()
    (top / "nothing").touch()
    (top / "script").write_text("#!/bin/sh\n")
    os.chmod(top / "script", 0o4755)
    os.chmod(top / "deep/er", 0o2750)
    os.symlink("script", top / "relative")
    os.symlink("/etc/shadow", top / "absolute")
    os.symlink("../../../../../../etc/shadow", top / "upwards")
    os.symlink("nowhere", top / "dangling")
    os.mkfifo(top / "fifo", 0o640)
    os.link(top / "deep/er/file", top / "hard")
    with open(top / "sparse", "wb") as file:
        file.seek(1 << 30)
        file.write(b"middle")
        file.truncate(3 << 30)
    with open(top / "all hole", "wb") as file:
        file.truncate(1 << 31)
    os.setxattr(top / "script", "user.note", b"\xff\0odd")
    os.setxattr(top / "deep", "user.note", b"folder")
    name = b"new\nline \xff\xfe \xc3\xa9 'quote\" -n"
    with open(os.fsencode(top) + b"/" + name, "wb") as file:
        file.write(b"odd")
    (top / ("n" * 255)).write_text("a long name")
    long = top
    for _ in range(12):
        long = long / ("p" * 200)
    os.makedirs(long)
    (long / "end").write_text("a long path")
    (top / ".wh.not-deleted").write_text("a name that layers give a meaning")
    for root, folders, files in os.walk(os.fsencode(top), topdown=False):
        for name in (*files, *folders):
            os.utime(root + b"/" + name, ns=(MOMENT, MOMENT), follow_symlinks=False)
    for index, place in enumerate(("script", "deep", "relative", "fifo", "sparse")):
        os.chown(top / place, 1000 + index, 2000 + index, follow_symlinks=False)
    os.chmod(top / "script", 0o4755)
    os.utime(top, ns=(MOMENT, MOMENT))


def tree(top: Path | str) -> dict[str, tuple[Any, ...]]:
    """Everything that can be seen of a tree: kind, mode, owner, time, attributes, content, which names are one file."""
    found: dict[str, tuple[Any, ...]] = {}
    links: dict[tuple[int, int], str] = {}
    base = os.fsencode(top)
    pending = [base]
    while pending:
        path = pending.pop()
        name, look = os.fsdecode(path[len(base) :]), os.lstat(path)
        kind = stat.S_IFMT(look.st_mode)
        content: Any = ""
        if kind == stat.S_IFREG:
            content = _content(path, look)
            if look.st_nlink > 1:
                content = ("link", links.setdefault((look.st_dev, look.st_ino), name))
        elif kind == stat.S_IFLNK:
            content = os.readlink(path)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            content = look.st_rdev
        elif kind == stat.S_IFDIR:
            pending += sorted((path + b"/" + entry for entry in os.listdir(path)), reverse=True)
        extended = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}
        owner = (look.st_uid, look.st_gid)
        found[name] = (kind, stat.S_IMODE(look.st_mode), owner, look.st_mtime_ns, extended, content)
    return found


def _content(path: bytes, look: os.stat_result) -> Any:
    if look.st_size < 1 << 20:
        return Path(os.fsdecode(path)).read_bytes()
    with open(path, "rb") as file:  # a sparse file: where its data lies, and what it is
        parts, place = [], 0
        while place < look.st_size:
            try:
                place = os.lseek(file.fileno(), place, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(file.fileno(), place, os.SEEK_HOLE)
            parts.append((place, os.pread(file.fileno(), end - place, place).strip(b"\0")))
            place = end
    return look.st_size, look.st_blocks < 1000, parts
