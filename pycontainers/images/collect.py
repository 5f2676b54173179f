"""Removing: an image's name, images, and what nothing refers to any more. Says how many bytes that gave back.

Everything goes under the store's lock, taken alone: snapshots by one rename each (what is in them is removed afterwards), blobs by
unlink. What goes first is what makes the rest visible, so whoever is killed in between leaves what the next collection takes.
Bytes are those of the content: of a snapshot its regular files, of a blob all of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

from ..errors import StateError, UsageError
from ..protocol import Pruned
from . import durable, host, ingest, reference
from .records import LEASE, Records

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
    """Delete images without a name that no container uses, the build cache, layers, blobs and host bases that nothing needs, and what
    was begun and never finished.
    """
    durable.sweep(store.ingest)
    collector = _Collector(store)
    with store.locked():
        used = set(in_use() if callable(in_use) else in_use)
        named = {name.image for name in store.named()}
        for image_id in sorted(store.saved() - named - used):
            collector.delete(image_id)
        for entry in os.scandir(f"{store.root}/cache"):
            os.unlink(entry.path)
        collector.drop_unreferenced()
        collector.drop_hosts(used)
    collector.bytes += ingest.drop_unfinished(store.ingest)
    return collector.finished()


def drop(store: Records, blobs: Iterable[str]) -> None:
    """Those of these blobs (paths) that nothing refers to."""
    with store.locked():
        for path in set(blobs) - needed(store):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def needed(store: Records, cache: bool = True) -> set[str]:
    """Snapshots' folders and blobs that an image refers to, a cached step (``cache``), or a lease. A container keeps its image."""
    found = store.leased()
    for image_id, record in store.kept().items():
        found |= {os.path.dirname(store.layer_at(chain, diff, size).path) for diff, chain, size in record.layers}
        found |= {store.blob_path(digest) for digest in (image_id, record.manifest) if digest}
    for entry in os.scandir(f"{store.root}/cache") if cache else ():
        layer = store.cache_entry(entry.path)
        if layer is not None:
            found.add(os.path.dirname(layer.path))
    for path in [path for path in found if path.startswith(f"{store.root}/snapshots/")]:
        found |= {store.blob_path(row["digest"]) for row in store.blob_rows(path)}
    return found


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
