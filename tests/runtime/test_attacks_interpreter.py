"""CVE-2019-5736: a container changes the program that the runtime runs, which is the Python of this machine.

A command named ``/proc/self/exe`` is executed by our process inside the container and leads to our interpreter, on the host's mount.
The launcher is started from a copy of the interpreter here: what a test may change is never this machine's own.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.linux import executable
from pycontainers.paths import Paths
from pycontainers.protocol import ContainerConfig, ExecConfig, Mount
from pycontainers.runtime import client, defaults

pytestmark = pytest.mark.root

#: Root of the container changes the file's mode; with every capability, also after an attempt to make its mount writable, or a copy.
SET_UID = """
import ctypes, os
libc = ctypes.CDLL(None)
libc.mount(None, b'/proc/self/exe', None, 32 | 4096, None)
libc.mount(b'/proc/self/exe', b'/tmp', None, 4096, None)
writable = (ctypes.c_uint64 * 4)(0, 1, 0, 0)
for flags in (0, 1):
    tree = libc.syscall(428, -100, b'/proc/self/exe', flags)
    libc.syscall(442, tree, b'', 0x1000, ctypes.byref(writable), 32)
    for path in (f'/proc/self/fd/{tree}', '/proc/self/exe'):
        try: os.chmod(path, 0o4755)
        except OSError as error: print(error)
"""
HAND_OUT = """
import os, socket
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect('/shared/socket')
    socket.send_fds(sock, [b'x'], [os.open('/proc/self/exe', os.O_PATH)])
"""
WRITE = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.bind('/shared/socket')
    sock.listen()
    print('listening', flush=True)
    conn, _ = sock.accept()
    fd = socket.recv_fds(conn, 1, 1)[1][0]
print('holds', flush=True)
while not os.path.exists('/shared/ended'):
    pass
try:
    os.write(os.open(f'/proc/self/fd/{fd}', os.O_WRONLY | os.O_APPEND), b'ours now')
    print('written')
except OSError as error:
    print(error.errno)
"""


