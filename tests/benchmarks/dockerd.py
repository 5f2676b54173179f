"""A Docker engine of our own for measuring: in its own network namespace, with its own folders, ended by pid, nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from .peers import loaded

#: Debian's package puts the client here; another client of that name may come first on PATH and speak another API.
CLIENTS = ("/usr/bin/docker", shutil.which("docker") or "")
_START_SECONDS = 60


class Dockerd:
    """``client`` is the command line of a client that speaks to it; ``refusal`` says why there is none, "" when it runs.

    Its network namespace has no way out but bridge and iptables of its own, and its containers have cgroups under ``/pyct-bench-<pid>``.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder / "dockerd"
        self.space = f"pyct-bench-{os.getpid()}"
        self.client: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.refusal = self._start() or loaded(root, [*self.client, "import", "-", self.space])

    def _start(self) -> str:
        daemon = shutil.which("dockerd") or next((p for p in ("/usr/sbin/dockerd", "/usr/bin/dockerd") if os.path.exists(p)), "")
        client = next((path for path in CLIENTS if path and os.path.exists(path)), "")
        if not daemon or not client:
            return "dockerd is not installed (Debian: apt-get install docker.io)"
        if not all(shutil.which(tool) for tool in ("ip", "nsenter", "iptables")):
            return "ip, nsenter and iptables are needed to give dockerd a network namespace of its own"
        self.folder.mkdir()
        self.client = [client, "-H", f"unix://{self.folder}/socket"]
        subprocess.run(["ip", "netns", "add", self.space], check=True)
        subprocess.run(["ip", "-n", self.space, "link", "set", "lo", "up"], check=True)
        # nsenter, not `ip netns exec`: that one mounts a new /sys, and the cgroups are gone from it.
        command = ["nsenter", f"--net=/run/netns/{self.space}", daemon, "-H", f"unix://{self.folder}/socket"]
        command += ["--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec", "--pidfile", f"{self.folder}/pid"]
        command += ["--storage-driver", "overlay2", "--cgroup-parent", f"/{self.space}"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + _START_SECONDS
        while subprocess.run([*self.client, "version"], capture_output=True, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                lines = (self.folder / "log").read_text(errors="replace").strip().splitlines()
                return f"dockerd does not start: {lines[-1][:150] if lines else 'no word'}"
            time.sleep(0.1)
        return ""

    @property
    def image(self) -> str:
        return self.space

    def __call__(self, *arguments: str) -> str:
        """What a client command prints. :raises CalledProcessError: it failed."""
        return subprocess.run([*self.client, *arguments], capture_output=True, text=True, check=True).stdout.strip()

    def close(self) -> None:
        """End containers, daemon, and what they mounted; take the namespace and the cgroups away."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(subprocess.CalledProcessError):
                if ids := self("ps", "-aq").split():
                    self("rm", "-f", *ids)
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if os.path.exists(f"/run/netns/{self.space}"):
            subprocess.run(["ip", "netns", "del", self.space], check=False)
        unmount(self.folder)
        _remove_cgroups(self.space)


def unmount(folder: Path) -> None:
    """Unmount everything that lies in ``folder``, the last first."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        places = [line.split()[4] for line in file]
    for place in reversed(places):
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "-l", place], check=False)


def _remove_cgroups(name: str) -> None:
    for top in ("/sys/fs/cgroup", *(str(path) for path in Path("/sys/fs/cgroup").glob("*") if path.is_dir())):
        for folder, _, _ in os.walk(f"{top}/{name}", topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
