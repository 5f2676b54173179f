"""What builds leave for later builds: finished steps, what is known of them, and the folders of ``RUN --mount=type=cache``.

``cache/<sha256 of key>.json``: which layer a step made; its time is when it was last used. ``facts/``: what an explanation compares with,
compressed, apart from what every build reads. ``contexts/``: digests of a context's files. ``cachemounts/<32 hex of sha256(id)>/``:
``data`` (what a command sees), ``mount.json`` (its id; its time is when it was last used), ``lock``, and ``size`` once it was measured.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from . import durable
from .records import Layer, Records, compact, read_json

LIMIT = "PYCONTAINERS_BUILD_CACHE"
"""Environment: how many bytes the cache may keep (``5g``); 0 for none, -1 for no limit."""
_SMALLEST, _LARGEST, _PART = 2_000_000_000, 20_000_000_000, 10  # bytes, and the part of the disk: as Docker's garbage collection
_FRESH = 60.0  # seconds within which it is not noted again that something was used
_FACTS, _FACTS_BYTES = 2000, 32 << 20  # of steps whose layer is gone: enough to say that it is gone
_CONTEXTS, _CONTEXTS_BYTES = 100, 64 << 20


@dataclass
class Kept:
    """One thing that takes room in the build cache: a layer's snapshot (with the blobs that only it needs), or a cache mount.

    :ivar name: chain id, or id of the mount. ``used``: unix seconds, of what stands on it too. ``depth``: layers below it.
    :ivar entries: paths of the steps' entries that lead to it. ``in_use``: by a build that goes on.
    """

    path: str
    name: str
    size: int
    used: float
    in_use: bool
    depth: int = 0
    is_mount: bool = False
    blobs: int = 0
    entries: list[str] = field(default_factory=list)


class BuildCache(Records):
    """The part of the store that builds ask."""

    # -- steps

    def cached(self, key: str) -> Layer | None:
        """The layer that a build step with this key made, if it is still here. It stays until this build has saved its image."""
        path = self.cache_path(key)
        with self.locked(shared=True):
            layer = self.cache_entry(path)
            if layer is not None:
                self.lease(os.path.dirname(layer.path))
                _touch(path)
        return layer

    def remember(self, key: str, layer: Layer, facts: dict[str, Any] | None = None) -> None:
        """Let a build step with this key have this layer from now on.

        :param facts: JSON: what an explanation of a later build compares with (:meth:`cache_facts`). Nothing else depends on them.
        """
        data = compact({"diff_id": layer.diff_id, "chain_id": layer.chain_id, "size": layer.size})
        durable.write(self.ingest, self.cache_path(key), data, synced=False)  # half of it after a power cut is none: the step runs again
        if facts is not None:
            kept = zlib.compress(compact({"key": key, "layer": layer.chain_id, "facts": facts}), 1)
            durable.write(self.ingest, self.facts_path(key), kept, synced=False)

    def cache_facts(self) -> Iterator[dict[str, Any]]:
        """What is known of earlier steps, also of those whose layer is gone; the last used first.

        To what was given to :meth:`remember` come ``key``, ``layer`` (chain id), ``when`` (unix seconds, last used) and ``kept``
        (whether its layer is still here).
        """
        for path, when in _by_age(f"{self.root}/facts"):
            try:
                found = read_facts(path)
                known, entry = dict(found["facts"]), self.cache_path(found["key"])
                with contextlib.suppress(FileNotFoundError):
                    when = os.stat(entry).st_mtime
                kept = self.cache_entry(entry) is not None
                yield {**known, "key": found["key"], "layer": found["layer"], "when": when, "kept": kept}
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                continue  # removed meanwhile, or half of it after a power cut: it was never worth an fsync

    def facts_path(self, key: str) -> str:
        return f"{self.root}/facts/{os.path.basename(self.cache_path(key)).removesuffix('.json')}"

    # -- cache mounts

    def hold_cache_mount(self, id: str, alone: bool = False) -> tuple[str, int] | None:
        """(the folder of the cache mount ``id``, made when it is not there; a descriptor that keeps it until it is closed).

        None while somebody holds it in a way that does not go with ours.

        :param alone: nobody else may have it meanwhile (``sharing=locked``); otherwise others may share it.
        """
        how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        with self.locked(shared=True):  # whoever removes holds the store's lock alone: so it cannot go before we have ours
            folder = self._mount(id)
            fd = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, how | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
        return f"{folder}/data", fd

    def mount_path(self, id: str) -> str:
        return f"{self.root}/cachemounts/{hashlib.sha256(id.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"

    def _mount(self, id: str) -> str:
        """The folder around it; it is noted that it was used now."""
        folder = self.mount_path(id)
        try:
            os.utime(f"{folder}/mount.json")
        except FileNotFoundError:
            self._make_mount(folder, id)
        return folder

    def _make_mount(self, folder: str, id: str) -> None:
        building = f"{self.ingest}/{durable.fresh_name()}"
        durable.make_folder(building, 0o711)
        durable.make_folder(f"{building}/data", 0o755)
        with open(f"{building}/mount.json", "xb") as file:
            file.write(compact({"id": id}))
        os.close(os.open(f"{building}/lock", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        durable.sync_files(building)
        try:
            os.rename(building, folder)
        except OSError:
            durable.empty([building])
            if not os.path.exists(f"{folder}/mount.json"):  # else another process was faster
                raise


def read_facts(path: str) -> Any:
    """:raises FileNotFoundError, ValueError: what is wrong with it."""
    with open(path, "rb") as file:
        try:
            return json.loads(zlib.decompress(file.read()))
        except zlib.error as error:
            raise ValueError(str(error)) from None


def limit(root: str) -> int:
    """How many bytes the cache may keep: what the environment says, else a tenth of the disk, at least 2 GB and at most 20 GB.

    :raises LimitError: the environment says no size.
    """
    said = os.environ.get(LIMIT, "").strip()
    if said:
        from ..linux.cgroups.limits import parse_size  # here: whoever starts a container loads this module, and has no use for that one

        size = parse_size(said, LIMIT)
        return size if size >= 0 else 1 << 62
    disk = os.statvfs(root)
    return min(_LARGEST, max(_SMALLEST, disk.f_blocks * disk.f_frsize // _PART))


def contents(store: Records, of_images: set[str], leased: set[str], measure: bool = True) -> list[Kept]:
    """Everything that is kept for builds alone: layers that no image has, of finished steps and of what was broken off; cache mounts.

    :param of_images: snapshots' folders and blobs that images need. ``leased``: those that somebody counts on.
    :param measure: look into cache mounts that were used since they were measured; else their last size counts.
    """
    return [*_layers(store, of_images, leased), *mounts(store, measure)]


def _layers(store: Records, of_images: set[str], leased: set[str]) -> Iterator[Kept]:
    found: dict[str, Kept] = {}
    for path, when, folder in entries(store):
        if folder and folder not in of_images:
            kept = found.setdefault(folder, Kept(folder, "", 0, when, folder in leased))
            kept.entries.append(path)
            kept.used = max(kept.used, when)
    for entry in os.scandir(f"{store.root}/snapshots"):
        if entry.path not in found and entry.path not in of_images and entry.path not in leased:
            found[entry.path] = Kept(entry.path, "", 0, 0.0, False)  # of a build or a pull that was broken off: it goes first
    parents = {}
    for folder, kept in found.items():
        said = store.snapshot(folder)
        kept.name, size = str(said.get("chain_id") or os.path.basename(folder)), said.get("size")
        kept.size = size if isinstance(size, int) else 0
        rows = [row for row in store.blob_rows(folder) if store.blob_path(row["digest"]) not in of_images]
        kept.blobs = sum(row["size"] for row in rows if isinstance(row.get("size"), int))
        parents[folder] = os.path.dirname(store.layer_at(str(said.get("parent") or ""), "", 0).path)
    for folder, kept in found.items():
        above, seen = parents[folder], {folder}
        while above in found and above not in seen:  # a record that somebody has made up may lead in a circle
            seen.add(above)
            kept.depth += 1
            # Whoever used a layer used what it stands on, though perhaps not in this minute: what is below goes last.
            found[above].used = max(found[above].used, kept.used)
            above = parents[above]
    yield from found.values()


def entries(store: Records) -> Iterator[tuple[str, float, str]]:
    """(path, when it was last used, its snapshot's folder; "" where that is gone or the entry cannot be read) of every finished step."""
    for entry in os.scandir(f"{store.root}/cache"):
        with contextlib.suppress(FileNotFoundError):
            when = entry.stat(follow_symlinks=False).st_mtime
            layer = store.cache_entry(entry.path)
            yield entry.path, when, os.path.dirname(layer.path) if layer else ""


# -- cache mounts


def mounts(store: Records, measure: bool = True) -> Iterator[Kept]:
    """What :func:`contents` says of cache mounts."""
    for entry in sorted(os.scandir(f"{store.root}/cachemounts"), key=lambda entry: entry.name):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            when = os.stat(f"{entry.path}/mount.json").st_mtime
            with taken(entry.path) as lock:
                busy = lock is None
            yield Kept(entry.path, mount_id(entry.path), size_of_mount(store, entry.path, measure), when, busy, is_mount=True)


def mount_id(folder: str) -> str:
    """"" where it cannot be read."""
    try:
        return str(read_json(f"{folder}/mount.json")["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@contextlib.contextmanager
def taken(folder: str) -> Iterator[int | None]:
    """A cache mount's lock, for whoever removes it: its descriptor; None while somebody uses it."""
    fd = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        free = True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        yield fd if free else None
    finally:
        os.close(fd)


def size_of_mount(store: Records, folder: str, measure: bool = True) -> int:
    """Bytes of regular files; as it was measured when nobody had used it since, or ``measure`` is False (0 where it never was)."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        if not measure or os.stat(f"{folder}/size").st_mtime_ns > os.stat(f"{folder}/mount.json").st_mtime_ns:
            with open(f"{folder}/size", "rb") as file:
                return int(file.read())
    if not measure:
        return 0
    began = time.time_ns()
    with taken(folder) as lock:
        if lock is not None:
            fcntl.flock(lock, fcntl.LOCK_SH)  # whoever comes meanwhile notes that, and it is measured again
        size = _content(f"{folder}/data")
        if lock is not None:
            with contextlib.suppress(FileNotFoundError):
                durable.write(store.ingest, f"{folder}/size", b"%d" % size, synced=False)
                os.utime(f"{folder}/size", ns=(began, began))
    return size


def _content(folder: str) -> int:
    """Bytes of regular files, hard links once. What goes away meanwhile, or is too deep for a path, does not count."""
    seen, total, left = set(), 0, [folder]
    while left:
        with contextlib.suppress(OSError), os.scandir(left.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)
                    continue
                one = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(one.st_mode) and (one.st_dev, one.st_ino) not in seen:
                    total += one.st_size
                    if one.st_nlink > 1:
                        seen.add((one.st_dev, one.st_ino))
    return total


# -- what is noted of steps and contexts


def drop_notes(store: Records, before: float | None = None) -> None:
    """Forget facts of steps that are gone, and old contexts' digests.

    :param before: all that were not used since (unix seconds); None: only so many that they stay few. Whoever needs one makes it again.
    """
    for name, most, size in (("facts", _FACTS, _FACTS_BYTES), ("contexts", _CONTEXTS, _CONTEXTS_BYTES)):
        count = total = 0
        for path, when in _by_age(f"{store.root}/{name}"):
            if name == "facts" and os.path.exists(f"{store.root}/cache/{os.path.basename(path)}.json"):
                continue
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                count, total = count + 1, total + os.path.getsize(path)
                if when <= before if before is not None else (count > most or total > size):
                    os.unlink(path)


def _by_age(folder: str) -> list[tuple[str, float]]:
    """(path, time) of what lies in a folder, the newest first."""
    found = []
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            found.append((entry.path, entry.stat(follow_symlinks=False).st_mtime))
    return sorted(found, key=lambda pair: -pair[1])


def _touch(path: str) -> None:
    if abs(time.time() - os.stat(path).st_mtime) > _FRESH:
        os.utime(path)
