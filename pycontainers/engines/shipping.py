"""The engine's verbs that bring images in and send them out, and those that look after the store. Part of :class:`.native.NativeEngine`.

What writes or reads layers runs where their ids mean something (:mod:`.inside`); files that are open here go along.
"""

from __future__ import annotations

import abc
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import ContainersError, NotFound, StateError, UsageError
from ..events import Done, Note, Work
from ..images import layers, reference
from ..images.reference import Reference
from ..images.store import Image, Store
from ..paths import Paths
from ..protocol import DiskItem, DiskUsage, ImageInfo, Problem, Pruned
from ..runtime import state
from . import inside
from .refusals import in_one_line

if TYPE_CHECKING:
    from ..images.descriptor import Descriptor, Platform
    from ..images.registry.client import Registry
    from .folders import Folders

FORMATS = ("docker-archive", "oci-archive", "oci-dir")


@in_one_line
class Shipping(abc.ABC):
    """The half of an engine that ships. ``paths``, ``store`` and the rest are the other half's."""

    paths: Paths
    folders: Folders

    @property
    @abc.abstractmethod
    def store(self) -> Store: ...

    @abc.abstractmethod
    def _begin(self) -> None: ...

    def pull(self, name: str, platform: str = "", all_tags: bool = False) -> Work[list[ImageInfo]]:
        from ..images.fetch import fetch

        self._begin()
        if inside.needed():
            there: list[ImageInfo] = yield from inside.work(self.paths, "pull", name, platform, all_tags)
            return there
        started, wanted, first = time.perf_counter(), _platform(platform), _remote(name)
        found = []
        for one in _every_tag(first) if all_tags else [first]:
            with _registry(one) as registry:
                image = yield from fetch(self.store, registry, [_kept_as(one)], wanted, _resolved(registry))
            found.append(self.store.info(image))
        yield Done(first.familiar, time.perf_counter() - started)
        return found

    def push(self, name: str, all_tags: bool = False, compression: str = "", include_host: bool = False) -> Work[list[str]]:
        from ..images.ship import ship

        self._begin()
        if inside.needed():
            there: list[str] = yield from inside.work(self.paths, "push", name, all_tags, compression, include_host)
            return there
        started, first = time.perf_counter(), _remote(name)
        if first.digest:
            raise UsageError(f"{name} cannot be pushed: it names a digest", "give it a tag first, and push that")
        _compression(compression)
        digests = []
        for one in self._local_tags(first) if all_tags else [first]:
            image = self.store.resolve(one.familiar)
            with _registry(one, self.origins) as registry:
                digest = yield from ship(
                    self.store, image, registry, [one.familiar], compression=compression, include_host=include_host
                )
            if not image.host:
                self.store.tag(image.id, one, digest)
            digests.append(digest)
        yield Done(first.familiar, time.perf_counter() - started)
        return digests

    def save(
        self,
        names: Sequence[str],
        output: str | BinaryIO,
        format: str = "docker-archive",
        include_host: bool = False,
        compression: str = "",
    ) -> Work[int]:
        from ..images.ship import ship

        self._begin()
        if not names:
            raise UsageError("save needs an image", "images lists what is here")
        if format not in FORMATS:
            raise UsageError(f"format {format!r} is not known", ", ".join(FORMATS))
        _compression(compression)
        if compression and format == "docker-archive":
            raise UsageError("layers in a docker-archive are not compressed", "--format oci-archive has them compressed")
        if inside.needed():
            there: int = yield from inside.work(self.paths, "save", list(names), _absolute(output), format, include_host, compression)
            return there
        started, chosen = time.perf_counter(), self._chosen(names)
        where = output if isinstance(output, str) else "the archive"
        with _target(format, output) as target:
            for image, called in chosen:
                yield from ship(
                    self.store, image, target, called, compression=compression, include_host=include_host, keep_plain=True, at_once=1
                )
            size: int = target.end()
        yield Done(where, time.perf_counter() - started)
        return size

    def load(self, source: str | BinaryIO, platform: str = "") -> Work[list[ImageInfo]]:
        from ..images import archives, docker_archive, oci_layout
        from ..images.fetch import fetch

        self._begin()
        if inside.needed():
            there: list[ImageInfo] = yield from inside.work(self.paths, "load", _absolute(source), platform)
            return there
        started, wanted, found = time.perf_counter(), _platform(platform), []
        with contextlib.closing(archives.open_place(source, self.store.ingest)) as place:
            if oci_layout.is_layout(place):
                images = oci_layout.images(place, wanted)
            elif docker_archive.is_docker_archive(place):
                images = docker_archive.images(place)
            else:
                raise UsageError(f"{place.name} is no archive of images", "import makes an image of a root file system")
            for one in images:
                names = []
                for name in one.names:
                    try:
                        names.append(reference.check_free(name))
                    except UsageError as error:
                        yield Note(f"{error.message}: {error.hint}")
                image = yield from fetch(self.store, one.source, names, wanted)
                found.append(self.store.info(image))
        yield Done(", ".join((info.names or (info.short_id,))[0] for info in found), time.perf_counter() - started)
        return found

    def import_image(
        self, source: str | BinaryIO, name: str = "", changes: Sequence[str] = (), message: str = "", platform: str = ""
    ) -> Work[ImageInfo]:
        from ..images.rootfs import import_image

        self._begin()
        if inside.needed():
            there: ImageInfo = yield from inside.work(self.paths, "import_image", _absolute(source), name, list(changes), message, platform)
            return there
        started = time.perf_counter()
        if name:
            reference.check_free(name)
        where = source if isinstance(source, str) else "-"
        config = _imported(self.store, changes, message or f"Imported from {where}", _platform(platform) if platform else None)
        image = yield from import_image(self.store, source, config, [name] if name else [])
        yield Done(name or image.id.removeprefix("sha256:")[:12], time.perf_counter() - started)
        return self.store.info(image)

    def export_image(self, name: str, output: BinaryIO, compression: str = "") -> Work[int]:
        from ..images.rootfs import export_image

        self._begin()
        _compression(compression)
        if inside.needed():
            there: int = yield from inside.work(self.paths, "export_image", name, output, compression)
            return there
        return (yield from export_image(self.store.resolve(name), output, compression or "none"))

    def export_folder(self, name: str, folder: str) -> Work[int]:
        from ..images.rootfs import export_folder

        self._begin()
        folder = os.path.abspath(folder)
        if inside.needed():
            there: int = yield from inside.work(self.paths, "export_folder", name, folder)
            return there
        return (yield from export_folder(self.store.resolve(name), folder))

    # -- registries

    def tags(self, repository: str) -> list[str]:
        with _registry(_remote(repository)) as registry:
            return sorted(registry.tags())

    def delete_remote(self, name: str) -> str:
        with _registry(_remote(name)) as registry:
            return registry.delete()

    def login(self, registry: str, user: str, password: str) -> str:
        from ..images.registry.login import login

        return "\n".join(login(registry, user, password))

    def logout(self, registry: str) -> str:
        from ..images.registry.login import logout

        return "\n".join(logout(registry))

    # -- the store

    def system_df(self) -> list[DiskUsage]:
        from ..images.usage import usage

        self._begin()
        if inside.needed():
            return list(inside.call(self.paths, "system_df"))
        records = [(name, state.read(self.folders.path(name), "container.json")) for name in self.folders.ids()]
        images, *rest = usage(self.store, Counter(record["image_id"] for _, record in records if record))
        items = [item for name, record in records if record and (item := self._container(name, record)) is not None]
        size, free = sum(item.size for item in items), sum(item.size for item in items if not item.uses)
        return [images, DiskUsage("Containers", len(items), sum(item.uses for item in items), size, free, tuple(items)), *rest]

    def _container(self, container_id: str, record: dict[str, Any]) -> DiskItem | None:
        """What it has written; ``uses`` is 1 while it runs."""
        folder = self.folders.path(container_id)
        now = state.read(folder, "state.json") or {}
        size = written(folder)
        if size is None:
            return None
        return DiskItem(record["name"], container_id, size, 0, size, record["created"], int(now.get("status") in state.ACTIVE))

    def prune_builds(self, all: bool = False, keep_bytes: int | None = None, until: float = 0.0) -> Pruned:
        self._begin()
        if inside.needed():
            found: Pruned = inside.call(self.paths, "prune_builds", all, keep_bytes, until)
            return found
        return self.store.prune_builds(all, keep_bytes, until)

    def verify(self, repair: bool = False) -> Work[list[Problem]]:
        from ..images.verify import verify

        self._begin()
        if inside.needed():
            there: list[Problem] = yield from inside.work(self.paths, "verify", repair)
            return there
        return (yield from verify(self.store, repair, self._images_running))

    def _images_running(self) -> set[str]:
        found = set()
        for name in self.folders.ids(steps=True):
            folder = self.folders.path(name)
            record, now = state.read(folder, "container.json"), state.read(folder, "state.json")
            if record and now and now["status"] in state.ACTIVE:
                found.add(record["image_id"])
        return found

    # -- inside

    def _local_tags(self, repository: Reference) -> list[Reference]:
        place = (repository.host, repository.path)
        found = [one.reference for one in self.store.named() if (one.reference.host, one.reference.path) == place and one.reference.tag]
        if not found:
            raise NotFound(f"no image of {replace(repository, tag='').familiar}", "images lists what is here")
        return sorted(found, key=lambda one: one.tag)

    def origins(self, blob: Descriptor) -> Iterable[Reference]:
        """Names by which registries know images that have this blob: they need not be sent it again."""
        for name in self.store.named():
            record = self.store.kept_as(name.image)
            if name.digest and record is not None and blob.digest in _blobs_of(self.store, record.layers):
                yield name.reference

    def _chosen(self, names: Sequence[str]) -> list[tuple[Image, list[str]]]:
        """Each image once, with the names by which it was asked for."""
        found: dict[str, tuple[Image, list[str]]] = {}
        for name in names:
            image = self.store.resolve(name)
            if not image.id:
                raise StateError("the empty image has nothing in it to save", "build something on it first")
            _, called = found.setdefault(image.id, (image, []))
            with contextlib.suppress(UsageError):
                familiar = reference.parse(name).familiar
                if familiar in image.names and "@" not in familiar and familiar not in called:
                    called.append(familiar)
        return list(found.values())


