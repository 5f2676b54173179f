"""The dashboard as data: what there is, who uses it, and what somebody may have forgotten."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from .objects import Container, ContainerList, Image, ImageList
from .protocol import ContainerInfo, Engine, ImageInfo
from .text import span

ACTIVE = ("starting", "running", "paused", "restarting")
LONG = 86400.0
"""Seconds. Who lets a container run for longer without a restart policy may have forgotten it."""


def warnings(info: ContainerInfo, now: float | None = None) -> list[str]:
    """Why a running container may be forgotten, and what it says of itself (:attr:`ContainerInfo.notes`); [] for nothing."""
    return [*forgotten(info, now), *info.notes]


def forgotten(info: ContainerInfo, now: float | None = None) -> list[str]:
    """One line for each reason to think that nobody needs it any more."""
    if info.status not in ACTIVE:
        return []
    found = []
    if notebook_gone(info.notebook):
        found.append(f"its notebook {os.path.basename(info.notebook)} is gone")
    ran = (time.time() if now is None else now) - info.started if info.started else 0.0
    if ran > LONG and info.restart.name == "no" and info.lifetime == "detached":
        found.append(f"has been running for {span(ran)}")
    return found


def notebook_gone(notebook: str) -> bool:
    """Whether the notebook that made it was deleted, or given another name. Jupyter Server names it by its whole path; what is no path
    that can be looked at (VS Code adds a mark of its own) is never gone."""
    return os.path.isabs(notebook) and notebook.endswith(".ipynb") and not os.path.exists(notebook)


def users(images: Iterable[ImageInfo], containers: Iterable[ContainerInfo]) -> dict[str, list[str]]:
    """Image id → the names of its containers."""
    found: dict[str, list[str]] = {info.id: [] for info in images}
    for info in containers:
        if info.image_id in found:
            found[info.image_id].append(info.name)
    return found


@dataclass
class Dashboard:
    """Everything that there is, as one object; a notebook shows it as a live view.

    :param form: how it wants to be shown: ``live`` or ``static``.
    """

    engine: Engine
    form: str = "live"
    containers: ContainerList = field(init=False)
    images: ImageList = field(init=False)

    def __post_init__(self) -> None:
        self.reload()

    def reload(self) -> Dashboard:
        """Read everything anew."""
        self.containers = ContainerList(Container(self.engine, info) for info in self.engine.containers(True))
        self.images = ImageList(Image(self.engine, info) for info in self.engine.images())
        return self

    def summary(self) -> str:
        """``20 containers, 12 running; 8 images``."""
        active = sum(item.known.status in ACTIVE for item in self.containers)
        return f"{_count(len(self.containers), 'container')}, {active} running; {_count(len(self.images), 'image')}"

    def __repr__(self) -> str:
        return "\n\n".join([self.summary(), repr(self.containers), repr(self.images)])


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
