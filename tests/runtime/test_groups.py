"""A container's group as its spec asks for it, on this machine's own kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from pycontainers.linux import cgroups
from pycontainers.linux.cgroups.layout import Layout, Tree
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
    if not handed:
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
