"""RUN steps of a build: a container on the layers so far, whose writes become the next layer."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

from ..errors import BuildError, ContainersError
from ..images.store import Store
from ..linux import process
from ..paths import Paths
from ..protocol import ContainerConfig
from ..runtime import client, state
from . import creation
from .folders import STEP, Folders, drop_mount_points


class Runner:
    """What the builder's executor runs commands with."""

    def __init__(self, paths: Paths, store: Store) -> None:
        self._paths, self._store, self._folders = paths, store, Folders(paths)

    def run(
        self, rootfs: Any, tree: str, argv: list[str], env: dict[str, str], cwd: str, user: str, network: str
    ) -> Generator[tuple[str, bytes], None, int]:
        """Run ``argv``; yields ("stdout" | "stderr", bytes), returns the exit code; what was written is in ``tree`` then.

        Whatever happens, an interrupt included, the step's container is gone afterwards.
        """
        config = ContainerConfig(image="(build)", command=tuple(argv), env=env, workdir=cwd, user=user, network=network)
        owner = {"owner": process.identity(os.getpid())}
        container_id = creation.create(self._paths, self._store, config, step=owner, rootfs=rootfs)
        folder = self._folders.path(container_id)
        try:
            creation.before_start(self._paths, container_id)
            started = client.start_attached(self._paths, container_id)
            with started:
                yield from started.stream()
            if started.exit is None:
                raise BuildError("the step's supervisor was killed", "run the build again")
            if started.exit["oom_killed"]:
                yield "stderr", b"the step was OOM-killed\n"
            client.wait(folder, 30)
            if started.exit["code"] == 0:
                self._collect(folder, rootfs, tree)
            return int(started.exit["code"])
        finally:
            _end(self._folders, container_id)

    def _collect(self, folder: str, rootfs: Any, tree: str) -> None:
        drop_mount_points(folder, rootfs.folders, f"{folder}/upper")
        uppers = {place: f"{folder}/upper/{index}" for index, place in enumerate(rootfs.folders)}
        self._store.merge_uppers(uppers, tree, rootfs)


def _end(folders: Folders, container_id: str) -> None:
    folder = folders.path(container_id)
    try:
        if client.signal_init(folder, 9):
            client.wait(folder, 10)
        folders.remove(container_id)
    except (OSError, ContainersError):
        pass  # the next command's sweep finds it


def sweep(folders: Folders) -> None:
    """Remove the step containers of builds whose process is gone."""
    for container_id in folders.steps():
        step = state.read(folders.path(container_id), STEP)
        if step is not None and process.alive(step["owner"]) is False:
            _end(folders, container_id)
