"""What a process of a container could reach through one of ours: leaked descriptors, working directories, ``/proc/PID``."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers import errors

pytestmark = pytest.mark.root

LEAK = 99  # the descriptor of the host's root that the weakness "leak" leaves open


@pytest.fixture
def secret() -> Iterator[str]:
    """A file of the host that anybody may read who gets there."""
    with tempfile.NamedTemporaryFile("w", prefix="pyct-secret-", dir="/var/tmp") as file:
        file.write("of the host\n")
        file.flush()
        os.chmod(file.name, 0o644)
        yield file.name


class TestWorkingDirectory:
    """CVE-2024-21626: a leaked descriptor of the host as working directory (``-w /proc/self/fd/N``), and from there upwards.

    Two protections hold, each alone: nothing is open any more when the directory is entered, and a directory that the kernel
    cannot name from our root is refused.
    """

    def attack(self, way: str, engine: Any, secret: str, output: Any, running: Any, execute: Any) -> str:
        command, workdir = ("cat", secret.lstrip("/")), f"/proc/self/fd/{LEAK}"
        try:
            if way == "start":
                return str(output(engine, *command, workdir=workdir))
            return str(execute(engine, running(engine), *command, workdir=workdir))
        except errors.ContainersError as error:
            return error.message

    @pytest.mark.parametrize("way", ["start", "exec"])
    def test_succeeds_without_both(self, without: Any, way: str, secret: str, output: Any, running: Any, execute: Any) -> None:
        weak = without("leak", "closed_descriptors", "reachable_directory")
        assert self.attack(way, weak, secret, output, running, execute) == "of the host\n"

    @pytest.mark.parametrize("way", ["start", "exec"])
    def test_fails_with_descriptors_closed(self, without: Any, way: str, secret: str, output: Any, running: Any, execute: Any) -> None:
        weak = without("leak", "reachable_directory")
        assert "No such file" in self.attack(way, weak, secret, output, running, execute)

    @pytest.mark.parametrize("way", ["start", "exec"])
    def test_fails_with_the_directory_checked(self, without: Any, way: str, secret: str, output: Any, running: Any, execute: Any) -> None:
        weak = without("leak", "closed_descriptors")
        assert "outside the container" in self.attack(way, weak, secret, output, running, execute)

    @pytest.mark.parametrize("way", ["start", "exec"])
    def test_fails_here(self, without: Any, way: str, secret: str, output: Any, running: Any, execute: Any) -> None:
        """With the leak, and all that protects from it."""
        assert "No such file" in self.attack(way, without("leak"), secret, output, running, execute)

    def test_none_of_our_own_descriptors_is_a_way(self, engine: Any, output: Any) -> None:
        for number in range(3, 40):
            with pytest.raises(errors.ContainersError, match="working directory"):
                output(engine, "pwd", workdir=f"/proc/self/fd/{number}")


class TestInheritedDescriptor:
    """The same leak, used by the container's program itself."""

    LOOK = "import os; print(*(fd for fd in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + fd)))"

    def attack(self, engine: Any, secret: str, output: Any) -> str:
        return str(output(engine, "cat", f"/proc/self/fd/{LEAK}{secret}"))

    def test_succeeds_when_they_stay_open(self, without: Any, secret: str, output: Any) -> None:
        assert self.attack(without("leak", "closed_descriptors"), secret, output) == "of the host\n"

    def test_fails_here(self, without: Any, secret: str, output: Any) -> None:
        assert "No such file" in self.attack(without("leak"), secret, output)

    def test_nothing_but_stdio_is_open(self, engine: Any, output: Any, running: Any, execute: Any) -> None:
        container = running(engine)
        for said in (output(engine, "python", "-c", self.LOOK), execute(engine, container, "python", "-c", self.LOOK)):
            assert said == "0 1 2\n"


WATCH = """
import os, sys, time
secret, end, seen = sys.argv[1], time.monotonic() + 60, set()
print('watching', flush=True)
while time.monotonic() < end and not os.path.exists('/tmp/end'):
    for pid in os.listdir('/proc'):
        if pid.isdigit() and int(pid) not in (1, os.getpid()):
            try:
                seen.add(os.path.basename(os.readlink(f'/proc/{pid}/exe')))
                seen.add(f'{len(os.listdir(f"/proc/{pid}/fd"))} descriptors')
                seen.add(open(f'/proc/{pid}/fd/99{secret}').read().strip())
            except OSError as error:
                seen.add(f'errno {error.errno}')
print(sorted(seen), flush=True)
"""


def enter(way: str, engine: Any, container: str, command: tuple[str, ...], output: Any, execute: Any) -> None:
    """One more of our processes in the pid namespace of ``container``: by exec, or as the first one of a container that shares it."""
    if way == "exec":
        execute(engine, container, *command)
    else:
        output(engine, *command, pid=f"container:{container}")


