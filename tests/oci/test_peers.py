"""The same bundles run by runc, by crun and by ours: what the program sees, and what the caller gets."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.oci.conftest import Runtime

pytestmark = pytest.mark.root


def ids(spec: dict[str, Any]) -> None:
    spec["process"]["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [5, 6]}


def all_capabilities(spec: dict[str, Any]) -> None:
    names = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_CHROOT"]
    spec["process"]["capabilities"] = dict.fromkeys(("bounding", "permitted", "effective"), names)


def limits(spec: dict[str, Any]) -> None:
    spec["process"]["rlimits"] = [{"type": f"RLIMIT_{name}", "soft": 100, "hard": 120} for name in ("NOFILE", "NPROC", "MEMLOCK")]


def read_only(spec: dict[str, Any]) -> None:
    spec["root"]["readonly"] = True


def volumes(spec: dict[str, Any]) -> None:
    spec["mounts"] += [
        {"destination": "/mnt/a", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "size=1m", "mode=700"]},
        {"destination": "/etc/b", "type": "bind", "source": "/etc/hostname", "options": ["bind", "ro", "nodev"]},
        {"destination": "/mnt/c", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "noatime"]},
    ]


def groups(spec: dict[str, Any]) -> None:
    spec["mounts"].append(
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]}
    )
    spec["linux"]["namespaces"].append({"type": "cgroup"})
    spec["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 33}, "cpu": {"shares": 512}}


def mapped(spec: dict[str, Any]) -> None:
    spec["linux"]["namespaces"].append({"type": "user"})
    spec["linux"]["uidMappings"] = spec["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def filtered(spec: dict[str, Any]) -> None:
    calls = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]
    spec["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": calls}


def sysctls(spec: dict[str, Any]) -> None:
    spec["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "9000"}


def elsewhere(spec: dict[str, Any]) -> None:
    spec["process"].update(cwd="/var", env=["PATH=/bin", "HOME=/there", "A=1"])
    spec["hostname"] = "another"


LOOKS = {
    "ids": "id -u; id -g; id -G; umask",
    "rights": "grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status",
    "limits": "grep -E 'files|processes|locked' /proc/self/limits",
    "place": "pwd; hostname; env | grep -v SHLVL | sort; readlink /proc/self/exe",
    "descriptors": "ls /proc/self/fd",
    "hidden": "cat /proc/keys; ls /sys/firmware; stat -c '%F %t:%T' /proc/kcore; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax",
    "refused": "mkdir /tmp/x; touch /x; rm -rf /tmp/x /x; echo 1 >/proc/sys/kernel/msgmax; cat /proc/self/oom_score_adj",
    "devices": "cd /dev; for f in *; do stat -c '%n %F %t:%T' $f; done; cat </dev/null; head -c3 /dev/zero | wc -c; ls /dev/pts",
    "mounts": "cat /proc/self/mountinfo",
    "network": "ls /sys/class/net; cat /proc/net/dev | grep -c lo; ip link show lo | grep -c UP",
    "ending": "exit 42",
}
CHANGES = [None, ids, all_capabilities, limits, read_only, volumes, groups, mapped, filtered, sysctls, elsewhere]


def mounts(text: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Place -> (type, options of the mount), of those that both have; bound device nodes are not mounts elsewhere."""
    found = {}
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        place, options, kind = fields.split()[4], fields.split()[5], rest.split()[0]
        if not place.startswith(("/dev/", "/sys/fs/cgroup/")) or place in ("/dev/pts", "/dev/shm"):
            found[place] = (kind, frozenset(options.split(",")))
    return found


@pytest.fixture(params=["runc", "crun"])
def other(request: Any, place: Path, rootfs: Path) -> Iterator[Runtime]:
    path = shutil.which(request.param)
    if not path or os.geteuid():
        pytest.skip(f"{request.param} is not installed")
    if request.param == "crun":
        # crun 1.8 refuses hybrid cgroups: a mount namespace without the unified tree
        alone = place / "crun"
        alone.write_text(f"#!/bin/sh\nexec unshare -m sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; exec {path} \"$@\"' crun \"$@\"\n")
        alone.chmod(0o755)
        path = str(alone)
    runtime = Runtime(path, Path(tempfile.mkdtemp(prefix="p", dir=place)), rootfs)
    yield runtime
    runtime.clean()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__ if change else "plain")
