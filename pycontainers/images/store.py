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
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..errors import ImageError, NotFound, StateError, UsageError, near
from ..paths import Paths
from ..protocol import ImageHistory, ImageInfo
from . import durable, host, layers, reference
from .view import Rootfs

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
HOST_LABEL = "io.pycontainers.host"
_OWN_LEASE = 600.0  # seconds: a layer that this very process made and put in no image is a failed build's, and may go after that
_LEASE = 86400.0  # the same for other processes, while they live
_FOLDERS = ("blobs/sha256", "manifests", "snapshots", "refs", "cache", "leases", "ingest", "host")

InUse = Iterable[str] | Callable[[], Iterable[str]]
"""Ids of the images that containers use, or what finds them out."""


@dataclass(frozen=True)
class Layer:
    """One layer: ``path`` is its snapshot's folder, ``size`` the bytes of its regular files."""

    diff_id: str
    chain_id: str
    size: int
    path: str


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


class Store:
    """The images of one user. Cheap to make."""

    def __init__(self, where: Paths) -> None:
        self.paths = where
        self.root = str(where.images)
        self.ingest = f"{self.root}/ingest"
        for name in _FOLDERS:
            os.makedirs(f"{self.root}/{name}", mode=0o711, exist_ok=True)

    # -- looking up

    def resolve(self, name: str) -> Image:
        """An image by name, id, or start of an id (four characters at least). :raises NotFound: with near names."""
        try:
            meant = reference.parse(name)
        except UsageError:
            meant = None  # "sha256:…" is no name
        if meant is not None and (word := reference.reserved(meant)):
            return self._host() if word == "host" else self.scratch()
        references = self._references()
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
        references = self._references()
        found = []
        for image_id in self._saved():
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
        shutil.rmtree(os.path.dirname(tree), ignore_errors=True)

    def merge_uppers(self, uppers: dict[str, str], tree: str, rootfs: Rootfs | None = None) -> None:
        """See :func:`.layers.merge_uppers`. ``rootfs`` None: several folders come from a host base only, so this machine's is taken."""
        if rootfs is None:
            rootfs = host.base(self.root).rootfs if len(uppers) > 1 else self.scratch().rootfs
        layers.merge_uppers(uppers, tree, rootfs)

    def commit(self, tree: str, parent_chain: str) -> Layer:
        """Take over a layer's tree as a snapshot. The same content on the same parent gives the snapshot that is there.

        :raises ImageError: the tree holds what a layer cannot (a name that starts with ``.wh.``).
        """
        diff, size = layers.diff_id(tree)
        layer = self._layer_at(layers.chain_id(parent_chain, diff), diff, size)
        folder, building = os.path.dirname(layer.path), os.path.dirname(tree)
        if not os.path.isdir(folder):
            data = _json({"diff_id": diff, "chain_id": layer.chain_id, "size": size, "parent": parent_chain})
            durable.write(self.ingest, f"{building}/layer.json", data)
            durable.sync_tree(tree)
        with self._locked(shared=True):
            self._lease(folder)
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
        with self._locked(shared=True):
            layer = self._cache_entry(self._cache_path(key))
            if layer is not None:
                self._lease(os.path.dirname(layer.path))
        return layer

    def remember(self, key: str, layer: Layer) -> None:
        """Let a build step with this key have this layer from now on."""
        data = _json({"diff_id": layer.diff_id, "chain_id": layer.chain_id, "size": layer.size})
        durable.write(self.ingest, self._cache_path(key), data)

    def save_image(self, config: dict[str, Any], image_layers: list[Layer], host_identity: str) -> Image:
        """Write config and manifest. The same input gives the same id. :raises ImageError: a layer is not in the store any more."""
        data = _canonical(config)
        image_id = _digest(data)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": image_id, "size": len(data)},
            # Layer tars are made from the snapshots when they are shipped: digest and diff id of a plain tar are the same.
            "layers": [{"mediaType": LAYER_TYPE, "digest": layer.diff_id, "size": layer.size} for layer in image_layers],
            "annotations": {HOST_LABEL: host_identity} if host_identity else {},
        }
        rows = [[layer.diff_id, layer.chain_id, layer.size] for layer in image_layers]
        with self._locked(shared=True):
            for layer in image_layers:
                if not os.path.isdir(layer.path):
                    raise ImageError(f"layer {layer.chain_id[7:19]} was removed while the image was built", "build it again")
            if not os.path.exists(self._manifest_path(image_id)):
                self._blob(data)
                self._blob(_canonical(manifest))
                # The image exists from here on; its blobs do already.
                entry = _json({"layers": rows, "host": host_identity, "manifest": manifest})
                durable.write(self.ingest, self._manifest_path(image_id), entry)
            self._release([os.path.dirname(layer.path) for layer in image_layers])
        return self._load(image_id, self._references())

    def tag(self, image_id: str, name: str) -> None:
        """Let ``name`` mean this image from now on. :raises UsageError: not a name. :raises NotFound: no such image."""
        found = reference.check_free(name)
        if not image_id or image_id.startswith("host:"):
            raise ImageError(f"{'host' if image_id else 'the empty image'} cannot be tagged", "build something on it first")
        with self._locked():
            if not os.path.exists(self._manifest_path(image_id)):
                raise NotFound(f"no image {image_id[:19]}", "it was removed: build it again")
            entry = {"host": found.host, "path": found.path, "tag": found.tag}
            data = _json({"reference": entry, "image": image_id, "updated": time.time()})
            durable.write(self.ingest, self._reference_path(found), data)

    def untag(self, name: str) -> None:
        """Take a name away; the image stays. :raises NotFound: no image has it."""
        with self._locked():
            try:
                os.unlink(self._reference_path(reference.parse(name)))
            except FileNotFoundError:
                raise NotFound(f"no image {name!r}", near(name, self._references())) from None

    # -- removing

    def remove(self, name: str, force: bool = False, in_use: InUse = ()) -> list[str]:
        """Take the name away; delete the image when nothing names it any more. Lines that say what was done.

        :param force: also when several names mean it, or a container uses it (it is only untagged then).
        :raises StateError: a container uses the image and it would be deleted.
        """
        image_id = self._removable(name)
        used = set(in_use() if callable(in_use) else in_use)
        graves: list[str] = []
        with self._locked():
            references = self._references()
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
                    os.unlink(self._reference_path(reference.parse(familiar)))
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
        with self._locked():
            named = set(self._references().values())
            said = [self._delete(image_id) for image_id in sorted(self._saved() - named - used)]
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
        image_id = self._references().get(familiar) or self._by_id(name)
        return image_id or self.resolve(name).id

    def _delete(self, image_id: str) -> str:
        """The manifest first: without it the image does not exist, whatever happens next."""
        manifest_blob = ""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            manifest_blob = _digest(_canonical(_read(self._manifest_path(image_id))["manifest"]))
        for path in (self._manifest_path(image_id), self._blob_path(image_id), self._blob_path(manifest_blob)):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(path)
        return f"Deleted: {image_id}"

    def _drop_snapshots(self, graves: list[str]) -> list[str]:
        """Find snapshots that no image, no cache entry and no build refers to. A container keeps its image, and so its layers."""
        needed = self._leased()
        for kept in self._kept():
            needed |= {os.path.dirname(self._layer_at(chain, diff, size).path) for diff, chain, size in kept["layers"]}
        for entry in os.scandir(f"{self.root}/cache"):
            layer = self._cache_entry(entry.path)
            if layer is not None:
                needed.add(os.path.dirname(layer.path))
        gone = sorted(entry.path for entry in os.scandir(f"{self.root}/snapshots") if entry.path not in needed)
        # Renamed here, under the lock: a snapshot that is being emptied must not be found.
        graves += [durable.bury(self.ingest, path) for path in gone]
        return [f"Deleted layer: {os.path.basename(path)}" for path in gone]

    def _drop_blobs(self) -> None:
        """What a process left that was killed between a blob and its manifest."""
        needed = {image_id.removeprefix("sha256:") for image_id in self._saved()}
        needed |= {_digest(_canonical(kept["manifest"])).removeprefix("sha256:") for kept in self._kept()}
        for entry in os.scandir(f"{self.root}/blobs/sha256"):
            if entry.name not in needed:
                os.unlink(entry.path)

    def _drop_hosts(self, used: set[str], graves: list[str]) -> list[str]:
        """Bases of this machine's earlier states. A young one may be what a build stands on."""
        needed = {image.removeprefix("host:") for image in used if image.startswith("host:")}
        needed |= {kept["host"] for kept in self._kept()}
        said = []
        for identity in host.outdated(self.root, _LEASE):
            if identity not in needed:
                graves.append(durable.bury(self.ingest, f"{self.root}/host/{identity}"))
                said.append(f"Deleted host base: {identity}")
        return said

    # -- leases: what a build counts on and no image refers to yet

    def _lease(self, snapshot: str) -> None:
        path = f"{self.root}/leases/{os.path.basename(snapshot)}-{durable.owner()}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.utime(path)

    def _release(self, snapshots: list[str]) -> None:
        me = durable.owner()
        for snapshot in snapshots:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.root}/leases/{os.path.basename(snapshot)}-{me}")

    def _leased(self) -> set[str]:
        """Snapshots under a lease that holds; leases of ended processes and failed builds are removed."""
        found, me, now = set(), durable.owner(), time.time()
        for entry in os.scandir(f"{self.root}/leases"):
            age = now - entry.stat().st_mtime
            if age > (_OWN_LEASE if entry.name.endswith(me) else _LEASE) or durable.abandoned(entry.path):
                os.unlink(entry.path)
            else:
                found.add(f"{self.root}/snapshots/{entry.name.partition('-')[0]}")
        return found

    # -- inside

    def _host(self) -> Image:
        base = host.base(self.root)
        return Image(f"host:{base.identity}", base.config, (), base.identity, base.rootfs, ("host",))

    def _load(self, image_id: str, references: dict[str, str]) -> Image:
        try:
            config = _read(self._blob_path(image_id))
            kept = _read(self._manifest_path(image_id))
        except (FileNotFoundError, ValueError):
            raise ImageError(f"image {image_id[:19]} is damaged: its config or manifest cannot be read", "build it again") from None
        found = tuple(self._layer_at(chain, diff, size) for diff, chain, size in kept["layers"])
        for layer in found:
            if not os.path.isdir(layer.path):
                raise ImageError(f"image {image_id[:19]} is damaged: layer {layer.chain_id[7:19]} is missing", "build it again")
        below = host.rootfs(self.root, kept["host"]) if kept["host"] else self.scratch().rootfs
        stack = Rootfs((*below.layers, *(layer.path for layer in found)), below.folders, below.base)
        names = tuple(sorted(name for name, meant in references.items() if meant == image_id))
        return Image(image_id, config, found, kept["host"], stack, names)

    def _layer_at(self, chain: str, diff: str, size: int) -> Layer:
        return Layer(diff, chain, size, f"{self.root}/snapshots/{chain.rpartition(':')[2][:32]}/diff")

    def _by_id(self, text: str) -> str | None:
        start = text.removeprefix("sha256:").lower()
        if len(start) < 4 or any(c not in "0123456789abcdef" for c in start):
            return None
        found = [image_id for image_id in self._saved() if image_id.removeprefix("sha256:").startswith(start)]
        if len(found) > 1:
            raise ImageError(f"{text!r} is the start of {len(found)} image ids", "give more characters")
        return found[0] if found else None

    def _references(self) -> dict[str, str]:
        """Familiar name -> image id."""
        found = {}
        for entry in os.scandir(f"{self.root}/refs"):
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                data = _read(entry.path)
                found[reference.Reference(**data["reference"]).familiar] = str(data["image"])
        return found

    def _saved(self) -> set[str]:
        return {"sha256:" + entry.name.removesuffix(".json") for entry in os.scandir(f"{self.root}/manifests")}

    def _kept(self) -> list[dict[str, Any]]:
        """What is kept of each image: layers, host, manifest."""
        found = []
        for image_id in self._saved():
            with contextlib.suppress(FileNotFoundError, ValueError):
                found.append(_read(self._manifest_path(image_id)))
        return found

    def _cache_entry(self, path: str) -> Layer | None:
        try:
            found = _read(path)
            layer = self._layer_at(found["chain_id"], found["diff_id"], found["size"])
        except (FileNotFoundError, ValueError, KeyError):
            return None
        return layer if os.path.isdir(layer.path) else None

    def _reference_path(self, found: reference.Reference) -> str:
        return f"{self.root}/refs/{hashlib.sha256(str(found).encode()).hexdigest()[:40]}.json"

    def _blob_path(self, digest: str) -> str:
        return f"{self.root}/blobs/sha256/{digest.removeprefix('sha256:')}"

    def _manifest_path(self, image_id: str) -> str:
        return f"{self.root}/manifests/{image_id.removeprefix('sha256:')}.json"

    def _cache_path(self, key: str) -> str:
        return f"{self.root}/cache/{hashlib.sha256(key.encode()).hexdigest()}.json"

    def _blob(self, data: bytes) -> None:
        path = self._blob_path(_digest(data))
        if not os.path.exists(path):
            durable.write(self.ingest, path, data)

    @contextlib.contextmanager
    def _locked(self, shared: bool = False) -> Iterator[None]:
        """Never nested: each call opens the file anew, and flock(2) orders open files, also those of one process."""
        fd = os.open(f"{self.root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _familiar(name: str) -> str:
    try:
        return reference.parse(name).familiar
    except UsageError:
        return ""


def _read(path: str) -> Any:
    with open(path, "rb") as file:
        return json.loads(file.read())


def _json(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _canonical(data: dict[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _seconds(text: str | None) -> float:
    """Unix seconds of an RFC 3339 time; 0 when there is none."""
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
