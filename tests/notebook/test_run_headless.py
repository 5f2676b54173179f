"""The script behind `make demo`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]


def run(folder: Path, *cells: str, tags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    made = [nbformat.v4.new_code_cell(cell) for cell in cells]
    made[-1].metadata["tags"] = list(tags)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title\ntext"), *made]), folder / "a.ipynb")
    command = [sys.executable, str(ROOT / "notebooks/run_headless.py"), str(folder / "a.ipynb"), "--save", str(folder / "done.ipynb")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_prints_what_each_cell_printed(tmp_path: Path) -> None:
    done = run(tmp_path, "import os\nprint('here', os.getcwd())", "6 * 7")
    assert done.returncode == 0, done.stderr
    assert f"    here {tmp_path}\n" in done.stdout and "    42\n" in done.stdout and "# Title" in done.stdout
    assert "jupyter lab" in done.stdout and (tmp_path / "done.ipynb").exists()


@pytest.mark.parametrize(("tags", "code"), [((), 1), (("raises-exception",), 0)])
def test_a_failed_cell_fails_the_run_unless_it_is_meant_to(tmp_path: Path, tags: tuple[str, ...], code: int) -> None:
    done = run(tmp_path, "print('before')", "%load_ext pycontainers\n%container sotp x", tags=tags)
    assert done.returncode == code and "error: unknown verb 'sotp'" in done.stdout and "    before\n" in done.stdout


def test_the_first_notebook_is_saved_without_outputs() -> None:
    notebook = nbformat.read(ROOT / "notebooks/01-first-container.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
