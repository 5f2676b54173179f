"""Manifests, indexes and configs: JSON from people who may mean harm, checked before anybody uses a field of it.

What two programs read differently is refused, not interpreted: a document that is a manifest and an index at once
(CVE-2021-41190), a name that stands twice in an object, a media type that is not the one it was sent as.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import ImageError, NotFound
from . import descriptor
from .descriptor import Descriptor, Platform

MANIFEST_SIZE, CONFIG_SIZE = 4 << 20, 8 << 20  # bytes: registries refuse larger manifests; containerd reads no larger configs
_VAGUE = ("", "application/json", "application/octet-stream", "text/plain")  # what servers say of JSON that they do not know


@dataclass(frozen=True)
class Manifest:
    """One image for one platform. ``raw`` are its bytes as they came, ``digest`` theirs."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    media_type: str
    raw: bytes
    digest: str

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, len(self.raw))


@dataclass(frozen=True)
class Index:
    """Manifests for several platforms (Docker: a manifest list)."""

    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    media_type: str
    raw: bytes
    digest: str

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, len(self.raw))

    def images(self) -> list[Descriptor]:
        """What can be run: without attestations (BuildKit lists them for the platform unknown/unknown)."""
        return [
            one
            for one in self.manifests
            if "vnd.docker.reference.type" not in one.annotations and (one.platform is None or one.platform.os != "unknown")
        ]

    def choose(self, wanted: Platform) -> Descriptor:
        """The best for ``wanted``; the first of equals. What names no platform is taken last. :raises NotFound: naming what there is."""
        offered = self.images()
        for platform in wanted.runs():
            for one in offered:
                if one.platform == platform:
                    return one
        unnamed = [one for one in offered if one.platform is None]
        if unnamed:
            return unnamed[0]
        there = ", ".join(dict.fromkeys(str(one.platform) for one in offered)) or "no image at all"
        raise NotFound(f"no image for {wanted} in {self.digest[:19]}", f"there is {there}: choose one with --platform")


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def make(
    config: Descriptor,
    layers: Iterable[Descriptor],
    annotations: Mapping[str, str] | None = None,
    media_type: str = descriptor.OCI_MANIFEST,
) -> Manifest:
    """A manifest of ours. The same input gives the same bytes."""
    found = tuple(layers)
    said: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": config.json(),
        "layers": [layer.json() for layer in found],
    }
    if annotations:
        said["annotations"] = dict(annotations)
    raw = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return Manifest(config, found, dict(annotations or {}), media_type, raw, digest(raw))


def parse(data: bytes, media_type: str | None = None, configs: Collection[str] = descriptor.CONFIGS) -> Manifest | Index:
    """Read a manifest or an index.

    :param media_type: as which it was sent (the Content-Type header, or the descriptor that named it); None where nobody says.
    :param configs: media types of configs; others than an image's make it something else that registries keep.
    :raises ImageError: malformed, ambiguous, too large, or of a kind that holds no image.
    """
    if len(data) > MANIFEST_SIZE:
        raise ImageError(f"manifest of {len(data)} bytes is too large", f"at most {MANIFEST_SIZE}")
    said = document(data, "manifest")
    kind = _kind(said, (media_type or "").partition(";")[0].strip().lower())
    notes = descriptor.strings(said, "annotations", "manifest")
    if kind in descriptor.INDEXES:
        rows = _list(said, "manifests", "index")
        found = tuple(Descriptor.parse(row, f"index: manifest {number}") for number, row in enumerate(rows, 1))
        return Index(found, notes, kind, data, digest(data))
    config = Descriptor.parse(said.get("config"), "manifest: config")
    if config.media_type not in configs:
        raise ImageError(f"this is no container image: its config is {config.media_type}", "it is meant for another program")
    if config.size > CONFIG_SIZE:
        raise ImageError(f"manifest: config of {config.size} bytes is too large", f"at most {CONFIG_SIZE}")
    layers = tuple(_layer(row, number) for number, row in enumerate(_list(said, "layers", "manifest"), 1))
    return Manifest(config, layers, notes, kind, data, digest(data))


