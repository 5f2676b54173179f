"""Programs that make and read images, each with a place of its own: skopeo, umoci, podman with buildah, and a dockerd."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Program:
    """``words``: the beginning of each command line."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, *arguments: str, stdin: bytes | None = None) -> str:
        given = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        done = subprocess.run([*self.words, *arguments], capture_output=True, timeout=150, check=False, **given)
        assert done.returncode == 0, (arguments, done.stdout[-500:], done.stderr[-2000:])
        return done.stdout.decode()


def program(name: str, package: str = "") -> Program:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install {package or name})")
    return Program(found)


def podman(place: Path) -> Program:
    """podman with a storage of its own; its images' trees are plain folders (vfs)."""
    program("podman")
    options = f"--root {place}/root --runroot {place}/run --tmpdir {place}/tmp --storage-driver vfs --cgroup-manager=cgroupfs"
    place.mkdir(exist_ok=True)
    path = place / "podman.sh"
    path.write_text(
        "#!/bin/sh\nexec unshare -m sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; "
        f'exec podman {options} --events-backend=file "$@"\' podman "$@"\n'
    )
    path.chmod(0o755)
    return Program(str(path))


def buildah(place: Path) -> Program:
    """buildah on the same storage."""
    program("buildah")
    return Program("buildah", "--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs")


@contextmanager
def dockerd(place: Path) -> Iterator[Program]:
    """A daemon of its own in a network namespace of its own: no bridge, no rules on the machine. Yields the client."""
    daemon = shutil.which("dockerd") or "/usr/sbin/dockerd"
    client = next((path for path in ("/usr/bin/docker", shutil.which("docker") or "") if os.path.exists(path)), "")
    if os.geteuid() or not os.path.exists(daemon) or not client:
        pytest.skip("dockerd is not installed (Debian: apt-get install docker.io)")
    place.mkdir()
    words = ["unshare", "--net", daemon, "-H", f"unix://{place}/socket", "--data-root", f"{place}/data", "--exec-root", f"{place}/exec"]
    words += ["--pidfile", f"{place}/pid", "--bridge", "none", "--iptables=false", "--ip6tables=false", "--storage-driver", "vfs"]
    words += ["--cgroup-parent", f"/{place.parent.name}"]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    docker = Program(client, "-H", f"unix://{place}/socket")
    try:
        end = time.monotonic() + 40
        while subprocess.run([*docker.words, "version"], capture_output=True, check=False).returncode:
            if process.poll() is not None or time.monotonic() > end:
                pytest.skip(f"dockerd does not start here: {(place / 'log').read_text()[-300:]}")
            time.sleep(0.1)
        yield docker
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if line.split()[4].startswith(f"{place}/"):
                subprocess.run(["umount", "-l", line.split()[4]], check=False)
        for path in Path("/sys/fs/cgroup").glob(f"*/{place.parent.name}"):
            for folder, _, _ in os.walk(path, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    pass
