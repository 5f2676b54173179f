"""Limits that are changed while processes run, on this machine's own kernel: in every order, and all or nothing."""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pycontainers.errors import LimitError
from pycontainers.linux import cgroups
from pycontainers.linux.cgroups import files

from .conftest import Start, has

pytestmark = pytest.mark.root
MEMORY = [(32, 32), (32, 300), (64, 96), (200, 200), (200, -1), (300, 400), (-1, -1)]  # MiB: memory, memory plus swap


def text(group: cgroups.Group, controller: str, v1: str, v2: str) -> str:
    folder = Path(group.paths[controller])
    return (folder / (v2 if (folder / v2).exists() and cgroups.layout().version == "v2" else v1)).read_text().strip()


def values(group: cgroups.Group) -> dict[str, str]:
    """Every limit's file as it is."""
    found = {}
    for folder in group.folders:
        for path in sorted(Path(folder).iterdir()):
            name = path.name
            # A cpuset by what it comes to: one that follows its parent cannot be told to do so again while processes are in it.
            ends = ("limit_in_bytes", ".max", "_us", "shares", "weight", ".low", ".high", ".effective", "effective_cpus", "effective_mems")
            if path.is_file() and name.endswith(ends):
                try:
                    found[str(path)] = path.read_text()
                except OSError:
                    continue
    return found


def size(mebibytes: int) -> int:
    return mebibytes << 20 if mebibytes >= 0 else -1


def test_memory_and_swap_from_every_pair_to_every_other(group_path: str, start: Start) -> None:
    """memory may never be above memory plus swap (v1): raised together and lowered together the order differs."""
    has("memory")
    group = cgroups.create(group_path, {})
    group.add(start("sleep", "100").pid)
    for before, after in itertools.permutations(MEMORY, 2):
        for memory, swap in (before, after):
            group.update({"memory": {"limit": size(memory), "swap": size(swap)}})
        limit = text(group, "memory", "memory.limit_in_bytes", "memory.max")
        assert limit == str(size(after[0])) or (after[0] < 0 and not limit.startswith(str(size(before[0])))), (before, after)
        total = text(group, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
        expected = size(after[1]) - size(after[0]) if cgroups.layout().version == "v2" else size(after[1])
        assert after[1] < 0 or total == str(expected), (before, after)


def test_quota_and_period_under_a_parent_with_a_quota(group_path: str, start: Start) -> None:
    """A group's share of the time may not be above its parent's, after each single write."""
    has("cpu")
    parent = cgroups.create(group_path, {"cpu": {"quota": 50000, "period": 100000}})
    try:
        group = cgroups.create(f"{group_path}/c", {})
        group.add(start("sleep", "100").pid)
        pairs = [(5000, 10000), (50000, 100000), (400000, 1000000), (1000, 100000), (2000, 4000)]
        for before, after in itertools.permutations(pairs, 2):
            for quota, period in (before, after):
                group.update({"cpu": {"quota": quota, "period": period}})
            if cgroups.layout().version == "v2":
                assert text(group, "cpu", "", "cpu.max") == f"{after[0]} {after[1]}"
            else:
                assert (text(group, "cpu", "cpu.cfs_quota_us", ""), text(group, "cpu", "cpu.cfs_period_us", "")) == tuple(map(str, after))
        if cgroups.layout().version != "v2":  # v2 lets a child's figure be above its parent's: the parent's holds
            with pytest.raises(LimitError, match=r"--cpu-quota 9000 cannot be set: .*EINVAL"):
                group.update({"cpu": {"quota": 9000, "period": 10000}})
            assert text(group, "cpu", "cpu.cfs_period_us", "") == str(after[1])
    finally:
        cgroups.open(f"{group_path}/c").kill()
        cgroups.open(f"{group_path}/c").remove()
    assert parent.pids() == []


@pytest.mark.parametrize("period", [None, 50000])
def test_a_quota_alone_and_a_period_alone(group_path: str, period: int | None) -> None:
    has("cpu")
    group = cgroups.create(group_path, {"cpu": {"quota": 20000, "period": 40000}})
    group.update({"cpu": {"quota": 30000} if period is None else {"period": period}})
    expected = (30000, 40000) if period is None else (20000, period)
    if cgroups.layout().version == "v2":
        assert text(group, "cpu", "", "cpu.max") == f"{expected[0]} {expected[1]}"
    else:
        assert (text(group, "cpu", "cpu.cfs_quota_us", ""), text(group, "cpu", "cpu.cfs_period_us", "")) == tuple(map(str, expected))


def test_burst_goes_with_the_quota(group_path: str) -> None:
    """A burst may not be above the quota: lowered, it goes first; raised, it comes last."""
    has("cpu")
    group = cgroups.create(group_path, {"cpu": {"quota": 20000, "period": 100000}})
    name = "cpu.max.burst" if cgroups.layout().version == "v2" else "cpu.cfs_burst_us"
    if not Path(group.paths["cpu"], name).exists():
        pytest.skip("this kernel has no burst (Linux 5.14)")
    for quota, burst in ((50000, 50000), (10000, 5000), (40000, 40000), (20000, 0)):
        group.update({"cpu": {"quota": quota, "period": 100000, "burst": burst}})
        assert text(group, "cpu", name, name) == str(burst)


def test_idle_and_shares(group_path: str) -> None:
    """An idle group takes no shares: out of idleness they come after, into it they are left out."""
    has("cpu")
    group = cgroups.create(group_path, {})
    if not Path(group.paths["cpu"], "cpu.idle").exists():
        pytest.skip("this kernel has no idle groups (Linux 5.15)")
    group.update({"cpu": {"idle": 1, "shares": 512}})
    assert Path(group.paths["cpu"], "cpu.idle").read_text() == "1\n"
    group.update({"cpu": {"idle": 0, "shares": 512}})
    assert text(group, "cpu", "cpu.shares", "cpu.weight") == ("59" if cgroups.layout().version == "v2" else "512")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"cpu": {"quota": 1, "period": 100000}}, r"--cpus 1e-05 cannot be set: .*EINVAL"),
    ({"cpu": {"cpus": "4000"}}, r"--cpuset-cpus 4000 cannot be set: .*\(E"),
    ({"blockIO": {"throttleReadBpsDevice": [{"major": 511, "minor": 3, "rate": 5}]}}, r"--device-read-bps 511:3:5 .*no such disk.*ENODEV"),
    ({"pids": {"limit": 1 << 40}}, r"--pids-limit 1099511627776 cannot be set: .*\(E"),
]


