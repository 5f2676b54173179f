"""A real JupyterLab on a free port, with folders of its own, ended by its process group."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat


class Lab:
    """``url`` of the application; ``folder`` is where its notebooks are."""

    def __init__(self, folder: Path, state: dict[str, str], *options: str) -> None:
        self.folder = folder
        self.token = secrets.token_hex(8)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        own = folder.with_name(folder.name + "-own")  # beside the root folder: the page lists only notebooks
        names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "IPYTHONDIR")
        private = {name: str(own / name.lower()) for name in names}
        # The page asks about news whatever the server is told; the question would lie over what we look at.
        quiet = own / "jupyterlab_settings_dir/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
        quiet.parent.mkdir(parents=True)
        quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
        command = [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--allow-root",
            f"--port={self.port}",
            "--ip=127.0.0.1",
            f"--IdentityProvider.token={self.token}",
            f"--ServerApp.root_dir={folder}",
            "--LabApp.expose_app_in_browser=True",
            *options,
        ]
        self.log_path = own / "lab.log"
        self.log = open(self.log_path, "wb")
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=self.log, start_new_session=True, env={**os.environ, **state, **private}
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def wait(self, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log_path.read_text()[-2000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}api?token={self.token}", timeout=2):
                return
            time.sleep(0.2)
        raise AssertionError("JupyterLab does not answer: " + self.log_path.read_text()[-2000:])

    def notebook(self, name: str, cells: list[str], kernel: str = "python3") -> str:
        """Write a notebook; returns the address that opens it."""
        book = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": kernel, "display_name": kernel}},
        )
        nbformat.write(book, self.folder / name)
        return f"{self.address(name)}&reset"

    def address(self, name: str) -> str:
        """What opens a notebook that is there already, as it was saved."""
        return f"{self.url}lab/tree/{name}?token={self.token}"

    def end(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()


@contextlib.contextmanager
def running(folder: Path, state: dict[str, str], *options: str) -> Iterator[Lab]:
    lab = Lab(folder, state, *options)
    try:
        lab.wait()
        yield lab
    finally:
        lab.end()
