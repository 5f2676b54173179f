"""Images on a page of real JupyterLab in real Chromium: the explorer by keyboard and mouse, and a transfer while it goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine

sys.path.insert(0, str(Path(__file__).parent))

from test_jupyterlab import CHROMIUM, FLAGS, pytestmark, shot

pytestmark = [*pytestmark]

DOCKERFILE = r"""FROM host
RUN mkdir -p /opt/app/data /opt/app/lib && head -c 3000000 /dev/zero > /opt/app/data/model.bin && echo 1 > /opt/app/lib/core.py
RUN rm /opt/app/data/model.bin && echo 2 > /opt/app/lib/core.py && ln -s /etc/shadow /opt/app/link
RUN cd /opt/app && touch "$(printf 'a\033[31mred')" "$(printf 'bytes-\377')" '<img src=x onerror=document.title=1>' && \
    seq 400 | sed s,^,many-, | xargs touch
"""
#: What a pull says, slowly enough to be looked at; it waits until the test has seen what is there so far.
TRANSFER = """
import os
import time
from pycontainers.events import Done, Note, Transfer
from pycontainers.notebook.progress import show
def wait(name):
    while not os.path.exists(name):
        time.sleep(0.02)
def work():
    yield Transfer("manifest", "done", 1200, 1200)
    yield Transfer("9c27e219663c", "exists")
    for name in ("4f4fb700ef54", "<b>odd</b>"):
        yield Transfer(name, "waiting")
    for step in range(1, 61):
        yield Transfer("4f4fb700ef54", "downloading", step << 19, 60 << 19)
        yield Transfer("<b>odd</b>", "downloading", step << 18, 80 << 18)
        time.sleep(0.02)
        if step == 10:
            wait("begun")
    yield Transfer("4f4fb700ef54", "unpacking", 10 << 20, 60 << 20)
    HOLD
    yield Transfer("4f4fb700ef54", "done", 30 << 20, 30 << 20)
    yield Transfer("<b>odd</b>", "done", 80 << 18, 80 << 18)
    yield Note("a note")
    yield Done("example/app:1", 3.2)
    return 7
