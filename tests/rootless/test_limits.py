"""Limits and figures of an ordinary user's containers: with control groups that were delegated to him, and without any."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Somebody, wait_for

NONE = ("--network", "none")
BUSY = ("python3", "-c", "while True: pass")


def hierarchies() -> list[str]:
    """Mount points of control groups, v1 and v2."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        rows = [line.split(" - ") for line in file]
    found = {}
    for before, after in rows:
        if after.split()[0] in ("cgroup", "cgroup2") and "rw" in before.split()[5].split(","):
            found.setdefault(after.split()[2] if after.split()[0] == "cgroup" else "v2", before.split()[4])
    return list(found.values())


@pytest.fixture
def delegated(people: Callable[..., Somebody]) -> Iterator[Somebody]:
    """A user to whom root has given a group in each hierarchy, and who is in it."""
    if not hierarchies():
        pytest.skip("no writable control groups on this machine")
    somebody = people(without=("pyct-nothing",))  # one of its own: his launcher starts in that group
    places = [Path(mount, f"pyct-{somebody.name}") for mount in hierarchies()]
    try:
        for place in places:
            if (place.parent / "cgroup.controllers").exists():  # v2 passes on what its parent passes on
                for name in (place.parent / "cgroup.controllers").read_text().split():
                    (place.parent / "cgroup.subtree_control").write_text(f"+{name}")
            place.mkdir()
            for name in ("", "cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control"):
                if (place / name).exists():
                    os.chown(place / name, somebody.uid, somebody.gid)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (place / name).exists() and (place / "tasks").exists():  # empty in a new group of v1: nobody may enter
                    (place / name).write_text((place.parent / name).read_text())
        somebody.enter = [str(place / "cgroup.procs") for place in places]
        yield somebody
        for line in somebody("ps", "-aq").split():
            somebody("rm", "-f", line, code=None)
        somebody.leave()
        wait_for(lambda: not somebody.processes())
    finally:
        somebody.enter = []
        for place in places:
            for below in sorted(place.glob("**/"), key=lambda path: -len(path.parts)):
                wait_for(lambda below=below: _gone(below))


def _gone(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def test_delegated_groups_limit_and_measure(delegated: Somebody) -> None:
    name = delegated("run", "-d", *NONE, "--memory", "64m", "--pids-limit", "50", "host", *BUSY).strip()
    about = delegated.inspect(name)
    groups = [line.split(":", 2) for line in Path(f"/proc/{about['pid']}/cgroup").read_text().splitlines()]
    assert any(f"pyct-{delegated.name}/" in path and path.endswith(about["id"]) for _, _, path in groups), groups
    place = next(
        Path(mount, path.lstrip("/")) for mount in hierarchies() for _, _, path in groups
        if any(Path(mount, path.lstrip("/"), file).exists() for file in ("memory.limit_in_bytes", "memory.max"))
        and path.endswith(about["id"])
    )  # fmt: skip
    limit = next(place / file for file in ("memory.limit_in_bytes", "memory.max") if (place / file).exists())
    assert int(limit.read_text()) == 64 << 20
    assert not any("RLIMIT" in note for note in about["notes"])
    delegated("pause", name)
    assert delegated.inspect(name)["status"] == "paused"
    delegated("unpause", name)
    # Its own group shows inside, and may not be written (CVE-2023-25809).
    look = "find /sys/fs/cgroup -name 'memory.*' | head -1 | wc -l; find /sys/fs/cgroup -writable -type f | head -3"
    assert delegated("exec", name, "sh", "-c", look) == "1\n"
    assert delegated("exec", name, "mkdir", "/sys/fs/cgroup/memory/x", code=1) == ""


def test_without_groups_limits_are_rlimits_and_say_so(somebody: Somebody) -> None:
    name = somebody("run", "-d", *NONE, "--memory", "100m", "--pids-limit", "20", "--cpus", "0.5", "host", *BUSY).strip()
    about = somebody.inspect(name)
    notes = "\n".join(about["notes"])
    for expected in ("RLIMIT_AS", "RLIMIT_NPROC", "--cpus is not limited", "no cgroup"):
        assert expected in notes
    limits = Path(f"/proc/{about['pid']}/limits").read_text()
    assert [line.split()[-3:-1] for line in limits.splitlines() if line.startswith("Max address space")] == [[str(100 << 20)] * 2]
    assert somebody("run", "--rm", *NONE, "--memory", "100m", "host", "python3", "-c", "bytearray(200 << 20)", code=1) == ""
    assert "MemoryError" in somebody.stderr
    many = "for i in 1 2 3 4 5 6 7; do sleep 1 & done"
    assert somebody("run", "--rm", *NONE, "--pids-limit", "5", "host", "sh", "-c", many, code=2) == ""


def test_without_groups_figures_are_summed_over_processes(somebody: Somebody) -> None:
    name = somebody("run", "-d", *NONE, "host", "sh", "-c", f"{BUSY[0]} {BUSY[1]} '{BUSY[2]}' & sleep 60").strip()

    def line() -> str:
        return next(line for line in somebody("stats", "--no-stream", name).splitlines() if line.startswith("Processes"))

    wait_for(lambda: float(line().split()[2]) > 0)
    assert next(int(word) for word in reversed(line().split()) if word.isdigit()) == 3  # the shell and its two
