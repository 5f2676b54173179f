"""Run a notebook without a page and print what each cell printed: ``python run_headless.py NOTEBOOK [--save FILE]``.

The exit code is not zero when a cell fails that is not marked as failing on purpose (tag ``raises-exception``).
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Printer(NotebookClient):
    """Prints each cell before it runs and its outputs as soon as it has ended."""

    async def async_execute_cell(self, cell: Any, cell_index: int, *args: Any, **kwargs: Any) -> Any:
        if cell.cell_type == "code":
            print(f"\n[{cell_index}] " + cell.source.replace("\n", "\n    "), flush=True)
        elif cell.source.startswith("#"):
            print("\n" + cell.source.split("\n", 1)[0], flush=True)
        try:
            return await super().async_execute_cell(cell, cell_index, *args, **kwargs)
        finally:
            for output in cell.get("outputs", []):
                print(_indented(shown(output)), flush=True)


def shown(output: Any) -> str:
    """An output as text; pictures and widgets by their text form."""
    if output.output_type == "stream":
        return str(output.text)
    if output.output_type == "error":
        return _COLOUR.sub("", "\n".join(output.traceback))
    kinds = [kind for kind in output.data if kind != "text/plain"]
    text = output.data.get("text/plain", "")
    return text + (f"\n({', '.join(kinds)})" if "image/svg+xml" in kinds else "")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip("\n").split("\n"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a notebook without a page and print what each cell printed.")
    parser.add_argument("notebook", type=Path, nargs="?", default=Path(__file__).with_name("01-first-container.ipynb"))
    parser.add_argument("--save", type=Path, help="write the notebook with its outputs to this file")
    parser.add_argument("--timeout", type=int, default=300, help="seconds for each cell")
    options = parser.parse_args()
    notebook = nbformat.read(options.notebook, as_version=4)
    client = Printer(
        notebook,
        timeout=options.timeout,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(options.notebook.resolve().parent)}},
    )
    try:
        asyncio.run(client.async_execute())
    except CellExecutionError as error:
        print(f"\n{options.notebook}: a cell failed: {error.ename}: {error.evalue}", file=sys.stderr)
        return 1
    finally:
        if options.save:
            nbformat.write(notebook, options.save)
    print(f"\nEvery cell of {options.notebook} ran. Open it yourself:\n    jupyter lab {options.notebook}    (or: make lab)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
