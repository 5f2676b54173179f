"""A build's cache on its way out and in: a registry, an OCI layout's folder, or the image itself.

``--cache-to type=local,dest=FOLDER | type=registry,ref=NAME | type=inline``, ``--cache-from`` likewise with ``src=``. What is written is
a manifest as an image has, its layers ordinary layers, its config of :data:`CONFIG`: for each layer its diff id and the layer below it,
and for each key of a finished step the layer that it made (docs/architecture.md, Contracts).

What comes in is checked as an image is: every blob by its digest, every layer by its diff id, sizes by what they say. Which step a layer
is the result of nobody can check: who may write a cache decides over what is built from it, here as with Docker.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..errors import ContainersError, ImageError, NotFound
from ..events import Event, Note, Transfer, Work
from ..images import archives, oci_layout, reference
from ..images import manifest as manifests
from ..images.crew import Stopped
from ..images.descriptor import CONFIGS, Descriptor, Platform, check_digest
from ..images.fetch import FetchCrew, jobs
from ..images.manifest import Index, Manifest
from ..images.records import canonical, digest
from ..images.ship import ship_layers
from ..images.source import Source
from ..images.store import Layer, Store
from .cache import Records
from .cache_options import Place, check, layout_name

CONFIG = "application/vnd.pycontainers.cache.config.v1+json"
INLINE = "io.pycontainers.cache"
"""Where an image's config has its cache (``type=inline``)."""
_VERSION = 1
_KEY = 200  # characters at most
_LATEST = 1 << 62  # nanoseconds since 1970, in the year 2116
Origins = Callable[[Descriptor], Iterable[reference.Reference]]
"""Names by which registries know images that have a blob (:class:`..images.registry.client.Registry`)."""


class Caches:
    """The caches elsewhere that one build asks and writes to (:class:`.cache.Elsewhere`).

    ``Caches(…)`` → :meth:`open` → the solver → :meth:`close`.

    :raises UsageError: what is asked for makes no sense.
    """

    def __init__(self, cache_from: Sequence[str], cache_to: Sequence[str], store: Store, origins: Origins | None = None) -> None:
        check(cache_from, cache_to)
        self._from, self._to, self._store, self._origins = cache_from, cache_to, store, origins
        self.tell: Callable[[Event], object] = lambda event: None
        self._imported: Imported | None = None

    def open(self) -> Work[None]:
        self._imported = yield from load(self._from, self._store, lambda event: self.tell(event))

    def cached(self, key: str) -> Layer | None:
        return self._imported.layer(key) if self._imported else None

    def config(self, config: dict[str, Any], records: Records, layers: Sequence[Layer]) -> dict[str, Any]:
        return with_inline(self._to, config, records, layers)

    def export(self, records: Records, layers: Sequence[Layer]) -> Work[None]:
        yield from export(self._to, records, self._store, layers, self._origins)

    def close(self) -> None:
        if self._imported is not None:
            self._imported.close()


# -- in


@dataclass
class _Cache:
    """One cache that was found: ``parents[i]`` is the index of the layer below layer i, -1 for none."""

    name: str
    source: Source
    blobs: tuple[Descriptor, ...]
    diffs: list[str]
    parents: list[int]
    created: list[int | None]
    keys: dict[str, int]
    crew: FetchCrew | None = None
    broken: bool = False
    close: list[Callable[[], None]] = field(default_factory=list)


def load(
    specs: Sequence[str], store: Store, tell: Callable[[Event], object] | None = None, platform: Platform | None = None
) -> Work[Imported]:
    """Look at each ``--cache-from``: its manifest alone. One that cannot be had is a Note. The caller closes what is returned.

    :param tell: is told, in any thread, how far a layer is that is fetched later. :raises UsageError: one of ``specs`` makes no sense.
    """
    found = Imported(store, tell)
    try:
        for place in [Place.parse(text, writing=False) for text in specs]:
            try:
                found.add(_open(place, store, platform or Platform.own()))
            except ContainersError as error:
                yield Note(f"no cache from {place.where}: {error.message}")
    except BaseException:
        found.close()
        raise
    return found


