"""Engines whose launcher lacks a protection (:mod:`tests.runtime.weakened`), and images that a hostile author could make."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.linux import process, sockets
from pycontainers.paths import Paths
from pycontainers.protocol import ContainerConfig, ExecConfig
from pycontainers.runtime import client

Weaken = Callable[..., NativeEngine]


@pytest.fixture
def leave() -> Callable[[Paths], None]:
    """End the launcher of a run folder; returns when it is gone, with what it has made ahead of need."""

    def end(where: Paths) -> None:
        try:
            with sockets.connect(where.launcher_socket, 5) as conn:
                greeting, _ = sockets.receive(conn)
                pid = (greeting or {})["pid"]
                spare = [below for mould in _children(pid) for below in (mould, *_unordered(mould))]
                sockets.send(conn, {"op": "leave"})
        except OSError:
            return
        for one in (pid, *spare):
            process.wait_gone(one, 5)

    return end


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _unordered(mould: int) -> list[int]:
    """Supervisors that have no container, with their children (they hold no container's lock), and exec workers that have nothing to do."""
    found = []
    for spare in _children(mould):
        below = _children(spare)
        with contextlib.suppress(OSError):
            files = [os.readlink(f"/proc/{spare}/fd/{fd}") for fd in os.listdir(f"/proc/{spare}/fd")]
            starter = any(os.readlink(f"/proc/{pid}/ns/pid") == process.pid_namespace() for pid in below)
            if not any(name.endswith("/lock") for name in files) and (starter or not below):
                found += [spare, *below]
    return found


@pytest.fixture
def without(engine: NativeEngine, state: Paths, leave: Callable[[Paths], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Weaken]:
    """``without(NAME…)``: an engine on the same images whose launcher lacks these protections; ``without()``: the real one."""
    started: list[Paths] = []
    argv = client.launcher_argv
    names: dict[Path, tuple[str, ...]] = {}

    def launcher_argv(where: Paths) -> list[str]:
        if where.run not in names:
            return argv(where)
        python, package = argv(where)[0], str(Path(client.__file__).parents[2])
        script = str(Path(__file__).with_name("weakened.py"))
        return [python, "-I", "-S", script, package, str(where.home), str(where.run), *names[where.run]]

    def weaken(*protections: str) -> NativeEngine:
        if not protections:
            return engine
        client.isolation(state)  # measured once for all
        where = Paths(state.home, Path(tempfile.mkdtemp(prefix="pyct-weak-", dir="/var/tmp")))
        shutil.copy(state.run / "isolation.json", where.run)
        names[where.run] = protections
        started.append(where)
        return NativeEngine(where)

    monkeypatch.setattr(client, "launcher_argv", launcher_argv)
    before = {info.id for info in engine.containers(all=True)}
    yield weaken
    for info in engine.containers(all=True) if started else []:
        if info.id not in before:
            engine.remove(info.id, force=True)  # while its supervisor can still be asked
    for where in started:
        leave(where)
        shutil.rmtree(where.run, ignore_errors=True)


@pytest.fixture
def image_with(engine: NativeEngine) -> Iterator[Callable[..., str]]:
    """``image_with(make, parent="host")``: the name of an image on ``parent`` with one more layer, whose tree ``make`` fills:
    anything that a hostile layer could hold."""
    made: list[str] = []

    def build(make: Callable[[Path], Any], parent: str = "host", **config: Any) -> str:
        base = engine.store.resolve(parent)
        tree = engine.store.new_layer()
        make(Path(tree))
        layer = engine.store.commit(tree, base.chain_id)
        whole = {**base.config, "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}}
        whole["config"] = {**(base.config.get("config") or {}), **config}
        image = engine.store.save_image(whole, [layer], base.host)
        made.append(f"hostile-{os.urandom(4).hex()}")
        engine.store.tag(image.id, made[-1])
        return made[-1]

    yield build
    for info in engine.containers(all=True):
        if info.image in made:
            engine.remove(info.id, force=True)
    for name in made:
        engine.remove_image(name, force=True)


@pytest.fixture
def output() -> Callable[..., str]:
    """``output(engine, *command, image="host", **config)``: what a container printed, stdout and stderr together."""

    def run(engine: NativeEngine, *command: str, image: str = "host", network: str = "none", **config: Any) -> str:
        collected = bytearray()
        asked = ContainerConfig(image, command, network=network, auto_remove=True, **config)
        engine.run(asked, None, lambda stream, data: collected.extend(data))
        return collected.decode("utf-8", "replace")

    return run


@pytest.fixture
def running() -> Callable[..., str]:
    """``running(engine, *command, …)``: the id of a container that was started; ``engine`` must live on to remove it."""

    def start(engine: NativeEngine, *command: str, image: str = "host", network: str = "none", **config: Any) -> str:
        asked = ContainerConfig(image, command or ("sleep", "100"), network=network, **config)
        return engine.start(engine.create(asked).id).id

    return start


@pytest.fixture
def execute() -> Callable[..., str]:
    """``execute(engine, container, *command, …)``: what an exec printed."""

    def run(engine: NativeEngine, container: str, *command: str, **config: Any) -> str:
        collected = bytearray()
        engine.exec(container, ExecConfig(command, **config), None, lambda stream, data: collected.extend(data))
        return collected.decode("utf-8", "replace")

    return run
