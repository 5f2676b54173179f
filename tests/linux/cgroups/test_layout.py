from __future__ import annotations

import os
from pathlib import Path

import pytest

from pycontainers.linux.cgroups.layout import Layout, parse

V2 = "35 24 0:30 {root} {place} {options} - cgroup2 cgroup2 {super}\n"


def v2(place: str = "/sys/fs/cgroup", root: str = "/", options: str = "rw,nosuid", super: str = "rw") -> str:
    return V2.format(root=root, place=place, options=options, super=super)


def make(folder: Path, controllers: str = "cpu io memory pids") -> Path:
    folder.mkdir(parents=True)
    for name in ("cgroup.procs", "cgroup.subtree_control", "tasks"):
        (folder / name).write_text("")
    (folder / "cgroup.controllers").write_text(controllers + "\n")
    return folder


def test_machines(folder: Path, machine: Layout) -> None:
    assert machine.version == folder.name
    assert machine.writable and machine.why == ""
    top = f"{folder}/sys/fs/cgroup"
    expected = {
        "v1": {"cpu": "/cpu,cpuacct", "cpuacct": "/cpu,cpuacct", "memory": "/memory", "freezer": "/freezer"},
        "v2": {"cpu": "", "cpuacct": "", "memory": "", "freezer": "", "blkio": "", "pids": "", "cpuset": ""},
        "hybrid": {"cpu": "/cpu", "cpuacct": "/cpuacct", "memory": "/memory", "freezer": "/freezer"},
    }[folder.name]
    for controller, place in expected.items():
        assert machine.controllers[controller] == top + place
    assert [tree.kind for tree in machine.trees].count("v2") == (0 if folder.name == "v1" else 1)
    optional = [tree for tree in machine.trees if "systemd" in tree.mountpoint or "net_cls" in tree.mountpoint]
    assert all(tree.optional for tree in optional) and not set(machine.controllers) & {"name=systemd", "net_cls"}


def test_nothing_mounted() -> None:
    found = parse("24 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    assert (found.version, found.writable, found.why) == ("none", False, "no cgroup file system is mounted")


@pytest.mark.parametrize(("options", "super"), [("ro,nosuid", "rw"), ("rw", "ro")])
def test_read_only(tmp_path: Path, options: str, super: str) -> None:
    make(tmp_path / "sys/fs/cgroup")
    found = parse(v2(options=options, super=super), "0::/\n", str(tmp_path))
    assert not found.writable and found.why == "/sys/fs/cgroup is mounted read-only"


def test_the_writable_one_of_two_mounts(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b")
    found = parse(v2("/a", options="ro") + v2("/b"), "0::/\n", str(tmp_path))
    assert found.writable and [tree.mountpoint for tree in found.trees] == [f"{tmp_path}/b"]


def test_escapes_in_mountinfo(tmp_path: Path) -> None:
    make(tmp_path / "my groüp")
    found = parse(v2("/my\\040groüp"), "0::/\n", str(tmp_path))
    assert found.version == "v2" and found.trees[0].base == f"{tmp_path}/my groüp"


def test_a_controller_on_v2_beside_v1(tmp_path: Path) -> None:
    """Booted with cgroup_no_v1=memory: memory lives in the v2 tree, the rest on v1. v1's own take precedence."""
    make(tmp_path / "cpu")
    make(tmp_path / "unified", "memory hugetlb")
    text = "32 31 0:29 / /cpu rw - cgroup cgroup rw,cpu,cpuacct\n" + v2("/unified")
    found = parse(text, "1:cpu,cpuacct:/\n0::/\n", str(tmp_path))
    assert found.version == "hybrid"
    assert found.controllers["memory"] == f"{tmp_path}/unified" and found.controllers["cpuacct"] == f"{tmp_path}/cpu"


def test_a_v2_tree_that_controls_nothing_may_be_read_only(tmp_path: Path) -> None:
    make(tmp_path / "memory")
    make(tmp_path / "unified", "hugetlb")
    text = "32 31 0:29 / /memory rw - cgroup cgroup rw,memory\n" + v2("/unified", options="ro")
    found = parse(text, "1:memory:/\n0::/\n", str(tmp_path))
    assert found.writable and found.version == "hybrid" and [tree.kind for tree in found.trees] == ["v1"]


@pytest.mark.parametrize(
    ("root", "own", "service"),
    [
        ("/", "/user.slice/user@1000.service/app.slice/jupyter.service", "user.slice/user@1000.service"),
        # A container that sees only its part: the mount's root is not the hierarchy's.
        ("/docker/1234", "/docker/1234/user@1000.service/jupyter", "user@1000.service"),
    ],
)
def test_delegated_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, own: str, service: str) -> None:
    """Without root, the highest group above this process that may be written is where groups are made."""
    top = make(tmp_path / "sys/fs/cgroup")
    delegated = top / service
    make(delegated)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path).startswith(str(delegated)))
    found = parse(v2(root=root), f"0::{own}\n", str(tmp_path))
    assert found.writable and found.trees[0].base == str(delegated)


def test_nothing_delegated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "sys/fs/cgroup")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = parse(v2(), "0::/user.slice/session-2.scope\n", str(tmp_path))
    assert not found.writable and "not writable for uid" in found.why
