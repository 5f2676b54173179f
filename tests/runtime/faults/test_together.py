"""Several notebooks and the program at work on the same containers at the same time: each call succeeds, or is refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pycontainers.protocol import ContainerConfig, Resources
from pycontainers.runtime import state

from .conftest import House

pytestmark = pytest.mark.root

_AT_WORK = """
import io, random, tempfile, time
from pycontainers.commands.frontend import native_engine
from pycontainers.errors import ContainersError
chance, end, refused, done = random.Random({seed}), time.monotonic() + {seconds}, [], 0
names = ['a', 'b', 'c']

def once():
    name = chance.choice(names)
    verb = chance.choice('{verbs}'.split(','))
    if verb == 'run':
        pc.run('host', ['sh', '-c', 'echo hello; exec sleep 30'], name=name, detach=True, network='none')
    elif verb == 'ps':
        repr(pc.ps(all=True))
    elif verb == 'run small':  # of an image that others make, and take away
        pc.run('made-' + name, ['/bin/sleep', '30'], name=name, detach=True, network='none', pull='never')
    elif verb == 'rmi':
        pc.get_image('made-' + name).remove(force=chance.random() < 0.3)
    elif verb == 'build':
        pc.build(chr(10).join(['FROM host', f'RUN echo {{chance.randrange(5)}} > /srv/x', '']), 'made-' + name)
    elif verb == 'prune':
        native_engine().prune()
    else:
        box = pc.get(name)
        if verb == 'rm': box.remove()
        elif verb == 'rm -f': box.remove(force=True)
        elif verb == 'stop': box.stop(timeout=0.2)
        elif verb == 'kill': box.kill()
        elif verb == 'start': box.start()
        elif verb == 'restart': box.restart(timeout=0.2)
        elif verb == 'rename': box.rename(chance.choice(names))
        elif verb == 'update': pc.update(box, pids_limit=chance.randrange(50, 100))
        elif verb == 'exec': box.exec(['true'])
        elif verb == 'pause': box.pause(); box.unpause()
        elif verb == 'logs': box.logs()
        elif verb == 'commit': pc.get_image(box.commit('made-' + name).id)
        elif verb == 'unpause': box.unpause()
        elif verb == 'diff': box.diff()
        elif verb == 'top': box.top()
        elif verb == 'wait': box.wait(timeout=0.1)
        elif verb == 'cp':
            with tempfile.TemporaryDirectory() as folder:
                box.copy_out('/etc/hosts', folder)
                box.copy_in(folder, '/srv')

while time.monotonic() < end:
    try:
        once()
        done += 1
    except ContainersError as error:
        if chr(10) in error.message or 'Error' in error.message.split(':')[0] or 'Errno' in error.message:
            raise AssertionError(f'not one line of ours: {{error.message}}')
        refused.append(error.message)
assert done, refused
result = done
"""


def program(*words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from pycontainers.commands.program import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=60)


_LIFE = "run,run,rm,rm -f,stop,kill,start,restart,rename,update,exec,pause,logs,ps"
_FILES = "run,run small,run small,build,build,commit,commit,rmi,prune,cp,diff,top,wait,rm,rm -f,stop,exec,rename,unpause"
_BESIDE = {
    _LIFE: ("ps -a", "stop -t 0 a", "rm -f b", "run -d --name c --network none host sleep 9"),
    _FILES: ("images", "prune", "commit a made-b", "rm -f b", "run -d --pull never --name c made-a sleep 9", "rmi made-c"),
}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("verbs", [_LIFE, _FILES], ids=["lives", "files and images"])
def test_three_notebooks_and_the_program_on_the_same_names(tidy: House, seed: int, verbs: str) -> None:
    seconds = 4 if verbs == _LIFE else 8
    kernels = [tidy.kernel(_AT_WORK.format(seed=seed * 10 + number, seconds=seconds, verbs=verbs)) for number in range(3)]
    end, said = time.monotonic() + seconds, []
    while time.monotonic() < end:
        for line in _BESIDE[verbs]:
            said.append(program(*line.split()))
    for kernel in kernels:
        outcome = tidy.outcome(kernel)
        assert "ok" in outcome, outcome.get("crash") or outcome
    for found in said:
        assert "Traceback" not in found.stderr and found.returncode in (0, 1, 125), found.stderr
    # Each name means one container, each container has one name, and each can be used.
    infos = tidy.note()
    names = Path(tidy.paths.containers, "names")
    assert sorted(info.name for info in infos) == sorted(os.listdir(names))
    assert all(os.readlink(names / info.name) == info.id for info in infos)
    for info in infos:
        record = json.loads(Path(info.folder, "container.json").read_text())
        assert record["resources"]["pids_limit"] == (tidy.engine.oci(info.id)["linux"]["resources"].get("pids") or {}).get("limit")
        assert info.status in (state.CREATED, state.RUNNING, state.PAUSED, state.EXITED)
    engine = tidy.engine
    tidy.clear()
    for image in engine.images():
        for name in image.names:
            if "made-" in name:
                assert engine.image(name).id == image.id
                engine.remove_image(name, force=True)
    assert tidy.left() == {}


# -- who is meant


def fake(house: House, **changes: object) -> str:
    """A container whose state.json was written elsewhere, or before; nobody supervises it."""
    engine = house.engine
    info = engine.create(ContainerConfig("host", ("true",), network="none", name="f"))
    mine = {"pid": os.getpid(), "start": 1, "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip()}
    mine["pidns"] = os.readlink("/proc/self/ns/pid")
    supervisor = {**mine, **{key: value for key, value in changes.items() if key in mine}}
    machine = changes.get("machine", state.machine())
    Path(info.folder, "lock").touch()
    now = {"status": state.RUNNING, "machine": machine, "supervisor": supervisor, "address": "", "started": 1.0}
    state.write(info.folder, "state.json", now)
    return info.id


def test_a_pid_that_was_given_to_another_process_is_not_taken_for_the_supervisor(tidy: House) -> None:
    fake(tidy)  # our own pid, with another start
    found = tidy.engine.find("f")
    assert found.status == "exited" and found.exit is not None and found.exit.code is None and "supervisor was killed" in found.exit.error


def test_what_ran_before_the_machine_was_started_again_has_ended(tidy: House) -> None:
    fake(tidy, boot="0" * 36)
    found = tidy.engine.find("f")
    assert found.status == "exited" and found.exit is not None and found.exit.code is None


@pytest.mark.parametrize("changes", [{"machine": "another", "boot": "0" * 36}, {"pidns": "pid:[1]"}], ids=["machine", "pid namespace"])
def test_nobody_repairs_what_lives_elsewhere(tidy: House, changes: dict[str, str]) -> None:
    identifier = fake(tidy, **changes)
    folder = Path(tidy.engine.folders.path(identifier))
    before = (folder / "state.json").read_bytes()
    assert tidy.engine.find("f").status == "running"
    assert (folder / "state.json").read_bytes() == before
    (folder / "state.json").unlink()  # so that it can be removed here


def test_updates_of_two_processes_are_both_there(tidy: House) -> None:
    tidy.start("sleep", "1000", resources=Resources(pids_limit=10, cpu_shares=100))
    code = "import time\nfor n in range(30): pc.update('f', {what}={base} + n)"
    kernels = [tidy.kernel(code.format(what="pids_limit", base=100)), tidy.kernel(code.format(what="cpu_shares", base=200))]
    for kernel in kernels:
        assert "ok" in (outcome := tidy.outcome(kernel)), outcome
    resources = tidy.engine.find("f").resources
    assert (resources.pids_limit, resources.cpu_shares) == (129, 229)
