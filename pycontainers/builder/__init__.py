"""Dockerfile to image: parser → instructions → expansion → plan → solver → executor.

``parse(text)`` gives the typed tree of a Dockerfile; building is :func:`pycontainers.builder.solver.build`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tree import Tree

__all__ = ["parse"]


def parse(text: str | bytes) -> Tree:
    """The typed tree of a Dockerfile: what each instruction says, in the classes of :mod:`pycontainers.builder.tree`, and where.

    Nothing is expanded, fetched or looked up; values stand as they are written. ::

        tree = parse("FROM debian AS base\\nRUN --mount=type=cache,target=/var/cache/apt apt-get update")
        (stage,) = tree.stages
        stage.start.base, stage.start.name        # 'debian', 'base'
        run = stage.instructions[0]               # tree.Run
        run.command.words, run.mounts[0].target   # ('apt-get update',), '/var/cache/apt'
        run.raw.line, run.raw.column              # 2, 1; run.raw.place(offset) is where a part of its arguments stands

    :param text: bytes are taken as UTF-8.
    :raises BuildError: with line and column, the line's text, and a hint (:class:`pycontainers.errors.BuildError`).
    """
    from .instructions import interpret  # on first use: importing this room costs nothing
    from .parser import parse as parse_text
    from .tree import Tree

    dockerfile = parse_text(text)
    return Tree(tuple(interpret(dockerfile)), dockerfile)
