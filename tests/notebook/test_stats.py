"""The live figure: what goes to the page, what stays in the kernel, and what is saved."""

from __future__ import annotations

import gc
import json
import math
import struct
import threading
import tracemalloc
from dataclasses import replace
from typing import Any

import nbformat
import pytest
from fake_engine import FakeEngine, sample

from pycontainers.errors import NotFound
from pycontainers.notebook import plots, svg
from pycontainers.notebook.display import figure_bundle
from pycontainers.notebook.sampler import Sampler
from pycontainers.notebook.widgets import plotlyjs, stats
from pycontainers.protocol import ContainerConfig, ExitStatus, Resources
from pycontainers.usage import Stats, StatsTable


@pytest.fixture
def box(engine: FakeEngine) -> Any:
    return engine.start(engine.create(ContainerConfig("host", name="web", resources=Resources(memory=64 << 20, cpus=0.5))).id)


class View(stats.LiveStats):
    """A live figure whose page is a list."""

    def __init__(self, figure: Any) -> None:
        super().__init__(figure)
        self.messages: list[tuple[Any, list[bytes]]] = []
        self.widget.send = lambda content, buffers=None: self.messages.append((content, buffers or []))


def unpacked(data: bytes) -> list[tuple[list[float], list[list[float]]]]:
    """As the page does it: of each container the times and the columns."""
    found, at = [], 0
    while at < len(data):
        (count,) = struct.unpack_from("<I", data, at)
        times = struct.unpack_from(f"<{count}d", data, at + 4)
        at += 4 + 8 * count
        columns = [struct.unpack_from(f"<{count}f", data, at + 4 * count * column) for column in range(len(stats.COLUMNS))]
        at += 4 * count * len(stats.COLUMNS)
        found.append((list(times), [list(column) for column in columns]))
    return found


def samples(first: int, last: int, **more: Any) -> list[Any]:
    return [sample(100.0 + t, cpu_usage=t * 4e8, memory=t << 20, pids=1, pressure=1, **more) for t in range(first, last)]


def test_only_what_is_new_is_sent(engine: FakeEngine, box: Any) -> None:
    engine.recorded = samples(0, 3)
    view = View(Stats(engine, "web"))
    ((times, columns),) = unpacked(view.whole())
    assert times == [0.0, 1.0, 2.0] and columns[2] == [0.0, 1 << 20, 2 << 20]
    assert math.isnan(columns[0][0]) and columns[0][1:] == pytest.approx([40.0, 40.0]), "the first has none before it"
    assert view.tick() and not view.messages
    engine.recorded = samples(0, 5)
    assert view.tick()
    ((content, (data,)),) = view.messages
    ((times, columns),) = unpacked(data)
    assert content == {"kind": "points"} and times == [3.0, 4.0] and columns[0] == pytest.approx([40.0, 40.0])
    view.messages.clear()
    assert view.tick() and not view.messages


def test_a_figure_that_was_there_before_the_first_sample(engine: FakeEngine, box: Any) -> None:
    view = View(StatsTable([Stats(engine, "web")]))
    assert unpacked(view.whole()) == [([], [[] for _ in stats.COLUMNS])]
    engine.recorded = samples(0, 2)
    view.tick()
    assert unpacked(view.messages[0][1][0])[0][0] == [0.0, 1.0]


def test_what_happens_is_told_when_it_happens(engine: FakeEngine, box: Any) -> None:
    engine.recorded = samples(0, 3)
    view = View(Stats(engine, "web"))
    asked = len(engine.calls)
    real = engine.events
    looked: list[float] = []
    engine.events = lambda *args, **more: looked.append(1) or real(*args, **more)
    view.tick()
    assert not looked, "the journal is read where something has changed, not each second"
    event = {"Action": "pause", "Actor": {"ID": box.id}, "timeNano": int((box.created + 1) * 1e9)}
    engine.happened = [event]
    engine._set("web", status="paused", resources=Resources(memory=32 << 20))
    assert view.tick() and len(looked) == 1
    assert [mark["text"] for mark in view.widget.marks] == ["paused"] and view.widget.panels[1]["limit"] == 32 << 20
    engine._set("web", status="exited", exit=ExitStatus(3, finished=102.5))
    assert not view.tick() and view.widget.state == "ended" and "exit 3" in [mark["text"] for mark in view.widget.marks]
    assert len(engine.calls) == asked


def test_removed_while_it_is_watched(engine: FakeEngine, box: Any) -> None:
    engine.recorded = samples(0, 3)
    view = View(Stats(engine, "web"))
    engine.boxes.clear()
    assert not view.tick() and view.widget.state == "removed" and view.widget.courses[0]["word"] == "removed"
    assert unpacked(view.whole()) == [([], [[] for _ in stats.COLUMNS])]


