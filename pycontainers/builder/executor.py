"""Performs the steps that are not cached: each fills a fresh layer folder and commits it, or leaves nothing."""

from __future__ import annotations

import contextlib
import stat
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import ContainersError
from ..images.store import Image, Layer
from ..images.view import Node, Rootfs
from .context import Source
from .copying import CopyError, LayerWriter, parse_mode, parse_owner
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


@dataclass(frozen=True)
class CopyWork:
    """A COPY with everything known: (name, node) of each source, here-documents as (name, content), absolute destination."""

    source: Source | None
    items: tuple[tuple[str, Node], ...]
    inline: tuple[tuple[str, bytes], ...]
    destination: str
    chown: str
    chmod: str


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
        view = state.view
        owner = parse_owner(view, work.chown) if work.chown else None
        with self._fresh() as tree:
            writer = LayerWriter(view, tree, owner, parse_mode(work.chmod) if work.chmod else None)
            try:
                _fill(writer, work)
            except OSError as error:
                raise CopyError(f"{error.strerror}: {error.filename or work.destination}", "check that the file can be read") from None
            writer.finish()
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


def _fill(writer: LayerWriter, work: CopyWork) -> None:
    real, exists = writer.destination(work.destination)
    as_folder = exists or work.destination.endswith("/")
    if len(work.items) + len(work.inline) > 1 and not as_folder:
        raise CopyError(f"several files cannot become the one file {work.destination}", f"write {work.destination}/")
    inside = real.rstrip("/") + "/"
    for name, node in work.items:
        assert work.source is not None
        is_folder = stat.S_ISDIR(node.stat.st_mode)
        writer.copy(work.source, node, real if is_folder or not as_folder else inside + name)
    now = time.time_ns()
    for name, content in work.inline:
        writer.write(inside + name if as_folder else real, content, now)
