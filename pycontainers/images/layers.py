"""Layers: from a snapshot's folder to its tar, always the same bytes (OCI image-spec, layer.md), and merging overlay uppers.

Deterministic: bytewise path order, PAX, empty user and group names, whole seconds, sorted attributes, the first path holds a hard
link's data. So a layer's diff id can be computed without keeping the tar, and the tar made again when it is pushed or saved.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator

from ..errors import ImageError
from . import durable
from .pack import Packer, Stream, header
from .tar import BLOCK, Entry
from .unpack import BENEATH, Unpacker
from .view import Node, Rootfs, View, is_opaque, is_whiteout, opaque_attribute

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"


class _LayerPacker(Packer):
    """Whiteout devices become ``.wh.NAME``, opaque folders get ``.wh..wh..opq``; whole seconds, and no form that is not tar's oldest:
    a sparse file's holes are zeros here, for not every program that reads layers knows holes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._overlay = opaque_attribute().removesuffix("opaque")

    def content(self, folder: int) -> Iterator[bytes]:
        if is_opaque(_at(folder) + "/"):
            yield header(Entry(os.fsencode(OPAQUE)))
            self._size += BLOCK
        yield from super().content(folder)

    def entry(self, parent: int, name: str, inside: str, found: os.stat_result, fd: int) -> Iterator[bytes]:
        folder, _, last = inside.rpartition("/")
        if is_whiteout(found):
            yield header(Entry(os.fsencode(f"{folder}/{WHITEOUT}{last}" if folder else WHITEOUT + last)))
            return
        if last.startswith(WHITEOUT):
            # In a layer's tar such a name deletes: shipped, this file would remove another one instead of being there.
            raise ImageError(
                f"/{inside} cannot be kept in a layer: names that start with {WHITEOUT} mean deletion there", "remove or rename it"
            )
        yield from super().entry(parent, name, inside, found, fd)
        if stat.S_ISDIR(found.st_mode) and is_opaque(fd):
            yield header(Entry(os.fsencode(f"{inside}/{OPAQUE}")))

    def attributes(self, place: int | str) -> dict[bytes, bytes]:
        """What overlayfs hides from whoever looks at the mounted layer stays here; what it shows by another name gets that back."""
        escaped = os.fsencode(self._overlay) + b"overlay."
        found = super().attributes(place)
        return {name.replace(b"overlay.overlay.", b"overlay.", 1) if name.startswith(escaped) else name: found[name] for name in found}

    def attributes_of_special(self, parent: int, name: str) -> dict[bytes, bytes]:
        return self.attributes(f"{_at(parent)}/{name}")

    def keeps(self, attribute: str) -> bool:
        """The attributes of the other kind of mount (``user.`` for root's) are anybody's."""
        if attribute.startswith(self._overlay):
            return attribute.startswith(self._overlay + "overlay.")
        return attribute.startswith(("trusted.overlay.", "user.overlay.")) or super().keeps(attribute)

    def encoded(self, info: Entry, found: os.stat_result, fd: int) -> Iterator[bytes]:
        info.mtime -= info.mtime % 1_000_000_000
        return self.plain(info, fd)


class _UpperPacker(Packer):
    """A copy of an overlay's upper folder: what makes a folder opaque goes along, and what was set inside by such a name; where a file was
    copied up from does not.
    """

    def keeps(self, attribute: str) -> bool:
        kind = attribute.removeprefix("trusted.overlay.").removeprefix("user.overlay.")
        return (kind != attribute and kind.startswith(("opaque", "overlay."))) or super().keeps(attribute)


