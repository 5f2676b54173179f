"""SIGKILL at random moments of load, pull, commit, save and prune, and a full disk in each: verify is clean after the next command, and
nothing that was finished is lost. ``make test-kills`` takes 200 moments of each, ``make test`` a few.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.events import finish
from pycontainers.images import rootfs
from pycontainers.paths import Paths
from tests.conftest import leave_launcher
from tests.images import registries
from tests.images.test_archives import build

pytestmark = [pytest.mark.root]
MOMENTS = int(os.environ.get("PYCONTAINERS_KILLS", "8"))

_WORK = """
import os, sys
from pathlib import Path
from pycontainers.engines.native import NativeEngine
from pycontainers.events import finish
from pycontainers.paths import Paths
from pycontainers.protocol import CommitRequest, ContainerConfig
home, verb, what = sys.argv[1:]
engine = NativeEngine(Paths(Path(home) / "home", Path(home) / "run"))
print("ready", flush=True)
sys.stdin.readline()
number = 0
while True:
    number += 1
    if verb == "load":
        finish(engine.load(what))
        print("done box", flush=True)
        engine.remove_image("box", force=True)
    elif verb == "pull":
        finish(engine.pull(what))
        print("done", what, flush=True)
        engine.remove_image(what, force=True)
    elif verb == "push":
        finish(engine.push(what))
        print("done", what, flush=True)
    elif verb == "save":
        finish(engine.save(["kept"], what, "oci-archive", compression="zstd" if number % 2 else "gzip"))
        print("done kept", flush=True)
    elif verb == "commit":
        finish(engine.commit("changed", CommitRequest(name=f"made{number % 3}", changes=(f"LABEL n={number}",), pause=False)))
        print("done", f"made{number % 3}", flush=True)
    elif verb == "import":
        finish(engine.import_image(what, f"flat{number % 2}"))
        print("done", f"flat{number % 2}", flush=True)
    elif verb == "prune":
        finish(engine.load(what))
        engine.store.untag("box")
        engine.store.remember(f"key{number}", engine.store.resolve("kept").layers[0])
        engine.prune()
        print("done kept", flush=True)
    elif verb == "repair":
        tree = engine.store.resolve("kept").layers[0].path
        finish(engine.load(what))
        Path(engine.store.resolve("box").layers[0].path, "more").touch()
        assert all(problem.repaired for problem in finish(engine.verify(repair=True)))
        print("done box", flush=True)
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="pyct-kills-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def archive(place: Path) -> str:
    """An image whose load takes some tenths of a second."""
    engine = NativeEngine(Paths(place / "maker/home", place / "maker/run").prepare())
    image = build(engine.store)
    tree, chain = engine.store.new_layer(), image.chain_id
    rng = random.Random(3)
    for number in range(400):
        path = Path(tree, f"d{number % 20}/f{number}")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(rng.randbytes(rng.randrange(20_000)))
    layer = engine.store.commit(tree, chain)
    rows = [*image.layers, layer]
    config = {**image.config, "rootfs": {"type": "layers", "diff_ids": [row.diff_id for row in rows]}}
    made = engine.store.save_image(config, rows, "")
    engine.store.tag(made.id, "box")
    finish(engine.save(["box"], str(place / "box.tar"), "oci-archive"))
    with open(place / "root.tar", "wb") as file:
        for piece in rootfs.pack(engine.store.resolve("box").rootfs):
            file.write(piece)
    return str(place / "box.tar")


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[registries.Server]:
    (place / "registry").mkdir()
    with registries.docker_registry(place / "registry") as found:
        yield found


@pytest.fixture
def engine(disk: Path, archive: str) -> Iterator[NativeEngine]:
    """A store of its own, with an image that nobody touches: ``kept``, on which the container ``changed`` stands."""
    found = NativeEngine(Paths(disk / "home", disk / "run").prepare())
    yield from _prepared(found, archive)


