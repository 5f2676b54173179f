"""Readers and writers of both versions, on folders of control files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pycontainers.errors import LimitError
from pycontainers.linux import cgroups
from pycontainers.linux.cgroups import v2
from pycontainers.linux.cgroups.layout import Layout, Tree
from pycontainers.metrics.sample import Sample, Sampler

PATH = "/pycontainers/c1"


def content(group: cgroups.Group, controller: str, name: str) -> str:
    return Path(group.paths[controller], name).read_text().strip()


def test_sample_is_the_same_everywhere(machine: Layout) -> None:
    sampler = Sampler(cgroups.open(PATH, machine))
    sample = sampler.read()
    sampler.close()
    assert sample._replace(time=0.0, pressure=0) == Sample(
        cpu_usage=5_000_000_000,
        cpu_user=4_000_000_000,
        cpu_system=1_000_000_000,
        throttled=2_250_000_000,
        throttled_periods=45,
        periods=120,
        memory=31457280 - 4194304,
        memory_cache=12300288,
        memory_rss=15441920,
        memory_limit=67108864,
        swap=4096,
        pids=7,
        pids_limit=64,
        block_read=1048576 + 24576,
        block_write=4096 + 8192,
        oom_kills=3,
    )


def test_no_limits_read_as_zero(machine: Layout, folder: Path) -> None:
    group = cgroups.open(PATH, machine)
    on_v1 = folder.name != "v2"
    name, value = ("memory.limit_in_bytes", "9223372036854771712") if on_v1 else ("memory.max", "max")
    Path(group.paths["memory"], name).write_text(value + "\n")
    Path(group.paths["pids"], "pids.max").write_text("max\n")
    sample = Sampler(group).read()
    assert (sample.memory_limit, sample.pids_limit) == (0, 0)


def test_network_counters_leave_out_loopback(machine: Layout, tmp_path: Path) -> None:
    text = "Inter-|   Receive |  Transmit\n face |bytes packets |bytes\n"
    text += "    lo: 999 1 0 0 0 0 0 0 999 1 0 0 0 0 0 0\n"
    text += "".join(f"eth{n}:10 1 0 0 0 0 0 0 3 1 0 0 0 0 0 0\n" for n in range(500))  # longer than one read
    file = tmp_path / "dev"
    file.write_text(text)
    with file.open("rb") as net:
        sample = Sampler(cgroups.open(PATH, machine)).read(net.fileno())
    assert (sample.net_rx, sample.net_tx) == (5000, 1500)


def test_events_and_peak(machine: Layout, folder: Path) -> None:
    group = cgroups.open(PATH, machine)
    assert group.events() == {"oom_kill": 3, "oom": 4 if folder.name == "v2" else 3}
    assert group.peak() == 52428800
    assert group.pids() == [101, 102]


def test_limits_are_written(machine: Layout, folder: Path) -> None:
    group = cgroups.open(PATH, machine)
    for controller in ("memory", "cpu", "cpuset", "pids", "blkio"):
        for file in Path(group.paths[controller]).iterdir():
            # A write to a plain file leaves the rest of a longer one, other than the kernel's.
            file.write_text("0" if "memsw" in file.name else "")
    group.update(
        {
            "memory": {"limit": 256 << 20, "swap": 300 << 20, "reservation": 32 << 20},
            "cpu": {"quota": 50000, "period": 100000, "shares": 2048, "cpus": "0", "mems": "0"},
            "pids": {"limit": 33},
            "blockIO": {"weight": 500},
        }
    )
    assert content(group, "pids", "pids.max") == "33" and content(group, "cpuset", "cpuset.cpus") == "0"
    if folder.name == "v2":
        assert content(group, "memory", "memory.max") == str(256 << 20)
        assert content(group, "memory", "memory.swap.max") == str(44 << 20)
        assert content(group, "memory", "memory.low") == str(32 << 20)
        assert content(group, "cpu", "cpu.max") == "50000 100000"
        assert content(group, "cpu", "cpu.weight") == "174"
        assert content(group, "blkio", "io.weight") == f"default {1 + 490 * 9999 // 990}"
    else:
        assert content(group, "memory", "memory.limit_in_bytes") == str(256 << 20)
        assert content(group, "memory", "memory.memsw.limit_in_bytes") == str(300 << 20)
        assert content(group, "memory", "memory.soft_limit_in_bytes") == str(32 << 20)
        assert content(group, "cpu", "cpu.cfs_quota_us") == "50000" and content(group, "cpu", "cpu.shares") == "2048"
        assert content(group, "blkio", "blkio.bfq.weight") == "500"


def test_unlimited(machine: Layout, folder: Path) -> None:
    group = cgroups.open(PATH, machine)
    group.update({"memory": {"limit": 64 << 20, "swap": -1}, "pids": {"limit": -1}})
    assert content(group, "pids", "pids.max").startswith("max")
    name, value = ("memory.swap.max", "max") if folder.name == "v2" else ("memory.memsw.limit_in_bytes", "-1")
    assert content(group, "memory", name).startswith(value)


def test_default_swap_is_left_out_where_the_kernel_does_not_count_it(machine: Layout, folder: Path) -> None:
    group = cgroups.open(PATH, machine)
    name, value = ("memory.swap.max", 96 << 20) if folder.name == "v2" else ("memory.memsw.limit_in_bytes", 192 << 20)
    memory = {"limit": 96 << 20, "swap": 192 << 20}
    group.update({"memory": memory})
    assert content(group, "memory", name) == str(value)
    Path(group.paths["memory"], name).unlink()
    group.update({"memory": memory})  # nobody asked: no error


def test_swap_that_is_not_named_stays(machine: Layout, folder: Path) -> None:
    group = cgroups.open(PATH, machine)
    name = "memory.swap.max" if folder.name == "v2" else "memory.memsw.limit_in_bytes"
    before = content(group, "memory", name)
    group.update({"memory": {"limit": 96 << 20}})
    assert content(group, "memory", name) == before
    for file in Path(group.paths["memory"]).glob("memory.*m*"):
        if file.name in (name, "memory.max"):
            file.write_text("")
    group.update({"memory": {"limit": 80 << 20}})
    group.update({"memory": {"swap": 100 << 20}})  # v2 counts swap alone: what is left over the limit that is set
    assert content(group, "memory", name).startswith(str(20 << 20 if folder.name == "v2" else 100 << 20))


def test_swap_that_was_asked_for_and_cannot_be_set(machine: Layout, folder: Path) -> None:
    group = cgroups.open(PATH, machine)
    Path(group.paths["memory"], "memory.swap.max" if folder.name == "v2" else "memory.memsw.limit_in_bytes").unlink()
    with pytest.raises(LimitError, match=r"--memory-swap .* does not account swap.*ENOENT") as caught:
        group.update({"memory": {"limit": 64 << 20, "swap": 65 << 20}})
    assert caught.value.hint


def test_weight_without_a_scheduler_that_has_weights(machine: Layout, folder: Path) -> None:
    group = cgroups.open(PATH, machine)
    Path(group.paths["blkio"], "io.weight" if folder.name == "v2" else "blkio.bfq.weight").unlink()
    with pytest.raises(LimitError, match="--blkio-weight 500 cannot be set: no block I/O scheduler"):
        group.update({"blockIO": {"weight": 500}})


def test_bfq_takes_the_weight_as_it_is(machine: Layout, folder: Path) -> None:
    if folder.name != "v2":
        pytest.skip("v1 has its own file")
    group = cgroups.open(PATH, machine)
    Path(group.paths["blkio"], "io.bfq.weight").write_text("")
    group.update({"blockIO": {"weight": 500}})
    assert content(group, "blkio", "io.bfq.weight") == "500" and content(group, "blkio", "io.weight") == "default 100"


def test_missing_controller_is_named(machine: Layout) -> None:
    """Counters of a controller that is not there read 0, its limits are refused with the reason."""
    rest = [Tree(t.kind, t.mountpoint, tuple(c for c in t.controllers if c != "pids"), t.base, "") for t in machine.trees]
    group = cgroups.Group(PATH, Layout(machine.version, rest), {"pids": "nobody passed it on"})
    assert Sampler(group).read().pids == 0
    with pytest.raises(LimitError, match="--pids-limit 5 cannot be set: nobody passed it on"):
        group.update({"pids": {"limit": 5}})
    group.update({"memory": {"limit": 64 << 20}})


def test_unified_and_unknown_keys(machine: Layout, folder: Path) -> None:
    group = cgroups.open(PATH, machine)
    if folder.name == "v2":
        group.update({"unified": {"memory.low": "1234567"}})
        assert content(group, "memory", "memory.low") == "1234567"
    with pytest.raises(LimitError, match=r"unified ../memory.max 5 cannot be set: .*(not the name of a file|not cgroup v2)"):
        group.update({"unified": {"../memory.max": "5"}})
    with pytest.raises(LimitError, match="nonsense"):
        group.update({"unified": {"nonsense.max": "1"}})


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 100), (262144, 10000), (512, 59), (2048, 174)])
def test_weight_of_shares(shares: int, weight: int) -> None:
    assert v2.weight_of_shares(shares) == weight


def test_weights_rise_and_stay_in_range() -> None:
    weights = [v2.weight_of_shares(shares) for shares in range(2, 262145, 97)]
    assert weights == sorted(weights) and weights[0] == 1 and weights[-1] <= 10000
    assert (v2.io_weight(10), v2.io_weight(1000)) == (1, 10000)


def test_group_that_does_not_exist(machine: Layout) -> None:
    group = cgroups.open("/pycontainers/none", machine)
    assert group.paths == {} and group.pids() == [] and group.fd is None
    group.kill()
    group.remove()
    with pytest.raises(LimitError):
        group.update({"pids": {"limit": 5}})


def test_where_nothing_can_be_made(machine: Layout) -> None:
    closed = [Tree(t.kind, t.mountpoint, t.controllers, t.base, "it is mounted read-only") for t in machine.trees]
    where = Layout(machine.version, closed)
    with pytest.raises(LimitError, match="--memory 67108864 cannot be set: it is mounted read-only"):
        cgroups.create("/pycontainers/c2", {"memory": {"limit": 64 << 20}}, where)
    group = cgroups.create("/pycontainers/c2", {}, where)
    assert group.paths == {} and group.missing["memory"] == "it is mounted read-only"
    group.add(1)
    assert Sampler(group).read().cpu_usage == 0 and group.peak() == 0 and group.events()["oom_kill"] == 0
    assert cgroups.check(where)[0] == ("memory", False, "it is mounted read-only")


@pytest.mark.parametrize("path", ["", "/", "relative", "/a/../b", "/a//b", "/."])
def test_paths_that_could_lead_elsewhere(machine: Layout, path: str) -> None:
    with pytest.raises(ValueError):
        cgroups.create(path, {}, machine)
