from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from pycontainers.images.apply import apply

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and trusted attributes need root")


def test_a_layer_is_unpacked_and_hashed_in_one_pass(disk: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo("etc/app/config")
        info.size, info.mode, info.uid = 4, 0o640, 1000
        archive.addfile(info, io.BytesIO(b"a=1\n"))
        archive.addfile(tarfile.TarInfo("etc/.wh.gone"))
    (disk / "tree").mkdir()
    done = apply(io.BytesIO(data.getvalue()), str(disk / "tree"))
    assert done.diff_id == "sha256:" + hashlib.sha256(data.getvalue()).hexdigest()
    assert (done.size, done.tar_size, done.compression, done.notes) == (4, len(data.getvalue()), "none", ())
    config = disk / "tree/etc/app/config"
    assert config.read_text() == "a=1\n" and config.stat().st_mode & 0o7777 == 0o640 and config.stat().st_uid == 1000
    assert (disk / "tree/etc/gone").is_char_device()
