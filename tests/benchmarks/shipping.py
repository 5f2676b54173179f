"""A real Debian image of some 300 MB moved in and out: load, push, save, pull, beside docker and podman, at equal durability.

What must be on the disk is synced on both sides: our store does that itself, the peers' data folder is synced within their time, and so
is every saved file. Nobody keeps anything from the round before: the image is removed, and each push goes to a registry that has nothing
yet.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .house import House
from .peers import without_v2
from .report import timed

#: Packages beside Debian's smallest system that make it some 300 MB in some 20,000 files.
PACKAGES = ("python3", "git", "vim", "openssh-client")
FASTER = 1 / 1.5  # of the best peer's time
ROUNDS = 3
IMAGE = "shipped"


class Side:
    """One of those who are compared. ``name`` may be asked for with a registry's address before it."""

    name = ""

    def load(self, path: Path) -> None: ...

    def push(self, registry: str) -> None: ...

    def save(self, path: Path) -> None: ...

    def pull(self, name: str) -> None: ...

    def remove(self) -> None: ...


class Ours(Side):
    name = "ours"

    def __init__(self, house: House) -> None:
        self.kernel = house.kernel

    def load(self, path: Path) -> None:
        self.kernel(f"pc.load({str(path)!r}) and None")

    def push(self, registry: str) -> None:
        self.kernel(f"cell.engine().tag({IMAGE!r}, {f'{registry}/{IMAGE}:1'!r})")
        self.kernel(f"pc.push({f'{registry}/{IMAGE}:1'!r})")

    def save(self, path: Path) -> None:
        self.kernel(f"pc.save({IMAGE!r}, {str(path)!r})")
        subprocess.run(["sync", str(path)], check=True)

    def pull(self, name: str) -> None:
        self.kernel(f"pc.pull({name!r}) and None")

    def remove(self) -> None:
        self.kernel("cell.remove_images()")


class Peer(Side):
    """``run``: its command; ``data``: the folder that is synced after what changes it."""

    def __init__(self, name: str, run: list[str], data: Path, pushing: list[str]) -> None:
        self.name, self._run, self._data, self._pushing = name, run, data, pushing

    def _do(self, *words: str, sync: Path | None = None) -> None:
        subprocess.run([*self._run, *words], check=True, capture_output=True)
        if sync is not None:
            subprocess.run(["sync", "-f", str(sync)] if sync.is_dir() else ["sync", str(sync)], check=True)

    def load(self, path: Path) -> None:
        self._do("load", "-i", str(path), sync=self._data)

    def push(self, registry: str) -> None:
        self._do("tag", IMAGE, f"{registry}/{IMAGE}:1")
        self._do("push", *self._pushing, f"{registry}/{IMAGE}:1")

    def save(self, path: Path) -> None:
        self._do("save", "-o", str(path), IMAGE, sync=path)

    def pull(self, name: str) -> None:
        self._do("pull", *self._pushing, name, sync=self._data)

    def remove(self) -> None:
        ids = subprocess.run([*self._run, "images", "-q", "--no-trunc"], check=True, capture_output=True, text=True).stdout.split()
        for each in dict.fromkeys(ids):
            subprocess.run([*self._run, "rmi", "-f", each], check=False, capture_output=True)


