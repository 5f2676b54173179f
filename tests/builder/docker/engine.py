"""A real Docker Engine of today (28: BuildKit 0.25, Dockerfile frontend 1.19), whatever this distribution's own is.

Its root file system is made once by mmdebstrap from Debian's archive and kept in a cache folder, read-only from then on. The daemon
runs there chrooted, in a mount, a network and a PID namespace of its own: nothing of it is seen from here, no registry is reached from
it, and with its first process everything goes away, also when the tests are killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pycontainers.images import suites

#: Suites that have it, the oldest first: a name that the mirror no longer knows falls through to the next.
SUITES = ("forky", "sid")
PACKAGES = "docker.io,docker-cli,docker-buildx,containerd,runc,iptables,ca-certificates,git,iproute2,xz-utils,buildah,netavark"
MIRROR = os.environ.get("PYCONTAINERS_DEBIAN_MIRROR", suites.DISTRIBUTIONS["debian"].mirrors[0])
#: Where the daemon and its clients see the folder that both sides share.
SHARED = "/mnt"
_START_SECONDS = 60

_ENTER = r"""
set -e
root=$1 shared=$2; shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
for place in run tmp; do mount -t tmpfs tmpfs "$root/$place"; done
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount --bind "$shared" "$root/mnt"
ip link set lo up
# docker-init reaps, and is the first process: with it all others end.
exec chroot "$root" docker-init -- dockerd "$@"
"""


class Missing(Exception):
    """There is no engine here; the message says why."""


def cache_folder() -> Path:
    """What tests keep between runs: ``PYCONTAINERS_TEST_CACHE``, else below the user's cache."""
    found = os.environ.get("PYCONTAINERS_TEST_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(found) if found else home / "pycontainers-tests"


def root_file_system() -> Path:
    """The folder with Docker in it, made when it is not there (twenty seconds, 150 MB from the mirror). :raises Missing: it cannot be."""
    place = cache_folder() / f"docker-engine-{hashlib.sha256(PACKAGES.encode()).hexdigest()[:8]}"
    if (place / "usr/sbin/dockerd").exists():
        return place
    if shutil.which("mmdebstrap") is None:
        raise Missing("mmdebstrap is not installed (Debian: apt-get install mmdebstrap)")
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh, last = place.with_name(f"{place.name}.{os.getpid()}"), "no suite"
    for suite in SUITES:
        # A mirror that stands still is as good: packages are checked against the signed list, whatever its date.
        options = ['--aptopt=Acquire::Check-Valid-Until "false"', '--aptopt=APT::Install-Recommends "false"', f"--include={PACKAGES}"]
        command = ["mmdebstrap", "--variant=essential", *options, suite, str(fresh), MIRROR]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            with contextlib.suppress(OSError):  # another session was as quick: its folder is the same
                fresh.rename(place)
            break
        last = next((line for line in done.stderr.splitlines() if line.startswith("E: ")), done.stderr.strip()[-200:])
    shutil.rmtree(fresh, ignore_errors=True)
    if not place.exists():
        raise Missing(f"no Docker Engine from {MIRROR}: {last}")
    return place


class Engine:
    """Started by the constructor, ended by :meth:`close`.

    :param folder: shared with the daemon, as ``/mnt`` there; its data is in there, too, so it must be on a disk with overlay.
    """

    def __init__(self, folder: Path) -> None:
        self.root, self.folder = root_file_system(), folder
        self.group = f"pyct-docker-{os.getpid()}"
        options = f"-H unix:///run/docker.sock --data-root {SHARED}/data --exec-root /run/docker --pidfile /run/docker.pid"
        options += f" --storage-driver overlay2 --cgroup-parent /{self.group}"
        spaces = "setpriv --pdeathsig KILL unshare --mount --net --pid --fork --kill-child --propagation private"
        command = [*spaces.split(), "sh", "-c", _ENTER, "sh", str(self.root), str(folder), *options.split()]
        with (folder / "log").open("wb") as log:
            self._outer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.pid = 0
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self.pid or self("version", check=False).returncode:
            if self._outer.poll() is not None or time.monotonic() > deadline:
                lines = (self.folder / "log").read_text(errors="replace").strip().splitlines()
                raise Missing(f"dockerd does not start: {lines[-1][:200] if lines else 'no word'}")
            time.sleep(0.1)
            self.pid = self.pid or self._inner()

    def _inner(self) -> int:
        """The first process of the namespaces, as this machine numbers it, as soon as it is docker-init; before, 0."""
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        with contextlib.suppress(OSError, IndexError):
            return int(children[0]) if Path(f"/proc/{children[0]}/comm").read_text() == "docker-init\n" else 0
        return 0

    def enter(self, command: Sequence[str], *, root: bool = True) -> list[str]:
        """A command line that runs ``command`` beside the daemon; without ``root``: this machine's program, in its network alone."""
        spaces = ["--mount", "--pid", "--root", "--wd"] if root else []
        return ["nsenter", "--target", str(self.pid), "--net", *spaces, "--", *command]

    def __call__(
        self, *arguments: str, check: bool = True, env: dict[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """A client's command; ``env`` is added to its environment. :raises CalledProcessError: it failed, with ``check``."""
        known = {"HOME": "/tmp", "DOCKER_HOST": "unix:///run/docker.sock", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1", **(env or {})}
        command = ["env", *(f"{name}={value}" for name, value in known.items()), "docker", *arguments]
        return subprocess.run(
            self.enter(command), text=True, check=check, stdin=subprocess.DEVNULL, capture_output=True, errors="replace", timeout=timeout
        )

    def buildah(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The other builder of that root: it knows flags that this BuildKit keeps for its experimental frontend."""
        store = ["--root", f"{SHARED}/buildah", "--runroot", "/run/buildah", "--storage-driver", "vfs"]
        command = ["env", "HOME=/tmp", f"TMPDIR={SHARED}", "buildah", *store, *arguments]
        return subprocess.run(self.enter(command), text=True, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)

    def inside(self, path: Path) -> str:
        """How the daemon calls what lies in the shared folder."""
        return f"{SHARED}/{path.relative_to(self.folder)}"

    def layers(self, image: str) -> list[str]:
        """The image's layers as overlay folders on this machine, lowest first."""
        data = json.loads(self("image", "inspect", image).stdout)[0]["GraphDriver"]["Data"]
        found = [data["UpperDir"], *filter(None, data.get("LowerDir", "").split(":"))] if data else []
        return [str(self.folder / path.removeprefix(f"{SHARED}/")) for path in reversed(found)]

    def config(self, image: str) -> dict[str, Any]:
        """The image's config as it is stored: ``inspect`` leaves out the history."""
        ident = self("image", "inspect", "--format", "{{.Id}}", image).stdout.strip().removeprefix("sha256:")
        found: dict[str, Any] = json.loads((self.folder / "data/image/overlay2/imagedb/content/sha256" / ident).read_text())
        return found

    def close(self) -> None:
        """End it; mounts, network and processes go with its namespaces, cgroups by hand."""
        if self._outer.poll() is None and self.pid:
            os.kill(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._outer.wait(20)
        if self._outer.poll() is None:
            self._outer.kill()  # --kill-child: its child dies with it
        self._outer.wait()
        for top in ("/sys/fs/cgroup", *(str(path) for path in Path("/sys/fs/cgroup").glob("*") if path.is_dir())):
            for folder, _, _ in os.walk(f"{top}/{self.group}", topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
