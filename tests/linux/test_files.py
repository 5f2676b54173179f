"""Files that are there as a whole or not at all: a disk that becomes full in the middle, a umask that takes rights away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pycontainers.linux import files, mounts, namespaces


@pytest.mark.root
def test_the_old_one_is_kept_where_the_new_one_does_not_fit(tmp_path: Path) -> None:
    """write(2) takes the part that fits and says so by its result alone."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            namespaces.unshare(namespaces.CLONE_NEWNS)
            mounts.mount("", "/", "", mounts.MS_REC | mounts.MS_SLAVE)
            mounts.mount("none", str(tmp_path), "tmpfs", 0, "size=16k")
            place = f"{tmp_path}/state.json"
            files.replace(place, b"old")
            try:
                files.replace(place, b"x" * 100_000)
            except OSError:
                kept = Path(place).read_bytes() == b"old" and os.listdir(tmp_path) == ["state.json"]
                code = 0 if kept else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_mode_is_what_was_asked_for_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files.replace(str(tmp_path / "program"), b"x", 0o755)
    finally:
        os.umask(before)
    assert (tmp_path / "program").stat().st_mode & 0o7777 == 0o755


def test_relative_to_a_folder(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        files.replace("pid", b"1", 0o644, folder)
    finally:
        os.close(folder)
    assert (tmp_path / "pid").read_bytes() == b"1"
