"""What is in an image, layer by layer, as plain data: what ``explore`` shows. On the ground: no room is imported here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


def shown(name: str) -> str:
    """A file's name as one line of printable text. A layer may hold any bytes: what cannot be shown stands there as ``\\xNN``,
    so that two names never look the same and none hides a part of itself.
    """
    text = name.replace("\\", "\\\\").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _UNSHOWN.sub(lambda found: f"\\x{ord(found[0]):02x}" if ord(found[0]) < 256 else f"\\u{ord(found[0]):04x}", text)


class FileChange(NamedTuple):
    """What a layer does with one path.

    path: from "/", with any bytes (surrogateescape); kind: A (added), C (changed), D (removed).
    size: bytes of the file in this layer, of a removed one 0; type: file, folder, link, device, pipe, socket or "" for a removed one.
    hidden: bytes of older layers that nobody sees any more because of it. mode: permission bits; target: of a link.
    """

    path: str
    kind: str
    size: int
    type: str
    hidden: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    target: str = ""


@dataclass(frozen=True)
class LayerContents:
    """One layer: ``size`` bytes of its files, ``created_by`` the step that made it; ``changes`` sorted by path.

    Folders are listed where they are new or differ, not where they only hold something.
    """

    number: int
    diff_id: str
    size: int
    created_by: str
    created: float
    changes: tuple[FileChange, ...]

    def count(self, kind: str) -> int:
        return sum(change.kind == kind for change in self.changes)

    @property
    def hidden(self) -> int:
        """Bytes of older layers that it removes or replaces."""
        return sum(change.hidden for change in self.changes)


@dataclass(frozen=True)
class Waste:
    """A path of which the image carries more than anybody sees: ``size`` bytes in ``times`` older versions."""

    path: str
    size: int
    times: int


@dataclass(frozen=True)
class Contents:
    """An image's layers, lowest first. ``host``: it stands on this machine's own system, which is no layer."""

    id: str
    names: tuple[str, ...]
    layers: tuple[LayerContents, ...]
    host: bool = False
    wasted: tuple[Waste, ...] = field(default=())

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)

    @property
    def wasted_size(self) -> int:
        """Bytes that every copy of the image carries and no container sees."""
        return sum(waste.size for waste in self.wasted)

    @property
    def efficiency(self) -> float:
        """The part of its bytes that a container sees: 0 to 1."""
        return 1.0 - self.wasted_size / self.size if self.size else 1.0

    def files(self, layer: int | None = None) -> Iterator[FileChange]:
        """What one layer does (by number, from 1), or what all of them together leave: each path once, nothing that was removed."""
        if layer is not None:
            yield from self.layers[layer - 1].changes
            return
        final: dict[str, FileChange] = {}
        for found in self.layers:
            # What was below a folder that is gone is gone with it.
            gone = {change.path for change in found.changes if change.kind == "D" or (change.kind == "C" and change.type != "folder")}
            if gone:
                final = {path: change for path, change in final.items() if not any(above in gone for above in _and_above(path))}
            final.update((change.path, change) for change in found.changes if change.kind != "D")
        yield from sorted(final.values())

    def biggest(self, count: int = 10) -> list[FileChange]:
        """The biggest files of all layers."""
        every = (change for layer in self.layers for change in layer.changes if change.size)
        return sorted(every, key=lambda change: (-change.size, change.path))[:count]


def _and_above(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]
