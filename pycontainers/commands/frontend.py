"""What a verb gets from whoever called it: the notebook, the program, or a test. Nothing here or below prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..events import Work
from ..protocol import Engine

T = TypeVar("T")


class Frontend(Protocol):
    """Where output goes while a verb runs.

    ``is_live``: somebody watches and the display can be redrawn (a page with widgets, a terminal).
    ``prompt``: what help texts put before a verb.
    """

    is_live: bool
    prompt: str

    def progress(self, work: Work[T], form: str = "auto") -> T:
        """Draw the events of ``work`` as they come; return its result. ``form``: auto, plain (lines) or quiet."""
        ...

    def stream(self, stream: str, data: bytes) -> None:
        """Pass on output of a container as it comes; ``stream`` is ``stdout`` or ``stderr``."""
        ...


@dataclass(frozen=True)
class Context:
    """The surroundings of one command. ``engine`` is asked for on first need: `help` must work where nothing else does."""

    get_engine: Callable[[], Engine]
    frontend: Frontend
    stdin: Callable[[], bytes] | None = None

    @property
    def engine(self) -> Engine:
        return self.get_engine()


def native_engine() -> Engine:
    """The process-wide native engine."""
    from ..engines import native

    return native.engine()
