"""diff, export, commit: what a container has changed, as lines, as a tar that others import, as an image that runs."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.errors import ContainersError, UsageError
from pycontainers.events import Note, finish
from pycontainers.protocol import CommitRequest, ContainerConfig, ContainerInfo, ExecConfig, Mount, Port

pytestmark = pytest.mark.root
Make = Callable[..., ContainerInfo]

CHANGES = """
echo more >> /etc/motd                       # content
echo x > /etc/new; mkdir -p /opt/a/b         # added
chown 1000 /var/lib                          # a folder's owner alone
: >> /etc/passwd                             # copied up, nothing written
rm /opt/link                                 # deleted
rm -r /opt/old; mkdir /opt/old; echo 3 > /opt/old/three   # replaced by another folder of the same name
rm /linked; mkdir /linked; echo f > /linked/f             # a link that becomes a folder
echo gone > /tmp/gone; rm /tmp/gone          # nothing in the end, but the folder's time, which does not count
"""
FOUND = """
C /etc
C /etc/motd
A /etc/new
C /linked
A /linked/f
C /opt
A /opt/a
A /opt/a/b
D /opt/link
C /opt/old
D /opt/old/one
A /opt/old/three
D /opt/old/two
C /var
C /var/lib
""".strip().splitlines()


def run(engine: NativeEngine, info: ContainerInfo, script: str) -> str:
    found = bytearray()
    engine.exec(info.id, ExecConfig(("sh", "-c", script)), None, lambda stream, data: found.extend(data))
    return found.decode()


def output(engine: NativeEngine, image: str, *command: str) -> str:
    found = bytearray()
    config = ContainerConfig(image, command, network="none", auto_remove=True)
    engine.run(config, None, lambda stream, data: found.extend(data))
    return found.decode()


def changed(engine: NativeEngine, info: ContainerInfo) -> list[str]:
    return [f"{change.kind} {change.path}" for change in engine.diff(info.id)]


def exported(engine: NativeEngine, info: ContainerInfo) -> bytes:
    made = io.BytesIO()
    finish(engine.export(info.id, made))
    return made.getvalue()


def test_diff_says_what_was_done(engine: NativeEngine, make: Make) -> None:
    info = make()
    assert changed(engine, info) == []
    run(engine, info, CHANGES)
    assert changed(engine, info) == FOUND
    engine.stop(info.id, 0)
    assert changed(engine, info) == FOUND
    engine.start(info.id)  # a second start finds the mount points that the first one made: they are still nobody's change
    assert changed(engine, info) == FOUND


def test_diff_across_the_folders_of_this_machine(engine: NativeEngine) -> None:
    """``host`` has an overlay for each folder: what lies in which is nobody's business."""
    info = engine.start(engine.create(ContainerConfig("host", ("sleep", "1000"), network="none")).id)
    run(engine, info, "touch /usr/bin/a-new-one; rm /usr/bin/yes; mkdir /opt/d; chmod 711 /usr/lib")
    found = changed(engine, info)
    assert found == ["C /opt", "A /opt/d", "C /usr", "C /usr/bin", "A /usr/bin/a-new-one", "D /usr/bin/yes", "C /usr/lib"]


def test_export_is_the_root_as_seen_without_what_lies_over_it(engine: NativeEngine, make: Make, disk: Path, status: str) -> None:
    (disk / "in the volume").write_text("x")
    info = make("running", mounts=(Mount("bind", "/data", str(disk)), Mount("bind", "/opt/old", str(disk)), Mount("tmpfs", "/tmp")))
    run(engine, info, "echo more >> /etc/motd; rm /opt/link; touch /tmp/in-memory; chown 1000:1001 /etc/motd")
    if status in ("stopped", "created"):
        engine.stop(info.id, 0)
    first = exported(engine, info)
    assert exported(engine, info) == first
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        names = archive.getnames()
        assert names == sorted(names, key=lambda name: [os.fsencode(part) for part in name.split("/")])
        assert {"data", "proc", "sys", "dev", "etc/hosts", "opt/old/one", "bin/sh"} <= set(names)
        assert not [name for name in names if name.startswith(("data/", "proc/", "sys/", "dev/", "tmp/"))]
        assert "opt/link" not in names and "opt/old/in the volume" not in names
        motd = archive.getmember("etc/motd")
        assert (motd.uid, motd.gid) == (1000, 1001)
        content = archive.extractfile(motd)
        assert content is not None and content.read() == b"from the image\nmore\n"
        hosts = archive.getmember("etc/hosts")
        assert hosts.size == 0  # the mount point, not what the runtime binds over it


