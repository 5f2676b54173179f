"""Other runtimes on this machine, each as a command line that does the whole job with its defaults on the same small root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

TOOLS = ("/bin/sh", "/bin/echo", "/bin/true", "/bin/sleep", "/bin/cat")
#: crun and podman 4 refuse a hybrid machine's cgroups; without the v2 tree in their mount namespace they work.
HIDE_V2 = "[ -d /sys/fs/cgroup/unified ] && umount /sys/fs/cgroup/unified; exec "


class Peer:
    """``run(args)`` and ``exec(args)`` give command lines; ``refusal`` says why it takes no part, "" when it does."""

    def __init__(
        self,
        name: str,
        run: Sequence[str],
        refusal: str = "",
        prepare: Sequence[str] = (),
        enter: Sequence[str] = (),
        end: Sequence[str] = (),
    ):
        self.name, self.run, self.refusal = name, list(run), refusal
        self.prepare, self.enter, self.end = list(prepare), list(enter), list(end)


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


def bundle(folder: Path, root: Path, args: Sequence[str], network: bool = True) -> Path:
    """An OCI bundle for crun and runc, from their own ``spec`` command, without a terminal."""
    place = folder / f"bundle-{len(list(folder.iterdir()))}"
    place.mkdir()
    subprocess.run([shutil.which("crun") or shutil.which("runc") or "runc", "spec"], cwd=place, check=True)
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


def all_peers(folder: Path, root: Path) -> list[Peer]:
    return [_bwrap(root), *_oci(folder, root), _podman(folder, root), _docker(root)]


def _checked(name: str, program: str, run: Sequence[str], **more: Sequence[str]) -> Peer:
    if not shutil.which(program):
        return Peer(name, run, f"{program} is not installed")
    return Peer(name, run, tried([*run, "/bin/true"]), **more)


def _bwrap(root: Path) -> Peer:
    command = ["bwrap", "--unshare-all", "--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev"]
    return _checked("bwrap --unshare-all", "bwrap", command)


def _oci(folder: Path, root: Path) -> list[Peer]:
    found = []
    for name in ("crun", "runc"):
        if not shutil.which(name):
            found.append(Peer(f"{name} run", [], f"{name} is not installed"))
            continue
        place = bundle(folder, root, ["/bin/echo", "x"])
        options = "--cgroup-manager=cgroupfs" if name == "crun" else ""
        script = f"{HIDE_V2} {name} {options} --root {folder}/{name} run --bundle {place} bench-$$"
        run = ["unshare", "-m", "sh", "-c", script]
        found.append(Peer(f"{name} run", run, tried(run)))
    return found


def _podman(folder: Path, root: Path) -> Peer:
    if not shutil.which("podman"):
        return Peer("podman run --rm", [], "podman is not installed")
    base = (
        f"podman --root {folder}/podman --runroot {folder}/podman-run --cgroup-manager=cgroupfs --events-backend=none "
        f"--storage-driver=overlay --tmpdir {folder}/podman-tmp"
    )
    import_it = f"tar -C {root} -c . | {base} import -q - bench"
    why = tried(["unshare", "-m", "sh", "-c", HIDE_V2.replace("exec ", "") + import_it])
    options = "--ulimit nofile=1000:1000 --ulimit nproc=1000:1000"
    run = ["unshare", "-m", "sh", "-c", f'{HIDE_V2} {base} run --rm {options} --network none bench "$@"', "sh"]
    return Peer("podman run --rm --network none", run, why or tried([*run, "/bin/true"]))


def _docker(root: Path) -> Peer:
    why = tried(["docker", "info"])
    if not why:
        why = tried(["sh", "-c", f"tar -C {root} -c . | docker import - pycontainers-bench"])
    return Peer(
        "docker run --rm",
        ["docker", "run", "--rm", "pycontainers-bench"],
        why and f"no engine answers: {why}",
        end=["docker", "rmi", "pycontainers-bench"],
    )