def _at(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def copy_upper(upper: str, target: str) -> Iterator[int]:
    """Copy an overlay's upper folder, which may be in use, into the empty folder ``target``; yields bytes so far.

    By descriptors and as an archive is: whoever lives in the container cannot lead us out of it by a link.
    """
    source, base, proc = (os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in (upper, target, "/proc"))
    unpacker = Unpacker(base, proc=proc, name="", resolve=BENEATH, owners=True, all=True, devices=True)
    try:
        yield from unpacker.extract(io.BufferedReader(Stream(_UpperPacker().content(source)), 1 << 18))
        copy_attributes(os.fstat(source), target)
        if is_opaque(source):
            os.setxattr(base, opaque_attribute(), b"y")
    finally:
        unpacker.close()
        for fd in (source, base, proc):
            os.close(fd)


def tar_stream(folder: str) -> Iterator[bytes]:
    """The tar of an overlay-form folder, in pieces."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from _LayerPacker().content(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def named_by_paths() -> Iterator[None]:
    """For work on a tree by paths. What whoever filled it made too deep for that is one error, and no traceback.

    :raises ImageError: a folder lies deeper than Python recurses, or a path is longer than PATH_MAX (4096 bytes).
    """
    try:
        yield
    except RecursionError:
        raise ImageError("a folder lies some hundred levels deep", "an image cannot hold that: remove it first") from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise ImageError("a path is longer than 4096 bytes", "an image cannot hold that: remove it first") from None


def diff_id(folder: str) -> tuple[str, int]:
    """(``sha256:…`` of the tar, bytes of regular files in it)."""
    digest, packer = hashlib.sha256(), _LayerPacker()
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for piece in packer.content(fd):
            digest.update(piece)
    finally:
        os.close(fd)
    return f"sha256:{digest.hexdigest()}", packer.bytes


def content_size(folder: str) -> int:
    """Bytes of regular files, hard links counted once."""
    seen, total = set(), 0
    for _, path in _walk(folder):
        found = os.lstat(path)
        if stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            total += found.st_size
    return total


def chain_id(parent: str, diff: str) -> str:
    """OCI image-spec config.md, Layer ChainID; ``parent`` "" for the first layer. A host base's identity serves as a parent too."""
    return diff if not parent else "sha256:" + hashlib.sha256(f"{parent} {diff}".encode()).hexdigest()


def _walk(folder: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name in the tar, path) of everything below ``folder``, a folder before its content, in bytewise order."""
    for name in sorted(os.listdir(folder), key=os.fsencode):
        path, inside = f"{folder}/{name}", prefix + name
        yield inside, path
        if stat.S_ISDIR(os.lstat(path).st_mode):
            yield from _walk(path, inside + "/")


def merge_uppers(uppers: dict[str, str], tree: str, rootfs: Rootfs) -> None:
    """Join the upper folders of a root file system's overlays in ``tree``, each at its own path. They are emptied by renames.

    :param uppers: folder of the root file system ("/" among them) -> its overlay's upper folder.
    :param rootfs: what the overlays stood on. A folder that was only passed through (``/tmp`` on the way to ``/tmp/venv``) takes
        owner and mode from there: overlayfs shows a folder with the attributes of the newest layer that has it.
    """
    _move_content(uppers["/"], tree)
    below = View(rootfs)
    for folder in sorted((name for name in uppers if name != "/"), key=lambda name: name.count("/")):
        upper, place = uppers[folder], tree + folder
        if os.path.isdir(place):
            os.rmdir(place)  # the mount point as the overlay of "/" saw it: never anything in it
        if os.listdir(upper) or is_opaque(upper) or not _same_attributes(os.lstat(upper), below.lookup(folder)):
            _make_parents(below, tree, folder)
            os.rename(upper, place)


def _same_attributes(found: os.stat_result, node: Node | None) -> bool:
    return node is not None and (found.st_mode, found.st_uid, found.st_gid) == (node.stat.st_mode, node.stat.st_uid, node.stat.st_gid)


def _move_content(source: str, target: str) -> None:
    for name in os.listdir(source):
        os.rename(f"{source}/{name}", f"{target}/{name}")
    copy_attributes(os.lstat(source), target)


def _make_parents(below: View, tree: str, folder: str) -> None:
    inside = ""
    for part in folder.strip("/").split("/")[:-1]:
        inside = f"{inside}/{part}"
        if not os.path.lexists(tree + inside):
            os.mkdir(tree + inside, 0o755)
            node = below.lookup(inside)
            if node is not None:
                copy_attributes(node.stat, tree + inside)


def copy_attributes(source: os.stat_result, target: str) -> None:
    """Owner, mode and times of a folder."""
    durable.give(target, source)
    os.chmod(target, stat.S_IMODE(source.st_mode))
    os.utime(target, ns=(source.st_atime_ns, source.st_mtime_ns))
