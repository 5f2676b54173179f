"""Performs the steps that are not cached: each fills a fresh layer folder and commits it, or leaves nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import ContainersError
from ..images import cleaning
from ..images.store import Image, Layer
from ..images.view import Rootfs
from ..protocol import Mount, Ulimit
from .cancellation import Cancellation
from .copying import CopyWork, fill, parse_owner
from .layer_writer import LayerWriter
from .stage import StageState

Output = tuple[str, bytes]
"""``"stdout"`` or ``"stderr"``, and bytes as they come."""


@dataclass(frozen=True)
class PrivateFile:
    """What a command sees and no layer keeps: a secret's ``content``, or (``agent``) the socket of an agent of this machine's user.

    ``program``: it is no secret, and will be executed.
    """

    target: str
    content: bytes = b""
    agent: str = ""
    program: bool = False
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Command:
    """What a RUN step runs, with everything known. ``mounts`` and ``files`` are there only while it runs."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    user: str
    network: str
    mounts: tuple[Mount, ...] = ()
    files: tuple[PrivateFile, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    shm_size: int | None = None
    ulimits: tuple[Ulimit, ...] = field(default=())


class Runner(Protocol):
    """Runs a command in a container. Implemented by the engine."""

    def run(self, command: Command, rootfs: Rootfs, tree: str, cancellation: Cancellation) -> Generator[Output, None, int]:
        """Yield output as it comes, return the exit code. What the command writes lands in ``tree``, a layer in overlay's form.

        Closing the generator, or cancelling, ends the container. :raises ContainersError: it could not be started.
        """
        ...


class LayerStore(Protocol):
    """The parts of :class:`pycontainers.images.store.Store` that a build uses."""

    @property
    def root(self) -> str: ...

    @property
    def ingest(self) -> str: ...

    def resolve(self, name: str) -> Image: ...

    def scratch(self) -> Image: ...

    def new_layer(self) -> str: ...

    def commit(self, tree: str, parent_chain: str) -> Layer: ...

    def discard(self, tree: str) -> None: ...

    def cached(self, key: str) -> Layer | None: ...

    def remember(self, key: str, layer: Layer, facts: dict[str, Any] | None = None) -> None: ...

    def cache_facts(self) -> Iterator[dict[str, Any]]: ...

    def hold_cache_mount(self, id: str, alone: bool = False) -> tuple[str, int] | None: ...

    def save_image(self, config: dict[str, Any], image_layers: list[Layer], host_identity: str) -> Image: ...

    def tag(self, image_id: str, name: str) -> None: ...


class RunFailed(ContainersError):
    """The command of a RUN ended with a code other than 0."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class Executor:
    """Each method makes one layer on top of a stage's state. When it raises, or its generator is closed, nothing stays.

    :param epoch: no file of a layer is later than this (unix seconds, SOURCE_DATE_EPOCH); None: they keep their times.
    """

    def __init__(self, store: LayerStore, runner: Runner, cancellation: Cancellation, epoch: int | None = None) -> None:
        self.store, self.runner, self.cancellation, self.epoch = store, runner, cancellation, epoch

    def run(self, state: StageState, command: Command) -> Generator[Output, None, Layer]:
        """:raises RunFailed: the command failed. Other errors: it could not be started."""
        with self.fresh() as tree:
            code = yield from self.runner.run(command, state.rootfs, tree, self.cancellation)
            if code:
                raise RunFailed(code)
            return self._commit(tree, state.chain_id)

    def copy(self, state: StageState, work: CopyWork) -> Layer:
        """:raises CopyError: the destination does not fit, an owner that the image does not have."""
        with self.fresh() as tree:
            fill(state.view, tree, work, self.cancellation.check)
            return self._commit(tree, state.chain_id)

    def make_workdir(self, state: StageState, path: str) -> Layer:
        """A missing working directory with its parents, owned by the stage's user (as BuildKit)."""
        view = state.view
        owner = parse_owner(view, state.user) if state.user else None
        with self.fresh() as tree:
            writer = LayerWriter(view, tree, owner)
            writer.make_folder(view.resolve(path), time.time_ns())
            writer.finish()
            return self._commit(tree, state.chain_id)

    def make(self, fill_tree: Callable[[str], None]) -> Layer:
        """A layer on nothing, filled by the caller."""
        with self.fresh() as tree:
            fill_tree(tree)
            return self.store.commit(tree, "")

    def _commit(self, tree: str, parent: str) -> Layer:
        self.cancellation.check()
        if self.epoch is not None:
            cleaning.clamp(tree, self.epoch)
        return self.store.commit(tree, parent)

    @contextlib.contextmanager
    def fresh(self) -> Iterator[str]:
        tree = self.store.new_layer()
        try:
            yield tree
        except BaseException:  # also GeneratorExit and KeyboardInterrupt: a half layer never stays
            self.store.discard(tree)
            raise
