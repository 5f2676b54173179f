"""Other runtimes on this machine, each as a command line that does the whole job with its defaults on the same small root."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ECHO = ("/bin/echo", "x")
TOOLS = ("/bin/sh", "/bin/echo", "/bin/true", "/bin/sleep", "/bin/cat")
_UNIFIED = "/sys/fs/cgroup/unified"


class Peer:
    """``run`` is a command line that runs ``/bin/echo x`` and leaves nothing; ``refusal`` says why it takes no part, "" when it does."""

    def __init__(self, name: str, run: Sequence[str], refusal: str = "") -> None:
        self.name, self.run, self.refusal = name, list(run), refusal

    def once(self) -> None:
        done = subprocess.run(self.run, capture_output=True, text=True, check=True)
        assert done.stdout == "x\n"


@contextlib.contextmanager
def without_v2() -> Iterator[None]:
    """crun and podman 4 refuse a hybrid machine's cgroups; without the v2 tree in their mount namespace they work.

    The calling thread enters such a namespace, so that a peer's own command is all that its wall time holds.
    """
    if not os.path.isdir(_UNIFIED):
        yield
        return
    from pycontainers.linux import mounts, namespaces

    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    here = os.getcwd()
    namespaces.unshare(namespaces.CLONE_NEWNS)
    try:
        mounts.mount("", "/", "", mounts.MS_REC | mounts.MS_SLAVE)
        mounts.umount(_UNIFIED)
        yield
    finally:
        namespaces.setns(home, namespaces.CLONE_NEWNS)
        os.close(home)
        os.chdir(here)


def small_root(folder: Path) -> Path:
    """A root file system with a shell and little else, copied from this machine with the libraries it needs."""
    root = folder / "rootfs"
    for name in ("proc", "sys", "dev", "tmp", "etc", "bin", "run", "var", "usr/bin"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for tool in TOOLS:
        shutil.copy(os.path.realpath(tool), root / tool.lstrip("/"))
        listed = subprocess.run(["ldd", os.path.realpath(tool)], capture_output=True, text=True, check=False).stdout
        for word in listed.split():
            if word.startswith("/"):
                place = root / word.lstrip("/")
                place.parent.mkdir(parents=True, exist_ok=True)
                if not place.exists():
                    shutil.copy(os.path.realpath(word), place)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    return root


def bundle(folder: Path, root: Path, args: Sequence[str], runtime: str) -> Path:
    """An OCI bundle from the runtime's own ``spec`` command, its defaults as they are but for the terminal and the command."""
    place = folder / f"bundle-{runtime}"
    place.mkdir()
    subprocess.run([runtime, "spec"], cwd=place, check=True)
    spec = json.loads((place / "config.json").read_text())
    spec["process"].update(args=list(args), terminal=False)
    spec["process"].pop("rlimits", None)
    spec["root"] = {"path": str(root), "readonly": True}
    (place / "config.json").write_text(json.dumps(spec))
    return place


def tried(command: Sequence[str]) -> str:
    """ "" when the command works, else the last line it printed."""
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no word"])[-1][:120]


def loaded(root: Path, command: Sequence[str]) -> str:
    """Give ``root`` as a tar to a command; "" or why it failed."""
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
        done = subprocess.run(list(command), stdin=tar.stdout, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no word"])[-1][:150]


def all_peers(folder: Path, root: Path, docker: Any) -> list[Peer]:
    found = [_bwrap(root), *_oci(folder, root), _podman(folder, root)]
    if docker is not None:
        found.append(_checked("docker run --rm", [*docker.client, "run", "--rm", docker.image, *ECHO], docker.refusal))
    return found


def _checked(name: str, run: Sequence[str], refusal: str = "") -> Peer:
    return Peer(name, run, refusal or tried(run))


def _bwrap(root: Path) -> Peer:
    name = "bwrap --unshare-all"
    if not shutil.which("bwrap"):
        return Peer(name, [], "bwrap is not installed")
    return _checked(name, ["bwrap", "--unshare-all", "--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", *ECHO])


def _oci(folder: Path, root: Path) -> list[Peer]:
    found = []
    for name in ("crun", "runc"):
        if not shutil.which(name):
            found.append(Peer(f"{name} run", [], f"{name} is not installed"))
            continue
        place = bundle(folder, root, ECHO, name)
        options = ["--cgroup-manager=cgroupfs"] if name == "crun" else []
        found.append(_checked(f"{name} run", [name, *options, "--root", f"{folder}/{name}", "run", "--bundle", str(place), "pyct-bench"]))
    return found


def _podman(folder: Path, root: Path) -> Peer:
    name = "podman run --rm --network none"
    if not shutil.which("podman"):
        return Peer(name, [], "podman is not installed")
    base = ["podman", "--root", f"{folder}/podman", "--runroot", f"{folder}/podman-run", "--tmpdir", f"{folder}/podman-tmp"]
    base += ["--cgroup-manager=cgroupfs", "--events-backend=none", "--storage-driver=overlay"]
    limits = ["--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000"]  # its defaults exceed this machine's hard limits
    why = loaded(root, [*base, "import", "-q", "-", "bench"])
    return _checked(name, [*base, "run", "--rm", *limits, "--network", "none", "bench", *ECHO], why)