def _prepared(engine: NativeEngine, archive: str) -> Iterator[NativeEngine]:
    from pycontainers.protocol import ContainerConfig

    finish(engine.load(archive))
    base = engine.store.resolve("box")
    tree = engine.store.new_layer()
    Path(f"{tree}/kept").write_text("kept")
    layer = engine.store.commit(tree, "")
    made = engine.store.save_image(
        {"os": "linux", "config": {"Cmd": ["x"]}, "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}}, [layer], ""
    )
    engine.store.tag(made.id, "kept")
    engine.remove_image("box")
    info = engine.create(ContainerConfig(image="kept", name="changed", network="none"))
    upper = Path(info.folder, "upper/0")
    for number in range(50):
        (upper / f"new{number}").write_bytes(os.urandom(5000))
    assert base.id
    try:
        yield engine
        engine.remove("changed", force=True)
    finally:
        leave_launcher(engine.paths)


def work(engine: NativeEngine, verb: str, what: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", _WORK, str(engine.paths.home.parent), verb, what]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n", child.communicate()
    return child


def prepared(engine: NativeEngine, verb: str, archive: str, server: registries.Server) -> str:
    """What the verb works on."""
    place = Path(archive).parent
    if verb in ("pull", "push"):
        name = f"{server.host}/{verb}/box:1"
        finish(engine.load(archive))
        engine.tag("box", name)
        if verb == "pull":
            finish(engine.push(name))
            engine.remove_image(name)
        engine.remove_image("box")
        return name
    return {"import": str(place / "root.tar"), "save": str(place / "saved.tar")}.get(verb, archive)


def whole(engine: NativeEngine, verb: str) -> None:
    """The next command, and then nothing is wrong."""
    engine.store.discard(engine.store.new_layer())
    if verb == "repair":
        assert all(problem.repaired for problem in finish(engine.verify(repair=True)))  # it was killed before it could
    problems = finish(engine.verify())
    assert problems == [], (verb, problems)
    assert engine.store.resolve("kept").id and len(engine.store.images()) == len(os.listdir(f"{engine.store.root}/manifests"))
    assert set(engine.store.references().values()) <= engine.store.saved()


VERBS = ["load", "pull", "push", "save", "commit", "import", "prune", "repair"]


@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_random_moments(engine: NativeEngine, archive: str, server: registries.Server, verb: str) -> None:
    rng = random.Random(f"{verb} {os.environ.get('PYCONTAINERS_KILL_SEED', 1)}")
    what = prepared(engine, verb, archive, server)
    done = 0
    for _ in range(MOMENTS):
        child = work(engine, verb, what)
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
        time.sleep(rng.uniform(0.0, 0.6))
        child.send_signal(signal.SIGKILL)
        out, err = child.communicate(timeout=30)
        assert child.returncode == -signal.SIGKILL, err
        lines = out.splitlines()
        done += len(lines)
        if lines and verb in ("commit", "import", "save", "push", "repair"):
            for line in set(lines):
                engine.store.resolve(line.split()[1])  # what was finished is there
        whole(engine, verb)
    assert done, "no child came to the end of anything: the moments say little"
    engine.prune()
    assert os.listdir(engine.store.ingest) == os.listdir(f"{engine.store.root}/leases") == []
    if verb == "save":
        with tarfile.open(what) as found:
            assert "index.json" in found.getnames()
        finish(engine.save(["kept"], what))
        assert [name for name in os.listdir(os.path.dirname(what)) if name.startswith(".")] == []


@pytest.fixture
def small(disk: Path, archive: str) -> Iterator[NativeEngine]:
    """A store on a file system of its own, which can be filled up."""
    folder = disk / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m,mode=755", "pyct-small", str(folder)], check=True)
    try:
        yield from _prepared(NativeEngine(Paths(folder / "home", disk / "run").prepare()), archive)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk(small: NativeEngine, archive: str, server: registries.Server, verb: str) -> None:
    """With room for less and less of it: an error of one line, or success; the store is whole, and works when there is room again."""
    from pycontainers.errors import ContainersError
    from pycontainers.protocol import CommitRequest

    what = prepared(small, verb, archive, server)
    act = {
        "load": lambda: finish(small.load(what)),
        "pull": lambda: finish(small.pull(what)),
        "push": lambda: finish(small.push(what)),
        "save": lambda: finish(small.save(["kept"], f"{small.paths.home}/saved.tar", "oci-archive")),
        "commit": lambda: finish(small.commit("changed", CommitRequest(name="made", pause=False))),
        "import": lambda: finish(small.import_image(what, "flat")),
        "prune": lambda: small.prune(),
        "repair": lambda: finish(small.verify(repair=True)),
    }[verb]
    if verb in ("prune", "repair"):
        finish(small.load(archive))
    if verb == "push":
        finish(small.load(archive))
        small.tag("box", what)
    ballast, refused = Path(small.paths.home, "ballast"), 0
    for room in (0, 20_000, 200_000, 1_000_000, 3_000_000):
        free = os.statvfs(small.paths.home)
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(4096, free.f_bavail * free.f_frsize - room))
        if verb == "repair":
            Path(small.store.resolve("box").layers[-1].path, "more").touch()
        try:
            act()
        except ContainersError as error:
            refused += 1
            assert "\n" not in error.message and ("No space left" in error.message or "more than" in error.message), error
            assert not [name for name in os.listdir(small.store.ingest) if not name.startswith("blob-")]
        ballast.unlink()
        if verb == "repair":
            finish(small.verify(repair=True))
        assert finish(small.verify()) == []
        small.store.resolve("kept")
        if verb in ("load", "pull") and small.store.find(what if verb == "pull" else "box"):
            small.remove_image(what if verb == "pull" else "box", force=True)
    if verb not in ("prune", "push", "save"):
        assert refused, "the disk was never full"
    act()
    assert finish(small.verify()) == []
