"""Pages beside JupyterLab: Notebook 7, a Lab without widgets, a page with a widget manager and nothing else; a kernel in a container."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import queue
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from pycontainers.engines.native import NativeEngine

sys.path.insert(0, str(Path(__file__).parent))

from test_jupyterlab import ARTIFACTS, BUSY, CHROMIUM, FLAGS, pytestmark

HERE = Path(__file__).parent
pytestmark = [
    *pytestmark,
    pytest.mark.skipif(not importlib.util.find_spec("notebook"), reason="Notebook 7 is not installed (pip install '.[test]')"),
]
START = f"%load_ext pycontainers\nbox = %container run -d --replace --name hosted --network none --memory 64m host sh -c '{BUSY}'"
CELLS = [START, "%container stats hosted", "%container ps", "%container explore host", "%container rnu x"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def lab(state: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One server for JupyterLab and Notebook 7."""
    from lab import running

    folder = tmp_path_factory.mktemp("hosts")
    environ = {"PYCONTAINERS_HOME": str(state.home), "PYCONTAINERS_RUN": str(state.run)}
    with running(folder, environ, "--JupyterNotebookApp.expose_app_in_browser=True") as found:
        yield found
    engine = NativeEngine(state)
    for info in engine.containers(all=True):
        if info.name == "hosted":
            engine.remove(info.id, force=True)


def opened(browser: Any, address: str, cells: int, without: str = "") -> Any:
    """A page whose notebook has been run. ``without``: what of the server it does not get."""
    page = browser.new_page(viewport={"width": 1280, "height": 1400})
    if without:
        page.route(without, lambda route: route.abort())
    page.set_default_timeout(60_000)
    page.goto(address)
    page.wait_for_function(f"window.jupyterapp && document.querySelectorAll('.jp-CodeCell').length >= {cells}", timeout=90_000)
    page.evaluate("""async () => {
        const context = window.jupyterapp.shell.currentWidget.sessionContext;
        await context.ready;
        await context.session.kernel.info;
        await context.session.kernel.requestExecute({code: 'pass'}).done;
    }""")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    return page


def shot(target: Any, name: str) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    target.screenshot(path=str(ARTIFACTS / f"{name}.png"))


def test_notebook_7(browser: Any, lab: Any) -> None:
    address = lab.notebook("seven.ipynb", CELLS).replace("/lab/tree/", "/notebooks/")
    page = opened(browser, address, len(CELLS))
    page.get_by_text("● live").first.wait_for()
    page.get_by_role("cell", name="hosted").first.wait_for()
    page.get_by_text("unknown verb 'rnu'").first.wait_for()
    page.locator(".pyct").first.wait_for()  # the explorer
    assert "Error displaying widget" not in page.locator("body").inner_text()
    shot(page, "notebook-7-light")
    page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    page.wait_for_selector("body[data-jp-theme-light='false']", state="attached")
    shot(page, "notebook-7-dark")
    page.close()


def test_a_lab_without_widgets_is_told_once(browser: Any, lab: Any) -> None:
    cells = [START, "%container stats hosted", "%container explore host", "%container stats hosted"]
    page = opened(browser, lab.notebook("none.ipynb", cells), len(cells), without="**/@jupyter-widgets/**")
    note = page.get_by_text("this page shows no widgets")
    note.first.wait_for()
    page.wait_for_function("document.querySelectorAll('.jp-CodeCell').length && !document.body.innerText.includes('[*]')")
    assert note.count() == 1
    assert page.locator(".jp-RenderedSVG").count() >= 2  # the static form, before it was known and afterwards
    assert "jupyter labextension list" in note.first.inner_text()  # for they are installed
    shot(page, "no-widgets")
    page.close()


def test_a_kernel_in_a_container(browser: Any, lab: Any, state: Any) -> None:
    """Chosen by a notebook like any other; out of memory, the page's kernel starts again and the server's log says why."""
    own = lab.folder.with_name(lab.folder.name + "-own")
    environ = {**os.environ, "JUPYTER_DATA_DIR": str(own / "jupyter_data_dir")}
    install = ["kernel", "install", "host", "--name", "boxed", "--memory", "200m", "--network", "none", "--display-name", "Boxed"]
    subprocess.run([sys.executable, "-m", "pycontainers.commands.program", *install], check=True, env=environ, capture_output=True)
    address = lab.notebook("boxed.ipynb", ["import os\nprint('interfaces', os.listdir('/sys/class/net'))"], kernel="boxed")
    page = opened(browser, address, 1)
    page.get_by_text("interfaces ['lo']").wait_for()
    page.get_by_text("Boxed", exact=True).first.wait_for()
    shot(page, "kernel-in-a-container")
    page.evaluate("""() => {
        window.restarted = false;
        const session = window.jupyterapp.shell.currentWidget.sessionContext.session;
        session.statusChanged.connect((_, status) => { if (status === 'autorestarting') window.restarted = true; });
        session.kernel.requestExecute({code: 'x = bytearray(500 << 20)'});
    }""")
    page.wait_for_function("window.restarted", timeout=60_000)
    until(lambda: "OOM-killed" in lab.log_path.read_text())
    assert "kernel of image host" in lab.log_path.read_text()
    page.close()


# -- a plain page

MANAGER = ("html-manager-1.0.15", "5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==")


