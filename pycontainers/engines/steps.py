"""RUN steps of a build: a container on the layers so far, whose writes become the next layer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from typing import Any

from ..builder.cancellation import Cancellation
from ..builder.executor import Command, PrivateFile
from ..errors import BuildError, ContainersError
from ..images import durable
from ..images.store import Store
from ..linux import owners, process, trees
from ..paths import Paths
from ..protocol import ContainerConfig, Mount
from ..runtime import client, state
from . import creation
from .agents import Agent
from .folders import STEP, Folders, drop_mount_points

_HOSTNAME = "buildkitsandbox"  # as in Docker's builds
_PRIVATE = "steps"  # below the run folder: one folder for each command that has private files, named by who made it


class Runner:
    """What the builder's executor runs commands with."""

    def __init__(self, paths: Paths, store: Store) -> None:
        self._paths, self._store, self._folders = paths, store, Folders(paths)

    def run(self, command: Command, rootfs: Any, tree: str, cancellation: Cancellation) -> Generator[tuple[str, bytes], None, int]:
        """See :class:`pycontainers.builder.executor.Runner`. Whatever happens, an interrupt included, the container is gone afterwards."""
        with contextlib.ExitStack() as stack:
            private = stack.enter_context(_private(self._paths, self._store, command.files)) if command.files else []
            config = ContainerConfig(
                image="(build)", hostname=_HOSTNAME, command=tuple(command.argv), env=command.env, workdir=command.cwd, user=command.user,
                network=command.network, mounts=(*command.mounts, *private), extra_hosts=command.extra_hosts,
                shm_size=command.shm_size, ulimits=command.ulimits,
            )  # fmt: skip
            owner = {"owner": process.identity(os.getpid())}
            container_id = creation.create(self._paths, self._store, config, step=owner, rootfs=rootfs)
            stack.callback(_end, self._folders, container_id)
            folder = self._folders.path(container_id)
            stack.enter_context(cancellation.ending(lambda: client.signal_init(folder, 9)))
            creation.before_start(self._paths, container_id)
            started = stack.enter_context(client.start_attached(self._paths, container_id))
            if cancellation.asked:  # before there was anything to end
                client.signal_init(folder, 9)
            yield from started.stream()
            cancellation.check()
            if started.exit is None:
                raise BuildError("the step's supervisor was killed", "run the build again")
            if started.exit["oom_killed"]:
                yield "stderr", b"the step was OOM-killed\n"
            client.wait(folder, 30)
            if started.exit["code"] == 0:
                self._collect(folder, rootfs, tree)
            return int(started.exit["code"])

    def _collect(self, folder: str, rootfs: Any, tree: str) -> None:
        drop_mount_points(folder, rootfs.folders, f"{folder}/upper")
        uppers = {place: f"{folder}/upper/{index}" for index, place in enumerate(rootfs.folders)}
        self._store.merge_uppers(uppers, tree, rootfs)


@contextlib.contextmanager
def _private(paths: Paths, store: Store, files: tuple[PrivateFile, ...]) -> Generator[list[Mount], None, None]:
    """Secrets and agents' sockets, in the run folder (memory, where this machine has it so), for as long as a command runs."""
    os.makedirs(f"{paths.run}/{_PRIVATE}", 0o711, exist_ok=True)
    place = f"{paths.run}/{_PRIVATE}/{durable.fresh_name()}"
    os.mkdir(place, 0o711)
    mounts: list[Mount] = []
    with contextlib.ExitStack() as stack:
        stack.callback(trees.remove, place)
        for number, file in enumerate(files):
            path = f"{place}/{number}"
            if file.program:  # the run folder's file system may be one from which nothing is executed
                tree = store.new_layer()
                stack.callback(store.discard, tree)
                path = f"{tree}/{number}"
            if file.agent:
                stack.enter_context(Agent(path, file.agent))
            else:
                with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as target:
                    target.write(file.content)
            owners.give(path, file.uid, file.gid)
            os.chmod(path, file.mode)
            mounts.append(Mount("bind", file.target, path, read_only=not file.agent, options=("bind",)))
        yield mounts


def _end(folders: Folders, container_id: str) -> None:
    folder = folders.path(container_id)
    try:
        if client.signal_init(folder, 9):
            client.wait(folder, 10)
        folders.remove(container_id)
    except (OSError, ContainersError):
        pass  # the next command's sweep finds it


def sweep(folders: Folders) -> None:
    """Remove the step containers of builds whose process is gone, and the private files of such."""
    for container_id in folders.steps():
        step = state.read(folders.path(container_id), STEP)
        if step is not None and process.alive(step["owner"]) is False:
            _end(folders, container_id)
    private = f"{folders.paths.run}/{_PRIVATE}"
    if os.path.isdir(private):
        durable.sweep(private)