def written(folder: str) -> int | None:
    """Bytes that a container has written; None where it was removed meanwhile, or is too deep for anybody to count."""
    try:
        return layers.content_size(f"{folder}/upper")
    except (OSError, RecursionError):
        return None


def _absolute(place: str | BinaryIO) -> str | BinaryIO:
    """For a worker, who stands in another working directory."""
    return os.path.abspath(place) if isinstance(place, str) else place


def _blobs_of(store: Store, rows: Iterable[tuple[str, str, int]]) -> set[str]:
    folders = (os.path.dirname(store.layer_at(chain, diff, size).path) for diff, chain, size in rows)
    return {row["digest"] for folder in folders for row in store.blob_rows(folder)}


def _remote(name: str) -> Reference:
    """:raises UsageError: no name that a registry could have."""
    found = reference.parse(name)
    if word := reference.reserved(found):
        meaning = "this machine's own system" if word == "host" else "the empty image"
        raise UsageError(f"{name} is in no registry", f"it means {meaning}")
    return found


def _kept_as(found: Reference) -> Reference:
    """A digest pins; what stands as a tag beside it means nothing any more (as with Docker)."""
    return replace(found, tag="") if found.digest else found


def _registry(name: Reference, origins: Callable[[Descriptor], Iterable[Reference]] | None = None) -> Registry:
    from ..images.registry.client import Registry

    return Registry(name, origins=origins)


