"""What a dashboard asks once a second: everything that changes is seen, what does not is not read anew."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines import information, watching
from pycontainers.errors import NotFound
from pycontainers.protocol import ContainerConfig
from pycontainers.runtime import logs

pytestmark = pytest.mark.root


def sleeper(engine: Any, name: str, *command: str) -> Any:
    info = engine.create(ContainerConfig(image="host", command=command or ("sleep", "60"), network="none", name=name))
    return engine.start(info.id)


def state_of(watch: Any, info: Any) -> str:
    return {found.id: found.status for found in watch.containers()}.get(info.id, "gone")


def stirs(watch: Any) -> bool:
    """An event may be written a moment after the command that it tells of has returned."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if watch.stirred():
            return True
        time.sleep(0.01)
    return False


def test_every_change_is_seen_and_nothing_is_read_twice(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = engine.watch()
    info = sleeper(engine, "watched")
    assert stirs(watch) and state_of(watch, info) == "running"
    for act, expected in (
        (lambda: engine.pause(info.id), "paused"),
        (lambda: engine.unpause(info.id), "running"),
        (lambda: engine.stop(info.id, 0), "exited"),
        (lambda: engine.start(info.id), "running"),
        (lambda: engine.kill(info.id), "exited"),
    ):
        act()
        assert stirs(watch) and state_of(watch, info) == expected
        assert state_of(watch, info) == expected
    engine.rename(info.id, "renamed")
    assert [found.name for found in watch.containers() if found.id == info.id] == ["renamed"]
    reads: list[str] = []
    read = information.info
    monkeypatch.setattr(information, "info", lambda folder: (reads.append(folder), read(folder))[1])
    end = time.monotonic() + 10
    while True:  # what a supervisor writes at its very end is one more change
        first = watch.containers()
        watch._swept = time.monotonic()
        reads.clear()
        time.sleep(0.06)
        watch.containers()
        reads.clear()
        again = watch.containers()
        if not reads or time.monotonic() > end:
            break
    assert not reads and all(before is after for before, after in zip(first, again, strict=True))
    while watch.stirred():
        time.sleep(0.05)
    assert not watch.stirred()
    engine.remove(info.id)
    assert stirs(watch) and state_of(watch, info) == "gone"
    with pytest.raises(NotFound):
        watch.log(info.id)


def test_two_changes_within_one_step_of_the_clock_are_both_seen(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    info = engine.create(ContainerConfig(image="host", command=("true",), network="none", name="quick"))
    watch = engine.watch()
    watch.containers()
    watch._swept = time.monotonic() + 1000
    # As on a machine whose file times stand still: the name changes, the folder's time does not.
    moment = time.time_ns() + 1_000_000_000
    os.utime(info.folder, ns=(moment, moment))
    watch.containers()
    engine.rename(info.id, "quicker")
    os.utime(info.folder, ns=(moment, moment))
    assert [found.name for found in watch.containers() if found.id == info.id] == ["quicker"]


def test_a_killed_supervisor_is_noticed(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pycontainers.runtime import state

    info = sleeper(engine, "orphan")
    watch = engine.watch()
    assert state_of(watch, info) == "running"
    monkeypatch.setattr(watching, "_SWEEP", 0.0)
    os.kill((state.read(info.folder, "state.json") or {})["supervisor"]["pid"], 9)
    end = time.monotonic() + 10
    while state_of(watch, info) == "running" and time.monotonic() < end:
        time.sleep(0.05)
    assert state_of(watch, info) == "exited"


def test_samples_come_once_and_only_new_ones(engine: Any) -> None:
    info = sleeper(engine, "sampled")
    watch, seen = engine.watch(), []
    end = time.monotonic() + 20
    while len(seen) < 8 and time.monotonic() < end:
        seen += watch.samples(info.id)
        time.sleep(0.05)
    times = [sample.time for sample in seen]
    assert len(seen) >= 8 and times == sorted(set(times))
    assert times == [sample.time for sample in engine.samples(info.id)][: len(times)]


def test_images_are_read_anew_only_when_names_change(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pycontainers.events import finish
    from pycontainers.protocol import BuildRequest

    watch = engine.watch()
    before = {info.id for info in watch.images()}
    built = finish(engine.build(BuildRequest("FROM scratch\nLABEL of=watching\n", context="", tags=("watched:1",))))
    try:
        assert stirs(watch) and {info.id for info in watch.images()} == before | {built.id}
        engine.tag("watched:1", "watched:2")
        assert stirs(watch)
        assert ("watched:1", "watched:2") in [tuple(sorted(info.names)) for info in watch.images()]
        time.sleep(0.06)
        first = watch.images()
        assert watch.images() is watch.images() and watch.images() == first
    finally:
        engine.remove_image("watched:1")
        engine.remove_image("watched:2")
    assert {info.id for info in watch.images()} == before


def test_a_log_in_parts(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    assert logs.part(path) == ([], 0, 0)
    writer = logs.Writer(path)
    for number in range(1000):
        writer.feed("stdout", b"%d\n" % number)
    lines, start, end = logs.part(path, most=4096)
    assert [text for *_, text in lines][-1] == b"999" and end == os.path.getsize(path) and 4096 >= end - start > 3900
    found = [text for *_, text in lines]
    while start:  # back to the beginning
        lines, start, _ = logs.part(path, before=start, most=4096)
        found = [text for *_, text in lines] + found
    assert found == [b"%d" % number for number in range(1000)]
    assert logs.part(path, after=end) == ([], end, end)
    writer.feed("stderr", b"more\nhalf")
    lines, start, after = logs.part(path, after=end)
    assert [(stream, text) for _, stream, _, text in lines] == [("stderr", b"more")] and start == end and after == os.path.getsize(path)
    with open(path, "ab") as file:
        file.write(b"2026-01-01T00:00:00.000000000Z stdout F cut in the mid")
    assert logs.part(path, after=after) == ([], after, after)
    writer.close()
