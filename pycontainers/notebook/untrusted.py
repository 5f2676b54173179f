"""Checks of what a container has written: whatever such a thing leads to within them is one kind of error, and no end of the cell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def judging(what: str) -> Iterator[None]:
    """:raises ValueError: for an exception of any kind; what is judged is no ``what``, or one that may not be shown."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"no {what}: {type(error).__name__}: {error}") from None


def loaded(text: bytes) -> Any:
    """What JSON says, and JSON alone: Python's reader takes NaN and Infinity too. :raises ValueError: it is none"""
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
