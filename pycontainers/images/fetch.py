"""An image from a :class:`.source.Source` into the store. Pull and load are this one thing.

Three layers at a time, each in one pass: read → digest and blob file → uncompress → diff id → unpack. A layer is kept when its blob has
the digest of the manifest and its tar the diff id of the config; the image when all its layers are, its name last. Whoever is interrupted
or killed leaves finished layers (nobody sees them: they make the next try shorter, and prune takes them) and blobs to go on with.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from ..errors import ContainersError, ImageError
from ..events import Event, Note, Transfer, Work
from . import durable, ingest, layers, manifest, reference
from .apply import Applied, apply
from .descriptor import Descriptor, Platform
from .ingest import Ingest
from .source import Reader, Source
from .store import Image, Layer, Store

AT_ONCE = 3  # layers, as Docker (max-concurrent-downloads)
_PERIOD = 0.05  # seconds between two events of one layer
_POLL = 0.1  # seconds between two looks whether somebody else has finished
_PATIENCE = 0.8  # seconds for which threads that were told to stop are waited for
_RENEW = 60.0  # seconds between two renewals of leases


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
    crew = _Crew(store, source, _jobs(found.layers, config["rootfs"]["diff_ids"]))
    try:
        made = yield from crew.work()
        image = store.add_image(raw, made, manifest=found.raw, holder=crew.holder)
        for name in names:
            store.tag(image.id, name, known_as())
    finally:
        crew.close()
    yield from (Note(note) for note in crew.notes[:20])
    return store.resolve(image.id)


def _odd(name: str, config: dict[str, Any]) -> Iterator[Event]:
    there = Platform.make(config.get("os") or "linux", config.get("architecture") or "", config.get("variant") or "")
    if there.architecture and there not in Platform.own().runs():
        yield Note(f"{name} is for {there}, this machine is {Platform.own()}: its programs need an emulator here (qemu-user-static)")


@dataclass(frozen=True)
class _Job:
    index: int
    blob: Descriptor
    diff: str
    chain: str
    parent: str


def _jobs(blobs: Sequence[Descriptor], diffs: Sequence[str]) -> list[_Job]:
    found, parent = [], ""
    for index, (blob, diff) in enumerate(zip(blobs, diffs, strict=True)):
        chain = layers.chain_id(parent, diff)
        found.append(_Job(index, blob, diff, chain, parent))
        parent = chain
    return found


class _Stopped(Exception):
    """Somebody has let go of the work, or another layer has failed."""


class _Crew:
    """Threads that fetch layers. Daemons: one that hangs in a network must not keep a notebook's kernel from ending."""

    def __init__(self, store: Store, source: Source, jobs: list[_Job]) -> None:
        self.store, self.source = store, source
        self.notes: list[str] = []
        self._jobs, self._left = jobs, iter(jobs)
        self._made: dict[int, Layer] = {}
        self._leased: set[str] = set()
        self.holder = f"f{secrets.token_hex(4)}"
        self._events: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._readers: set[_Tee] = set()
        self._threads = [threading.Thread(target=self._run, name="fetch", daemon=True) for _ in jobs[:AT_ONCE]]

    def work(self) -> Work[list[Layer]]:
        """All layers, lowest first."""
        for thread in self._threads:
            thread.start()
        running, renewed = len(self._threads), time.monotonic()
        while running:
            with contextlib.suppress(queue.Empty):
                found = self._events.get(timeout=_POLL)
                if isinstance(found, BaseException):
                    raise found
                if found is None:
                    running -= 1
                else:
                    yield found
            if time.monotonic() - renewed > _RENEW:
                renewed = time.monotonic()
                for path in list(self._leased):
                    self.store.lease(path, self.holder)
        return [self._made[job.index] for job in self._jobs]

    def close(self) -> None:
        """Stop, wait a little, and give up the leases."""
        self._stop.set()
        for reader in list(self._readers):
            reader.stop()
        if any(thread.is_alive() for thread in self._threads):
            self.source.close()  # a registry's ends what hangs in the network at once
        end = time.monotonic() + _PATIENCE
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))
        self.store.release(list(self._leased), self.holder)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    job = next(self._left, None)
                if job is None:
                    break
                self._made[job.index] = self._layer(job)
            self._events.put(None)
        except _Stopped:
            self._events.put(None)
        except BaseException as error:
            self._stop.set()
            self._events.put(error)

    # -- one layer

    def _layer(self, job: _Job) -> Layer:
        """The one that is here, or that somebody else is making, or a new one."""
        tell = _Tell(self._events, job.blob)
        place = f"{self.store.ingest}/{ingest.CLAIM}{os.path.basename(os.path.dirname(self.store.layer_at(job.chain, '', 0).path))}"
        while (layer := self._here(job)) is None:
            claim = ingest.claim(place)
            if claim is None:
                self._wait(tell)
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

    def _here(self, job: _Job) -> Layer | None:
        layer = self.store.leased_layer(job.chain, job.diff, self.holder)
        if layer is None:
            return None
        folder = os.path.dirname(layer.path)
        self._leased.add(folder)
        return layer if self.store.shippable(folder) else None  # a lost blob comes with the layer anew

    def _wait(self, tell: _Tell) -> None:
        tell("waiting", 0)
        if self._stop.wait(_POLL):
            raise _Stopped

    def _make(self, job: _Job, tell: _Tell) -> Layer:
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

    def _begin(self, job: _Job, tell: _Tell) -> Ingest | None:
        """The blob under construction; None where it is in the store (and leased)."""
        path = self.store.blob_path(job.blob.digest)
        while True:
            with self.store.locked(shared=True):
                if os.path.exists(path):
                    self.store.lease(path, self.holder)
                    self._leased.add(path)
                    return None
            writing = Ingest.begin(self.store, job.blob.digest, job.blob.size, hashing=job.blob.digest != job.diff)
            if writing is not None:
                if not os.path.exists(path):
                    return writing
                writing.close()  # whoever wrote it has finished in between
                continue
            self._wait(tell)

    def _unpack(self, job: _Job, writing: Ingest | None, tell: _Tell) -> Layer:
        tee = _Tee(self, job.blob, writing, tell)
        self._readers.add(tee)
        tree = self.store.new_layer()
        try:
            applied = self._apply(job, tee, tree)
            if writing is not None:
                durable.sync_tree(tree)
                writing.publish(holder=self.holder)
                self._leased.add(self.store.blob_path(job.blob.digest))
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
            self._leased.add(os.path.dirname(layer.path))
        except BaseException:
            self.store.discard(tree)
            raise
        finally:
            self._readers.discard(tee)
            tee.close()
        self.notes += applied.notes
        tell("done", job.blob.size)
        return layer

    def _apply(self, job: _Job, tee: _Tee, tree: str) -> Applied:
        free = os.statvfs(self.store.ingest)
        try:
            applied = apply(cast(BinaryIO, tee), tree, limit=free.f_bavail * free.f_frsize, moved=tee.unpacked)
        except ContainersError:
            if self._stop.is_set():
                raise _Stopped from None
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


