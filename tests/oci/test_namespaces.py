"""Namespaces: new ones, those of others by their path, and the host's."""

from __future__ import annotations

import os
from typing import Any

import pytest

pytestmark = pytest.mark.root
NAMES = [name for name in ("user", "pid", "net", "ipc", "uts", "mnt", "cgroup", "time") if os.path.exists(f"/proc/self/ns/{name}")]
LINKS = f"for n in {' '.join(NAMES)}; do readlink /proc/self/ns/$n; done"
MAP = [{"containerID": 0, "hostID": 200000, "size": 1000}, {"containerID": 1000, "hostID": 300000, "size": 64}]


def links(text: str) -> dict[str, str]:
    return {line.partition(":")[0]: line for line in text.split() if ":[" in line}


def of(pid: int) -> dict[str, str]:
    return links("\n".join(os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMES))


def only(*kinds: Any) -> list[dict[str, str]]:
    return [kind if isinstance(kind, dict) else {"type": kind} for kind in kinds]


def test_new_where_listed_and_the_hosts_where_not(oci: Any) -> None:
    ours = of(os.getpid())
    found = links(oci.run(LINKS).out)
    assert {kind for kind in found if found[kind] != ours[kind]} == {"pid", "net", "ipc", "uts", "mnt"}
    found = links(oci.run(LINKS, lambda spec: (spec["linux"].update(namespaces=only("mount")), spec.pop("hostname"))).out)
    assert {kind for kind in found if found[kind] != ours[kind]} == {"mnt"}


def test_cgroup_and_time(oci: Any) -> None:
    if "time" not in NAMES:
        pytest.skip("this kernel has no time namespaces (CONFIG_TIME_NS)")

    def change(spec: dict[str, Any]) -> None:
        spec["linux"]["namespaces"] += only("cgroup", "time")
        spec["linux"]["timeOffsets"] = {"boottime": {"secs": 1000000}, "monotonic": {"secs": 5, "nanosecs": 7}}

    ran = oci.run(f"{LINKS}; cut -d. -f1 /proc/uptime; cat /proc/self/cgroup; cat /proc/self/timens_offsets", change)
    ours, found = of(os.getpid()), links(ran.out)
    assert found["cgroup"] != ours["cgroup"] and found["time"] != ours["time"]
    lines = ran.out.splitlines()[8:]
    assert int(lines[0]) > 1000000, ran
    assert all(line.endswith(":/") for line in lines[1:] if line[0].isdigit() and line.count(":") == 2), ran
    assert ["monotonic", "5", "7"] in [line.split() for line in lines]


@pytest.fixture
def other(oci: Any) -> int:
    return int(oci.state(oci.running())["pid"])


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts"])
def test_joined_by_path(oci: Any, other: int, kind: str) -> None:
    name = {"network": "net"}.get(kind, kind)

    def change(spec: dict[str, Any]) -> None:
        kinds = [{"type": kind, "path": f"/proc/{other}/ns/{name}"}, *(k for k in ("pid", "network", "ipc", "uts", "mount") if k != kind)]
        spec["linux"]["namespaces"] = only(*kinds)
        if kind == "uts":
            del spec["hostname"]

    found, theirs = links(oci.run(LINKS, change).out), of(other)
    assert [key for key in found if found[key] == theirs[key] and key not in ("user", "cgroup", "time")] == [name]


def test_user_namespace(oci: Any) -> None:
    """With two ranges; what is not mapped is an error that says so."""

    def change(spec: dict[str, Any]) -> None:
        spec["linux"]["namespaces"] += only("user")
        spec["linux"].update(uidMappings=MAP, gidMappings=MAP)

    bundle_user = {"uid": 1001, "gid": 5}
    ran = oci.run("cat /proc/self/uid_map; id -u; touch /tmp/by && stat -c %u /tmp/by; rm /tmp/by; head -c1 /dev/zero | wc -c", change)
    assert ran.out.split() == ["0", "200000", "1000", "1000", "300000", "64", "0", "0", "1"], ran
    ran = oci.run("id -u", lambda spec: (change(spec), spec["process"].update(user=bundle_user)))
    assert ran.out == "1001\n"
    ran = oci.run("true", lambda spec: (change(spec), spec["process"].update(user={"uid": 5000, "gid": 0})))
    assert ran.code == 1 and "5000:0 is not mapped" in ran.err