@pytest.mark.parametrize(("bad", "message"), REFUSED, ids=["cpu", "cpuset", "disk", "pids"])
def test_one_refusal_puts_everything_back(group_path: str, start: Start, bad: dict[str, Any], message: str) -> None:
    has("memory", "cpu", "cpuset", "pids", "blkio")
    group = cgroups.create(
        group_path,
        {
            "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20},
            "cpu": {"quota": 50000, "period": 100000, "shares": 512},
            "pids": {"limit": 20},
        },
    )
    group.add(start("sleep", "100").pid)
    before = values(group)
    good: dict[str, Any] = {
        "memory": {"limit": 128 << 20, "swap": 256 << 20, "reservation": 16 << 20},
        "cpu": {"quota": 30000, "period": 50000, "shares": 2048, "mems": "0"},
        "pids": {"limit": 30},
    }
    with pytest.raises(LimitError, match=message):
        group.update({name: good.get(name, {}) | bad.get(name, {}) for name in {*good, *bad}})
    after = values(group)
    assert {name: (text, after[name]) for name, text in before.items() if after[name] != text} == {}


def test_memory_in_use_is_not_taken_away_where_that_was_asked(group_path: str, start: Start) -> None:
    """v1 refuses by itself (EBUSY); v2 would kill until it fits, unless ``checkBeforeUpdate`` is given."""
    has("memory")
    group = cgroups.create(group_path, {"memory": {"limit": 128 << 20, "swap": 128 << 20}})
    process = start(sys.executable, "-c", "import sys; sys.stdin.readline(); x = b'x' * (50 << 20); sys.stdin.readline()")
    group.add(process.pid)
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    until = time.monotonic() + 10
    while group.peak() < 50 << 20 and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(LimitError, match=r"--memory 20971520 cannot be set: .* in use already"):
        group.update({"memory": {"limit": 20 << 20, "swap": 20 << 20, "checkBeforeUpdate": True}, "pids": {"limit": 50}})
    assert process.poll() is None
    assert text(group, "memory", "memory.limit_in_bytes", "memory.max") == str(128 << 20)
    assert text(group, "pids", "pids.max", "pids.max") == "max"


