"""Whose end is a container's end, by a real Jupyter server: its kernels shut down, restarted, culled, killed; itself stopped and killed.

The table in docs/lifetime.md, row by row.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.paths import Paths

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]
jupyter_client = pytest.importorskip("jupyter_client")
pytest.importorskip("jupyter_server")
pytest.importorskip("ipykernel")

START = """
import subprocess, sys
import pycontainers as pc
def start(lifetime):
    return pc.run('host', ['sleep', '1000'], detach=True, network='none', lifetime=lifetime).id
found = {lifetime: start(lifetime) for lifetime in ('kernel', 'server', 'detached')}
# What a cell's shell starts belongs to the kernel and the server of that cell.
for lifetime in ('kernel', 'server'):
    code = 'import sys; from pycontainers.commands.program import main; sys.exit(main())'
    words = ['run', '-d', '--network', 'none', '--lifetime', lifetime, 'host', 'sleep', '1000']
    said = subprocess.run(['sh', '-c', '"$@"; exit $?', 'sh', sys.executable, '-c', code, *words], capture_output=True, text=True)
    found[f'{lifetime} of a shell'] = said.stdout.strip() or said.stderr
import json
print(json.dumps(found))
"""


class Server:
    """A Jupyter server without a page."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.token = secrets.token_hex(8)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        private = {name: str(folder / name.lower()) for name in names}
        self.runtime = Path(private["JUPYTER_RUNTIME_DIR"])
        self.log = folder / "server.log"
        fixed = ["--no-browser", "--allow-root", f"--port={self.port}", "--ip=127.0.0.1", f"--ServerApp.root_dir={folder}"]
        command = [sys.executable, "-m", "jupyter_server", *fixed, f"--IdentityProvider.token={self.token}", *options]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | private)
        until(lambda: self.answers("api") is not None, 90)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"token {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.loads(reply.read() or b"null")

    def answers(self, path: str) -> Any:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            return self.ask("GET", path)
        except OSError:
            return None

    def kernel(self) -> str:
        return str(self.ask("POST", "api/kernels", {"name": "python3"})["id"])

    def run(self, kernel: str, code: str) -> str:
        """What a cell prints."""
        client = jupyter_client.BlockingKernelClient(connection_file=str(self.runtime / f"kernel-{kernel}.json"))
        client.load_connection_file()
        client.start_channels()
        said: list[str] = []

        def output(message: dict[str, Any]) -> None:
            content = message["content"]
            said.append(content.get("text") or "\n".join(content.get("traceback", [])))

        try:
            client.wait_for_ready(timeout=60)
            client.execute_interactive(code, timeout=90, output_hook=output)
        finally:
            client.stop_channels()
        return "".join(said)

    def start_containers(self, kernel: str) -> dict[str, str]:
        said = self.run(kernel, START)
        try:
            found: dict[str, str] = json.loads(said.splitlines()[-1])
        except (IndexError, ValueError):
            raise AssertionError(said) from None
        return found

    def end(self) -> None:
        with contextlib.suppress(OSError):
            for kernel in self.ask("GET", "api/kernels"):
                self.ask("DELETE", f"api/kernels/{kernel['id']}")
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.1)


@pytest.fixture
def server(state: Paths, engine: NativeEngine, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*options: str) -> Server:
        started.append(Server(tmp_path, *options))
        return started[-1]

    yield start
    for one in started:
        one.end()


def living(engine: NativeEngine, found: dict[str, str]) -> set[str]:
    for lifetime, identifier in found.items():
        assert len(identifier) == 64, f"{lifetime}: {identifier}"
    return {lifetime for lifetime, identifier in found.items() if engine.find(identifier).status == "running"}


KERNEL, SERVER = {"kernel", "kernel of a shell"}, {"server", "server of a shell"}
DETACHED = {"detached"}


def ended(engine: NativeEngine, found: dict[str, str], left: set[str]) -> None:
    """Only ``left`` run on, and keep doing so; the others have ended as by ``stop``: with a code and a record."""
    until(lambda: living(engine, found) == left)
    time.sleep(1)
    assert living(engine, found) == left
    for lifetime in found.keys() - left:
        exit_ = engine.find(found[lifetime]).exit
        assert exit_ is not None and exit_.code in (143, 137) and not exit_.error, (lifetime, exit_)


@pytest.mark.parametrize("how", ["shut down", "restarted", "killed"])
def test_a_kernel_that_ends(server: Callable[..., Server], engine: NativeEngine, how: str) -> None:
    jupyter = server()
    kernel = jupyter.kernel()
    found = jupyter.start_containers(kernel)
    assert living(engine, found) == KERNEL | SERVER | DETACHED
    jupyter.ask("POST", f"api/kernels/{kernel}/interrupt")
    assert jupyter.run(kernel, "print('well')") == "well\n" and living(engine, found) == KERNEL | SERVER | DETACHED
    if how == "shut down":
        jupyter.ask("DELETE", f"api/kernels/{kernel}")
    elif how == "restarted":
        jupyter.ask("POST", f"api/kernels/{kernel}/restart")
    else:
        os.kill(int(jupyter.run(kernel, "import os; print(os.getpid())")), signal.SIGKILL)
    ended(engine, found, SERVER | DETACHED)
    other = jupyter.kernel()  # the next notebook sees what runs on
    shown = jupyter.run(other, "import pycontainers as pc\nprint(sorted(box.id for box in pc.ps()))")
    assert all(found[lifetime] in shown for lifetime in SERVER | DETACHED)


def test_a_kernel_that_is_culled(server: Callable[..., Server], engine: NativeEngine) -> None:
    cull = ("cull_idle_timeout=3", "cull_interval=1", "cull_connected=True")
    jupyter = server(*(f"--MappingKernelManager.{option}" for option in cull))
    found = jupyter.start_containers(jupyter.kernel())
    until(lambda: jupyter.ask("GET", "api/kernels") == [])
    ended(engine, found, SERVER | DETACHED)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_server_that_ends(server: Callable[..., Server], engine: NativeEngine, number: int) -> None:
    jupyter = server()
    found = jupyter.start_containers(jupyter.kernel())
    os.kill(jupyter.process.pid, number)
    jupyter.process.wait(30)
    ended(engine, found, DETACHED)
