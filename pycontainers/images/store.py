"""The image store: OCI blobs, snapshots by chain id, references. Several processes at once; any may be killed at any moment.

``blobs/sha256/<hex>``: configs and manifests. ``manifests/<config>.json``: an image and its layers. ``snapshots/<32 hex of
chain id>/``: ``diff/`` and ``layer.json``. ``refs/``: names. ``cache/``: build steps. ``host/``: see :mod:`.host`. ``ingest/``:
under construction. What is named is whole: everything is made in ``ingest`` or a temporary file, synced, and renamed. A file
lock orders changes of references and removals.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..errors import ImageError, NotFound, StateError, near
from ..linux import process
from ..paths import Paths
from ..protocol import ImageHistory, ImageInfo
from . import host, layers, reference
from .view import Rootfs

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
HOST_LABEL = "io.pycontainers.host"


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
        for name in ("blobs/sha256", "manifests", "snapshots", "refs", "cache", "ingest", "host"):
            os.makedirs(f"{self.root}/{name}", mode=0o711, exist_ok=True)

    # -- looking up

    def resolve(self, name: str) -> Image:
        """An image by name, id, or start of an id (four characters at least). :raises NotFound: with near names."""
        if name == "host":
            return self._host()
        if name == "scratch":
            return self.scratch()
        image_id = self._by_name(name) or self._by_id(name)
        if image_id is None:
            known = [reference.Reference(**ref["reference"]).familiar.removesuffix(":latest") for ref in self._references()]
            raise NotFound(
                f"no image {name!r}", near(name, [*known, "host"]) or "images lists what is here; host is this machine's own system"
            )
        return self._load(image_id)

    def scratch(self) -> Image:
        empty = f"{self.root}/empty"
        os.makedirs(empty, mode=0o755, exist_ok=True)
        config = {
            "architecture": host.architecture(),
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": []},
            "history": [],
        }
        return Image("", config, (), "", Rootfs((), ("/",), {"/": empty}), ("scratch",))

    def images(self) -> list[Image]:
        """Every named or built image, newest first. ``host`` is listed as soon as it was used."""
        found = [self._load(image_id) for image_id in {*(ref["image"] for ref in self._references()), *self._untagged()}]
        return sorted(found, key=lambda image: str(image.config.get("created", "")), reverse=True)

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
        """An empty folder for a layer under construction; its name says who works on it, so that a sweep spares it."""
        self._sweep()
        me = process.identity(os.getpid())
        path = f"{self.root}/ingest/{secrets.token_hex(8)}-{me['pid']}-{me['start']}"
        os.mkdir(path, 0o711)
        os.mkdir(f"{path}/diff", 0o755)
        return f"{path}/diff"

    def discard(self, tree: str) -> None:
        shutil.rmtree(os.path.dirname(tree), ignore_errors=True)

    def commit(self, tree: str, parent_chain: str) -> Layer:
        """Take over a layer's tree as a snapshot. The same content on the same parent gives the snapshot that is there."""
        diff, size = layers.diff_id(tree)
        layer = self._layer_at(layers.chain_id(parent_chain, diff), diff, size)
        folder, ingest = os.path.dirname(layer.path), os.path.dirname(tree)
        if not os.path.exists(folder):
            _write(f"{ingest}/layer.json", {"diff_id": diff, "chain_id": layer.chain_id, "size": size})
            os.sync() if size > 64 << 20 else _sync_tree(tree)
            try:
                os.rename(ingest, folder)
                _sync_folder(f"{self.root}/snapshots")
                return layer
            except OSError:
                if not os.path.exists(folder):
                    raise
        self.discard(tree)
        return layer

    def merge_uppers(self, uppers: dict[str, str], tree: str) -> None:
        layers.merge_uppers(uppers, tree)

    def cached(self, key: str) -> Layer | None:
        """The layer that a build step with this key made, if it is still here."""
        try:
            with open(self._cache_path(key), "rb") as file:
                found = json.loads(file.read())
        except (FileNotFoundError, ValueError):
            return None
        layer = self._layer_at(found["chain_id"], found["diff_id"], found["size"])
        return layer if os.path.isdir(layer.path) else None

    def remember(self, key: str, layer: Layer) -> None:
        _write(self._cache_path(key), {"diff_id": layer.diff_id, "chain_id": layer.chain_id, "size": layer.size})

    def save_image(self, config: dict[str, Any], image_layers: list[Layer], host_identity: str) -> Image:
        """Write config and manifest. The same input gives the same id."""
        data = _canonical(config)
        image_id = self._blob(data)
        if not os.path.exists(self._manifest_path(image_id)):
            manifest = {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {"mediaType": CONFIG_TYPE, "digest": image_id, "size": len(data)},
                # Layer tars are made from the snapshots when they are shipped: digest and diff id of a plain tar are the same.
                "layers": [{"mediaType": LAYER_TYPE, "digest": layer.diff_id, "size": layer.size} for layer in image_layers],
                "annotations": {HOST_LABEL: host_identity} if host_identity else {},
            }
            self._blob(_canonical(manifest))
            _write(
                self._manifest_path(image_id),
                {
                    "layers": [[layer.diff_id, layer.chain_id, layer.size] for layer in image_layers],
                    "host": host_identity,
                    "manifest": manifest,
                },
            )
        return self._load(image_id)

    def tag(self, image_id: str, name: str) -> None:
        """Let ``name`` mean this image from now on. :raises UsageError: not a name."""
        found = reference.check_free(name)
        if not image_id:
            raise ImageError("the empty image cannot be tagged", "build something on it first")
        with self._locked():
            _write(
                self._reference_path(found),
                {"reference": {"host": found.host, "path": found.path, "tag": found.tag}, "image": image_id, "updated": time.time()},
            )

    # -- removing

    def remove(self, name: str, force: bool = False, in_use: Iterable[str] = ()) -> list[str]:
        """Take the name away; delete the image when nothing names it any more. Lines that say what was done.

        :raises StateError: a container uses the image and it would be deleted.
        """
        if name in reference.RESERVED:
            raise StateError(f"image {name!r} cannot be removed", "it is this machine's own system" if name == "host" else "it is empty")
        image = self.resolve(name)
        with self._locked():
            by_name = self._by_name(name)
            gone = [reference.parse(name).familiar] if by_name else list(image.names)
            last = set(image.names) <= set(gone)
            if not by_name and len(image.names) > 1 and not force:
                raise StateError(f"image {image.id[7:19]} has {len(image.names)} names", "remove it by name, or use force: rmi -f")
            if last and image.id in set(in_use) and not force:
                raise StateError(
                    f"image {name!r} is used by a container", "remove the container first, or use force: rmi -f (untags alone)"
                )
            for familiar in gone:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._reference_path(reference.parse(familiar)))
            said = [f"Untagged: {familiar}" for familiar in gone]
            if last and image.id not in set(in_use):
                said += self._delete(image)
        return said

    def prune(self, in_use: Iterable[str] = ()) -> list[str]:
        """Delete images without a name that no container uses, and cache entries and snapshots that nothing needs."""
        with self._locked():
            said = []
            for image_id in self._untagged() - set(in_use):
                said += self._delete(self._load(image_id), snapshots=False)
            for name in os.listdir(f"{self.root}/cache"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self.root}/cache/{name}")
            return said + self._drop_snapshots()

    def _delete(self, image: Image, snapshots: bool = True) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._manifest_path(image.id))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._blob_path(image.id))
        return [f"Deleted: {image.id}", *(self._drop_snapshots() if snapshots else [])]

    def _drop_snapshots(self) -> list[str]:
        """Snapshots that no image and no cache entry refers to. A container keeps its image, and so its layers."""
        needed = {os.path.dirname(layer.path) for image_id in self._saved() for layer in self._load(image_id).layers}
        for name in os.listdir(f"{self.root}/cache"):
            layer = self.cached(name.removesuffix(".json"))
            if layer is not None:
                needed.add(os.path.dirname(layer.path))
        said = []
        for name in os.listdir(f"{self.root}/snapshots"):
            path = f"{self.root}/snapshots/{name}"
            if path not in needed:
                grave = f"{self.root}/ingest/{name}-0-0"
                os.rename(path, grave)
                shutil.rmtree(grave, ignore_errors=True)
                said.append(f"Deleted layer: {name}")
        return said

    # -- inside

    def _host(self) -> Image:
        base = host.base(self.root)
        return Image(f"host:{base.identity}", base.config, (), base.identity, base.rootfs, ("host",))

    def _load(self, image_id: str) -> Image:
        try:
            with open(self._blob_path(image_id), "rb") as file:
                config = json.loads(file.read())
            with open(self._manifest_path(image_id), "rb") as file:
                kept = json.loads(file.read())
        except (FileNotFoundError, ValueError):
            raise ImageError(f"image {image_id[:19]} is damaged: its config or manifest cannot be read", "build it again") from None
        found = tuple(self._layer_at(chain, diff, size) for diff, chain, size in kept["layers"])
        for layer in found:
            if not os.path.isdir(layer.path):
                raise ImageError(f"image {image_id[:19]} is damaged: layer {layer.chain_id[7:19]} is missing", "build it again")
        below = host.rootfs(self.root, kept["host"]) if kept["host"] else self.scratch().rootfs
        stack = Rootfs((*below.layers, *(layer.path for layer in found)), below.folders, below.base)
        names = tuple(sorted(reference.Reference(**ref["reference"]).familiar for ref in self._references() if ref["image"] == image_id))
        return Image(image_id, config, found, kept["host"], stack, names)

    def _layer_at(self, chain: str, diff: str, size: int) -> Layer:
        return Layer(diff, chain, size, f"{self.root}/snapshots/{chain.rpartition(':')[2][:32]}/diff")

    def _by_name(self, name: str) -> str | None:
        try:
            path = self._reference_path(reference.parse(name))
            with open(path, "rb") as file:
                return str(json.loads(file.read())["image"])
        except (FileNotFoundError, ValueError, KeyError):
            return None
        except Exception as error:
            if type(error).__name__ == "UsageError":
                return None  # not a name: perhaps an id
            raise

    def _by_id(self, text: str) -> str | None:
        start = text.removeprefix("sha256:").lower()
        if len(start) < 4 or any(c not in "0123456789abcdef" for c in start):
            return None
        found = [image_id for image_id in self._saved() if image_id.removeprefix("sha256:").startswith(start)]
        if len(found) > 1:
            raise ImageError(f"{text!r} is the start of {len(found)} image ids", "give more characters")
        return found[0] if found else None

    def _references(self) -> list[dict[str, Any]]:
        found = []
        for name in os.listdir(f"{self.root}/refs"):
            if name.endswith(".json"):
                with contextlib.suppress(FileNotFoundError, ValueError), open(f"{self.root}/refs/{name}", "rb") as file:
                    found.append(json.loads(file.read()))
        return found

    def _saved(self) -> set[str]:
        return {"sha256:" + name.removesuffix(".json") for name in os.listdir(f"{self.root}/manifests") if name.endswith(".json")}

    def _untagged(self) -> set[str]:
        return self._saved() - {ref["image"] for ref in self._references()}

    def _reference_path(self, found: reference.Reference) -> str:
        return f"{self.root}/refs/{hashlib.sha256(str(found).encode()).hexdigest()[:40]}.json"

    def _blob_path(self, digest: str) -> str:
        return f"{self.root}/blobs/sha256/{digest.removeprefix('sha256:')}"

    def _manifest_path(self, image_id: str) -> str:
        return f"{self.root}/manifests/{image_id.removeprefix('sha256:')}.json"

    def _cache_path(self, key: str) -> str:
        return f"{self.root}/cache/{hashlib.sha256(key.encode()).hexdigest()}.json"

    def _blob(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if not os.path.exists(self._blob_path(digest)):
            _write_bytes(self._blob_path(digest), data)
        return digest

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(f"{self.root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _sweep(self) -> None:
        """Drop what killed processes had under construction."""
        for name in os.listdir(f"{self.root}/ingest"):
            _, pid, start = name.rsplit("-", 2)
            try:
                if process.start_time(int(pid)) == int(start):
                    continue
            except (ProcessLookupError, ValueError):
                pass
            shutil.rmtree(f"{self.root}/ingest/{name}", ignore_errors=True)


def _canonical(data: dict[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _seconds(text: str | None) -> float:
    """Unix seconds of an RFC 3339 time; 0 when there is none."""
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def _write(path: str, data: dict[str, Any]) -> None:
    _write_bytes(path, json.dumps(data, separators=(",", ":")).encode())


def _write_bytes(path: str, data: bytes) -> None:
    """Temporary file → fsync → rename → fsync of the folder: after any crash the file is whole or not there."""
    temporary = f"{os.path.dirname(path)}/.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)


def _sync_tree(tree: str) -> None:
    """fsync every file of a small layer; large ones are synced with the whole file system."""
    for folder, _, names in os.walk(tree):
        for name in names:
            path = f"{folder}/{name}"
            if os.path.isfile(path) and not os.path.islink(path):
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                os.fsync(fd)
                os.close(fd)
        _sync_folder(folder)


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
