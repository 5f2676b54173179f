"""``--init``: process 1 that reaps and forwards, on both architectures, and in an image that has nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.linux.assembler import TARGETS, Assembler, elf
from pycontainers.protocol import ContainerConfig, ExecConfig
from pycontainers.runtime import init_program

_EMULATORS = {"aarch64": "qemu-aarch64-static", "x86_64": "qemu-x86_64-static"}


@pytest.fixture(params=list(TARGETS))
def init(request: Any, tmp_path: Path) -> list[str]:
    """The words that run the program of an architecture here."""
    program = tmp_path / "docker-init"
    program.write_bytes(init_program.build(request.param))
    program.chmod(0o755)
    if request.param == os.uname().machine:
        return [str(program)]
    emulator = shutil.which(_EMULATORS[request.param])
    if emulator is None:
        pytest.skip(f"needs {_EMULATORS[request.param]} to run a program of {request.param} (Debian's qemu-user-static)")
    return [emulator, str(program)]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--", "sh", "-c", "echo out; exit 7"], 7, "out\n"),
        (["sh", "-c", "exit 0"], 0, ""),
        (["--", "/bin/sh", "-c", "kill -9 $$"], 128 + signal.SIGKILL, ""),
        (["--", "sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM, ""),
        (["--", "no-such-command"], 127, "docker-init: the command is not in the image\n"),
        (["--", "/no/such/command"], 127, "docker-init: the command is not in the image\n"),
        (["--", "/etc/passwd"], 126, "docker-init: the command cannot be executed\n"),
        (["--", "not-executable"], 126, "docker-init: the command cannot be executed\n"),
        (["--"], 127, "docker-init: the command is not in the image\n"),
        ([], 127, "docker-init: the command is not in the image\n"),
    ],
)
def test_commands_and_their_ends(init: list[str], tmp_path: Path, words: list[str], code: int, said: str) -> None:
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "not-executable").write_text("#!/bin/sh\n")
    environment = {"A": "1", "PATH": f":/nowhere:{tmp_path}/found:/usr/bin:/bin"}
    done = subprocess.run([*init, *words], capture_output=True, text=True, env=environment, check=False, cwd="/")
    assert (done.returncode, done.stdout + done.stderr) == (code, said)


def test_the_words_and_the_environment_go_on_unchanged(init: list[str]) -> None:
    words = ["", "a b", "--", "é\n", "x" * 5000]
    done = subprocess.run([*init, "--", "printf", "%s|", *words], capture_output=True, env={"PATH": "/usr/bin", "E": "=="}, check=True)
    assert done.stdout.decode().split("|")[:-1] == words
    done = subprocess.run([*init, "env"], capture_output=True, text=True, env={"PATH": "/usr/bin", "E": "=="}, check=True)
    assert set(done.stdout.splitlines()) == {"PATH=/usr/bin", "E==="}


def test_a_path_too_long_for_any_file_is_not_found(init: list[str]) -> None:
    """The buffer is bounded: neither a long folder nor a long name is written beyond it."""
    for path, name in (("/" + "p" * 9000, "true"), ("/usr/bin", "n" * 20000)):
        done = subprocess.run([*init, name], stderr=subprocess.PIPE, env={"PATH": path}, check=False)
        assert done.returncode == 127


@pytest.fixture
def child(init: list[str]) -> Iterator[subprocess.Popen[str]]:
    script = "trap 'echo got HUP' HUP; trap 'echo got TERM; exit 5' TERM; echo ready; while :; do sleep 0.02; done"
    process = subprocess.Popen([*init, "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()


def test_signals_are_forwarded(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGHUP)
    assert child.stdout.readline() == "got HUP\n"
    child.send_signal(signal.SIGTERM)
    assert child.stdout.readline() == "got TERM\n"
    assert child.wait() == 5


def test_no_segment_is_writable_and_executable() -> None:
    for machine in TARGETS:
        data = init_program.build(machine)
        flags = [int.from_bytes(data[64 + 56 * n + 4 : 64 + 56 * n + 8], "little") for n in range(3)]
        assert not [flag for flag in flags if flag & 3 == 3], f"{machine}: {flags}"
        assert len(data) < 2048


_ORPHANS = """
import os, time
for _ in range(5):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.05)
        os._exit(0)
    os.wait()
