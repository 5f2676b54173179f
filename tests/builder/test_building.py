"""Builds in real containers: stages side by side, mounts of RUN, interrupts, explanations."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.errors import BuildError
from pycontainers.events import Event, StepFailed, StepFinished, StepOutput, StepStarted
from pycontainers.images.view import View
from pycontainers.protocol import BuildRequest, ImageInfo


class Built:
    """One build: the image, its events, and what it said."""

    def __init__(self, engine: NativeEngine, text: str, context: str = "", **options: Any) -> None:
        self.events: list[Event] = []
        self.engine, self.work = engine, engine.build(BuildRequest(text, context, **options))
        self.image: ImageInfo | None = None

    def __call__(self) -> Built:
        try:
            while True:
                self.events.append(next(self.work))
        except StopIteration as stop:
            self.image = stop.value
        return self

    def until(self, word: bytes) -> Built:
        while word not in self.output:
            self.events.append(next(self.work))
        return self

    @property
    def output(self) -> bytes:
        return b"".join(event.data for event in self.events if isinstance(event, StepOutput))

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def read(self, path: str) -> bytes:
        assert self.image is not None
        return View(self.engine.store.resolve(self.image.id).rootfs).read(path)

    @property
    def cached(self) -> list[bool]:
        return [event.cached for event in sorted(self.of(StepFinished), key=lambda event: event.index)]


@pytest.fixture
def build(engine: NativeEngine) -> Any:
    return lambda text, context="", **options: Built(engine, text, str(context), network="none", **options)()


@pytest.fixture
def begin(engine: NativeEngine) -> Any:
    return lambda text, context="", **options: Built(engine, text, str(context), network="none", **options)


def unique(text: str) -> str:
    """The same Dockerfile with a variable that no other test's has."""
    first, newline, rest = text.partition("\n")
    return f"{first}\nENV T={time.time_ns()}{newline}{rest}"


def left(engine: NativeEngine) -> tuple[list[str], list[str]]:
    """What is under construction, and containers of steps."""
    return os.listdir(engine.store.ingest), [name for name in os.listdir(engine.paths.containers) if len(name) == 64]


# -- stages


def test_stages_that_need_nothing_of_each_other_are_at_work_at_the_same_time(begin: Any) -> None:
    """Each waits for a word of the other: one after the other they would wait for ever."""
    text = unique(
        "FROM host AS one\nRUN --mount=type=cache,target=/c,id=meet echo > /c/one; until [ -e /c/two ]; do sleep .01; done; echo 1 > /x\n"
        "FROM host AS two\nRUN --mount=type=cache,target=/c,id=meet echo > /c/two; until [ -e /c/one ]; do sleep .01; done; echo 2 > /x\n"
        "FROM scratch\nCOPY --from=one /x /one\nCOPY --from=two /x /two\n"
    )
    ended = threading.Timer(30, lambda: subprocess.run(["pkill", "-f", "until .. -e /c/"], check=False))
    ended.start()
    built = begin(text)()
    ended.cancel()
    assert (built.read("/one"), built.read("/two")) == (b"1\n", b"2\n")
    starts = {event.index: event.stage for event in built.of(StepStarted)}
    assert [starts[index] for index in sorted(starts)] == ["one"] * 3 + ["two"] * 2 + ["stage-2"] * 3


def test_a_stage_that_nobody_needs_never_runs(build: Any) -> None:
    built = build(unique("FROM host AS no\nRUN exit 1\nFROM host AS yes\nRUN echo yes > /y\n"))
    assert built.read("/y") == b"yes\n" and {event.stage for event in built.of(StepStarted)} == {"yes"}


def test_equal_steps_of_two_stages_run_once(build: Any) -> None:
    step = "RUN date +%s%N > /when; sleep .2"
    built = build(
        unique(f"FROM host\nFROM host AS a\n{step}\nFROM host AS b\n{step}\nFROM scratch\nCOPY --from=a /when /a\nCOPY --from=b /when /b\n")
    )
    assert built.read("/a") == built.read("/b")
    again = build(
        unique(f"FROM host AS a\n{step}\nFROM host AS b\n{step}\nFROM scratch\nCOPY --from=a /when /a\nCOPY --from=b /when /b\n"),
        no_cache=True,
    )
    assert again.read("/a") != again.read("/b")  # ENV stands in the first stage alone: not equal


