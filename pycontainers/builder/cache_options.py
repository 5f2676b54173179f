"""What ``--cache-from`` and ``--cache-to`` say: lists of ``name=value``, by Docker's names (docs.docker.com/build/cache/backends)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import ImageError, UsageError, near
from ..images import reference
from ..images.descriptor import check_digest

_KNOWN = {
    "local": {"src", "dest", "tag", "digest", "mode", "compression", "ignore-error", "oci-mediatypes", "image-manifest"},
    "registry": {"ref", "mode", "compression", "ignore-error", "oci-mediatypes", "image-manifest"},
    "inline": set[str](),
}


@dataclass(frozen=True)
class Place:
    """One ``--cache-from`` or ``--cache-to``, understood. ``text`` is what messages call it."""

    text: str
    kind: str
    where: str = ""
    tag: str = "latest"
    digest: str = ""
    everything: bool = False
    compression: str = ""
    ignore_errors: bool = False

    @classmethod
    def parse(cls, text: str, writing: bool) -> Place:
        """:raises UsageError: with what is wrong and what there is."""
        option = "--cache-to" if writing else "--cache-from"
        if "=" not in text:
            text = f"type=registry,ref={text}"
        said: dict[str, str] = {}
        for part in next(csv.reader([text]), []):
            name, equals, value = part.partition("=")
            if not equals or not value:
                raise UsageError(f"{option} {text!r}: {part!r} has no value", f"for example {option} {_example('local', writing)}")
            said[name.strip().lower()] = value
        kind = said.pop("type", "")
        if kind not in _KNOWN:
            known = ", ".join(_KNOWN)
            raise UsageError(f"{option} {text!r}: type {kind!r} is not known", near(kind, _KNOWN) or f"one of {known}")
        for name in said:
            if name not in _KNOWN[kind]:
                raise UsageError(f"{option} {text!r}: {name!r} is not known", near(name, _KNOWN[kind]) or ", ".join(sorted(_KNOWN[kind])))
        if kind == "inline" and not writing:
            raise UsageError(f"{option} type=inline names no image", f"{option} type=registry,ref=NAME takes what the image carries")
        place = "ref" if kind == "registry" else "dest" if writing else "src"
        if kind != "inline" and place not in said:
            raise UsageError(f"{option} {text!r} says no {place}", f"{option} {_example(kind, writing)}")
        return cls(
            text, kind, said.get(place, ""), said.get("tag", "latest"), said.get("digest", ""),
            _choice(option, said, "mode", "min", ("min", "max")) == "max",
            _choice(option, said, "compression", "", ("gzip", "zstd")),
            _choice(option, said, "ignore-error", "false", ("true", "false")) == "true",
        ).checked(option)  # fmt: skip

    def checked(self, option: str) -> Place:
        """:raises UsageError: a name or tag is none."""
        if self.kind == "registry":
            found = reference.parse(self.where)
            if word := reference.reserved(found):
                raise UsageError(f"{option} {self.where!r} is in no registry", f"{word!r} means something here already")
        elif self.kind == "local":
            reference.parse(layout_name(self.tag))
        if self.digest:
            try:
                check_digest(self.digest, option)
            except ImageError as error:
                raise UsageError(error.message, error.hint) from None
        return self


def _example(kind: str, writing: bool) -> str:
    return f"type={kind}," + ("ref=NAME" if kind == "registry" else "dest=FOLDER" if writing else "src=FOLDER")


def _choice(option: str, said: Mapping[str, str], name: str, usual: str, known: Sequence[str]) -> str:
    value = said.get(name, usual)
    if value != usual and value not in known:
        raise UsageError(f"{option}: {name}={value} is not known", " or ".join(known))
    return value


def check(cache_from: Iterable[str], cache_to: Iterable[str]) -> None:
    """Before anything is built. :raises UsageError: one of them makes no sense."""
    for writing, texts in ((False, cache_from), (True, cache_to)):
        for text in texts:
            Place.parse(text, writing)


def layout_name(tag: str) -> str:
    """An OCI layout names with names of images: a cache has a tag alone."""
    return f"cache:{tag}"
