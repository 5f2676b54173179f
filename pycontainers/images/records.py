"""Where everything lies in the store, how it is read, and who may change it: see :mod:`.store` for what it means."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import ImageError
from ..paths import Paths
from . import durable, reference

_OWN_LEASE = 600.0  # seconds: a layer that this very process made in nobody's name and put in no image may go after that
LEASE = 86400.0  # the same for other processes, while they live
_FOLDERS = ("blobs/sha256", "manifests", "snapshots", "refs", "cache", "facts", "contexts", "cachemounts", "leases", "ingest", "host")
_GET_FLAGS, _SET_FLAGS, _TOP = 0x80086601, 0x40086602, 0x00020000  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_TOPDIR_FL (linux/fs.h)
_SNAPSHOT = 32  # characters of a snapshot's name; a blob's has 64


@dataclass(frozen=True)
class Layer:
    """One layer: ``path`` is its snapshot's folder, ``size`` the bytes of its regular files."""

    diff_id: str
    chain_id: str
    size: int
    path: str


@dataclass(frozen=True)
class Record:
    """What is kept of an image beside its config: (diff id, chain id, size) of each layer; the identity of the host base it stands on,
    "" otherwise; the digest of the manifest that it came with or was shipped with, "" for none.
    """

    layers: tuple[tuple[str, str, int], ...]
    host: str
    manifest: str


@dataclass(frozen=True)
class Name:
    """One reference: the image's id, and the digest by which the registry knew it ("" where it was given here)."""

    reference: reference.Reference
    image: str
    digest: str

    @property
    def familiar(self) -> str:
        return self.reference.familiar