class Imported:
    """Finished steps of others. Layers come when a step asks for them. Safe with threads."""

    def __init__(self, store: Store, tell: Callable[[Event], object] | None = None) -> None:
        self._store, self._tell = store, tell or (lambda event: None)
        self._caches: list[_Cache] = []
        self._lock = threading.Lock()

    def add(self, cache: _Cache) -> None:
        cache.crew = FetchCrew(self._store, cache.source)
        cache.crew.tell = self._moved
        self._caches.append(cache)

    def _moved(self, event: Event) -> None:
        if not (isinstance(event, Transfer) and event.phase == "exists"):  # what a step stands on was asked for by the step before
            self._tell(event)

    def layer(self, key: str) -> Layer | None:
        """What a step with this key made, with all below it in the store, and under leases of this build's. None where nobody knows."""
        for cache in self._caches:
            if key in cache.keys and not cache.broken:
                try:
                    return self._fetch(cache, cache.keys[key])
                except Stopped:
                    return None
                except (ContainersError, OSError) as error:
                    self._give_up(cache, error)
        return None

    def _fetch(self, cache: _Cache, index: int) -> Layer:
        crew, chain = cache.crew, list(_chain(cache.parents, index))[::-1]
        assert crew is not None
        layer = None
        work = jobs([cache.blobs[one] for one in chain], [cache.diffs[one] for one in chain])
        for one, job in zip(chain, work, strict=True):
            record = f"{os.path.dirname(self._store.layer_at(job.chain, job.diff, 0).path)}/layer.json"
            new, layer = not os.path.exists(record), crew.layer(job)
            created = cache.created[one]
            if new and created is not None:  # an image is as old as its layers: so it has the same id wherever it is built
                with contextlib.suppress(FileNotFoundError):
                    os.utime(record, ns=(created, created))
            with self._store.locked(shared=True):
                self._store.lease(os.path.dirname(layer.path))
        assert layer is not None
        return layer

    def _give_up(self, cache: _Cache, error: ContainersError | OSError) -> None:
        with self._lock:
            told, cache.broken = cache.broken, True
        if not told:
            said = error.message if isinstance(error, ContainersError) else f"{error.strerror}: {error.filename}"
            self._tell(Note(f"cache {cache.name} is not used any more: {said}"))

    def close(self) -> None:
        """End what is being fetched, in whichever thread, and give up the leases of it."""
        for cache in self._caches:
            if cache.crew is not None:
                cache.crew.end()
            for close in cache.close:
                close()


def _chain(parents: Sequence[int], index: int) -> Iterator[int]:
    """From a layer down. It ends: what is below has a smaller index (:func:`_parse`)."""
    while index >= 0:
        yield index
        index = parents[index]


def _open(place: Place, store: Store, platform: Platform) -> _Cache:
    configs = {CONFIG, *CONFIGS}
    with contextlib.ExitStack() as opened:
        if place.kind == "registry":
            from ..images.registry.client import Registry  # here: a folder needs no HTTP client

            source: Source = Registry(place.where, configs=configs)
            opened.callback(source.close)
        else:
            folder = archives.open_place(place.where, store.ingest)
            opened.callback(folder.close)
            source = oci_layout.LayoutSource(folder, _chosen(folder, place), configs)
        found = source.manifest(platform)
        cache = _parse(place.where, source, found, source.config(found))
        cache.close.append(opened.pop_all().close)
    return cache


def _chosen(folder: archives.Place, place: Place) -> Descriptor:
    index = manifests.parse(archives.read(folder, "index.json", manifests.MANIFEST_SIZE))
    if not isinstance(index, Index):
        raise ImageError(f"{folder.name}: index.json is a manifest, not an index", "export the cache again")
    for row in index.manifests:
        if row.digest == place.digest if place.digest else row.annotations.get(oci_layout.REF_NAME) == place.tag:
            return row
    there = sorted({row.annotations.get(oci_layout.REF_NAME, "") for row in index.manifests} - {""})
    raise NotFound(f"{folder.name} has no cache {place.digest or place.tag}", f"there is {', '.join(there)}" if there else "")


def _parse(name: str, source: Source, found: Manifest, raw: bytes) -> _Cache:
    """:raises ImageError: malformed, or it carries no cache."""
    if found.config.media_type != CONFIG:
        return _inline(name, source, found, raw)
    said = manifests.document(raw, f"cache of {name}")
    if said.get("version") != _VERSION:
        raise ImageError(f"its version is {said.get('version')!r:.20}, this is {_VERSION}", "export it again")
    rows, keys = said.get("layers"), said.get("keys")
    if not isinstance(rows, list) or len(rows) != len(found.layers) or not isinstance(keys, dict):
        raise ImageError(f"its config does not fit its {len(found.layers)} layers", "export it again")
    diffs: list[str] = []
    parents: list[int] = []
    created: list[int | None] = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not _is_number(row.get("parent"), -1, number - 1):
            raise ImageError(f"layer {number + 1} of its config is malformed: {row!r:.60}", "export it again")
        diffs.append(check_digest(row.get("diff_id"), f"layer {number + 1} of its config"))
        parents.append(row["parent"])
        created.append(row.get("created") if _is_number(row.get("created"), 0, _LATEST) else None)
    return _Cache(name, source, found.layers, diffs, parents, created, _keys(keys, len(rows)))


