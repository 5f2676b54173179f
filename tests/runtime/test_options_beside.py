"""The same words given to Podman and to us on this machine, and what the kernel then says of the process."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.commands.declare import find, parse
from pycontainers.commands.run import config_of
from pycontainers.engines.native import NativeEngine
from pycontainers.protocol import ContainerConfig
from pycontainers.runtime import defaults

pytestmark = pytest.mark.root

#: crun refuses hybrid cgroups: without the v2 tree in its mount namespace it works
_WITHOUT_V2 = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
Beside = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def podman(busybox: str) -> Iterator[Callable[..., str]]:
    """Runs a command by Podman on a root file system that is a static busybox; what it printed."""
    if not shutil.which("podman"):
        pytest.skip("podman is not installed (Debian: apt-get install podman)")
    folder = Path(tempfile.mkdtemp(prefix="pm", dir="/var/tmp"))  # Podman's run folder may have 50 characters
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "run"):
        (folder / "root" / name).mkdir(parents=True)
    shutil.copy(busybox, folder / "root/bin/busybox")
    for tool in ("sh", "cat", "grep", "id", "hostname", "true", "tr"):
        os.symlink("busybox", folder / "root/bin" / tool)
    (folder / "root/etc/passwd").write_text("root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n")
    (folder / "root/etc/group").write_text("root:x:0:\nann:x:1000:\naudio:x:29:\n")
    base = ["unshare", "-m", "sh", "-c", _WITHOUT_V2, "sh", "podman"]
    base += [word for name in ("root", "runroot", "tmpdir") for word in (f"--{name}", f"{folder}/podman-{name}")]
    base += ["--cgroup-manager=cgroupfs", "--events-backend=none", "--storage-driver=vfs"]
    try:
        yield _checked(folder, base)
    finally:
        subprocess.run([*base, "rmi", "-af"], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _checked(folder: Path, base: list[str]) -> Callable[..., str]:
    with subprocess.Popen(["tar", "-C", f"{folder}/root", "-c", "."], stdout=subprocess.PIPE) as tar:
        made = subprocess.run([*base, "import", "-q", "-", "beside"], stdin=tar.stdout, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"podman does not work here: {made.stderr.strip().splitlines()[-1:]}")

    def run(*words: str) -> str:
        # Its own default ulimits may exceed this machine's hard ones.
        given = [] if any(word.startswith(("nofile=", "nproc=")) for word in words) else ["--ulimit", "nofile=1000:1000"]
        given += [] if any(word.startswith("nproc=") for word in words) else ["--ulimit", "nproc=1000:1000"]
        command = [*base, "run", "--rm", "--network", "none", *given, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    try:
        run("beside", "true")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"podman does not work here: {error.stderr.strip().splitlines()[-1:]}")
    return run


@pytest.fixture
def beside(engine: NativeEngine, podman: Callable[..., str]) -> Beside:
    """(what ours printed, what Podman's printed) for the same options and the same command."""

    def both(options: str, *command: str) -> tuple[str, str]:
        words = options.split()
        collected = bytearray()
        config = config_of(parse(find("create"), ["--rm", "--network", "none", *words, "host", *command]))
        engine.run(config, None, lambda stream, data: collected.extend(data))
        return collected.decode(), podman(*words, "beside", *command)

    return both


@pytest.mark.parametrize(
    "options",
    ["--cap-drop ALL --cap-add NET_ADMIN --cap-add cap_chown", "--cap-drop ALL", "--cap-add ALL --cap-drop SYS_TIME", "--privileged"],
)
def test_capabilities(beside: Beside, options: str) -> None:
    """Podman's stay within what bounds this machine's root; a user namespace is bounded by the kernel alone."""
    status = Path("/proc/self/status").read_text()
    bounding = int(status.split("CapBnd:")[1].split()[0], 16)
    ours, theirs = ([line.split() for line in text.splitlines()] for text in beside(options, *_CAPS))
    kept = [{name: int(value, 16) & bounding for name, value in lines if name != "CapInh:"} for lines in (ours, theirs)]
    assert kept[0] == kept[1] and len(kept[0]) == 4


_CAPS = ("grep", "Cap", "/proc/self/status")


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ("--ulimit nofile=100:200 --ulimit nproc=300:400 --ulimit core=0", "grep -E 'open files|processes|core' /proc/self/limits"),
        ("--sysctl net.ipv4.ip_default_ttl=77", "cat /proc/sys/net/ipv4/ip_default_ttl"),
        ("--oom-score-adj 77", "cat /proc/self/oom_score_adj"),
        ("--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status"),
        ("", "grep NoNewPrivs /proc/self/status"),
        ("--security-opt seccomp=unconfined", "grep Seccomp: /proc/self/status"),
        ("--hostname inside", "hostname; cat /etc/hostname"),
        ("-u 1000:29", "id -u; id -g"),
        ("-u 1000 --group-add 1234 --group-add audio", "id -G | tr ' ' '\\n' | grep -E '1234|29'"),
        ("-e A=1 -e B=", "echo $A-$B-${B-unset}"),
        ("-w /tmp", "pwd"),
        ("--shm-size 12m", "grep ' /dev/shm ' /proc/self/mountinfo | grep -o 'size=[0-9]*k'"),
    ],
)
def test_the_kernel_says_the_same(beside: Beside, options: str, command: str) -> None:
    ours, theirs = beside(options, "sh", "-c", command)
    assert ours.strip() == theirs.strip() != ""


def test_what_podman_hides_below_proc_is_hidden(beside: Beside) -> None:
    ours, theirs = ({line.split()[4] for line in text.splitlines()} for text in beside("", "cat", "/proc/self/mountinfo"))
    hidden = {place for place in theirs if place.startswith("/proc/")}
    assert hidden <= ours, hidden - ours
    assert {place for place in ours if place.startswith("/proc/")} - hidden <= {*defaults.MASKED_PATHS, *defaults.READONLY_PATHS}


def test_the_default_list_is_dockers_and_podmans_within_it(beside: Beside) -> None:
    ours, theirs = (int(text.split("CapBnd:")[1].split()[0], 16) for text in beside("", *_CAPS))
    assert theirs & ~ours == 0
    assert ContainerConfig("x").cap_add == ()


def test_a_bad_option_is_refused_by_both(engine: NativeEngine, podman: Callable[..., str], beside: Any) -> None:
    for options in ("--ulimit nonsense=1", "--cap-add NONSENSE", "--restart sometimes", "--oom-score-adj 5000", "--device /dev/nonesuch"):
        with pytest.raises(subprocess.CalledProcessError):
            podman(*options.split(), "beside", "true")
        with pytest.raises(Exception, match=options.split()[1].split("=")[0]):
            beside(options, "true")
