"""Builds on a page of real JupyterLab in real Chromium: several steps at a time, a failure, a long build, a real one, light and dark."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine

sys.path.insert(0, str(Path(__file__).parent))

from test_images import dark
from test_jupyterlab import ARTIFACTS, CHROMIUM, FLAGS, pytestmark

pytestmark = [*pytestmark]

#: What a solver says of stages that run side by side, until the test has seen it.
EVENTS = r"""
import os
import time
from pycontainers.errors import BuildError
from pycontainers.events import Done, Note, StepFailed, StepFinished, StepOutput, StepStarted, Transfer
from pycontainers.notebook.progress import show
def wait(name):
    while not os.path.exists(name):
        time.sleep(0.02)
def begin():
    yield StepStarted(1, 9, "base", "FROM debian:bookworm")
    yield Transfer("4f4fb700ef54", "done", 30 << 20, 30 << 20)
    yield StepFinished(1, 0.0, True, "an image that is here")
    yield StepStarted(2, 9, "base", "ENV LANG=C.UTF-8 PATH=$HOME/bin:$PATH")
    yield StepFinished(2, 0.0, True)
    words = "RUN --mount=type=cache,target=/root/.npm npm ci && \\\n    npm run build -- --mode production" + " --flag" * 20
    yield StepStarted(3, 9, "page", words)
    yield StepStarted(6, 9, "app", "COPY --link requirements.txt /app/")
    yield StepFinished(6, 0.12, False, "requirements.txt has changed\nits last build was on debian:trixie")
    yield StepStarted(7, 9, "app", "RUN pip install -r /app/requirements.txt <b>bold</b>")
    yield Note("line 4: JSONArgsRecommended: write CMD as a JSON list")
def lines(count, pause=0.02):
    for number in range(count):
        yield StepOutput(3, "stdout", b"vite  \x1b[32mtransforming\x1b[0m module %d\n" % number)
        yield StepOutput(7, "stdout", b"Collecting package-%d\n  Downloading package_%d-py3-none-any.whl\n" % (number, number))
        time.sleep(pause)
def good():
    yield from begin()
    yield from lines(40)
    wait('good-seen')
    yield StepFinished(7, 4.2, False)
    yield StepFinished(3, 6.1, False)
    yield Done("shop:1", 6.4)
def bad():
    yield from begin()
    yield from lines(60, 0.0)
    yield StepOutput(7, "stderr", b"ERROR: No matching distribution found for reqests==2.0\n")
    yield StepFailed(7, 4.2)
    yield StepFailed(3, 4.3, cancelled=True)
    raise BuildError("RUN failed with exit code 1: pip install", "mend it", line=12, column=1, source="RUN pip install")
def many():
    for index in range(1, 201):
        yield StepStarted(index, 200, f"stage-{index % 5}", f"RUN ./configure --with-module-{index}")
        time.sleep(0.01)
        if index < 199:
            yield StepFinished(index, 0.3, index % 9 != 0)
        else:
            yield StepOutput(index, "stdout", b"checking for cc... cc\n")
    wait('many-seen')
    for index in (199, 200):
        yield StepFinished(index, 0.3, False)
    yield Done("many:1", 61.0)
