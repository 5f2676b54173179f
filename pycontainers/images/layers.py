"""Layers: from a snapshot's folder to its tar, always the same bytes (OCI image-spec, layer.md), and merging overlay uppers.

Deterministic: bytewise path order, PAX, empty user and group names, whole seconds, sorted attributes, the first path holds a hard
link's data. So a layer's diff id can be computed without keeping the tar, and the tar made again when it is pushed or saved.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator

from ..errors import ImageError
from .view import Node, Rootfs, View, is_opaque, is_whiteout

_CHUNK = 1 << 20
_BLOCK = 512
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"


def tar_stream(folder: str) -> Iterator[bytes]:
    """The tar of an overlay-form folder, in pieces. Whiteout devices become ``.wh.NAME``, opaque folders get ``.wh..wh..opq``."""
    size = 0
    links: dict[tuple[int, int], str] = {}
    for name, path in _walk(folder):
        for piece in _entry(name, path, links):
            size += len(piece)
            yield piece
    yield b"\0" * (2 * _BLOCK + -(size + 2 * _BLOCK) % (20 * _BLOCK))  # POSIX: two empty blocks, records of 20 blocks


def diff_id(folder: str) -> tuple[str, int]:
    """(``sha256:…`` of the tar, bytes of regular files in it)."""
    digest = hashlib.sha256()
    for piece in tar_stream(folder):
        digest.update(piece)
    return f"sha256:{digest.hexdigest()}", content_size(folder)


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


def _entry(name: str, path: str, links: dict[tuple[int, int], str]) -> Iterator[bytes]:
    found = os.lstat(path)
    if is_whiteout(found):
        parent, _, last = name.rpartition("/")
        yield _header(tarfile.TarInfo(f"{parent}/{WHITEOUT}{last}" if parent else WHITEOUT + last))
        return
    if name.rpartition("/")[2].startswith(WHITEOUT):
        # In a layer's tar such a name deletes: shipped, this file would remove another one instead of being there.
        raise ImageError(f"/{name} cannot be kept in a layer: names that start with {WHITEOUT} mean deletion there", "remove or rename it")
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    info.mtime = found.st_mtime_ns // 1_000_000_000
    key = (found.st_dev, found.st_ino)
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFREG and found.st_nlink > 1 and key in links:
        info.type, info.linkname = tarfile.LNKTYPE, links[key]
    elif kind == stat.S_IFREG:
        if found.st_nlink > 1:
            links[key] = name
        info.size = found.st_size
    elif kind == stat.S_IFDIR:
        info.type = tarfile.DIRTYPE
    elif kind == stat.S_IFLNK:
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        info.type = tarfile.CHRTYPE if kind == stat.S_IFCHR else tarfile.BLKTYPE
        info.devmajor, info.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
    elif kind == stat.S_IFIFO:
        info.type = tarfile.FIFOTYPE
    else:
        return  # a socket has no meaning in an archive (Docker and tar leave it out as well)
    if info.type != tarfile.LNKTYPE:
        info.pax_headers = _attributes(path)
    yield _header(info)
    if info.isreg():
        yield from _content(path, found.st_size)
    elif kind == stat.S_IFDIR and is_opaque(path):
        yield _header(tarfile.TarInfo(f"{name}/{OPAQUE}"))


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _attributes(path: str) -> dict[str, str]:
    """Extended attributes as PAX records (``SCHILY.xattr.``); overlayfs's own and the security module's labels stay here."""
    found = {}
    try:
        names = sorted(os.listxattr(path, follow_symlinks=False))
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        names = []  # a file system without extended attributes
    for name in names:
        if not name.startswith(("trusted.overlay.", "user.overlay.", "security.selinux")):
            value = os.getxattr(path, name, follow_symlinks=False)
            found[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    return found


def _content(path: str, size: int) -> Iterator[bytes]:
    """Exactly ``size`` bytes, padded to a block: a file that changes meanwhile may not shift what follows."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        left = size
        while left:
            piece = os.read(fd, min(_CHUNK, left)) or b"\0" * min(_CHUNK, left)
            left -= len(piece)
            yield piece
    finally:
        os.close(fd)
    yield b"\0" * (-size % _BLOCK)


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
    os.chown(target, source.st_uid, source.st_gid)
    os.chmod(target, stat.S_IMODE(source.st_mode))
    os.utime(target, ns=(source.st_atime_ns, source.st_mtime_ns))
