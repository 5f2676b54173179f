"""Pressure of a group: on folders of control files, and on this machine's own kernel."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycontainers.linux import cgroups
from pycontainers.linux.cgroups import pressure
from pycontainers.linux.cgroups.layout import Layout
from pycontainers.metrics.sample import ProcessSampler, Sampler

PATH = "/pycontainers/c1"
TEXT = "some avg10=1.00 avg60=0.50 avg300=0.10 total={some}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total={full}\n"


def folder_of(machine: Layout) -> Path | None:
    """The group's place in the v2 tree of a machine."""
    return next((Path(tree.base + PATH) for tree in machine.trees if tree.kind == "v2" and os.path.isdir(tree.base + PATH)), None)


def test_counters_come_from_the_v2_tree_also_where_it_controls_nothing(machine: Layout, folder: Path) -> None:
    place = folder_of(machine)
    if place is None:
        assert folder.name == "v1" and Sampler(cgroups.open(PATH, machine)).read().pressure == pressure.NO_GROUP
        return
    for number, name in enumerate(pressure.RESOURCES, 1):
        (place / f"{name}.pressure").write_text(TEXT.format(some=number * 1000, full=number))
    found = Sampler(cgroups.open(PATH, machine)).read()
    assert found.pressure == pressure.KNOWN
    assert (found.pressure_cpu_some, found.pressure_memory_some, found.pressure_io_full) == (1_000_000, 2_000_000, 3_000)


def test_why_there_is_none(machine: Layout) -> None:
    place = folder_of(machine)
    if place is None:
        pytest.skip("v1 alone has no group for it")
    assert Sampler(cgroups.open(PATH, machine)).read().pressure == pressure.NO_KERNEL
    (place / "cgroup.pressure").write_text("0\n")
    assert Sampler(cgroups.open(PATH, machine)).read().pressure == pressure.SWITCHED_OFF


def test_kernels_before_full_cpu_pressure() -> None:
    assert pressure.totals(b"some avg10=0.00 avg60=0.00 avg300=0.00 total=77\n") == (77, 0)
    assert pressure.totals(b"") == (0, 0)


def test_a_container_without_a_group_says_so() -> None:
    assert ProcessSampler(os.getpid()).read().pressure == pressure.NO_GROUP


@pytest.mark.root
@pytest.mark.more_than_uml("PSI")
def test_two_that_want_one_processor_wait_for_it(group_path: str, start: Callable[..., Any]) -> None:
    if not os.path.exists("/proc/pressure/cpu"):
        pytest.skip("this kernel does not measure pressure")
    group = cgroups.create(group_path, {}, named=True)  # a hybrid machine makes no group in its v2 tree else
    sampler = Sampler(group)
    before = sampler.read()
    if before.pressure == pressure.NO_GROUP:
        pytest.skip("this machine has no cgroup v2")
    one = min(os.sched_getaffinity(0))
    spin = f"import os, sys; os.sched_setaffinity(0, {{{one}}}); sys.stdin.readline()\nwhile True: pass"
    for _ in range(2):
        process = start(sys.executable, "-c", spin)
        group.add(process.pid)
        process.stdin.write(b"go\n")
        process.stdin.flush()
    end = time.monotonic() + 20
    waited = 0
    while waited < 100_000_000 and time.monotonic() < end:
        time.sleep(0.1)
        waited = sampler.read().pressure_cpu_some - before.pressure_cpu_some
    sampler.close()
    assert waited >= 100_000_000