def test_removed_between_two_looks(engine: FakeEngine, box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What --rm has asked for: it is found as ended, and its record has gone a moment later."""
    engine.recorded = samples(0, 3)
    view = View(Stats(engine, "web"))
    engine._set("web", status="exited", exit=ExitStatus(0, finished=102.5))
    read = engine.samples

    def gone(name: str, after: float | None = None) -> Any:
        if after is None:
            raise NotFound(f"no container {name!r}")
        return read(name, after)

    monkeypatch.setattr(engine, "samples", gone)
    assert not view.tick() and view.widget.state == "removed" and view.widget.courses[0]["word"] == "removed"


def test_the_static_form_is_renewed_at_the_end_unless_the_record_is_gone(engine: FakeEngine, box: Any) -> None:
    class Output:
        forms: list[dict[str, Any]] = []

        def update(self, forms: dict[str, Any], raw: bool) -> None:
            self.forms.append(forms)

    for removed in (False, True):
        engine.recorded = samples(0, 3)
        view = View(Stats(engine, "web"))
        view.output = Output()
        assert view.tick() and not Output.forms[1:]
        engine.recorded = samples(0, 9)
        if removed:
            engine.boxes.clear()
        else:
            engine._set("web", status="exited", exit=ExitStatus(0, finished=108.5))
        assert not view.tick()
        (form,) = Output.forms
        assert "9 samples" in form["text/plain"] and "exit 0" in form["image/svg+xml"]
        if not removed:
            engine._set("web", status="running", exit=None)


def test_a_page_that_comes_back_gets_all_of_a_long_life_thinned(engine: FakeEngine, box: Any) -> None:
    engine.recorded = [sample(100.0 + t, memory=(1 << 30) if t == 1777 else 1 << 20, pressure=1) for t in range(3600)]
    view = View(Stats(engine, "web"))
    state = view.widget.get_state()
    ((times, columns),) = unpacked(state["points"])
    assert len(times) == 600 and times[-1] == 3599.0 and max(columns[2]) == 1 << 30
    twenty = View(StatsTable([Stats(engine, "web") for _ in range(20)]))
    assert len(twenty.whole()) < 500_000


def test_an_hour_leaves_nothing_in_the_kernel(engine: FakeEngine, box: Any) -> None:
    view = stats.LiveStats(Stats(engine, "web"))
    view.widget.send = lambda *args: None

    def seconds(first: int, last: int) -> None:
        for number in range(first, last):
            engine.recorded = samples(number, number + 2)
            view.tick()

    seconds(0, 300)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        seconds(300, 1500)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000, "1200 samples are 400 kB"


def test_the_users_own_object_stays_whole(engine: FakeEngine, box: Any) -> None:
    engine.recorded = samples(0, 50)
    found = Stats(engine, "web")
    view = View(found)
    view.tick()
    assert len(found.samples) == 50 and len(view._followers[0].course.samples) == 2


def test_plotly_is_one_widget_for_all(engine: FakeEngine, box: Any) -> None:
    first, second = View(Stats(engine, "web")), View(Stats(engine, "web"))
    assert first.widget.plotly is second.widget.plotly and first.widget.get_state()["plotly"].startswith("IPY_MODEL_")
    assert 500_000 < len(plotlyjs.compressed()) < 3_000_000


def saved(bundle: dict[str, Any]) -> int:
    """Bytes of a notebook that has nothing else."""
    output = nbformat.v4.new_output("display_data", data=bundle)
    return len(nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])))


def test_what_is_saved_is_small(engine: FakeEngine) -> None:
    used = {"pids": 3, "pressure": 1}
    engine.recorded = [sample(100.0 + t * 1.013, cpu_usage=t * t * 31337, memory=t * 77777, net_rx=t * 991, **used) for t in range(3600)]
    for number in range(20):
        engine.start(engine.create(ContainerConfig("host", name=f"box-{number}")).id)
    for figure in (Stats(engine, "box-1"), StatsTable([Stats(engine, name) for name in [f"box-{n}" for n in range(20)]])):
        bundle = figure_bundle(figure, live=False)
        assert set(bundle) == {"text/plain", "image/svg+xml", plots.PLOTLY}
        assert saved(bundle) < 200_000
        live = figure_bundle(figure, live=True)
        assert plots.PLOTLY not in live and saved(live) < 100_000


def test_a_figure_of_several_is_valid_and_names_speak_no_html(engine: FakeEngine, box: Any) -> None:
    from plotly.graph_objects import Figure

    engine.recorded = samples(0, 9)
    odd = engine.start(engine.create(ContainerConfig("host", name="x")).id)
    engine.boxes[odd.id] = replace(odd, name="<a href='javascript:alert(1)'>%{x}</a>")
    both = StatsTable([Stats(engine, "web"), Stats(engine, odd.id)])
    figure = Figure(plots.figure(both))
    assert {trace.legendgroup for trace in figure.data} == {"0", "1"} and sum(bool(trace.showlegend) for trace in figure.data) == 2
    text = json.dumps(plots.figure(both))
    assert "<a" not in text and "%{x}" not in text and "<a" not in svg.draw(both)
    assert figure.layout.xaxis2.matches == "x"


def test_a_view_that_cannot_even_be_told_stops_no_other() -> None:
    came = threading.Semaphore(0)

    class Broken:
        def tick(self) -> bool:
            raise ZeroDivisionError

        def release(self, reason: str) -> None:
            raise RuntimeError(reason)

    class Whole:
        def tick(self) -> bool:
            came.release()
            return True

        def release(self, reason: str) -> None:
            came.release()

    sampler = Sampler(0.01)
    sampler.add(Broken())
    sampler.add(Whole())
    assert all(came.acquire(timeout=5) for _ in range(3))
    sampler.add(Broken())
    sampler.close()
    assert not sampler.running
