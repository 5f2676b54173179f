from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontainers.errors import LimitError
from pycontainers.linux.cgroups import devices, limits
from pycontainers.linux.cgroups.limits import (
    DEVICE_RULES,
    EVERY_DEVICE,
    check_resources,
    merged,
    parse_cpus,
    parse_cpuset,
    parse_device_rate,
    parse_device_rule,
    parse_size,
    to_oci,
    to_rlimits,
)
from pycontainers.protocol import Resources

SCALE = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "kb": 1 << 10,
    "KiB": 1 << 10,
    "m": 1 << 20,
    "MB": 1 << 20,
    "mib": 1 << 20,
    "g": 1 << 30,
    "T": 1 << 40,
}


@pytest.fixture(autouse=True)
def four_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "online", lambda: [0, 1, 2, 3])


@given(st.integers(0, 1 << 22), st.sampled_from(sorted(SCALE)), st.sampled_from(["", " "]))
def test_sizes(number: int, unit: str, space: str) -> None:
    assert parse_size(f"{number}{space if unit else ''}{unit}") == number * SCALE[unit]


@given(st.integers(0, 9999), st.integers(0, 999), st.sampled_from(sorted(set(SCALE) - {"", "b"})))
def test_decimal_sizes(whole: int, thousandths: int, unit: str) -> None:
    exact = (whole * 1000 + thousandths) * SCALE[unit] // 1000
    assert parse_size(f"{whole}.{thousandths:03}{unit}") == exact


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_limit_error(text: str) -> None:
    try:
        assert -1 <= parse_size(text) < 1 << 63
    except LimitError as error:
        assert error.hint and "\n" not in error.message


@pytest.mark.parametrize(
    "text", ["", "m", "1x", "1.m", ".5m", "1ib", "1i", "1mi", "-2", "-1m", "1e3", "0x10", "1 2m", "١", "9" * 30, "nan", "1,5g"]
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(LimitError, match="--memory-swap"):
        parse_size(text, "--memory-swap")


def test_size_of_numbers() -> None:
    assert parse_size("-1") == -1 and parse_size(4096) == 4096 and parse_size("9007199254740993") == 9007199254740993


@pytest.mark.parametrize("text", ["", "half", "nan", "inf", "-inf", "1e9"])
def test_no_cpus(text: str) -> None:
    with pytest.raises(LimitError, match="--cpus"):
        parse_cpus(text)


def test_cpus() -> None:
    assert parse_cpus("0.5") == 0.5 and parse_cpus(" 2 ") == 2.0


@given(st.sets(st.integers(0, 8191), min_size=1, max_size=20))
def test_cpusets(cpus: set[int]) -> None:
    assert parse_cpuset(",".join(map(str, cpus))) == sorted(cpus)
    assert parse_cpuset(f"{min(cpus)}-{max(cpus)}") == list(range(min(cpus), max(cpus) + 1))


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "9999", "0-99999999999", "1-2-3", "²"])
def test_no_cpusets(text: str) -> None:
    with pytest.raises(LimitError, match="--cpuset-cpus"):
        parse_cpuset(text)