def test_the_program_sees_the_same(oci: Runtime, other: Runtime, change: Any) -> None:
    if change is mapped:
        os.chmod(oci.rootfs, stat.S_IRWXU | 0o55)
    script = "; ".join(f"echo '== {name}'; ({look}) 2>&1" for name, look in LOOKS.items() if name != "ending") + "; exit 42"
    ours, theirs = oci.run(script, change), other.run(script, change)
    if theirs.code != 42:
        pytest.skip(f"{os.path.basename(other.path)} does not run this here: {theirs.err.strip()[-200:]}")
    assert ours.code == 42, ours
    mine, reference = (dict(part.split("\n", 1) for part in ran.out.split("== ")[1:]) for ran in (ours, theirs))
    for name in mine:
        one, two = mine[name], reference[name]
        if name == "mounts":
            left, right = mounts(one), mounts(two)
            if "crun" in other.path:
                # crun hides files behind a mount of its own kind; the attributes of /proc below are the same
                left, right = ({key: found[key] for key in left.keys() & right.keys()} for found in (left, right))
            differing = {key: (left.get(key), right.get(key)) for key in left.keys() | right.keys() if left.get(key) != right.get(key)}
            differing = {key: pair for key, pair in differing.items() if not _explained(key, pair)}
            assert not differing, differing
        elif name == "limits" and change is not limits:
            continue  # what is not asked for is the caller's own, which a program in Go raises for itself
        elif name == "devices":
            assert _nodes(one) == _nodes(two)
        else:
            assert _plain(one) == _plain(two), (name, one, two)


def _explained(place: str, pair: tuple[Any, Any]) -> bool:
    """Where ours is stricter, or another mount does the same: what hides a file is /dev/null, writable or not."""
    ours, theirs = pair
    if place in ("/proc/keys", "/proc/kcore") and ours and theirs:
        return True
    if ours and theirs and place.startswith(("/proc", "/sys")):
        return {option for option in theirs[1] if option in ("ro", "nosuid", "nodev", "noexec")} <= set(ours[1]) | {"nodev", "noexec", "rw"}
    return False


def _nodes(text: str) -> list[str]:
    return sorted(line for line in text.splitlines() if not line.startswith(("console", "core ")))


def _plain(text: str) -> str:
    return re.sub(r"(crun|runc)[-/]\S+", "", text)


@pytest.mark.parametrize("words", [["nosuch"], ["/etc/passwd"], ["/not/there"]])
def test_a_program_that_cannot_be_executed(oci: Runtime, other: Runtime, words: list[str]) -> None:
    """At create, with a message in which engines find the same words."""

    def change(spec: dict[str, Any]) -> None:
        spec["process"]["args"] = words

    ours, theirs = oci.create("c", oci.bundle(change)), other.create("c", other.bundle(change))
    assert ours.code == theirs.code == 1
    known = ("permission denied", "executable file not found", "no such file or directory")
    assert next(word for word in known if word in theirs.err.lower()) in ours.err.lower(), (ours, theirs)


def test_the_same_states_and_codes(oci: Runtime, other: Runtime) -> None:
    def life(runtime: Runtime) -> list[Any]:
        seen: list[Any] = [runtime.create("c", runtime.bundle(None, "sleep 1000")).code]
        seen.append(sorted(set(runtime.state("c")) - {"annotations", "systemd-scope", "owner"}))
        for words in (
            ["delete", "x"],
            ["start", "c"],
            ["start", "c"],
            ["delete", "c"],
            ["exec", "c", "sh", "-c", "exit 5"],
            ["kill", "c", "KILL"],
        ):
            seen.append((words, runtime(*words).code))
            seen.append(runtime.state("c")["status"] if words[0] != "kill" else "")
        while runtime.state("c")["status"] != "stopped":
            pass
        seen += [runtime("kill", "c").code, runtime("start", "c").code, runtime("delete", "c").code, runtime("delete", "-f", "c").code]
        return seen

    ours, theirs = life(oci), life(other)
    assert ours == theirs


def test_hooks_in_the_same_order(oci: Runtime, peer: Runtime, tmp_path: Path) -> None:
    from tests.oci.test_hooks import every, read

    """All but poststart, which runc 1.1 runs before the program is started."""
    seen = []
    for runtime in (oci, peer):
        log = tmp_path / os.path.basename(runtime.path)
        log.mkdir()
        assert runtime.run("true", every(log / "log")).code == 0
        seen.append([(word, told["id"] == f"c{runtime.count}", sorted(told)) for word, _, _, told in read(log / "log")])
        seen[-1] = [row for row in seen[-1] if not row[0].startswith("poststart")]
    assert [row[0] for row in seen[0]] == [row[0] for row in seen[1]]
    assert seen[0] == seen[1]


def test_features_have_the_same_form(oci: Runtime, peer: Runtime) -> None:
    ours, theirs = (json.loads(runtime("features").out) for runtime in (oci, peer))
    assert set(theirs) <= set(ours) and set(theirs["linux"]) <= set(ours["linux"])
    assert set(theirs["hooks"]) == set(ours["hooks"]) and set(theirs["mountOptions"]) <= set(ours["mountOptions"])
    assert set(theirs["linux"]["namespaces"]) <= set(ours["linux"]["namespaces"])
    assert set(theirs["linux"]["seccomp"]["actions"]) <= set(ours["linux"]["seccomp"]["actions"]) | {"SCMP_ACT_NOTIFY"}
