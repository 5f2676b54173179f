"""What the store takes up on the disk (``system df``). Bytes are those of the content, as :mod:`.collect` counts what it gives back."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping

from ..protocol import DiskItem, DiskUsage
from . import build_cache, collect, ingest
from .store import Store


def usage(store: Store, uses: Mapping[str, int]) -> list[DiskUsage]:
    """Rows for images, build cache and blobs. ``uses``: image id → how many containers it has."""
    images = store.images()
    sharing = Counter(layer.path for image in images for layer in set(image.layers))
    sizes = {layer.path: layer.size for image in images for layer in image.layers}
    active = {layer.path for image in images if uses.get(image.id) for layer in image.layers}
    items = []
    for image in images:
        own = {layer.path: layer.size for layer in image.layers}
        unique = sum(size for path, size in own.items() if sharing[path] == 1)
        name, size = (image.names or ("<none>",))[0], sum(own.values())
        items.append(DiskItem(name, image.id, size, size - unique, unique, store.info(image).created, uses.get(image.id, 0)))
    reclaimable = sum(size for path, size in sizes.items() if path not in active)
    used = sum(1 for image in images if uses.get(image.id))
    rows = [DiskUsage("Images", len(images), used, sum(sizes.values()), reclaimable, tuple(items))]
    return [*rows, _cache(store, set(sizes)), _blobs(store)]


def _cache(store: Store, of_images: set[str]) -> DiskUsage:
    """Cache mounts, and layers that no image has: of cached steps, of a build or a pull that goes on (active), of one that was broken off.
    """
    leased, items, active = store.leased(), [], 0
    for entry in sorted(os.scandir(f"{store.root}/snapshots"), key=lambda entry: entry.name):
        found = store.snapshot(entry.path)
        if f"{entry.path}/diff" in of_images or not found:
            continue
        active += entry.path in leased
        created = entry.stat(follow_symlinks=False).st_mtime
        items.append(DiskItem(entry.name, str(found["chain_id"]), int(found["size"]), 0, int(found["size"]), created, entry.path in leased))
    for one in build_cache.mounts(store):
        active += one.in_use
        items.append(DiskItem("cache mount", one.name, one.size, 0, one.size, one.used, int(one.in_use)))
    free = sum(item.size for item in items if not item.uses)
    return DiskUsage("Build cache", len(items), active, sum(item.size for item in items), free, tuple(items))


def _blobs(store: Store) -> DiskUsage:
    """Reclaimable is what nothing needs once the build cache is gone, and what was begun and never finished."""
    needed, items, active = collect.needed(store, cache=False), [], 0
    for entry in os.scandir(f"{store.root}/blobs/sha256"):
        size = entry.stat(follow_symlinks=False).st_size
        active += entry.path in needed
        items.append(DiskItem("", f"sha256:{entry.name}", size, 0, size, entry.stat().st_mtime, entry.path in needed))
    for path in ingest.unfinished(store.ingest):
        found = os.stat(path)
        items.append(DiskItem("unfinished", f"sha256:{path.rpartition('-')[2]}", found.st_size, 0, found.st_size, found.st_mtime))
    items.sort(key=lambda item: (-item.size, item.id))
    free = sum(item.size for item in items if not item.uses)
    return DiskUsage("Blobs", len(items), active, sum(item.size for item in items), free, tuple(items))