def test_a_failure_ends_what_runs_beside_it(begin: Any, engine: NativeEngine) -> None:
    text = unique(
        "FROM host AS slow\nRUN echo begun; sleep 300\nFROM host AS bad\nRUN sleep .5; exit 7\n"
        "FROM scratch\nCOPY --from=slow / /\nCOPY --from=bad / /\n"
    )
    work, started = begin(text), time.monotonic()
    with pytest.raises(BuildError, match="exit code 7"):
        work()
    assert time.monotonic() - started < 60
    failed = {event.index: event.cancelled for event in work.of(StepFailed)}
    assert failed[5] is False and failed[3] is True
    assert left(engine) == ([], [])


def test_no_cache_of_one_stage_alone(build: Any) -> None:
    text = unique(
        "FROM host AS one\nRUN date +%N > /x\nFROM host AS two\nRUN date +%N > /x\n"
        "FROM scratch\nCOPY --from=one /x /one\nCOPY --from=two /x /two\n"
    )
    first, again = build(text), build(text, no_cache_filter=("two",))
    assert first.read("/one") == again.read("/one") and first.read("/two") != again.read("/two")


# -- interrupts


def test_an_interrupt_ends_every_step_within_a_second_and_leaves_nothing(begin: Any, engine: NativeEngine) -> None:
    steps = "".join(f"FROM host AS s{number}\nRUN echo up; sleep 300; echo {number}\n" for number in range(3))
    work = begin(unique(steps + "FROM scratch\n" + "".join(f"COPY --from=s{number} /etc/passwd /\n" for number in range(3))))
    while work.output.count(b"up") < 3:
        work.events.append(next(work.work))
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        work.work.throw(KeyboardInterrupt())
    assert time.monotonic() - started < 5  # seconds are for the benchmark; here: not 300
    assert left(engine) == ([], [])


def test_a_build_that_is_let_go_leaves_nothing(begin: Any, engine: NativeEngine) -> None:
    begin(unique("FROM host\nRUN echo up; sleep 300\n")).until(b"up").work.close()
    assert left(engine) == ([], [])


# -- explanations


def why(built: Any) -> str:
    return str(max(built.of(StepFinished), key=lambda event: event.index).why)


def test_every_step_says_why(build: Any, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "b.py").write_text("1")
    text = unique("FROM host\nENV LEVEL=1\nCOPY . /src\n")
    assert "no such step" in why(build(text, tmp_path, explain=True)) or "what it stands on" in why(build(text, tmp_path, explain=True))
    assert "cached" in why(build(text, tmp_path, explain=True))
    (tmp_path / "b.py").write_text("2")
    (tmp_path / "c.py").write_text("2")
    said = why(build(text, tmp_path, explain=True))
    assert "b.py changed" in said and "c.py new" in said and "a.py" not in said
    run = text + "RUN echo $LEVEL\n"
    build(run, tmp_path, explain=True)
    assert "variable LEVEL changed" in why(build(run.replace("LEVEL=1", "LEVEL=2"), tmp_path, explain=True))
    assert "--no-cache" in why(build(run, tmp_path, explain=True, no_cache=True))


def test_stages_ask_for_explanations_at_the_same_time(build: Any) -> None:
    """What is known is read once, by whoever asks first: a generator that two threads read is a ValueError."""
    build(unique("FROM host\n" + "".join(f"RUN echo {number}\n" for number in range(20))), explain=True)
    steps = "".join(f"FROM host AS s{number}\nRUN echo {number}{time.time_ns()}\n" for number in range(8))
    built = build(
        unique(f"{steps}FROM scratch\n" + "".join(f"COPY --from=s{number} /etc/passwd /{number}\n" for number in range(8))), explain=True
    )
    assert sum("runs:" in event.why for event in built.of(StepFinished)) >= 8
