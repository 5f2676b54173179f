"""The image store: OCI blobs, snapshots by chain id, references. Several processes at once; any may be killed at any moment.

``blobs/sha256/<hex>``: configs, manifests, and layers as they came or were shipped. ``manifests/<config>.json``: an image and its
layers (:class:`.records.Record`). ``snapshots/<32 hex of chain id>/``: ``diff/``, ``layer.json``, and ``blobs.json`` where the layer is
in ``blobs/`` too. ``refs/``: names. ``cache/``: build steps. ``leases/``: layers and blobs that somebody counts on before an image does.
``host/``: see :mod:`.host`. ``ingest/``: under construction or being removed (see :mod:`.durable`, :mod:`.ingest`).

What is named is whole. The lock is held shared by whoever adds something that refers to something else, and alone by whoever
removes: so nothing goes away between the look and the reference. Nothing slow happens under it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..errors import ImageError, NotFound, UsageError, near
from ..linux import trees
from ..protocol import ImageHistory, ImageInfo, Pruned
from . import build_cache, collect, durable, host, layers, reference
from .build_cache import BuildCache
from .collect import InUse
from .records import Layer, Name, Record, canonical, compact, digest, name_at, read_json
from .view import Rootfs

if TYPE_CHECKING:
    from .descriptor import Descriptor  # a start of a container loads this module, and should not wait for that one

__all__ = ["HOST_LABEL", "Image", "Layer", "Store"]

HOST_LABEL = "io.pycontainers.host"


@dataclass(frozen=True)
class Image:
    """``config`` is the OCI image config; ``host`` the identity of the host base it stands on, "" otherwise."""

    id: str
    config: dict[str, Any]
    layers: tuple[Layer, ...]
    host: str
    rootfs: Rootfs
    names: tuple[str, ...] = field(default=())
    digests: tuple[str, ...] = field(default=())

    @property
    def chain_id(self) -> str:
        """Of the top layer, or of the base."""
        return self.layers[-1].chain_id if self.layers else f"host:{self.host}" if self.host else ""


class Store(BuildCache):
    """The images of one user. Cheap to make."""

    # -- looking up

    def resolve(self, name: str) -> Image:
        """An image by name, name and digest, id, or start of an id (four characters at least). :raises NotFound: with near names."""
        meant = _parsed(name)
        if meant is not None and (word := reference.reserved(meant)):
            return self._host() if word == "host" else self.scratch()
        image_id = self.find(name)
        if image_id is None:
            known = [*(familiar.removesuffix(":latest") for familiar in self.references()), "host"]
            raise NotFound(f"no image {name!r}", near(name, known) or "images lists what is here; host is this machine's own system")
        return self._load(image_id, self.named())

    def find(self, name: str) -> str | None:
        """Id of the image that is meant, whole or not."""
        meant = _parsed(name)
        if meant is None:
            return self._by_id(name)  # "sha256:…" is no name
        if not meant.digest:
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                return name_at(self.reference_path(meant)).image
            return self._by_id(name)
        for found in self.named():
            same = (found.reference.host, found.reference.path) == (meant.host, meant.path)
            if same and meant.digest in (found.digest, found.reference.digest, self._manifest(found.image)):
                return found.image
        return None

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
        names = self.named()
        found = []
        for image_id in self.saved():
            with contextlib.suppress(ImageError):  # resolving it by name or id says what is wrong with it
                found.append(self._load(image_id, names))
        return sorted(found, key=lambda image: (_seconds(image.config.get("created")), image.id), reverse=True)

    def info(self, image: Image) -> ImageInfo:
        return ImageInfo(
            image.id,
            image.names,
            _seconds(image.config.get("created")),
            sum(layer.size for layer in image.layers),
            bool(image.host),
            image.config,
            image.digests,
            tuple(layer.diff_id for layer in image.layers),
            self._manifest(image.id),
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
        digest, tar_size = hashlib.sha256(), 0
        for piece in layers.tar_stream(tree):
            digest.update(piece)
            tar_size += len(piece)
        return self.add_layer(tree, parent_chain, f"sha256:{digest.hexdigest()}", layers.content_size(tree), tar_size=tar_size)

    def add_layer(self, tree: str, parent_chain: str, diff: str, size: int, *, tar_size: int, packed: bool = True,
                  blobs: Sequence[Descriptor] = (), synced: bool = False, holder: str = "") -> Layer:  # fmt: skip
        """The same with what the caller knows: the diff id, bytes of regular files, and of the plain tar.

        :param packed: the layer's tar is what :mod:`.pack` makes of it. :param blobs: what of ``blobs/`` holds it.
        :param synced: the caller has brought the tree to the disk. :param holder: of the lease on it.
        """
        layer = self.layer_at(layers.chain_id(parent_chain, diff), diff, size)
        folder, building = os.path.dirname(layer.path), os.path.dirname(tree)
        with self.locked(shared=True):
            self.lease(folder, holder)  # before it is looked for: what is there stays
        if not os.path.isdir(folder):
            data = {"diff_id": diff, "chain_id": layer.chain_id, "size": size, "parent": parent_chain}
            _write(f"{building}/layer.json", {**data, "tar_size": tar_size, "packed": packed})
            if blobs:
                _write(f"{building}/blobs.json", [blob.json() for blob in blobs])
            if synced:
                durable.sync_files(building)
            else:
                durable.sync_tree(building)
        with self.locked(shared=True):
            self.lease(folder, holder)
            try:
                os.rename(building, folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            else:
                durable.sync_folder(f"{self.root}/snapshots")
                return layer
        self.discard(tree)
        self.add_forms(layer, blobs)
        return layer

    def add_forms(self, layer: Layer, blobs: Sequence[Descriptor]) -> None:
        """These blobs hold this layer, too. They must be there, and leased."""
        folder = os.path.dirname(layer.path)
        with self.locked():
            rows = self.blob_rows(folder)
            new = [blob.json() for blob in blobs if blob.digest not in {row["digest"] for row in rows}]
            if new and os.path.isdir(folder):
                durable.write(self.ingest, f"{folder}/blobs.json", compact([*rows, *new]))

    def leased_layer(self, chain: str, diff: str, holder: str) -> Layer | None:
        """A snapshot that is here, under a lease of ``holder``'s; None where there is none."""
        layer = self.layer_at(chain, diff, 0)
        folder = os.path.dirname(layer.path)
        with self.locked(shared=True):
            size = self.snapshot(folder).get("size")
            if not isinstance(size, int) or not os.path.isdir(layer.path):
                return None
            self.lease(folder, holder)
        return replace(layer, size=size)

    def save_image(self, config: dict[str, Any], image_layers: list[Layer], host_identity: str) -> Image:
        """Write a config of ours and the record. The same input gives the same id. Its manifest is made when it is shipped.

        :raises ImageError: a layer is not in the store any more.
        """
        return self.add_image(canonical(config), image_layers, host_identity)

    def add_image(
        self, config: bytes, image_layers: Sequence[Layer], host_identity: str = "", manifest: bytes = b"", holder: str = ""
    ) -> Image:
        """An image as it came: config and manifest keep their bytes, and so their digests. The record makes it exist.

        :param manifest: b"" for none. It becomes the image's own if it has none, or one of which a layer is missing here.
        :raises ImageError: a layer is not in the store any more.
        """
        image_id = digest(config)
        rows = tuple((layer.diff_id, layer.chain_id, layer.size) for layer in image_layers)
        with self.locked(shared=True):
            for layer in image_layers:
                if not os.path.isdir(layer.path):
                    raise ImageError(f"layer {layer.chain_id[7:19]} was removed while the image was built", "build it again")
            chosen = self._manifest(image_id)
            if manifest and not self.whole(chosen) and (self.whole(manifest) or not chosen):
                chosen = digest(manifest)
                self.add_blob(manifest)
            record = Record(rows, host_identity, chosen)
            self.add_blob(config)
            if self.kept_as(image_id) != record:
                self.write_record(image_id, record)  # the image exists from here on; its blobs do already
            self.release((os.path.dirname(layer.path) for layer in image_layers), holder)
        return self._load(image_id, self.named())

    def whole(self, manifest: str | bytes) -> bool:
        """Whether everything that a manifest (its digest, or its bytes) names is in ``blobs/``: it can be shipped as it is."""
        try:
            data = read_json(self.blob_path(manifest)) if isinstance(manifest, str) else json.loads(manifest)
            return all(os.path.exists(self.blob_path(row["digest"])) for row in data["layers"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def tag(self, image_id: str, name: str | reference.Reference, digest: str = "") -> None:
        """Let ``name`` mean this image from now on.

        :param digest: by which a registry knows it under this name. :raises UsageError: not a name. :raises NotFound: no such image.
        """
        found = reference.check_free(name) if isinstance(name, str) else name
        if not image_id or image_id.startswith("host:"):
            raise ImageError(f"{'host' if image_id else 'the empty image'} cannot be tagged", "build something on it first")
        with self.locked():
            if not os.path.exists(self.manifest_path(image_id)):
                raise NotFound(f"no image {image_id[:19]}", "it was removed: build it again")
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                known = name_at(self.reference_path(found))
                if (known.image, known.digest) == (image_id, digest):
                    return  # what is so already need not be brought to the disk again
            self.write_name(found, image_id, digest)

    def untag(self, name: str) -> None:
        """Take a name away; the image stays. :raises NotFound: no image has it."""
        with self.locked():
            try:
                os.unlink(self.reference_path(reference.parse(name)))
            except FileNotFoundError:
                raise NotFound(f"no image {name!r}", near(name, self.references())) from None

    # -- removing

    def remove(self, name: str, force: bool = False, in_use: InUse = ()) -> Pruned:
        """See :func:`.collect.remove`."""
        return collect.remove(self, name, lambda meant: self.find(meant) or self.resolve(meant).id, force, in_use)

    def prune(self, in_use: InUse = ()) -> Pruned:
        """See :func:`.collect.prune`."""
        return collect.prune(self, in_use)

    def prune_builds(self, all: bool = False, keep_bytes: int | None = None, until: float = 0.0) -> Pruned:
        """See :func:`.collect.prune_builds`."""
        return collect.prune_builds(self, all, keep_bytes, until)

    def bound_cache(self, keep_bytes: int | None = None) -> Pruned:
        """See :func:`.collect.bound_cache`. ``keep_bytes`` None: :func:`.build_cache.limit`."""
        return collect.bound_cache(self, build_cache.limit(self.root) if keep_bytes is None else keep_bytes)

    # -- inside

    def _host(self) -> Image:
        base = host.base(self.root)
        return Image(f"host:{base.identity}", base.config, (), base.identity, base.rootfs, ("host",))

    def _load(self, image_id: str, named: list[Name]) -> Image:
        kept = self.record(image_id)
        try:
            with open(self.blob_path(image_id), "rb") as file:
                config = _view(json.loads(file.read(), object_pairs_hook=_without_nulls), kept.host)
        except (FileNotFoundError, ValueError, AttributeError):
            raise ImageError(f"image {image_id[:19]} is damaged: its config cannot be read", "get or build it again") from None
        found = tuple(self.layer_at(chain, diff, size) for diff, chain, size in kept.layers)
        for layer in found:
            if not os.path.isdir(layer.path):
                raise ImageError(f"image {image_id[:19]} is damaged: layer {layer.chain_id[7:19]} is missing", "get or build it again")
        below = host.rootfs(self.root, kept.host) if kept.host else self.scratch().rootfs
        stack = Rootfs((*below.layers, *(layer.path for layer in found)), below.folders, below.base)
        mine = [name for name in named if name.image == image_id]
        digests = {replace(name.reference, tag="", digest=name.digest).familiar for name in mine if name.digest}
        return Image(image_id, config, found, kept.host, stack, tuple(sorted(name.familiar for name in mine)), tuple(sorted(digests)))

    def _manifest(self, image_id: str) -> str:
        kept = self.kept_as(image_id)
        return kept.manifest if kept is not None else ""

    def _by_id(self, text: str) -> str | None:
        start = text.removeprefix("sha256:").lower()
        if len(start) < 4 or any(c not in "0123456789abcdef" for c in start):
            return None
        found = [image_id for image_id in self.saved() if image_id.removeprefix("sha256:").startswith(start)]
        if len(found) > 1:
            raise ImageError(f"{text!r} is the start of {len(found)} image ids", "give more characters")
        return found[0] if found else None


def _without_nulls(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Go writes null for what is empty; for who reads here it is not there."""
    return {name: value for name, value in pairs if value is not None}


def _view(config: dict[str, Any], host_identity: str) -> dict[str, Any]:
    """A config as it is read. That an image stands on this machine's base is for the record to say, and not for whoever made it."""
    labels = (config.get("config") or {}).get("Labels") or {}
    if labels.get(HOST_LABEL, host_identity) == host_identity:
        return config
    kept = {name: value for name, value in labels.items() if name != HOST_LABEL}
    return {**config, "config": {**config["config"], "Labels": kept}}


def _write(path: str, data: Any) -> None:
    """Into a folder that nobody sees yet, to be synced with it."""
    with open(path, "xb") as file:
        file.write(compact(data))


def _parsed(name: str) -> reference.Reference | None:
    try:
        return reference.parse(name)
    except UsageError:
        return None


def _seconds(text: str | None) -> float:
    """Unix seconds of an RFC 3339 time; 0 when there is none."""
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
