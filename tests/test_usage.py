"""What containers used: panels, marks, figures of several, and the forms for other programs."""

from __future__ import annotations

import csv
import io
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "commands"))

from fake_engine import FakeEngine, sample

from pycontainers import exports
from pycontainers.objects import Container
from pycontainers.panels import Panel, Series, even, marks, panels, scale, sparkline, thinned
from pycontainers.protocol import ContainerConfig, ExitStatus, Resources
from pycontainers.usage import Course, Stats, StatsTable


@pytest.fixture
def engine() -> FakeEngine:
    found = FakeEngine()
    for name in ("one", "two"):
        found.start(found.create(ContainerConfig("host", name=name, resources=Resources(memory=64 << 20, cpus=0.5))).id)
    found.recorded = [
        sample(100.0, memory=1 << 20, pids=1, pressure=1),
        sample(101.0, cpu_usage=250_000_000, memory=3 << 20, pids=2, net_rx=2048, pressure=1, pressure_io_some=400_000_000),
        sample(103.0, cpu_usage=250_000_000, memory=2 << 20, pids=2, net_rx=2048, pressure=1, pressure_io_some=400_000_000, oom_kills=2),
    ]
    return found


def event(ident: str, action: str, time: float, **attributes: str) -> dict[str, Any]:
    actor = {"ID": ident, "Attributes": attributes}
    return {"Type": "container", "Action": action, "Actor": actor, "timeNano": int(time * 1e9)}


def test_pressure_has_both_shares_of_each_resource_or_says_why_not(engine: FakeEngine) -> None:
    pressure = panels(engine.recorded, Resources())[5]
    assert [series.name for series in pressure.series] == ["cpu", "cpu full", "memory", "memory full", "disk", "disk full"]
    assert pressure.series[4].values == (40.0, 0.0) and pressure.series[4].color == 2 and pressure.series[5].aside
    unknown = panels([sample(1.0, pressure=3)], Resources())[5]
    assert not unknown.series and "CONFIG_PSI" in unknown.note
    stats = Stats(engine, "one")
    engine.recorded = [sample(1.0, pressure=2)]
    assert "Pressure: not known: the container has no group in cgroup v2" in repr(stats.reload())


def test_what_happened_is_marked_once(engine: FakeEngine) -> None:
    info = engine.find("one")
    happened = [
        event(info.id, "create", 99.0),
        event(info.id, "start", 99.98),
        event(info.id, "health_status: unhealthy", 100.5),
        event(info.id, "exec_start: ls", 100.6),
        event(info.id, "die", 101.0, exitCode="3"),
        event(info.id, "start", 101.2),
        event(info.id, "pause", 102.0),
        event(info.id, "unpause", 102.5),
        event(info.id, "die", 103.01, exitCode="137"),
    ]
    ended = replace(info, status="exited", exit=ExitStatus(137, 9, oom_killed=True, finished=103.0))
    found = [(mark.sign, mark.text, round(mark.time, 2)) for mark in marks(engine.recorded, ended, happened)]
    assert found == [
        ("▶", "start", 0.0),
        ("△", "unhealthy", 0.5),
        ("■", "exit 3", 1.0),
        ("▶", "restart", 1.2),
        ("‖", "paused", 2.0),
        ("▶", "unpaused", 2.5),
        ("✗", "OOM-killed ×2", 3.0),
        ("■", "exit 137", 3.0),
    ]
    again = [event(info.id, "start", 100.0 + n) for n in range(500)]
    assert len(marks(engine.recorded, info, again)) == 40, "one that is started again and again"


def test_stats_reads_the_events_of_its_own_container(engine: FakeEngine) -> None:
    one, two = engine.find("one"), engine.find("two")
    later = one.created + 1
    engine.recorded = [sample(later)]
    engine.happened = [event(one.id, "start", later), event(two.id, "pause", later), {**event("", "x", later), "Actor": None}]
    assert [mark.text for mark in Stats(engine, "one").marks()] == ["start"]


def test_several_containers_have_a_colour_each_and_one_clock(engine: FakeEngine) -> None:
    both = StatsTable([Stats(engine, "one"), Stats(engine, "two")])
    both[1].samples = [moved._replace(time=moved.time + 10) for moved in both[1].samples]
    cpu, memory, network, *_, pressure = both.panels()
    assert [(series.name, series.color) for series in cpu.series] == [("one", 0), ("two", 1)]
    assert memory.series[1].times == (10.0, 11.0, 13.0) and memory.limit == 64 << 20 and both.duration == 13.0
    assert [series.name for series in network.series] == ["one received", "one sent", "two received", "two sent"]
    assert pressure.series[0].values == (40.0, 0.0)
    assert [(mark.name, mark.time) for mark in both.marks()] == [("one", 3.0), ("two", 13.0)]
    assert repr(both).splitlines()[0].startswith("NAME") and both.title == "2 containers"


