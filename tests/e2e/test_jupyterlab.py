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
    from pycontainers.engines.native import NativeEngine

    NativeEngine(state).remove("busy", force=True)


@pytest.fixture(scope="module")
def page(lab: Any) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        found = browser.new_page(viewport={"width": 1280, "height": 1500})
        found.goto(lab.notebook("session.ipynb", CELLS))
        found.wait_for_function("window.jupyterapp && document.querySelectorAll('.jp-CodeCell').length >= 5", timeout=90_000)
        # A page says "idle" before its kernel is really connected, and what is run then is lost.
        found.evaluate(
            """async () => {
            const context = window.jupyterapp.shell.currentWidget.sessionContext;
            await context.ready;
            await context.session.kernel.info;
            await context.session.kernel.requestExecute({code: 'pass'}).done;
            window.jupyterapp.commands.execute('notebook:run-all-cells');
        }"""
        )
        yield found
        browser.close()


def shot(page: Any, name: str) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=str(ARTIFACTS / f"{name}.png"))


def plotted(page: Any) -> list[Any]:
    """[number of points, last time] of the first trace on the page."""
    found: list[Any] = page.evaluate(
        "() => { const x = document.querySelector('.js-plotly-plot').data[0].x; const a = Array.from(x._inputArray || x);"
        " return [a.length, a[a.length - 1]]; }"
    )
    return found


def test_plot_is_there_and_moves(page: Any) -> None:
    page.wait_for_selector(".js-plotly-plot .main-svg", timeout=90_000)
    before = plotted(page)
    page.wait_for_function(
        "([count, last]) => { const x = document.querySelector('.js-plotly-plot').data[0].x; const a = Array.from(x._inputArray || x);"
        " return a.length > count + 2 && a[a.length - 1] > last + 2; }",
        arg=before,
        timeout=30_000,
    )
    assert page.get_by_text("Memory").first.is_visible()
    page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
    shot(page, "stats-light")


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
    failed.first.scroll_into_view_if_needed()
    shot(page, "error-light")


def test_dark(page: Any) -> None:
    page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    page.wait_for_selector("body[data-jp-theme-light='false']", state="attached", timeout=30_000)
    page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
    page.wait_for_timeout(1500)
    shot(page, "stats-dark")


def test_kernel_restart_keeps_the_container(page: Any, engine: Any) -> None:
    before = engine.find("busy").pid
    page.evaluate("""async () => {
        const panel = window.jupyterapp.shell.currentWidget;
        await panel.sessionContext.session.kernel.restart();
    }""")
    found = page.evaluate("""async () => {
        const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
        let text = '';
        const future = kernel.requestExecute({code: "%load_ext pycontainers\\nprint(get_ipython().run_line_magic('container', 'ps'))"});
        future.onIOPub = message => { if (message.content.text) text += message.content.text; };
        await future.done;
        return text;
    }""")
    assert "busy" in found
    assert engine.find("busy").pid == before
    assert os.path.isdir(f"/proc/{before}")
    assert "session.ipynb" in engine.find("busy").notebook