def test_what_v2_has_not_is_said(group_path: str) -> None:
    has("memory")
    asked = {"memory": {"swappiness": 10, "disableOOMKiller": True, "kernel": 1 << 20}}
    group = cgroups.create(group_path, asked)
    names = {note.split(" is ignored")[0] for note in group.notes}
    if cgroups.layout().version == "v2":
        assert names == {"the kernel memory limit", "--memory-swappiness", "--oom-kill-disable"}
    else:
        assert names == {"the kernel memory limit"}
        assert Path(group.paths["memory"], "memory.swappiness").read_text() == "10\n"
        assert "oom_kill_disable 1\n" in Path(group.paths["memory"], "memory.oom_control").read_text()
        with pytest.raises(LimitError):
            group.update({"memory": {"disableOOMKiller": False}, "pids": {"limit": 1 << 40}})
        assert "oom_kill_disable 1\n" in Path(group.paths["memory"], "memory.oom_control").read_text()


def disk_of(folder: Path) -> tuple[int, int]:
    """The whole disk that a folder is on."""
    number = os.stat(folder).st_dev
    numbers = os.major(number), os.minor(number)
    if numbers[0] == 0:
        pytest.skip("no disk is behind this folder")
    path = Path(f"/sys/dev/block/{numbers[0]}:{numbers[1]}").resolve()
    whole = path.parent if (path / "partition").exists() else path
    major, _, minor = (whole / "dev").read_text().strip().partition(":")
    return int(major), int(minor)


@pytest.mark.more_than_uml("a disk whose driver goes through the block layer's rates")
@pytest.mark.parametrize(
    ("key", "rate", "least"),
    [
        ("throttleWriteBpsDevice", 4 << 20, 1.2),  # 8 MiB: 2 s
        ("throttleReadBpsDevice", 4 << 20, 1.2),
        ("throttleWriteIOPSDevice", 4, 1.2),  # 16 times 512 KiB: 4 s; on a busy machine the kernel lets some operations go together
        ("throttleReadIOPSDevice", 4, 1.2),
    ],
)
def test_disk_rates_hold(group_path: str, tmp_path: Path, start: Start, key: str, rate: int, least: float) -> None:
    """dd past the page cache takes as long as the rate says, by a wide margin; once it is gone the kernel's files have no row of it."""
    has("blkio")
    major, minor = disk_of(tmp_path)
    file = tmp_path / "file"
    file.write_bytes(b"x" * (8 << 20))
    os.sync()
    group = cgroups.create(group_path, {"blockIO": {key: [{"major": major, "minor": minor, "rate": rate}]}})
    reads = "Read" in key
    command = ["dd", f"if={file if reads else '/dev/zero'}", f"of={'/dev/null' if reads else file}", "bs=512k", "count=16"]
    command += ["iflag=direct"] if reads else ["oflag=direct", "conv=notrunc"]

    def seconds() -> float:
        process = start("sh", "-c", 'read line; exec "$@" 2>&1', "sh", *command)
        group.add(process.pid)
        begun = time.monotonic()
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait(60) == 0
        return time.monotonic() - begun

    assert seconds() > least  # a slow machine takes longer still
    group.update({"blockIO": {key: [{"major": major, "minor": minor, "rate": 0}]}})
    for path in Path(group.paths["blkio"]).iterdir():
        if path.name == "io.max" or (path.name.startswith("blkio.throttle.") and path.name.endswith("_device")):
            assert path.read_text() == ""


def test_huge_pages(group_path: str) -> None:
    """Of a controller in which a container has no group unless it asks for one."""
    sizes = [name.removeprefix("hugepages-").removesuffix("kB") for name in os.listdir("/sys/kernel/mm/hugepages")]
    mounted = {name for tree in cgroups.layout().trees for name in tree.controllers}
    if not sizes or "hugetlb" not in mounted:
        pytest.skip("this machine has no hugetlb controller")
    page = f"{int(sizes[0]) >> 10}MB" if int(sizes[0]) < 1 << 20 else f"{int(sizes[0]) >> 20}GB"
    group = cgroups.create(group_path, {"hugepageLimits": [{"pageSize": page, "limit": 0}]})
    folder = Path(group.paths["hugetlb"])
    name = next(name for name in (f"hugetlb.{page}.max", f"hugetlb.{page}.limit_in_bytes") if (folder / name).exists())
    assert (folder / name).read_text().strip() == "0"


