"""Dockerfile to image: parser → instructions → expansion → plan → solver → executor.

``parse(text)`` gives the raw instructions of a Dockerfile; building is :func:`pycontainers.builder.solver.build`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .parser import Dockerfile

__all__ = ["parse"]


def parse(text: str) -> Dockerfile:
    """The raw instructions of a Dockerfile. Raises :class:`pycontainers.errors.BuildError` with line and column."""
    from .parser import parse as parse_text  # on first use: importing this room costs nothing

    return parse_text(text)
