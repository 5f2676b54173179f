"""Real kernels, driven by nbclient as nbconvert and papermill do, over the engine in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FAKES = Path(__file__).parents[1] / "commands"
SETUP = f"""
import sys; sys.path.insert(0, {str(FAKES)!r})
from fake_engine import FakeEngine, sample
import pycontainers.notebook.magics as m, pycontainers.notebook.completion as c
E = FakeEngine(); m.native_engine = c.native_engine = lambda: E
%load_ext pycontainers
"""


def execute(
    *cells: str, environ: dict[str, str] | None = None, monkeypatch: pytest.MonkeyPatch, allow_errors: bool = False, coalesce: bool = True
) -> list[Any]:
    """Run cells in a kernel; the outputs of each."""
    for name in ("JPY_SESSION_NAME", "PYCONTAINERS_STATIC"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (environ or {}).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (SETUP, *cells)])
    NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=allow_errors, coalesce_streams=coalesce).execute()
    return [cell.outputs for cell in notebook.cells[1:]]


def said(outputs: list[Any]) -> str:
    """What a cell printed."""
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


def test_headless_notebooks_read_well(monkeypatch: pytest.MonkeyPatch) -> None:
    build, stats, run = execute(
        "%%container build -t x\nFROM host\n",
        "c = %container run -d --name web x\nE.recorded = [sample(float(t), memory=t << 20) for t in range(5)]\n%container stats web",
        "%%container run --rm host cat\nbody",
        monkeypatch=monkeypatch,
    )
    text = build[0]["text"]
    assert "#1 CACHED" in text and "\r" not in text and "\x1b" not in text
    assert set(stats[0]["data"]) == {"text/plain", "image/svg+xml", "application/vnd.plotly.v1+json"}
    assert [output["text"] for output in run] == ["body\n"]


def test_a_failing_command_fails_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CellExecutionError) as caught:
        execute("%container run hots", monkeypatch=monkeypatch)
    assert caught.value.ename == "NotFound" and "host" in str(caught.value)
    (outputs,) = execute("%container sotp x", monkeypatch=monkeypatch, allow_errors=True)
    assert outputs[0]["output_type"] == "error"
    assert outputs[0]["traceback"] == ["error: unknown verb 'sotp'", "hint:  did you mean stop, top?"]


def test_a_live_page_gets_a_widget_with_a_static_form_and_it_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    stats, moved, ended, build = execute(
        "%container run -d --name web host ;\n"
        "from pycontainers.notebook.sampler import sampler; sampler().period = 0.05\n"
        "import pycontainers.notebook.widgets.stats as w\n"
        "views = []; old = w.LiveStats\n"
        "w.LiveStats = lambda stats: views.append(old(stats)) or views[-1]\n"
        "E.recorded = [sample(float(t), memory=t << 20) for t in range(5)]\n"
        "%container stats web",
        "import time, threading\n"
        "def wait(what):\n"
        "    end = time.time() + 10\n"
        "    while not what() and time.time() < end: time.sleep(0.05)\n"
        "sent = []; old_send = views[0].widget.send; views[0].widget.send = lambda *a: sent.append(a) or old_send(*a)\n"
        "E.recorded = [sample(float(t), memory=t << 20) for t in range(11)]\n"
        "wait(lambda: views[0]._followers[0].last.time == 10.0)\n"
        "print(len(views), views[0].widget.state, sampler().running)\n"
        "time.sleep(0.3); print(len(sent), len(views[0].widget.get_state()['points']))\n"
        "for n in range(3): get_ipython().display_formatter.format(m.ContainerMagics(get_ipython()).container('stats web'))\n"
        "print(len(views), sum(t.name == 'pycontainers-stats' for t in threading.enumerate()))\n"
        "views[1].widget.close(); wait(lambda: views[1] not in sampler()._views); print(views[1] in sampler()._views)",
        "%container stop web ;\nwait(lambda: not sampler().running)\n"
        "print(sampler().running, views[0].widget.state)\n"
        "%container start web ;\nget_ipython().display_formatter.format(m.ContainerMagics(get_ipython()).container('stats web'))\n"
        "%unload_ext pycontainers\n"
        "print(sum(t.name.startswith('pycontainers') for t in threading.enumerate()), 'unloaded' in views[-1].widget.state)",
        "%load_ext pycontainers\n%container build -t x -f " + os.devnull + " .",
        environ={"JPY_SESSION_NAME": "a.ipynb"},
        monkeypatch=monkeypatch,
        allow_errors=True,
        coalesce=False,  # nbclient loses the place of an output that is renewed when it joins others before it
    )
    assert set(stats[0]["data"]) == {"text/plain", "image/svg+xml", "application/vnd.jupyter.widget-view+json"}
    # One message with all six new rows (or two, where a tick fell between), each of 68 bytes; a page that asks anew gets all eleven.
    one, two, *rest = said(moved).splitlines()
    assert one == "1 live True" and two in (f"1 {4 + 11 * 68}", f"2 {4 + 11 * 68}") and rest == ["4 1", "False"]
    assert said(ended).splitlines() == ["False ended", "0 True"]
    saved = stats[0]["data"]
    assert "Exited (143)" in saved["text/plain"] and "exit 143" in saved["image/svg+xml"], "what is saved shows the end"
    view = next(output for output in build if output["output_type"] == "display_data")
    assert (
        view["data"]["text/plain"].endswith("s · 1 of 2 steps cached")
        and "built" in view["data"]["text/plain"]
        and "CACHED" in view["data"]["text/html"]
    )


def test_a_failed_build_keeps_its_output_on_a_live_page(monkeypatch: pytest.MonkeyPatch) -> None:
    (outputs,) = execute(
        "from pycontainers.errors import BuildError\nE.build_error = BuildError('it broke', line=2, column=1, source='RUN make')\n"
        "get_ipython().run_cell_magic('container', 'build -t x', 'FROM host')",
        environ={"JPY_SESSION_NAME": "a.ipynb"},
        monkeypatch=monkeypatch,
        allow_errors=True,
    )
    assert "✗ [app 2/2]" in outputs[0]["data"]["text/plain"] and "half line" in outputs[0]["data"]["text/plain"]
    assert outputs[-1]["traceback"][:2] == ["error: Dockerfile:2:1: it broke", "     2 | RUN make"]


def test_nbconvert_shows_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbconvert import HTMLExporter

    for environ in ({}, {"JPY_SESSION_NAME": "a.ipynb"}):
        (stats,) = execute(
            "c = %container run -d --name web host\n"
            "E.recorded = [sample(float(t), memory=t << 20) for t in range(5)]\n%container stats web",
            environ=environ,
            monkeypatch=monkeypatch,
        )
        cell = nbformat.v4.new_code_cell("", outputs=stats)
        page, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
        assert "<polyline" in page or "data:image/svg+xml" in page or "image/svg" in page


def test_loading_imports_no_heavy_package() -> None:
    code = (
        "import sys\nfrom IPython.core.interactiveshell import InteractiveShell\ns = InteractiveShell()\n"
        "s.run_line_magic('load_ext', 'pycontainers')\n"
        "s.run_line_magic('container', 'help')\n"
        "print([name for name in ('pyroute2', 'plotly', 'ipywidgets', 'anywidget', 'pandas', 'urllib3') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_streams_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    (outputs,) = execute(
        "E.output = [('stdout', b'1\\n'), ('stderr', b'2\\n'), ('stdout', b'3\\n'), ('stderr', b'4\\n')]\n%container run --rm host x",
        monkeypatch=monkeypatch,
        coalesce=False,  # nbclient's joining is by name alone
    )
    assert [(output["name"], output["text"]) for output in outputs] == [
        ("stdout", "1\n"),
        ("stderr", "2\n"),
        ("stdout", "3\n"),
        ("stderr", "4\n"),
    ]
