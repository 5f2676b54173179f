"""OCI image layouts (image-spec: image-layout.md), as folders and as archives: ``index.json`` names manifests, ``blobs/`` has the rest."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any, BinaryIO

from ..errors import ImageError, NotFound, UsageError
from . import archives, durable, manifest, reference
from .archives import Found, Place
from .descriptor import CONFIGS, INDEXES, MANIFESTS, OCI_INDEX, Descriptor, Platform
from .manifest import Index, Manifest
from .source import Reader
from .tar_writer import TarWriter

_CHUNK = 1 << 20
REF_NAME, IMAGE_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_DEPTH = 4  # indexes in indexes


def is_layout(place: Place) -> bool:
    return place.has("index.json") and place.has("oci-layout")


def images(place: Place, platform: Platform) -> list[Found]:
    """What ``index.json`` names. Manifests with the same name (or none) for several platforms are one image.

    :raises ImageError: it is malformed. :raises NotFound: nothing in it is for the platform.
    """
    index = manifest.parse(archives.read(place, "index.json", manifest.MANIFEST_SIZE))
    if not isinstance(index, Index):
        raise ImageError(f"{place.name}: index.json is a manifest, not an index", "make the layout again")
    groups: dict[tuple[str, ...], list[Descriptor]] = {}
    for row in index.images():
        if row.media_type in INDEXES | MANIFESTS:  # others' artifacts are no images
            key = _names(row) or (("",) if row.platform is not None else (f"@{row.digest}",))
            groups.setdefault(key, []).append(row)
    found = []
    for key, rows in groups.items():
        chosen = rows[0] if len(rows) == 1 else Index(tuple(rows), {}, OCI_INDEX, index.raw, index.digest).choose(platform)
        found.append(Found(LayoutSource(place, chosen), tuple(name for name in key if name and name[0] != "@")))
    if not found:
        raise ImageError(f"{place.name} holds no image", "its index.json names none")
    return found


def _names(row: Descriptor) -> tuple[str, ...]:
    """The specification's annotation is a name, or a tag alone, which names nothing unless containerd's says of what."""
    tag, whole = row.annotations.get(REF_NAME, ""), row.annotations.get(IMAGE_NAME, "")
    with contextlib.suppress(UsageError):
        if "/" in tag or ":" in tag:
            return (reference.parse(tag).familiar,)
        if whole:
            found = reference.parse(whole)
            # umoci copies what it does not know to the image that it makes under another tag.
            return ((reference.parse(f"{found.host}/{found.path}:{tag}") if tag else found).familiar,)
    return ()


class LayoutSource:
    """One image of a layout. See :class:`.source.Source`."""

    def __init__(self, place: Place, chosen: Descriptor, configs: Collection[str] = CONFIGS) -> None:
        self._place, self._chosen, self._configs = place, chosen, configs

    @property
    def name(self) -> str:
        return self._place.name

    def manifest(self, platform: Platform) -> Manifest:
        chosen = self._chosen
        for _ in range(_DEPTH):
            found = manifest.parse(self._blob(chosen, manifest.MANIFEST_SIZE), chosen.media_type, self._configs)
            if isinstance(found, Manifest):
                return found
            chosen = found.choose(platform)
        raise ImageError(f"{self.name}: {chosen.digest[:19]} is an index in an index in an index", f"{_DEPTH} levels at most")

    def config(self, manifest_: Manifest) -> bytes:
        return self._blob(manifest_.config, manifest.CONFIG_SIZE)

    def open(self, blob: Descriptor, offset: int = 0) -> Reader:
        return self._place.open(_path(blob), offset)

    def close(self) -> None:
        """The place is shared by all images in it, and closed by who opened it."""

    def _blob(self, blob: Descriptor, limit: int) -> bytes:
        try:
            data = archives.read(self._place, _path(blob), limit)
        except NotFound as error:
            raise NotFound(error.message, "the layout holds other platforms alone, or is not whole") from None
        if manifest.digest(data) != blob.digest:
            raise ImageError(f"{self.name}: blob {blob.short} is damaged: its digest is {manifest.digest(data)[:19]}", "make it again")
        return data


def _path(blob: Descriptor) -> str:
    return f"blobs/sha256/{blob.hex}"


def row_of(made: Manifest, names: Sequence[str]) -> list[dict[str, Any]]:
    """How ``index.json`` names a manifest: once for each name, as ``docker save`` does; its readers go by either annotation."""
    rows = []
    for name in names or [""]:
        found = reference.parse(name) if name else None
        notes = {IMAGE_NAME: str(found), REF_NAME: found.tag} if found else {}
        row = Descriptor(made.media_type, made.digest, len(made.raw), notes)
        rows.append(row.json())
    return rows


def index_of(rows: Sequence[dict[str, Any]]) -> bytes:
    said = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(rows)}
    return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class ArchiveTarget:
    """An OCI layout as a tar (``oci-archive``), for any number of images: :meth:`end` writes what names them.

    The same images in the same order give the same bytes: no times, no owners. See :class:`.source.Target`.
    """

    plain = False

    def __init__(self, output: BinaryIO, name: str) -> None:
        self.name = name
        self.tar = TarWriter(output)
        self.tar.folder("blobs")
        self.tar.folder("blobs/sha256")
        self._there: set[str] = set()
        self._rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def has(self, blob: Descriptor) -> bool:
        return blob.digest in self._there

    def put(self, blob: Descriptor, open: Callable[[], Reader], sent: Callable[[int], None]) -> None:
        with self._lock, contextlib.closing(open()) as reader:  # one after the other: what is in a tar has an order
            if blob.digest not in self._there:
                self.tar.file(_path(blob), blob.size, reader, sent)
                self._there.add(blob.digest)

    def finish(self, manifest: Manifest, names: Sequence[str]) -> None:
        if manifest.digest not in self._there:
            self.tar.data(_path(manifest.descriptor), manifest.raw)
            self._there.add(manifest.digest)
        self._rows += row_of(manifest, names)

    def end(self) -> int:
        """Bytes of the archive."""
        self.tar.data("index.json", index_of(self._rows))
        self.tar.data("oci-layout", LAYOUT)
        return self.tar.end()

    def close(self) -> None:
        pass


class FolderTarget:
    """An OCI layout's folder, a new one or one that is there: images are added, a name moves to the newer. See :class:`.source.Target`."""

    plain = False

    def __init__(self, path: str) -> None:
        self.name = path
        self._written = 0
        self._rows: list[dict[str, Any]] = []
        if os.path.isdir(path) and os.listdir(path) and not os.path.exists(f"{path}/oci-layout"):
            raise UsageError(f"{path} is a folder with something else in it", "name a new folder, or one with an OCI layout")
        try:
            os.makedirs(f"{path}/blobs/sha256", exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UsageError(f"{path} is not a folder", "oci-dir writes a folder; oci-archive a file") from None

    def has(self, blob: Descriptor) -> bool:
        try:
            return os.path.getsize(f"{self.name}/{_path(blob)}") == blob.size
        except FileNotFoundError:
            return False

    def put(self, blob: Descriptor, open: Callable[[], Reader], sent: Callable[[int], None]) -> None:
        done = 0
        with contextlib.closing(open()) as reader, durable.whole(f"{self.name}/{_path(blob)}") as file:
            while piece := reader.read(_CHUNK):
                file.write(piece)
                done += len(piece)
                sent(done)
        self._written += done

    def finish(self, manifest: Manifest, names: Sequence[str]) -> None:
        self._write(_path(manifest.descriptor), manifest.raw)
        self._rows += row_of(manifest, names)

    def end(self) -> int:
        """Bytes that were written."""
        new = {json.dumps(row, sort_keys=True) for row in self._rows}
        taken = {row["annotations"][IMAGE_NAME] for row in self._rows if "annotations" in row}
        kept = [
            row
            for row in self._before()
            if (row.get("annotations") or {}).get(IMAGE_NAME) not in taken and json.dumps(row, sort_keys=True) not in new
        ]
        self._write("index.json", index_of([*kept, *self._rows]))
        self._write("oci-layout", LAYOUT)
        return self._written

    def _before(self) -> list[dict[str, Any]]:
        try:
            with open(f"{self.name}/index.json", "rb") as file:
                said = manifest.document(file.read(manifest.MANIFEST_SIZE), f"{self.name}/index.json")
        except FileNotFoundError:
            return []
        return [row for row in said.get("manifests") or [] if isinstance(row, dict)]

    def _write(self, path: str, data: bytes) -> None:
        with durable.whole(f"{self.name}/{path}") as file:
            file.write(data)
        self._written += len(data)

    def close(self) -> None:
        pass
