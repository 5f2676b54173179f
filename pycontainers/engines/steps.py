"""RUN steps of a build: a container on the layers so far, whose writes become the next layer."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from ..errors import BuildError, ContainersError
from ..linux import process
from ..protocol import ContainerConfig
from ..runtime import client, state
from . import creation

if TYPE_CHECKING:
    from .native import NativeEngine


class Runner:
    """What the builder's executor runs commands with."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine

    def run(
        self, rootfs: Any, tree: str, argv: list[str], env: dict[str, str], cwd: str, user: str, network: str
    ) -> Generator[tuple[str, bytes], None, int]:
        """Run ``argv``; yields ("stdout" | "stderr", bytes), returns the exit code; what was written is in ``tree`` then.

        Whatever happens, an interrupt included, the step's container is gone afterwards.
        """
        engine = self._engine
        config = ContainerConfig(image="(build)", command=tuple(argv), env=env, workdir=cwd, user=user, network=network)
        owner = {"owner": process.identity(os.getpid())}
        container_id = creation.create(engine.paths, engine.store, config, step=owner, rootfs=rootfs)
        folder = engine._folder(container_id)
        name = (state.read(folder, "container.json") or {}).get("name", "")
        try:
            creation.before_start(engine.paths, container_id)
            started = client.start(engine.paths, container_id, attach=True)
            yield from started.output()
            if started.exit is None:
                raise BuildError("the step's supervisor was killed", "run the build again")
            if started.exit["oom_killed"]:
                yield "stderr", b"the step was OOM-killed\n"
            client.wait(folder, 30)
            if started.exit["code"] == 0:
                self._collect(folder, rootfs, tree)
            return int(started.exit["code"])
        finally:
            _end(engine, container_id, name)

    def _collect(self, folder: str, rootfs: Any, tree: str) -> None:
        _drop_mount_points(folder)
        uppers = {place: f"{folder}/upper/{index}" for index, place in enumerate(rootfs.folders)}
        self._engine.store.merge_uppers(uppers, tree)


def _drop_mount_points(folder: str) -> None:
    """Mount points that the runtime had to make in the image (/etc/hosts in ``FROM scratch``) are not the step's work."""
    made = (state.read(folder, "made.json") or {}).get("made", [])
    for path in reversed(made):
        place = f"{folder}/upper/0{path}"
        try:
            if os.path.isdir(place) and not os.path.islink(place):
                os.rmdir(place)
            elif os.path.getsize(place) == 0:
                os.unlink(place)
        except OSError:
            continue  # the step has put something there: that is its work


def _end(engine: NativeEngine, container_id: str, name: str) -> None:
    folder = engine._folder(container_id)
    try:
        if client.signal_init(folder, 9):
            client.wait(folder, 10)
        engine._discard(container_id, name)
    except (OSError, ContainersError):
        pass  # the next command's sweep finds it


def sweep(engine: NativeEngine) -> None:
    """Remove the step containers of builds whose process is gone."""
    for container_id in engine._ids(hidden=True):
        folder = engine._folder(container_id)
        try:
            with open(f"{folder}/step.json", encoding="utf-8") as file:
                owner = json.load(file)["owner"]
        except (OSError, ValueError, KeyError):
            continue
        if process.alive(owner) is False:
            _end(engine, container_id, (state.read(folder, "container.json") or {}).get("name", ""))
