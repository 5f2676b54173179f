"""Where everything lies in the store, how it is read, and who may change it: see :mod:`.store` for what it means."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..paths import Paths
from . import durable, reference

_OWN_LEASE = 600.0  # seconds: a layer that this very process made and put in no image is a failed build's, and may go after that
LEASE = 86400.0  # the same for other processes, while they live
_FOLDERS = ("blobs/sha256", "manifests", "snapshots", "refs", "cache", "leases", "ingest", "host")


@dataclass(frozen=True)
class Layer:
    """One layer: ``path`` is its snapshot's folder, ``size`` the bytes of its regular files."""

    diff_id: str
    chain_id: str
    size: int
    path: str


class Records:
    """The files of one user's store. Cheap to make."""

    def __init__(self, where: Paths) -> None:
        self.paths = where
        self.root = str(where.images)
        self.ingest = f"{self.root}/ingest"
        for name in _FOLDERS:
            os.makedirs(f"{self.root}/{name}", mode=0o711, exist_ok=True)

    def references(self) -> dict[str, str]:
        """Familiar name -> image id."""
        found = {}
        for entry in os.scandir(f"{self.root}/refs"):
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                data = read_json(entry.path)
                found[reference.Reference(**data["reference"]).familiar] = str(data["image"])
        return found

    def saved(self) -> set[str]:
        return {"sha256:" + entry.name.removesuffix(".json") for entry in os.scandir(f"{self.root}/manifests")}

    def kept(self) -> list[dict[str, Any]]:
        """What is kept of each image: layers, host, manifest."""
        found = []
        for image_id in self.saved():
            with contextlib.suppress(FileNotFoundError, ValueError):
                found.append(read_json(self.manifest_path(image_id)))
        return found

    def cache_entry(self, path: str) -> Layer | None:
        try:
            found = read_json(path)
            layer = self.layer_at(found["chain_id"], found["diff_id"], found["size"])
        except (FileNotFoundError, ValueError, KeyError):
            return None
        return layer if os.path.isdir(layer.path) else None

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

    def layer_at(self, chain: str, diff: str, size: int) -> Layer:
        return Layer(diff, chain, size, f"{self.root}/snapshots/{chain.rpartition(':')[2][:32]}/diff")

    # -- leases: what a build counts on and no image refers to yet

    def lease(self, snapshot: str) -> None:
        path = f"{self.root}/leases/{os.path.basename(snapshot)}-{durable.owner()}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.utime(path)

    def release(self, snapshots: list[str]) -> None:
        me = durable.owner()
        for snapshot in snapshots:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.root}/leases/{os.path.basename(snapshot)}-{me}")

    def leased(self) -> set[str]:
        """Snapshots under a lease that holds; leases of ended processes and failed builds are removed."""
        found, me, now = set(), durable.owner(), time.time()
        for entry in os.scandir(f"{self.root}/leases"):
            age = now - entry.stat().st_mtime
            if age > (_OWN_LEASE if entry.name.endswith(me) else LEASE) or durable.abandoned(entry.path):
                os.unlink(entry.path)
            else:
                found.add(f"{self.root}/snapshots/{entry.name.partition('-')[0]}")
        return found


def read_json(path: str) -> Any:
    with open(path, "rb") as file:
        return json.loads(file.read())


def compact(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def canonical(data: dict[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
