"""Whether a step was done before: its key, who has the result, and in words why it has to run.

A key is a digest of what the step does and of what goes in: the chain id of what it stands on (that names content, so equal layers made in
different ways share what is built on them), and for files a digest of their content without times. What does not go in: the Dockerfile's
name, the stage, the line; so equal steps of different stages and files are one.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..events import Event, Work
from ..images.layers import chain_id
from ..images.store import Layer

Records = Mapping[str, Sequence[Layer]]
"""Every step of a build: key -> the layers up to and with its own."""

FORMAT = 2
"""In every key: raise it when what a step makes changes."""


@dataclass(frozen=True)
class Definition:
    """A step, as its key sees it.

    :param kind: run, copy, workdir, mount. ``parent``: chain id of what it stands on.
    :param parts: everything else that decides over the result, by name; JSON values.
    :param text: how it is called in an explanation. ``files``: path -> digest, made when an explanation needs it.
    """

    kind: str
    parent: str
    parts: Mapping[str, Any]
    text: str = ""
    files: Callable[[], Mapping[str, str]] | None = field(default=None, compare=False)

    @functools.cached_property
    def key(self) -> str:
        parts = [FORMAT, self.kind, self.parent, sorted(self.parts.items())]
        return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode("utf-8", "surrogateescape")).hexdigest()

    def facts(self) -> dict[str, Any]:
        """What an explanation of a later build compares with."""
        files = {"files": dict(self.files())} if self.files else {}
        return {"kind": self.kind, "text": self.text, "parent": self.parent, "parts": dict(self.parts), **files}


class Known(Protocol):
    """Where finished steps are kept: the store, and caches that were imported."""

    def cached(self, key: str) -> Layer | None: ...


class Elsewhere(Known, Protocol):
    """Caches of others (:class:`.exchange.Caches`): where a build asks besides, and writes to."""

    tell: Callable[[Event], object]

    def config(self, config: dict[str, Any], records: Records, layers: Sequence[Layer]) -> dict[str, Any]: ...

    def export(self, records: Records, layers: Sequence[Layer]) -> Work[None]: ...

    def close(self) -> None: ...


class Remembering(Known, Protocol):
    def remember(self, key: str, layer: Layer, facts: dict[str, Any] | None = None) -> None: ...


class BuildCache:
    """The finished steps as one build sees them. Safe with threads: of equal steps at the same time one runs, the others wait for it."""

    def __init__(self, store: Remembering, imported: Known | None = None) -> None:
        self._store, self._imported = store, imported
        self._made: dict[str, Layer] = {}
        self._busy: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        #: Every step of this build: key -> the layers up to and with its own; what an export of the cache writes.
        self.records: dict[str, tuple[Layer, ...]] = {}

    def used(self, key: str, layers: tuple[Layer, ...]) -> None:
        self.records[key] = layers

    @contextlib.contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Nobody else in this build works on the step with this key."""
        with self._lock:
            lock = self._busy.setdefault(key, threading.Lock())
        with lock:
            yield

    def find(self, key: str, fresh: bool, parent: str) -> Layer | None:
        """The layer that the step makes on ``parent`` (a chain id).

        :param fresh: only what this very build has made counts (``--no-cache``).
        """
        made = self._made.get(key)
        if made is not None or fresh:
            return made
        layer = self._store.cached(key)
        if layer is None and self._imported is not None and (layer := self._imported.cached(key)) is not None:
            if chain_id(parent, layer.diff_id) != layer.chain_id:
                return None  # others can claim what they like: a layer for this step stands on what the step stands on
            self._store.remember(key, layer)
        return layer

    def remember(self, definition: Definition, layer: Layer) -> None:
        self._store.remember(definition.key, layer, definition.facts())
        self._made[definition.key] = layer

    def also(self, key: str, layer: Layer) -> None:
        """A second key that leads to the same result with less to look at."""
        self._store.remember(key, layer)
        self._made[key] = layer