@pytest.mark.parametrize("way", ["exec", "shared pid namespace"])
class TestLookingIn:
    """CVE-2016-9962: root of the container watches for the process that enters it, and takes what that has open, or its program."""

    def attack(self, way: str, engine: Any, secret: str, running: Any, output: Any, execute: Any) -> str:
        container = running(engine, "python", "-c", WATCH, secret)
        lines = engine.logs(container, follow=True)
        assert next(lines).text == "watching"
        for _ in range(3):
            enter(way, engine, container, ("sleep", "0.05"), output, execute)
        with contextlib.suppress(errors.ContainersError):  # the container may end first
            execute(engine, container, "touch", "/tmp/end")
        return str(next(lines).text)

    def test_succeeds_when_dumpable(self, without: Any, way: str, secret: str, running: Any, output: Any, execute: Any) -> None:
        found = self.attack(way, without("leak", "closed_descriptors", "slow", "not_dumpable"), secret, running, output, execute)
        assert "of the host" in found
        assert "'python" in found

    def test_fails_when_not_dumpable_although_there_is_a_leak_and_time(
        self, without: Any, way: str, secret: str, running: Any, output: Any, execute: Any
    ) -> None:
        found = self.attack(way, without("leak", "closed_descriptors", "slow"), secret, running, output, execute)
        assert "errno 13" in found, "our process was not seen at all: the attack is not tried"
        assert "'python" not in found, found

    def test_fails_here(self, engine: Any, way: str, secret: str, running: Any, output: Any, execute: Any) -> None:
        found = self.attack(way, engine, secret, running, output, execute)
        assert "'sleep'" in found or "errno 13" in found, "nobody was seen at all: the attack is not tried"
        assert "'python" not in found
        assert "of the host" not in found


class TestHostsProcesses:
    """``--pid host``: our launcher and supervisors are seen. What they have open, or run, is not."""

    LOOK = """
import os
for pid in set(filter(str.isdigit, os.listdir('/proc'))) - {os.readlink('/proc/self')}:
    try:
        if b'pycontainers-launcher' not in open(f'/proc/{pid}/cmdline', 'rb').read(): continue
        print('seen')
        print('exe', os.readlink(f'/proc/{pid}/exe')); print('fd', os.listdir(f'/proc/{pid}/fd')); open(f'/proc/{pid}/mem', 'rb')
        print('open')
    except (FileNotFoundError, ProcessLookupError): pass
    except OSError as error: print('closed', error.errno)
"""

    def test_succeeds_with_the_right_to_trace(self, engine: Any, output: Any) -> None:
        """Which is asked for by name: ``--cap-add SYS_PTRACE`` as root of this machine."""
        assert "open\n" in output(engine, "python", "-c", self.LOOK, pid="host", userns="host", cap_add=("SYS_PTRACE",))

    @pytest.mark.parametrize("config", [{}, {"cap_add": ("SYS_PTRACE",)}, {"privileged": True}, {"userns": "host"}], ids=str)
    def test_fails_here(self, engine: Any, output: Any, config: Any) -> None:
        found = output(engine, "python", "-c", self.LOOK, pid="host", **config)
        assert "seen\n" in found, "no process of ours was seen: the attack is not tried"
        assert set(found.splitlines()) == {"seen", "closed 13"}, found


class TestExecIsOutside:
    def test_the_process_that_waits_outside_is_not_visible(self, engine: Any, running: Any, execute: Any) -> None:
        """The parent of an exec, which is ours, has no pid inside."""
        container = running(engine)
        said = execute(engine, container, "sh", "-c", "grep PPid /proc/$$/status; ls /proc | grep '^[0-9]'")
        assert said.split()[:2] == ["PPid:", "0"]
        assert set(said.split()[2:]) - {"1"}, said
        assert len(said.split()[2:]) <= 5, said


class TestFileHandles:
    """ "Shocker": a file that is bound from the host (/etc/hosts) is a way to its whole file system, by handles instead of paths
    (open_by_handle_at(2))."""

    OPEN = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
kind, handle = int(sys.argv[1]), bytes.fromhex(sys.argv[2])
whole = ctypes.create_string_buffer(struct.pack('Ii', len(handle), kind) + handle)
for flags in (os.O_RDONLY | os.O_DIRECTORY, os.O_RDONLY):
    fd = libc.open_by_handle_at(os.open('/etc/hosts', os.O_RDONLY), whole, flags)
    print(os.listdir(fd) if fd >= 0 else ctypes.get_errno())
"""

    @pytest.fixture
    def handle(self, engine: Any) -> Iterator[tuple[str, str]]:
        """The handle of a folder of the host, on the file system of our home."""
        with tempfile.TemporaryDirectory(prefix="pyct-secret-", dir=engine.paths.home) as folder:
            Path(folder, "secret").touch()
            whole = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.name_to_handle_at(-100, folder.encode(), whole, ctypes.byref(ctypes.c_int()), 0):
                pytest.skip(f"the file system of {folder} has no handles ({os.strerror(ctypes.get_errno())})")
            length, kind = struct.unpack_from("Ii", whole.raw)
            yield str(kind), whole.raw[8 : 8 + length].hex()

    def test_succeeds_as_root_of_this_machine_with_every_right(self, engine: Any, output: Any, handle: Any) -> None:
        assert "['secret']" in output(engine, "python", "-c", self.OPEN, *handle, privileged=True, userns="host")

    @pytest.mark.parametrize(
        "config", [{}, {"userns": "host"}, {"cap_add": ("DAC_READ_SEARCH", "SYS_ADMIN")}, {"privileged": True}], ids=str
    )
    def test_fails_here(self, engine: Any, output: Any, handle: Any, config: Any) -> None:
        said = output(engine, "python", "-c", self.OPEN, *handle, **config)
        assert "secret" not in said
        assert said.split()[0] in ("1", "116"), said  # EPERM; ESTALE, where a handle must lie below what is bound
