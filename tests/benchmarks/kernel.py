"""A real notebook kernel, driven as a notebook drives it: cells go in, what they computed comes back."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


class Kernel:
    """``with Kernel() as kernel: kernel("expression")``. Its processes inherit this process's environment.

    :param setup: a cell that is run first.
    """

    SECONDS = 180

    def __init__(self, setup: str = "") -> None:
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import KernelManager

        self.manager = KernelManager()
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager._kernel_spec = KernelSpec(argv=argv, display_name="bench", language="python")
        root = str(Path(__file__).resolve().parents[2])
        self.manager.start_kernel(cwd=root, env={**os.environ, "PYTHONPATH": root}, stderr=subprocess.DEVNULL)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=self.SECONDS)
        self.pid = int(self("__import__('os').getpid()"))
        self.cell("%load_ext pycontainers\nimport pycontainers as pc\nfrom tests.benchmarks import cell\n" + setup)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def __call__(self, expression: str) -> Any:
        """The value of an expression, computed in a cell."""
        return self.cell("", expression)

    def cell(self, code: str, expression: str = "None") -> Any:
        """Run a cell, then give back the value of ``expression``. :raises RuntimeError: the cell failed."""
        asked = {"value": f"__import__('json').dumps({expression})"}
        reply = self.client.execute(code or "None", silent=not code, user_expressions=asked, reply=True, timeout=self.SECONDS)
        content = reply["content"]
        found = content.get("user_expressions", {}).get("value", {})
        if content["status"] != "ok" or found.get("status") != "ok":
            failed = content if content["status"] != "ok" else found
            raise RuntimeError(f"{code or expression}: {failed.get('ename')}: {failed.get('evalue')}")
        return json.loads(ast.literal_eval(found["data"]["text/plain"]))