result = show(work(), "pulled")
"""
CELLS = [
    "%load_ext pycontainers",
    "%%container build -t shown --progress quiet --network none\n" + DOCKERFILE,
    "%container explore shown",
    TRANSFER.replace("HOLD", "wait('seen')"),
    "found = %container explore shown\nfrom IPython.display import HTML, display\nfrom pycontainers.notebook.exploring import static\n"
    "display(HTML(static(found)))",
    TRANSFER.replace("HOLD", "raise RuntimeError('broken off')"),
]


@pytest.fixture(scope="module")
def lab(state: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from lab import running

    folder = tmp_path_factory.mktemp("images")
    with running(folder, {"PYCONTAINERS_HOME": str(state.home), "PYCONTAINERS_RUN": str(state.run)}) as found:
        yield found
    engine = NativeEngine(state)
    if any("shown:latest" in info.names for info in engine.images()):
        engine.remove_image("shown")


@pytest.fixture(scope="module")
def page(lab: Any) -> Iterator[Any]:
    import test_jupyterlab
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        found = browser.new_page(viewport={"width": 1280, "height": 2600})
        found.set_default_timeout(60_000)
        found.goto(lab.notebook("images.ipynb", CELLS))
        test_jupyterlab.connected(found)
        found.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        yield found
        browser.close()


def dark(page: Any, on: bool) -> None:
    theme = f"JupyterLab {'Dark' if on else 'Light'}"
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    page.wait_for_selector(f"body[data-jp-theme-light='{'false' if on else 'true'}']", state="attached", timeout=30_000)


def test_a_transfer_is_one_view_with_a_bar_for_each_item(page: Any, lab: Any) -> None:
    bar = page.get_by_role("progressbar", name="4f4fb700ef54 downloading")
    bar.wait_for(timeout=120_000)
    before = int(bar.get_attribute("aria-valuenow"))
    (lab.folder / "begun").touch()
    bars = "[...document.querySelectorAll('[role=progressbar]')].filter(one => one.ariaLabel === '4f4fb700ef54 downloading')"
    value = f"Number({bars}[0].ariaValueNow)"
    page.wait_for_function(f"before => {value} > before + 20", arg=before)
    view = page.get_by_role("log", name="transfer").first
    assert "MiB/s" in view.inner_text() and "left" in view.inner_text() and "<b>odd</b>" in view.inner_text()
    shot(page, "transfer-light")  # the view is replaced at each update: it never stands still
    (lab.folder / "seen").touch()
    view.get_by_text("pulled example/app:1 in 3.20 s").wait_for()
    assert "30.0 MiB in" in view.inner_text() and "is here already" in view.inner_text() and not view.get_by_role("progressbar").count()


def test_what_broke_off_is_shown_as_not_finished(page: Any) -> None:
    view = page.get_by_role("log", name="transfer").nth(1)
    view.get_by_text("not finished").first.wait_for(timeout=60_000)
    assert view.inner_text().count("not finished") == 2 and "✗" in view.inner_text()


def test_the_explorer_by_keyboard(page: Any) -> None:
    layers = page.get_by_role("listbox", name="layers")
    layers.wait_for(timeout=60_000)
    layers.scroll_into_view_if_needed()
    assert layers.get_by_role("option").count() == 4
    chosen = layers.locator("[aria-selected=true]")
    assert chosen.inner_text().startswith("3")
    chosen.focus()
    page.keyboard.press("ArrowUp")
    tree = page.get_by_role("tree", name="files of layer 2")
    tree.get_by_role("treeitem", name="opt/").wait_for()
    tree.locator("[tabindex='0']").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
        if key == "ArrowRight":  # what is in a folder comes from the kernel
            page.wait_for_function("document.activeElement.querySelector('[role=treeitem]')")
    assert tree.get_by_role("treeitem", name="model.bin, removed").is_visible()
    assert tree.get_by_role("treeitem", name="data/").get_attribute("aria-expanded") == "true"
    page.keyboard.press("ArrowLeft")
    assert not tree.get_by_role("treeitem", name="model.bin, removed").is_visible()
    page.keyboard.press("End")
    assert "link → /etc/shadow" in page.evaluate("document.activeElement.innerText")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("app/")


def test_names_of_any_bytes_are_text(page: Any) -> None:
    page.get_by_role("listbox", name="layers").get_by_role("option").nth(3).click()
    tree = page.get_by_role("tree", name="files of layer 3")
    for name in ("opt/", "app/"):
        tree.get_by_role("treeitem", name=name).locator(".pyct-row").first.click()
    for name in (r"a\x1b[31mred, added", r"bytes-\xff, added", "<img src=x onerror=document.title=1>, added"):
        tree.get_by_role("treeitem", name=name, exact=True).wait_for()
    assert page.title() != "1" and not page.locator(".pyct-explore img").count()
    more = tree.get_by_role("treeitem", name="… 103 more")
    more.locator(".pyct-row").click()
    tree.get_by_role("treeitem", name="many-99, added").wait_for()
    page.get_by_role("searchbox", name="find files").fill("MANY-39")
    page.get_by_text("11 found").wait_for()
    shot(page.locator(".pyct-explore").first, "explore-light")


def test_light_and_dark_and_the_static_form(page: Any) -> None:
    for on in (True, False):
        dark(page, on)
        name = "dark" if on else "light"
        shot(page.locator(".pyct-explore").first, f"explore-{name}")
        shot(page.get_by_role("log", name="transfer").first, f"transfer-done-{name}")
        static = page.locator("[aria-label='layers of shown:latest']").last
        static.locator("summary").first.scroll_into_view_if_needed()
        shot(static, f"explore-static-{name}")
    assert "3 added" in static.inner_text() or "added" in static.inner_text()
    # A command with two dollars is no formula.
    assert "\"$(printf 'a\\033[31mred')\" \"$(printf" in static.inner_text() and not page.locator("mjx-container").count()
    static.locator("summary").nth(1).click()
    assert "model.bin" in static.inner_text() and not static.locator("img").count()
