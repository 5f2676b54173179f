"""A container's group as its spec asks for it, on this machine's own kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.linux import cgroups
from pycontainers.linux.cgroups import pressure
from pycontainers.linux.cgroups.layout import Layout, Tree
from pycontainers.protocol import ContainerConfig, ExecConfig, Resources
from pycontainers.runtime import groups


@pytest.fixture
def spec() -> Iterator[dict[str, Any]]:
    path = f"/pycontainers-test-{os.getpid()}"
    yield {
        "mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro", "nosuid"]}],
        "linux": {
            "cgroupsPath": path,
            "namespaces": [{"type": "user"}, {"type": "cgroup"}],
            "uidMappings": [{"containerID": 0, "hostID": 70000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 70001, "size": 10}],
        },
    }
    cgroups.open(path).remove()


@pytest.mark.root
@pytest.mark.parametrize("options", [["ro", "nosuid"], ["nosuid", "rw"]])
def test_who_sees_its_group_writable_owns_it(spec: dict[str, Any], options: list[str]) -> None:
    spec["mounts"][0]["options"] = options
    group = groups.make(spec)
    handed = [folder for controller, folder in group.paths.items() if controller in ("name=systemd", "unified")]
    if cgroups.layout().version == "v2":
        handed = [group.paths["memory"]]
    if not handed and "rw" in options:
        pytest.skip("there is no v2 tree and no name=systemd hierarchy here")
    owner = (70000, 70001) if "rw" in options else (0, 0)
    for folder in handed:
        for name in ("", "/cgroup.procs"):
            assert (os.stat(folder + name).st_uid, os.stat(folder + name).st_gid) == owner
    limit = next(f"{group.paths['pids']}/{name}" for name in ("pids.max",))
    assert os.stat(limit).st_uid == 0  # its own limits stay out of its reach


@pytest.mark.root
def test_without_a_namespace_of_its_own_it_sees_the_machine_s_and_gets_nothing(spec: dict[str, Any]) -> None:
    spec["mounts"][0]["options"] = ["rw"]
    spec["linux"]["namespaces"] = [{"type": "user"}]
    group = groups.make(spec)
    assert {os.stat(folder).st_uid for folder in group.folders} == {0}


def test_what_a_machine_lacks_is_said() -> None:
    none = cgroups.create("/c", {}, Layout("v2", [Tree("v2", "/x", ("memory", "cpu"), "/x", "it is mounted read-only")]))
    assert groups.lacking(none) == [
        "no cgroup: nothing of it is limited by one, its processes are measured one by one: it is mounted read-only"
    ]
    some = cgroups.Group("/c", Layout("none", []), {"blkio": "it was not passed on", "hugetlb": "nobody asks"})
    assert groups.lacking(some) == ["block I/O is not limited and not measured: it was not passed on"]


@pytest.mark.root
def test_groups_are_read_only_inside(run: Any) -> None:
    assert run("sh", "-c", "cd /sys/fs/cgroup; find . -type d | while read d; do mkdir $d/below 2>/dev/null && echo $d; done; true") == ""
    assert run.status.code == 0


@pytest.mark.root
def test_an_init_system_makes_groups_below_its_own(engine: NativeEngine) -> None:
    """What systemd does first: its process 1 goes into a leaf, and on v2 the group passes a controller on. exec then follows it."""
    where = cgroups.layout()
    if where.version != "v2" and not any("name=systemd" in tree.controllers for tree in where.trees):
        pytest.skip("there is no v2 tree with controllers and no name=systemd hierarchy here")
    first = "cd /sys/fs/cgroup/systemd 2>/dev/null || cd /sys/fs/cgroup; mkdir init.scope && echo 1 > init.scope/cgroup.procs || exit 9; "
    first += "if [ -e cgroup.subtree_control ]; then echo +pids > cgroup.subtree_control || exit 8; fi; echo ready; exec sleep 1000"
    config = ContainerConfig("host", ("sh", "-c", first), network="none", security_opt=("writable-cgroups=true",))
    info = engine.start(engine.create(config).id)
    until = time.monotonic() + 60
    while not [line for line in engine.logs(info.id) if line.text == "ready"]:
        assert time.monotonic() < until and engine.find(info.id).status == "running"
        time.sleep(0.05)
    found = bytearray()
    status = engine.exec(info.id, ExecConfig(("cat", "/proc/self/cgroup", "/proc/1/cgroup")), None, lambda _, data: found.extend(data))
    assert status.code == 0
    lines = [line for line in found.decode().splitlines() if line.startswith("0::" if where.version == "v2" else tuple("123456789"))]
    if where.version == "v2":
        assert lines == ["0::/init.scope"] * 2
    else:
        # v1: a process that joins lands in the group itself, which is allowed there.
        assert sorted(line.rpartition(":")[2] for line in lines if "name=systemd" in line) == ["/", "/init.scope"]
    write = "cd /sys/fs/cgroup/pids 2>/dev/null || cd /sys/fs/cgroup; echo max > pids.max"
    limit = engine.exec(info.id, ExecConfig(("sh", "-c", write)), None, lambda *_: None)
    assert limit.code != 0  # its own limits are not its to change


@pytest.mark.root
def test_the_host_s_disk_is_made_and_not_opened(run: Any) -> None:
    """Without a user namespace and with the capability a node of the host's disk can be made: the device rules keep it closed."""
    script = "mknod /tmp/disk b 7 201 && echo made; head -c1 /tmp/disk; mknod /tmp/null c 1 3 && head -c1 /tmp/null && echo read"
    out = run("sh", "-c", script, userns="host", cap_add=("MKNOD",))
    assert out.split() == ["made", "read"] and "Operation not permitted" in run.stderr


@pytest.mark.root
def test_a_container_that_is_held_back_records_the_pressure_of_it(engine: NativeEngine) -> None:
    """Two loops on a fifth of a processor wait for it most of the time: so says the kernel (PSI), or the record says why it is unknown."""
    resources = Resources(cpus=0.2)
    loops = "while :; do :; done & while :; do :; done"
    info = engine.start(engine.create(ContainerConfig("host", ("sh", "-c", loops), network="none", resources=resources)).id)
    end = time.monotonic() + 60
    while not (samples := engine.samples(info.id)) or samples[-1].time - samples[0].time < 2.0:
        assert time.monotonic() < end
        time.sleep(0.1)
    first, last = samples[0], samples[-1]
    if cgroups.layout().version != "v2":
        assert last.pressure == pressure.NO_GROUP
        return
    known = os.path.exists("/proc/pressure/cpu")
    assert last.pressure == (pressure.KNOWN if known else pressure.NO_KERNEL)
    waited = (last.pressure_cpu_some - first.pressure_cpu_some) / 1e9 / (last.time - first.time)
    assert 0.3 < waited < 1.1 if known else waited == 0
