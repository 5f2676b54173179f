"""Names of containers: given ones checked, missing ones made up (two words, as Docker does)."""

from __future__ import annotations

import random
import re

from ..errors import UsageError

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}\Z")
_FIRST = (
    "amber brave calm clever daring eager fair gentle happy keen lively lucid merry noble patient quick quiet sunny swift witty".split()
)
_SECOND = (
    "babbage boole cerf curie dijkstra euler franklin gauss goodall hamilton hopper kepler knuth lamport liskov lovelace noether "
    "perlman ritchie shannon thompson torvalds turing wilkes"
).split()


def check(name: str) -> str:
    """``name`` if it fits Docker's rule for names. :raises UsageError:"""
    if not _NAME.match(name):
        raise UsageError(f"container name {name!r} is not valid", "letters, digits, '_', '.' and '-', beginning with a letter or digit")
    return name


def invent() -> str:
    """A random readable name. It may be taken: the caller tries again."""
    return f"{random.choice(_FIRST)}_{random.choice(_SECOND)}"
