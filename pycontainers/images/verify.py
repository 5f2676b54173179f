"""Everything in the store looked at: blobs by their names, records and names by what they lead to, each layer's files by its tar.

With ``repair``, what is damaged is put right where that can be done without asking anybody (a layer is unpacked anew from its blob), and
dropped where not; each line says how to get it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..errors import ContainersError
from ..events import Progress, Work
from ..protocol import Problem
from . import build_cache, durable, forms, layers, records
from .apply import apply
from .comparison import differences
from .records import Layer
from .store import Store

_CHUNK = 1 << 20
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_LEASE = re.compile(r"([0-9a-f]{32}|[0-9a-f]{64})(-[0-9a-z]+)?-[0-9]+-[0-9]+-[0-9a-f]+-[0-9]+\Z")


def verify(store: Store, repair: bool = False, running: Callable[[], set[str]] = set) -> Work[list[Problem]]:
    """What is wrong with the store, [] for nothing.

    :param running: ids of images that running containers stand on: their files are not replaced.
    """
    check = _Check(store, repair, running)
    for step in (check.leases, check.blobs, check.layers, check.images, check.names, check.builds):
        yield from step()
    return check.problems


class _Check:
    def __init__(self, store: Store, repair: bool, running: Callable[[], set[str]]) -> None:
        self.store, self._repair, self._running = store, repair, running
        self.problems: list[Problem] = []
        self._bad_blobs: set[str] = set()
        self._bad_layers: dict[str, str] = {}
        self._seen = 0
        self._holder = f"v{secrets.token_hex(4)}"

    def _say(self, kind: str, what: str, path: str, repair: Callable[[], bool] | None) -> None:
        done = bool(self._repair and repair is not None and repair())
        self.problems.append(Problem(kind, what, path, done))

    # -- leases

    def leases(self) -> Iterator[Progress]:
        self.store.leased()  # those of ended processes go
        for entry in sorted(os.scandir(f"{self.store.root}/leases"), key=lambda entry: entry.name):
            if not _LEASE.match(entry.name):
                self._say("lease", f"lease {entry.name!r} is of nothing", entry.path, partial(_unlink, entry.path))
        yield Progress("leases", self._seen)

    # -- blobs

    def blobs(self) -> Iterator[Progress]:
        for entry in sorted(os.scandir(f"{self.store.root}/blobs/sha256"), key=lambda entry: entry.name):
            digest = hashlib.sha256()
            try:
                with open(entry.path, "rb", 0) as file:
                    while piece := file.read(_CHUNK):
                        digest.update(piece)
                        self._seen += len(piece)
                        yield Progress("blobs", self._seen)
            except FileNotFoundError:
                continue  # removed meanwhile
            except OSError as error:
                digest.update(repr(error).encode())
            if digest.hexdigest() != entry.name:
                self._bad_blobs.add(entry.path)
                what = f"blob {entry.name[:12]} is damaged: its content has the digest {digest.hexdigest()[:12]}"
                self._say("blob", what, entry.path, partial(_unlink, entry.path))

    # -- layers

    def layers(self) -> Iterator[Progress]:
        for entry in sorted(os.scandir(f"{self.store.root}/snapshots"), key=lambda entry: entry.name):
            with self.store.locked(shared=True):
                if not os.path.isdir(entry.path):
                    continue
                self.store.lease(entry.path, self._holder)  # it stays while we look
            try:
                self._layer(entry.path)
            finally:
                self.store.release([entry.path], self._holder)
            self._seen += int(self.store.snapshot(entry.path).get("size") or 0)
            yield Progress("layers", self._seen)

    def _layer(self, folder: str) -> None:
        found = self.store.snapshot(folder)
        layer = _layer(folder, found)
        if layer is None:
            self._bad(folder, f"layer {os.path.basename(folder)[:12]} is damaged: its record cannot be read", None)
            return
        name = f"layer {layer.chain_id[7:19]}"
        try:
            if found.get("packed", True):
                with layers.named_by_paths():
                    for _ in forms.tar_of(self.store, layer):
                        pass
                return
            what = ""
        except (ContainersError, OSError) as error:
            what = error.message if isinstance(error, ContainersError) else f"{error.strerror}: {error.filename}"
        blob = self._blob_of(folder)
        if blob is None and not what:
            hint = f"{name}{self._owners(folder)} came from outside and its blob is gone: it runs, and can be neither checked nor shipped"
            self._say("layer", f"{hint}; pull or load it again", folder, None)
        elif blob is None:
            self._bad(folder, f"{name}{self._owners(folder)} is damaged ({what})", None)
        else:
            self._against(layer, folder, blob, name)

    def _against(self, layer: Layer, folder: str, blob: str, name: str) -> None:
        """Unpack the blob anew, compare, and take that one where they differ."""
        tree = self.store.new_layer()
        try:
            with open(blob, "rb", 0) as file:
                applied = apply(file, tree)
            if applied.diff_id != layer.diff_id:
                self._bad(folder, f"{name}{self._owners(folder)} is damaged: its blob is another layer's", None)
                return
            try:
                first = next(differences(layer.path, tree), "")
            except OSError as error:
                first = f"{error.strerror}: {error.filename}"
            if first:
                what = f"{name}{self._owners(folder)} is damaged: {first}"
                self._bad(folder, what, partial(self._exchange, layer, folder, tree))
        except ContainersError as error:
            self._bad(folder, f"{name}{self._owners(folder)} cannot be unpacked: {error.message}", None)
        finally:
            self.store.discard(tree)

    def _exchange(self, layer: Layer, folder: str, tree: str) -> bool:
        durable.sync_tree(tree)
        with self.store.locked():
            grave = durable.bury(self.store.ingest, layer.path)
            os.rename(tree, layer.path)
            durable.sync_folder(folder)
        durable.empty([grave])
        return True

    def _bad(self, folder: str, what: str, repair: Callable[[], bool] | None) -> None:
        """A layer that is damaged; without ``repair`` it goes, and with it (see :meth:`images`) the images that have it."""
        running = self._running() & self._images_of(folder)
        if running:
            self._say("layer", f"{what}; a running container uses it: stop it, then repair", folder, None)
            return
        if repair is None:
            self._bad_layers[folder] = what
            repair = partial(self._drop, folder)
        self._say("layer", what, folder, repair)

    def _drop(self, folder: str) -> bool:
        with self.store.locked():
            grave = durable.bury(self.store.ingest, folder)
        durable.empty([grave])
        return True

    def _blob_of(self, folder: str) -> str | None:
        paths = (self.store.blob_path(row["digest"]) for row in self.store.blob_rows(folder))
        return next((path for path in paths if path not in self._bad_blobs), None)

    def _images_of(self, folder: str) -> set[str]:
        name = os.path.basename(folder)
        kept = self.store.kept().items()
        return {image for image, record in kept if any(chain[7:].startswith(name) for _, chain, _ in record.layers)}

    def _owners(self, folder: str) -> str:
        found = self._images_of(folder)
        names = sorted(name.familiar for name in self.store.named() if name.image in found) or [image[7:19] for image in sorted(found)]
        return f" of {', '.join(names)}" if names else ""

    # -- images and names

    def images(self) -> Iterator[Progress]:
        for image_id in sorted(self.store.saved()):
            what = self._image(image_id)
            if what and os.path.exists(self.store.manifest_path(image_id)):
                names = ", ".join(sorted(name.familiar for name in self.store.named() if name.image == image_id)) or image_id[7:19]
                path = self.store.manifest_path(image_id)
                text = f"image {names} is damaged: {what}; get it again: %container pull {names}, or build it"
                self._say("image", text, path, partial(self._forget, image_id))
            elif not what:
                self._manifest(image_id)
        yield Progress("images", self._seen)

    def _image(self, image_id: str) -> str:
        record, path = self.store.kept_as(image_id), self.store.blob_path(image_id)
        if record is None:
            return "its record cannot be read"
        if path in self._bad_blobs or not os.path.exists(path):
            return "its config is gone"
        try:
            diffs = records.read_json(path).get("rootfs", {}).get("diff_ids") or []
        except (OSError, ValueError, AttributeError):
            return "its config cannot be read"
        parent = record.host and f"host:{record.host}"
        if diffs and diffs != [row[0] for row in record.layers]:
            return "its record names other layers than its config"
        for diff, chain, size in record.layers:
            parent = layers.chain_id(parent, diff)
            folder = os.path.dirname(self.store.layer_at(chain, diff, size).path)
            if parent != chain:
                return "its record is at odds with itself"
            if not os.path.isdir(f"{folder}/diff") or folder in self._bad_layers:
                return f"layer {chain[7:19]} is {'damaged' if folder in self._bad_layers else 'missing'}"
        return ""

    def _manifest(self, image_id: str) -> None:
        record = self.store.kept_as(image_id)
        if record is None or not record.manifest:
            return
        path = self.store.blob_path(record.manifest)
        try:
            said = records.read_json(path)
            fits = path not in self._bad_blobs and said["config"]["digest"] == image_id
        except (OSError, ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            what = f"the manifest of image {image_id[7:19]} is gone: pushed again, it gets another digest"
            self._say("image", what, path, partial(self._without_manifest, image_id))

    def _without_manifest(self, image_id: str) -> bool:
        with self.store.locked():
            record = self.store.kept_as(image_id)
            if record is not None:
                self.store.write_record(image_id, records.Record(record.layers, record.host, ""))
        return True

    def _forget(self, image_id: str) -> bool:
        with self.store.locked():
            for name in self.store.named():
                if name.image == image_id:
                    _unlink(self.store.reference_path(name.reference))
            _unlink(self.store.manifest_path(image_id))
        return True

    def names(self) -> Iterator[Progress]:
        saved = self.store.saved()
        for entry in sorted(os.scandir(f"{self.store.root}/refs"), key=lambda entry: entry.name):
            try:
                found = records.name_at(entry.path)
                right = entry.path == self.store.reference_path(found.reference)
                what = "" if right and found.image in saved else f"name {found.familiar} leads to no image: pull or build it again"
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError):
                what = f"a name cannot be read ({entry.name[:12]}): tag its image again"
            if what:
                self._say("name", what, entry.path, partial(_unlink, entry.path))
        yield Progress("names", self._seen)

    # -- the build cache

    def builds(self) -> Iterator[Progress]:
        """A step whose layer is gone is simply not known; what cannot be read is damage."""
        for name, reader in (("cache", records.read_json), ("facts", build_cache.read_facts)):
            for entry in sorted(os.scandir(f"{self.store.root}/{name}"), key=lambda entry: entry.name):
                try:
                    right = isinstance(reader(entry.path), dict) and _HEX.match(entry.name.removesuffix(".json"))
                except FileNotFoundError:
                    continue
                except (OSError, ValueError):
                    right = None
                if not right:
                    what = f"a finished step ({name}/{entry.name[:12]}) cannot be read: it runs again"
                    self._say("cache", what, entry.path, partial(_unlink, entry.path))
        for entry in sorted(os.scandir(f"{self.store.root}/cachemounts"), key=lambda entry: entry.name):
            id = build_cache.mount_id(entry.path)
            whole = os.path.isdir(f"{entry.path}/data") and self.store.mount_path(id) == entry.path
            if not whole and os.path.isdir(entry.path):
                what = f"cache mount {id or entry.name[:12]} is not whole: it begins empty"
                self._say("cache", what, entry.path, partial(self._drop_mount, entry.path))
        yield Progress("build cache", self._seen)

    def _drop_mount(self, folder: str) -> bool:
        with self.store.locked():
            with build_cache.taken(folder) as lock:
                if lock is None:
                    return False
            grave = durable.bury(self.store.ingest, folder)
        durable.empty([grave])
        return True


def _layer(folder: str, found: dict[str, Any]) -> Layer | None:
    try:
        diff, chain, size = str(found["diff_id"]), str(found["chain_id"]), int(found["size"])
        right = chain[7:].startswith(os.path.basename(folder)) and layers.chain_id(str(found["parent"]), diff) == chain
    except (KeyError, ValueError, TypeError):
        return None
    return Layer(diff, chain, size, f"{folder}/diff") if right and os.path.isdir(f"{folder}/diff") else None


def _unlink(path: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return True
