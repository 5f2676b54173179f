"""Root file systems: one made into an image (``import``), and an image's as one tar (``export``), as its container would see it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from ..errors import ImageError, NotFound, UsageError
from ..events import Note, Progress, Work
from . import compression, layers
from .apply import apply
from .forms import Pieces
from .pack import Packer
from .pack import _look as look
from .store import Image, Store
from .tar import BLOCK, Entry
from .unpack import BENEATH, Unpacker
from .view import Node, Rootfs, View

_CHUNK = 1 << 20
_PERIOD = 4 << 20  # bytes between two events


def import_image(store: Store, source: str | BinaryIO, config: dict[str, Any], names: Sequence[str] = ()) -> Work[Image]:
    """An image of one layer from a tar (plain or compressed), as a file, a stream, or a folder.

    :param config: an image config without ``rootfs``. :raises NotFound: no such file. :raises ImageError: no whole tar.
    """
    where = source if isinstance(source, str) else "the archive"
    tree = store.new_layer()
    try:
        if isinstance(source, str) and os.path.isdir(source):
            _unpack(Pieces(layers.tar_stream(source)), tree)
        elif isinstance(source, str):
            with _opened(source) as file:
                _unpack(file, tree)
        else:
            _unpack(source, tree)
        if not os.listdir(tree):
            raise ImageError(f"{where} is empty", "a tar of a root file system has folders in it")
        yield Progress(where, layers.content_size(tree))
        layer = store.commit(tree, "")
    except BaseException:
        store.discard(tree)
        raise
    image = store.save_image({**config, "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}}, [layer], "")
    for name in names:
        store.tag(image.id, name)
    return store.resolve(image.id)


def _unpack(file: Any, tree: str) -> None:
    free = os.statvfs(tree)
    apply(file, tree, limit=free.f_bavail * free.f_frsize)


def _opened(path: str) -> BinaryIO:
    try:
        return open(path, "rb", 0)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist", "give the path of a tar or of a folder, or - for standard input") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "") from None


def export_image(image: Image, output: BinaryIO, kind: str = "none") -> Work[int]:
    """Write an image's root file system as a tar (``gzip`` or ``zstd``: compressed); returns the bytes written."""
    done = told = 0
    name = (image.names or (image.id[7:19],))[0]
    for piece in compression.compress(pack(image.rootfs), kind):
        view = memoryview(piece)
        while view:
            count = output.write(view)
            view = view[len(view) if count is None else count :]
        done += len(piece)
        if done - told >= _PERIOD:
            told = done
            yield Progress(name, done)
    return done


def export_folder(image: Image, folder: str) -> Work[int]:
    """See :meth:`pycontainers.protocol.Engine.export_folder`. :raises UsageError: the folder cannot be made or opened."""
    try:
        os.makedirs(folder, exist_ok=True)
        base = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}", "another folder") from None
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    unpacker = Unpacker(base, proc=proc, name="", resolve=BENEATH, owners=False, all=False, devices=False)
    told = 0
    try:
        for done in unpacker.extract(cast(BinaryIO, Pieces(pack(image.rootfs)))):
            if done - told >= _PERIOD:
                told = done
                yield Progress(folder, done)
    finally:
        unpacker.close()
        os.close(proc)
        os.close(base)
    yield from map(Note, unpacker.notes)
    return unpacker.bytes


def host_content(rootfs: Rootfs) -> tuple[int, int]:
    """(files, bytes of regular ones) of a merged root file system, hard links counted once."""
    seen: set[tuple[int, int]] = set()
    files = size = 0
    for _, node in _walk(View(rootfs)):
        files += 1
        key = (node.stat.st_dev, node.stat.st_ino)
        if stat.S_ISREG(node.stat.st_mode) and (node.stat.st_nlink == 1 or key not in seen):
            seen.add(key)
            size += node.stat.st_size
    return files, size


def pack(rootfs: Rootfs) -> Iterator[bytes]:
    """The tar of a merged root file system, as a layer without anything below it. Always the same for the same files."""
    return _MergedPacker(View(rootfs)).archive()


def _walk(view: View) -> Iterator[tuple[str, Node]]:
    """(path without the slash at its beginning, entry) of everything, a folder before its content, in bytewise order."""
    stack = [_children(view, "")]
    while stack:
        found = next(stack[-1], None)
        if found is None:
            stack.pop()
            continue
        yield found
        if stat.S_ISDIR(found[1].stat.st_mode):
            stack.append(_children(view, found[0]))


def _children(view: View, folder: str) -> Iterator[tuple[str, Node]]:
    try:
        names = sorted(view.listdir(f"/{folder}"), key=os.fsencode)
    except PermissionError:
        names = []  # the machine's own, closed to an ordinary user: nobody in his containers reads it either
    for name in names:
        inside = f"{folder}/{name}" if folder else name
        node = view.lookup(f"/{inside}")
        if node is not None:
            yield inside, node


class _MergedPacker(Packer):
    """As a layer's tar is: whole seconds, and no form that is not tar's oldest."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view

    def archive(self) -> Iterator[bytes]:
        size = 0
        for inside, node in _walk(self._view):
            for piece in self._entry(inside, node):
                size += len(piece)
                yield piece
        yield b"\0" * (2 * BLOCK + -(size + 2 * BLOCK) % (20 * BLOCK))

    def _entry(self, inside: str, node: Node) -> Iterator[bytes]:
        if inside.rpartition("/")[2].startswith(layers.WHITEOUT):
            raise ImageError(f"/{inside} cannot be in a layer: such names mean deletion there", "remove or rename it")
        folder, name = os.path.split(node.path)
        parent = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            looked = look(parent, name)
            if looked is None:
                return
            found, fd = looked
            try:
                yield from self.entry(parent, name, inside, found, fd)
            finally:
                if fd >= 0:
                    os.close(fd)
        except PermissionError:
            self.closed += 1
        finally:
            os.close(parent)

    def encoded(self, info: Entry, found: os.stat_result, fd: int) -> Iterator[bytes]:
        info.mtime -= info.mtime % 1_000_000_000
        return self.plain(info, fd)
