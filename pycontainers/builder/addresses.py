"""Which sources are addresses."""

from __future__ import annotations

import re

SCHEME = re.compile(r"(https?|ssh|git)://", re.IGNORECASE)
_SCP = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:(?!//)")


def kind(text: str) -> str:
    """``git`` or ``http`` for an address, "" for anything else. An http(s) address whose path ends in ``.git`` is a repository's."""
    if is_repository(text):
        return "git"
    found = SCHEME.match(text)
    return "http" if found and found[1].lower() in ("http", "https") else ""


def is_repository(text: str) -> bool:
    """Docker's rule: ``git://``, ``ssh://``, ``user@host:path``, and http(s) whose path ends in ``.git``."""
    if _SCP.match(text):
        return True
    found = SCHEME.match(text)
    if not found:
        return False
    path = text.partition("#")[0].partition("?")[0]
    return found[1].lower() in ("git", "ssh") or path.endswith(".git")