@pytest.mark.parametrize(
    ("resources", "message", "hint"),
    [
        (Resources(memory=1024), "--memory 1024 bytes is too little", "at least 6m"),
        (Resources(memory=-1), "--memory -1", "6m"),
        (Resources(memory=64 << 20, memory_swap=32 << 20), "--memory-swap 33554432 is less than --memory 67108864", "no swap"),
        (Resources(memory_swap=32 << 20), "--memory-swap needs --memory", "give both"),
        (Resources(memory=64 << 20, memory_swap=-2), "--memory-swap -2 is negative", "-1"),
        (Resources(memory=64 << 20, memory_reservation=65 << 20), "--memory-reservation 68157440 is more", "below"),
        (Resources(memory_reservation=-5), "--memory-reservation -5 is negative", "below"),
        (Resources(cpus=99), "--cpus 99 is out of range: this machine has 4 processors", "from 0.01 to 4"),
        (Resources(cpus=0), "--cpus 0 is out of range", "from 0.01 to 4"),
        (Resources(cpus=float("nan")), "--cpus nan", "from 0.01"),
        (Resources(cpu_shares=1), "--cpu-shares 1 is", "from 2 to 262144"),
        (Resources(cpu_shares=262145), "--cpu-shares 262145", "from 2 to 262144"),
        (Resources(cpuset_cpus="0,7"), "--cpuset-cpus 0,7: this machine has no processor 7", "it has 0,1,2,3"),
        (Resources(cpuset_mems="0,99"), "--cpuset-mems 0,99: this machine has no memory node 99", "it has 0"),
        (Resources(memory_swappiness=101), "--memory-swappiness 101 is out of range", "from 0 to 100"),
        (Resources(cpus=1, cpu_quota=5000), "--cpus says the same", "or the other two"),
        (Resources(cpu_period=999), "--cpu-period 999 is out of range", "from 1000 to 1000000"),
        (Resources(cpu_quota=999), "--cpu-quota 999 is too little", "-1 for no limit"),
        (Resources(device_read_bps=(("/dev/none", 5),)), "--device-read-bps /dev/none: No such file", "lsblk"),
        (Resources(device_write_iops=(("/dev/null", 5),)), "--device-write-iops /dev/null is not a block device", "lsblk"),
        (Resources(pids_limit=0), "--pids-limit 0", "positive"),
        (Resources(pids_limit=-2), "--pids-limit -2", "-1 for no limit"),
        (Resources(blkio_weight=9), "--blkio-weight 9 is", "from 10 to 1000"),
        (Resources(blkio_weight=1001), "--blkio-weight 1001", "from 10 to 1000"),
    ],
)
def test_limits_that_make_no_sense(resources: Resources, message: str, hint: str) -> None:
    with pytest.raises(LimitError) as caught:
        check_resources(resources)
    assert message in caught.value.message and hint in caught.value.hint


@pytest.mark.parametrize(
    "resources",
    [
        Resources(),
        Resources(memory=6 << 20, memory_swap=6 << 20, memory_reservation=6 << 20),
        Resources(memory=64 << 20, memory_swap=-1),
        Resources(cpus=0.01, cpu_shares=2, cpuset_cpus="0-3", pids_limit=-1, blkio_weight=10),
        Resources(cpus=4, cpu_shares=262144, pids_limit=1, blkio_weight=1000),
    ],
)
def test_limits_that_do(resources: Resources) -> None:
    check_resources(resources)


def test_swap_that_the_kernel_cannot_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "swap_accounting", lambda: False)
    with pytest.raises(LimitError, match="does not account swap"):
        check_resources(Resources(memory=64 << 20, memory_swap=128 << 20))
    assert to_oci(Resources(memory=64 << 20)) == {"memory": {"limit": 64 << 20}}


def test_oci() -> None:
    assert to_oci(Resources()) == {}
    assert to_oci(Resources(memory=64 << 20))["memory"] == {"limit": 64 << 20, "swap": 128 << 20}
    full = Resources(64 << 20, 96 << 20, 32 << 20, 0.29, 512, "0-1", 20, 500)
    assert to_oci(full) == {
        "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20},
        "cpu": {"quota": 29000, "period": 100000, "shares": 512, "cpus": "0-1"},
        "pids": {"limit": 20},
        "blockIO": {"weight": 500},
    }


def test_oci_of_the_rest() -> None:
    found = to_oci(Resources(memory_swappiness=0, oom_kill_disable=True, cpu_period=50000, cpu_quota=-1, cpuset_mems="0"))
    assert found == {
        "memory": {"swappiness": 0, "disableOOMKiller": True},
        "cpu": {"period": 50000, "quota": -1, "mems": "0"},
    }