deadline = time.monotonic() + 2
def zombies():
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found += open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            pass
    return found
while time.monotonic() < deadline and (len([p for p in os.listdir("/proc") if p.isdigit()]) - zombies() > %d):
    time.sleep(0.01)
time.sleep(0.1)
print(zombies())
"""


@pytest.mark.root
def test_orphans_are_reaped(run: Any) -> None:
    assert run("python", "-c", _ORPHANS % 1) == "5\n", "without --init they stay, which is what it is for"
    assert run("python", "-c", _ORPHANS % 2, init=True) == "0\n"


@pytest.mark.root
def test_a_command_without_handlers_ends_when_asked(engine: NativeEngine) -> None:
    """Process 1 ignores SIGTERM where it has no handler: without --init only SIGKILL ends it."""
    codes = {}
    for init in (True, False):
        config = ContainerConfig("host", ("sleep", "1000"), network="none", init=init)
        info = engine.start(engine.create(config).id)
        ended = engine.stop(info.id, 20 if init else 0.3)
        assert ended.exit is not None
        codes[init] = ended.exit.code
        assert info.command == ("sleep", "1000")
    assert codes == {True: 143, False: 137}


@pytest.mark.root
@pytest.mark.parametrize(("words", "code"), [(("sh", "-c", "exit 42"), 42), (("nonesuch",), 127), (("sh", "-c", "kill -SEGV $$"), 139)])
def test_the_exit_code_of_a_container_is_its_commands(run: Any, words: tuple[str, ...], code: int) -> None:
    run(*words, init=True)
    assert run.status.code == code


@pytest.mark.root
def test_it_is_read_only_inside_and_mended_outside(engine: NativeEngine, run: Any) -> None:
    run("sh", "-c", "echo x > /sbin/docker-init", init=True)
    assert run.status.code != 0 and "Read-only" in run.stderr
    place = Path(init_program.path(str(engine.paths.home)))
    place.write_bytes(b"something else")
    run("true", init=True)
    assert run.status.code == 0 and place.read_bytes() == init_program.build(os.uname().machine)


@pytest.mark.root
def test_an_image_that_has_nothing(engine: NativeEngine) -> None:
    """FROM scratch with one static program of ours, which ends with 33."""
    target = TARGETS[os.uname().machine]
    asm = Assembler(target)
    asm.call("exit_group", 33)
    tree = engine.store.new_layer()
    place = Path(tree, "program")
    place.write_bytes(elf(target.machine, asm.finished(), b"", 4096))
    place.chmod(0o755)
    layer = engine.store.commit(tree, "")
    image = {
        "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z", "config": {"Cmd": ["/program"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}, "history": [],
    }  # fmt: skip
    engine.store.tag(engine.store.save_image(image, [layer], "").id, "nothing")
    _, exit = engine.run(ContainerConfig("nothing", network="none", init=True, auto_remove=True))
    assert exit.code == 33
    by_name = ContainerConfig("nothing", ("program",), env={"PATH": "/"}, network="none", init=True, auto_remove=True, read_only=True)
    _, exit = engine.run(by_name)
    assert exit.code == 33


@pytest.mark.root
def test_exec_into_it_is_no_child_of_the_commands(engine: NativeEngine) -> None:
    info = engine.start(engine.create(ContainerConfig("host", ("sleep", "1000"), network="none", init=True)).id)
    seen: list[bytes] = []
    command = ExecConfig(("sh", "-c", "cat /proc/1/comm; (sleep 0.01 &); sleep 0.1; ls /proc | grep -c '^[0-9]'"))
    engine.exec(info.id, command, None, lambda stream, data: seen.append(data))
    deadline = time.monotonic() + 5
    while b"".join(seen).count(b"\n") < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert b"".join(seen).split()[0] == b"docker-init"
