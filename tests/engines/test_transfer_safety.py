"""cp against what a container does meanwhile: links and races that lead out, hostile archives and modules, kills, full disks."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.engines.transfer import Session
from pycontainers.errors import ContainersError, HelperError, NotFound, StateError
from pycontainers.images import unpack
from pycontainers.linux import sockets
from pycontainers.protocol import ContainerInfo, ExecConfig, Mount

from .conftest import Copier, tree

pytestmark = pytest.mark.root
Make = Callable[..., ContainerInfo]


def run(engine: NativeEngine, info: ContainerInfo, script: str) -> str:
    found = bytearray()
    engine.exec(info.id, ExecConfig(("sh", "-c", script)), None, lambda stream, data: found.extend(data))
    return found.decode()


def test_no_link_leads_out(engine: NativeEngine, make: Make, disk: Path, status: str) -> None:
    (disk / "secret").write_text("of this machine")
    (disk / "new").write_text("from outside")
    up = "../" * 20
    with tarfile.open(disk / "links.tar", "w") as archive:
        for name, target in {"abs": str(disk), "up": f"{up}{disk}", "file": f"{disk}/secret", "root": up, "loop": "loop"}.items():
            info = tarfile.TarInfo(f"opt/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    container = make(status)
    copy = Copier(engine, container.id)
    with open(disk / "links.tar", "rb") as file:
        copy(file, ":/")
    before = tree(disk)
    for path in ("/opt/abs/secret", "/opt/up/secret", f"/opt/root{disk}/secret", "/opt/loop", "/opt/loop/x"):
        with pytest.raises(ContainersError):
            copy(f":{path}", disk / "stolen", follow=True)
    with pytest.raises(NotFound):
        copy(":/opt/file", disk / "stolen", follow=True)
    for path in ("/opt/abs/written", "/opt/up/written", f"/opt/root{disk}/written", "/opt/file/x"):
        with pytest.raises(ContainersError):
            copy(disk / "new", f":{path}")
    copy(disk / "new", ":/opt/root/etc/written")  # the root that it leads to is the container's
    assert tree(disk) == before
    assert not os.path.exists("/etc/written")
    assert "A /etc/written" in [f"{change.kind} {change.path}" for change in engine.diff(container.id)]


SWAP = """
mkdir -p /opt/race/real; echo inside > /opt/race/real/file; ln -s {outside} /opt/race/link
cd /opt/race; cp -a real now; touch ready
while :; do mv now a && mv -T link now; mv now link; mv a now; done
"""


def test_a_link_swapped_in_meanwhile_leads_nowhere(engine: NativeEngine, make: Make, disk: Path) -> None:
    """CVE-2018-15664. A look by path from outside falls for it, so the attack is really there; cp, in both directions, never does."""
    outside = disk / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    info = make(command=("sh", "-c", SWAP.format(outside=outside)))
    pid, deadline = engine.find(info.id).pid, time.monotonic() + 30
    while time.monotonic() < deadline and _read(f"/proc/{pid}/root/opt/race/now/file") != "secret":
        pass
    assert _read_until(f"/proc/{pid}/root/opt/race/now/file", "secret"), "the attack does not work: this test would show nothing"
    (disk / "new").mkdir()
    (disk / "new/planted").write_text("planted")
    copy, got = Copier(engine, info.id), set()
    for number in range(600):
        if number >= 60 and got:  # at a bad pace every one of sixty may meet the link
            break
        with contextlib.suppress(ContainersError):
            copy(":/opt/race/now/file", disk / f"got{number}")
            got.add((disk / f"got{number}").read_text())
        with contextlib.suppress(ContainersError):
            copy(":/opt/race/now/.", disk / f"all{number}")
            got.add((disk / f"all{number}/file").read_text())
        with contextlib.suppress(ContainersError):
            copy(f"{disk}/new/planted", ":/opt/race/now/")
        with contextlib.suppress(ContainersError):
            copy(f"{disk}/new", ":/opt/race/now/sub")
    assert got <= {"inside\n"} and got
    assert tree(outside) == {"": tree(outside)[""], "/file": tree(outside)["/file"]}
    assert os.listdir(outside) == ["file"]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _read_until(path: str, text: str) -> bool:
    return any(_read(path) == text for _ in range(200_000))


def archive(*entries: tuple[str, bytes, str]) -> io.BytesIO:
    """(name, type, link target) of each; a file's content is ``planted``."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        for name, kind, target in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, target, 0o755
            info.size = 7 if kind == tarfile.REGTYPE else 0
            file.addfile(info, io.BytesIO(b"planted"))
    made.seek(0)
    return made


REG, SYM, LNK, DIR = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


