"""``profile`` and ``compare``: on the engine in memory, and on real containers."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine, sample

from pycontainers.commands.declare import find, parse
from pycontainers.commands.frontend import Context
from pycontainers.commands.profile import _OWNER
from pycontainers.errors import ContainerFailed, NotFound, UsageError
from pycontainers.profiles import Comparison, Profile
from pycontainers.protocol import ContainerConfig, ExitStatus


@pytest.fixture
def recorded(engine: FakeEngine) -> FakeEngine:
    engine.recorded = [
        sample(10.0, cpu_usage=0, memory=1 << 20, pids=1),
        sample(12.0, cpu_usage=1_500_000_000, cpu_user=1_400_000_000, memory=9 << 20, pids=3, block_write=4096, throttled=250_000_000),
    ]
    engine.next_exit = ExitStatus(0, started=9.9, finished=12.4, memory_peak=12 << 20)
    return engine


def test_a_profile_has_the_figures_of_the_whole_run_and_leaves_nothing(command: Any, recorded: FakeEngine) -> None:
    recorded.output = [("stdout", b"done\n")]
    found = command("profile -m 64m --cpus 0.5 host job --fast", None)
    assert isinstance(found, Profile) and found.result is not None and found.result.output == "done\n"
    assert command.frontend.streamed == [("stdout", b"done\n")]
    rows = {name.strip(): (value, beside) for name, value, beside in found.rows()}
    assert rows["wall time"][0] == "2.50 s" and rows["CPU time"][0] == "1.50 s" and rows["user"][0] == "1.40 s"
    assert rows["CPU, mean"] == ("60 %", "of one processor; limit 50 %") and rows["peak memory"] == ("12.0 MiB", "limit 64.0 MiB")
    assert rows["throttled"][0] == "0.25 s" and rows["written"][0] == "4.0 KiB" and rows["peak processes"][0] == "3"
    assert "received" not in rows and "waited for disk" not in rows, "what is not known, or nothing, is not told"
    assert repr(found).startswith("job --fast: exit code 0\n")
    assert not recorded.boxes


def test_stdin_and_what_stays(command: Any, recorded: FakeEngine) -> None:
    found = command("profile --keep --name first host cat", "body")
    assert found.result.output == "body" and "first" in [info.name for info in recorded.boxes.values()]
    with pytest.raises(UsageError, match="--restart"):
        command("profile --restart always host job")


def test_it_ends_with_its_process_and_what_a_killed_one_left_is_removed(
    command: Any, recorded: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    run = recorded.run
    monkeypatch.setattr(recorded, "run", lambda config, *more, **given: asked.append(config) or run(config, *more, **given))
    command("profile host job")
    assert asked[0].lifetime == "kernel"
    own = json.loads(asked[0].labels[_OWNER])
    left = {"gone": {**own, "start": 1}, "mine": own, "other-machine": {**own, "start": 1, "boot": "another"}, "strange": [1]}
    for name, owner in left.items():
        recorded.create(ContainerConfig("host", ("job",), name=name, labels={_OWNER: json.dumps(owner)}))
    recorded.create(ContainerConfig("host", ("job",), name="busy", labels={_OWNER: json.dumps(left["gone"])}))
    recorded.start("busy")
    command("profile --keep --name kept host job")
    assert {info.name for info in recorded.boxes.values()} == {"mine", "other-machine", "strange", "busy", "kept"}
    assert _OWNER not in asked[1].labels
    command("profile --lifetime detached host job")
    assert asked[2].lifetime == "detached" and "kept" in [info.name for info in recorded.boxes.values()]


def test_a_run_that_fails_is_shown_before_the_error(command: Any, recorded: FakeEngine) -> None:
    recorded.next_exit = ExitStatus(137, 9, oom_killed=True, started=9.9, finished=12.0, memory_peak=32 << 20)
    with pytest.raises(ContainerFailed, match="OOM-killed"):
        command("profile -m 32m host job")
    (shown,) = command.frontend.presented
    assert isinstance(shown, Profile) and "peak memory" in repr(shown) and not recorded.boxes


def test_an_interrupt_leaves_no_container(command: Any, recorded: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(config: Any, *more: Any, **given: Any) -> Any:
        recorded.create(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(recorded, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command("profile host job")
    assert not recorded.boxes


def test_compare_has_ratios_to_the_first_and_lays_runs_over_one_another(command: Any, recorded: FakeEngine, tmp_path: Path) -> None:
    before = command("profile host job")
    recorded.recorded = [moved._replace(time=moved.time + 500, cpu_usage=moved.cpu_usage * 2) for moved in recorded.recorded]
    command("run --name after host job")
    verb = find("compare")
    context = Context(lambda: recorded, command.frontend, variables={"before": before, "other": 5})
    found = verb.function(context, parse(verb, ["before", "after"]), None)
    assert isinstance(found, Comparison) and found.headers == ("", "before", "after", "/ before")
    rows = {row[0].strip(): row[1:] for row in found.rows()}
    assert rows["CPU time"] == ("1.50 s", "3.00 s", "2.00×") and rows["ended"] == ("exit code 0", "exit code 0", "")
    assert rows["read"] == ("0 B", "0 B", "-")
    cpu = found.panels()[0]
    assert [(series.name, series.times) for series in cpu.series] == [("before", (2.0,)), ("after", (2.0,))]
    assert [course.name for course in before.compare(before).courses] == [before.name, f"{before.name} #2"]
    verb.function(context, parse(verb, ["before", "after", "--csv", str(tmp_path / "runs.csv")]), None)
    with open(tmp_path / "runs.csv", encoding="utf-8") as file:
        assert [row["container"] for row in csv.DictReader(file)] == ["before", "before", "after", "after"]
    with pytest.raises(UsageError, match="two runs"):
        command("compare after")
    with pytest.raises(NotFound):
        verb.function(context, parse(verb, ["other", "after"]), None)


@pytest.fixture
def real(state: Any) -> Iterator[Any]:
    from pycontainers.engines.native import NativeEngine

    yield NativeEngine(state)


@pytest.mark.root
def test_real_runs_are_measured(real: Any, command: Any) -> None:
    """What one of two commands burns, the other does not; nothing of either is left."""
    verb = find("profile")
    context = Context(lambda: real, command.frontend)
    spin = "import time, sys\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\nx = bytearray(48 << 20)"
    begun = time.time()
    busy = verb.function(context, parse(verb, ["--network", "none", "-m", "128m", "host", "python3", "-c", spin]), None)
    idle = verb.function(context, parse(verb, ["--network", "none", "host", "sleep", "0.4"]), None)
    values = {name.strip(): value for name, value, *_ in busy.compare(idle).rows()}
    assert 0.4 <= busy.samples[-1].cpu_usage / 1e9 <= time.time() - begun and values["CPU time"].endswith(" s")
    assert busy.info.exit.memory_peak >= 48 << 20 and idle.samples[-1].cpu_usage < busy.samples[-1].cpu_usage / 2
    assert [mark.text for mark in busy.marks()] == ["start", "exit 0"]
    assert not [info for info in real.containers(all=True) if info.id in (busy.info.id, idle.info.id)]
