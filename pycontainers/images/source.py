"""Where images come from and go to: a registry, an archive, a folder. `fetch` reads a Source into the store, `ship` writes to a Target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from .descriptor import Descriptor, Platform
from .manifest import Manifest


class Reader(Protocol):
    """Bytes being read; any file opened for reading in binary is one."""

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes, often fewer; b"" is the end."""

    def close(self) -> None: ...


class Source(Protocol):
    """One image, in one place. ``open`` is called by several threads at once.

    Whoever reads checks digests and sizes: a source promises neither.
    """

    @property
    def name(self) -> str:
        """For messages: ``localhost:5000/a:1``, ``x.tar``."""

    def manifest(self, platform: Platform) -> Manifest:
        """The image for ``platform``, chosen from an index where there is one. :raises NotFound: no such image, or not for the platform."""

    def config(self, manifest: Manifest) -> bytes:
        """The image config's bytes, verified: they are what ``manifest.config`` says."""

    def open(self, blob: Descriptor, offset: int = 0) -> Reader:
        """A layer's bytes from ``offset`` on. Breaks on the way are mended inside; closing it ends the transfer at once."""

    def close(self) -> None: ...


class Target(Protocol):
    """Where one image goes. ``has`` and ``put`` are called by several threads at once, ``finish`` once, after all of them."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def plain(self) -> bool:
        """Whether layers must come uncompressed (docker-archive)."""

    def has(self, blob: Descriptor) -> bool:
        """Whether it is there, or could be taken from elsewhere in the same registry without sending it."""

    def put(self, blob: Descriptor, open: Callable[[], Reader], sent: Callable[[int], None]) -> None:
        """Write one blob: a layer or a config.

        :param open: gives the content from its beginning; called again after a break.
        :param sent: told how many bytes of the blob are there, again and again; less than before when something is sent again.
        """

    def finish(self, manifest: Manifest, names: Sequence[str]) -> None:
        """The manifest, which makes the image visible under ``names`` (a registry: under its own name where there are none)."""

    def close(self) -> None: ...
