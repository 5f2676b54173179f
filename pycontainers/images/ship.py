"""An image of the store to a :class:`.source.Target`. Push and save are this one thing.

What came from outside goes as it came: manifest, config and blobs keep their digests. Layers that were made here are packed and
compressed once, and recorded, so that what is shipped twice is the same. The target's last step is the manifest.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import StateError
from ..events import Note, Transfer, Work
from . import collect, forms, manifest
from .crew import Crew, Stopped, Tell
from .descriptor import OCI_CONFIG, OCI_LAYER, Descriptor
from .manifest import Manifest
from .records import canonical, digest
from .rootfs import host_content, pack
from .source import Reader, Target
from .store import HOST_LABEL, Image, Layer, Store
from .view import Rootfs

AT_ONCE = 5  # blobs, as Docker (max-concurrent-uploads)


def ship(
    store: Store,
    image: Image,
    target: Target,
    names: Sequence[str] = (),
    *,
    compression: str = "",
    include_host: bool = False,
    keep_plain: bool = False,
    at_once: int = AT_ONCE,
) -> Work[str]:
    """Send an image; returns the digest of its manifest. The caller closes the target.

    :param compression: gzip or zstd, "" for as it came (and gzip for what was made here). A target that wants plain layers gets those.
    :param include_host: make an image on ``host`` whole, with this machine's system as its lowest layer.
    :param keep_plain: layers that came uncompressed may go so.
    :param at_once: how many blobs; 1 sends them in order.
    :raises StateError: it stands on this machine's system, or is nothing that could be sent.
    """
    if image.id.startswith("host:") and not include_host:
        raise StateError("host is this machine's own system", "with --include-host it is sent whole")
    if image.host and not include_host:
        hint = "push or save it with --include-host: this machine's system goes along, as a layer of its own"
        raise StateError(f"image {(image.names or (image.id[7:19],))[0]} stands on this machine's own system", hint)
    crew = _Crew(store, target, at_once)
    try:
        parts = yield from _parts(store, image, target.plain, compression, keep_plain, crew)
        sent = yield from crew.send(parts.layers)
        made = parts.manifest or manifest.make(parts.config, sent)
        yield from crew.send([_Job("config", lambda moved: parts.config, lambda _: io.BytesIO(parts.raw))])
        yield Transfer("manifest", "uploading", 0, len(made.raw))
        target.finish(made, names)
        if not target.plain and not image.host and not parts.manifest:
            _keep(store, image, made)
        yield Transfer("manifest", "done", len(made.raw), len(made.raw))
    finally:
        crew.end()
    return made.digest


def ship_layers(
    store: Store,
    found: Sequence[Layer],
    target: Target,
    config: Descriptor,
    raw: bytes,
    names: Sequence[str] = (),
    *,
    compression: str = "",
    at_once: int = AT_ONCE,
) -> Work[str]:
    """Send layers, in this order, with a config (``raw``) that makes them something else than an image; the digest of the manifest."""
    crew = _Crew(store, target, at_once)
    try:
        sent = yield from crew.send([_packed(store, layer, compression, False, crew.holder) for layer in found])
        yield from crew.send([_Job("config", lambda moved: config, lambda _: io.BytesIO(raw))])
        made = manifest.make(config, sent)
        target.finish(made, names)
        yield Transfer("manifest", "done", len(made.raw), len(made.raw))
    finally:
        crew.end()
    return made.digest


@dataclass(frozen=True)
class _Job:
    """One blob to send. ``make`` gives its descriptor (and makes it, telling the bytes of tar that are done), ``open`` its content."""

    label: str
    make: Callable[[Callable[[int], None]], Descriptor]
    open: Callable[[Descriptor], Reader]


@dataclass(frozen=True)
class _Parts:
    """``manifest``: the image's own, where all of it goes as it came."""

    layers: list[_Job]
    config: Descriptor
    raw: bytes
    manifest: Manifest | None


def _parts(store: Store, image: Image, plain: bool, kind: str, keep_plain: bool, crew: _Crew) -> Work[_Parts]:
    jobs = [_plain(store, layer) if plain else _packed(store, layer, kind, keep_plain, crew.holder) for layer in image.layers]
    if image.host:
        raw, base = yield from _with_host(store, image, "none" if plain else kind or "gzip", crew)
        return _Parts([base, *jobs], Descriptor(OCI_CONFIG, digest(raw), len(raw)), raw, None)
    with open(store.blob_path(image.id), "rb") as file:
        raw = file.read()
    kept = None if plain else _as_it_came(store, image, kind, keep_plain)
    if kept is not None:
        jobs = [_blob(store, blob) for blob in kept.layers]
    return _Parts(jobs, kept.config if kept else Descriptor(OCI_CONFIG, image.id, len(raw)), raw, kept)


