"""What all cases share: both engines, the same base images on both sides, and servers that both reach by the same address."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pycontainers.engines.native import NativeEngine
from pycontainers.events import finish

from .case import TIME, Buildah, Case, Docker, Ours, prepare
from .compare import Result
from .engine import MIRROR, Engine, Missing, cache_folder

_DEBIAN_PACKAGES = "apt,passwd,adduser,ca-certificates"
_WITHOUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache", "var/lib/apt/lists", "var/log")
_ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/usr/sbin:/bin/false\nnobody:x:65534:65534::/nonexistent:/bin/false\n"
    "web:x:1000:1001:a web server:/srv/web:/bin/sh\n",
    "group": "root:x:0:\ndaemon:x:1:\nstaff:x:50:web\nweb:x:1001:\nnogroup:x:65534:\n",
}


def busybox_tar(target: Path) -> Path:
    """A base of one static program: a shell and everything that small steps need."""
    program = Path(shutil.which("busybox") or "/bin/busybox")
    if not program.exists():
        raise Missing("busybox-static is not installed (Debian: apt-get install busybox-static)")
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, kind: bytes, mode: int, content: bytes = b"", link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.size, info.linkname, info.mtime = kind, mode, len(content), link, TIME - 86400
            tar.addfile(info, io.BytesIO(content))

        for name, mode in (
            (".", 0o755),
            ("bin", 0o755),
            ("dev", 0o755),
            ("etc", 0o755),
            ("proc", 0o755),
            ("root", 0o700),
            ("sys", 0o755),
            ("tmp", 0o1777),
            ("usr", 0o755),
            ("usr/bin", 0o755),
            ("srv", 0o755),
            ("var", 0o755),
            ("var/lib", 0o755),
        ):
            add(name, tarfile.DIRTYPE, mode)
        add("bin/busybox", tarfile.REGTYPE, 0o755, program.read_bytes())
        for applet in applets:
            if applet != "busybox":
                add(f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox")
        add("usr/bin/env", tarfile.SYMTYPE, 0o777, link="/bin/busybox")
        for name, text in _ETC.items():
            add(f"etc/{name}", tarfile.REGTYPE, 0o644, text.encode())
    return target


def debian_tar() -> Path:
    """A small Debian, made once and kept. :raises Missing: the mirror is not reached."""
    place = cache_folder() / "debian-bookworm.tar"
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f"debian-bookworm.{os.getpid()}.tar")
    command = [
        "mmdebstrap",
        "--variant=essential",
        '--aptopt=Acquire::Check-Valid-Until "false"',
        f"--include={_DEBIAN_PACKAGES}",
        *(f"--dpkgopt=path-exclude=/{name}/*" for name in _WITHOUT[:4]),
        *(f'--customize-hook=rm -rf "$1/{name}"; mkdir "$1/{name}"' for name in _WITHOUT[4:]),
        "--format=tar",
        "bookworm",
        str(fresh),
        MIRROR,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        fresh.unlink(missing_ok=True)
        raise Missing(f"no Debian from {MIRROR}: {done.stderr.strip()[-300:]}")
    fresh.rename(place)
    return place


class House:
    """Both sides and what they share. Close it."""

    def __init__(self, folder: Path, ours: NativeEngine) -> None:
        self.folder, self._exits, since = folder, contextlib.ExitStack(), time.time()
        try:
            self.engine = Engine(folder)
            self._exits.callback(self.engine.close)
            self.docker, self.buildah, self.ours = Docker(self.engine, since), Buildah(self.engine, since), Ours(ours, since)
            self.bases: set[str] = set()
            self.agent: Path | None = None
            self.values: dict[str, str] = {}
        except BaseException:
            self._exits.close()
            raise

    def close(self) -> None:
        self._exits.close()

    def ready(self, case: Case) -> Path:
        """The case's folder, with everything there that its Dockerfile needs."""
        words = " ".join([case.dockerfile, *case.before.values(), *(v for v in case.contexts.values() if isinstance(v, str))])
        if "busybox" in words:
            self._base("busybox", lambda: busybox_tar(self.folder / "busybox.tar"))
        if "debian:bookworm" in words:
            self._base("debian:bookworm", debian_tar)
        if "$WEB" in words or "${WEB}" in words:
            self._serve()
        if case.ssh and self.agent is None:
            self._start_agent()
        place = self.folder / "cases" / case.name
        prepare(case, place)
        return place

    def build(self, case: Case) -> tuple[Result, Result]:
        """Ours, Docker's."""
        place = self.ready(case)
        docker = self.other(case).build(case, place, self._values(case), self.agent)
        ours = self.ours.build(case, place, self._values(case), self.agent)
        if ours.ok and docker.config and ours.warnings != docker.warnings:
            docker.warnings = self.docker.warnings()
        return ours, docker

    def other(self, case: Case) -> Docker | Buildah:
        """The side that ours is held against."""
        return self.buildah if case.peer == "buildah" else self.docker

    def _values(self, case: Case) -> dict[str, str]:
        return {name: value for name, value in self.values.items() if f"ARG {name}" in case.dockerfile}

    def _base(self, name: str, make: Callable[[], Path]) -> None:
        if name in self.bases:
            return
        tar = make()
        shared = self.folder / tar.name
        if not shared.exists():
            shutil.copyfile(tar, shared)
        finish(self.ours.engine.import_image(str(shared), name))
        self.engine("import", self.engine.inside(shared), name)
        self.bases.add(name)

    def _serve(self) -> None:
        """Web and git servers on the same port of both networks: one sees the daemon's loopback, the other ours."""
        if self.values:
            return
        public = self.folder / "web"
        public.mkdir(exist_ok=True)
        web, git = _free_port(), _free_port()
        make_public(public, git)
        serve = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(public), str(web)]
        daemon = ["/usr/lib/git-core/git-daemon", "--export-all", f"--base-path={public}", "--listen=127.0.0.1", f"--port={git}"]
        for command in (serve, daemon):
            for line in (command, self.engine.enter(command, root=False)):
                process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *line],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                self._exits.callback(_end, process)
        _answers(web)
        _answers(git)
        time.sleep(0.3)  # those in the other network began at the same time
        self.values = {"WEB": f"http://127.0.0.1:{web}", "GIT": f"git://127.0.0.1:{git}"}

    def _start_agent(self) -> None:
        self.agent = self.folder / "agent"
        key = self.folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a test's key", "-f", str(key)], check=True)
        process = subprocess.Popen(["ssh-agent", "-D", "-a", str(self.agent)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._exits.callback(_end, process)
        deadline = time.monotonic() + 10
        while not self.agent.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        subprocess.run(["ssh-add", "-q", str(key)], check=True, env={**os.environ, "SSH_AUTH_SOCK": str(self.agent)})


def make_public(public: Path, git_port: int) -> None:
    """What the servers serve: a file and an archive whose bytes never change, and a repository of two commits with a tag."""
    (public / "hello.txt").write_text("hello from the web\n")
    os.utime(public / "hello.txt", (TIME, TIME))
    with tarfile.open(public / "tool-1.0.tar", "w") as tar:
        for name, mode, text in (("tool-1.0/bin/tool", 0o755, "#!/bin/sh\necho tool 1.0\n"), ("tool-1.0/README", 0o644, "a tool\n")):
            info = tarfile.TarInfo(name)
            info.mode, info.size, info.mtime, info.uid, info.gid = mode, len(text), TIME, 7, 8
            tar.addfile(info, io.BytesIO(text.encode()))
    work = public / "work"
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    for role in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{role}_NAME": "a test", f"GIT_{role}_EMAIL": "test@example.org", f"GIT_{role}_DATE": f"{TIME} +0000"}

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=work if work.exists() else public, env=env, check=True, capture_output=True)

    git("init", "-q", "-b", "main", str(work))
    (work / "one.txt").write_text("one\n")
    (work / "sub").mkdir()
    (work / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (work / "sub" / "run.sh").chmod(0o755)
    git("add", "."), git("commit", "-q", "-m", "first"), git("tag", "v1")
    (work / "two.txt").write_text("two\n")
    git("add", "."), git("commit", "-q", "-m", "second")
    git("clone", "-q", "--bare", str(work), str(public / "project.git"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    if process.poll() is None:
        process.kill()
        process.wait()


@contextlib.contextmanager
def house(folder: Path, ours: NativeEngine) -> Iterator[House]:
    found = House(folder, ours)
    try:
        yield found
    finally:
        found.close()
