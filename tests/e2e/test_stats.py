"""The live figure on a page of real JupyterLab in real Chromium: several containers in one, zoom, events, a long life, hostile names."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.protocol import ContainerConfig, Resources

sys.path.insert(0, str(Path(__file__).parent))

from test_jupyterlab import BUSY, CHROMIUM, FLAGS, execute, pytestmark, shot

pytestmark = [*pytestmark]

HOSTILE = "<img src=x onerror=document.title=1>%{x}<b>"
ODD = f"""
from dataclasses import replace
from pycontainers.engines.native import engine
from pycontainers.metrics.sample import Sample
from pycontainers.notebook.display import figure_bundle
from pycontainers.notebook.sampler import sampler
from pycontainers.notebook.widgets import stats as live
from pycontainers.usage import Stats
from IPython.display import display

class Odd:
    '''An engine whose container has a hostile name and has run for an hour.'''
    def __getattr__(self, name):
        return getattr(engine(), name)
    def find(self, container):
        return replace(engine().find(container), name={HOSTILE!r})
    def samples(self, container, after=None):
        made = [Sample(1000.0 + n, cpu_usage=n * 10**8, memory=(3 if n == 1777 else 1) << 30, pids=3, pressure=1) for n in range(3600)]
        return [sample for sample in made if after is None or sample.time > after]

views = []
kept = live.LiveStats
live.LiveStats = lambda figure: views.append(kept(figure)) or views[-1]
display(figure_bundle(Stats(Odd(), 'one'), True), raw=True)
"""
CELLS = ["%load_ext pycontainers", "%container stats one two", ODD, "%container stats one two three"]


@pytest.fixture(scope="module")
def here(state: Any) -> Iterator[NativeEngine]:
    """The engine of another process than the notebook's."""
    engine = NativeEngine(state)
    before = {info.id for info in engine.containers(True)}
    for name in ("one", "two", "three"):
        limits = Resources(memory=64 << 20, cpus=0.5)
        info = engine.create(ContainerConfig(image="host", command=("sh", "-c", BUSY), network="none", name=name, resources=limits))
        engine.start(info.id)
    yield engine
    for info in engine.containers(True):
        if info.id not in before:
            engine.remove(info.id, force=True)


