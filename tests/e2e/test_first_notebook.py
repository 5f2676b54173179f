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

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="module")
def executed(state: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("book") / "notebooks"
    shutil.copytree(NOTEBOOKS, folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ["VISITS_DEMO_PORT"] = str(probe.getsockname()[1])
    book = nbformat.read(folder / "01-first-container.ipynb", as_version=4)
    NotebookClient(book, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
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
    assert {"text/plain", "image/svg+xml"} <= set(live[0].data)
    static = [o for o in outputs(executed, "stats visits --static") if o.output_type in ("execute_result", "display_data")]
    assert {"text/plain", "image/svg+xml"} == set(static[0].data)
    assert "CPU" in static[0].data["text/plain"]


def test_memory_exhaustion_is_an_error_output_of_one_line(executed: Any) -> None:
    error = [o for o in outputs(executed, "--memory 64m host python") if o.output_type == "error"]
    assert len(error) == 1
    assert "OOM-killed" in error[0].evalue
    assert "Traceback" not in "".join(error[0].traceback)


def test_nothing_stays(executed: Any, engine: Any, remains: Any) -> None:
    assert engine.containers(all=True) == []
    left = remains()
    assert left["cgroups"] == left["folders"] == left["names"] == left["mounts"] == []