def test_a_controller_that_is_not_mounted_is_refused(group_path: str) -> None:
    mounted = {name for tree in cgroups.layout().trees for name in tree.controllers}
    if "net_cls" in mounted or cgroups.layout().version == "v2":
        pytest.skip("it is mounted here, or v2 says that it is ignored")
    with pytest.raises(LimitError, match="network classID 5 cannot be set: this machine has no net_cls controller"):
        cgroups.create(group_path, {"network": {"classID": 5}})
    assert cgroups.open(group_path).paths == {}


def test_systemds_own_hierarchy_where_v1_has_one(group_path: str, start: Start) -> None:
    where = cgroups.layout()
    named = [tree for tree in where.trees if "name=systemd" in tree.controllers]
    if not named:
        pytest.skip("there is no name=systemd hierarchy here")
    plain = cgroups.create(group_path, {})
    assert "name=systemd" not in plain.paths
    plain.remove()
    group = cgroups.create(group_path, {}, named=True)
    process = start("sleep", "100")
    group.add(process.pid)
    assert f"name=systemd:{group_path}" in Path(f"/proc/{process.pid}/cgroup").read_text()
    group.delegate(54321, 54321)
    folder = group.paths["name=systemd"]
    assert {os.stat(f"{folder}/{name}").st_uid for name in ("", "cgroup.procs", "tasks")} == {54321}
    assert os.stat(group.paths["memory"]).st_uid == 0


def test_an_init_system_that_moved_away_is_joined(group_path: str, start: Start) -> None:
    """v2: inside, process 1 moves into a leaf and passes controllers on; a process that joins later must go to it."""
    if cgroups.layout().version != "v2":
        pytest.skip("v1 lets groups have processes and groups below them")
    group = cgroups.create(group_path, {})
    group.delegate(54321, 54321)
    folder = Path(group.paths["memory"])
    assert (folder / "cgroup.subtree_control").stat().st_uid == 54321 and (folder / "memory.max").stat().st_uid == 0
    init = start("sleep", "100")
    group.add(init.pid)
    (folder / "init.scope").mkdir()
    files.write(str(folder / "init.scope/cgroup.procs"), init.pid)
    files.write(str(folder / "cgroup.subtree_control"), "+memory")
    with pytest.raises(OSError, match="busy"):
        files.write(str(folder / "cgroup.procs"), start("sleep", "100").pid)
    later = start("sleep", "100")
    group.add(later.pid)
    assert Path(f"/proc/{later.pid}/cgroup").read_text().strip() == f"0::{group_path}/init.scope"


FORKING = "import os, sys\nsys.stdin.readline()\nwhile True:\n pid = os.fork()\n if pid == 0: os._exit(0)\n os.waitpid(pid, 0)"


def test_freezing_while_it_forks(group_path: str, start: Start) -> None:
    group = cgroups.create(group_path, {})
    process = start(sys.executable, "-c", FORKING)
    group.add(process.pid)
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    for _ in range(20):
        group.freeze()
        assert "FROZEN" in text(group, "freezer", "freezer.state", "cgroup.events").replace("frozen 1", "FROZEN") and group.is_frozen()
        first = set(group.pids())
        time.sleep(0.02)
        assert set(group.pids()) == first
        group.thaw()
        assert not group.is_frozen()
        time.sleep(0.01)
    group.freeze()
    group.kill()
    assert process.wait(2) == -9


def test_a_frozen_parent(group_path: str, start: Start) -> None:
    """Thawed itself, a group below a frozen one stands still: that is said; killed it is at once on v2, on v1 only when let go."""
    above = cgroups.create(group_path, {})
    group = cgroups.create(f"{group_path}/c", {})
    try:
        process = start("sleep", "100")
        group.add(process.pid)
        group.freeze()
        above.freeze()
        assert group.thaw() is False
        assert not group.is_frozen() and above.is_frozen()
        if "freezer" in cgroups.layout().controllers and cgroups.layout().version != "v2":
            with pytest.raises(OSError, match="a group above is frozen"):
                group.kill(0.2)
            assert above.thaw() is True
        group.kill()
        assert process.wait(2) == -9
    finally:
        if above.is_frozen():
            above.thaw()
        group.kill()
        group.remove()


def test_nested_groups_that_are_frozen_are_killed(group_path: str, start: Start) -> None:
    group = cgroups.create(group_path, {})
    below = cgroups.create(f"{group_path}/below", {})
    process = start("sleep", "100")
    below.add(process.pid)
    below.freeze()
    group.kill()
    assert process.wait(2) == -9
    group.remove()
    assert not any(os.path.exists(folder) for folder in below.folders)


