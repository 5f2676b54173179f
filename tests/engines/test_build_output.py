"""``build --output`` for real: folders, archives and a pushed image, of what was just built."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

import pycontainers as pc
from pycontainers.engines import native
from pycontainers.engines.native import NativeEngine
from pycontainers.errors import BuildError, UsageError
from pycontainers.events import Done, finish

pytestmark = pytest.mark.root

DOCKERFILE = """FROM scratch
COPY --chown=1000:1000 --chmod=4755 tool /bin/tool
COPY page /srv/page/
CMD ["/bin/tool"]
"""


@pytest.fixture
def context(disk: Path, monkeypatch: pytest.MonkeyPatch, engine: NativeEngine) -> Path:
    monkeypatch.chdir(disk)
    monkeypatch.setattr(native, "engine", lambda: engine)
    (disk / "page").mkdir()
    (disk / "page" / "index.html").write_text("hello\n")
    (disk / "page" / "link").symlink_to("index.html")
    (disk / "tool").write_bytes(b"x" * 5_000_000)
    return disk


def test_a_folder_is_filled_and_what_else_is_there_stays(context: Path) -> None:
    (context / "out/srv").mkdir(parents=True)
    (context / "out/srv/mine").write_text("mine")
    (context / "out/bin").mkdir()
    (context / "out/bin/tool").write_text("old")
    events: list[Any] = []
    pc.build(DOCKERFILE, output="out", progress=events.append)
    assert sorted(str(path.relative_to("out")) for path in Path("out").rglob("*")) == [
        "bin", "bin/tool", "srv", "srv/mine", "srv/page", "srv/page/index.html", "srv/page/link",
    ]  # fmt: skip
    found = os.stat("out/bin/tool")
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_size) == (0o755, os.getuid(), 5_000_000)
    assert os.readlink("out/srv/page/link") == "index.html" and Path("out/srv/page/index.html").read_text() == "hello\n"
    assert isinstance(events[-1], Done) and sum(isinstance(event, Done) for event in events) == 1


def test_nothing_is_written_through_a_link(context: Path) -> None:
    (context / "elsewhere").mkdir()
    (context / "out").mkdir()
    (context / "out/srv").symlink_to(context / "elsewhere")
    with pytest.raises(Exception, match="srv"):
        pc.build(DOCKERFILE, output="out")
    assert not list((context / "elsewhere").iterdir())


def test_archives(context: Path, engine: NativeEngine) -> None:
    image = pc.build(
        DOCKERFILE,
        "written",
        output=[
            "type=docker,dest=docker.tar",
            "type=oci,dest=oci.tar,compression=gzip",
            "type=oci,tar=false,dest=layout",
            "type=tar,dest=root.tar",
        ],
    )
    try:
        for place in ("docker.tar", "oci.tar", "layout"):
            assert [info.id for info in finish(engine.load(place))] == [image.id], place
        with tarfile.open("docker.tar") as archive:
            manifest = archive.extractfile("manifest.json")
            assert manifest is not None and b'"written:latest"' in manifest.read()
        with tarfile.open("root.tar") as archive:
            tool = archive.getmember("bin/tool")
            assert (tool.mode, tool.uid, tool.size) == (0o4755, 1000, 5_000_000)
        with pytest.raises(UsageError):
            pc.build(DOCKERFILE, output="type=docker,dest=nowhere/x.tar")
    finally:
        engine.remove_image("written")


def test_a_tar_goes_to_stdout(context: Path, state: Any) -> None:
    import subprocess
    import sys

    (context / "Dockerfile").write_text(DOCKERFILE)
    words = [sys.executable, "-m", "pycontainers.commands.program", "build", "-o", "-", "."]
    root = str(Path(native.__file__).parents[2])
    program = subprocess.run(words, capture_output=True, check=True, env={**os.environ, "PYTHONPATH": root})
    with tarfile.open(fileobj=io.BytesIO(program.stdout)) as archive:
        assert "srv/page/index.html" in archive.getnames()


def test_a_failed_build_writes_nothing(context: Path) -> None:
    with pytest.raises(BuildError):
        pc.build("FROM scratch\nCOPY missing /\n", output="type=tar,dest=root.tar")
    assert not (context / "root.tar").exists()


def test_a_dockerfile_that_is_no_text_is_refused_where_it_is_none(context: Path) -> None:
    (context / "Dockerfile").write_bytes(b"FROM scratch\nLABEL a=\xff\n")
    with pytest.raises(BuildError, match=r"^Dockerfile:2:9: the Dockerfile is not UTF-8"):
        pc.build(".")


def test_inline_files_are_built(context: Path, engine: NativeEngine) -> None:
    pc.build("FROM scratch\nCOPY . /app/\n", output="out", context="", files={"a.txt": "inline\n", "b/c": b"\0"})
    assert Path("out/app/a.txt").read_text() == "inline\n" and Path("out/app/b/c").read_bytes() == b"\0"
