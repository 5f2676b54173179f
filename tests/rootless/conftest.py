"""Real ordinary users, made and removed by the tests, each on a "machine" of its own: a mount namespace that has, or lacks, programs."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pycontainers

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = _cannot()
    for item in items:
        if "tests/rootless" in str(item.path) and reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def _cannot() -> str:
    if os.geteuid() != 0:
        return "ordinary users are made by root, this is uid " + str(os.geteuid())
    missing = [name for name in ("useradd", "userdel", "setpriv", "unshare", "nsenter") if not shutil.which(name)]
    return f"{', '.join(missing)} missing" if missing else ""


class Somebody:
    """An ordinary user with the program installed.

    :param ranges: with subordinate ids. :param without: programs that this machine does not have.
    """

    def __init__(self, base: str, ranges: bool, without: tuple[str, ...]) -> None:
        self.name = f"pyct{secrets.token_hex(4)}"
        self.folder = f"{base}/{self.name}"
        self.base = base
        self.home, self.run_folder = f"{self.folder}/home", f"{self.folder}/run"
        self._limited: subprocess.Popen[bytes] | None = None
        self.enter: list[str] = []  # cgroup.procs of groups that his processes start in
        os.mkdir(self.folder, 0o755)
        kind = [] if ranges else ["--system"]  # useradd gives system accounts no subordinate ids
        make = ["useradd", *kind, "--no-create-home", "--home-dir", self.home, "--shell", "/bin/sh", self.name]
        subprocess.run(make, check=True, capture_output=True)
        self.uid, self.gid = pwd.getpwnam(self.name).pw_uid, pwd.getpwnam(self.name).pw_gid
        for folder in (self.home, self.run_folder):
            os.mkdir(folder, 0o700)
            os.chown(folder, self.uid, self.gid)
        self.machine = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "infinity"])
        _wait_for(lambda: os.readlink(f"/proc/{self.machine.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"))
        self._furnish(without)

    def _furnish(self, without: tuple[str, ...]) -> None:
        """What an ordinary machine has and this one may not: a /dev/net/tun for everybody. And what this one shall not have."""
        self.outside(
            "set -e; mkdir -p $0/dev; [ -c /dev/net/tun ] || exit 0; "
            "mknod -m 666 $0/dev/tun c 10 200; mount --bind $0/dev/tun /dev/net/tun",
            self.folder,
        )
        if without:
            # Hidden by whiteouts: a mount on each program would be a mount below /usr.
            self.outside(
                "set -e; mkdir $0/hide; mount -t tmpfs hide $0/hide; mkdir -p $0/hide/u/bin $0/hide/w; "
                'for name in "$@"; do mknod $0/hide/u/bin/$name c 0 0; done; '
                "mount -t overlay -o lowerdir=/usr,upperdir=$0/hide/u,workdir=$0/hide/w overlay /usr",
                self.folder,
                *without,
            )

    def outside(self, script: str, *words: str) -> None:
        """As root, on this user's machine."""
        subprocess.run(["nsenter", f"--mount=/proc/{self.machine.pid}/ns/mnt", "sh", "-c", script, *words], check=True)

    def limit_namespaces(self, count: int | None) -> None:
        """Let him live in a user namespace with so many below it (and all ids as they are); None: no more."""
        if self._limited is not None:
            self._limited.kill()
            self._limited.wait()
            self._limited = None
        if count is None:
            return
        self._limited = process = subprocess.Popen(["unshare", "--user", "sleep", "infinity"])
        _wait_for(lambda: os.readlink(f"/proc/{process.pid}/ns/user") != os.readlink("/proc/self/ns/user"))
        for name in ("gid_map", "uid_map"):
            with open(f"/proc/{process.pid}/{name}", "w", encoding="ascii") as file:
                file.write("0 0 1000000000")
        inside = ["nsenter", f"--user=/proc/{process.pid}/ns/user", "sh", "-c", f"echo {count} > /proc/sys/user/max_user_namespaces"]
        subprocess.run(inside, check=True)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": PATH, "HOME": self.home, "USER": self.name, "LANG": "C.UTF-8",
            "PYCONTAINERS_HOME": f"{self.home}/state", "PYCONTAINERS_RUN": f"{self.run_folder}/pycontainers",
        }  # fmt: skip

    def command(self, *words: str) -> list[str]:
        become = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--init-groups", "--inh-caps=-all"]
        variables = [f"{key}={value}" for key, value in self.environment.items()]
        namespaces = [f"--mount=/proc/{self.machine.pid}/ns/mnt"]
        if self._limited is not None:
            namespaces = [f"--user=/proc/{self._limited.pid}/ns/user", *namespaces]
        start = ["nsenter", *namespaces, f"--wd={self.home}", *become, "env", "-i", *variables, *words]
        groups = "".join(f"echo $$ > {path}; " for path in self.enter)
        return ["sh", "-c", f'{groups}exec "$@"', "sh", *start] if groups else start

    def do(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Any command as this user."""
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=120, check=False, **options)

    def __call__(self, *words: str, code: int | None = 0, **options: Any) -> str:
        """``pycontainers WORDS…``: what it printed. ``code``: the exit code that is expected, None for any."""
        done = self.do(f"{self.base}/venv/bin/python", "-m", "pycontainers.commands.program", *words, **options)
        assert code is None or done.returncode == code, f"{words}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        self.stderr = done.stderr
        return done.stdout

    def tidy(self) -> None:
        """Put away the containers and images that another test left: each counts what it made itself."""
        def there(*names: str) -> bool:
            places = [f"{self.home}/state/{name}" for name in names]
            return any(os.path.isdir(place) and set(os.listdir(place)) - {"names"} for place in places)

        if there("containers"):
            for line in self("ps", "-aq").split():
                self("rm", "-f", line, code=None)
        if there("images/manifests", "images/snapshots", "images/cachemounts"):
            for name in self("images", "-q").split():
                self("rmi", "-f", name, code=None)
            self("builder", "prune", "-af")

    def inspect(self, name: str) -> dict[str, Any]:
        found = json.loads(self("inspect", name))
        return found[0] if isinstance(found, list) else found

    @property
    def holder(self) -> dict[str, Any]:
        with open(f"{self.run_folder}/pycontainers/holder.json", encoding="ascii") as file:
            found: dict[str, Any] = json.load(file)
        return found

    def processes(self) -> dict[int, str]:
        """Everything that runs as this user or one of his subordinate ids, pid -> command line."""
        found = {}
        ids = {self.uid, *(first for first in self.subordinate())}
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError):
                status = dict(line.split(":\t", 1) for line in open(f"/proc/{int(name)}/status", encoding="utf-8") if ":\t" in line)
                uid = int(status["Uid"].split()[1])
                if status["State"][0] not in "ZX" and any(first <= uid < first + (1 if first == self.uid else 65536) for first in ids):
                    found[int(name)] = open(f"/proc/{int(name)}/cmdline", encoding="utf-8", errors="replace").read().replace("\0", " ")
        return found

    def subordinate(self) -> list[int]:
        with open("/etc/subuid", encoding="utf-8") as file:
            return [int(line.split(":")[1]) for line in file if line.startswith(self.name + ":")]

    def launcher(self) -> int:
        """Its pid, by its greeting."""
        return int(self._ask("print(sockets.receive(sock)[0]['pid'])", "launcher_socket"))

    def leave(self) -> None:
        """Let the helpers go, as they do when they are idle."""
        farewell = "sockets.receive(sock)\nsockets.send(sock, {'op': 'leave'})\nwhile sockets.receive(sock)[0] is not None: pass"
        for helper in ("network_socket", "launcher_socket"):
            self._ask(farewell, helper)

    def _ask(self, what: str, helper: str) -> str:
        script = (
            "from pycontainers.linux import sockets\nfrom pycontainers.paths import paths\n"
            f"try:\n    sock = sockets.connect(paths().{helper}, 5)\nexcept OSError:\n    raise SystemExit\n{what}\n"
        )
        done = self.do(f"{self.base}/venv/bin/python", "-c", script)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self) -> None:
        """Remove the user, whatever he left."""
        self.limit_namespaces(None)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _wait_for(lambda: not self.processes())
        self.machine.kill()
        self.machine.wait()
        subprocess.run(["userdel", self.name], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


wait_for = _wait_for


@pytest.fixture(scope="session")
def installation() -> Iterator[str]:
    """The package where everybody can read it, for an interpreter that everybody can execute."""
    base = tempfile.mkdtemp(prefix="pyct-rootless-", dir="/var/tmp")
    os.chmod(base, 0o755)
    try:
        python = _interpreter()
        if not python:
            pytest.skip("no Python 3.11 or newer that an ordinary user can execute (apt-get install python3)")
        subprocess.run([python, "-m", "venv", "--without-pip", f"{base}/venv"], check=True, capture_output=True)
        where = subprocess.run(
            [f"{base}/venv/bin/python", "-c", "import site; print(site.getsitepackages()[0])"], check=True, capture_output=True, text=True
        ).stdout.strip()
        source = os.path.dirname(str(pycontainers.__file__))
        shutil.copytree(source, f"{where}/pycontainers", ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(["chmod", "-R", "a+rX", base], check=True)
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _interpreter() -> str:
    for python in (os.path.realpath(getattr(sys, "_base_executable", sys.executable)), "/usr/bin/python3"):
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
        # Through a shell: setpriv itself still has root's right to search folders when it executes something.
        check = [*nobody, "sh", "-c", 'exec "$0" -c "import sys, venv; sys.exit(sys.version_info < (3, 11))"', python]
        if os.path.exists(python) and subprocess.run(check, capture_output=True, check=False).returncode == 0:
            return python
    return ""


@pytest.fixture(scope="session")
def people(installation: str) -> Iterator[Callable[..., Somebody]]:
    """Makes users, and removes them at the end."""
    made: dict[tuple[bool, tuple[str, ...]], Somebody] = {}

    def make(ranges: bool = True, without: tuple[str, ...] = ()) -> Somebody:
        if ranges and not shutil.which("newuidmap"):
            pytest.skip("newuidmap is missing (package uidmap)")
        key = (ranges, without)
        if key not in made:
            made[key] = Somebody(installation, ranges, without)
        return made[key]

    yield make
    for somebody in made.values():
        somebody.end()


@pytest.fixture(params=["ranges", "one id"])
def somebody(request: pytest.FixtureRequest, people: Callable[..., Somebody]) -> Iterator[Somebody]:
    """A user in each mode."""
    found = people(ranges=request.param == "ranges")
    found.tidy()
    yield found
    found.tidy()


@pytest.fixture
def mapped(people: Callable[..., Somebody]) -> Iterator[Somebody]:
    """A user with subordinate ids."""
    found = people()
    found.tidy()
    yield found
    found.tidy()