@pytest.mark.parametrize(
    "entries",
    [
        [("x/../../outside/planted", REG, "")],
        [("../outside/planted", REG, "")],
        [("x", SYM, "../outside"), ("x/planted", REG, "")],
        [("x", SYM, "{outside}"), ("x/planted", REG, "")],
        [("x", SYM, "{outside}"), ("x/deep/er/planted", REG, "")],
        [("x", SYM, "../outside"), ("x/planted", DIR, "")],
        [("x", SYM, "../outside"), ("x", DIR, "")],
        [("x", LNK, "../outside/file")],
        [("x", SYM, "../outside"), ("y", LNK, "x/file")],
        [("d", DIR, ""), ("d/e", SYM, "../.."), ("d/e/outside/planted", REG, "")],
        [("here", DIR, ""), ("here/link", REG, "")],
    ],
)
def test_an_archive_is_unpacked_nowhere_else(disk: Path, entries: list[tuple[str, bytes, str]]) -> None:
    for name in ("outside", "dest"):
        (disk / name).mkdir()
    (disk / "outside/file").write_text("mine")
    os.symlink("../outside", disk / "dest/here")  # the user's own link is not followed either
    before = tree(disk / "outside")
    base, proc = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (disk / "dest", "/proc"))
    try:
        unpacker = unpack.Unpacker(base, proc=proc, name="", resolve=unpack.BENEATH, owners=True, all=True, devices=True)
        made = archive(*[(name, kind, target.format(outside=disk / "outside")) for name, kind, target in entries])
        with pytest.raises((unpack.UnpackError, OSError)):
            list(unpacker.extract(made))
        unpacker.close()
    finally:
        os.close(base)
        os.close(proc)
    assert tree(disk / "outside") == before
    assert sorted(os.listdir(disk)) == ["dest", "outside"]
    assert (disk / "outside/file").stat().st_nlink == 1


def test_what_is_unpacked_stays_below_its_name(disk: Path) -> None:
    base, proc = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (disk, "/proc"))
    unpacker = unpack.Unpacker(base, proc=proc, name="asked", resolve=unpack.BENEATH, owners=True, all=True, devices=True)
    for entries in ([("other", REG, "")], [("asked", LNK, "other")], [("asked2/x", REG, "")]):
        with pytest.raises(unpack.UnpackError, match="leads outside"):
            list(unpacker.extract(archive(*entries)))
    os.close(base)
    os.close(proc)
    assert os.listdir(disk) == []


def test_nothing_of_the_container_is_loaded(engine: NativeEngine, make: Make, disk: Path) -> None:
    """CVE-2019-14271: modules, codecs and libraries where our interpreter would look for them, inside."""
    info = make()
    folders = {os.path.dirname(os.__file__), f"{os.path.dirname(os.__file__)}/encodings", f"{os.path.dirname(os.__file__)}/lib-dynload"}
    (disk / "evil.py").write_text("open('/loaded', 'w').close()\n")
    for folder in folders:
        run(engine, info, f"mkdir -p {folder}")
    copy = Copier(engine, info.id)
    for folder in folders:
        for name in ("__init__", "tarfile", "idna", "latin_1", "utf_8", "bz2", "zlib", "pwd", "traceback", "_bootlocale"):
            copy(disk / "evil.py", f":{folder}/{name}.py")
    with open(os.fsencode(disk) + b"/n\xff\xfe", "wb") as file:
        file.write(b"x")
    copy(disk, ":/opt/names")
    copy(":/opt/names", disk / "back")
    with pytest.raises(ContainersError):
        copy(io.BytesIO(b"\x1f\x8b" + b"x" * 10_000), ":/opt")
    with pytest.raises(ContainersError):
        copy(":/nowhere", disk / "x")
    assert run(engine, info, "ls /loaded 2>&1; :").startswith("ls: /loaded: No such file")


# -- whoever is killed


def launcher_of(engine: NativeEngine) -> int:
    with sockets.connect(engine.paths.launcher_socket, 5) as conn:
        greeting, _ = sockets.receive(conn)
        assert greeting is not None
        return int(greeting["pid"])


