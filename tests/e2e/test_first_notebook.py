"""The first notebook, executed by nbclient on the real engine: what a newcomer sees, and that nothing stays."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from pycontainers.network.bridge import names as bridge_names

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


@pytest.fixture(scope="module")
def before(remains: Any) -> Any:
    """What was there: somebody else may have left groups on this machine."""
    return remains()


@pytest.fixture(scope="module")
def executed(state: Any, before: Any, port: int, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("book") / "notebooks"
    shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns("data", "__pycache__"))
    book = nbformat.read(folder / "01-first-container.ipynb", as_version=4)
    client = NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, "VISITS_DEMO_PORT": str(port)})
    book.metadata["folder"] = str(folder)
    return book


def outputs(book: Any, beginning: str) -> list[Any]:
    for cell in book.cells:
        if cell.cell_type == "code" and beginning in cell.source:
            return list(cell.outputs)
    raise AssertionError(f"no cell has {beginning!r}")


def text(found: list[Any]) -> str:
    return "".join(o.get("text", "") + str(o.get("data", {}).get("text/plain", "")) + "\n".join(o.get("traceback", [])) for o in found)


def test_hostname_inside_is_its_own(executed: Any) -> None:
    first = text(outputs(executed, "%container exec")).split()[0]
    assert len(first) == 12
    assert first != os.uname().nodename


def test_plot_is_never_blank(executed: Any) -> None:
    live = [o for o in outputs(executed, "%container stats visits") if o.output_type in ("execute_result", "display_data")]
    # Nobody watches this run: the form that moves gives way to one that stays readable when the notebook is opened later.
    assert {"text/plain", "image/svg+xml", "application/vnd.plotly.v1+json"} == set(live[0].data)
    static = [o for o in outputs(executed, "stats visits --static") if o.output_type in ("execute_result", "display_data")]
    assert {"text/plain", "image/svg+xml"} == set(static[0].data)
    assert "CPU" in static[0].data["text/plain"]


def test_memory_exhaustion_is_an_error_output_of_one_line_and_a_hint(executed: Any) -> None:
    failed = [c for c in executed.cells if any(o.output_type == "error" for o in c.get("outputs", []))]
    assert len(failed) == 1
    assert "raises-exception" in failed[0].metadata["tags"]
    (error,) = [o for o in failed[0].outputs if o.output_type == "error"]
    assert "OOM-killed" in error.evalue
    lines = "\n".join(error.traceback).splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]
    assert "64.0 MiB" in lines[0]


def test_nothing_stays(executed: Any, engine: Any, before: Any, remains: Any, state: Any, port: int) -> None:
    """It has made these names, this port and this folder: none is there any more."""
    names = {info.name for info in engine.containers(all=True)}
    assert not names & {"visits", "hungry"}
    assert "visits:latest" not in {name for image in engine.images() for name in image.names}
    left = remains()
    assert set(left["cgroups"]) <= set(before["cgroups"])
    assert left["mounts"] == left["ingest"] == []
    known = {info.id for info in engine.containers(all=True)}
    assert set(left["folders"]) <= known
    assert set(left["names"]) <= names
    running = {info.id for info in engine.containers()}
    bridge, _ = bridge_names(state.home)
    assert len(os.listdir(f"/sys/class/net/{bridge}/brif")) <= len(running)
    with socket.socket() as probe:
        probe.settimeout(5)
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert not (Path(executed.metadata["folder"]) / "data").exists()
