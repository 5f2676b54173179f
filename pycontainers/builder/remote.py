"""Sources of ADD that are addresses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..images.view import Node
from .sources import CopyError, Source

_URL = re.compile(r"(https?://|git://|git@|ssh://)", re.IGNORECASE)


@dataclass(frozen=True)
class Fetched:
    source: Source
    node: Node
    name: str
    key: str


def kind(text: str) -> str:
    return "http" if _URL.match(text) else ""


def fetch(url: str, folder: str, *, checksum: str, epoch: int | None, check: Callable[[], None]) -> Fetched:
    raise CopyError(f"ADD of a URL is not supported yet: {url}", "fetch it in a RUN, or into the context, and COPY it")


def clone(url: str, folder: str, *, checksum: str, keep_git_dir: bool, check: Callable[[], None]) -> Fetched:
    raise CopyError(f"ADD of a repository is not supported yet: {url}", "clone it in a RUN")
