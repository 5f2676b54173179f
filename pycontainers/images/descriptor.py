"""What the OCI image specification names by content: media types, descriptors, platforms (image-spec: descriptor.md, image-index.md)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ImageError, UsageError

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"  # plain inside docker-archive; in registries with .gzip

INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
SCHEMA_1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream"})  # the last by Docker 1.10's pushes; distribution takes it too
LAYERS = {
    OCI_LAYER: "none",
    f"{OCI_LAYER}+gzip": "gzip",
    f"{OCI_LAYER}+zstd": "zstd",
    DOCKER_LAYER: "none",
    f"{DOCKER_LAYER}.gzip": "gzip",
    f"{DOCKER_LAYER}.zstd": "zstd",
}
"""Media types of layers that we can unpack, and how they say they are compressed. Readers go by the bytes: the word is often wrong."""
FOREIGN = frozenset(
    {
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    }
)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\Z")  # RFC 6838, section 4.2
_MOST = 1 << 53  # bytes: what every JSON library can carry
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "i486": "386", "i586": "386", "i686": "386"}
_MACHINES = {
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
    "armv5tel": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v7"),  # a 32-bit process on a 64-bit kernel
}
_USUAL = {"arm": "v7", "arm64": "v8", "amd64": "v1"}  # variants that go without saying


@dataclass(frozen=True)
class Platform:
    """Operating system, architecture and variant by Go's names; normalised, so that two that mean the same are equal."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def make(cls, os: str, architecture: str, variant: str = "") -> Platform:
        """Normalised as containerd does it: ``x86_64`` is ``amd64``, ``arm`` means ``arm/v7``, ``arm64/v8`` is ``arm64``."""
        os, architecture, variant = os.lower(), architecture.lower(), variant.lower()
        if architecture in _MACHINES:
            architecture, implied = _MACHINES[architecture]
            variant = variant or implied
        architecture = _ARCHITECTURES.get(architecture, architecture)
        if variant and variant[0].isdigit():
            variant = f"v{variant}"
        if architecture == "arm":
            variant = variant or "v7"
        elif variant == _USUAL.get(architecture):
            variant = ""
        return cls(os, architecture, variant)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """``linux/arm64/v8``, or an architecture alone (``arm64``). :raises UsageError: neither."""
        parts = text.strip().split("/")
        if len(parts) > 3 or not all(re.fullmatch(r"[A-Za-z0-9_.-]+", part) for part in parts):
            raise UsageError(f"platform {text!r} is not valid", "for example linux/arm64, linux/arm/v7 or amd64")
        if len(parts) == 1:
            if parts[0].lower() == "linux":
                return cls("linux", *_own_machine())
            return cls.make("linux", parts[0])
        return cls.make(*parts)

    @classmethod
    def own(cls) -> Platform:
        """This machine's."""
        return cls("linux", *_own_machine())

    def json(self) -> dict[str, str]:
        said = {"architecture": self.architecture, "os": self.os}
        return said | ({"variant": self.variant} if self.variant else {})

    def runs(self) -> list[Platform]:
        """What a machine of this platform can run, the best first (containerd's order)."""
        if self.architecture == "arm" and re.fullmatch(r"v[5-9]", self.variant):
            return [Platform(self.os, "arm", f"v{number}") for number in range(int(self.variant[1:]), 4, -1)]
        if self.architecture == "arm64":
            older = [Platform(self.os, "arm64")] if self.variant else []
            return [self, *older, *Platform(self.os, "arm", "v8").runs()]
        if self.architecture == "amd64":
            level = int(self.variant[1:]) if re.fullmatch(r"v[2-9]", self.variant) else 1
            lower = [Platform(self.os, "amd64", f"v{number}" if number > 1 else "") for number in range(level, 0, -1)]
            return [*lower, Platform(self.os, "386")]
        return [self]


def _own_machine() -> tuple[str, str]:
    machine = os.uname().machine
    found = Platform.make("linux", machine)
    return found.architecture, found.variant


@dataclass(frozen=True)
class Descriptor:
    """A blob by content: ``size`` bytes whose SHA-256 is ``digest`` (``sha256:`` and 64 hexadecimal digits)."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    platform: Platform | None = field(default=None, compare=False)

    @property
    def short(self) -> str:
        """Twelve digits, as people are shown it."""
        return self.digest[7:19]

    @property
    def hex(self) -> str:
        return self.digest[7:]

    @property
    def compression(self) -> str:
        """``none``, ``gzip`` or ``zstd``, as the media type says; "" where it is no layer's."""
        return LAYERS.get(self.media_type, "")

    def json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        said: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            said["annotations"] = dict(self.annotations)
        if self.platform:
            said["platform"] = self.platform.json()
        return said

    @classmethod
    def parse(cls, value: Any, where: str) -> Descriptor:
        """From JSON that nobody vouches for; ``where`` is what the error names (``layer 3``). :raises ImageError: it is malformed."""
        if not isinstance(value, dict):
            raise ImageError(f"{where} is {value!r:.60}, not a descriptor")
        kind, size = value.get("mediaType"), value.get("size")
        if not isinstance(kind, str) or not _TYPE.match(kind):
            raise ImageError(f"{where}: mediaType {kind!r:.80} is not a media type")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MOST:
            raise ImageError(f"{where}: size {size!r:.40} is not a number of bytes")
        return cls(kind, check_digest(value.get("digest"), where), size, strings(value, "annotations", where), _platform(value, where))


def check_digest(value: Any, where: str) -> str:
    """:raises ImageError: not a SHA-256 digest, or one by another algorithm."""
    if isinstance(value, str) and _DIGEST.match(value):
        return value
    if isinstance(value, str) and re.match(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}\Z", value) and not value.startswith("sha256:"):
        raise ImageError(f"{where}: digests by {value.partition(':')[0]} are not supported", "push the image again with sha256 digests")
    raise ImageError(f"{where}: {value!r:.90} is not a digest", "sha256: and 64 hexadecimal digits in lower case")


def strings(value: dict[str, Any], name: str, where: str) -> dict[str, str]:
    """The object ``name``, whose values are strings; missing or null is empty. :raises ImageError: anything else."""
    found = value.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ImageError(f"{where}: {name} is not an object of strings")
    return found


def _platform(value: dict[str, Any], where: str) -> Platform | None:
    found = value.get("platform")
    if found is None:
        return None
    if not isinstance(found, dict):
        raise ImageError(f"{where}: platform is {found!r:.60}, not an object")
    parts = [found.get(name) or "" for name in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) for part in parts):
        raise ImageError(f"{where}: platform {found!r:.80} is not made of strings")
    return Platform.make(*parts) if parts[0] or parts[1] else None
