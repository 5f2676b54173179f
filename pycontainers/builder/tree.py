"""The typed tree of a Dockerfile: one class for each instruction. Values are as written; :mod:`.instructions` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .parser import Dockerfile, Heredoc, Raw
from .run_flags import RunMount

SCRIPTS = "/dev/pipes"
"""Where a here-document that names its own interpreter is a file while it runs (BuildKit's place)."""


@dataclass(frozen=True)
class Instruction:
    """Base of all. ``raw`` has the position and the text as written."""

    raw: Raw


@dataclass(frozen=True)
class Command:
    """What RUN, CMD and ENTRYPOINT take: a JSON list (exec form) or one line for the shell (``words`` is that line alone)."""

    shell: bool
    words: tuple[str, ...]


@dataclass(frozen=True)
class From(Instruction):
    """``name`` is in lower case, "" for none; ``platform`` as written."""

    base: str
    name: str
    platform: str


@dataclass(frozen=True)
class Run(Instruction):
    """``mounts`` as written (:func:`.run_flags.mounts` with the variables known gives those to make).

    :param script: a here-document that names its own interpreter; ``command`` is the file that it is while it runs, in :data:`SCRIPTS`.
    """

    command: Command
    network: str
    mounts: tuple[RunMount, ...] = ()
    script: Heredoc | None = None


@dataclass(frozen=True)
class Copy(Instruction):
    """COPY and ADD (``add``). ``source_stage`` is the value of ``--from``. ``inline`` sources are here-documents.

    :param exclude: patterns of ``--exclude``. ``checksum``: ``sha256:…``, or a commit, "" for none; ``unpack``: None is ADD's own rule.
    """

    sources: tuple[str, ...]
    inline: tuple[Heredoc, ...]
    destination: str
    source_stage: str
    chown: str
    chmod: str
    add: bool
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None


@dataclass(frozen=True)
class HealthCheck(Instruction):
    """``settings`` is the image config's ``Healthcheck`` object (Docker: ``Test``; ``Interval``, ``Timeout``, … in nanoseconds)."""

    settings: dict[str, Any]


@dataclass(frozen=True)
class OnBuild(Instruction):
    """``trigger`` is the instruction to run in a build that stands on this image, as written."""

    trigger: str


@dataclass(frozen=True)
class Env(Instruction):
    """``legacy``: written as ``NAME value``, without ``=``."""

    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


@dataclass(frozen=True)
class Label(Instruction):
    """``legacy`` as for ENV."""

    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


@dataclass(frozen=True)
class Arg(Instruction):
    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class Workdir(Instruction):
    path: str


@dataclass(frozen=True)
class User(Instruction):
    user: str


@dataclass(frozen=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True)
class Cmd(Instruction):
    command: Command


@dataclass(frozen=True)
class Entrypoint(Instruction):
    command: Command


@dataclass(frozen=True)
class StopSignal(Instruction):
    signal: str


@dataclass(frozen=True)
class Shell(Instruction):
    words: tuple[str, ...]


@dataclass(frozen=True)
class Volume(Instruction):
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Maintainer(Instruction):
    name: str


@dataclass(frozen=True)
class Block:
    """A stage as it is written: its FROM, and what follows until the next one."""

    start: From
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True)
class Tree:
    """A whole Dockerfile: ``instructions`` in order; ``dockerfile`` is what the parser read, with ``directives`` and ``escape``."""

    instructions: tuple[Instruction, ...]
    dockerfile: Dockerfile

    @property
    def head(self) -> tuple[Instruction, ...]:
        """What stands before the first FROM (ARGs, where it is right)."""
        starts = [index for index, item in enumerate(self.instructions) if isinstance(item, From)]
        return self.instructions[: starts[0]] if starts else self.instructions

    @property
    def stages(self) -> tuple[Block, ...]:
        starts = [(index, item) for index, item in enumerate(self.instructions) if isinstance(item, From)]
        ends = [index for index, _ in starts[1:]] + [len(self.instructions)]
        return tuple(Block(item, self.instructions[index + 1:end]) for (index, item), end in zip(starts, ends, strict=True))
