"""One session in real JupyterLab, in real Chromium: the plot is there and moves, errors are one line, a restart loses nothing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine

sys.path.insert(0, str(Path(__file__).parent))

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]

pytestmark = [
    pytest.mark.root,
    pytest.mark.browser,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH (on Debian: apt-get install chromium)"),
    pytest.mark.skipif(not importlib.util.find_spec("playwright"), reason="playwright is not installed (pip install '.[test]')"),
    pytest.mark.skipif(not importlib.util.find_spec("jupyterlab"), reason="jupyterlab is not installed (pip install '.[lab]')"),
]

BUSY = "while :; do i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; sleep 0.2; done"
CELLS = [
    "%load_ext pycontainers",
    f"%container run -d --replace --name busy --network none --memory 64m --cpus 0.5 host sh -c '{BUSY}'",
    "%container stats busy",
    "%container ps",
    "%%container run --rm --network none --memory 32m host python\nx = bytearray(100 << 20)",
]


@pytest.fixture(scope="module")
def lab(state: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from lab import running

    folder = tmp_path_factory.mktemp("lab")
    with running(folder, {"PYCONTAINERS_HOME": str(state.home), "PYCONTAINERS_RUN": str(state.run)}) as found:
        yield found
    engine = NativeEngine(state)
    for info in engine.containers(all=True):
        if info.name == "busy":
            engine.remove(info.id, force=True)


@pytest.fixture(scope="module")
def page(lab: Any) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        found = browser.new_page(viewport={"width": 1280, "height": 1500})
        found.set_default_timeout(60_000)
        found.goto(lab.notebook("session.ipynb", CELLS))
        connected(found)
        found.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        yield found
        browser.close()


def connected(page: Any) -> None:
    """Wait for the notebook and its kernel. A page says "idle" before its kernel is really connected, and what is run then is lost."""
    page.wait_for_function(f"window.jupyterapp && document.querySelectorAll('.jp-CodeCell').length >= {len(CELLS)}", timeout=90_000)
    page.evaluate("""async () => {
        const context = window.jupyterapp.shell.currentWidget.sessionContext;
        await context.ready;
        await context.session.kernel.info;
        await context.session.kernel.requestExecute({code: 'pass'}).done;
    }""")


def execute(page: Any, code: str) -> str:
    """Run code in the page's kernel, beside its cells; returns what it printed."""
    found: str = page.evaluate(
        """async code => {
        const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
        let text = '';
        const future = kernel.requestExecute({code});
        future.onIOPub = message => { if (message.content.text) text += message.content.text; };
        await future.done;
        return text;
    }""",
        code,
    )
    return found


def shot(target: Any, name: str) -> None:
    """A picture of the page or of one element, for people to look at."""
    ARTIFACTS.mkdir(exist_ok=True)
    target.screenshot(path=str(ARTIFACTS / f"{name}.png"))


TRACE = """() => {
    const plot = document.querySelector('.js-plotly-plot');
    const all = list => Array.from((list && list._inputArray) || list || []);
    const x = all(plot.data[0].x), y = all(plot.data[0].y);
    return {points: x.length, last: x.length ? x[x.length - 1] : 0, peak: Math.max(0, ...y), top: plot._fullLayout.yaxis.range[1]};
}"""


def plotted(page: Any) -> dict[str, float]:
    """The CPU line on the page: number of points, time of the last (seconds), its highest value, and where its axis ends (percent)."""
    page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=90_000)
    found: dict[str, float] = page.evaluate(TRACE)
    return found


def moves(page: Any) -> None:
    before = plotted(page)
    page.wait_for_function(
        f"before => {{ const now = ({TRACE})(); return now.points > before.points + 2 && now.last > before.last + 2; }}",
        arg=before,
        timeout=30_000,
    )


def test_plot_is_there_and_moves(page: Any) -> None:
    moves(page)
    found = plotted(page)
    assert 0 < found["peak"] < found["top"]
    assert page.get_by_text("Memory").first.is_visible()
    page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
    shot(page, "session-light")


def test_pause_holds_the_picture(page: Any) -> None:
    button = page.get_by_role("button", name="Pause")
    button.click()
    page.get_by_text("● paused").wait_for(timeout=15_000)
    held = plotted(page)
    page.wait_for_timeout(2500)
    assert plotted(page)["points"] == held["points"]
    button.click()
    page.wait_for_function(f"held => ({TRACE})().points > held.points", arg=held, timeout=15_000)


def test_listing_shows_it_and_the_failed_cell_is_one_line(page: Any) -> None:
    table = page.locator(".jp-OutputArea table").first
    table.wait_for(timeout=30_000)
    assert "busy" in table.inner_text()
    failed = page.locator("[data-mime-type='application/vnd.jupyter.stderr'], .jp-RenderedText[data-mime-type*='error']").filter(
        has_text="OOM-killed"
    )
    failed.first.wait_for(timeout=60_000)
    text = failed.first.inner_text()
    assert "32.0 MiB" in text
    assert "Traceback" not in text
    assert len([line for line in text.splitlines() if line.strip()]) == 2  # what is wrong, and what to do
    shot(failed.first, "error-light")


def test_dark(page: Any) -> None:
    page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    page.wait_for_selector("body[data-jp-theme-light='false']", state="attached", timeout=30_000)
    page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
    page.wait_for_timeout(1500)
    shot(page, "session-dark")


def test_a_reloaded_page_goes_on(page: Any, lab: Any) -> None:
    page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")
    page.goto(lab.address("session.ipynb"))
    connected(page)
    moves(page)


def test_kernel_restart_keeps_the_container(page: Any, engine: Any) -> None:
    before = engine.find("busy").pid
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart(); }")
    connected(page)
    assert "busy" in execute(page, "%load_ext pycontainers\nprint(get_ipython().run_line_magic('container', 'ps'))")
    assert engine.find("busy").pid == before
    assert os.path.isdir(f"/proc/{before}")
    assert "session.ipynb" in engine.find("busy").notebook


def test_the_whole_course_is_there_when_the_page_is_reloaded_after_the_end(page: Any, lab: Any, engine: Any) -> None:
    """Nothing is drawn any more then: the page has only what the kernel answers when it asks for the state of its widgets."""
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.get_by_text("● live").wait_for()
    moves(page)
    execute(page, "%container kill busy")
    page.get_by_text("● ended").wait_for(timeout=20_000)
    ended = plotted(page)
    page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")
    page.goto(lab.address("session.ipynb"))
    connected(page)
    plotted(page)
    page.wait_for_timeout(2000)
    again = plotted(page)
    assert again["points"] == ended["points"]
    assert again["top"] == pytest.approx(ended["top"])