@pytest.mark.root
def test_oci_of_device_rates(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    os.mknod(disk, 0o600 | stat.S_IFBLK, os.makedev(7, 200))  # a loop device that nobody opens
    rates = ((str(disk), 1 << 20),)
    found = to_oci(Resources(device_read_bps=rates, device_write_iops=((str(disk), 20),)))
    assert found["blockIO"] == {
        "throttleReadBpsDevice": [{"major": 7, "minor": 200, "rate": 1 << 20}],
        "throttleWriteIOPSDevice": [{"major": 7, "minor": 200, "rate": 20}],
    }
    check_resources(Resources(device_read_bps=rates))


@pytest.mark.parametrize(
    ("text", "option", "rate"),
    [
        ("/dev/sda:1mb", "--device-read-bps", ("/dev/sda", 1 << 20)),
        ("/dev/disk/by-path/a:b:0", "--device-write-bps", ("/dev/disk/by-path/a:b", 0)),
        ("/dev/sda:1000", "--device-read-iops", ("/dev/sda", 1000)),
    ],
)
def test_device_rates(text: str, option: str, rate: tuple[str, int]) -> None:
    assert parse_device_rate(text, option) == rate


@given(st.text(max_size=14), st.sampled_from(["--device-read-bps", "--device-write-iops"]))
def test_any_text_is_a_rate_or_a_limit_error(text: str, option: str) -> None:
    for given_text in (text, f"/dev/sda:{text}"):
        try:
            path, rate = parse_device_rate(given_text, option)
            assert path.startswith("/") and 0 <= rate < 1 << 63
        except LimitError as error:
            assert error.hint and option in error.message and "\n" not in error.message


@pytest.mark.parametrize("text", ["", "/dev/sda", "sda:1mb", "/dev/sda:", "/dev/sda:-1", "/dev/sda:1x"])
def test_no_device_rates(text: str) -> None:
    with pytest.raises(LimitError, match="--device-write-bps"):
        parse_device_rate(text, "--device-write-bps")


def test_device_rules() -> None:
    assert parse_device_rule("c 42:* rmw") == {"allow": True, "type": "c", "major": 42, "access": "rwm"}
    assert parse_device_rule("a *:* m") == {"allow": True, "type": "a", "access": "m"}
    assert devices.rules({"devices": [*DEVICE_RULES, *EVERY_DEVICE]})


@pytest.mark.parametrize("text", ["", "c", "c 1:3", "d 1:3 r", "c 1 r", "c 1:x r", "c 1:3 x", "c 1:-3 r", "c 1:3 r w", "c 1:99999999999 r"])
def test_no_device_rules(text: str) -> None:
    with pytest.raises(LimitError, match="--device-cgroup-rule"):
        parse_device_rule(text)


def test_update_keeps_what_is_not_named() -> None:
    old = Resources(memory=64 << 20, cpus=0.5, pids_limit=9)
    assert merged(old, Resources(memory=96 << 20)) == Resources(memory=96 << 20, cpus=0.5, pids_limit=9)
    assert to_oci(merged(old, Resources(memory=96 << 20)))["memory"]["swap"] == 192 << 20
    by_quota = merged(old, Resources(cpu_quota=20000))
    assert (by_quota.cpus, by_quota.cpu_quota) == (None, 20000)
    check_resources(merged(by_quota, Resources(cpus=1)))


def test_rlimits_where_there_is_no_group() -> None:
    full = to_oci(Resources(64 << 20, None, 32 << 20, 0.5, 512, "0-1", 20, 500))
    rlimits, notes = to_rlimits(full, "no cgroup was delegated")
    assert rlimits == [
        {"type": "RLIMIT_AS", "soft": 64 << 20, "hard": 64 << 20},
        {"type": "RLIMIT_NPROC", "soft": 20, "hard": 20},
    ]
    options = {note.split()[0] for note in notes}
    assert options == {"--memory", "--pids-limit", "--memory-reservation", "--cpus", "--cpu-shares", "--cpuset-cpus", "--blkio-weight"}
    assert all(note.endswith(": no cgroup was delegated") for note in notes)
    assert to_rlimits({}, "") == ([], []) == to_rlimits({"memory": {"limit": -1}, "pids": {"limit": -1}}, "")


def test_online_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (tmp_path / "online").write_text("0-2,5\n")
    assert limits.online(str(tmp_path / "online")) == [0, 1, 2, 5]
    assert limits.online(str(tmp_path / "none"))