class Records:
    """The files of one user's store. Cheap to make.

    :param holder: letters and digits: whose leases are those that name no other; it gives them up by :meth:`release_all`. "": the
        process's, which end by themselves after ten minutes.
    """

    def __init__(self, where: Paths, holder: str = "") -> None:
        self.paths, self.holder = where, holder
        self.root = str(where.images)
        self.ingest = f"{self.root}/ingest"
        for name in _FOLDERS:
            os.makedirs(f"{self.root}/{name}", mode=0o711, exist_ok=True)
        spread(self.ingest)

    # -- names

    def named(self) -> list[Name]:
        """Every reference that can be read."""
        found = []
        for entry in os.scandir(f"{self.root}/refs"):
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                found.append(name_at(entry.path))
        return found

    def references(self) -> dict[str, str]:
        """Familiar name -> image id."""
        return {name.familiar: name.image for name in self.named()}

    def write_name(self, found: reference.Reference, image_id: str, digest: str) -> None:
        entry = {"host": found.host, "path": found.path, "tag": found.tag, "digest": found.digest}
        data = compact({"reference": entry, "image": image_id, "digest": digest, "updated": time.time()})
        durable.write(self.ingest, self.reference_path(found), data)

    # -- images

    def saved(self) -> set[str]:
        return {"sha256:" + entry.name.removesuffix(".json") for entry in os.scandir(f"{self.root}/manifests")}

    def record(self, image_id: str) -> Record:
        """:raises ImageError: it cannot be read."""
        try:
            found = read_json(self.manifest_path(image_id))
            rows = tuple((str(diff), str(chain), int(size)) for diff, chain, size in found["layers"])
            manifest = found["manifest"]
            # Earlier versions kept the manifest itself, which nobody had seen: one that is shipped is made when it is shipped.
            return Record(rows, str(found["host"]), manifest if isinstance(manifest, str) else "")
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            raise ImageError(f"image {image_id[:19]} is damaged: its record cannot be read", "get or build it again") from None

    def kept_as(self, image_id: str) -> Record | None:
        """Its record; None where there is none that can be read."""
        try:
            return self.record(image_id)
        except ImageError:
            return None

    def write_record(self, image_id: str, record: Record) -> None:
        entry = {"layers": [list(row) for row in record.layers], "host": record.host, "manifest": record.manifest}
        durable.write(self.ingest, self.manifest_path(image_id), compact(entry))

    def kept(self) -> dict[str, Record]:
        """Image id -> record, of all that can be read."""
        return {image_id: record for image_id in self.saved() if (record := self.kept_as(image_id)) is not None}

    def cache_entry(self, path: str) -> Layer | None:
        try:
            found = read_json(path)
            layer = self.layer_at(found["chain_id"], found["diff_id"], found["size"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return layer if os.path.isdir(layer.path) else None

    # -- snapshots

    def layer_at(self, chain: str, diff: str, size: int) -> Layer:
        return Layer(diff, chain, size, f"{self.root}/snapshots/{chain.rpartition(':')[2][:_SNAPSHOT]}/diff")

    def snapshot(self, folder: str) -> dict[str, Any]:
        """What ``layer.json`` of a snapshot says; {} where it cannot be read.

        ``packed``: its tar is what :mod:`.pack` makes of it; that of a layer from outside is in a blob alone.
        """
        try:
            found = read_json(f"{folder}/layer.json")
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def blob_rows(self, folder: str) -> list[dict[str, Any]]:
        """Descriptors (mediaType, digest, size) of the forms in which a snapshot's layer is in ``blobs/``."""
        try:
            rows = read_json(f"{folder}/blobs.json")
            return [row for row in rows if os.path.exists(self.blob_path(row["digest"]))]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return []

    def shippable(self, folder: str) -> bool:
        """Whether a snapshot's tar can still be had."""
        return bool(self.snapshot(folder).get("packed", True) or self.blob_rows(folder))

    # -- blobs

    def reference_path(self, found: reference.Reference) -> str:
        return f"{self.root}/refs/{hashlib.sha256(str(found).encode()).hexdigest()[:40]}.json"

    def blob_path(self, digest: str) -> str:
        return f"{self.root}/blobs/sha256/{digest.removeprefix('sha256:')}"

    def manifest_path(self, image_id: str) -> str:
        return f"{self.root}/manifests/{image_id.removeprefix('sha256:')}.json"

    def cache_path(self, key: str) -> str:
        return f"{self.root}/cache/{hashlib.sha256(key.encode()).hexdigest()}.json"

    def add_blob(self, data: bytes) -> None:
        path = self.blob_path(digest(data))
        if not os.path.exists(path):
            durable.write(self.ingest, path, data)

    @contextlib.contextmanager
    def locked(self, shared: bool = False) -> Iterator[None]:
        """Never nested: each call opens the file anew, and flock(2) orders open files, also those of one process."""
        fd = os.open(f"{self.root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    # -- leases: what somebody counts on and no image refers to yet

    def lease(self, path: str, holder: str = "") -> None:
        """Of a snapshot's folder or a blob. Also makes one last longer that is there.

        :param holder: letters and digits: whose lease it is, where several in one process may want the same; "" the store's own.
        """
        fd = os.open(self._lease_path(path, holder), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.utime(fd)
        finally:
            os.close(fd)

    def release(self, paths: Iterable[str], holder: str = "") -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._lease_path(path, holder))

    def release_all(self) -> None:
        """All leases of the store's own holder, who counts on nothing any more."""
        end = f"-{self.holder}-{durable.owner()}"
        for entry in os.scandir(f"{self.root}/leases") if self.holder else ():
            if entry.name.endswith(end):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)

    def _lease_path(self, path: str, holder: str) -> str:
        holder = holder or self.holder
        return f"{self.root}/leases/{os.path.basename(path)}{'-' if holder else ''}{holder}-{durable.owner()}"

    def leased(self) -> set[str]:
        """Snapshots and blobs under a lease that holds; leases of ended processes and failed builds are removed."""
        found, me, now = set(), durable.owner(), time.time()
        for entry in os.scandir(f"{self.root}/leases"):
            name, _, rest = entry.name.partition("-")
            try:
                age = now - entry.stat().st_mtime
                if age > (_OWN_LEASE if rest == me else LEASE) or durable.abandoned(entry.path):
                    os.unlink(entry.path)
                    continue
            except FileNotFoundError:
                continue  # its owner has released it
            found.add(f"{self.root}/snapshots/{name}" if len(name) == _SNAPSHOT else self.blob_path(name))
        return found


def spread(folder: str) -> None:
    """Let each folder that is made in ``folder`` begin in a part of the disk of its own: chattr(1), "T" (ext4's Orlov allocator).

    ext4 puts it beside its siblings else, and gives nobody an inode anew within minutes: where an image has just been removed, each file
    of the next one is looked for among the thousands that are gone.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = int.from_bytes(fcntl.ioctl(fd, _GET_FLAGS, bytes(8))[:4], sys.byteorder)
        if not flags & _TOP:
            fcntl.ioctl(fd, _SET_FLAGS, (flags | _TOP).to_bytes(4, sys.byteorder) + bytes(4))
    except OSError:
        pass  # another file system: ioctl_iflags(2)
    finally:
        os.close(fd)


def name_at(path: str) -> Name:
    """:raises FileNotFoundError, ValueError, KeyError, TypeError: what is wrong with it."""
    data = read_json(path)
    return Name(reference.Reference(**data["reference"]), str(data["image"]), str(data.get("digest") or ""))


def read_json(path: str) -> Any:
    with open(path, "rb") as file:
        return json.loads(file.read())


def compact(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def canonical(data: dict[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
