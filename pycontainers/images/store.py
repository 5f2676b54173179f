"""The image store: OCI blobs, snapshots by chain id, references. Several processes at once; any may be killed at any moment.

``blobs/sha256/<hex>``: configs and manifests. ``manifests/<config>.json``: an image and its layers. ``snapshots/<32 hex of
chain id>/``: ``diff/`` and ``layer.json``. ``refs/``: names. ``cache/``: build steps. ``leases/``: layers that a build counts on
before an image does. ``host/``: see :mod:`.host`. ``ingest/``: under construction or being removed (see :mod:`.durable`).

What is named is whole. The lock is held shared by whoever adds something that refers to something else, and alone by whoever
removes: so nothing goes away between the look and the reference. Nothing slow happens under it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..errors import ImageError, NotFound, StateError, UsageError, near
from ..linux import trees
from ..protocol import ImageHistory, ImageInfo
from . import durable, host, layers, reference
from .records import LEASE, Layer, Records, canonical, compact, digest, read_json
from .view import Rootfs

__all__ = ["HOST_LABEL", "Image", "Layer", "Store"]

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
HOST_LABEL = "io.pycontainers.host"
InUse = Iterable[str] | Callable[[], Iterable[str]]
"""Ids of the images that containers use, or what finds them out."""


@dataclass(frozen=True)
class Image:
    """``config`` is the OCI image config; ``host`` the identity of the host base it stands on, "" otherwise."""

    id: str
    config: dict[str, Any]
    layers: tuple[Layer, ...]
    host: str
    rootfs: Rootfs
    names: tuple[str, ...] = field(default=())

    @property
    def chain_id(self) -> str:
        """Of the top layer, or of the base."""
        return self.layers[-1].chain_id if self.layers else f"host:{self.host}" if self.host else ""


class Store(Records):
    """The images of one user. Cheap to make."""

    # -- looking up

    def resolve(self, name: str) -> Image:
        """An image by name, id, or start of an id (four characters at least). :raises NotFound: with near names."""
        try:
            meant = reference.parse(name)
        except UsageError:
            meant = None  # "sha256:…" is no name
        if meant is not None and (word := reference.reserved(meant)):
            return self._host() if word == "host" else self.scratch()
        references = self.references()
        image_id = references.get(meant.familiar) if meant is not None else None
        image_id = image_id or self._by_id(name)
        if image_id is None:
            known = [*(familiar.removesuffix(":latest") for familiar in references), "host"]
            raise NotFound(f"no image {name!r}", near(name, known) or "images lists what is here; host is this machine's own system")
        return self._load(image_id, references)

    def scratch(self) -> Image:
        """The empty image. Not in the store: its id is ""."""
        empty = f"{self.root}/empty"
        if not os.path.isdir(empty):
            with contextlib.suppress(FileExistsError):
                durable.make_folder(empty, 0o755)
        config = {
            "architecture": host.architecture(),
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": []},
            "history": [],
        }
        return Image("", config, (), "", Rootfs((), ("/",), {"/": empty}), ("scratch",))

    def images(self) -> list[Image]:
        """Every whole image, named or not, newest first."""
        references = self.references()
        found = []
        for image_id in self.saved():
            with contextlib.suppress(ImageError):  # resolving it by name or id says what is wrong with it
                found.append(self._load(image_id, references))
        return sorted(found, key=lambda image: (_seconds(image.config.get("created")), image.id), reverse=True)

    def info(self, image: Image) -> ImageInfo:
        return ImageInfo(
            image.id,
            image.names,
            _seconds(image.config.get("created")),
            sum(layer.size for layer in image.layers),
            bool(image.host),
            image.config,
        )

    def history(self, image: Image) -> list[ImageHistory]:
        """Newest first, as ``docker history`` lists it."""
        remaining = list(image.layers)
        rows = []
        for entry in image.config.get("history") or []:
            layer = None if entry.get("empty_layer") else (remaining.pop(0) if remaining else None)
            rows.append(
                ImageHistory(
                    _seconds(entry.get("created")),
                    entry.get("created_by", ""),
                    layer.size if layer else 0,
                    layer is None,
                    layer.diff_id if layer else "",
                )
            )
        return rows[::-1]

    # -- making

    def new_layer(self) -> str:
        """An empty folder for a layer under construction: ``ingest/<random and owner>/diff``."""
        durable.sweep(self.ingest)
        path = f"{self.ingest}/{durable.fresh_name()}"
        durable.make_folder(path, 0o711)
        durable.make_folder(f"{path}/diff", 0o755)
        return f"{path}/diff"

    def discard(self, tree: str) -> None:
        """Give up a layer that :meth:`new_layer` began."""
        trees.remove(os.path.dirname(tree))

    def merge_uppers(self, uppers: dict[str, str], tree: str, rootfs: Rootfs | None = None) -> None:
        """See :func:`.layers.merge_uppers`. ``rootfs`` None: several folders come from a host base only, so this machine's is taken."""
        if rootfs is None:
            rootfs = host.base(self.root).rootfs if len(uppers) > 1 else self.scratch().rootfs
        layers.merge_uppers(uppers, tree, rootfs)

    @layers.named_by_paths()
    def commit(self, tree: str, parent_chain: str) -> Layer:
        """Take over a layer's tree as a snapshot. The same content on the same parent gives the snapshot that is there.

        :raises ImageError: the tree holds what a layer cannot (a name that starts with ``.wh.``, a path that is too long).
        """
        diff, size = layers.diff_id(tree)
        layer = self.layer_at(layers.chain_id(parent_chain, diff), diff, size)
        folder, building = os.path.dirname(layer.path), os.path.dirname(tree)
        if not os.path.isdir(folder):
            data = compact({"diff_id": diff, "chain_id": layer.chain_id, "size": size, "parent": parent_chain})
            durable.write(self.ingest, f"{building}/layer.json", data)
            durable.sync_tree(tree)
        with self.locked(shared=True):
            self.lease(folder)
            try:
                os.rename(building, folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            else:
                durable.sync_folder(f"{self.root}/snapshots")
                return layer
        self.discard(tree)
        return layer

    def cached(self, key: str) -> Layer | None:
        """The layer that a build step with this key made, if it is still here. It stays until this build has saved its image."""
        with self.locked(shared=True):
            layer = self.cache_entry(self.cache_path(key))
            if layer is not None:
                self.lease(os.path.dirname(layer.path))
        return layer

    def remember(self, key: str, layer: Layer) -> None:
        """Let a build step with this key have this layer from now on."""
        data = compact({"diff_id": layer.diff_id, "chain_id": layer.chain_id, "size": layer.size})
        durable.write(self.ingest, self.cache_path(key), data)

    def save_image(self, config: dict[str, Any], image_layers: list[Layer], host_identity: str) -> Image:
        """Write config and manifest. The same input gives the same id. :raises ImageError: a layer is not in the store any more."""
        data = canonical(config)
        image_id = digest(data)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": image_id, "size": len(data)},
            # Layer tars are made from the snapshots when they are shipped: digest and diff id of a plain tar are the same.
            "layers": [{"mediaType": LAYER_TYPE, "digest": layer.diff_id, "size": layer.size} for layer in image_layers],
            "annotations": {HOST_LABEL: host_identity} if host_identity else {},
        }
        rows = [[layer.diff_id, layer.chain_id, layer.size] for layer in image_layers]
        with self.locked(shared=True):
            for layer in image_layers:
                if not os.path.isdir(layer.path):
                    raise ImageError(f"layer {layer.chain_id[7:19]} was removed while the image was built", "build it again")
            if not os.path.exists(self.manifest_path(image_id)):
                self.add_blob(data)
                self.add_blob(canonical(manifest))
                # The image exists from here on; its blobs do already.
                entry = compact({"layers": rows, "host": host_identity, "manifest": manifest})
                durable.write(self.ingest, self.manifest_path(image_id), entry)
            self.release([os.path.dirname(layer.path) for layer in image_layers])
        return self._load(image_id, self.references())

    def tag(self, image_id: str, name: str) -> None:
        """Let ``name`` mean this image from now on. :raises UsageError: not a name. :raises NotFound: no such image."""
        found = reference.check_free(name)
        if not image_id or image_id.startswith("host:"):
            raise ImageError(f"{'host' if image_id else 'the empty image'} cannot be tagged", "build something on it first")
        with self.locked():
            if not os.path.exists(self.manifest_path(image_id)):
                raise NotFound(f"no image {image_id[:19]}", "it was removed: build it again")
            entry = {"host": found.host, "path": found.path, "tag": found.tag}
            data = compact({"reference": entry, "image": image_id, "updated": time.time()})
            durable.write(self.ingest, self.reference_path(found), data)

    def untag(self, name: str) -> None:
        """Take a name away; the image stays. :raises NotFound: no image has it."""
        with self.locked():
            try:
                os.unlink(self.reference_path(reference.parse(name)))
            except FileNotFoundError:
                raise NotFound(f"no image {name!r}", near(name, self.references())) from None

    # -- removing

    def remove(self, name: str, force: bool = False, in_use: InUse = ()) -> list[str]:
        """Take the name away; delete the image when nothing names it any more. Lines that say what was done.

        :param force: also when several names mean it, or a container uses it (it is only untagged then).
        :raises StateError: a container uses the image and it would be deleted.
        """
        image_id = self._removable(name)
        used = set(in_use() if callable(in_use) else in_use)
        graves: list[str] = []
        with self.locked():
            references = self.references()
            names = sorted(familiar for familiar, meant in references.items() if meant == image_id)
            by_name = _familiar(name) in names
            gone = [_familiar(name)] if by_name else names
            last = set(names) <= set(gone)
            if not by_name and len(names) > 1 and not force:
                raise StateError(f"image {image_id[7:19]} has {len(names)} names", "remove it by name, or use force: rmi -f")
            if last and image_id in used and not force:
                hint = "remove the container first, or use force: rmi -f (untags alone)"
                raise StateError(f"image {name!r} is used by a container", hint)
            for familiar in gone:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.reference_path(reference.parse(familiar)))
            said = [f"Untagged: {familiar}" for familiar in gone]
            if last and image_id not in used:
                said.append(self._delete(image_id))
                said += self._drop_snapshots(graves)
        durable.empty(graves)
        return said

    def prune(self, in_use: InUse = ()) -> list[str]:
        """Delete images without a name that no container uses, the build cache, and layers and host bases that nothing needs."""
        durable.sweep(self.ingest)
        used = set(in_use() if callable(in_use) else in_use)
        graves: list[str] = []
        with self.locked():
            named = set(self.references().values())
            said = [self._delete(image_id) for image_id in sorted(self.saved() - named - used)]
            for entry in os.scandir(f"{self.root}/cache"):
                os.unlink(entry.path)
            said += self._drop_snapshots(graves)
            self._drop_blobs()
            said += self._drop_hosts(used, graves)
        durable.empty(graves)
        return said

    def _removable(self, name: str) -> str:
        """Id of the image that is meant, also of a damaged one."""
        familiar = _familiar(name)
        if familiar in ("host:latest", "scratch:latest"):
            raise StateError(f"image {name!r} cannot be removed", "it is this machine's own system" if "host" in name else "it is empty")
        image_id = self.references().get(familiar) or self._by_id(name)
        return image_id or self.resolve(name).id

    def _delete(self, image_id: str) -> str:
        """The manifest first: without it the image does not exist, whatever happens next."""
        manifest_blob = ""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            manifest_blob = digest(canonical(read_json(self.manifest_path(image_id))["manifest"]))
        for path in (self.manifest_path(image_id), self.blob_path(image_id), self.blob_path(manifest_blob)):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(path)
        return f"Deleted: {image_id}"

    def _drop_snapshots(self, graves: list[str]) -> list[str]:
        """Find snapshots that no image, no cache entry and no build refers to. A container keeps its image, and so its layers."""
        needed = self.leased()
        for kept in self.kept():
            needed |= {os.path.dirname(self.layer_at(chain, diff, size).path) for diff, chain, size in kept["layers"]}
        for entry in os.scandir(f"{self.root}/cache"):
            layer = self.cache_entry(entry.path)
            if layer is not None:
                needed.add(os.path.dirname(layer.path))
        gone = sorted(entry.path for entry in os.scandir(f"{self.root}/snapshots") if entry.path not in needed)
        # Renamed here, under the lock: a snapshot that is being emptied must not be found.
        graves += [durable.bury(self.ingest, path) for path in gone]
        return [f"Deleted layer: {os.path.basename(path)}" for path in gone]

    def _drop_blobs(self) -> None:
        """What a process left that was killed between a blob and its manifest."""
        needed = {image_id.removeprefix("sha256:") for image_id in self.saved()}
        needed |= {digest(canonical(kept["manifest"])).removeprefix("sha256:") for kept in self.kept()}
        for entry in os.scandir(f"{self.root}/blobs/sha256"):
            if entry.name not in needed:
                os.unlink(entry.path)

    def _drop_hosts(self, used: set[str], graves: list[str]) -> list[str]:
        """Bases of this machine's earlier states. A young one may be what a build stands on."""
        needed = {image.removeprefix("host:") for image in used if image.startswith("host:")}
        needed |= {kept["host"] for kept in self.kept()}
        said = []
        for identity in host.outdated(self.root, LEASE):
            if identity not in needed:
                graves.append(durable.bury(self.ingest, f"{self.root}/host/{identity}"))
                said.append(f"Deleted host base: {identity}")
        return said

    # -- inside

    def _host(self) -> Image:
        base = host.base(self.root)
        return Image(f"host:{base.identity}", base.config, (), base.identity, base.rootfs, ("host",))

    def _load(self, image_id: str, references: dict[str, str]) -> Image:
        try:
            config = read_json(self.blob_path(image_id))
            kept = read_json(self.manifest_path(image_id))
        except (FileNotFoundError, ValueError):
            raise ImageError(f"image {image_id[:19]} is damaged: its config or manifest cannot be read", "build it again") from None
        found = tuple(self.layer_at(chain, diff, size) for diff, chain, size in kept["layers"])
        for layer in found:
            if not os.path.isdir(layer.path):
                raise ImageError(f"image {image_id[:19]} is damaged: layer {layer.chain_id[7:19]} is missing", "build it again")
        below = host.rootfs(self.root, kept["host"]) if kept["host"] else self.scratch().rootfs
        stack = Rootfs((*below.layers, *(layer.path for layer in found)), below.folders, below.base)
        names = tuple(sorted(name for name, meant in references.items() if meant == image_id))
        return Image(image_id, config, found, kept["host"], stack, names)

    def _by_id(self, text: str) -> str | None:
        start = text.removeprefix("sha256:").lower()
        if len(start) < 4 or any(c not in "0123456789abcdef" for c in start):
            return None
        found = [image_id for image_id in self.saved() if image_id.removeprefix("sha256:").startswith(start)]
        if len(found) > 1:
            raise ImageError(f"{text!r} is the start of {len(found)} image ids", "give more characters")
        return found[0] if found else None

def _familiar(name: str) -> str:
    try:
        return reference.parse(name).familiar
    except UsageError:
        return ""


def _seconds(text: str | None) -> float:
    """Unix seconds of an RFC 3339 time; 0 when there is none."""
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
