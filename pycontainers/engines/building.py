"""``build`` of the native engine: what a build needs of the other rooms, and the room that its cache may take."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from ..builder import solver
from ..errors import NotFound
from ..events import Done, Event, StepFinished, Work, without_end
from ..images.store import Image
from ..protocol import BuildRequest
from . import steps

if TYPE_CHECKING:
    from .native import NativeEngine

_LAYOUT, _IMAGE = "oci-layout://", "docker-image://"
_BOUND_EVERY = 60.0  # seconds between two looks at how much room the cache takes
_bounded: dict[str, float] = {}


def build(engine: NativeEngine, request: BuildRequest) -> Work[Image]:
    """See :meth:`pycontainers.protocol.Engine.build`."""
    request = yield from _with_layouts(engine, request)
    store = engine.store
    ran, done = False, None
    work = solver.build(request, store, steps.Runner(engine.paths, store), engine.pull)
    try:
        while True:
            event: Event = next(work)
            ran = ran or (isinstance(event, StepFinished) and not event.cached)
            if isinstance(event, Done):
                done = event  # told when all is done, what follows included
            else:
                yield event
    except StopIteration as stop:
        image: Image = stop.value
    finally:
        work.close()
    if ran and time.monotonic() - _bounded.get(store.root, -_BOUND_EVERY) > _BOUND_EVERY:
        _bounded[store.root] = time.monotonic()
        store.bound_cache()
    if done is not None:
        yield done
    return image


def _with_layouts(engine: NativeEngine, request: BuildRequest) -> Work[BuildRequest]:
    """Named contexts that are OCI layouts on disk become images of the store."""
    contexts = dict(request.contexts)
    for name, meant in contexts.items():
        if not meant.startswith(_LAYOUT):
            continue
        path, _, tag = meant.removeprefix(_LAYOUT).partition(":")
        found = yield from without_end(engine.load(path))
        wanted = [info for info in found if not tag or any(known.rpartition(":")[2] == tag for known in info.names)]
        if len(wanted) != 1:
            hint = f"{_LAYOUT}{path}:TAG" if len(found) > 1 else ""
            raise NotFound(f"context {name}: {path} has {len(wanted)} images{f' with the tag {tag}' if tag else ''}", hint)
        contexts[name] = _IMAGE + wanted[0].id
    return dataclasses.replace(request, contexts=contexts)