@pytest.fixture(scope="module")
def manager_file() -> Path:
    """ipywidgets' own manager for pages without Jupyter, as one file, from npm, kept for the next time."""
    name, digest = MANAGER
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pycontainers-tests"
    file = cache / f"{name}.tgz"
    if not file.exists():
        if not shutil.which("npm"):
            pytest.skip("no npm (on Debian: apt-get install npm)")
        cache.mkdir(parents=True, exist_ok=True)
        package = f"@jupyter-widgets/{name.rpartition('-')[0]}@{name.rpartition('-')[2]}"
        pack = ["npm", "pack", package, "--pack-destination", cache]
        done = subprocess.run(pack, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.skip(f"npm has no {package} now: {done.stderr[-200:]}")
        (cache / f"jupyter-widgets-{name}.tgz").rename(file)
    assert base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode() == digest
    return file


class PlainPage:
    """The page, its kernel, and the messages between them: what an editor does that shows notebooks by itself."""

    def __init__(self, browser: Any, manager: Path, environ: dict[str, str]) -> None:
        self.asked: list[str] = []
        self.shown: list[dict[str, Any]] = []
        with tarfile.open(manager) as tar:
            member = tar.extractfile("package/dist/embed-amd.js")
            assert member is not None
            self._files = {
                "/": ("text/html", (HERE / "plain.html").read_bytes()),
                "/embed-amd.js": ("text/javascript", member.read()),
                "/anywidget.js": ("text/javascript", _nbextension("anywidget")),
            }
        self.kernel, self.client = start_new_kernel(env={**os.environ, "JPY_SESSION_NAME": "plain.ipynb", **environ})
        self.page = browser.new_page(viewport={"width": 1100, "height": 1500})
        self.page.set_default_timeout(30_000)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.route("**/*", self._serve)
        self.page.expose_function("toKernel", self._to_kernel)
        self.page.goto("http://host.test/")

    def _serve(self, route: Any) -> None:
        path = route.request.url.removeprefix("http://host.test")
        kind, body = self._files.get(path, ("", b""))
        if kind:
            route.fulfill(content_type=kind, body=body)
        else:
            self.asked.append(route.request.url)
            route.abort()

    def _to_kernel(self, comm: str, data: Any, buffers: list[str]) -> None:
        message = self.client.session.msg("comm_msg", {"comm_id": comm, "data": data})
        message["buffers"] = [base64.b64decode(item) for item in buffers]
        self.client.session.send(self.client.shell_channel.socket, message, buffers=message["buffers"])

    def pump(self) -> None:
        """Pass on what the kernel has said."""
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=0.05)
            except queue.Empty:
                self.page.wait_for_timeout(20)  # the page's own questions
                return
            kind, content = message["msg_type"], message["content"]
            if kind in ("comm_open", "comm_msg"):
                buffers = [base64.b64encode(item).decode() for item in message.get("buffers", ())]
                part = json.loads(json.dumps({"content": content, "metadata": message["metadata"], "buffers": buffers}, default=str))
                self.page.evaluate(f"message => host.{'open' if kind == 'comm_open' else 'message'}(message)", part)
            elif kind in ("display_data", "execute_result"):
                self.shown.append(content["data"])
            elif kind == "error":
                raise AssertionError("\n".join(content["traceback"]))

    def run(self, code: str, outputs: int = 0) -> None:
        """Run a cell, and show its widget; ``outputs``: how many bundles it must show."""
        before = len(self.shown)
        self.client.execute(code)
        self.until(lambda: len(self.shown) >= before + outputs)
        for bundle in self.shown[before:]:
            view = bundle.get("application/vnd.jupyter.widget-view+json")
            if view:
                self.page.evaluate("id => host.show(id)", view["model_id"])

    def until(self, condition: Callable[[], Any], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.errors
            self.pump()

    def end(self) -> None:
        self.page.close()
        self.client.stop_channels()
        self.kernel.shutdown_kernel(now=True)


def _nbextension(name: str) -> bytes:
    for prefix in (sys.prefix, sys.base_prefix):
        path = Path(prefix, "share/jupyter/nbextensions", name, "index.js")
        if path.exists():
            return path.read_bytes()
    pytest.skip(f"{name} has brought no file for pages")


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.1)


def test_a_page_that_has_a_widget_manager_alone(browser: Any, manager_file: Path, state: Any) -> None:
    """No variable of Jupyter's themes is there, and nothing is fetched from elsewhere; views live and answer."""
    plain = PlainPage(browser, manager_file, {"PYCONTAINERS_HOME": str(state.home), "PYCONTAINERS_RUN": str(state.run)})
    page = plain.page
    try:
        plain.run(START)
        plain.run("%container explore host", 1)
        plain.until(lambda: page.locator(".pyct").count() >= 1)
        plain.run("%container dashboard", 1)
        plain.until(lambda: page.get_by_text("hosted").count() >= 1)
        plain.run("%container stats hosted", 1)
        plain.until(lambda: page.get_by_text("● live").count() >= 1)
        plain.until(lambda: page.locator(".js-plotly-plot .scatterlayer path").count() >= 1)
        assert page.evaluate("getComputedStyle(document.body).getPropertyValue('--jp-layout-color1')") == ""
        shot(page, "plain-page-light")
        page.evaluate("document.body.classList.add('dark')")
        shot(page, "plain-page-dark")
        assert plain.errors == [] and plain.asked == []
        plain.run("%container rm -f hosted ;")
    finally:
        plain.end()
