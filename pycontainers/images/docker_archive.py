"""Archives of ``docker save``, and of podman's and skopeo's ``docker-archive``: ``manifest.json`` names configs and layers.

Read are the forms since Docker 1.10: layers as ``<id>/layer.tar`` (links among them where images share one), ``<digest>.tar``, or in
``blobs/sha256``; compressed or not. Written is today's: an OCI layout with a ``manifest.json`` beside its ``index.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from typing import Any, BinaryIO

from ..errors import ImageError, UsageError
from . import archives, manifest, reference
from .archives import Found, Place
from .compression import kind_of
from .descriptor import OCI_CONFIG, OCI_LAYER, Descriptor, Platform
from .manifest import Manifest
from .oci_layout import ArchiveTarget
from .source import Reader

_CHUNK = 1 << 20
_LIST_SIZE = 8 << 20  # bytes of manifest.json
_SUFFIX = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}


def is_docker_archive(place: Place) -> bool:
    return place.has("manifest.json")


def images(place: Place) -> list[Found]:
    """What ``manifest.json`` names. :raises ImageError: it is malformed."""
    try:
        rows = json.loads(archives.read(place, "manifest.json", _LIST_SIZE))
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{place.name}: manifest.json is not valid JSON: {error!s:.100}", "make the archive again") from None
    if not isinstance(rows, list) or not rows:
        raise ImageError(f"{place.name}: manifest.json is no list of images", "make the archive again")
    return [Found(DockerSource(place, *_row(place, row)), tuple(_names(place, row))) for row in rows]


def _row(place: Place, row: Any) -> tuple[str, list[str]]:
    config, layers = (row.get("Config"), row.get("Layers") or []) if isinstance(row, dict) else (None, None)
    if not isinstance(config, str) or not isinstance(layers, list) or not all(isinstance(path, str) for path in layers):
        raise ImageError(f"{place.name}: manifest.json has a row without Config or Layers: {row!r:.80}", "make the archive again")
    return config, layers


def _names(place: Place, row: dict[str, Any]) -> list[str]:
    tags = row.get("RepoTags") or []
    if not isinstance(tags, list):
        raise ImageError(f"{place.name}: manifest.json: RepoTags is {tags!r:.60}, not a list", "make the archive again")
    found = []
    for tag in tags:
        with contextlib.suppress(UsageError):
            found.append(reference.parse(str(tag)).familiar)
    return found


class DockerSource:
    """One image of an archive. Its manifest is made here: the archive has none. See :class:`.source.Source`."""

    def __init__(self, place: Place, config: str, layers: list[str]) -> None:
        self._place, self._config, self._layers = place, config, layers
        self._paths: dict[str, str] = {}

    @property
    def name(self) -> str:
        return self._place.name

    def manifest(self, platform: Platform) -> Manifest:
        """The archive has one image for one platform."""
        data = archives.read(self._place, self._config, manifest.CONFIG_SIZE)
        diff_ids = manifest.config(data, len(self._layers))["rootfs"]["diff_ids"]
        rows = [self._layer(path, diff) for path, diff in zip(self._layers, diff_ids, strict=True)]
        return manifest.make(Descriptor(OCI_CONFIG, manifest.digest(data), len(data)), rows)

    def _layer(self, path: str, diff: str) -> Descriptor:
        """A plain layer's digest is its diff id, which is verified when it is unpacked; that of a compressed one nobody has said."""
        size = self._place.size(path)
        with contextlib.closing(self._place.open(path)) as file:
            piece = file.read(_CHUNK)
            kind, digest = kind_of(piece[:10]), diff
            if kind not in _SUFFIX:
                raise ImageError(f"{self.name}: {path} is compressed by {kind}", "gzip, zstd or none")
            if kind != "none":
                counted = hashlib.sha256(piece)
                while piece := file.read(_CHUNK):
                    counted.update(piece)
                digest = f"sha256:{counted.hexdigest()}"
        self._paths[digest] = path
        return Descriptor(OCI_LAYER + _SUFFIX[kind], digest, size)

    def config(self, manifest_: Manifest) -> bytes:
        return archives.read(self._place, self._config, manifest.CONFIG_SIZE)

    def open(self, blob: Descriptor, offset: int = 0) -> Reader:
        return self._place.open(self._paths[blob.digest], offset)

    def close(self) -> None:
        """The place is shared by all images in it, and closed by who opened it."""


class DockerTarget(ArchiveTarget):
    """What ``docker load``, ``podman load`` and skopeo read, old ones and new. Layers are plain: old readers unpack no others."""

    plain = True

    def __init__(self, output: BinaryIO, name: str) -> None:
        super().__init__(output, name)
        self._images: list[dict[str, Any]] = []

    def finish(self, manifest: Manifest, names: Sequence[str]) -> None:
        super().finish(manifest, names)
        row = {
            "Config": f"blobs/sha256/{manifest.config.hex}",
            "RepoTags": [reference.parse(name).familiar for name in names],
            "Layers": [f"blobs/sha256/{layer.hex}" for layer in manifest.layers],
        }
        self._images.append(row)

    def end(self) -> int:
        self.tar.data("manifest.json", json.dumps(self._images, separators=(",", ":"), ensure_ascii=False).encode())
        return super().end()