@pytest.fixture
def interpreter(without: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of this Python's program, from which the launchers of ``without`` are started."""
    base = Path(tempfile.mkdtemp(prefix="pyct-exe-", dir="/var/tmp"))
    real = Path(os.path.realpath(sys._base_executable))  # type: ignore[attr-defined]
    (base / "bin").mkdir()
    (base / "lib").symlink_to(real.parent.parent / "lib")
    copy = Path(shutil.copy(real, base / "bin" / real.name))
    argv = client.launcher_argv
    base.chmod(0o755)

    def from_copy(where: Paths) -> list[str]:
        return [str(copy), *argv(where)[1:]] if where.run.name.startswith("pyct-weak-") else argv(where)

    monkeypatch.setattr(client, "launcher_argv", from_copy)
    yield copy
    shutil.rmtree(base)


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher is executed by its own path."""
    monkeypatch.setattr(executable, "guarded", lambda program, environment: (program, -1))


def becomes_set_uid(without: Any, interpreter: Path, userns: str, way: str, **config: Any) -> bool:
    """Root of the container, who owns the file (with a user namespace: as a user of conda owns his Python), makes it set-uid."""
    engine = without("nothing")
    if userns == "auto":
        os.chown(interpreter, defaults.HOST_ID_BASE, defaults.HOST_ID_BASE)
    command = ("/proc/self/exe", "-c", SET_UID)
    if way == "start":
        engine.run(ContainerConfig("host", command, network="none", userns=userns, auto_remove=True, **config))
    else:
        info = engine.start(engine.create(ContainerConfig("host", ("sleep", "60"), network="none", userns=userns, **config)).id)
        engine.exec(info.id, ExecConfig(command))
        engine.remove(info.id, force=True)
    return bool(interpreter.stat().st_mode & stat.S_ISUID)


@pytest.mark.parametrize("way", ["start", "exec"])
@pytest.mark.parametrize("userns", ["host", "auto"])
class TestSetUid:
    """chmod(2) works on a program that is being executed, so "text file busy" does not help."""

    def test_succeeds_without_the_read_only_mount(self, without: Any, interpreter: Path, unguarded: None, userns: str, way: str) -> None:
        assert becomes_set_uid(without, interpreter, userns, way)

    def test_fails_here(self, without: Any, interpreter: Path, userns: str, way: str) -> None:
        assert not becomes_set_uid(without, interpreter, userns, way)

    def test_fails_here_with_every_capability(self, without: Any, interpreter: Path, userns: str, way: str) -> None:
        """The mount belongs to no mount namespace any more: nobody can change it."""
        assert not becomes_set_uid(without, interpreter, userns, way, privileged=True)


def is_overwritten(engine: Any, without: Any, leave: Any, interpreter: Path, shared: Path) -> bool:
    """A container hands the file to another one of a launcher with another Python, which waits until nobody executes it any more."""
    other = without("nothing")
    volume = (Mount("bind", "/shared", str(shared)),)
    config = ContainerConfig("host", ("python", "-c", WRITE), network="none", userns="host", mounts=volume)
    keeper = engine.start(engine.create(config).id)
    lines = engine.logs(keeper.id, follow=True)
    assert next(lines).text == "listening"
    other.run(ContainerConfig("host", ("/proc/self/exe", "-c", HAND_OUT), network="none", userns="host", mounts=volume, auto_remove=True))
    assert next(lines).text == "holds"
    size = interpreter.stat().st_size
    leave(other.paths)
    (shared / "ended").touch()
    answer = next(lines).text
    assert (answer == "written") == (interpreter.stat().st_size > size), answer
    return answer == "written"


class TestWrite:
    def test_succeeds_without_the_read_only_mount(
        self, engine: Any, without: Any, leave: Any, interpreter: Path, unguarded: None, tmp_path: Path
    ) -> None:
        assert is_overwritten(engine, without, leave, interpreter, tmp_path)

    def test_fails_here(self, engine: Any, without: Any, leave: Any, interpreter: Path, tmp_path: Path) -> None:
        assert not is_overwritten(engine, without, leave, interpreter, tmp_path)


class TestRuntimeOfAnEngine:
    """``pycontainers-oci``, as podman and dockerd run it: its own process becomes the container, root inside is root outside."""

    @pytest.fixture
    def bundle(self, tmp_path: Path) -> Path:
        """Its root has this machine's /usr and a Python's libraries, by binds; no user namespace, as is an engine's default."""
        folders = dict.fromkeys(("/usr", os.path.realpath(sys.base_prefix)))
        links = [name for name in ("bin", "lib", "lib64") if os.path.islink(f"/{name}")]
        root = tmp_path / "rootfs"
        root.mkdir()
        for name in links:
            (root / name).symlink_to(os.readlink(f"/{name}"))
        folders.update(dict.fromkeys(f"/{name}" for name in ("bin", "lib", "lib64") if name not in links and os.path.isdir(f"/{name}")))
        mounts = [{"destination": folder, "type": "bind", "source": folder, "options": ["rbind", "ro"]} for folder in folders]
        mounts += [{"destination": "/proc", "type": "proc", "source": "proc"}, {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}]
        process = {"args": ["/proc/self/exe", "-c", SET_UID], "env": ["PATH=/usr/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
        capabilities = {kind: ["CAP_FOWNER", "CAP_DAC_OVERRIDE", "CAP_CHOWN"] for kind in ("bounding", "effective", "permitted")}
        config = {
            "ociVersion": "1.2.0",
            "process": process | {"capabilities": capabilities},
            "root": {"path": "rootfs"},
            "mounts": mounts,
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]},
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    def attack(self, interpreter: Path, bundle: Path, **environment: str) -> bool:
        package = str(Path(client.__file__).parents[2])
        start = f"import sys; sys.path.insert(0, {package!r}); from pycontainers.oci.program import main; main()"
        name = f"pyct-{os.urandom(4).hex()}"
        words = [interpreter, "-I", "-c", start, "--root", bundle / "state", "run", "--bundle", bundle, name]
        done = subprocess.run(words, env=dict(os.environ, **environment), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return bool(interpreter.stat().st_mode & stat.S_ISUID)

    def test_succeeds_when_it_is_not_executed_anew(self, interpreter: Path, bundle: Path) -> None:
        assert self.attack(interpreter, bundle, PYCONTAINERS_OCI_GUARDED="1")

    def test_fails_here(self, interpreter: Path, bundle: Path) -> None:
        assert not self.attack(interpreter, bundle)
