"""Images from outside for an ordinary user: owners inside are his subordinate ids, or recorded where he has one, and given back."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile

from tests.rootless.conftest import Somebody

_ENGINE = "import io, sys; from pycontainers.engines.native import engine; from pycontainers.events import finish; e = engine(); "


def engine(somebody: Somebody, code: str, stdin: str | None = None) -> str:
    """Run code with the user's engine ``e``."""
    command = somebody.command(f"{somebody.base}/venv/bin/python", "-c", _ENGINE + code)
    file = open(stdin, "rb") if stdin else subprocess.DEVNULL
    try:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=120, check=False)
    finally:
        if not isinstance(file, int):
            file.close()
    assert done.returncode == 0, done.stderr
    return done.stdout


def image(path: str) -> list[tuple[str, int, int, int]]:
    """A docker-archive of one layer, with files of several owners; what is in it."""
    rows = [("srv", 33, 44, 0o755), ("srv/file", 33, 44, 0o640), ("srv/closed", 5, 5, 0o700), ("srv/set", 0, 0, 0o4755)]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, uid, gid, mode in rows:
            info = tarfile.TarInfo(name)
            info.uid, info.gid, info.mode, info.mtime = uid, gid, mode, 1_700_000_000
            info.type = tarfile.REGTYPE if name in ("srv/file", "srv/set") else tarfile.DIRTYPE
            info.size = 3 if info.isreg() else 0
            archive.addfile(info, io.BytesIO(b"abc"))
    data = out.getvalue()
    diffs = [f"sha256:{hashlib.sha256(data).hexdigest()}"]
    config = json.dumps({"os": "linux", "config": {"Cmd": ["x"]}, "rootfs": {"type": "layers", "diff_ids": diffs}}).encode()
    with tarfile.open(path, "w") as archive:
        said = json.dumps([{"Config": "config.json", "RepoTags": ["theirs:1"], "Layers": ["layer.tar"]}]).encode()
        for name, content in (("layer.tar", data), ("config.json", config), ("manifest.json", said)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return rows


def owners(path: str) -> list[tuple[str, int, int, int]]:
    with tarfile.open(path) as archive:
        return [(member.name, member.uid, member.gid, member.mode) for member in archive]


def test_loaded_checked_saved_and_exported(somebody: Somebody) -> None:
    path = f"{somebody.home}/in.tar"
    rows = image(path)
    os.chmod(path, 0o644)
    said = engine(somebody, "print(finish(e.load(sys.stdin.buffer))[0].names, finish(e.verify()))", stdin=path)
    assert said == "('theirs:1',) []\n"
    assert engine(somebody, f"print(finish(e.load({path!r}))[0].names)") == "('theirs:1',)\n"
    engine(somebody, "finish(e.save(['theirs:1'], 'out.tar')); out = io.BytesIO(); finish(e.export_image('theirs:1', out)); "
                     "open('root.tar', 'wb').write(out.getvalue())")  # fmt: skip
    assert owners(f"{somebody.home}/root.tar") == sorted(rows)
    with tarfile.open(f"{somebody.home}/out.tar") as archive:
        said = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        layer = archive.extractfile(said[0]["Layers"][0])
        assert layer is not None
        with tarfile.open(fileobj=layer) as inner:
            assert [(member.name, member.uid, member.gid, member.mode) for member in inner] == rows
    engine(somebody, "finish(e.import_image('root.tar', 'flat')); finish(e.save(['flat'], 'flat.tar', 'oci-archive')); "
                     "print(finish(e.verify()))")  # fmt: skip
    print_rows = "print([(row.kind, row.total) for row in e.system_df()])"
    assert engine(somebody, print_rows) == "[('Images', 2), ('Containers', 0), ('Build cache', 0), ('Blobs', 6)]\n"
    engine(somebody, "e.remove_image('theirs:1'); e.remove_image('flat'); p = e.prune(); print(p.reclaimed)")
    assert os.listdir(f"{somebody.home}/state/images/snapshots") == os.listdir(f"{somebody.home}/state/images/blobs/sha256") == []
    assert os.listdir(f"{somebody.home}/state/images/ingest") == []
