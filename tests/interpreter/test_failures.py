"""What a container tells of its errors, said for people: whatever it tells."""

from __future__ import annotations

from typing import Any

import pytest

from pycontainers.errors import ContainedError
from pycontainers.interpreter import failures


def told(number: Any = 1, column: Any = 0, **other: Any) -> dict[str, Any]:
    frame = ["<cell>", number, "", "x = (", column]
    return {"chain": [{"type": "E", "bases": [], "message": "m", "notes": [], "how": "", "frames": [frame], **other}]}


def test_a_place_in_a_line_is_pointed_at() -> None:
    lines = failures.raised(told(column=5), "x = (").lines  # type: ignore[attr-defined]
    assert lines[lines.index("----> 1 x = (") + 1] == " " * 12 + "^"


@pytest.mark.parametrize(("number", "column"), [(1, 50_000_000), (10**4000, 10**4000), (-(10**4000), -5)], ids=["wide", "long", "negative"])
def test_numbers_are_bounded(number: int, column: int) -> None:
    error = failures.raised(told(number, column), "x = (")
    assert isinstance(error, ContainedError) and len("\n".join(error.lines)) < 1500


def nested() -> Any:
    found: Any = []
    for _ in range(100_000):
        found = [found]
    return found


@pytest.mark.parametrize(
    "error",
    [
        told(column=float("inf")), told(number=float("nan")), told(number="1"), told(column=True), told(column=None),
        told(message=nested()), told(frames=5), told(bases=None), {"chain": {}}, {"chain": [5]}, {}, None,
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(error: Any) -> None:
    found = failures.raised(error)
    assert not isinstance(found, ContainedError) and "makes no sense" in str(found)
