"""SIGKILL in the middle of ``cp``, ``export`` and ``commit``: to the program, the worker on the container's files, both, the launcher.

Nothing half is seen at a destination, the container runs on, and the next command finds nothing left.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pycontainers.protocol import BuildRequest, CommitRequest, ContainerConfig, ExecConfig
from pycontainers.runtime import state

from .conftest import House

pytestmark = pytest.mark.root

MEGABYTES, FILES = 24, 200
DOCKERFILE = """
FROM scratch
COPY busybox /bin/
RUN ["/bin/busybox", "--install", "/bin"]
RUN mkdir /srv
"""
VICTIMS = ("program", "worker", "both", "launcher")
MOMENTS = (0.0, 0.02, 0.06, 0.15) if not os.environ.get("PYCONTAINERS_ALL_FAULTS") else tuple(n / 100 for n in range(30))


def program(*words: str) -> subprocess.Popen[bytes]:
    code = "import sys; from pycontainers.commands.program import main; sys.exit(main())"
    return subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def launchers_children(house: House) -> tuple[int, set[int]]:
    """The launcher, and what it has forked. A worker on files is one of those; the mould, which makes supervisors, another."""
    run = os.fsencode(house.paths.run)
    parents = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            if run in Path(f"/proc/{pid}/cmdline").read_bytes():
                parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    first = next(pid for pid, parent in parents.items() if parent not in parents and any(other == pid for other in parents.values()))
    return first, {pid for pid, parent in parents.items() if parent == first}


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def struck(house: House, moment: float, victim: str, *words: str) -> subprocess.Popen[bytes]:
    """Run the program, and ``moment`` seconds after a worker has come to life for it, kill."""
    launcher, before = launchers_children(house)
    asked = program(*words)
    worker, end = 0, time.monotonic() + 20
    while not worker and asked.poll() is None:
        assert time.monotonic() < end, f"no worker for {words}"
        with contextlib.suppress(StopIteration):
            worker = next(iter(launchers_children(house)[1] - before), 0)
    time.sleep(moment)
    if victim in ("program", "both"):
        asked.kill()
    if victim in ("worker", "both"):
        kill(worker)
    if victim == "launcher":
        kill(launcher)
    _, said = asked.communicate(timeout=60)
    assert b"Traceback" not in said and said.count(b"error:") <= 1, said.decode()
    return asked


@pytest.fixture
def small(house: House, busybox: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of which an export is little."""
    context = tmp_path_factory.mktemp("small")
    shutil.copy(busybox, context / "busybox")
    for _ in house.engine.build(BuildRequest(DOCKERFILE, str(context), ("small",))):
        pass
    return "small"


@pytest.fixture
def busy(tidy: House, small: str) -> Iterator[House]:
    """A container that writes to its own files all the time, and has many."""
    script = (
        f"mkdir /srv/tree; head -c {MEGABYTES << 20} /dev/urandom > /srv/tree/big; "
        f"i=0; while [ $i -lt {FILES} ]; do echo $i > /srv/tree/$i; i=$((i + 1)); done; "
        "touch /srv/ready; i=0; while :; do i=$((i + 1)); echo $i > /srv/count; sleep 0.01; done"
    )
    info = tidy.engine.start(tidy.engine.create(ContainerConfig(small, ("sh", "-c", script), network="none", name="f")).id)
    end = time.monotonic() + 30
    while tidy.engine.exec(info.id, ExecConfig(("test", "-e", "/srv/ready"))).code:
        assert time.monotonic() < end
        time.sleep(0.05)
    yield tidy


def goes_on(house: House) -> None:
    """It moves, and nothing is left of what was killed."""
    assert house.engine.find("f").status == state.RUNNING  # the next command, which thaws

    def count() -> bytes:
        said = bytearray()
        house.engine.exec("f", ExecConfig(("cat", "/srv/count")), None, lambda stream, data: said.extend(data))
        return bytes(said)

    first, end = count(), time.monotonic() + 5
    while count() == first:
        assert time.monotonic() < end, "the container stands still"


def left(house: House) -> dict[str, object]:
    """As :meth:`House.left`, but for the container that is to go on."""
    house.clear()
    return house.left()


def whole(folder: Path) -> None:
    """Each file that is there is all of it."""
    for path in folder.rglob("*"):
        assert not path.name.startswith("."), path
        if path.is_file():
            assert path.stat().st_size == MEGABYTES << 20 if path.name == "big" else path.read_text() == f"{path.name}\n", path


@pytest.mark.parametrize("victim", VICTIMS)
def test_copying_out(busy: House, tmp_path: Path, victim: str) -> None:
    for number, moment in enumerate(MOMENTS):
        to = tmp_path / str(number)
        to.mkdir()
        struck(busy, moment, victim, "cp", "f:/srv/tree", str(to))
        goes_on(busy)
        whole(to)
    assert left(busy) == {}


@pytest.mark.parametrize("victim", VICTIMS)
def test_copying_in(busy: House, tmp_path: Path, victim: str) -> None:
    tree = tmp_path / "new"
    tree.mkdir()
    (tree / "big").write_bytes(os.urandom(MEGABYTES << 20))
    digest = hashlib.sha256((tree / "big").read_bytes()).hexdigest()
    for number in range(FILES):
        (tree / str(number)).write_text(f"{number}\n")
    look = "cd /srv/in 2>/dev/null || exit 0; find . -name '.*' ! -name .; find . -name big -exec sha256sum {} +"
    for moment in MOMENTS:
        struck(busy, moment, victim, "cp", str(tree), "f:/srv/in")
        goes_on(busy)
        said = bytearray()
        busy.engine.exec("f", ExecConfig(("sh", "-c", look)), None, lambda stream, data, said=said: said.extend(data))
        assert said.decode().split()[:1] in ([], [digest]), said.decode()
        busy.engine.exec("f", ExecConfig(("rm", "-rf", "/srv/in")))
    assert left(busy) == {}


def is_whole(archive: Path) -> bool:
    """It ends as tars do (tar(5))."""
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    return "srv/tree/big" in " ".join(names) and not any(archive.read_bytes()[-1024:])


@pytest.mark.parametrize("victim", VICTIMS)
def test_exporting(busy: House, tmp_path: Path, victim: str) -> None:
    """The file of before stays until the new one is whole; what a killed one had written is taken away by the next."""
    output = tmp_path / "all.tar"
    for moment in MOMENTS:
        output.write_text("before")
        done = struck(busy, moment, victim, "export", "-o", str(output), "f").returncode == 0
        goes_on(busy)
        assert output.read_bytes() == b"before" or is_whole(output), moment
        assert not done or is_whole(output)
    assert program("export", "-o", str(output), "f").wait(120) == 0
    assert os.listdir(tmp_path) == ["all.tar"]
    assert left(busy) == {}


@pytest.mark.parametrize("victim", VICTIMS)
def test_committing(busy: House, victim: str) -> None:
    engine = busy.engine
    try:
        for moment in MOMENTS:
            done = struck(busy, moment, victim, "commit", "f", "killed").returncode == 0
            goes_on(busy)
            found = [image for image in engine.images() if any("killed" in str(name) for name in image.names)]
            assert bool(found) == done or victim in ("program", "both"), (done, found)
            if found:
                engine.remove_image("killed")
        for _ in engine.commit("f", CommitRequest("killed")):
            pass
        engine.remove_image("killed")
    finally:
        goes_on(busy)
    assert left(busy) == {}
