"""A bundle with a small root file system, and runtimes to run it: ours, and those of Debian's packages beside it."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pycontainers

PACKAGE = str(Path(pycontainers.__file__).parents[1])
START = f"import sys; sys.path.insert(0, {PACKAGE!r}); from pycontainers.oci.program import main; main()"
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="pyct-oci-", dir="/var/tmp"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="session")
def program(place: Path) -> str:
    """``pycontainers-oci`` as one executable file, as engines want it."""
    path = place / "pycontainers-oci"
    path.write_text(f"#!/bin/sh\nexec {sys.executable} -I -S -c '{START}' \"$@\"\n".replace(repr(PACKAGE), f'"{PACKAGE}"'))
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="session")
def rootfs(place: Path, busybox: str) -> Path:
    """busybox and little else."""
    root = place / "rootfs"
    for folder in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "var"):
        (root / folder).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    (root / "tmp").chmod(0o1777)
    return root


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


class Runtime:
    """One runtime with a state folder of its own. ``change`` is applied to a copy of the common spec."""

    def __init__(self, path: str, base: Path, rootfs: Path) -> None:
        self.path, self.base, self.rootfs = path, base, rootfs
        self.root = str(base / "state")
        self.count = 0

    def __call__(self, *arguments: str, stdin: str = "", env: dict[str, str] | None = None, **more: Any) -> Ran:
        done = subprocess.run(
            [self.path, "--root", self.root, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=env,
            timeout=60,
            check=False,
            **more,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def bundle(self, change: Change | None = None, script: str = "true") -> str:
        self.count += 1
        folder = self.base / f"bundle-{self.count}"
        folder.mkdir(parents=True)
        spec = copy.deepcopy(SPEC)
        spec["root"]["path"] = str(self.rootfs)
        spec["process"]["args"] = ["sh", "-c", script]
        spec["linux"]["cgroupsPath"] = f"/{self.base.name}-{os.path.basename(self.path)}-{self.count}"
        if change is not None:
            change(spec)
        (folder / "config.json").write_text(json.dumps(spec))
        return str(folder)

    def run(self, script: str, change: Change | None = None, *options: str, **more: Any) -> Ran:
        """The script in a container, in the foreground."""
        bundle = self.bundle(change, script)
        return self("run", *options, "--bundle", bundle, f"c{self.count}", **more)

    def running(self, script: str = "sleep 1000", change: Change | None = None, *options: str) -> str:
        """A container in the background, by its id."""
        bundle = self.bundle(change, script)
        log = open(f"{bundle}/out", "w")
        arguments = [self.path, "--root", self.root, "run", "--detach", *options, "--bundle", bundle, f"c{self.count}"]
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60, check=False)
        assert not done.returncode, Path(bundle, "out").read_text()
        return f"c{self.count}"

    def create(self, name: str, bundle: str, *options: str) -> Ran:
        """Its output is a file: the container keeps what it is given open, and nobody could wait for an end."""
        log = Path(bundle, "out")
        with log.open("w") as out:
            arguments = [self.path, "--root", self.root, "create", *options, "--bundle", bundle, name]
            done = subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=60, check=False)
        return Ran(done.returncode, log.read_text(), log.read_text())

    def state(self, name: str) -> dict[str, Any]:
        done = self("state", name)
        assert not done.code, done
        found: dict[str, Any] = json.loads(done.out)
        return found

    def clean(self) -> None:
        for name in os.listdir(self.root) if os.path.isdir(self.root) else []:
            self("delete", "--force", name)


SPEC: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": [],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": {kind: ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"] for kind in ("bounding", "effective", "permitted")},
        "noNewPrivileges": True,
    },
    "root": {"path": ""},
    "hostname": "box",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=64k"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
        "readonlyPaths": ["/proc/bus", "/proc/sys"],
    },
}


def _left(base: Path) -> list[str]:
    return [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{base.name}-*")] + [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"/{base.name}/" in line
    ]


@pytest.fixture
def oci(program: str, place: Path, rootfs: Path) -> Iterator[Runtime]:
    """Ours. At the end nothing of a test may be left: no folder, cgroup or mount."""
    if os.geteuid():
        pytest.skip("a runtime needs root")
    runtime = Runtime(program, Path(tempfile.mkdtemp(prefix="o", dir=place)), rootfs)
    yield runtime
    runtime.clean()
    left = [name for name in (os.listdir(runtime.root) if os.path.isdir(runtime.root) else []) if name != "~seccomp"]  # a cache
    assert left == [], left
    assert _left(runtime.base) == []


@pytest.fixture
def peer(place: Path, rootfs: Path) -> Iterator[Runtime]:
    """runc, the reference."""
    path = shutil.which("runc")
    if not path or os.geteuid():
        pytest.skip("runc is not installed (Debian: apt-get install runc)")
    runtime = Runtime(path, Path(tempfile.mkdtemp(prefix="p", dir=place)), rootfs)
    yield runtime
    runtime.clean()
