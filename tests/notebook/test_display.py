from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from fake_engine import FakeEngine, sample

from pycontainers.events import Done, Note, Progress, StepFinished, StepOutput, StepStarted
from pycontainers.notebook import plots, svg
from pycontainers.notebook.progress import BuildView
from pycontainers.objects import Container
from pycontainers.protocol import ExitStatus, LogLine
from pycontainers.usage import Panel, Series, Stats, StatsTable

HOSTILE = '<script>alert(1)</script><img src=x onerror="x">"\'&\x1b]52;c;ZXZpbA==\x07\u202e'


class Tags(HTMLParser):
    """Which tags and attributes a page would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def numbers(found: dict[str, str]) -> list[float]:
    """An array as plotly writes it."""
    return list(memoryview(b64decode(found["bdata"])).cast({"f4": "f", "f8": "d"}[found["dtype"]]))


def formats(shell: Any, value: object) -> dict[str, Any]:
    return shell.display_formatter.format(value)[0]


@pytest.fixture
def hostile(shell: Any, engine: FakeEngine) -> Any:
    """A container all of whose texts are hostile."""
    found = shell.run_line_magic("container", "run -d --name web -p 8080:80 -m 64m --cpus 0.5 host sleep")
    info = replace(
        engine.find("web"),
        name=HOSTILE,
        image=HOSTILE,
        command=(HOSTILE,),
        notes=(HOSTILE,),
        notebook=HOSTILE,
        address=HOSTILE,
        labels={HOSTILE: HOSTILE},
    )
    engine.boxes[info.id] = info
    engine.lines = [LogLine(0, "stderr", HOSTILE), LogLine(0, "stdout", HOSTILE)]
    engine.recorded = [
        sample(float(t), cpu_usage=t * 4e8, memory=t << 22, memory_cache=1 << 20, pids=t, net_rx=t * 1000) for t in range(1, 9)
    ]
    return found


@pytest.mark.parametrize(
    "line",
    ["ps", "ps -a", "logs {box.id}", "doctor", "images", "history visits", "stats --table", "stats {box.id} --static"],
)
def test_nothing_from_a_container_speaks_html(shell: Any, engine: FakeEngine, hostile: Any, line: str) -> None:
    shell.run_cell_magic("container", "build -t visits --out built --progress quiet", "FROM host\n")
    engine.pictures[HOSTILE] = replace(engine.pictures["visits"], names=(HOSTILE,))
    engine.checks = [replace(check, why=HOSTILE, name=HOSTILE) for check in engine.checks]
    shell.user_ns["box"] = hostile
    data = formats(shell, shell.run_line_magic("container", line))
    assert "\x1b" not in data["text/plain"] and "\u202e" not in data["text/plain"]
    if "text/html" in data:
        seen = Tags(data["text/html"])
        assert not seen.tags & {"script", "img"} and not {name for name in seen.attributes if name.startswith("on")}
        assert "\x1b" not in data["text/html"] and "\u202e" not in data["text/html"]
    if "image/svg+xml" in data:
        names = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(data["image/svg+xml"]).iter()}
        assert names <= {"svg", "title", "desc", "text", "tspan", "g", "path", "polyline", "circle"}


def test_dollars_and_backslashes_stand_alone(shell: Any) -> None:
    """JupyterLab looks for formulas in each run of text: none may hold two dollars."""
    from pycontainers.notebook import html

    runs: list[str] = []

    class Runs(HTMLParser):
        def handle_data(self, data: str) -> None:
            runs.append(data)

    Runs().feed(html.mono("sh -c 'echo $A $B' \\(x\\)"))
    assert "".join(runs) == "sh -c 'echo $A $B' \\(x\\)" and all(run.count("$") + run.count("\\") == 0 or len(run) == 1 for run in runs)


def test_container_card_escapes_and_links(shell: Any, hostile: Any) -> None:
    page = formats(shell, hostile)["text/html"]
    assert not Tags(page).tags & {"script", "img"} and 'href="http://127.0.0.1:8080/"' in page and 'rel="noopener noreferrer"' in page


def test_a_status_is_told_by_word_and_icon(shell: Any, engine: FakeEngine) -> None:
    shell.run_line_magic("container", "run -d --name web host")
    engine._set("web", status="exited", exit=ExitStatus(137, 9, oom_killed=True))
    page = formats(shell, shell.run_line_magic("container", "ps -a"))["text/html"]
    assert "✗ Exited (137), OOM-killed" in page


def test_every_form_of_stats_has_text(shell: Any, hostile: Any) -> None:
    static = formats(shell, Stats(hostile.engine, hostile.id, "static"))
    assert set(static) == {"text/plain", "image/svg+xml"} and "CPU" in static["text/plain"]
    assert set(formats(shell, Stats(hostile.engine, hostile.id, "table"))) == {"text/plain"}
    moving = formats(shell, Stats(hostile.engine, hostile.id))
    assert set(moving) == {"text/plain", "image/svg+xml", "application/vnd.plotly.v1+json"}
    table = formats(shell, StatsTable([Stats(hostile.engine, hostile.id)], "table"))
    assert set(table) == {"text/plain", "text/html"}


def test_a_figure_is_valid_and_holds_the_series(hostile: Any) -> None:
    from plotly.graph_objects import Figure

    stats = Stats(hostile.engine, hostile.id)
    stats.info = replace(stats.info, name="web", exit=ExitStatus(137, 9, oom_killed=True, finished=9.0), status="exited")
    data = plots.figure(stats)
    figure = Figure(data)
    assert [trace.name for trace in figure.data][:3] == ["CPU used", "CPU throttled", "Memory used"]
    assert numbers(data["data"][0]["y"]) == pytest.approx([40.0] * 7) and figure.layout.paper_bgcolor == "rgba(0,0,0,0)"
    limits = [shape for shape in figure.layout.shapes if shape.y0 == 50.0]
    assert len(limits) == 1 and limits[0].yref == "y" and figure.layout.yaxis.ticksuffix == " %"
    assert figure.layout.yaxis2.ticksuffix == " MiB" and max(numbers(data["data"][2]["y"])) == 32.0
    assert any("OOM-killed" in note.text for note in figure.layout.annotations)


def test_the_axis_of_processes_has_few_marks(hostile: Any) -> None:
    """Also where the limit is far above what is there: the axis reaches up to it."""
    processes = Panel("Processes", "count", (Series("processes", (0.0, 1.0), (1.0, 6.0)),), 64.0)
    scale = plots._scale(processes)
    assert 64 / scale["dtick"] <= 5 and scale["dtick"] == int(scale["dtick"])


def test_plotly_texts_do_not_speak_html(hostile: Any) -> None:
    title = plots.figure(Stats(hostile.engine, hostile.id))["layout"]["title"]["text"]
    assert "<" not in title and "&lt;script" in title


def test_the_picture_has_words_and_every_peak(hostile: Any, engine: FakeEngine) -> None:
    engine.recorded = [sample(float(t), memory=(1 << 30) if t == 777 else 1 << 20) for t in range(2000)]
    stats = Stats(hostile.engine, hostile.id, "static")
    picture = ElementTree.fromstring(svg.draw(stats))
    space = "{http://www.w3.org/2000/svg}"
    assert picture.find(f"{space}title") is not None and "peak 1.0 GiB" in str(picture.findtext(f"{space}desc"))
    lines = [element.get("points", "").split() for element in picture.iter(f"{space}polyline")]
    assert lines and all(len(points) <= 240 for points in lines)
    memory = max(lines, key=lambda points: len({point.split(",")[1] for point in points}))
    assert min(float(point.split(",")[1]) for point in memory) < 60
    assert len(svg.draw(stats)) < 40_000


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_samples_draw_too(hostile: Any, engine: FakeEngine, count: int) -> None:
    engine.recorded = engine.recorded[:count]
    stats = Stats(hostile.engine, hostile.id)
    ElementTree.fromstring(svg.draw(stats))
    assert plots.figure(stats)["data"] and repr(stats)


def test_a_removed_container_still_shows(shell: Any, engine: FakeEngine, hostile: Container) -> None:
    engine.boxes.clear()
    assert "removed" in formats(shell, hostile)["text/html"]


def test_foreground_results_show_nothing_twice(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.run_line_magic("container", "run --rm host true")
    assert shell.display_formatter.format(result) == ({}, {})


def build_events() -> list[Any]:
    return [
        StepStarted(1, 3, "", "FROM host"),
        StepFinished(1, 0, True),
        StepStarted(2, 3, "app", f"RUN {HOSTILE}"),
        StepOutput(2, "stdout", b"".join(b"line %d\n" % n for n in range(20))),
    ]


def test_a_transfer_is_shown_by_how_far_it_is() -> None:
    view = BuildView()
    view.handle(Progress(f"/data/{HOSTILE}", 3 << 20))
    plain, page = view.bundle()["text/plain"], view.bundle()["text/html"]
    assert "/data/" in plain and "3.0 MiB" in plain and not Tags(page).tags & {"script", "img"}
    view.handle(Done("web:tools", 1.0))
    assert "3.0 MiB" not in view.bundle()["text/plain"]


def test_build_view() -> None:
    view = BuildView()
    assert view.bundle()["text/plain"] == "build starts"
    for event in build_events():
        view.handle(event)
    plain, page = view.bundle()["text/plain"], view.bundle()["text/html"]
    assert "✓ [1/3] FROM host  CACHED" in plain and "▶ [app 2/3]" in plain
    assert "line 19" in plain and "line 14" not in plain and not Tags(page).tags & {"script", "img"}
    view.handle(StepFinished(2, 1.5, False))
    view.handle(StepStarted(3, 3, "app", "RUN false"))
    view.handle(StepOutput(3, "stderr", b"".join(b"why %d\n" % n for n in range(9)) + b"10%\r100%\n"))
    view.handle(Note("weaker <b>"))
    view.failed()
    plain = view.bundle()["text/plain"]
    assert "✓ [app 2/3]" in plain and "1.5 s" in plain and "line 19" not in plain
    assert "✗ [app 3/3]" in plain and "why 0" in plain and "    100%" in plain and "△ weaker" in plain
    view.handle(Done("x", 2.0))
    assert view.bundle()["text/plain"].endswith("built x in 2.00 s · 1 of 3 steps cached") and not re.search(
        "<b>(?!built)", view.bundle()["text/html"]
    )
