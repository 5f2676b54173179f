"""Files of an image that we read, or that could be loaded into a process of ours that still has its rights."""

from __future__ import annotations

import encodings
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycontainers import errors

pytestmark = pytest.mark.root

MARK = "/loaded"
#: What hostile code would do with our rights; here it writes down with which capabilities it ran.
CODEC = f"""
import re
with open('/proc/self/status') as status, open('{MARK}', 'w') as mark:
    mark.write(re.search('CapEff:.*', status.read()).group())
raise ImportError
"""
LIBRARY = f"""
#include <stdio.h>
static __attribute__((constructor)) void loaded(void) {{
    FILE *mark = fopen("{MARK}", "w");
    if (mark) {{ fputs("loaded", mark); fclose(mark); }}
}}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A name-service module, as an image may bring one."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler (cc) to build a name-service module with")
    folder = tmp_path_factory.mktemp("nss")
    (folder / "evil.c").write_text(LIBRARY)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libnss_evil.so.2", folder / "evil.c"], check=True)
    return folder / "libnss_evil.so.2"


def hostile_codec(tree: Path) -> None:
    place = tree / str(Path(encodings.__file__).parent).lstrip("/")
    place.mkdir(parents=True)
    (place / "cp037.py").write_text(CODEC)


def hostile_name_service(library: Path) -> Callable[[Path], None]:
    def make(tree: Path) -> None:
        place = tree / "usr/lib/x86_64-linux-gnu"
        place.mkdir(parents=True)
        (tree / "etc").mkdir()
        (tree / "etc/nsswitch.conf").write_text("passwd: evil\ngroup: evil\n")
        shutil.copy(library, place)

    return make


class TestLoadedFromTheImage:
    """CVE-2019-14271: a library, codec or name-service module of the image runs in our process, before it is confined."""

    def attack(self, engine: Any, image: str, way: str, output: Any, running: Any, execute: Any) -> str:
        """The user is looked up by name inside the image; what ran then has left a mark, made before the program itself began."""
        look = ("sh", "-c", f"cat {MARK} 2>&1; rm -f {MARK}")
        if way == "start":
            return str(output(engine, *look, image=image, user="root"))
        container = running(engine, image=image, user="0:0")
        execute(engine, container, "rm", "-f", MARK, user="0:0")
        return str(execute(engine, container, *look, user="root"))

    @pytest.mark.parametrize("way", ["start", "exec"])
    def test_codec_succeeds_when_not_loaded_before(
        self, without: Any, image_with: Any, way: str, output: Any, running: Any, execute: Any
    ) -> None:
        said = self.attack(without("loaded_codecs"), image_with(hostile_codec), way, output, running, execute)
        assert int(said.split()[1], 16) >> 21 & 1, f"it ran, but without CAP_SYS_ADMIN: {said}"

    @pytest.mark.parametrize("way", ["start", "exec"])
    def test_codec_fails_here(self, engine: Any, image_with: Any, way: str, output: Any, running: Any, execute: Any) -> None:
        assert "No such file" in self.attack(engine, image_with(hostile_codec), way, output, running, execute)

    @pytest.mark.parametrize("way", ["start", "exec"])
    def test_name_service_succeeds_when_asked(
        self, without: Any, image_with: Any, library: Path, way: str, output: Any, running: Any, execute: Any
    ) -> None:
        image = image_with(hostile_name_service(library))
        assert self.attack(without("parsed_passwd"), image, way, output, running, execute) == "loaded"

    @pytest.mark.parametrize("way", ["start", "exec"])
    def test_name_service_fails_here(
        self, engine: Any, image_with: Any, library: Path, way: str, output: Any, running: Any, execute: Any
    ) -> None:
        image = image_with(hostile_name_service(library))
        assert "No such file" in self.attack(engine, image, way, output, running, execute)


def passwd(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def tree(tree: Path) -> None:
        (tree / "etc").mkdir()
        make(tree / "etc/passwd")

    return tree


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("/proc/self/fd/3"),
        lambda path: path.symlink_to("passwd"),
        lambda path: path.mkdir(),
        lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 26),
        lambda path: path.write_bytes(b"\xff\xfe:\0:::::\n" * 1000 + b"root:x:" + b"9" * 5000 + b":0::/:/bin/sh\n"),
        lambda path: path.write_text("root:x:\u0660:0::/:\nroot:x:\u00b2:0::/:\n"),
    ],
    ids=["fifo", "endless", "descriptor", "loop", "folder", "large", "numbers", "digits"],
)
def test_passwd_that_cannot_be_read_neither_hangs_nor_kills(engine: Any, image_with: Any, output: Any, make: Any) -> None:
    """Start or a clear refusal; never a hang, a traceback, or memory without end."""
    try:
        assert output(engine, "echo", "went on", image=image_with(passwd(make))) == "went on\n"
    except errors.ContainersError as error:
        assert "could not be set up" not in error.message, error.message


def test_home_of_the_image_is_only_a_string(engine: Any, image_with: Any, output: Any) -> None:
    """What passwd says ends in HOME and nowhere else, and does not make further variables."""
    image = image_with(passwd(lambda path: path.write_text("root:x:0:0::/root=a b;LD_PRELOAD=/evil.so:/bin/sh\n")))
    said = output(engine, "env", image=image)
    assert "HOME=/root=a b;LD_PRELOAD=/evil.so\n" in said
    assert not [line for line in said.splitlines() if line.startswith("LD_PRELOAD")]