class _Tell:
    """Events of one layer, a few each second."""

    def __init__(self, events: Any, blob: Descriptor) -> None:
        self._events, self._blob = events, blob
        self._phase, self._last = "", 0.0

    def __call__(self, phase: str, done: int, total: int = -1) -> None:
        now = time.monotonic()
        if phase != self._phase or now - self._last >= _PERIOD:
            self._phase, self._last = phase, now
            self._events.put(Transfer(self._blob.short, phase, done, self._blob.size if total < 0 else total))


class _Tee:
    """A blob as a file to read from: what was left of it, then the source, all of it written beside. Or the blob that is here."""

    def __init__(self, crew: _Crew, blob: Descriptor, writing: Ingest | None, tell: _Tell) -> None:
        self._crew, self._blob, self._writing, self._tell = crew, blob, writing, tell
        self._adopted: Iterator[bytes] | None = writing.adopted() if writing is not None else None
        self._reader: Reader | None = open(crew.store.blob_path(blob.digest), "rb", 0) if writing is None else None
        self._done = 0
        self.broken = False  # the source does not go on
        self._lock = threading.Lock()  # whoever reads ahead may still be at it when the rest is wanted

    def read(self, size: int = -1) -> bytes:
        if self._crew._stop.is_set():
            raise _Stopped
        with self._lock:
            piece = self._next(size)
        self._done += len(piece)
        if piece:
            self._tell("unpacking" if self._writing is None else "downloading", self._done)
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
        self.broken = True
        if self._reader is None:
            self._reader = self._crew.source.open(self._blob, self._writing.offset)
        piece = self._reader.read(size)
        self.broken = False
        self._writing.write(piece)
        return piece

    def unpacked(self, plain: int) -> None:
        if self._crew._stop.is_set():
            raise _Stopped
        if self._done >= self._blob.size:
            self._tell("unpacking", self._blob.size)

    def check(self, known: str = "") -> None:
        """Read what is left, and see whether the digest (``known`` where somebody has it) is right. :raises ImageError: it is not."""
        if self._writing is not None:
            while self.read(1 << 18):
                known = ""  # whoever computed it had not seen this
            self._writing.check(known)

    def forget(self) -> None:
        if self._writing is not None:
            self._writing.forget()

    def stop(self) -> None:
        """From another thread: end what hangs in the network."""
        if self._writing is not None and (reader := self._reader) is not None:
            reader.close()

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
