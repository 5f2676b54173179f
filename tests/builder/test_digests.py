"""What is remembered of a context's files: much and for long, and never what may have changed since."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pycontainers.builder.context import Context, digest, digests, select
from pycontainers.builder.copying import CopyWork, fill
from pycontainers.builder.digests import _ROW
from pycontainers.builder.sources import CopyError
from pycontainers.images.view import Rootfs, View

_FRESH = "import sys; from tests.builder.test_digests import told; print(*told(*sys.argv[1:]))"


def told(folder: str, file: str) -> tuple[str, int]:
    """The digest of a context as a whole, and the bytes that were read from files for it."""
    context = Context(folder, digests_file=file)
    before = _bytes_read()
    value = "".join(digest(item) for item in select(context, "/"))
    return value, _bytes_read() - before


def _bytes_read() -> int:
    with open("/proc/self/io", encoding="ascii") as file:
        return int(file.readline().split()[1])


def in_new_process(folder: Path, file: Path) -> tuple[str, int]:
    words = subprocess.run([sys.executable, "-c", _FRESH, folder, file], stdout=subprocess.PIPE, check=True, text=True).stdout.split()
    return words[0], int(words[1])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    for name in ("a", "d/b", "d/e/c"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 50_000)
    return folder


def test_nothing_is_read_twice_though_processes_change(tree, tmp_path):
    first, read = in_new_process(tree, tmp_path / "digests")
    assert read > 300_000
    again, read = in_new_process(tree, tmp_path / "digests")
    assert again == first and read < 5000
    (tree / "d/b").touch()  # the same content: read again, and the same
    again, read = in_new_process(tree, tmp_path / "digests")
    assert again == first and 150_000 <= read < 160_000


@pytest.fixture
def ticking(tmp_path: Path):
    """A folder whose files are stamped by the kernel's tick alone (newer kernels stamp those of ext4, xfs, btrfs and tmpfs finer)."""
    folder = tmp_path / "ticking"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "none", folder], check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_change_of_the_same_size_within_a_tick_is_seen(ticking, tmp_path, elsewhere):
    file, seen = ticking / "a", set()
    context = Context(str(ticking), digests_file=str(tmp_path / "digests"))
    for number in range(40):
        for content in (b"x%08d" % number, b"y%08d" % number):
            file.write_bytes(content)
            os.utime(file, ns=(1, 1))
            context = Context(str(ticking), digests_file=str(tmp_path / "digests")) if elsewhere else context
            seen.update(digest(item) for item in select(context, "/"))
            if elsewhere:
                context.close()
    assert len(seen) == 80


def test_attributes_modes_and_names_count_and_times_do_not(tree, tmp_path):
    def now():
        return told(str(tree), str(tmp_path / "digests"))[0]
    first = now()
    os.utime(tree / "d", ns=(5, 5))
    os.utime(tree / "d/b", ns=(5, 5))
    assert now() == first
    (tree / "d/b").chmod(0o600)
    second = now()
    (tree / "d/b").rename(tree / "d/bb")
    third = now()
    os.setxattr(tree / "d/bb", "user.x", b"1")
    fourth = now()
    os.setxattr(tree / "d", "user.x", b"1")
    fifth = now()
    (tree / "d/link").symlink_to("x")
    sixth = now()
    (tree / "d/link").unlink()
    (tree / "d/link").symlink_to("y")
    assert len({first, second, third, fourth, fifth, sixth, now()}) == 7


@pytest.mark.parametrize("damage", [
    lambda data: data[:-7], lambda data: b"", lambda data: b"x" + data, lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
    lambda data: data + data[-_ROW:], lambda data: os.urandom(500),
])
def test_a_damaged_file_is_an_empty_one(tree, tmp_path, damage):
    file = tmp_path / "digests"
    time.sleep(0.05)  # more than a tick: what has just changed is not remembered
    first = told(str(tree), str(file))[0]
    file.write_bytes(damage(file.read_bytes()))
    again, read = told(str(tree), str(file))
    assert again == first and read > 300_000
    assert told(str(tree), str(file))[1] < 5000  # it was written anew


def test_a_place_where_nothing_can_be_written_does_no_harm(tree, tmp_path):
    assert told(str(tree), str(tmp_path / "nowhere/digests"))[0] == told(str(tree), "")[0]


def test_each_file_has_a_digest_of_its_own(tree):
    context = Context(str(tree), files={"d/new": b"1"})
    item, = select(context, "/d")
    before = digests(item)
    assert sorted(before) == ["d", "d/b", "d/e", "d/e/c", "d/new"]
    (tree / "d/e/c").write_bytes(b"other")
    after = digests(select(context, "/d")[0])
    assert {name for name in before if before[name] != after[name]} == {"d/e/c"}
    assert list(digests(select(context, "/d/b")[0])) == ["d/b"]


def test_what_changes_between_digest_and_copy_is_not_copied(tree, tmp_path):
    """Else the layer would be found again by the digest of what it does not contain."""
    context = Context(str(tree))
    item, = select(context, "/a")
    digest(item)
    (tree / "a").write_bytes(b"changed")
    (tmp_path / "layer").mkdir()
    with pytest.raises(CopyError, match="/a changed while it was copied"):
        fill(View(Rootfs((), ("/",), {})), str(tmp_path / "layer"), CopyWork((item,), (), "/x", "", ""), lambda: None)


def test_reading_and_copying_can_be_cancelled_within_a_large_file(tmp_path):
    (tmp_path / "big").write_bytes(b"1" * (200 << 20))
    item, = select(Context(str(tmp_path)), "/big")
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        digest(item, check)
    (tmp_path / "layer").mkdir()
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        fill(View(Rootfs((), ("/",), {})), str(tmp_path / "layer"), CopyWork((item,), (), "/x", "", ""), check)
    assert (tmp_path / "layer/x").stat().st_size < 200 << 20


def test_what_cannot_be_read_is_named(tree, tmp_path):
    context = Context(str(tree))
    item, = select(context, "/d")
    os.rename(tree / "d", tmp_path / "d")
    (tree / "d").symlink_to(tmp_path / "d")
    with pytest.raises(CopyError, match=r"^/d: a link was put there"):
        digest(item)
