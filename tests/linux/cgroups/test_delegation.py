"""A subtree that was given to an ordinary user, on this machine's own kernel: what he can do in it, and what is in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.errors import LimitError
from pycontainers.linux import cgroups
from pycontainers.linux.cgroups import delegated as module
from pycontainers.linux.cgroups.layout import Layout, Tree, parse

UID = 54321  # nobody has it

#: As that user, from the folder of the package: what is delegated, a group with a limit, a process in it.
SCRIPT = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import codecs; codecs.lookup("ascii")
from pycontainers import errors  # all of it before: that user may not see the interpreter's folder
from pycontainers.linux import cgroups
sys.stdin.readline()
os.setgroups([]); os.setgid(54321); os.setuid(54321)
found = cgroups.delegation()
answer = {"found": found.facts(), "layout": cgroups.layout().version}
group = cgroups.create("/c1", {"pids": {"limit": 7}} if "pids" in found.folders else {})
answer["paths"], answer["missing"] = group.paths, group.missing
child = os.fork()
if child == 0:
    try:
        group.join()
        os.write(1, open("/proc/self/cgroup", "rb").read() + b"\\0")
    except BaseException as error:
        os.write(2, repr(error).encode())
    finally:
        os._exit(0)
os.waitpid(child, 0)
answer["own"] = open("/proc/self/cgroup").read()
group.remove()
print(json.dumps(answer))
"""


@pytest.fixture
def given(group_path: str) -> Iterator[cgroups.Group]:
    """A group in every hierarchy that belongs to :data:`UID`, as systemd hands one over."""
    group = cgroups.create(group_path, {})
    for folder in group.folders:
        for name in ("", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads", "/tasks"):
            if os.path.exists(folder + name):
                os.chown(folder + name, UID, UID)
    yield group
    group.kill()
    for folder in group.folders:
        for name in (module.v2.ROOM, "c1"):
            if os.path.isdir(f"{folder}/{name}"):
                os.rmdir(f"{folder}/{name}")


def as_user(group: cgroups.Group) -> tuple[dict[str, Any], list[str]]:
    """What the script tells, and the lines of /proc/self/cgroup of the process in its group."""
    package = str(Path(module.__file__).parents[3])
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, package], stdin=pipe, stdout=pipe, stderr=pipe)
    group.add(process.pid)
    out, err = process.communicate(b"\n", timeout=60)
    assert process.returncode == 0, err.decode()
    inside, _, answer = out.decode().partition("\0")
    assert answer, err.decode()
    return json.loads(answer), inside.splitlines()


@pytest.mark.root
def test_a_user_makes_groups_in_what_was_given_to_him(given: cgroups.Group) -> None:
    answer, inside = as_user(given)
    assert answer["found"]["why"] == ""
    assert answer["found"]["folders"]["pids"] == given.paths["pids"]
    assert answer["paths"]["pids"] == f"{given.paths['pids']}/c1"
    lines = [line for line in inside if "pids" in line] or inside
    assert lines and all(line.endswith(f"{given.path}/c1") for line in lines)


@pytest.mark.root
def test_who_sits_in_the_given_group_is_moved_into_a_leaf(given: cgroups.Group) -> None:
    """v2's "no internal processes": the user's own launcher is in the group whose controllers have to be passed on."""
    if cgroups.layout().version != "v2":
        pytest.skip("v1 lets groups have processes and groups below them")
    answer, _ = as_user(given)
    assert len(answer["found"]["in_the_way"]) == 1
    assert answer["own"].strip() == f"0::{given.path}/{module.v2.ROOM}"
    assert not answer["missing"]


@pytest.mark.root
def test_nothing_was_given(group_path: str) -> None:
    group = cgroups.create(group_path, {})
    script = SCRIPT.partition("group = cgroups")[0] + "print(json.dumps(answer))"
    package = str(Path(module.__file__).parents[3])
    process = subprocess.Popen([sys.executable, "-c", script, package], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    group.add(process.pid)
    answer = json.loads(process.communicate(b"\n", timeout=60)[0])
    assert answer["found"]["folders"] == {} and f"not writable for uid {UID}" in answer["found"]["why"]
    assert set(answer["found"]["missing"]) >= {"memory", "cpu", "pids"}


def test_a_controller_that_was_not_passed_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd passes memory and pids down by default, cpu since version 252, never cpuset and io unasked."""
    base = tmp_path / "user@1000.service"
    base.mkdir()
    (base / "cgroup.controllers").write_text("memory pids\n")
    (base / "cgroup.procs").write_text("17\n18\n")
    monkeypatch.setattr(module, "way_in", lambda uid: ("systemd-run", "--"))
    names = ("memory", "pids", "cpu", "cpuset", "blkio", "cpuacct", "freezer", "devices")
    found = cgroups.delegation(Layout("v2", [Tree("v2", str(tmp_path), names, str(base), "")]), 1000)
    assert set(found.folders) == {"memory", "pids", "cpuacct", "freezer", "devices"} and found.why == ""
    assert "Delegate= of user@.service must name io" in found.missing["blkio"]
    assert found.in_the_way == [17, 18] and found.way_in == ("systemd-run", "--")


def test_some_hierarchies_of_v1_alone(tmp_path: Path) -> None:
    """An administrator gave away pids, not memory: groups are made where they can be, the rest is said."""
    for name in ("pids", "memory"):
        (tmp_path / name).mkdir()
        for file in ("cgroup.procs", "tasks", "pids.max"):
            (tmp_path / name / file).write_text("")
    text = "1 0 0:1 / /pids rw - cgroup cgroup rw,pids\n2 0 0:2 / /memory ro - cgroup cgroup rw,memory\n"
    where = parse(text, "", str(tmp_path))
    assert where.writable and where.missing == {"memory": "/memory is mounted read-only"}
    found = cgroups.delegation(where)
    assert found.folders == {"pids": f"{tmp_path}/pids"} and found.missing["memory"] == "/memory is mounted read-only"
    group = cgroups.create("/c1", {}, where)
    assert list(group.paths) == ["pids"] and group.missing["memory"] == "/memory is mounted read-only"
    with pytest.raises(LimitError, match="mounted read-only"):
        cgroups.create("/c2", {"memory": {"limit": 64 << 20}}, where)
    assert not (tmp_path / "pids" / "c2").exists()


def test_the_way_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert module.way_in(0) == ()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert module.way_in(1000) == ()  # no manager runs for this user
    (tmp_path / "systemd").mkdir()
    (tmp_path / "systemd" / "private").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    assert module.way_in(1000)[:3] == ("/usr/bin/systemd-run", "--user", "--scope")
