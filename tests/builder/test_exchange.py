"""A build's cache through a registry, a folder and the image itself: another store has hits; nothing in it is believed but its keys."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pycontainers.builder import exchange, solver
from pycontainers.builder.exchange import Caches
from pycontainers.engines.native import NativeEngine
from pycontainers.errors import ContainersError, ImageError, UsageError
from pycontainers.events import Done, Event, Note, StepFinished, StepStarted, Transfer, Work, finish
from pycontainers.images import oci_layout
from pycontainers.images.descriptor import Descriptor
from pycontainers.images.manifest import make
from pycontainers.images.registry.client import Registry
from pycontainers.images.ship import ship
from pycontainers.images.store import Image, Layer, Store
from pycontainers.images.verify import verify
from pycontainers.paths import Paths
from pycontainers.protocol import BuildRequest
from tests.builder.conftest import Builder
from tests.images import registries

TWO_STAGES = """
FROM scratch AS tools
COPY tool /tool
RUN echo made > made
FROM scratch
COPY a /a
RUN echo one > one
COPY --from=tools /made /made
CMD ["x"]
"""


class Home:
    """A user with a store of his own, who builds with caches from elsewhere."""

    def __init__(self, folder: Path, context: Path) -> None:
        self.builder = Builder(Store(Paths(folder / "home", folder / "run").prepare()), context)
        self.store = self.builder.store
        self.events: list[Event] = []

    def build(self, dockerfile: str, cache_from: tuple[str, ...] = (), cache_to: tuple[str, ...] = (), **options: Any) -> Image:
        self.events = []
        with closing(Caches(cache_from, cache_to, self.store)) as caches:
            self.told(caches.open())
            request = BuildRequest(dockerfile, str(self.builder.context), **options)
            return self.told(solver.build(request, self.store, self.builder.runner, elsewhere=caches))

    def told(self, work: Work[Any]) -> Any:
        while True:
            try:
                self.events.append(next(work))
            except StopIteration as stop:
                return stop.value

    @property
    def commands(self) -> int:
        """How many were run, of all builds."""
        return len(self.builder.runner.calls)

    @property
    def cached(self) -> list[bool]:
        return [event.cached for event in self.events if isinstance(event, StepFinished)]

    @property
    def notes(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="pyct-exchange-", dir="/var/tmp"))
    (path / "context").mkdir()
    for name in ("a", "tool"):
        (path / "context" / name).write_text(name)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def home(place: Path) -> Callable[[str], Home]:
    return lambda name: Home(place / name, place / "context")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registries.Server]:
    with registries.docker_registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


Homes = Callable[[str], Home]


def known(home: Home) -> list[str]:
    """Keys of all steps."""
    return [facts["key"] for facts in home.store.cache_facts()]


# -- round trips


@pytest.mark.parametrize("kind", ["local", "registry"])
@pytest.mark.parametrize("compression", ["", ",compression=zstd"])
def test_another_store_runs_nothing(home: Homes, place: Path, server: registries.Server, kind: str, compression: str) -> None:
    name = f"{server.host}/cache:{kind}{len(compression)}"
    to = f"type=local,dest={place}/cache" if kind == "local" else f"type=registry,ref={name}"
    one, two = home("one"), home("two")
    made = one.build(TWO_STAGES, cache_to=(f"{to},mode=max{compression}",))
    assert one.commands == 2 and one.notes == []
    again = two.build(TWO_STAGES, cache_from=(to.replace("dest=", "src="),))
    assert two.commands == 0 and all(two.cached) and two.notes == []
    assert again.id == made.id  # bit for bit, times included
    assert finish(verify(two.store)) == [] and two.builder.left_over() == []
    assert any(isinstance(event, Transfer) and event.phase == "downloading" for event in two.events)
    two.build(TWO_STAGES)
    assert two.commands == 0, "what was imported is known from then on"
    three = home("three")
    other = three.build(TWO_STAGES.replace("echo one", "echo other"), cache_from=(to.replace("dest=", "src="),))
    assert three.commands == 1 and other.id != made.id


def test_only_what_is_asked_for_is_fetched(home: Homes, place: Path, server: registries.Server) -> None:
    name = f"{server.host}/lazy:1"
    home("one").build(TWO_STAGES, cache_to=(f"type=registry,ref={name},mode=max",))
    before = len(server.requests("GET"))
    two = home("two")
    with closing(finish(exchange.load([name], two.store))) as imported:
        asked = server.requests("GET")[before:]
        assert len([path for path in asked if "/blobs/" in path]) == 1, "more than the config was read"
        assert imported.layer("0" * 64) is None
    before = len(server.requests("GET"))
    two.build("FROM scratch\nCOPY a /a\nRUN echo one > one", cache_from=(name,))
    assert two.commands == 0
    blobs = [path for path in server.requests("GET")[before:] if "/blobs/" in path]
    assert len(blobs) == 3, blobs  # the config and two layers of five


def test_the_smaller_mode_has_the_images_own_steps(home: Homes, place: Path) -> None:
    one, two = home("one"), home("two")
    one.build(TWO_STAGES, cache_to=(f"type=local,dest={place}/cache",))
    two.build(TWO_STAGES, cache_from=(f"type=local,src={place}/cache",))
    ran = [call["argv"][-1] for call in two.builder.runner.calls]
    assert ran == ["echo made > made"], "the last stage's RUN is in the image, the first one's is not"


@pytest.mark.parametrize("kind", ["registry", "local"])
def test_an_image_carries_its_cache(home: Homes, place: Path, server: registries.Server, kind: str) -> None:
    one, two, three = home("one"), home("two"), home("three")
    text = "FROM scratch\nCOPY a /a\nENV x=y\nRUN echo one > one\nCMD [\"x\"]"
    name = f"{server.host}/app:inline"
    made = one.build(text, cache_to=("type=inline",), tags=(name,))
    assert json.loads(Path(one.store.blob_path(made.id)).read_bytes())[exchange.INLINE]["version"] == 1
    with Registry(name) as registry:
        finish(ship(one.store, made, registry, [name]))
    again = two.build(text, cache_from=(name,), cache_to=("type=inline",))
    assert two.commands == 0 and all(two.cached) and again.id == made.id
    plain = one.build(text)
    assert plain.id != made.id and exchange.INLINE not in plain.config
    with Registry(f"{name}-plain") as registry:
        finish(ship(one.store, plain, registry, [f"{name}-plain"]))
    three.build(text, cache_from=(f"{name}-plain",))
    assert three.commands == 1
    assert three.notes == [f"no cache from {name}-plain: the image carries no cache"]


def test_a_tag_of_a_folder_is_replaced_and_others_stay(home: Homes, place: Path) -> None:
    one = home("one")
    to = f"type=local,dest={place}/cache"
    one.build("FROM scratch\nRUN echo 1 > a", cache_to=(to,))
    one.build("FROM scratch\nRUN echo 2 > a", cache_to=(f"{to},tag=second",))
    one.build("FROM scratch\nRUN echo 3 > a", cache_to=(to,))
    rows = json.loads((place / "cache/index.json").read_bytes())["manifests"]
    assert sorted(row["annotations"][oci_layout.REF_NAME] for row in rows) == ["latest", "second"]
    for number, source in ((2, ",tag=second"), (3, ""), (3, f",digest={rows[-1]['digest']}")):
        other = home(f"other{number}{len(source)}")
        other.build(f"FROM scratch\nRUN echo {number} > a", cache_from=(f"type=local,src={place}/cache{source}",))
        assert other.commands == 0 and other.notes == []
    other.build("FROM scratch\nRUN echo 1 > a", cache_from=(f"type=local,src={place}/cache,tag=third",))
    assert other.commands == 1 and other.notes == [f"no cache from {place}/cache: {place}/cache has no cache third"]


def test_no_cache_runs_all_the_same(home: Homes, place: Path) -> None:
    one, two = home("one"), home("two")
    one.build(TWO_STAGES, cache_to=(f"type=local,dest={place}/cache,mode=max",))
    two.build(TWO_STAGES, cache_from=(f"type=local,src={place}/cache",), no_cache=True)
    assert two.commands == 2


def test_two_threads_ask_for_the_same(home: Homes, place: Path) -> None:
    one, two = home("one"), home("two")
    one.build(TWO_STAGES, cache_to=(f"type=local,dest={place}/cache,mode=max",))
    with closing(finish(exchange.load([f"type=local,src={place}/cache"], two.store))) as imported:
        found: list[Layer | None] = []
        keys = known(one) * 4
        threads = [threading.Thread(target=lambda key=key: found.append(imported.layer(key))) for key in keys]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert None not in found and len(found) == len(keys)
    two.store.prune_builds(all=True)
    assert all(os.path.isdir(layer.path) for layer in found if layer), "what a build was given went in the middle of it"
    assert len(os.listdir(f"{two.store.root}/snapshots")) == len(os.listdir(f"{one.store.root}/snapshots"))


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's build is done elsewhere")
def test_the_engine_builds_with_caches(place: Path, server: registries.Server) -> None:
    text = "FROM scratch\nCOPY a /a\nCOPY tool /tool"
    name = f"{server.host}/engine:1"
    ids = []
    for number, asked in enumerate(({"cache_to": (f"type=registry,ref={name}",)}, {"cache_from": (name, f"{name}-none")})):
        engine = NativeEngine(Paths(place / f"home{number}", place / f"run{number}").prepare())
        events: list[Event] = []
        work = engine.build(BuildRequest(text, str(place / "context"), **asked))
        with closing(work):
            try:
                while True:
                    events.append(next(work))
            except StopIteration as stop:
                ids.append(stop.value.id)
        assert [event.cached for event in events if isinstance(event, StepFinished)][1:] == [number == 1] * 2
        assert isinstance(events[-1], Done) and os.listdir(engine.store.ingest) == []
    assert ids[0] == ids[1]


def test_a_build_that_waits_for_a_layer_ends_at_once(home: Homes) -> None:
    """The registry says nothing any more: the stop button ends it within a second."""
    faulty, stop = registries.Faulty(), threading.Event()
    try:
        one, two = home("one"), home("two")
        one.build("FROM scratch\nRUN echo 1 > a", cache_to=(f"type=registry,ref={faulty.host}/x",))
        config = next(digest for digest, data in faulty.blobs.items() if data.startswith(b"{"))
        faulty.fault("GET", f"/blobs/(?!{config})", lambda handler: stop.wait(20) and None)
        caches = Caches((f"{faulty.host}/x",), (), two.store)
        two.told(caches.open())
        work = solver.build(BuildRequest("FROM scratch\nRUN echo 1 > a", ""), two.store, two.builder.runner, elsewhere=caches)
        assert any(isinstance(event, StepStarted) and event.index == 2 for event in work)
        time.sleep(0.3)
        before = time.monotonic()
        work.close()
        assert time.monotonic() - before < 1.0 and two.commands == 0
    finally:
        stop.set()
        faulty.close()


# -- what cannot be had, and what is wrong


def test_a_cache_that_is_not_there_is_a_note(home: Homes, place: Path, server: registries.Server) -> None:
    one = home("one")
    (place / "empty").mkdir()
    (place / "odd").mkdir()
    (place / "odd/index.json").write_text("{")
    names = [f"{server.host}/none:1", f"127.0.0.1:{registries.free_port()}/x"]
    names += [f"type=local,src={place}/{folder}" for folder in ("nothing", "empty", "odd")]
    made = one.build(TWO_STAGES, cache_from=tuple(names))
    assert made.id and one.commands == 2
    assert len(one.notes) == 5 and all(note.startswith("no cache from ") and "\n" not in note for note in one.notes)


def test_a_cache_that_breaks_in_the_middle_is_given_up(home: Homes, place: Path) -> None:
    one, two = home("one"), home("two")
    one.build(TWO_STAGES, cache_to=(f"type=local,dest={place}/cache,mode=max",))
    for path in (place / "cache/blobs/sha256").iterdir():
        if path.read_bytes()[:2] == b"\x1f\x8b":
            path.unlink()
    two.build(TWO_STAGES, cache_from=(f"type=local,src={place}/cache",))
    assert two.commands == 2 and finish(verify(two.store)) == []
    assert len(two.notes) == 1 and "is not used any more" in two.notes[0]


def test_steps_on_this_machines_system_stay_here(home: Homes, place: Path) -> None:
    one = home("one")
    tree = one.store.new_layer()
    Path(tree, "x").write_text("x")
    layer = one.store.commit(tree, "host:0123")
    one.told(exchange.export([f"type=local,dest={place}/cache,mode=max"], {"a" * 64: (layer,)}, one.store, [layer]))
    assert one.notes == [
        "not exported: 1 of 1 steps, which stand on this machine's own system (FROM host)",
        f"no cache to {place}/cache: there is no step to export",
    ]
    assert not (place / "cache").exists()


def test_an_export_that_fails(home: Homes, place: Path) -> None:
    one = home("one")
    nobody = f"type=registry,ref=127.0.0.1:{registries.free_port()}/x"
    with pytest.raises(ContainersError):
        one.build(TWO_STAGES, cache_to=(nobody,))
    one.build(TWO_STAGES, cache_to=(f"{nobody},ignore-error=true",))
    assert one.notes[0].startswith("no cache to 127.0.0.1")
    (place / "full").mkdir()
    (place / "full/thing").touch()
    with pytest.raises(UsageError, match="a folder with something else in it"):
        one.build(TWO_STAGES, cache_to=(f"type=local,dest={place}/full",))


Change = Callable[[dict[str, Any]], object]
CONFIGS: dict[str, Change] = {
    "version": lambda said: said.update(version=2),
    "no layers": lambda said: said.pop("layers"),
    "one layer less": lambda said: said["layers"].pop(),
    "a circle": lambda said: said["layers"][0].update(parent=0),
    "a parent above": lambda said: said["layers"][0].update(parent=len(said["layers"]) - 1),
    "a parent that is none": lambda said: said["layers"][1].update(parent="0"),
    "true": lambda said: said["layers"][1].update(parent=True),
    "no digest": lambda said: said["layers"][0].update(diff_id="sha256:0"),
    "a key that is a path": lambda said: said["keys"].update({"k" * 300: 0}),
    "a key beyond": lambda said: said["keys"].update(k=len(said["layers"])),
    "a key before": lambda said: said["keys"].update(k=-1),
    "keys": lambda said: said.update(keys=[]),
    "rows": lambda said: said.update(layers=[1] * len(said["layers"])),
}


def changed(folder: Path, change: Change) -> None:
    """The cache in ``folder`` with another config, everything around it right."""
    blobs = folder / "blobs/sha256"
    index = json.loads((folder / "index.json").read_bytes())
    found = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_bytes())
    said = json.loads((blobs / found["config"]["digest"][7:]).read_bytes())
    change(said)

    def add(data: bytes) -> str:
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return f"sha256:{name}"

    raw = json.dumps(said).encode()
    found["config"].update(digest=add(raw), size=len(raw))
    raw = json.dumps(found).encode()
    index["manifests"][0].update(digest=add(raw), size=len(raw))
    (folder / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_malformed_cache_is_refused_whole(home: Homes, place: Path, kind: str) -> None:
    one, two = home("one"), home("two")
    one.build(TWO_STAGES, cache_to=(f"type=local,dest={place}/cache,mode=max",))
    changed(place / "cache", CONFIGS[kind])
    two.build(TWO_STAGES, cache_from=(f"type=local,src={place}/cache",))
    assert two.commands == 2 and len(two.notes) == 1 and two.notes[0].startswith(f"no cache from {place}/cache: ")


def test_a_layer_is_what_its_diff_id_says(home: Homes, place: Path) -> None:
    one, two = home("one"), home("two")
    one.build("FROM scratch\nRUN echo 1 > a\nRUN echo 2 > b", cache_to=(f"type=local,dest={place}/cache",))
    changed(place / "cache", lambda said: said["layers"][0].update(diff_id="sha256:" + "1" * 64))
    two.build("FROM scratch\nRUN echo 1 > a\nRUN echo 2 > b", cache_from=(f"type=local,src={place}/cache",))
    assert two.commands == 2 and "has the diff id" in two.notes[0] and finish(verify(two.store)) == []


def test_a_layer_stands_on_what_its_step_stands_on(home: Homes, place: Path) -> None:
    """The one lie about keys that can be noticed: the image would be at odds with itself."""
    one, two = home("one"), home("two")
    text = "FROM scratch\nRUN echo 1 > a\nRUN echo 2 > b"
    one.build(text, cache_to=(f"type=local,dest={place}/cache",))
    changed(place / "cache", lambda said: said.update(keys=dict.fromkeys(said["keys"], 0)))
    two.build(text, cache_from=(f"type=local,src={place}/cache",))
    assert two.commands == 1 and finish(verify(two.store)) == []
    two.build(text)
    assert two.commands == 1


def test_a_layer_is_its_blob(home: Homes, place: Path) -> None:
    one, two = home("one"), home("two")
    one.build("FROM scratch\nRUN echo 1 > a", cache_to=(f"type=local,dest={place}/cache",))
    for path in (place / "cache/blobs/sha256").iterdir():
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    two.build("FROM scratch\nRUN echo 1 > a", cache_from=(f"type=local,src={place}/cache",))
    assert two.commands == 1 and len(two.notes) == 1 and two.builder.left_over() == []


def test_times_that_mean_nothing(home: Homes, place: Path) -> None:
    one, two = home("one"), home("two")
    one.build("FROM scratch\nRUN echo 1 > a", cache_to=(f"type=local,dest={place}/cache",))
    for value in (-1, "x", 1 << 70, None, 1.5):
        changed(place / "cache", lambda said, value=value: said["layers"][0].update(created=value))
        two.build("FROM scratch\nRUN echo 1 > a", cache_from=(f"type=local,src={place}/cache",))
        assert two.commands == 0 and two.notes == []
        for name in os.listdir(f"{two.store.root}/leases"):
            os.unlink(f"{two.store.root}/leases/{name}")
        for image in two.store.images():
            two.store.remove(image.id)
        two.store.prune_builds(all=True)


def test_an_image_is_no_cache_and_a_cache_no_image(home: Homes, place: Path) -> None:
    one = home("one")
    one.build("FROM scratch\nRUN echo 1 > a", cache_to=(f"type=local,dest={place}/cache",))
    with pytest.raises(ImageError, match="this is no container image"):
        from pycontainers.images import archives
        from pycontainers.images.descriptor import Platform
        from pycontainers.images.fetch import fetch

        (found,) = oci_layout.images(archives.open_place(f"{place}/cache", one.store.ingest), Platform.own())
        finish(fetch(one.store, found.source))


def test_a_cache_of_buildkits_is_a_note(home: Homes, place: Path) -> None:
    one = home("one")
    target = oci_layout.FolderTarget(f"{place}/cache")
    raw = b'{"layers":[],"records":[]}'
    config = Descriptor("application/vnd.buildkit.cacheconfig.v0", "sha256:" + hashlib.sha256(raw).hexdigest(), len(raw))
    target.finish(make(config, []), ["cache:latest"])
    target.end()
    one.build("FROM scratch\nRUN echo 1 > a", cache_from=(f"type=local,src={place}/cache",))
    assert "vnd.buildkit.cacheconfig" in one.notes[0]


# -- options


@pytest.mark.parametrize(
    ("text", "writing", "words"),
    [
        ("type=gha", False, "type 'gha' is not known"),
        ("type=lokal,src=/x", False, "type 'lokal' is not known"),
        ("type=local", False, "says no src"),
        ("type=local,src=/x", True, "says no dest"),
        ("type=local,dest=", True, "'dest=' has no value"),
        ("type=registry", False, "says no ref"),
        ("type=registry,ref=Upper/Case", False, "Upper/Case"),
        ("type=registry,ref=host", True, "'host' is in no registry"),
        ("type=local,dest=/x,mode=most", True, "mode=most is not known"),
        ("type=local,dest=/x,compression=estargz", True, "compression=estargz is not known"),
        ("type=local,dest=/x,taag=y", True, "'taag' is not known"),
        ("type=local,src=/x,tag=a b", False, "a b"),
        ("type=local,src=/x,digest=sha256:1", False, "is not a digest"),
        ("type=inline", False, "names no image"),
        ("src=/x", False, "type '' is not known"),
    ],
)
def test_what_options_may_say(text: str, writing: bool, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        exchange.check(*(((), [text]) if writing else ([text], ())))
    assert words in caught.value.message and caught.value.hint


def test_what_options_mean() -> None:
    place = exchange.Place.parse('type=local,"dest=/a,b",tag=t,mode=max,compression=zstd,oci-mediatypes=true,ignore-error=true', True)
    assert (place.kind, place.where, place.tag, place.everything, place.compression, place.ignore_errors) == (
        "local", "/a,b", "t", True, "zstd", True,
    )  # fmt: skip
    assert exchange.Place.parse("example.com/app:cache", False).where == "example.com/app:cache"
