"""Groups on this machine's own kernel, whatever it mounts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pycontainers.errors import IsolationError, LimitError, StateError
from pycontainers.linux import cgroups
from pycontainers.linux.cgroups import making
from pycontainers.linux.cgroups.layout import Tree
from pycontainers.metrics.sample import Sampler

from .conftest import Start, has

pytestmark = pytest.mark.root
#: Python that waits for a line before it goes on, so that a group can be joined first.
WAIT = "import sys; sys.stdin.readline()\n"


def go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_limits_stand_in_the_kernels_files(group_path: str) -> None:
    has("memory", "cpu", "pids")
    group = cgroups.create(
        group_path,
        {
            "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20},
            "cpu": {"quota": 50000, "period": 100000, "shares": 512},
            "pids": {"limit": 20},
        },
    )
    v1 = "memory.limit_in_bytes" in os.listdir(group.paths["memory"])
    expected = {
        "memory": (("memory.limit_in_bytes", 64 << 20), ("memory.memsw.limit_in_bytes", 96 << 20), ("memory.soft_limit_in_bytes", 32 << 20))
        if v1
        else (("memory.max", 64 << 20), ("memory.swap.max", 32 << 20), ("memory.low", 32 << 20)),
        "cpu": (("cpu.cfs_quota_us", 50000), ("cpu.shares", 512)) if v1 else (("cpu.max", "50000 100000"), ("cpu.weight", 59)),
        "pids": (("pids.max", 20),),
    }
    for controller, rows in expected.items():
        for name, value in rows:
            assert Path(group.paths[controller], name).read_text().strip() == str(value), name
    for limit in (300 << 20, 100 << 20):  # raised above the old memsw, then lowered: one order would be refused
        group.update({"memory": {"limit": limit, "swap": 2 * limit}})
        assert Sampler(group).read().memory_limit == limit


def test_cpuset_and_weight_where_this_machine_has_them(group_path: str) -> None:
    has("cpuset")
    group = cgroups.create(group_path, {"cpu": {"cpus": "0"}})
    assert Path(group.paths["cpuset"], "cpuset.cpus").read_text().strip() == "0"
    with pytest.raises(LimitError, match=r"--cpuset-cpus 4000 cannot be set: .*\(E"):
        group.update({"cpu": {"cpus": "4000"}})


def test_moved_in_killed_and_removed(group_path: str, start: Start) -> None:
    group = cgroups.create(group_path, {})
    process = start("sleep", "100")
    group.add(process.pid)
    assert group.pids() == [process.pid]
    assert all(group_path in line for line in Path(f"/proc/{process.pid}/cgroup").read_text().splitlines() if "memory" in line)
    group.kill()
    assert process.wait(2) == -9
    group.remove()
    assert cgroups.open(group_path).paths == {}


def test_kill_reaches_frozen_and_nested_and_forking_processes(group_path: str, start: Start) -> None:
    group = cgroups.create(group_path, {"pids": {"limit": 200}} if "pids" in cgroups.layout().controllers else {})
    bomb = start(sys.executable, "-c", WAIT + "import os\nwhile True:\n try: os.fork()\n except OSError: pass")
    group.add(bomb.pid)
    nested = start("sleep", "100")
    for folder in group.folders:
        below = Path(folder, "below")
        below.mkdir()
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (below / name).exists() and (Path(folder) / name).read_text().strip():
                (below / name).write_text((Path(folder) / name).read_text())
        (below / "cgroup.procs").write_text(str(nested.pid))
    go(bomb)
    until = time.monotonic() + 10
    while len(group.pids()) <= 10:
        assert time.monotonic() < until
        time.sleep(0.01)
    group.freeze()
    group.kill()
    assert group.pids() == []
    assert nested.wait(1) == -9
    group.remove()


def test_processes_that_are_in_v1_alone_are_killed(group_path: str, start: Start) -> None:
    if cgroups.layout().version == "v2":
        pytest.skip("there is no v1 here")
    group = cgroups.create(group_path, {}, named=True)  # on a hybrid machine v2 controls nothing
    process = start("sleep", "100")
    for controller, folder in group.paths.items():
        if controller != "unified":
            Path(folder, "cgroup.procs").write_text(str(process.pid))
    group.kill()
    assert process.wait(1) == -9


def test_join(group_path: str) -> None:
    group = cgroups.create(group_path, {})
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            group.join()
            os.write(writer, Path("/proc/self/cgroup").read_bytes())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as file:
        lines = file.read().splitlines()
    wanted = [line for line in lines if set(line.split(":")[1].split(",")) & set(cgroups.layout().controllers)]
    if cgroups.layout().version == "v2":
        wanted = lines
    assert wanted and all(line.endswith(group_path) for line in wanted)


def test_clone_into_the_v2_tree(group_path: str) -> None:
    from pycontainers.linux import namespaces

    group = cgroups.create(group_path, {}, named=True)  # on a hybrid machine v2 controls nothing
    if group.fd is None:
        pytest.skip("there is no v2 tree here")
    reader, writer = os.pipe()
    pid = namespaces.clone(0, group.fd)
    if pid == 0:
        try:
            os.write(writer, Path("/proc/self/cgroup").read_bytes())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as file:
        assert f"0::{group_path}" in file.read().splitlines()


def test_freeze_and_thaw(group_path: str, start: Start) -> None:
    group = cgroups.create(group_path, {})
    process = start(sys.executable, "-c", "while True: pass")
    group.add(process.pid)
    sampler = Sampler(group)
    group.freeze()
    before = sampler.read().cpu_usage
    time.sleep(0.15)
    assert sampler.read().cpu_usage - before < 20_000_000
    group.thaw()
    time.sleep(0.15)
    assert sampler.read().cpu_usage - before > 20_000_000
    sampler.close()


def test_out_of_memory_is_counted(group_path: str, start: Start) -> None:
    has("memory")
    group = cgroups.create(group_path, {"memory": {"limit": 32 << 20, "swap": 32 << 20}})
    process = start(sys.executable, "-c", WAIT + "x = bytearray(200 << 20)")
    group.add(process.pid)
    assert group.events()["oom_kill"] == 0
    go(process)
    assert process.wait(10) == -9
    assert group.events()["oom_kill"] >= 1 and group.events()["oom"] >= 1
    assert Sampler(group).read().oom_kills >= 1
    assert group.peak() == 0 or 30 << 20 <= group.peak() <= 33 << 20


def test_throttling_and_processes_are_measured(group_path: str, start: Start) -> None:
    has("cpu", "pids")
    group = cgroups.create(group_path, {"cpu": {"quota": 20000, "period": 100000}, "pids": {"limit": 9}})
    process = start(sys.executable, "-c", WAIT + "x = bytearray(20 << 20)\nwhile True: pass")
    group.add(process.pid)
    go(process)
    begin = time.monotonic()
    sampler = Sampler(group)
    sample = sampler.read()
    while (sample.throttled_periods < 3 or sample.memory_rss < 10 << 20) and time.monotonic() < begin + 10:
        time.sleep(0.05)
        sample = sampler.read()
    sampler.close()
    assert (sample.pids, sample.pids_limit) == (1, 9)
    assert sample.throttled > 0 and sample.periods >= sample.throttled_periods >= 3
    assert 0 < sample.cpu_usage < 0.3e9 * (time.monotonic() - begin) + 0.1e9  # a fifth of one processor, and what had begun
    assert sample.cpu_user > 0 and sample.memory > 10 << 20 and sample.memory_rss > 10 << 20


def test_a_leftover_is_replaced_with_fresh_counters(group_path: str, start: Start) -> None:
    has("memory")
    left = cgroups.create(group_path, {"memory": {"limit": 32 << 20, "swap": 32 << 20}})
    process = start(sys.executable, "-c", WAIT + "x = bytearray(200 << 20)")
    left.add(process.pid)
    go(process)
    process.wait(10)
    assert left.events()["oom_kill"] >= 1
    group = cgroups.create(group_path, {})
    assert group.events()["oom_kill"] == 0 and Sampler(group).read().memory_limit == 0


def test_a_group_in_use_is_not_replaced(group_path: str, start: Start) -> None:
    group = cgroups.create(group_path, {})
    process = start("sleep", "100")
    group.add(process.pid)
    with pytest.raises(StateError, match=f"in use by process {process.pid}"):
        cgroups.create(group_path, {})
    assert group.pids() == [process.pid]


def test_a_refused_limit_leaves_nothing(group_path: str) -> None:
    has("cpu")
    with pytest.raises(LimitError, match=r"--cpus 1e-05 cannot be set: .*EINVAL"):
        cgroups.create(group_path, {"cpu": {"quota": 1, "period": 100000}})
    assert cgroups.open(group_path).paths == {}


def test_a_refused_folder_leaves_nothing(group_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    last = [tree for tree in cgroups.layout().trees if not tree.optional][-1]
    make = making._make

    def refuse(tree: Tree, path: str, needed: set[str]) -> dict[str, str]:
        if tree is last:
            raise IsolationError("no", "")
        return make(tree, path, needed)

    monkeypatch.setattr(making, "_make", refuse)
    with pytest.raises(IsolationError):
        cgroups.create(group_path, {})
    assert cgroups.open(group_path).paths == {}


def test_check_says_what_works_and_leaves_nothing() -> None:
    rows = cgroups.check()
    assert {"memory", "swap", "cpus", "pids"} <= {name for name, _, _ in rows}
    assert all(works or why for _, works, why in rows)
    assert cgroups.open(f"/pycontainers-check-{os.getpid()}").paths == {}


def test_a_parent_whose_maker_was_killed(group_path: str, start: Start) -> None:
    """Right after mkdir a v1 cpuset is empty, and so would be everything below it: no process could enter."""
    has("cpuset")
    parent = cgroups.layout()
    folder = next(tree.base + group_path for tree in parent.trees if "cpuset" in tree.controllers)
    os.mkdir(folder)
    group = cgroups.create(f"{group_path}/c", {})
    try:
        group.add(start("sleep", "100").pid)
        assert len(group.pids()) == 1
        group.kill()
    finally:
        group.remove()


def test_groups_side_by_side(group_path: str) -> None:
    """The folder above them is made by whoever comes first."""
    started = []
    for number in range(8):
        started.append(pid := os.fork())
        if pid == 0:
            code = 1
            try:
                cgroups.create(f"{group_path}/{number}", {"pids": {"limit": 5}}).remove()
                code = 0
            finally:
                os._exit(code)
    assert [os.waitpid(pid, 0)[1] for pid in started] == [0] * 8