"""
DOCKERFILE = """FROM host AS one
RUN for n in 1 2 3 4 5 6 7 8 9; do echo "one $n"; sleep 0.1; done; echo 1 > /srv/one
FROM host AS two
RUN for n in 1 2 3 4 5 6 7 8 9; do echo "two $n"; sleep 0.1; done; echo 2 > /srv/two
FROM scratch
COPY --from=one /srv/one /
COPY --from=two /srv/two /
"""
CELLS = [
    "%load_ext pycontainers",
    EVENTS,
    "show(good())",
    "try:\n    show(bad())\nexcept BuildError as error:\n    print('\\n'.join(error._render_traceback_()))",
    "show(many())",
    "%%container build -t seen --explain --network none --context ''\n" + DOCKERFILE,
    "%%container file page index.html\n<h1>hello</h1>\n",
    "%%container build --context page --network none\nFROM scratch\nCOPY . /srv/\nCOPPY . /\n",
]


@pytest.fixture(scope="module")
def lab(state: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from lab import running

    folder = tmp_path_factory.mktemp("builds")
    with running(folder, {"PYCONTAINERS_HOME": str(state.home), "PYCONTAINERS_RUN": str(state.run)}) as found:
        yield found
    engine = NativeEngine(state)
    if any("seen:latest" in info.names for info in engine.images()):
        engine.remove_image("seen")


@pytest.fixture(scope="module")
def page(lab: Any) -> Iterator[Any]:
    import test_jupyterlab
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        found = browser.new_page(viewport={"width": 1280, "height": 4200})
        found.set_default_timeout(60_000)
        found.goto(lab.notebook("builds.ipynb", CELLS))
        test_jupyterlab.connected(found)
        found.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        yield found
        browser.close()


def picture(page: Any, target: Any, name: str) -> None:
    """Of one element, as it stands: one that is drawn anew all the time never stands still."""
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=str(ARTIFACTS / f"{name}.png"), clip=box(target))


def box(target: Any) -> Any:
    """Its place on the page, asked and answered in one step: ``bounding_box()`` is None for what is replaced just then."""
    return target.evaluate("one => { const {x, y, width, height} = one.getBoundingClientRect(); return {x, y, width, height}; }")


def test_several_steps_at_a_time(page: Any, lab: Any) -> None:
    view = page.get_by_role("log", name="build").first
    view.get_by_text("Collecting package-39").wait_for(timeout=120_000)
    assert view.get_by_role("img", name="running").count() == 2 and "2 running" in view.inner_text()
    assert "module 39" in view.inner_text() and "module 30" not in view.inner_text() and "<b>bold</b>" in view.inner_text()
    picture(page, view, "build-running-light")
    (lab.folder / "good-seen").touch()
    view.get_by_text("built shop:1 in 6.40 s · 2 of 5 steps cached").wait_for()
    assert "↳ requirements.txt has changed" in view.inner_text() and not view.get_by_role("img", name="running").count()
    # An instruction that is wider than the page is cut, and the time beside it is seen.
    row = view.get_by_role("listitem").nth(2)
    assert row.evaluate("one => one.scrollWidth <= one.clientWidth + 1") and row.get_by_text("6.1 s").is_visible()


def test_a_failure_shows_all_that_the_step_said(page: Any) -> None:
    view = page.get_by_role("log", name="build").nth(1)
    region = view.get_by_role("region", name="output of step 7")
    region.wait_for()
    assert "Collecting package-0" in region.inner_text() and "No matching distribution" in region.inner_text()
    below = "one => one.firstChild.getBoundingClientRect().bottom - one.getBoundingClientRect().bottom"
    assert region.evaluate("one => one.scrollHeight > 2 * one.clientHeight"), "it has no scroll bar"
    assert abs(region.evaluate(below)) < 3, "it is not scrolled to its end"
    assert view.get_by_role("img", name="cancelled").count() == 1 and view.get_by_role("img", name="failed").count() == 1


def test_a_long_build_is_one_screen(page: Any, lab: Any) -> None:
    view = page.get_by_role("log", name="build").nth(2)
    view.get_by_text("198 of 200 steps · 2 running").wait_for(timeout=60_000)
    assert box(view)["height"] < 700
    (lab.folder / "many-seen").touch()
    view.get_by_text("built many:1").wait_for()
    group = view.locator("details").first
    group.locator("summary").click()
    assert group.get_by_text("--with-module-2", exact=False).first.is_visible()


def test_a_real_build_and_its_error(page: Any) -> None:
    page.get_by_text("built seen in").wait_for(timeout=120_000)
    error = page.get_by_text("did you mean COPY?").first
    error.wait_for(timeout=60_000)
    text = page.locator(".jp-Cell").last.inner_text()
    assert "Dockerfile:3:1: unknown instruction" in text and "3 | COPPY . /" in text and "^" in text
    for name in ("light", "dark"):
        dark(page, name == "dark")
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        views = page.get_by_role("log", name="build")
        for number in range(views.count()):
            picture(page, views.nth(number), f"build-{number}-{name}")
        picture(page, page.locator(".jp-Cell").last, f"build-error-{name}")
    dark(page, False)
