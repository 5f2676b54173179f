"""Typed events that long work yields. A generator yields them and *returns* its result.

The notebook draws them as a progress view, the program prints them as lines, a test collects them as a list.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """Base of all events. Their fields are text, numbers and bytes, and nothing else."""


@dataclass(frozen=True)
class StepStarted(Event):
    """A build step begins. ``index`` counts from 1 to ``total``, in the order of the file; steps of several stages may run at a time.

    ``text`` is the instruction as written.
    """

    index: int
    total: int
    stage: str
    text: str


@dataclass(frozen=True)
class StepOutput(Event):
    """Output of a running step; ``stream`` is ``stdout`` or ``stderr``; ``data`` may end in the middle of a line."""

    index: int
    stream: str
    data: bytes


@dataclass(frozen=True)
class StepFinished(Event):
    """A build step ended. ``seconds`` is wall time; ``cached`` says that nothing ran; ``why`` (``--explain``) why it ran, or did not."""

    index: int
    seconds: float
    cached: bool
    why: str = ""


@dataclass(frozen=True)
class StepFailed(Event):
    """A build step failed, or (``cancelled``) was ended because another one had failed."""

    index: int
    seconds: float
    cancelled: bool = False


@dataclass(frozen=True)
class Note(Event):
    """Something that the user should read (a weaker isolation, a deprecated form)."""

    text: str


@dataclass(frozen=True)
class Done(Event):
    """The last event: ``name`` is the tag or id of what was made, ``seconds`` the whole time."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Progress(Event):
    """How far something is that has no steps: ``text`` says what, ``done`` how many bytes of it so far."""

    text: str
    done: int


@dataclass(frozen=True)
class Transfer(Event):
    """How far one part of an image is that is pulled, pushed, loaded, saved or bootstrapped.

    :param item: twelve digits of a layer's digest, ``config``, ``manifest``, or a word for what is worked on.
    :param phase: waiting, downloading, unpacking, exists, uploading, mounted, packing, installing, done.
    :param done, total: in ``unit``, bytes if not said otherwise; ``total`` 0 where unknown.
    """

    item: str
    phase: str
    done: int = 0
    total: int = 0
    unit: str = "bytes"


Work = Generator[Event, None, T]
"""Long work: yields events, returns a T."""


def without_end(work: Work[T]) -> Work[T]:
    """``work`` as a part of other work: without the event that says that all is done."""
    while True:
        try:
            event = next(work)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if not isinstance(event, Done):
            yield event


def finish(work: Work[T], handle: Callable[[Event], object] | None = None) -> T:
    """Run ``work`` to its end, hand its events to ``handle`` (or drop them), return its result. What ``handle`` raises ends the work."""
    with contextlib.closing(work):
        while True:
            try:
                event = next(work)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if handle is not None:
                handle(event)
