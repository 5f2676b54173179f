"""Machines that refuse an ordinary user something: said in one line with the remedy, by ``run`` and by ``doctor``."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

import pytest

from .conftest import Somebody, wait_for

NONE = ("--network", "none")


def rows(somebody: Somebody) -> dict[str, str]:
    return {line[3:].split("  ")[0].strip(): line.rstrip() for line in somebody("doctor", code=None).splitlines()}


def test_doctor_of_a_machine_that_allows_all(mapped: Somebody) -> None:
    found = rows(mapped)
    assert found["user namespace of a container"].endswith(" ok") and "subordinate" in found["ids inside"]
    assert "root" not in found


def test_doctor_names_what_a_single_id_comes_from(people: Callable[..., Somebody]) -> None:
    assert "usermod --add-subuids" in rows(people(ranges=False))["ids inside"]


def test_doctor_names_the_missing_newuidmap(people: Callable[..., Somebody]) -> None:
    somebody = people(without=("newuidmap", "pasta", "pasta.avx2", "slirp4netns"))
    found = rows(somebody)
    assert "newuidmap is not installed" in found["ids inside"] and "uidmap" in found["ids inside"]
    assert "apt-get install passt" in found["way out (user mode)"]
    assert somebody("run", "--rm", *NONE, "host", "id", "-u") == "0\n"


def test_no_user_namespaces_at_all(people: Callable[..., Somebody]) -> None:
    """In a user namespace that may have none below it: only there is the limit its own (namespaces(7), /proc/sys/user)."""
    somebody = people(without=("pyct-no-namespaces",))
    somebody.limit_namespaces(0)
    assert somebody("run", *NONE, "host", "true", code=125) == ""
    lines = somebody.stderr.strip().splitlines()
    assert len(lines) == 2, somebody.stderr
    assert "user.max_user_namespaces is 0" in lines[0] and "sysctl user.max_user_namespaces" in lines[1]
    row = rows(somebody)["launcher"]
    assert "missing" in row and "max_user_namespaces" in row
    somebody.limit_namespaces(None)


def test_a_masked_proc(people: Callable[..., Somebody]) -> None:
    """As in a container of another engine: no new proc may be mounted. The machine's is shown then, and that is said."""
    somebody = people(without=("pyct-masked",))
    somebody.outside("mount -t tmpfs mask /proc/acpi 2>/dev/null || mount -t tmpfs mask /proc/bus")
    name = somebody("run", "-d", *NONE, "host", "sleep", "60").strip()
    assert any("processes outside are visible" in note for note in somebody.inspect(name)["notes"])
    script = (
        "import os\n"
        "print(os.readlink('/proc/self/exe') != '', os.getpid() < 50)\n"
        "me, mine = os.path.basename(os.readlink('/proc/self')), os.stat('/').st_dev\n"
        "def reach(p):\n"
        "    try: return os.stat(f'/proc/{p}/root/').st_dev != mine\n"
        "    except OSError: return False\n"
        "print([p for p in os.listdir('/proc') if p.isdigit() and reach(p)])\n"
        "try: open('/proc/sys/kernel/domainname', 'w'); print('written')\nexcept OSError as error: print(error.strerror)\n"
    )
    lines = somebody("exec", name, "python3", "-c", script).splitlines()
    assert lines[0].startswith("True")
    assert lines[1] == "[]"  # nobody outside is reached through it
    assert lines[2] == "Read-only file system"
    somebody("rm", "-f", name)


@pytest.mark.parametrize("way", ["--userns=host"])
def test_what_only_root_can_give(mapped: Somebody, way: str) -> None:
    assert mapped("run", *NONE, way, "host", "true", code=None) == ""
    assert "needs root" in mapped.stderr


@pytest.mark.parametrize("limit", ["nproc", "as", "nofile"])
def test_a_session_with_hard_limits(people: Callable[..., Somebody], limit: str) -> None:
    """From too little to enough for everything that a first run starts: done, or refused in two lines, with nothing half made."""
    somebody = people(without=("pyct-limited",))
    program = [f"{somebody.base}/venv/bin/python", "-m", "pycontainers.commands.program"]
    values = {"nproc": range(1, 20, 2), "as": [n << 20 for n in (12, 20, 30, 40, 60, 200)], "nofile": [*range(6, 40, 3), 64]}[limit]
    somebody("run", "--rm", *NONE, "host", "true")  # the image is there
    seen = set()
    for value in values:
        for pid in somebody.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not somebody.processes())
        begun = time.monotonic()
        done = somebody.do("prlimit", f"--{limit}={value}", *program, "run", "--rm", *NONE, "host", "true")
        assert time.monotonic() - begun < 30, value
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            ours = [line.partition(":")[0] for line in lines] in (["error"], ["error", "hint"])
            assert ours or "pycontainers" not in done.stderr, (value, done.stderr)  # else the interpreter itself could not start
            seen.add("refused")
        else:
            seen.add("done")
        for pid in somebody.processes():  # they have the limit too
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not somebody.processes())
        somebody("run", "--rm", *NONE, "host", "true")
        assert [line for line in somebody("ps", "-a").splitlines()[1:] if "Created" not in line] == []
    assert seen == {"done", "refused"}, seen
