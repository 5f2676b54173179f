"""Attacks on what an ordinary user's containers stand on: his own interpreter, and the cgroups that were given to him.

Without root, root of a container *is* the user outside, who owns both.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Somebody

Attack = Callable[..., str]
#: Run as the user: a container in a run folder of its own, whose launcher is the weakened one and runs a given interpreter.
CLIENT = """
import json, os, sys
asked = json.loads(sys.argv[1])
os.environ["PYCONTAINERS_RUN"] = asked["run"]
from pathlib import Path
from pycontainers.engines.native import NativeEngine
from pycontainers.linux import sockets
from pycontainers.protocol import ContainerConfig, Resources
from pycontainers.runtime import client
package = str(Path(client.__file__).parents[2])
real = client.launcher_argv
client.launcher_argv = lambda where: [
    asked["python"] or real(where)[0], "-I", "-S", asked["script"], package, str(where.home), str(where.run), *asked["names"]
]
engine = NativeEngine()
config = ContainerConfig("host", tuple(asked["command"]), network="none", auto_remove=True, resources=Resources(pids_limit=asked["pids"]))
engine.run(config, None, lambda stream, data: os.write(1, data))
with sockets.connect(engine.paths.launcher_socket, 5) as sock:
    sockets.receive(sock)
    sockets.send(sock, {"op": "leave"})
"""


@pytest.fixture
def attack(mapped: Somebody) -> Iterator[Attack]:
    """``attack(*names, command=…)``: what a container printed whose launcher lacks the protections ``names``."""
    script = Path(shutil.copy(Path(__file__).parents[1] / "runtime/weakened.py", mapped.folder))
    script.chmod(0o644)
    folders = []

    def run(*names: str, command: tuple[str, ...], python: str = "", pids: int | None = None, inside: str = "") -> str:
        folders.append(f"{mapped.run_folder}/{secrets.token_hex(4)}")
        asked = {"run": folders[-1], "python": python, "script": str(script), "names": names, "command": command, "pids": pids}
        words = ("-c", CLIENT, json.dumps(asked))
        done = mapped.do(f"{mapped.base}/venv/bin/python", *words, preexec_fn=(lambda: _enter(inside)) if inside else None)
        return done.stdout + done.stderr

    yield run
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _enter(group: str) -> None:
    Path(group, "cgroup.procs").write_text(str(os.getpid()))


class TestInterpreter:
    """CVE-2019-5736: the user's own Python, as conda gives him one, made set-user-id by root of his container."""

    @pytest.fixture
    def interpreter(self, mapped: Somebody) -> Iterator[Path]:
        real = Path(os.path.realpath(f"{mapped.base}/venv/bin/python"))
        base = Path(mapped.home, "python")
        (base / "bin").mkdir(parents=True)
        (base / "lib").symlink_to(real.parent.parent / "lib")
        copy = Path(shutil.copy(real, base / "bin" / real.name))
        for path in (base, base / "bin", copy):
            os.chown(path, mapped.uid, mapped.gid)
        yield copy
        shutil.rmtree(base)

    COMMAND = ("/proc/self/exe", "-c", "import os; os.chmod('/proc/self/exe', 0o4755)")

    def test_succeeds_without_the_read_only_mount(self, attack: Attack, interpreter: Path) -> None:
        said = attack("read_only_interpreter", command=self.COMMAND, python=str(interpreter))
        assert interpreter.stat().st_mode & stat.S_ISUID, said

    def test_fails_here(self, attack: Attack, interpreter: Path) -> None:
        assert "Read-only file system" in attack("nothing", command=self.COMMAND, python=str(interpreter))
        assert not interpreter.stat().st_mode & stat.S_ISUID


class TestCgroups:
    """CVE-2023-25809: a group that was delegated to the user, whose files he owns, is written to from inside: its limit is raised."""

    RAISE = (
        "import glob\n"
        "for path in glob.glob('/sys/fs/cgroup/**/pids.max', recursive=True):\n"
        "    try: open(path, 'w').write('max')\n"
        "    except OSError as error: print(error.strerror)\n"
        "    print('limit', open(path).read().strip())\n"
    )

    @pytest.fixture
    def delegated(self, mapped: Somebody) -> Iterator[str]:
        """A group of the user's own, where this machine limits the number of processes."""
        base = next((p for p in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup") if os.path.exists(f"{p}/cgroup.procs")), "")
        if not base or not (base.endswith("pids") or "pids" in Path(base, "cgroup.subtree_control").read_text().split()):
            pytest.skip("no cgroup controller for pids on this machine")
        group = f"{base}/pyct-{secrets.token_hex(4)}"
        os.mkdir(group)
        for name in ("", *os.listdir(group)):
            os.chown(f"{group}/{name}", mapped.uid, mapped.gid)
        yield group
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def test_succeeds_when_mounted_writable(self, attack: Attack, delegated: str) -> None:
        said = attack("read_only_cgroups", command=("python3", "-c", self.RAISE), pids=77, inside=delegated)
        assert said == "limit max\n"

    def test_fails_here(self, attack: Attack, delegated: str) -> None:
        said = attack("nothing", command=("python3", "-c", self.RAISE), pids=77, inside=delegated)
        assert said == "Read-only file system\nlimit 77\n"
