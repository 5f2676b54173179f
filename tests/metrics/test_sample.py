from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pycontainers.linux import cgroups
from pycontainers.metrics.sample import Sampler

HEAVY = ("dataclasses", "inspect", "subprocess", "tempfile", "pathlib", "json", "difflib", "pycontainers.errors")


def test_what_the_helper_preloads_is_small() -> None:
    root = Path(__file__).parents[2]
    script = f"""
import sys
sys.path.insert(0, {str(root)!r})
import pycontainers.linux.cgroups, pycontainers.metrics.history, pycontainers.metrics.sample
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


@pytest.mark.root
def test_a_reading_costs_little_more_than_its_files() -> None:
    """The budget is 10 ms of CPU for 100 containers. It is a ratio here, so that a slow or busy machine does not fail it."""
    where = cgroups.layout()
    if not where.writable or os.geteuid() != 0:
        pytest.skip(f"no groups can be made here: {where.why or 'needs root'}")
    group = cgroups.create(f"/pycontainers-test-{os.getpid()}", {})
    process = subprocess.Popen(["sleep", "100"])
    before = set(os.listdir("/proc/self/fd"))
    try:
        group.add(process.pid)
        with open(f"/proc/{process.pid}/net/dev", "rb") as net:
            sampler = Sampler(group)
            files = [int(fd) for fd in set(os.listdir("/proc/self/fd")) - before if os.path.exists(f"/proc/self/fd/{fd}")]
            whole = cost(lambda: sampler.read(net.fileno()))
            bare = cost(lambda: [os.pread(fd, 8192, 0) for fd in files])
            sampler.close()
    finally:
        process.kill()
        process.wait()
        group.kill()
        group.remove()
    assert set(os.listdir("/proc/self/fd")) == before
    print(f"100 samples: {whole * 1000:.1f} ms of CPU, {len(files)} files alone {bare * 1000:.1f} ms")
    assert len(files) >= 5 and whole < 8 * bare


def cost(work: Callable[[], object]) -> float:
    """Seconds of CPU for 100 times, the best of five."""
    found = []
    for _ in range(5):
        begin = time.process_time()
        for _ in range(100):
            work()
        found.append(time.process_time() - begin)
    return min(found)