def document(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object, strictly: UTF-8, no name twice in an object, no NaN, no lone surrogates. :raises ImageError: anything else."""
    try:
        said = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
        json.dumps(said, ensure_ascii=False).encode()  # \ud800 alone is no text: it could not be written anywhere
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ImageError(f"{what} is not valid JSON: {reason:.120}") from None
    if not isinstance(said, dict):
        raise ImageError(f"{what} is not a JSON object but {said!r:.60}")
    return said


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in an object")
    return found


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _kind(said: dict[str, Any], sent: str) -> str:
    """The media type, where header, field and content agree."""
    own = said.get("mediaType")
    if own is not None and not isinstance(own, str):
        raise ImageError(f"manifest: mediaType {own!r:.60} is not a string")
    if sent in descriptor.SCHEMA_1 or own in descriptor.SCHEMA_1 or said.get("schemaVersion") == 1 or "fsLayers" in said:
        raise ImageError("this manifest is of schema 1, which no current engine reads", "push the image again with a current one")
    if isinstance(said.get("schemaVersion"), bool) or said.get("schemaVersion") != 2:
        raise ImageError(f"manifest: schemaVersion is {said.get('schemaVersion')!r:.40}, not 2")
    lists, parts = "manifests" in said, "layers" in said or "config" in said
    if lists and parts:
        raise ImageError("manifest and index at once: it has both 'manifests' and 'layers' or 'config'", "do not trust who made this image")
    if own and sent not in _VAGUE and own != sent:
        raise ImageError(f"manifest: sent as {sent:.80}, but it says it is {own:.80}", "its registry or its maker is broken")
    kind = own or ("" if sent in _VAGUE else sent) or (descriptor.OCI_INDEX if lists else descriptor.OCI_MANIFEST)
    if kind not in descriptor.INDEXES | descriptor.MANIFESTS:
        raise ImageError(f"manifest of type {kind:.80} is not one of a container image")
    if (kind in descriptor.INDEXES and parts) or (kind in descriptor.MANIFESTS and lists):
        raise ImageError(f"manifest: the content is not what its type {kind} says", "do not trust who made this image")
    return kind


def _list(said: dict[str, Any], name: str, what: str) -> list[Any]:
    found = said.get(name)
    if found is None and name == "layers":
        found = []  # Go writes null for an empty list
    if not isinstance(found, list):
        raise ImageError(f"{what}: {name} is {found!r:.60}, not a list")
    return found


def _layer(row: Any, number: int) -> Descriptor:
    found = Descriptor.parse(row, f"layer {number}")
    if found.media_type in descriptor.FOREIGN:
        raise ImageError(f"layer {number} may not be distributed ({found.media_type})", "such layers hold Windows, or lie with their owner")
    if found.media_type not in descriptor.LAYERS:
        raise ImageError(f"layer {number} is of type {found.media_type}, which is not a layer's", "encrypted, or no container image")
    return found


# -- configs

_TEXTS, _OBJECT, _TEXT_MAP = "a list of strings", "an object", "an object of strings"
_CONFIG_TYPES: dict[str, str] = {
    "User": "a string",
    "WorkingDir": "a string",
    "StopSignal": "a string",
    "StopTimeout": "a number",
    "Env": _TEXTS,
    "Entrypoint": _TEXTS,
    "Cmd": _TEXTS,
    "Shell": _TEXTS,
    "OnBuild": _TEXTS,
    "ExposedPorts": _OBJECT,
    "Volumes": _OBJECT,
    "Labels": _TEXT_MAP,
    "Healthcheck": _OBJECT,
}
_HEALTH_TYPES = dict.fromkeys(("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"), "a number") | {"Test": _TEXTS}
_TOP_TYPES = dict.fromkeys(("architecture", "os", "variant", "created", "author"), "a string") | {"config": _OBJECT, "rootfs": _OBJECT}
_HISTORY_TYPES = dict.fromkeys(("created", "created_by", "comment", "author"), "a string") | {"empty_layer": "true or false"}


def config(data: bytes, layers: int | None = None) -> dict[str, Any]:
    """An image config whose every field that anybody uses has the type it must have; fields that are null are left out.

    :param layers: how many the manifest has; ``rootfs.diff_ids`` must have as many.
    :raises ImageError: malformed, for another operating system, or not fitting the manifest.
    """
    if len(data) > CONFIG_SIZE:
        raise ImageError(f"image config of {len(data)} bytes is too large", f"at most {CONFIG_SIZE}")
    said = _typed(document(data, "image config"), _TOP_TYPES, "image config")
    if said.get("os") not in (None, "", "linux"):
        raise ImageError(f"the image is for {said['os']}/{said.get('architecture', '')}", "only Linux runs on this kernel")
    if "config" in said:
        said["config"] = _typed(said["config"], _CONFIG_TYPES, "image config")
        if "Healthcheck" in said["config"]:
            said["config"]["Healthcheck"] = _typed(said["config"]["Healthcheck"], _HEALTH_TYPES, "image config: Healthcheck")
    history = said.get("history")
    if history is None:
        said.pop("history", None)
    elif not isinstance(history, list) or not all(isinstance(row, dict) for row in history):
        raise ImageError("image config: history is not a list of objects")
    else:
        said["history"] = [_typed(row, _HISTORY_TYPES, f"image config: history {number}") for number, row in enumerate(history, 1)]
    root = said.get("rootfs", {})
    ids = root.get("diff_ids")
    if root.get("type", "layers") != "layers" or not isinstance(ids, list | None):
        raise ImageError(f"image config: rootfs is {root!r:.80}", "type must be 'layers', diff_ids a list of digests")
    found = [descriptor.check_digest(one, f"image config: diff_id {number}") for number, one in enumerate(ids or [], 1)]
    if layers is not None and len(found) != layers:
        raise ImageError(f"the image has {layers} layers, but its config names {len(found)}", "config and manifest do not belong together")
    said["rootfs"] = {"type": "layers", "diff_ids": found}
    return said


def _typed(said: dict[str, Any], types: dict[str, str], where: str) -> dict[str, Any]:
    for name, kind in types.items():
        value = said.get(name)
        if value is not None and not _is(value, kind):
            raise ImageError(f"{where}: {name} is {value!r:.60}, not {kind}")
    return {name: value for name, value in said.items() if value is not None or name not in types}


def _is(value: Any, kind: str) -> bool:
    if kind == "a string":
        return isinstance(value, str) and "\0" not in value  # execve(2) and open(2) would end the text there
    if kind == "a number":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "true or false":
        return isinstance(value, bool)
    if kind == _TEXTS:
        return isinstance(value, list) and all(isinstance(text, str) and "\0" not in text for text in value)
    if kind == _TEXT_MAP:
        return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    return isinstance(value, dict)
