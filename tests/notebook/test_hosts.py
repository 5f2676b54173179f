"""Pages that show no widgets: noticed by what the server has, and by what the page answers; said once; the static form is shown."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from pycontainers.notebook import hosts, surroundings

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def environment(tmp_path: Path) -> Any:
    """A Jupyter server's environment with JupyterLab and without widgets, and a process of it."""
    place = tmp_path / "server/share/jupyter"
    (place / "lab/static").mkdir(parents=True)
    (tmp_path / "server/bin").mkdir()
    python = tmp_path / "server/bin/python"
    python.symlink_to(sys.executable)
    # A link is enough of an environment: what counts is how the process was called.
    with subprocess.Popen([python, "-c", "input()"], stdin=subprocess.PIPE, env={"HOME": str(tmp_path)}) as process:
        runtime = tmp_path / "runtime"
        runtime.mkdir()
        (runtime / f"jpserver-{process.pid}.json").write_text('{"base_url": "/", "hostname": "localhost"}')
        until(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(os.fsencode(python)))
        yield {"JPY_PARENT_PID": str(process.pid), "JUPYTER_RUNTIME_DIR": str(runtime), "JPY_SESSION_NAME": "a.ipynb"}, place
        process.kill()


def until(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def give(place: Path, *names: str) -> None:
    for name in names:
        (place / "labextensions" / name).mkdir(parents=True)


def test_what_the_server_lacks(environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    environ, place = environment
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", environ["JUPYTER_RUNTIME_DIR"])
    found = hosts.server(environ)
    assert found is not None and found.python.endswith("server/bin/python") and str(place) in found.places
    page = hosts.Page()
    assert not page.shows_widgets(environ)
    assert f"{found.python} -m pip install jupyterlab_widgets anywidget, and reload" in page.advice(environ)
    give(place, "@jupyter-widgets/jupyterlab-manager")
    page = hosts.Page()
    assert "pip install anywidget," in page.advice(environ)
    give(place, "anywidget")
    other = hosts.Page()
    assert other.shows_widgets(environ)
    other.closed()  # it has them, and the page all the same not
    assert not other.shows_widgets(environ) and "jupyter labextension list" in other.advice(environ)
    page.spoke()  # whatever the folders say: a page has spoken
    assert page.shows_widgets(environ)


def test_nothing_is_claimed_of_a_server_that_is_not_known(environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    environ, place = environment
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", environ["JUPYTER_RUNTIME_DIR"])
    assert hosts.server(environ, proc="/nowhere") is None
    assert hosts.server({}) is None and hosts.server({"JPY_PARENT_PID": "1"}) is None
    (place / "lab/static").rmdir()
    assert hosts.Page().shows_widgets(environ)


CELLS = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1] / 'commands')!r})
from fake_engine import FakeEngine, sample
import pycontainers.notebook.magics as m, pycontainers.notebook.completion as c
E = FakeEngine(); m.native_engine = c.native_engine = lambda: E
%load_ext pycontainers
box = %container run -d --name web host
E.recorded = [sample(float(t), memory=t << 20) for t in range(5)]
"""


class Page:
    """A kernel, and a page that answers as one does: without widgets it closes what is opened, with them it asks for the state."""

    def __init__(self, environ: dict[str, str]) -> None:
        root = str(Path(__file__).parents[2])
        self.manager, self.client = start_new_kernel(env={**os.environ, "PYTHONPATH": root, **environ})

    def __call__(self, code: str, answer: str = "") -> list[dict[str, Any]]:
        """The bundles that a cell shows. ``answer``: comm_close or request_state, to each comm that it opens."""
        shown = []

        def take(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] in ("display_data", "execute_result"):
                shown.append(content["data"])
            assert message["msg_type"] != "error", content
            if message["msg_type"] == "comm_open" and answer:
                data = {} if answer == "comm_close" else {"data": {"method": "request_state"}}
                kind = "comm_close" if answer == "comm_close" else "comm_msg"
                self.client.shell_channel.send(self.client.session.msg(kind, {"comm_id": content["comm_id"], "data": {}, **data}))

        self.last = self.client.execute_interactive(code, timeout=60, output_hook=take)["parent_header"]["msg_id"]
        return shown

    def end(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def test_a_page_that_closes_what_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.delenv("PYCONTAINERS_STATIC", raising=False)
    page = Page({"JPY_SESSION_NAME": "a.ipynb", "JUPYTER_RUNTIME_DIR": "/nowhere"})
    try:
        page(CELLS)
        widget = "from pycontainers.notebook.widgets.base import page_widget\nw = page_widget()(_esm='export default {}')"
        page(widget, "comm_close")
        while (message := page.client.get_iopub_msg(timeout=20))["msg_type"] != "display_data":
            pass
        note = message["content"]["data"]["text/plain"]  # said once, in words, below the cell that showed it
        assert message["parent_header"]["msg_id"] == page.last and page.last
        assert "pip install" not in note and "jupyterlab_widgets and anywidget" in note
        (stats,) = page("%container stats web")
        assert WIDGET not in stats and "image/svg+xml" in stats
        assert [WIDGET in bundle for bundle in page("%container stats web")] == [False]
        page(widget, "request_state")  # another page, with widgets, is opened
        assert [WIDGET in bundle for bundle in page("%container stats web")] == [True]
    finally:
        page.end()


def test_the_first_view_is_static_where_the_server_has_no_widgets(environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    environ, _ = environment
    monkeypatch.delenv("PYCONTAINERS_STATIC", raising=False)
    page = Page(environ)
    try:
        # jupyter_client tells the kernel its own pid: this kernel is told whose it is meant to be
        page(f"import os; os.environ['JPY_PARENT_PID'] = {environ['JPY_PARENT_PID']!r}" + CELLS)
        note, stats = page("%container stats web")
        assert "server/bin/python -m pip install jupyterlab_widgets anywidget" in note["text/plain"] and "△" in note["text/html"]
        assert WIDGET not in stats
    finally:
        page.end()


def test_servers_records_are_read(environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    environ, _ = environment
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", environ["JUPYTER_RUNTIME_DIR"])
    assert surroundings.server_record(environ)["hostname"] == "localhost"
