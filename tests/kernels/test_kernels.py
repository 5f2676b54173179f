"""Real kernels of images, driven as Jupyter drives them: over sockets, without a network, and nothing left of them."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from pycontainers.commands.declare import find, parse
from pycontainers.commands.frontend import Context
from pycontainers.engines.native import NativeEngine
from pycontainers.kernels import connection
from pycontainers.kernels.bridge import Bridge, Sockets
from pycontainers.paths import Paths

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
ROOT = str(Path(__file__).parents[2])


@pytest.fixture(scope="module")
def installed(state: Paths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A kernel ``data`` of the image host, with little memory and no network."""
    folder = tmp_path_factory.mktemp("jupyter")
    patch = pytest.MonkeyPatch()
    for name in ("DATA", "RUNTIME", "CONFIG"):
        patch.setenv(f"JUPYTER_{name}_DIR", str(folder / name))
    patch.setenv("PYTHONPATH", ROOT)
    verb = find("kernel")
    words = ["install", "host", "--name", "data", "--memory", "256m", "--network", "none", "-v", ".:/beside", "-w", "/beside"]
    assert "ipykernel" in verb.function(Context(lambda: NativeEngine(state), None), parse(verb, words), None)  # type: ignore[arg-type]
    yield
    patch.undo()


class Kernel:
    def __init__(self, folder: Path, transport: str = "tcp") -> None:
        self.log = folder / "server.log"
        self.manager = KernelManager(kernel_name="data", transport=transport)
        if transport == "ipc":
            self.manager.ip = str(folder / "s")
        self._log = open(self.log, "wb")  # kept open: a restart uses it again
        self.manager.start_kernel(cwd=str(folder), stderr=self._log, stdout=self._log)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def __call__(self, code: str) -> str:
        """What a cell prints, or how it fails. ``stop_on_error``: or ipykernel refuses ("aborted") what comes right after a failure."""
        said: list[str] = []

        def output(message: dict[str, Any]) -> None:
            said.append(message["content"].get("text") or message["content"].get("evalue") or "")

        self.client.execute_interactive(code, timeout=60, output_hook=output, stop_on_error=False)
        return "".join(said)

    def interrupted(self, code: str) -> str:
        """The name of the error with which ``code`` ends, once it has said "begun" and is interrupted."""
        asked = self.client.execute(code, stop_on_error=False)
        while "begun" not in self.client.get_iopub_msg(timeout=30)["content"].get("text", ""):
            pass
        started = time.monotonic()
        self.manager.interrupt_kernel()
        while True:
            answer = self.client.get_shell_msg(timeout=30)
            if answer["parent_header"]["msg_id"] == asked:
                break
        assert time.monotonic() - started < 5
        return str(answer["content"].get("ename", ""))

    def end(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self._log.close()


@pytest.fixture
def kernel(installed: None, tmp_path: Path, engine: NativeEngine, remains: Callable[[], Any]) -> Iterator[Kernel]:
    before = remains()
    found = Kernel(tmp_path)
    yield found
    found.end()
    until(lambda: remains() == before)


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


def ours(engine: NativeEngine) -> list[Any]:
    return [info for info in engine.containers(all=True) if info.name.startswith("kernel-data-")]


def files(state: Paths) -> list[str]:
    return os.listdir(state.run / "kernels")


def test_a_kernel_s_life(kernel: Kernel, engine: NativeEngine, state: Paths, tmp_path: Path) -> None:
    (info,) = ours(engine)
    assert info.lifetime == "kernel" and info.labels["io.pycontainers.kernel"] == "data"
    # It is inside: another pid namespace, no network, the notebook's folder, and the connection file cannot be written.
    assert kernel("import os; print(os.getpid() < 10, os.listdir('/sys/class/net'), os.getcwd())") == "True ['lo'] /beside\n"
    assert "unreachable" in kernel("import socket; socket.create_connection(('192.0.2.1', 80), 1)")
    kernel("open('made', 'w').write('x')")
    assert (tmp_path / "made").exists()
    assert "Read-only" in kernel("open('/run/jupyter-kernel/connection.json', 'a')")
    # Large output comes whole, and small things do not wait for it.
    assert len(kernel("print('x' * 5_000_000)")) == 5_000_001
    assert kernel.interrupted("import time; print('begun', flush=True); time.sleep(100)") == "KeyboardInterrupt"
    # The processes of a cell are interrupted as well, and reaped.
    sleep = "import subprocess; asleep = subprocess.Popen(['sleep', '1000']); print('begun', flush=True); asleep.wait()"
    assert kernel.interrupted(sleep) == "KeyboardInterrupt"
    assert "1000" not in kernel("print(subprocess.run(['ps', 'axo', 'args'], capture_output=True).stdout)")
    assert kernel("answer = 42") == ""
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=60)
    assert "not defined" in kernel("answer")
    (again,) = ours(engine)
    assert again.id != info.id and not files(state)
    # More memory than it may have: the container ends, and the server's log says why.
    kernel.client.execute("x = bytearray(600 << 20)")
    until(lambda: not kernel.manager.is_alive())
    log = kernel.log.read_text()
    assert "kernel of image host" in log and "OOM-killed" in log and "256.0 MiB" in log and "--memory" in log
    assert "Traceback" not in log and not ours(engine) and not files(state)
    kernel.manager.restart_kernel(now=True)  # as a server does then
    kernel.client.wait_for_ready(timeout=60)
    assert kernel("print(1 + 1)") == "2\n"


