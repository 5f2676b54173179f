"""The program of ``--init``."""

from __future__ import annotations

from ..errors import UsageError


def path(home: str) -> str:
    """Where it lies on this machine."""
    raise UsageError("--init is not built yet", "leave it out")
