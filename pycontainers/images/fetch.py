"""An image from a :class:`.source.Source` into the store. Pull and load are this one thing.

Three layers at a time, each in one pass: read → digest and blob file → uncompress → diff id → unpack. A layer is kept when its blob has
the digest of the manifest and its tar the diff id of the config; the image when all its layers are, its name last. Whoever is interrupted
or killed leaves finished layers (nobody sees them: they make the next try shorter, and prune takes them) and blobs to go on with.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from ..errors import ContainersError, ImageError
from ..events import Event, Note, Transfer, Work
from . import durable, ingest, layers, manifest, reference
from .apply import Applied, apply
from .crew import POLL, Crew, Stopped, Tell
from .descriptor import Descriptor, Platform
from .ingest import Ingest
from .source import Reader, Source
from .store import Image, Layer, Store

AT_ONCE = 3  # layers, as Docker (max-concurrent-downloads)


def fetch(
    store: Store,
    source: Source,
    names: Sequence[reference.Reference] = (),
    platform: Platform | None = None,
    known_as: Callable[[], str] = str,
) -> Work[Image]:
    """Bring an image into the store and give it ``names``. The caller closes the source.

    :param known_as: asked in the end for the digest by which a registry knows the names ("": by none).
    :raises ImageError: something is not what it says that it is. Nothing is visible of it then.
    """
    wanted = platform or Platform.own()
    yield Transfer("manifest", "downloading")
    found = source.manifest(wanted)
    yield Transfer("manifest", "done", len(found.raw), len(found.raw))
    raw = source.config(found)
    if manifest.digest(raw) != found.config.digest:
        digests = f"{manifest.digest(raw)[:19]}, not {found.config.digest[:19]}"
        raise ImageError(f"the config of {source.name} has the digest {digests}", "try again")
    config = manifest.config(raw, len(found.layers))
    yield Transfer("config", "done", len(raw), len(raw))
    yield from _odd(source.name, config)
    crew = FetchCrew(store, source)
    try:
        made = yield from crew.work(jobs(found.layers, config["rootfs"]["diff_ids"]))
        image = store.add_image(raw, made, manifest=found.raw, holder=crew.holder)
        for name in names:
            store.tag(image.id, name, known_as())
    finally:
        crew.end()
    yield from (Note(note) for note in crew.notes[:20])
    return store.resolve(image.id)


def _odd(name: str, config: dict[str, Any]) -> Iterator[Event]:
    there = Platform.make(config.get("os") or "linux", config.get("architecture") or "", config.get("variant") or "")
    if there.architecture and there not in Platform.own().runs():
        yield Note(f"{name} is for {there}, this machine is {Platform.own()}: its programs need an emulator here (qemu-user-static)")


@dataclass(frozen=True)
class Job:
    """One layer to have: ``chain`` its chain id, ``parent`` that of the one below ("" for none)."""

    blob: Descriptor
    diff: str
    chain: str
    parent: str


def jobs(blobs: Sequence[Descriptor], diffs: Sequence[str]) -> list[Job]:
    """Of layers that stand on each other, lowest first."""
    found, parent = [], ""
    for blob, diff in zip(blobs, diffs, strict=True):
        chain = layers.chain_id(parent, diff)
        found.append(Job(blob, diff, chain, parent))
        parent = chain
    return found


class FetchCrew(Crew):
    """Threads that fetch layers. ``notes``: what could not be kept of them. Who has threads of his own calls :meth:`layer` in them."""

    def __init__(self, store: Store, source: Source) -> None:
        super().__init__(store, "fetch")
        self.store, self.source = store, source
        self.notes: list[str] = []
        self._readers: set[_Tee] = set()

    def work(self, jobs: list[Job]) -> Work[list[Layer]]:
        """All layers, lowest first."""
        return (yield from self.each(jobs, self.layer, AT_ONCE))

    def end(self) -> None:
        for reader in list(self._readers):
            reader.stop()
        self.close(self.source.close)  # a registry's ends what hangs in the network at once

    # -- one layer

    def layer(self, job: Job) -> Layer:
        """The one that is here, or that somebody else is making, or a new one.

        :raises Stopped: the work was given up. :raises ContainersError: it cannot be had, or is not what it says that it is.
        """
        tell = Tell(self, job.blob.short)
        place = f"{self.store.ingest}/{ingest.CLAIM}{os.path.basename(os.path.dirname(self.store.layer_at(job.chain, '', 0).path))}"
        while (layer := self._here(job)) is None:
            claim = ingest.claim(place)
            if claim is None:
                self._wait(tell, job)
                continue
            try:
                layer = self._here(job)
                if layer is None:
                    return self._make(job, tell)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(place)
                os.close(claim)
        tell("exists", layer.size, layer.size)
        return layer

    def _here(self, job: Job) -> Layer | None:
        layer = self.store.leased_layer(job.chain, job.diff, self.holder)
        if layer is None:
            return None
        folder = os.path.dirname(layer.path)
        self.leased.add(folder)
        return layer if self.store.shippable(folder) else None  # a lost blob comes with the layer anew

    def _wait(self, tell: Tell, job: Job) -> None:
        tell("waiting", 0, job.blob.size)
        if self.stop.wait(POLL):
            raise Stopped

    def _make(self, job: Job, tell: Tell) -> Layer:
        for last in (False, True):
            writing = self._begin(job, tell)
            try:
                return self._unpack(job, writing, tell)
            except ImageError:
                # What was left there by somebody else may be damaged (a power cut): without it, once more.
                if last or writing is None or not writing.was_adopted:
                    raise
            finally:
                if writing is not None:
                    writing.close()
        raise AssertionError

    def _begin(self, job: Job, tell: Tell) -> Ingest | None:
        """The blob under construction; None where it is in the store (and leased)."""
        path = self.store.blob_path(job.blob.digest)
        while True:
            with self.store.locked(shared=True):
                if os.path.exists(path):
                    self.store.lease(path, self.holder)
                    self.leased.add(path)
                    return None
            writing = Ingest.begin(self.store, job.blob.digest, job.blob.size, hashing=job.blob.digest != job.diff)
            if writing is not None:
                if not os.path.exists(path):
                    return writing
                writing.close()  # whoever wrote it has finished in between
                continue
            self._wait(tell, job)

    def _unpack(self, job: Job, writing: Ingest | None, tell: Tell) -> Layer:
        tee = _Tee(self, job.blob, writing, tell)
        self._readers.add(tee)
        tree = self.store.new_layer()
        try:
            applied = self._apply(job, tee, tree)
            if writing is not None:
                durable.sync_tree(tree)
                writing.publish(holder=self.holder)
                self.leased.add(self.store.blob_path(job.blob.digest))
            form = Descriptor(job.blob.media_type, job.blob.digest, job.blob.size)
            layer = self.store.add_layer(
                tree,
                job.parent,
                job.diff,
                applied.size,
                tar_size=applied.tar_size,
                packed=False,
                blobs=[form],
                synced=writing is not None,
                holder=self.holder,
            )
            self.leased.add(os.path.dirname(layer.path))
        except BaseException:
            self.store.discard(tree)
            raise
        finally:
            self._readers.discard(tee)
            tee.close()
        self.notes += applied.notes
        tell("done", job.blob.size, job.blob.size)
        return layer

    def _apply(self, job: Job, tee: _Tee, tree: str) -> Applied:
        free = os.statvfs(self.store.ingest)
        try:
            applied = apply(cast(BinaryIO, tee), tree, limit=free.f_bavail * free.f_frsize, moved=tee.unpacked)
        except ContainersError:
            if self.stop.is_set():
                raise Stopped from None
            if not tee.broken:
                tee.check()  # what was exchanged or damaged on the way is malformed, too: that is what is to be said
                tee.forget()
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                tee.forget()  # a full disk is everybody's
            raise
        tee.check(applied.diff_id if job.blob.digest == job.diff else "")
        if applied.diff_id != job.diff:
            tee.forget()
            raise ImageError(f"layer {job.blob.short} has the diff id {applied.diff_id[:19]}, the config says {job.diff[:19]}", "")
        return applied


class _Tee:
    """A blob as a file to read from: what was left of it, then the source, all of it written beside. Or the blob that is here."""

    def __init__(self, crew: FetchCrew, blob: Descriptor, writing: Ingest | None, tell: Tell) -> None:
        self._crew, self._blob, self._writing, self._tell = crew, blob, writing, tell
        self._adopted: Iterator[bytes] | None = writing.adopted() if writing is not None else None
        self._reader: Reader | None = open(crew.store.blob_path(blob.digest), "rb", 0) if writing is None else None
        self._done = 0
        self._broken = self._over = False
        self._lock = threading.Lock()  # whoever reads ahead may still be at it when the rest is wanted

    def read(self, size: int = -1) -> bytes:
        if self._crew.stop.is_set():
            raise Stopped
        with self._lock:
            if self._over:
                raise Stopped
            piece = self._next(size)
        self._done += len(piece)
        if piece:
            self._tell("unpacking" if self._writing is None else "downloading", self._done, self._blob.size)
        return piece

    def _next(self, size: int) -> bytes:
        if self._writing is None:
            return self._reader.read(size) if self._reader is not None else b""
        if self._adopted is not None:
            if piece := next(self._adopted, b""):
                return piece
            self._adopted = None
        if self._writing.offset >= self._blob.size:
            return b""  # that nothing more comes is for the digest to say
        self._broken = True
        if self._reader is None:
            self._reader = self._crew.source.open(self._blob, self._writing.offset)
        piece = self._reader.read(size)
        self._broken = False
        self._writing.write(piece)
        return piece

    @property
    def broken(self) -> bool:
        """The source does not go on. Waits for whoever is reading from it."""
        with self._lock:
            return self._broken

    def unpacked(self, plain: int) -> None:
        if self._crew.stop.is_set():
            raise Stopped
        if self._done >= self._blob.size:
            self._tell("unpacking", self._blob.size, self._blob.size)

    def check(self, known: str = "") -> None:
        """Read what is left, and see whether the digest (``known`` where somebody has it) is right. :raises ImageError: it is not."""
        if self._writing is not None:
            while self.read(1 << 18):
                known = ""  # whoever computed it had not seen this
            self._writing.check(known)

    def forget(self) -> None:
        """What is there is wrong, or in the way. Nothing is written after it: whoever reads ahead would write what it has just read from
        the middle of the blob at the beginning of the file, and the next to get the blob would go on from there.
        """
        self._end()
        if self._writing is not None:
            self._writing.forget()

    def stop(self) -> None:
        """From another thread: end what hangs in the network."""
        if self._writing is not None and (reader := self._reader) is not None:
            reader.close()

    def close(self) -> None:
        self._end()

    def _end(self) -> None:
        """Nobody reads or writes any more: who is at it is woken, and waited for."""
        if (reader := self._reader) is not None:
            reader.close()
        with self._lock:
            self._over = True
            if self._reader is not None:
                self._reader.close()