def test_user_namespace_shared(oci: Any) -> None:
    """Who joins namespaces that a user namespace owns joins that one too; then even sysfs and proc can be mounted."""

    def first(spec: dict[str, Any]) -> None:
        spec["linux"]["namespaces"] += only("user")
        spec["linux"].update(uidMappings=MAP, gidMappings=MAP)

    pid = oci.state(oci.running("sleep 1000", first))["pid"]

    def second(spec: dict[str, Any]) -> None:
        kinds = [{"type": kind, "path": f"/proc/{pid}/ns/{name}"} for kind, name in (("user", "user"), ("pid", "pid"), ("network", "net"))]
        spec["linux"]["namespaces"] = only(*kinds, "mount", "ipc", "uts")

    ran = oci.run(f"{LINKS}; id -u; ps | grep -c 'sleep 1000'; ls /sys/class/net", second)
    found, theirs = links(ran.out), of(pid)
    assert {kind for kind in found if found[kind] == theirs[kind]} >= {"user", "pid", "net"}, ran
    assert found["mnt"] != theirs["mnt"] and ran.out.split()[-1] == "lo"
    assert int(ran.out.split()[-2]) >= 1, "the processes of the other are seen"


def test_own_user_namespace_with_the_hosts_network(oci: Any) -> None:
    """A sysfs needs the owner of the network namespace: the host's is bound (EPERM otherwise); proc and mqueue likewise."""

    def change(spec: dict[str, Any]) -> None:
        spec["linux"]["namespaces"] = only("user", "mount", "uts")
        spec["linux"].update(uidMappings=MAP, gidMappings=MAP, maskedPaths=[], readonlyPaths=[])
        spec["mounts"].append({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"})

    ran = oci.run("ls /sys/class/net; ls /proc/1/status", change)
    if os.path.ismount("/dev/mqueue"):
        assert ran.out.split() == [*sorted(os.listdir("/sys/class/net")), "/proc/1/status"], ran


@pytest.mark.parametrize(
    ("namespaces", "message"),
    [
        (only("mount", {"type": "network", "path": "/not/there"}), "network /not/there: No such file"),
        (only("mount", {"type": "network", "path": "/proc/self/ns/uts"}), "is no network namespace"),
        (only("mount", "mount"), "mount is there twice"),
        (only("mount", "galaxy"), "'galaxy' does not exist"),
        (only("pid"), "mount is not listed"),
        (only("mount", "user"), "uidMappings"),
    ],
)
def test_errors_name_the_namespace(oci: Any, namespaces: Any, message: str) -> None:
    ran = oci.run("true", lambda spec: (spec.pop("hostname"), spec["linux"].update(namespaces=namespaces)))
    assert ran.code == 1 and message in ran.err, ran


def test_mount_namespace_by_path(oci: Any, tmp_path: Any) -> None:
    """A namespace that somebody keeps: the container is in it, behind a root of its own; nobody else's root changes."""
    import subprocess

    keeper = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "1000"])
    try:
        while os.readlink(f"/proc/{keeper.pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt"):
            pass
        path = f"/proc/{keeper.pid}/ns/mnt"
        kinds = only("pid", "network", "ipc", "uts", {"type": "mount", "path": path})
        ran = oci.run(f"{LINKS}; ls /", lambda spec: spec["linux"].update(namespaces=kinds))
        assert links(ran.out)["mnt"] == os.readlink(path), ran
        assert "bin" in ran.out.split() and "boot" not in ran.out.split()
        assert os.path.exists(f"/proc/{keeper.pid}/root/proc/self/stat"), "its own root is as it was"
    finally:
        keeper.kill()
        keeper.wait()


def test_a_name_for_the_host_is_refused(oci: Any) -> None:
    ran = oci.run("true", lambda spec: spec["linux"].update(namespaces=only("mount")))
    assert ran.code == 1 and "hostname 'box'" in ran.err