def test_no_peak_is_lost_and_units_are_readable() -> None:
    times = tuple(float(n) for n in range(1000))
    values = tuple(900.0 if n == 777 else 1.0 for n in range(1000))
    few = thinned(Series("used", times, values), 50)
    assert len(few.times) == 50 and few.peak == 900.0 and few.times[-1] == 999.0 and 777.0 in few.times
    assert scale("bytes", 3 << 20) == (1 << 20, " MiB") and scale("rate", 10) == (1.0, " B/s") and scale("percent", 5000) == (1.0, " %")
    far = Panel("Memory", "bytes", (few,), 1 << 40)
    assert far.shown_limit is None and far.top == 900.0


def test_courses_are_even_in_time() -> None:
    """Ten samples of the first second take no more room than the one of any later second."""
    dense = tuple(n / 10 for n in range(10))
    series = Series("used", (*dense, *(float(n) for n in range(1, 11))), (*[8.0] * 10, *[1.0] * 10))
    assert even(series, 10) == [8.0, *[1.0] * 9] and sparkline(series, 10) == "█▂▂▂▂▂▂▂▂▂"
    assert even(Series("used", (0.0, 4.0), (0.0, 4.0)), 5) == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0]), "a gap is bridged"
    peak = Series("used", tuple(n / 7 for n in range(700)), tuple(900.0 if n == 333 else 1.0 for n in range(700)))
    assert max(even(peak, 24)) == 900.0 and even(peak, 24).count(900.0) == 1
    assert even(Series("used", (), ()), 5) == [] == list(sparkline(Series("used", (), ())))
    assert even(Series("used", (1.0,), (3.0,)), 5) == [3.0]
    assert even(Series("used", (1.0, 1.0), (3.0, 5.0)), 5) == [5.0]


def test_the_mean_is_over_time() -> None:
    dense = Series("used", (0.0, 0.1, 0.2, 10.2), (0.0, 100.0, 100.0, 0.0))
    assert dense.average == pytest.approx(20 / 10.2) and dense.mean == 50.0


def test_csv_has_a_line_a_sample(engine: FakeEngine) -> None:
    rows = list(csv.DictReader(io.StringIO(exports.csv([Stats(engine, "one"), Stats(engine, "two")]))))
    assert len(rows) == 6 and {row["container"] for row in rows} == {"one", "two"}
    assert rows[1]["time"] == "1970-01-01T00:01:41.000000Z" and rows[1]["cpu_percent"] == "25" and rows[1]["memory"] == str(3 << 20)
    assert rows[1]["pressure_io_some_percent"] == "40" and rows[0]["cpu_limit_percent"] == "50"
    hostile = Course(replace(engine.find("one"), name='=cmd|"x"\n,y'), engine.recorded)
    assert next(csv.DictReader(io.StringIO(exports.csv([hostile]))))["container"] == "'=cmd|\"x\" ,y"


LINE = re.compile(r'^[a-z_]+(_total)?\{id="[0-9a-f]{64}",name="[^"\\\n]*(\\.[^"\\\n]*)*",image="[^"\n]*"\} [0-9]+(\.[0-9]+)?$')


def test_openmetrics_is_what_prometheus_reads(engine: FakeEngine) -> None:
    odd = Course(replace(engine.find("two"), name='a"b\\c\nd'), [sample(1.0, pressure=2)])
    text = exports.openmetrics([Stats(engine, "one"), odd])
    lines = text.splitlines()
    assert text.endswith("# EOF\n") and all(line.startswith("# ") or LINE.match(line) for line in lines)
    ident = engine.find("one").id
    assert f'container_cpu_usage_seconds_total{{id="{ident}",name="one",image="host"}} 0.25' in lines
    assert f'container_memory_working_set_bytes{{id="{ident}",name="one",image="host"}} 2097152' in lines
    assert r'name="a\"b\\c d"' in text
    waiting = [line for line in lines if line.startswith("container_pressure_io_waiting_seconds_total")]
    assert len(waiting) == 1, "what is unknown is left out"
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families)) == 24


def test_history_is_a_frame_by_utc_time(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Container(engine, engine.find("one"))
    frame = box.history()
    assert str(frame.index.tz) == "UTC" and frame.index.name == "time" and frame.index[1].timestamp() == 101.0
    assert list(frame["cpu_percent"]) == [0.0, 25.0, 0.0] and list(frame["cpu_limit_percent"]) == [50.0] * 3 and "time" not in frame
    monkeypatch.setitem(sys.modules, "pandas", None)
    plain = box.history()
    assert isinstance(plain, dict) and plain["time"] == [100.0, 101.0, 103.0] and len(plain["memory"]) == 3
