"""``build`` of the native engine: what a build needs of the other rooms, and the room that its cache may take."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from ..builder import solver
from ..errors import NotFound
from ..events import Done, Event, Note, StepFinished, Work, without_end
from ..images.store import Image, Store
from ..linux import holder
from ..network import wayout
from ..paths import Paths
from ..protocol import BuildRequest, ImageInfo
from ..runtime import client
from . import inside, steps
from .creation import ONE_ID

T = TypeVar("T")
_LAYOUT, _IMAGE = "oci-layout://", "docker-image://"
_BOUND_EVERY = 600.0  # seconds between two looks at how much room the cache takes: such a look takes as long as a small build


@dataclass(frozen=True)
class Shipping:
    """What of the engine a build needs: how images are pulled and loaded, and (``origins``) where a layer may be had from."""

    pull: Callable[[str], Work[Any]]
    load: Callable[[str], Work[list[ImageInfo]]]
    origins: Callable[[Any], Any]


def build(paths: Paths, request: BuildRequest, shipping: Shipping) -> Work[Image]:
    """See :meth:`pycontainers.protocol.Engine.build`."""
    request = yield from _with_layouts(shipping, request)
    store = Store(paths, holder=f"b{secrets.token_hex(4)}")
    work = _with_caches(paths, store, request, shipping)

    def end(ran: bool) -> Iterator[Event]:
        if (ran or request.cache_from) and _is_due(f"{store.root}/bounded"):
            store.bound_cache()
        yield from ()

    return (yield from _ending(work, end))


def _is_due(path: str) -> bool:
    """Whether nobody has looked for some time, in no process; whoever gets True does."""
    with contextlib.suppress(FileNotFoundError):
        if abs(time.time() - os.stat(path).st_mtime) < _BOUND_EVERY:
            return False
    with open(path, "ab"):
        os.utime(path)
    return True


def _with_caches(paths: Paths, store: Store, request: BuildRequest, shipping: Shipping) -> Work[Image]:
    """The build with the caches that it takes steps from, and writes them to. Afterwards it counts on no layer any more."""
    runner = steps.Runner(paths, store)
    try:
        if not request.cache_from and not request.cache_to:
            return (yield from solver.build(request, store, runner, shipping.pull))
        from ..builder.exchange import Caches

        with contextlib.closing(Caches(request.cache_from, request.cache_to, store, shipping.origins)) as caches:
            yield from caches.open()
            return (yield from solver.build(request, store, runner, shipping.pull, caches))
    finally:
        store.release_all()


def build_inside(paths: Paths, request: BuildRequest) -> Work[ImageInfo]:
    """The same for an ordinary user, in his namespaces; what his steps had to do with is said once one of them ran."""
    client.connect(paths).close()
    if request.network == "bridge":
        wayout.ensure(paths)
    work: Work[ImageInfo] = inside.work(paths, "build", request)

    def end(ran: bool) -> Iterator[Event]:
        if ran and request.network == "bridge":
            yield from map(Note, wayout.explain(str(paths.run)))
        if ran and sum((holder.read(str(paths.run)) or {}).get("uids", ())) == 1:
            yield Note(ONE_ID)

    return (yield from _ending(work, end))


def _ending(work: Work[T], end: Callable[[bool], Iterator[Event]]) -> Work[T]:
    """``work``, with ``end`` before its last event: it gets to know whether a step ran."""
    ran, done = False, None
    try:
        while True:
            event = next(work)
            ran = ran or (isinstance(event, StepFinished) and not event.cached)
            if isinstance(event, Done):
                done = event
            else:
                yield event
    except StopIteration as stop:
        result: T = stop.value
    finally:
        work.close()
    yield from end(ran)
    if done is not None:
        yield done
    return result


def _with_layouts(shipping: Shipping, request: BuildRequest) -> Work[BuildRequest]:
    """Named contexts that are OCI layouts on disk become images of the store."""
    contexts = dict(request.contexts)
    for name, meant in contexts.items():
        if not meant.startswith(_LAYOUT):
            continue
        path, _, tag = meant.removeprefix(_LAYOUT).partition(":")
        found = yield from without_end(shipping.load(path))
        wanted = [info for info in found if not tag or any(known.rpartition(":")[2] == tag for known in info.names)]
        if len(wanted) != 1:
            hint = f"{_LAYOUT}{path}:TAG" if len(found) > 1 else ""
            raise NotFound(f"context {name}: {path} has {len(wanted)} images{f' with the tag {tag}' if tag else ''}", hint)
        contexts[name] = _IMAGE + wanted[0].id
    return dataclasses.replace(request, contexts=contexts)
