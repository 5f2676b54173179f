"""Performs the steps that are not cached: each fills a fresh layer folder and commits it, or leaves nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from typing import Any, Protocol

from ..errors import ContainersError
from ..images.store import Image, Layer
from ..images.view import Rootfs
from .copying import CopyWork, LayerWriter, fill, parse_owner
from .stage import StageState

Output = tuple[str, bytes]
"""``"stdout"`` or ``"stderr"``, and bytes as they come."""


class Runner(Protocol):
    """Runs a command in a container. Implemented by the engine."""

    def run(self, *, rootfs: Rootfs, tree: str, argv: list[str], env: dict[str, str], cwd: str, user: str,
            network: str) -> Generator[Output, None, int]:
        """Yield output as it comes, return the exit code. What the command writes lands in ``tree``, a layer in overlay's form.

        Closing the generator ends the container. :raises ContainersError: it could not be started.
        """
        ...


class LayerStore(Protocol):
    """The parts of :class:`pycontainers.images.store.Store` that a build uses."""

    def resolve(self, name: str) -> Image: ...

    def scratch(self) -> Image: ...

    def new_layer(self) -> str: ...

    def commit(self, tree: str, parent_chain: str) -> Layer: ...

    def discard(self, tree: str) -> None: ...

    def cached(self, key: str) -> Layer | None: ...

    def remember(self, key: str, layer: Layer) -> None: ...

    def save_image(self, config: dict[str, Any], image_layers: list[Layer], host_identity: str) -> Image: ...

    def tag(self, image_id: str, name: str) -> None: ...


class RunFailed(ContainersError):
    """The command of a RUN ended with a code other than 0."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class Executor:
    """Each method makes one layer on top of a stage's state. When it raises, or its generator is closed, nothing stays."""

    def __init__(self, store: LayerStore, runner: Runner) -> None:
        self.store, self.runner = store, runner

    def run(self, state: StageState, argv: list[str], env: dict[str, str], network: str) -> Generator[Output, None, Layer]:
        """:raises RunFailed: the command failed. Other errors: it could not be started."""
        with self._fresh() as tree:
            code = yield from self.runner.run(rootfs=state.rootfs, tree=tree, argv=argv, env=env, cwd=state.workdir, user=state.user,
                                              network=network)
            if code:
                raise RunFailed(code)
            return self.store.commit(tree, state.chain_id)

    def copy(self, state: StageState, work: CopyWork) -> Layer:
        """:raises CopyError: the destination does not fit, an owner that the image does not have."""
        with self._fresh() as tree:
            fill(state.view, tree, work, lambda: None)
            return self.store.commit(tree, state.chain_id)

    def make_workdir(self, state: StageState, path: str) -> Layer:
        """A missing working directory with its parents, owned by the stage's user (as BuildKit)."""
        view = state.view
        owner = parse_owner(view, state.user) if state.user else None
        with self._fresh() as tree:
            writer = LayerWriter(view, tree, owner)
            writer.make_folder(view.resolve(path), time.time_ns())
            writer.finish()
            return self.store.commit(tree, state.chain_id)

    @contextlib.contextmanager
    def _fresh(self) -> Iterator[str]:
        tree = self.store.new_layer()
        try:
            yield tree
        except BaseException:  # also GeneratorExit and KeyboardInterrupt: a half layer never stays
            self.store.discard(tree)
            raise