def test_a_client_with_sockets_of_its_own(installed: None, engine: NativeEngine, tmp_path: Path) -> None:
    found = Kernel(tmp_path, "ipc")
    try:
        assert found("print('there')") == "there\n"
    finally:
        found.end()
    until(lambda: not ours(engine))


@pytest.mark.parametrize("who", ["server", "launcher"])
def test_nothing_is_left_when_somebody_is_killed(
    installed: None, engine: NativeEngine, state: Paths, tmp_path: Path, who: str, remains: Callable[[], Any]
) -> None:
    before = remains()
    code = (
        "from jupyter_client.manager import KernelManager\nm = KernelManager(kernel_name='data'); m.start_kernel()\n"
        "c = m.client(); c.start_channels(); c.wait_for_ready(timeout=60); print(m.provisioner.pid, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        assert server.stdout is not None
        launcher = int(server.stdout.readline())
        assert ours(engine)
        os.kill(server.pid if who == "server" else launcher, signal.SIGKILL)
        if who == "server":
            server.wait()
        until(lambda: not ours(engine))
        until(lambda: remains() == before)
        assert not files(state)
        server.kill()


def test_a_file_that_was_left_is_put_away_by_the_next(state: Paths) -> None:
    left, new = (state.run / "kernels" / name for name in ("left.json", "fresh.new"))
    with connection.kept(state, {"key": "k"}) as held:
        left.write_text("{}")
        new.write_text("{}")
        with connection.kept(state, {}):
            assert {held.path.name, "fresh.new"} < set(files(state)) and "left.json" not in files(state)
            assert held.path.stat().st_mode & 0o777 == 0o644
        os.utime(new, (0, 0))
        with connection.kept(state, {}):
            assert len(files(state)) == 2
    assert not files(state) and (state.run / "kernels").stat().st_mode & 0o777 == 0o700


def test_a_kernel_that_cannot_start_says_why(installed: None, engine: NativeEngine, tmp_path: Path) -> None:
    given = tmp_path / "k.json"
    launch = [sys.executable, "-m", "pycontainers.commands.kernel_launcher"]

    def start(*words: str) -> tuple[int, str]:
        done = subprocess.run([*launch, *words], capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stderr

    given.write_text("{}")
    assert "not a connection file" in start(str(given), "host", "python3")[1]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = {f"{name}_port": taken.getsockname()[1] + place for place, name in enumerate(("shell", "iopub", "stdin", "control", "hb"))}
        document = {"transport": "tcp", "ip": "127.0.0.1", "key": "k", **ports}
        given.write_text(json.dumps(document))
        assert "Address already in use" in start(str(given), "host", "python3")[1]
    assert "no image" in start(str(given), "nowhere", "python3")[1]
    code, said = start(str(given), "host", "sh", "-c", "echo I cannot; exit 3")
    assert code == 3 and "I cannot" in said and "exit code 3" in said
    assert start(str(given), "host", "nothing-of-this-name")[0] == 127
    assert not ours(engine)


def test_what_lies_in_a_socket_s_place_is_looked_at_first(engine: NativeEngine, tmp_path: Path) -> None:
    """A container puts a link to a socket of the machine there, a file, a socket of another kind: none is connected to."""
    with socket.socket(socket.AF_UNIX) as secret:
        secret.bind(str(tmp_path / "secret"))
        secret.listen()
        secret.settimeout(0.2)
        script = (
            "import os, socket, sys, time; os.chdir('/run/jupyter-kernel')\n"
            f"os.symlink({str(tmp_path / 'secret')!r}, 'link'); open('file', 'w')\n"
            "d = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); d.bind('datagrams')\n"
            "s = socket.socket(socket.AF_UNIX); s.bind('good'); s.listen(); print('ready', flush=True); time.sleep(60)"
        )
        from pycontainers.protocol import ContainerConfig, Mount

        config = ContainerConfig(
            "host", ("python3", "-c", script), network="none", mounts=(Mount("tmpfs", "/run/jupyter-kernel", options=("mode=1777",)),)
        )
        info = engine.create(config)
        with engine.start_attached(info.id) as session:  # type: ignore[attr-defined]
            assert next(session.stream())[1] == b"ready\n"
            sockets = Sockets(engine.find(info.id).pid)
            assert [sockets.connect(name) for name in ("link", "file", "datagrams", "none")] == [None] * 4
            good = sockets.connect("good")
            assert good is not None
            good.close()
            sockets.close()
        with pytest.raises(TimeoutError):
            secret.accept()


def test_the_bridge_waits_bounds_and_passes_on(tmp_path: Path) -> None:
    """Clients that come before the kernel wait for it; more than a bound wait in the backlog; ends are passed on."""
    import pycontainers.kernels.bridge as bridge

    listener, kernel = socket.socket(), socket.socket(socket.AF_UNIX)
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    kernel.bind(str(tmp_path / "kernel"))
    there: list[bool] = []

    def reach(name: str) -> socket.socket | None:
        if not there:
            return None
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        sock.connect(str(tmp_path / "kernel"))
        return sock

    found = Bridge({"shell": listener}, reach)
    patch = pytest.MonkeyPatch()
    patch.setattr(bridge, "CONNECTIONS", 2)
    try:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        clients[0].sendall(b"early")
        for _ in range(5):
            found.turn(time.monotonic() + 0.05)
        there.append(True)
        kernel.listen()
        answers = queue.Queue[socket.socket]()
        kernel.settimeout(0.01)

        def serve() -> None:
            found.turn(time.monotonic() + 0.05)
            try:
                answers.put(kernel.accept()[0])
            except TimeoutError:
                pass

        until(lambda: serve() or answers.qsize() == 2)
        first = answers.get()
        assert first.recv(16) == b"early"
        first.sendall(b"y" * 1000)
        until(lambda: found.turn(time.monotonic() + 0.01) or len(clients[0].recv(2000, socket.MSG_PEEK)) == 1000)
        clients[0].close()
        first.close()
        until(lambda: serve() or answers.qsize() == 2)  # the third has its turn
    finally:
        patch.undo()
        found.close()
        for sock in (*clients, listener, kernel):
            sock.close()