def _resolved(registry: Registry) -> Callable[[], str]:
    return lambda: registry.resolved.digest if registry.resolved else registry.reference.digest


def _every_tag(repository: Reference) -> list[Reference]:
    with _registry(repository) as registry:
        return [replace(repository, tag=tag, digest="") for tag in sorted(registry.tags())]


def _platform(text: str) -> Platform:
    from ..images.descriptor import Platform

    return Platform.parse(text) if text else Platform.own()


def _compression(kind: str) -> None:
    if kind not in ("", "gzip", "zstd"):
        raise UsageError(f"compression {kind!r} is not known", "gzip or zstd")


@contextlib.contextmanager
def _target(format: str, output: str | BinaryIO) -> Iterator[Any]:
    """The file has its name when it is whole."""
    from ..images import docker_archive, durable, oci_layout

    if format == "oci-dir":
        if not isinstance(output, str):
            raise UsageError("oci-dir is a folder", "give its path: --output FOLDER")
        yield oci_layout.FolderTarget(output)
        return
    make = docker_archive.DockerTarget if format == "docker-archive" else oci_layout.ArchiveTarget
    if not isinstance(output, str):
        yield make(output, "the archive")
        return
    if not os.path.isdir(os.path.dirname(output) or "."):
        raise NotFound(f"{os.path.dirname(output)} does not exist", "make the folder first")
    if os.path.isdir(output):
        raise UsageError(f"{output} is a folder", "name a file, or take --format oci-dir")
    if os.path.exists(output) and not os.path.isfile(output):
        with open(output, "wb") as file:  # a device or a FIFO
            yield make(file, output)
        return
    try:
        with durable.whole(output) as file:
            yield make(file, output)
    except PermissionError as error:
        if os.path.dirname(str(error.filename)) != (os.path.dirname(output) or "."):
            raise
        raise ContainersError(f"{output} cannot be written: {error.strerror}", "") from None


def _imported(store: Store, changes: Sequence[str], comment: str, platform: Platform | None) -> dict[str, Any]:
    from ..builder.plan import Plan
    from ..builder.stage import StageState
    from .commit import change

    stage = StageState(store.scratch(), Plan((), {}, frozenset(), ()), {})
    for text in changes:
        change(stage, text)
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")  # reproducible-builds.org: the same input gives the same image then
    now = datetime.fromtimestamp(int(epoch) if epoch.isdecimal() else time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = {**stage.config, "created": now, "history": [{"created": now, "comment": comment}]}
    return {**config, **platform.json()} if platform else config
