"""A container that wears out the runtime, so that it fails for everybody: depth, size, silence, speed, processes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from pycontainers import errors
from pycontainers.protocol import CommitRequest, Resources
from pycontainers.runtime import state

pytestmark = pytest.mark.root

DEEP = "import os\nfor _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')\n"


def test_folders_too_deep_to_be_removed_by_path(engine: Any, output: Any, running: Any, remains: Any) -> None:
    """A recursive removal ends with RecursionError, in the supervisor, and again in the sweep at the start of every later command."""
    before = remains()
    output(engine, "python", "-c", DEEP, workdir="/tmp")
    container = running(engine, "python", "-c", DEEP, workdir="/tmp")
    assert engine.wait(container).code == 0
    engine.remove(container)
    assert remains() == before
    assert not [name for name in os.listdir(engine.paths.containers) if name.startswith(".")]


@pytest.mark.parametrize(("name", "levels"), [("d", 1500), ("d" * 250, 30)], ids=["deep", "long"])
def test_folders_too_deep_for_an_image_are_one_error(engine: Any, running: Any, remains: Any, name: str, levels: int) -> None:
    before = remains()
    container = running(engine, "python", "-c", DEEP.replace("'d'", repr(name)).replace("1500", str(levels)), workdir="/srv")
    assert engine.wait(container).code == 0
    if name != "d":  # this takes a look at each folder on the way for each folder
        with pytest.raises(errors.ImageError, match=r"longer than 4096"):
            engine.diff(container)
    with pytest.raises(errors.ImageError, match=r"levels deep|longer than 4096"):
        for _ in engine.commit(container, CommitRequest()):
            pass
    engine.remove(container)
    assert remains() == before


def test_fork_bomb_ends_at_its_limit(engine: Any, running: Any, execute: Any) -> None:
    """The limit holds for it alone: another container starts, and removal ends all."""
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    container = running(engine, "python", "-c", bomb, resources=Resources(pids_limit=30, cpus=0.2))
    with contextlib.suppress(errors.ContainersError):
        execute(engine, container, "true")
    assert execute(engine, running(engine), "echo", "fine") == "fine\n"
    engine.remove(container, force=True)


def test_full_shm_and_dev_are_the_containers_own_error(engine: Any, output: Any) -> None:
    fill = "dd if=/dev/zero of=%s bs=1M count=100 2>&1 | grep -c 'No space'"
    assert output(engine, "sh", "-c", f"{fill % '/dev/shm/x'}; {fill % '/dev/x'}") == "1\n1\n"


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN])
def test_first_process_that_stops_itself_can_be_ended(engine: Any, running: Any, number: int) -> None:
    script = f"import os, signal\nprint('stops', flush=True)\nos.kill(1, {number:d})\nos.kill(os.getpid(), {number:d})\nsignal.pause()"
    container = running(engine, "python", "-c", script)
    assert next(engine.logs(container, follow=True)).text == "stops"
    engine.stop(container, timeout=0.2)
    assert engine.find(container).status == "exited"


def test_stopped_exec_does_not_hold_others_up(engine: Any, running: Any, execute: Any) -> None:
    """Root inside stops whatever enters, before it has confined itself: only that exec waits."""
    watch = """
import os, signal
print('watching', flush=True)
while True:
    for pid in os.listdir('/proc'):
        if pid.isdigit() and int(pid) not in (1, os.getpid()):
            try: os.kill(int(pid), signal.SIGSTOP)
            except OSError: pass
"""
    container = running(engine, "python", "-c", watch, resources=Resources(cpus=0.5))
    assert next(engine.logs(container, follow=True)).text == "watching"

    def held() -> None:
        with contextlib.suppress(errors.ContainersError):
            execute(engine, container, "sleep", "100")

    thread = threading.Thread(target=held)
    thread.start()
    other = running(engine)
    assert execute(engine, other, "echo", "fine") == "fine\n"
    engine.remove(container, force=True)
    thread.join(20)
    assert not thread.is_alive(), "the exec did not end with its container"


def test_closed_output_is_not_the_end(engine: Any, running: Any) -> None:
    script = "import os, time\nprint('last words', flush=True)\nfor fd in (0, 1, 2): os.close(fd)\ntime.sleep(0.3)\nos._exit(7)"
    container = running(engine, "python", "-c", script)
    assert engine.wait(container).code == 7
    assert [line.text for line in engine.logs(container)] == ["last words"]


def test_flood_without_a_line_end_is_bounded_in_memory(engine: Any, running: Any) -> None:
    """64 MB in one line: cut into parts, never held."""
    container = running(engine, "python", "-c", "import os, time\nfor _ in range(64): os.write(1, b'x' * (1 << 20))\ntime.sleep(100)")
    total = 0
    for line in engine.logs(container, follow=True):
        total += len(line.text)
        assert len(line.text) <= 1 << 14
        if total == 64 << 20:
            break
    pid = (state.read(engine.find(container).folder, "state.json") or {})["supervisor"]["pid"]
    peak = next(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert peak < 40_000, f"the supervisor grew to {peak} kB"
