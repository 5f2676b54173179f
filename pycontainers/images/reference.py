"""Names of images by Docker's grammar (distribution/reference): ``[host[:port]/]path[:tag][@digest]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UsageError

DEFAULT_HOST, DEFAULT_TAG = "docker.io", "latest"
RESERVED = ("host", "scratch")
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\Z")
_HOST = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*(?::[0-9]{1,5})?\Z|"
    r"\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?\Z"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Reference:
    """A normalised name: ``visits`` is ``docker.io/library/visits:latest``."""

    host: str
    path: str
    tag: str
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.host}/{self.path}" + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def familiar(self) -> str:
        """As Docker's users write it: without the default host and its ``library/``."""
        path = self.path.removeprefix("library/") if self.host == DEFAULT_HOST and self.path.count("/") == 1 else self.path
        name = path if self.host == DEFAULT_HOST else f"{self.host}/{path}"
        return name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """Normalise a name. :raises UsageError: naming the part that is wrong."""
    rest, _, digest = text.partition("@")
    if digest and not _DIGEST.match(digest):
        raise UsageError(f"image name {text!r}: {digest!r} is not a digest", "sha256: and 64 hexadecimal digits")
    first, slash, remainder = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        host, path = DEFAULT_HOST if first == "index.docker.io" else first, remainder
    else:
        host, path = DEFAULT_HOST, rest
    path, colon, tag = path.rpartition(":") if ":" in path else (path, "", "")
    if colon and not _TAG.match(tag):
        raise UsageError(f"image name {text!r}: {tag!r} is not a tag", "letters, digits, '_', '.' and '-', at most 128")
    if not _HOST.match(host):
        raise UsageError(f"image name {text!r}: {host!r} is not a host", "for example registry.example.com:5000/name:tag")
    if not _PATH.match(path):
        hint = (
            f"in lower case: {path.lower()}"
            if _PATH.match(path.lower())
            else "lower-case letters, digits and single '.', '_', '-' between them"
        )
        raise UsageError(f"image name {text!r} is not valid", hint)
    if host == DEFAULT_HOST and re.fullmatch("[0-9a-f]{64}", path):
        raise UsageError(f"image name {text!r} cannot be told from an image id", "add a letter beyond f, or a '-'")
    if len(path) > 255:
        raise UsageError(f"image name of {len(path)} characters is too long", "at most 255")
    if host == DEFAULT_HOST and "/" not in path:
        path = f"library/{path}"
    return Reference(host, path, tag or ("" if digest else DEFAULT_TAG), digest)


def check_host(text: str) -> str:
    """``host[:port]`` of a registry. :raises UsageError: it is none, or would be a part of a path in a name."""
    if not _HOST.match(text):
        raise UsageError(f"{text!r} is not a registry", "host[:port], for example ghcr.io or localhost:5000")
    if parse(f"{text}/x").host != text:
        raise UsageError(f"{text!r} is not a registry: in names it is a folder of docker.io", f"with a port, for example {text}:443")
    return text


def reserved(found: Reference) -> str:
    """``host`` or ``scratch`` where the name means that, however it is written; else ""."""
    name = found.path.removeprefix("library/")
    return name if found.host == DEFAULT_HOST and name in RESERVED and found.tag == DEFAULT_TAG and not found.digest else ""


def check_free(text: str) -> Reference:
    """A name that may be given to an image. :raises UsageError: it is reserved or carries a digest."""
    found = parse(text)
    if reserved(found):
        meaning = "this machine's own system" if reserved(found) == "host" else "the empty image"
        raise UsageError(f"image name {text!r} is reserved", f"it always means {meaning}; choose another name or a tag of your own")
    if found.digest:
        raise UsageError(f"image name {text!r} has a digest", "a name that is given has a tag at most")
    return found
