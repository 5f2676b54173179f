"""Removing: an image's name, images, and what nothing refers to any more. Says how many bytes that gave back.

Everything goes under the store's lock, taken alone: snapshots by one rename each (what is in them is removed afterwards), blobs by
unlink. What goes first is what makes the rest visible, so whoever is killed in between leaves what the next collection takes.
Bytes are those of the content: of a snapshot its regular files, of a blob all of it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable

from ..errors import StateError, UsageError
from ..protocol import Pruned
from . import build_cache, durable, host, ingest, reference
from .records import LEASE, Records, compact, read_json

InUse = Iterable[str] | Callable[[], Iterable[str]]
"""Ids of the images that containers use, or what finds them out (under the lock: one that is created just now is not to be missed)."""


def remove(store: Records, name: str, find: Callable[[str], str], force: bool = False, in_use: InUse = ()) -> Pruned:
    """Take the name away; delete the image when nothing names it any more. Lines that say what was done.

    :param find: the id of the image that is meant by a name, also of a damaged one.
    :param force: also when several names mean it, or a container uses it (it is only untagged then).
    :raises StateError: a container uses the image and it would be deleted.
    """
    familiar = _familiar(name)
    if familiar in ("host:latest", "scratch:latest"):
        raise StateError(f"image {name!r} cannot be removed", "it is this machine's own system" if "host" in name else "it is empty")
    image_id = find(name)
    collector = _Collector(store)
    with store.locked():
        used = set(in_use() if callable(in_use) else in_use)
        names = sorted((found for found in store.named() if found.image == image_id), key=lambda found: found.familiar)
        gone = [found for found in names if found.familiar == familiar] or names
        last = len(gone) == len(names)
        if gone == names and len(names) > 1 and not force:
            raise StateError(f"image {image_id[7:19]} has {len(names)} names", "remove it by name, or use force: rmi -f")
        if last and image_id in used and not force:
            hint = "remove the container first, or use force: rmi -f (untags alone)"
            raise StateError(f"image {name!r} is used by a container", hint)
        for found in gone:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(store.reference_path(found.reference))
            collector.said.append(f"Untagged: {found.familiar}")
        if last and image_id not in used:
            collector.delete(image_id)
            collector.drop_unreferenced()
    return collector.finished()


def prune(store: Records, in_use: InUse = ()) -> Pruned:
    """Delete images without a name that no container uses, what only the build cache keeps (a step whose layer an image has stays known),
    layers, blobs and host bases that nothing needs, and what was begun and never finished.
    """
    durable.sweep(store.ingest)
    collector = _Collector(store)
    collector.measure()
    with store.locked():
        used = set(in_use() if callable(in_use) else in_use)
        named = {name.image for name in store.named()}
        for image_id in sorted(store.saved() - named - used):
            collector.delete(image_id)
        collector.drop_builds()
        collector.drop_unreferenced()
        collector.drop_hosts(used)
    collector.bytes += ingest.drop_unfinished(store.ingest)
    return collector.finished()


def prune_builds(store: Records, all: bool = False, keep_bytes: int | None = None, until: float = 0.0) -> Pruned:
    """Remove what is kept for builds and used by none that goes on: Docker's ``builder prune``.

    :param all: also what is known of steps whose layers an image has: the next build runs every step. The images keep their layers.
    :param keep_bytes: stop when no more than so much is left; what was not used for the longest time goes first.
    :param until: unix seconds; what was used later stays. 0: everything may go.
    """
    collector = _Collector(store)
    collector.measure()
    with store.locked():
        collector.drop_builds(all, keep_bytes, until)
        collector.drop_unreferenced()
    return collector.finished()


def bound_cache(store: Records, keep_bytes: int) -> Pruned:
    """The same as ``prune_builds(keep_bytes=…)``, for after each build: where nothing was added since the last time, it costs nothing."""
    stamp, now = f"{store.root}/bounded", [keep_bytes, *_changes(store)]
    with contextlib.suppress(FileNotFoundError, ValueError):
        if read_json(stamp) == now:
            return Pruned()
    pruned, kept = Pruned(), build_cache.contents(store, of_images(store), store.leased())
    if _total(kept) > keep_bytes:
        pruned = prune_builds(store, keep_bytes=keep_bytes)
        now = [keep_bytes, *_changes(store)]
        kept = build_cache.contents(store, of_images(store), store.leased(), measure=False)
    build_cache.drop_notes(store)
    if _total(kept) <= keep_bytes and not any(one.in_use and one.is_mount for one in kept):
        durable.write(store.ingest, stamp, compact(now), synced=False)
    return pruned


def _changes(store: Records) -> list[int]:
    """Times that differ when the build cache may have grown: a step was remembered, an image removed, a cache mount used."""
    found = [os.stat(f"{store.root}/{name}").st_mtime_ns for name in ("cache", "manifests", "cachemounts")]
    for entry in sorted(os.scandir(f"{store.root}/cachemounts"), key=lambda entry: entry.name):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found.append(os.stat(f"{entry.path}/mount.json").st_mtime_ns)
    return found


def _total(kept: Iterable[build_cache.Kept]) -> int:
    return sum(one.size + one.blobs for one in kept)


def drop(store: Records, blobs: Iterable[str]) -> None:
    """Those of these blobs (paths) that nothing refers to."""
    with store.locked():
        for path in set(blobs) - needed(store):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def needed(store: Records, cache: bool = True) -> set[str]:
    """Snapshots' folders and blobs that an image refers to, a cached step (``cache``), or a lease. A container keeps its image."""
    found = store.leased() | of_images(store)
    if cache:
        found |= {folder for _, _, folder in build_cache.entries(store) if folder}
    return found | _blobs(store, found)