def _inline(name: str, source: Source, found: Manifest, raw: bytes) -> _Cache:
    """What an image carries: each key with the number of layers up to and with its own."""
    config = manifests.config(raw, len(found.layers))
    said = config.get(INLINE)
    if not isinstance(said, dict) or said.get("version") != _VERSION or not isinstance(said.get("keys"), dict):
        raise ImageError("the image carries no cache", "build it with --cache-to type=inline")
    times = [_nanoseconds(row.get("created")) for row in config.get("history") or [] if not row.get("empty_layer")]
    count = len(found.layers)
    keys = {key: number - 1 for key, number in _keys(said["keys"], count + 1).items() if number > 0}
    created: list[int | None] = times if len(times) == count else [None] * count
    return _Cache(name, source, found.layers, config["rootfs"]["diff_ids"], list(range(-1, count - 1)), created, keys)


def _keys(said: dict[str, Any], count: int) -> dict[str, int]:
    for key, index in said.items():
        if len(key) > _KEY or not _is_number(index, 0, count - 1):
            raise ImageError(f"a key of its config is malformed: {key[:40]!r}: {index!r:.20}", "export it again")
    return said


def _is_number(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _nanoseconds(text: Any) -> int | None:
    try:
        return round(datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp() * 1_000_000) * 1000
    except (ValueError, OverflowError):
        return None


# -- out


def with_inline(specs: Sequence[str], config: dict[str, Any], records: Records, layers: Sequence[Layer]) -> dict[str, Any]:
    """The image's config, with the keys of its own layers where ``type=inline`` is among ``specs``.

    :param records: key of each step of the build -> layers up to and with its own. ``layers``: the image's.
    """
    if not any(Place.parse(text, writing=True).kind == "inline" for text in specs):
        return config
    mine = [layer.chain_id for layer in layers]
    keys = {key: len(chain) for key, chain in sorted(records.items()) if chain and [one.chain_id for one in chain] == mine[: len(chain)]}
    return {**config, INLINE: {"version": _VERSION, "keys": keys}}


def export(
    specs: Sequence[str],
    records: Records,
    store: Store,
    layers: Sequence[Layer] = (),
    origins: Origins | None = None,
) -> Work[None]:
    """Write a build's cache to each ``--cache-to``. Steps on this machine's own system stay here: nobody else has it.

    :param records: key of each step of the build -> layers up to and with its own.
    :param layers: of the image that was built: ``mode=min`` writes the steps that made those.
    :raises ContainersError: it cannot be written (a Note instead with ``ignore-error=true``).
    """
    places = [place for place in (Place.parse(text, writing=True) for text in specs) if place.kind != "inline"]
    if not places:
        return
    sendable = {}
    bound = lost = 0
    for key, chain in records.items():
        bases = {str(store.snapshot(os.path.dirname(layer.path)).get("parent")) for layer in chain[:1]}
        if not chain or any(base.startswith("host:") for base in bases):
            bound += 1
        elif not all(store.shippable(os.path.dirname(layer.path)) and os.path.isdir(layer.path) for layer in chain):
            lost += 1
        else:
            sendable[key] = chain
    if bound:
        yield Note(f"not exported: {bound} of {len(records)} steps, which stand on this machine's own system (FROM host)")
    if lost:
        yield Note(f"not exported: {lost} of {len(records)} steps, whose base image has lost blobs (pull it again)")
    mine = {layer.chain_id for layer in layers}
    for place in places:
        chosen = sendable if place.everything else {key: chain for key, chain in sendable.items() if chain[-1].chain_id in mine}
        if not chosen:
            yield Note(f"no cache to {place.where}: there is no step to export")
            continue
        try:
            yield from _write(place, chosen, store, origins)
        except ContainersError as error:
            if not place.ignore_errors:
                raise
            yield Note(f"no cache to {place.where}: {error.message}")


def _write(place: Place, records: Records, store: Store, origins: Origins | None) -> Work[None]:
    found, raw = _config(records)
    config = Descriptor(CONFIG, digest(raw), len(raw))
    if place.kind == "registry":
        from ..images.registry.client import Registry

        with Registry(place.where, origins=origins) as registry:
            yield from ship_layers(store, found, registry, config, raw, [place.where], compression=place.compression)
        return
    folder = oci_layout.FolderTarget(place.where)
    yield from ship_layers(store, found, folder, config, raw, [layout_name(place.tag)], compression=place.compression)
    folder.end()


def _config(records: Records) -> tuple[list[Layer], bytes]:
    """The layers in the manifest's order, each after what it stands on, and the config."""
    found: list[Layer] = []
    index: dict[str, int] = {}
    rows, keys = [], {}
    for key, chain in sorted(records.items()):
        parent = -1
        for layer in chain:
            if layer.chain_id not in index:
                index[layer.chain_id] = len(found)
                found.append(layer)
                created = os.stat(f"{os.path.dirname(layer.path)}/layer.json").st_mtime_ns
                rows.append({"diff_id": layer.diff_id, "parent": parent, "created": created})
            parent = index[layer.chain_id]
        keys[key] = parent
    return found, canonical({"version": _VERSION, "layers": rows, "keys": keys})


__all__ = ["CONFIG", "INLINE", "Caches", "Imported", "Place", "check", "export", "load", "with_inline"]