def _as_it_came(store: Store, image: Image, kind: str, keep_plain: bool) -> Manifest | None:
    """The image's manifest, where everything that it names is here, and is as asked for."""
    kept = store.record(image.id).manifest
    if not kept or not store.whole(kept):
        return None
    with open(store.blob_path(kept), "rb") as file:
        found = manifest.parse(file.read())
    if not isinstance(found, Manifest) or (kind and any(blob.compression != kind for blob in found.layers)):
        return None
    known = any(name.endswith(f"@{kept}") for name in image.digests)  # a registry has taken it as it is
    return found if known or keep_plain or all(blob.compression != "none" for blob in found.layers) else None


def _blob(store: Store, blob: Descriptor) -> _Job:
    return _Job(blob.short, lambda moved: blob, lambda made: open(store.blob_path(made.digest), "rb", 0))


def _packed(store: Store, layer: Layer, kind: str, keep_plain: bool, holder: str) -> _Job:
    def make(moved: Callable[[int], None]) -> Descriptor:
        return forms.blob_of(store, layer, kind, keep_plain, moved, holder)

    return _Job(layer.diff_id[7:19], make, lambda made: open(store.blob_path(made.digest), "rb", 0))


def _plain(store: Store, layer: Layer) -> _Job:
    """Never written: its tar goes straight into the archive."""

    def make(moved: Callable[[int], None]) -> Descriptor:
        return Descriptor(OCI_LAYER, layer.diff_id, forms.tar_size(store, layer))

    return _Job(layer.diff_id[7:19], make, lambda made: forms.Pieces(forms.tar_of(store, layer)))


def _with_host(store: Store, image: Image, kind: str, crew: _Crew) -> Work[tuple[bytes, _Job]]:
    """The config of the image that has this machine's system as a layer, and that layer."""
    own = len(image.layers)
    below = Rootfs(image.rootfs.layers[: len(image.rootfs.layers) - own], image.rootfs.folders, image.rootfs.base)
    files, size = host_content(below)
    yield Note(f"this machine's system goes along: {files} files, {size / 1e6:.0f} MB before compression")
    base, diff = yield from crew.make(lambda moved: forms.make_blob(store, pack(below), kind, moved, crew.holder), size)
    config = image.config
    settings = dict(config.get("config") or {})
    settings["Labels"] = {name: value for name, value in (settings.get("Labels") or {}).items() if name != HOST_LABEL}
    row = {"created_by": "host", "comment": "the system of the machine where this image was made"}
    whole = {
        **config,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [diff, *(layer.diff_id for layer in image.layers)]},
        "history": [row, *(config.get("history") or [])],
    }
    crew.passing.append(store.blob_path(base.digest))
    crew.leased.add(crew.passing[-1])
    return canonical(whole), _blob(store, base)


def _keep(store: Store, image: Image, made: Manifest) -> None:
    """Let this be the image's manifest from now on: sent again, it is the same."""
    with store.locked():
        record = store.kept_as(image.id)
        if record is not None and not store.whole(record.manifest) and store.whole(made.raw):
            store.add_blob(made.raw)
            store.write_record(image.id, type(record)(record.layers, record.host, made.digest))


class _Crew(Crew):
    """Threads that make and send blobs. ``passing``: blobs that are of no use afterwards."""

    def __init__(self, store: Store, target: Target, at_once: int) -> None:
        super().__init__(store, "ship")
        self._store, self._target, self._at_once = store, target, at_once
        self.passing: list[str] = []

    def send(self, jobs: list[_Job]) -> Work[list[Descriptor]]:
        """Make and send them; their descriptors in the same order."""
        return (yield from self.each(jobs, self._one, self._at_once))

    def make(self, work: Callable[[Callable[[int], None]], Any], total: int) -> Work[Any]:
        """Do something long, and tell how far it is."""
        tell, found = Tell(self, "host"), []
        yield from self.run(lambda: found.append(work(lambda done: self._going(tell, "packing", done, total))))
        return found[0]

    def end(self) -> None:
        self.close(self._target.close)  # a registry's ends what hangs in the network at once
        if self.passing:
            collect.drop(self._store, self.passing)

    def _one(self, job: _Job) -> Descriptor:
        tell = Tell(self, job.label)
        made = job.make(lambda done: self._going(tell, "packing", done, 0))
        self.leased.add(self._store.blob_path(made.digest))
        if self._target.has(made):
            tell("exists", made.size, made.size)
            return made
        tell("uploading", 0, made.size)
        self._target.put(made, lambda: _Stoppable(job.open(made), self.stop), lambda done: self._going(tell, "uploading", done, made.size))
        tell("done", made.size, made.size)
        return made

    def _going(self, tell: Tell, phase: str, done: int, total: int) -> None:
        if self.stop.is_set():
            raise Stopped
        tell(phase, done, total)


class _Stoppable:
    """A reader that ends with an error when the work is given up."""

    def __init__(self, reader: Reader, stop: threading.Event) -> None:
        self._reader, self._stop = reader, stop

    def read(self, size: int = -1, /) -> bytes:
        if self._stop.is_set():
            raise Stopped
        return self._reader.read(size)

    def close(self) -> None:
        self._reader.close()