def of_images(store: Records) -> set[str]:
    """Snapshots' folders and blobs that images refer to."""
    found = set()
    for image_id, record in store.kept().items():
        found |= {os.path.dirname(store.layer_at(chain, diff, size).path) for diff, chain, size in record.layers}
        found |= {store.blob_path(digest) for digest in (image_id, record.manifest) if digest}
    return found | _blobs(store, found)


def _blobs(store: Records, found: set[str]) -> set[str]:
    """Those that hold the snapshots among ``found``."""
    folders = [path for path in found if path.startswith(f"{store.root}/snapshots/")]
    return {store.blob_path(row["digest"]) for path in folders for row in store.blob_rows(path)}


class _Collector:
    """``said`` and ``bytes`` grow; ``graves`` are folders to be emptied when the lock is free again."""

    def __init__(self, store: Records) -> None:
        self.store = store
        self.said: list[str] = []
        self.bytes = 0
        self._graves: list[str] = []

    def finished(self) -> Pruned:
        durable.empty(self._graves)
        return Pruned(self.said, self.bytes)

    def delete(self, image_id: str) -> None:
        """The record first: without it the image does not exist, whatever happens next. Its blobs nobody refers to from here on."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.store.manifest_path(image_id))
        self.said.append(f"Deleted: {image_id}")

    def measure(self) -> None:
        """Cache mounts, before the lock is taken: it may mean a look at many files."""
        for _ in build_cache.mounts(self.store):
            pass

    def drop_builds(self, all: bool = False, keep_bytes: int | None = None, until: float = 0.0) -> None:
        """See :func:`prune_builds`. Layers of which nobody knows any more are :meth:`drop_unreferenced`'s."""
        store, images, leased = self.store, of_images(self.store), self.store.leased()
        before = until or time.time() + LEASE  # a clock that was set back makes nothing immortal
        for path, when, folder in build_cache.entries(store):
            known_by_image = folder in images and folder not in leased
            if not folder or (all and keep_bytes is None and known_by_image and when < before):
                _unlink(path)
        kept = build_cache.contents(store, images, leased, measure=False)
        left = _total(kept)
        for one in sorted(kept, key=lambda one: (one.used, -one.depth)):
            if keep_bytes is not None and left <= keep_bytes:
                break
            if not one.in_use and one.used < before and self._forget(one):
                left -= one.size + one.blobs
        if keep_bytes is None:
            build_cache.drop_notes(store, before)

    def _forget(self, one: build_cache.Kept) -> bool:
        if not one.is_mount:
            for path in one.entries:
                _unlink(path)
            return True
        with build_cache.taken(one.path) as lock:
            if lock is None:
                return False
            self._graves.append(durable.bury(self.store.ingest, one.path))
        self.bytes += one.size
        self.said.append(f"Deleted cache mount: {one.name}")
        return True

    def drop_unreferenced(self) -> None:
        store, kept = self.store, needed(self.store)
        for entry in sorted(os.scandir(f"{store.root}/snapshots"), key=lambda entry: entry.name):
            if entry.path not in kept:
                size = store.snapshot(entry.path).get("size")
                self.bytes += size if isinstance(size, int) else 0
                # Renamed here, under the lock: a snapshot that is being emptied must not be found.
                self._graves.append(durable.bury(store.ingest, entry.path))
                self.said.append(f"Deleted layer: {entry.name}")
        for entry in os.scandir(f"{store.root}/blobs/sha256"):
            if entry.path not in kept:
                self.bytes += entry.stat(follow_symlinks=False).st_size
                with contextlib.suppress(IsADirectoryError):
                    os.unlink(entry.path)

    def drop_hosts(self, used: set[str]) -> None:
        """Bases of this machine's earlier states. A young one may be what a build stands on."""
        kept = {image.removeprefix("host:") for image in used if image.startswith("host:")}
        kept |= {record.host for record in self.store.kept().values()}
        for identity in host.outdated(self.store.root, LEASE):
            if identity not in kept:
                self._graves.append(durable.bury(self.store.ingest, f"{self.store.root}/host/{identity}"))
                self.said.append(f"Deleted host base: {identity}")


def _familiar(name: str) -> str:
    try:
        return reference.parse(name).familiar
    except UsageError:
        return ""


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
