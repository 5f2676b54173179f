"""A layer of the store as a tar, and as a blob to ship: as it came, or packed and compressed once and kept."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..errors import ImageError
from . import compression, durable, layers
from .descriptor import LAYERS, OCI_LAYER, Descriptor
from .records import Layer
from .store import Store

_CHUNK = 1 << 20
_PERIOD = 1 << 20  # bytes between two calls of ``moved``
_SUFFIX = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}


def tar_of(store: Store, layer: Layer) -> Iterator[bytes]:
    """The layer's plain tar; its digest is the diff id. :raises ImageError: at the end, where that is not so, or it cannot be had."""
    counted = hashlib.sha256()
    for piece in _pieces(store, layer):
        counted.update(piece)
        yield piece
    if f"sha256:{counted.hexdigest()}" != layer.diff_id:
        raise ImageError(f"layer {layer.chain_id[7:19]} is damaged: its tar has another digest", "verify --repair says what can be done")


def _pieces(store: Store, layer: Layer) -> Iterator[bytes]:
    folder = os.path.dirname(layer.path)
    if store.snapshot(folder).get("packed", True):
        yield from layers.tar_stream(layer.path)
        return
    forms = forms_of(store, layer)
    if not forms:
        raise ImageError(f"layer {layer.chain_id[7:19]} came from outside, and its blob is gone", "pull or load its image again")
    with open(store.blob_path(forms[0].digest), "rb", 0) as file:
        plain, _ = compression.open_reader(file)
        while piece := plain.read(_CHUNK):
            yield piece


def tar_size(store: Store, layer: Layer) -> int:
    """Bytes of the plain tar."""
    kept = store.snapshot(os.path.dirname(layer.path)).get("tar_size")
    return kept if isinstance(kept, int) else sum(map(len, tar_of(store, layer)))


def forms_of(store: Store, layer: Layer) -> list[Descriptor]:
    """The blobs that hold a layer. Those that are ready to be sent first."""
    rows = store.blob_rows(os.path.dirname(layer.path))
    found = [Descriptor(str(row["mediaType"]), str(row["digest"]), int(row["size"])) for row in rows]
    return sorted(found, key=lambda form: form.compression == "none")


def blob_of(store: Store, layer: Layer, kind: str, keep_plain: bool, moved: Callable[[int], None], holder: str) -> Descriptor:
    """A blob that holds the layer, under a lease of ``holder``'s: one that is there, or a new one, which is recorded.

    :param kind: gzip or zstd; "" for as it came, and else gzip. :param keep_plain: a plain one will do for "".
    :param moved: told the bytes of plain tar that are done, where one is made.
    """
    for form in forms_of(store, layer):
        if LAYERS.get(form.media_type) == kind or (not kind and (keep_plain or form.compression != "none")):
            with store.locked(shared=True):
                if os.path.exists(store.blob_path(form.digest)):
                    store.lease(store.blob_path(form.digest), holder)
                    return form
    made, _ = make_blob(store, tar_of(store, layer), kind or "gzip", moved, holder)
    store.add_forms(layer, [made])
    return made


def make_blob(store: Store, tar: Iterable[bytes], kind: str, moved: Callable[[int], None], holder: str) -> tuple[Descriptor, str]:
    """(a blob of this tar, under a lease; the tar's diff id). Always the same for the same bytes."""
    digest, plain, size = hashlib.sha256(), hashlib.sha256(), 0
    temporary = f"{store.ingest}/{durable.fresh_name()}"
    try:
        with open(temporary, "xb", 0) as file:
            for piece in compression.compress(_told(tar, plain, moved), kind):
                digest.update(piece)
                size += len(piece)
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
            os.fsync(file.fileno())
        made = Descriptor(OCI_LAYER + _SUFFIX[kind], f"sha256:{digest.hexdigest()}", size)
        with store.locked(shared=True):
            store.lease(store.blob_path(made.digest), holder)
            os.rename(temporary, store.blob_path(made.digest))
        durable.sync_folder(f"{store.root}/blobs/sha256")
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return made, f"sha256:{plain.hexdigest()}"


def _told(tar: Iterable[bytes], digest: Any, moved: Callable[[int], None]) -> Iterator[bytes]:
    done = told = 0
    for piece in tar:
        digest.update(piece)
        done += len(piece)
        if done - told >= _PERIOD:
            told = done
            moved(done)
        yield piece


class Pieces(io.RawIOBase):
    """Bytes in pieces as something to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        piece = self._left or next((piece for piece in self._pieces if piece), b"")  # an empty one is not the end
        if size < 0 or len(piece) <= size:
            self._left = b""
            return piece
        self._left = piece[size:]
        return piece[:size]

    def close(self) -> None:
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
        super().close()
