"""Where FROM, ``--from`` and COPY lead: another stage, a named context, an image (fetched when it is not here), the build context.

Asked from several threads at a time; what is fetched or read is fetched and read once.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..errors import ContainersError, NotFound, RegistryError, UsageError, near
from ..events import Work, without_end
from ..images.store import Image
from ..images.view import View
from ..linux import trees
from ..protocol import BuildRequest
from .cancellation import Cancellation
from .context import Context
from .executor import LayerStore
from .parser import Flag, Raw
from .plan import Plan
from .remote import of
from .sources import ImageSource, Source
from .stage import StageState

Pull = Callable[[str], Work[Any]]
"""Gets an image from its registry: yields events, raises NotFound or RegistryError."""


@dataclass(frozen=True)
class Origin:
    """Where files come from. ``chain`` names the whole content ("" where only a look at the files can tell); ``title`` is for messages."""

    source: Source
    chain: str
    title: str


class Origins:
    """``stages`` holds what becomes of every stage of the plan."""

    def __init__(
        self, request: BuildRequest, plan: Plan, store: LayerStore, pull: Pull | None, cancellation: Cancellation
    ) -> None:
        self.request, self.plan, self.store = request, plan, store
        self.stages: dict[int, Future[StageState]] = {stage.index: Future() for stage in plan.stages}
        self._pull, self._cancellation = pull, cancellation
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}
        self._pulled: set[str] = set()
        self._context: Context | None = None
        self._named: dict[str, Origin] = {}
        self._folders: list[str] = []

    def close(self) -> None:
        """Remove what was fetched for this build alone, and keep what is known of the context's files."""
        if self._context is not None:
            self._context.known.settle(always=True)
        for folder in self._folders:
            trees.remove(folder)

    # -- images

    def image(self, raw: Raw, name: str, flag: Flag | None = None) -> Work[Image]:
        """:raises BuildError: neither here nor to be had."""
        if name == "scratch":
            return self.store.scratch()
        asked = self.request.contexts.get(name, "")
        meant = asked.removeprefix("docker-image://") if asked.startswith("docker-image://") else name
        try:
            with self._alone(f"image {meant}"):
                return (yield from self._resolve(meant))
        except (NotFound, UsageError, RegistryError) as error:
            hint = near(name, self.plan.stage_names) or error.hint
            raise raw.error(error.message, hint, flag=flag, offset=None if flag else 0) from None

    def _resolve(self, name: str) -> Work[Image]:
        if self.request.pull and self._pull is not None and name not in self._pulled and name != "host":
            self._pulled.add(name)
            yield from without_end(self._pull(name))
        try:
            return self.store.resolve(name)
        except NotFound as error:
            if self._pull is None or near(name, self.plan.stage_names):
                raise
            local = error
        try:
            yield from without_end(self._pull(name))
        except (NotFound, RegistryError) as error:
            hint = local.hint if local.hint.startswith("did you mean") else error.hint
            raise NotFound(f"{local.message} here, and it cannot be pulled: {error.message}", hint) from None
        return self.store.resolve(name)

    # -- files

    def files(self, raw: Raw, name: str, flag: Flag | None, sources: dict[str, int]) -> Work[Origin]:
        """What ``--from=name`` (or ``from=`` of a mount) reads; "" is the build context.

        :param sources: the stage's: name -> index of another stage.
        """
        if not name:
            return self._build_context(raw)
        number = sources.get(name)
        if number is not None:
            return self.tree(self.stages[number].result(), f"stage {name}")
        asked = self.request.contexts.get(name)
        if asked is not None and not asked.startswith("docker-image://"):
            return self.named(raw, name, flag)
        image = yield from self.image(raw, name, flag)
        return self.tree(image, f"image {name}")

    @staticmethod
    def tree(found: Image | StageState, title: str) -> Origin:
        return Origin(ImageSource(View(found.rootfs)), found.chain_id or "scratch", title)

    def named(self, raw: Raw, name: str, flag: Flag | None) -> Origin:
        """A named context that is no image: a folder, or what an address leads to."""
        with self._alone(f"context {name}"):
            if name not in self._named:
                try:
                    source, key = of(self.request.contexts[name], self._folder, self._cancellation.check)
                except ContainersError as error:
                    raise raw.error(f"context {name}: {error.message}", error.hint, flag=flag) from None
                self._named[name] = Origin(source, key, f"context {name}")
        return self._named[name]

    def _build_context(self, raw: Raw) -> Origin:
        request = self.request
        if not request.context and not request.files:
            raise raw.error(
                f"{raw.keyword} from the build context, but this build has none",
                "give a context folder, or copy from a stage or image with --from",
                offset=0,
            )
        with self._lock:
            if self._context is None:
                kept = hashlib.sha256(os.fsencode(os.path.realpath(request.context))).hexdigest()[:32] if request.context else ""
                known = f"{self.store.root}/contexts/{kept}" if kept else ""
                self._context = Context(request.context, request.dockerfile_path, request.files, known)
        return Origin(self._context, "", f"the build context {request.context or '(inline files)'}")

    def _folder(self) -> str:
        """For what is fetched; removed with :meth:`close`."""
        tree = self.store.new_layer()
        self._folders.append(os.path.dirname(tree))
        return tree

    def _alone(self, key: str) -> threading.Lock:
        with self._lock:
            return self._busy.setdefault(key, threading.Lock())