@pytest.fixture(scope="module")
def page(here: NativeEngine, state: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from lab import running
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("stats")
    with (
        running(folder, {"PYCONTAINERS_HOME": str(state.home), "PYCONTAINERS_RUN": str(state.run)}) as lab,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        found = browser.new_page(viewport={"width": 1400, "height": 2300})
        found.set_default_timeout(60_000)
        found.problems, found.foreign, found.received = [], [], 0
        found.on("pageerror", lambda error: found.problems.append(str(error)))
        found.on("request", lambda request: note(found, request.url, lab.url))
        found.on("websocket", lambda socket: socket.on("framereceived", lambda data: count(found, data)))
        found.goto(lab.notebook("stats.ipynb", CELLS))
        found.wait_for_function(f"window.jupyterapp && document.querySelectorAll('.jp-CodeCell').length >= {len(CELLS)}", timeout=90_000)
        found.evaluate("""async () => {
            const context = window.jupyterapp.shell.currentWidget.sessionContext;
            await context.ready;
            await context.session.kernel.info;
            await context.session.kernel.requestExecute({code: 'pass'}).done;
            await window.jupyterapp.commands.execute('notebook:run-all-cells');
        }""")
        figure(found, 2).locator(".js-plotly-plot .main-svg").first.wait_for()
        yield found
        browser.close()


def note(page: Any, url: str, own: str) -> None:
    if not url.startswith((own, own.replace("http", "ws"), "blob:", "data:")):
        page.foreign.append(url)


def count(page: Any, data: str | bytes) -> None:
    page.received += len(data)


def figure(page: Any, number: int) -> Any:
    return page.locator(".pyct-stats").nth(number)


CHARTS = """element => Array.from(element.querySelectorAll('.js-plotly-plot')).map(plot => ({
    lines: plot.data.map(trace => trace.name), points: plot.data.map(trace => trace.x.length),
    from: plot._fullLayout.xaxis.range[0], to: plot._fullLayout.xaxis.range[1],
    last: Math.max(...plot.data.map(trace => trace.x[trace.x.length - 1])),
    top: Math.max(...plot.data.map(trace => Math.max(...trace.y))), marks: (plot.layout.annotations || []).map(mark => mark.text),
}))"""


def charts(page: Any, number: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = figure(page, number).evaluate(CHARTS)
    return found


def until(page: Any, number: int, condition: str, arg: Any = None) -> None:
    """Until ``condition(charts, arg)`` holds in the page."""
    script = f"({{number, arg}}) => ({condition})(({CHARTS})(document.querySelectorAll('.pyct-stats')[number]), arg)"
    page.wait_for_function(script, arg={"number": number, "arg": arg}, timeout=30_000)


def test_several_containers_move_in_one_figure_and_can_be_hidden(page: Any) -> None:
    before = charts(page, 0)
    assert before[0]["lines"] == ["one", "two"] and len(before) in (4, 5), "all but network, and pressure where it is not known"
    until(page, 0, "(now, before) => now[0].last > before + 2500", before[0]["last"])
    figure(page, 0).get_by_role("button", name="two").click()
    until(page, 0, "now => now[0].lines.join() === 'one'")
    figure(page, 0).get_by_role("button", name="two").click()
    until(page, 0, "now => now[0].lines.join() === 'one,two'")
    assert figure(page, 0).get_by_text("● live").is_visible()
    assert figure(page, 0).get_by_text("the container has no network").is_visible()


def test_zoom_is_in_all_panels_and_stays_while_new_data_come(page: Any) -> None:
    until(page, 0, "now => now[0].points[0] > 6")
    place = figure(page, 0).locator(".js-plotly-plot .nsewdrag").first
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 45, steps=5)
    page.mouse.up()
    figure(page, 0).get_by_text(" to ").first.wait_for()
    zoomed = charts(page, 0)
    assert len({(chart["from"], chart["to"]) for chart in zoomed}) == 1
    until(page, 0, "(now, was) => now[0].last > was + 2000", zoomed[0]["last"])
    now = charts(page, 0)
    assert [(chart["from"], chart["to"]) for chart in now] == [(chart["from"], chart["to"]) for chart in zoomed]
    shot(figure(page, 0), "stats-zoomed-light")
    figure(page, 0).get_by_role("button", name="All", exact=True).click()
    until(page, 0, "(now, was) => now[0].to > was", zoomed[0]["to"])


def test_what_happens_elsewhere_is_marked(page: Any, here: NativeEngine) -> None:
    here.pause("one")
    events = figure(page, 0).get_by_role("list", name="what happened")
    events.get_by_text("one: paused").wait_for(timeout=15_000)
    here.unpause("one")
    events.get_by_text("one: unpaused").wait_for(timeout=15_000)
    here.kill("two")
    events.get_by_text("two: exit 137").wait_for(timeout=15_000)
    until(page, 0, "now => now[0].marks.includes('■')")
    figure(page, 0).get_by_text("Exited (137)").first.wait_for()


def test_a_long_life_is_bounded_and_hostile_names_are_text(page: Any) -> None:
    until(page, 1, "now => now.length > 0")
    long = charts(page, 1)
    assert 500 <= long[0]["points"][0] <= 1200 and long[1]["top"] == pytest.approx(3.0, rel=0.01), "its peak, in GiB"
    assert HOSTILE in figure(page, 1).locator(".pyct-stats-title").inner_text()
    # An hour more, as it comes second by second: the page keeps no more points than before, and the peak.
    execute(page, f"for n in range(36):\n    views[0].widget.send({{'kind': 'points'}}, [live.packed([live.rows({HOUR})])])")
    until(page, 1, "(now, was) => now[0].last > was + 3.5e6", long[0]["last"])
    now = charts(page, 1)
    assert max(now[1]["points"]) <= 1200 and now[1]["top"] == pytest.approx(3.0, rel=0.01)
    figure(page, 1).locator(".js-plotly-plot .nsewdrag").first.hover()
    assert page.title() != "1" and not figure(page, 1).locator("img").count()
    figure(page, 1).locator(".hoverlayer").first.wait_for(state="attached")


HOUR = "[Sample(1000.0 + 3600 + n * 100 + s, cpu_usage=10**8, memory=1 << 30, pids=3) for s in range(100)], 1000.0"


def test_a_second_of_figures_is_small(page: Any) -> None:
    begun, before = time.monotonic(), page.received
    page.wait_for_timeout(4000)
    each = (page.received - before) / (time.monotonic() - begun)
    print(f"{each / 1e3:.2f} kB/s to the page")
    assert each < 10_000


def test_dark(page: Any) -> None:
    shot(figure(page, 2), "stats-light")
    ink = "() => getComputedStyle(document.querySelectorAll('.pyct-stats')[2].querySelector('.xtick text')).fill"
    light = page.evaluate(ink)
    page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    page.wait_for_selector("body[data-jp-theme-light='false']", state="attached", timeout=30_000)
    page.wait_for_function(f"light => ({ink})() !== light", arg=light, timeout=30_000)
    shot(figure(page, 2), "stats-dark")


def test_no_other_address_was_asked_and_nothing_broke(page: Any) -> None:
    assert not page.foreign and not page.problems
    loads = page.evaluate("() => typeof globalThis.Plotly === 'undefined' && Boolean(globalThis[Symbol.for('io.pycontainers.plotly')])")
    assert loads, "ours is nobody else's"