def shipping(house: House) -> None:
    """Rounds of load, push, save and pull; the ratio to the best peer, the size of what is pushed, the memory of our kernel."""
    report = house.report
    if missing := [tool for tool in ("docker-registry", "skopeo", "mmdebstrap") if not shutil.which(tool)]:
        report.note(f"not here: {', '.join(missing)}")
        return
    folder = house.state.folder / "shipping"
    folder.mkdir()
    archive = _image(house, folder)
    report.heading(f"shipping a Debian of {archive.stat().st_size / 1e6:.0f} MB, medians of {ROUNDS} rounds, everything synced")
    with without_v2():
        sides = _sides(house, folder)
        found: dict[tuple[str, str], list[float]] = {}
        sizes: dict[str, int] = {}
        peak = 0
        for number in range(ROUNDS):
            for side in sides if number % 2 else reversed(sides):
                space = house.docker.space if side.name == "docker" else ""
                with registry(folder / f"registry-{side.name}-{number}", space) as there:
                    side.remove()
                    saved = folder / f"{side.name}.tar"
                    saved.unlink(missing_ok=True)
                    steps: list[tuple[str, Callable[[], Any]]] = [
                        ("load and unpack", lambda side=side: side.load(archive)),
                        ("push", lambda side=side, there=there: side.push(there)),
                        ("save", lambda side=side, saved=saved: side.save(saved)),
                    ]
                    for step, call in steps:
                        found.setdefault((step, side.name), []).append(timed(call))
                    sizes[side.name] = _bytes(folder / f"registry-{side.name}-{number}" / "data")
                    side.remove()
                    found.setdefault(("pull", side.name), []).append(timed(lambda side=side, there=there: side.pull(f"{there}/{IMAGE}:1")))
                    side.remove()
            peak = max(peak, _peak(house.kernel.pid))
    peers = [side.name for side in sides if side.name != "ours"]
    for step in ("load and unpack", "pull", "push", "save"):
        for side in sides:
            report.times(f"{step}, {side.name}", found[step, side.name])
        if peers:
            best = min(peers, key=lambda name, step=step: sorted(found[step, name])[ROUNDS // 2])
            report.ratio(f"{step}: ours / {best}", found[step, "ours"], found[step, best], FASTER)
    if peers:
        smallest = min(sizes[name] for name in peers)
        report.figure("pushed bytes: ours / the smallest peer's", sizes["ours"] / smallest, "x", 1.1)
    report.figure("most memory of our notebook's kernel (VmHWM)", peak / 1e6, "MB")


def _sides(house: House, folder: Path) -> list[Side]:
    sides: list[Side] = [Ours(house)]
    if not house.docker.refusal:
        sides.append(Peer("docker", house.docker.client, house.docker.folder / "data", []))
    if shutil.which("podman"):
        base = ["podman", "--root", f"{folder}/podman", "--runroot", f"{folder}/podman-run", "--tmpdir", f"{folder}/podman-tmp"]
        base += ["--cgroup-manager=cgroupfs", "--events-backend=none", "--storage-driver=overlay"]
        sides.append(Peer("podman", base, folder / "podman", ["--tls-verify=false"]))
    return sides


def _image(house: House, folder: Path) -> Path:
    """The image as a docker-archive that all of them load, written by skopeo."""
    layout, archive = folder / "layout", folder / "image.tar"
    house.kernel(f"pc.bootstrap('debian:bookworm', {IMAGE!r}, include={PACKAGES!r}) and None")
    house.kernel(f"pc.save({IMAGE!r}, {str(layout)!r}, format='oci-dir')")
    subprocess.run(["skopeo", "copy", "-q", f"oci:{layout}", f"docker-archive:{archive}:{IMAGE}:latest"], check=True)
    shutil.rmtree(layout)
    return archive


@contextlib.contextmanager
def registry(folder: Path, space: str = "") -> Iterator[str]:
    """An empty docker-registry on loopback, in the network namespace ``space`` where one is named: its address."""
    folder.mkdir()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    address = f"127.0.0.1:{port}"
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '{address}'}}\n"
    )
    enter = ["nsenter", f"--net=/run/netns/{space}"] if space else []
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([*enter, "docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        for _ in range(500):
            if subprocess.run([*enter, "python3", "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}))"],
                              capture_output=True, check=False).returncode == 0:  # fmt: skip
                break
            time.sleep(0.02)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def _bytes(folder: Path) -> int:
    """Of all blobs in a registry's folder."""
    return sum(os.path.getsize(os.path.join(place, name)) for place, _, names in os.walk(folder) for name in names if name == "data")


def _peak(pid: int) -> int:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) * 1024