def workers(engine: NativeEngine) -> set[int]:
    """Children of the launcher that supervise nothing."""
    known = {int(pid) for info in engine.containers() for pid in [_supervisor(info)]}
    found = set()
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            fields = Path(f"/proc/{int(entry)}/stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == launcher_of(engine) and fields[0] not in "ZX" and int(entry) not in known:
                found.add(int(entry))
    return found


def _supervisor(info: ContainerInfo) -> int:
    import json

    return int(json.loads(Path(info.folder, "state.json").read_text())["supervisor"]["pid"])


def until(what: Callable[[], Any], seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.01)
    return found


class Slow(io.RawIOBase):
    """A tar of one large file that stops in its middle until it is told to go on."""

    def __init__(self) -> None:
        self.left = 40

    def read(self, count: int = -1) -> bytes:
        if self.left == 40:
            info = tarfile.TarInfo("large")
            info.size = 100 << 20
            self.left -= 1
            return info.tobuf()
        self.left -= 1
        return b"x" * (1 << 18) if self.left > 0 else b""


@pytest.mark.parametrize("who", ["worker", "client", "launcher"])
@pytest.mark.parametrize("status", ["running", "stopped"])
def test_a_kill_leaves_no_half_file(engine: NativeEngine, make: Make, who: str, status: str, remains: Any) -> None:
    info = make(status)
    before, others = remains(), workers(engine)
    seen: set[int] = set()

    class Watched(Slow):
        def read(self, count: int = -1) -> bytes:
            if self.left == 20:
                seen.update(until(lambda: workers(engine) - others))
                if who == "worker":
                    for pid in seen:
                        os.kill(pid, signal.SIGKILL)
                elif who == "launcher":
                    os.kill(launcher_of(engine), signal.SIGKILL)
                else:
                    raise KeyboardInterrupt
            return super().read(count)

    work = engine.copy_in(info.id, Watched(), "/tmp")
    with pytest.raises((ContainersError, KeyboardInterrupt)):
        for _ in work:
            pass
    assert seen, "the worker was not found: nothing was tested"
    assert until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in seen))
    assert engine.diff(info.id) == []
    assert remains() == before
    if status == "stopped":
        assert engine.start(info.id).status == "running"


def test_who_reads_no_further_ends_the_worker(engine: NativeEngine, make: Make) -> None:
    info, others = make(), workers(engine)
    run(engine, info, "head -c 50000000 /dev/zero > /opt/large")

    class Broken(io.RawIOBase):
        def write(self, data: Any) -> int:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for _ in engine.copy_out(info.id, "/opt/large", Broken()):
            pass
    assert until(lambda: not workers(engine) - others)


def test_a_full_disk_is_said_and_leaves_nothing(engine: NativeEngine, make: Make, disk: Path) -> None:
    info = make(mounts=(Mount("tmpfs", "/small", options=("size=64k",)),))
    (disk / "large").write_bytes(os.urandom(200_000))
    with pytest.raises(ContainersError, match="No space left"):
        Copier(engine, info.id)(disk / "large", ":/small/large")
    assert run(engine, info, "ls -A /small") == ""


def test_a_container_that_is_worked_on_is_not_started(engine: NativeEngine, make: Make) -> None:
    info = make("stopped")
    with Session(engine.paths, info.id, "copy") as session:
        assert session.stat("/etc/motd")["kind"] == "file"
        with pytest.raises(StateError):
            engine.start(info.id)
    until(lambda: not workers(engine))
    assert engine.start(info.id).status == "running"


def test_a_killed_worker_is_said(engine: NativeEngine, make: Make) -> None:
    info, others = make(), workers(engine)
    with Session(engine.paths, info.id, "copy") as session:
        for pid in until(lambda: workers(engine) - others):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises((HelperError, OSError)):
            session.stat("/etc")


# -- commit


PROGRAM = """
import sys, time
from pycontainers.engines.transfer import Session
from pycontainers.paths import paths
with Session(paths(), sys.argv[1], "freeze") as session:
    print(session.ready, flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def committing(engine: NativeEngine, make: Make) -> Iterator[tuple[ContainerInfo, subprocess.Popen[str], set[int]]]:
    """A container in the middle of a commit by another process; and the worker that holds it still."""
    info = make(command=("sh", "-c", "n=0; while :; do n=$((n+1)); echo $n > /tmp/n; done"))
    others = workers(engine)
    client = subprocess.Popen([sys.executable, "-c", PROGRAM, info.id], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None and client.stdout.readline() == "True\n"
    yield info, client, workers(engine) - others
    client.kill()
    client.wait()
    client.stdout.close()


def moves(info: ContainerInfo) -> bool:
    """Whether the container writes on."""
    path = Path(info.folder, "upper/0/tmp/n")
    before = path.stat().st_mtime_ns
    return bool(until(lambda: path.stat().st_mtime_ns != before, 0.3))


def test_a_killed_commit_leaves_nothing_frozen(engine: NativeEngine, committing: Any) -> None:
    info, client, guards = committing
    assert guards and not moves(info)
    marks = engine.paths.run / "frozen"
    holders = {json.loads(os.readlink(mark))["pid"] for mark in marks.iterdir()}
    assert holders and holders <= guards, "a mark is whole, or not there"
    client.kill()
    assert until(lambda: moves(info))


def test_a_killed_guard_is_made_good_by_the_next_command(engine: NativeEngine, committing: Any) -> None:
    info, client, guards = committing
    client.send_signal(signal.SIGSTOP)  # it does not notice
    for pid in guards:
        os.kill(pid, signal.SIGKILL)
    assert not moves(info)
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in guards))
    engine.containers()
    assert until(lambda: moves(info))
    assert os.listdir(engine.paths.run / "frozen") == []