def test_export_of_this_machine_joins_its_folders(engine: NativeEngine) -> None:
    """Only the beginning is read: it has gigabytes."""

    class Enough(Exception):
        pass

    class Head(io.BytesIO):
        def write(self, data: Any) -> int:
            super().write(data)
            if b"usr/bin/a-new-one" in self.getvalue()[-200_000:]:
                raise Enough
            return len(data)

    info = engine.start(engine.create(ContainerConfig("host", ("sleep", "1000"), network="none")).id)
    run(engine, info, "echo new > /usr/bin/a-new-one; mount -t tmpfs x /usr 2>&1; :")
    work = engine.export(info.id, head := Head())
    said = next(work)
    assert isinstance(said, Note) and "this machine's own system" in said.text and "/usr" in said.text and not head.getvalue()
    with pytest.raises(Enough):
        finish(work)
    assert b"etc/passwd" in head.getvalue()


def podman(disk: Path, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    place = ["--root", str(disk / "storage"), "--runroot", str(disk / "run"), "--storage-driver", "vfs"]
    return subprocess.run(["podman", *place, *words], capture_output=True, text=True, check=False, **more)


@pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed")
def test_podman_imports_what_was_exported(engine: NativeEngine, make: Make, disk: Path) -> None:
    info = make()
    run(engine, info, CHANGES + "truncate -s 1G /opt/sparse; echo end >> /opt/sparse; ln /etc/new /opt/hard; mkfifo /opt/fifo")
    (disk / "export.tar").write_bytes(exported(engine, info))
    assert (disk / "export.tar").stat().st_size < 20 << 20  # holes are not written out
    done = podman(disk, "import", str(disk / "export.tar"), "taken")
    assert done.returncode == 0, done.stderr
    try:
        place = Path(podman(disk, "image", "mount", "taken").stdout.strip())
        assert (place / "etc/motd").read_text() == "from the image\nmore\n"
        assert (place / "opt/hard").stat().st_nlink == 2
        assert (place / "opt/sparse").stat().st_size == (1 << 30) + 4
        assert not os.path.lexists(place / "opt/link")
        with open(place / "opt/sparse", "rb") as file:
            file.seek(-4, os.SEEK_END)
            assert file.read() == b"end\n"
        assert sorted(os.listdir(place / "opt/old")) == ["three"]
    finally:
        podman(disk, "image", "umount", "taken")
        podman(disk, "rmi", "-f", "taken")


def test_a_commit_runs_with_what_was_written(engine: NativeEngine, make: Make, status: str) -> None:
    info = make("running")
    run(engine, info, CHANGES + "chown 1000:1000 /etc/new; mkfifo /opt/fifo; ln /etc/new /opt/hard")
    if status in ("stopped", "created"):
        engine.stop(info.id, 0)
    elif status == "paused":
        engine.pause(info.id)
    before = changed(engine, info)
    image = finish(engine.commit(info.id, CommitRequest("committed", message="why", author="Ann")))
    try:
        script = "cat /etc/motd; stat -c %u:%g:%h /etc/new; ls /opt/old /linked; stat -c %F /opt/fifo; ls /opt/link 2>&1; hostname"
        said = output(engine, "committed", "sh", "-c", script)
        wanted = "from the image\nmore\n1000:1000:2\n/linked:\nf\n\n/opt/old:\nthree\nfifo\nls: /opt/link: No such file or directory\n"
        assert said.startswith(wanted)
        assert image.names == ("committed:latest",)
        assert len(image.config["rootfs"]["diff_ids"]) == 2
        newest = engine.image_history("committed")[0]
        assert newest.created_by == "sleep 1000" and not newest.empty and newest.size > 0
        assert image.config["author"] == "Ann" and image.config["history"][-1]["comment"] == "why"
        again = engine.create(ContainerConfig("committed", network="none"))
        assert changed(engine, again) == []
        assert changed(engine, info) == before
    finally:
        for item in engine.containers(all=True):
            if item.image == "committed":
                engine.remove(item.id, force=True)
        engine.remove_image("committed")


def test_the_container_goes_on_and_nothing_moved_meanwhile(engine: NativeEngine, make: Make) -> None:
    """It writes one number to one file, then to another: held still, the two are at most one apart."""
    info = make(command=("sh", "-c", "n=0; while :; do n=$((n+1)); for f in one two; do echo $n > t; mv t /opt/$f; done; done"))
    while not run(engine, info, "cat /opt/two 2>/dev/null; :"):
        pass
    run(engine, info, "head -c 30000000 /dev/urandom > /opt/much")  # between the two in the order of copying: time to run away
    run(engine, info, "cp /opt/much /opt/other; cp /opt/much /opt/ppp")
    finish(engine.commit(info.id, CommitRequest("still")))
    try:
        one, two = (int(word) for word in output(engine, "still", "sh", "-c", "echo $(cat /opt/one)/$(cat /opt/two)").split("/"))
        assert one - two in (0, 1)
        seen: set[str] = set()
        deadline = time.monotonic() + 10
        while len(seen) < 2 and time.monotonic() < deadline:
            seen |= {run(engine, info, "cat /opt/two")} - {""}
        assert len(seen) == 2, "it does not go on"
    finally:
        engine.remove_image("still")


def test_changes_and_settings(engine: NativeEngine, small: str) -> None:
    info = engine.create(
        ContainerConfig(
            small, ("sleep", "7"), network="bridge", env={"B": "2"}, workdir="/opt", user="ann", labels={"b": "2"},
            ports=(Port(8080),), stop_signal="SIGINT",
        )
    )  # fmt: skip
    plain = finish(engine.commit(info.id, CommitRequest()))
    assert plain.names == ()
    assert plain.config["config"] == {
        "Cmd": ["sleep", "7"], "Env": ["PATH=/bin", "A=1", "B=2"], "User": "ann", "WorkingDir": "/opt", "Labels": {"a": "1", "b": "2"},
        "ExposedPorts": {"8080/tcp": {}}, "StopSignal": "SIGINT",
    }  # fmt: skip
    assert plain.config["history"][-1].get("empty_layer") and len(plain.config["rootfs"]["diff_ids"]) == 1
    changes = (
        'CMD ["echo", "$A"]', "ENTRYPOINT sh -c", "ENV C=$B D='x y'", "EXPOSE 53/udp", "LABEL c=3", "ONBUILD RUN true", "USER 5:6",
        "VOLUME /data", "WORKDIR sub", "STOPSIGNAL SIGQUIT", "HEALTHCHECK --retries=2 CMD true",
    )  # fmt: skip
    made = finish(engine.commit(info.id, CommitRequest(changes=changes))).config["config"]
    assert made == {
        "Cmd": ["echo", "$A"], "Entrypoint": ["/bin/sh", "-c", "sh -c"], "Env": ["PATH=/bin", "A=1", "B=2", "C=2", "D=x y"],
        "User": "5:6", "WorkingDir": "/opt/sub", "Labels": {"a": "1", "b": "2", "c": "3"}, "Volumes": {"/data": {}},
        "ExposedPorts": {"8080/tcp": {}, "53/udp": {}}, "StopSignal": "SIGQUIT", "OnBuild": ["RUN true"],
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Retries": 2},
    }  # fmt: skip
    for image in engine.images():
        if not image.names:
            engine.remove_image(image.id)


@pytest.mark.parametrize(
    "request_",
    [
        CommitRequest(changes=("RUN true",)),
        CommitRequest(changes=("FROM host",)),
        CommitRequest(changes=("EXPOSE many",)),
        CommitRequest(changes=("ONBUILD ONBUILD RUN true",)),
        CommitRequest(changes=("CMD a\nCMD b",)),
        CommitRequest(changes=("",)),
        CommitRequest(name="UPPER case"),
        CommitRequest(name="host"),
    ],
)
def test_what_is_wrong_leaves_nothing(engine: NativeEngine, make: Make, request_: CommitRequest, remains: Any) -> None:
    info = make()
    before, images = remains(), [image.id for image in engine.images()]
    with pytest.raises(UsageError if request_.name != "host" else ContainersError):
        finish(engine.commit(info.id, request_))
    assert remains() == before
    assert [image.id for image in engine.images()] == images


def test_a_commit_on_this_machines_base_stays_bound_to_it(engine: NativeEngine) -> None:
    info = engine.start(engine.create(ContainerConfig("host", ("sleep", "1000"), network="none")).id)
    run(engine, info, "echo '#!/bin/sh\necho from usr' > /usr/bin/mine; chmod 755 /usr/bin/mine; rm /usr/bin/yes")
    image = finish(engine.commit(info.id, CommitRequest("bound", changes=("CMD mine; ls /usr/bin/yes",))))
    try:
        assert image.host
        found: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        config = ContainerConfig("bound", network="none", auto_remove=True)
        engine.run(config, None, lambda stream, data: found[stream].extend(data))
        assert found["stdout"] == b"from usr\n" and b"No such file" in found["stderr"]
    finally:
        engine.remove_image("bound")


def test_a_commit_that_is_let_go_leaves_nothing(engine: NativeEngine, make: Make, remains: Any) -> None:
    info = make()
    run(engine, info, "head -c 60000000 /dev/urandom > /opt/much")
    before = remains()
    work = engine.commit(info.id, CommitRequest("never"))
    next(work)
    work.close()
    assert remains() == before
    assert run(engine, info, "echo goes on") == "goes on\n"


def test_the_record_stays_json(engine: NativeEngine, make: Make) -> None:
    """A stopped container's mount points, made for cp, are noted where a start notes them."""
    info = make("created", mounts=(Mount("tmpfs", "/tmp"),))
    finish(engine.copy_out(info.id, "/etc/motd", io.BytesIO()))
    made = json.loads(Path(info.folder, "made.json").read_text())["made"]
    assert "/etc/hosts" in made and len(made) == len(set(made))
    assert changed(engine, info) == []
