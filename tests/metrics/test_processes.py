"""A container without a cgroup, measured by its processes: real ones, in a pid namespace of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pycontainers.linux import cgroups
from pycontainers.linux.cgroups.layout import Layout
from pycontainers.metrics.sample import ProcessSampler, Sample, Sampler, sampler

pytestmark = pytest.mark.root

#: Process 1 of a pid namespace: works 0.3 s of CPU, has a child that does and is waited for, keeps 20 MiB and a child, then waits.
INSIDE = """
import os, time
def work(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until: pass
kept = bytearray(b"x" * (20 << 20))
work(0.3)
child = os.fork()
if child == 0:
    work(0.3)
    os._exit(0)
os.waitpid(child, 0)
if os.fork() == 0:
    time.sleep(100)
print("ready", flush=True)
time.sleep(100)
"""


def first_child(pid: int) -> int:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if found:
            return int(found[0])
        time.sleep(0.01)
    raise AssertionError("unshare started nothing")


@pytest.fixture
def init() -> Iterator[int]:
    process = subprocess.Popen(["unshare", "--pid", "--fork", sys.executable, "-c", INSIDE], stdout=subprocess.PIPE)
    pid = first_child(process.pid)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    yield pid
    try:
        os.kill(pid, signal.SIGKILL)  # and with it its pid namespace
    except ProcessLookupError:
        pass
    process.communicate()


def test_sums_over_the_namespace(init: int) -> None:
    sample = ProcessSampler(init).read()
    assert sample.cpu_usage == sample.cpu_user + sample.cpu_system >= 500_000_000  # the child's too, which is gone
    assert sample.pids == 2
    assert 20 << 20 <= sample.memory_rss <= sample.memory < 100 << 20


def test_a_process_that_joins_counts_and_leaves_its_time_behind(init: int) -> None:
    sums = ProcessSampler(init)
    before = sums.read()
    work = "import time\nwhile time.process_time() < 0.4: pass\nprint(1, flush=True); time.sleep(100)"
    joined = subprocess.Popen(["nsenter", "-t", str(init), "-p", sys.executable, "-c", work], stdout=subprocess.PIPE)
    try:
        assert joined.stdout is not None and joined.stdout.readline() == b"1\n"
        during = sums.read()
        # nsenter itself stays outside and waits; what it forked is inside.
        assert during.pids == before.pids + 1
        assert during.cpu_usage - before.cpu_usage >= 350_000_000
    finally:
        os.kill(first_child(joined.pid), signal.SIGKILL)
        joined.communicate()
    after = sums.read()
    assert after.pids == before.pids and after.cpu_usage >= during.cpu_usage


def test_the_last_figures_stay_when_all_has_ended(init: int) -> None:
    sums = ProcessSampler(init)
    during = sums.read()
    os.kill(init, signal.SIGKILL)
    until = time.monotonic() + 10
    while sums.read().pids and time.monotonic() < until:
        time.sleep(0.01)
    after = sums.read()
    assert after.pids == after.memory == 0 and after.cpu_usage >= during.cpu_usage


def test_counters_go_on_over_a_restart(init: int) -> None:
    sums = ProcessSampler(init)
    before = sums.read()
    again = subprocess.Popen(["unshare", "--pid", "--fork", "sleep", "100"])
    try:
        pid = first_child(again.pid)
        sums.follow(pid)
        after = sums.read()
        assert after.pids == 1 and before.cpu_usage <= after.cpu_usage < before.cpu_usage + 300_000_000
    finally:
        os.kill(pid, signal.SIGKILL)
        again.wait()


def test_block_reads_and_writes(init: int, tmp_path: Path) -> None:
    sums = ProcessSampler(init)
    before = sums.read()
    command = ["dd", "if=/dev/zero", f"of={tmp_path}/file", "bs=1M", "count=4", "conv=fsync"]
    inside = subprocess.Popen(["nsenter", "-t", str(init), "-p", "sh", "-c", '"$@"; sleep 100', "sh", *command], stderr=subprocess.PIPE)
    try:
        assert inside.stderr is not None and b"records in" in inside.stderr.readline()
        if os.major(os.stat(tmp_path).st_dev) == 0:
            pytest.skip("no disk is behind this folder")
        until = time.monotonic() + 10
        while (after := sums.read()).block_write - before.block_write < 4 << 20 and time.monotonic() < until:
            time.sleep(0.05)  # dd's figures are its parent's once that has waited for it
        assert after.block_write - before.block_write >= 4 << 20
    finally:
        os.kill(first_child(inside.pid), signal.SIGKILL)
        inside.communicate()


def test_without_a_pid_namespace_only_descendants_count() -> None:
    process = subprocess.Popen(["sh", "-c", "sleep 100 & wait"])
    try:
        first_child(process.pid)
        assert ProcessSampler(process.pid).read().pids == 2
    finally:
        os.kill(first_child(process.pid), signal.SIGKILL)
        process.wait()


def test_it_is_taken_where_there_is_no_group_and_says_so(init: int) -> None:
    group = cgroups.create("/pycontainers-test-none", {}, Layout("none", []))
    found = sampler(group, init)
    assert isinstance(found, ProcessSampler) and "no cgroup" in found.note
    assert isinstance(found.read(), Sample)
    assert Sampler.note == ""
