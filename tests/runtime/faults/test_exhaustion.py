"""A machine that refuses: a full disk, a read-only one, no more processes, no more files, a helper that cannot start.

Each is one line with a hint, nothing is half made, and it works again afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.errors import ContainersError
from pycontainers.linux import cgroups, sockets
from pycontainers.paths import Paths
from pycontainers.protocol import BuildRequest, CommitRequest, ContainerConfig, ExecConfig, HealthCheck, Resources
from pycontainers.runtime import client
from tests.conftest import _end, leave_launcher

from .conftest import House

pytestmark = pytest.mark.root


class Disk:
    """A home on a small file system of its own."""

    def __init__(self, base: str) -> None:
        self.home = f"{base}/home"
        os.mkdir(self.home)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=711", "pyct-small", self.home], check=True)
        self.paths = Paths(Path(self.home), Path(f"{base}/run"))
        assert self.run("true") == ""

    @property
    def engine(self) -> NativeEngine:
        return NativeEngine(self.paths)

    def run(self, *command: str) -> str:
        said = bytearray()
        asked = ContainerConfig("host", command, network="none", auto_remove=True)
        self.engine.run(asked, None, lambda stream, data: said.extend(data))
        return said.decode()

    def fill(self) -> None:
        with open(f"{self.home}/filler", "ab", buffering=0) as file:
            try:
                while file.write(bytes(4096)) == 4096:
                    pass
            except OSError:
                return

    def free(self) -> None:
        os.unlink(f"{self.home}/filler")

    def tree(self) -> list[str]:
        """What lies in the folders that a half-made thing would be in."""
        where = self.paths
        return sorted(
            f"{folder.name}/{name}"
            for folder in (where.containers, where.containers / "names", where.images / "ingest", where.images / "snapshots")
            if folder.exists()
            for name in os.listdir(folder)
        )


@pytest.fixture(scope="module")
def small() -> Iterator[Disk]:
    base = tempfile.mkdtemp(prefix="pyct-small-", dir="/var/tmp")
    found = Disk(base)
    try:
        yield found
    finally:
        subprocess.run(["mount", "-o", "remount,rw", found.home], check=False)
        Path(found.home, "filler").unlink(missing_ok=True)
        _end(found.paths)
        subprocess.run(["umount", "-l", found.home], check=False)
        subprocess.run(["rm", "-rf", "--one-file-system", base], check=False)


@pytest.fixture
def disk(small: Disk) -> Iterator[Disk]:
    yield small
    Path(small.home, "filler").unlink(missing_ok=True)
    for info in small.engine.containers(all=True):
        small.engine.remove(info.id, force=True)


def refused(call: Callable[[], Any], *words: str) -> None:
    with pytest.raises(ContainersError) as caught:
        found = call()
        if hasattr(found, "__next__"):
            list(found)
    error = caught.value
    assert "\n" not in error.message and error.hint, (error.message, error.hint)
    for word in words:
        assert word in error.message, error.message


def config(*command: str, **more: Any) -> ContainerConfig:
    return ContainerConfig("host", command or ("sleep", "1000"), network="none", **more)


FULL = "No space left on device"


def test_nothing_is_half_created_on_a_full_disk(disk: Disk) -> None:
    before = disk.tree()
    disk.fill()
    refused(lambda: disk.engine.create(config(name="full")), FULL)
    refused(lambda: disk.engine.run(config("true", auto_remove=True)), FULL)
    assert disk.tree() == before
    disk.free()
    assert disk.run("echo", "again") == "again\n"


def test_a_start_on_a_full_disk_is_undone_and_can_be_done_later(disk: Disk) -> None:
    info = disk.engine.create(config(name="late"))
    disk.fill()
    refused(lambda: disk.engine.start("late"), FULL)
    assert disk.engine.find("late").status in ("created", "exited")
    group = cgroups.open(disk.engine.oci(info.id)["linux"]["cgroupsPath"])
    assert not any(os.path.isdir(path) for path in group.paths.values())
    disk.free()
    assert disk.engine.start("late").status == "running"


def test_the_exit_code_of_a_container_that_ends_on_a_full_disk_is_kept(disk: Disk) -> None:
    engine = disk.engine
    engine.start(engine.create(config("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.02; done", name="ends")).id)
    disk.fill()
    assert engine.exec("ends", ExecConfig(("true",))).code == 0
    assert engine.stop("ends").exit.code == 3
    assert disk.engine.find("ends").exit.code == 3
    assert engine.wait("ends").code == 3
    engine.remove("ends")  # removing needs no room
    disk.free()


def test_a_log_says_what_a_full_disk_took(disk: Disk) -> None:
    engine = disk.engine
    script = "import sys\nfor line in sys.stdin: print(line.strip() * 3000, flush=True)"
    engine.create(config("python", "-u", "-c", script, name="talks", stdin_open=True))
    engine.start("talks")
    session = engine.attach("talks", feed=True)

    def say(word: str) -> None:
        session.feed(word.encode() + b"\n")
        got = 0
        while got < 3 * 3000:
            got += sum(len(data) for _, data in session.receive(session.sources()[0]))

    say("one")
    disk.fill()
    say("two")
    say("six")
    disk.free()
    say("ten")
    text = "\n".join(line.text for line in engine.logs("talks"))
    session.close()
    assert "oneone" in text and "tenten" in text
    assert "bytes of the log are lost: the disk was full" in text


@pytest.mark.parametrize("running", [True, False], ids=["running", "exited"])
def test_update_and_rename_on_a_full_disk_change_nothing(disk: Disk, running: bool) -> None:
    engine = disk.engine
    info = engine.create(config(name="stays", resources=Resources(pids_limit=100)))
    if running:
        engine.start("stays")
    tree = disk.tree()
    disk.fill()
    refused(lambda: engine.update("stays", Resources(pids_limit=50)), FULL)
    refused(lambda: engine.rename("stays", "other"), FULL)
    assert disk.engine.find("stays").resources.pids_limit == 100 and disk.tree() == tree
    assert disk.engine.oci("stays")["linux"]["resources"]["pids"]["limit"] == 100
    if running:
        group = cgroups.open(engine.oci(info.id)["linux"]["cgroupsPath"])
        assert Path(group.paths["pids"] if "pids" in group.paths else group.paths["memory"], "pids.max").read_text().strip() == "100"
    disk.free()
    assert engine.update("stays", Resources(pids_limit=50)).resources.pids_limit == 50
    assert engine.rename("stays", "other").name == "other"


def test_builds_and_commits_on_a_full_disk_leave_nothing(disk: Disk, tmp_path: Path) -> None:
    engine = disk.engine
    engine.run(config("sh", "-c", "head -c 100000 /dev/zero > /root/data", name="work"))
    asked = BuildRequest("FROM host\nRUN head -c 3000000 /dev/urandom > /root/much\n", str(tmp_path))
    before = disk.tree()
    disk.fill()
    refused(lambda: engine.commit("work", CommitRequest("committed")), FULL)
    refused(lambda: engine.build(asked), FULL)
    assert disk.tree() == before
    disk.free()
    for _ in engine.commit("work", CommitRequest("committed")):
        pass
    assert "committed" in str(engine.image("committed").names)


def test_a_read_only_home_is_said_and_still_listed(disk: Disk) -> None:
    engine = disk.engine
    engine.create(config(name="there"))
    before = disk.tree()
    subprocess.run(["mount", "-o", "remount,ro", disk.home], check=True)
    try:
        assert [info.name for info in disk.engine.containers(all=True)] == ["there"]
        for call in (
            lambda: disk.engine.create(config(name="no")),
            lambda: disk.engine.start("there"),
            lambda: disk.engine.rename("there", "no"),
            lambda: disk.engine.update("there", Resources(pids_limit=50)),
            lambda: disk.engine.remove("there"),
        ):
            refused(call, "Read-only file system")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk.home], check=True)
    assert disk.tree() == before
    assert disk.engine.start("there").status == "running"


# -- processes, files, helpers


def launcher_processes(house: House) -> list[int]:
    run, found = os.fsencode(house.paths.run), []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if run in line and b"launcher" in line:
            found.append(int(pid))
    return found


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_no_more_processes_for_the_launcher(tidy: House, spare: int) -> None:
    """A pids limit of the session that the launcher was started in: ``spare`` more processes are allowed; 0: none but the launcher."""
    layout = cgroups.layout()
    if "pids" not in layout.controllers:
        pytest.skip("no pids controller of cgroup v1 here")
    folder = Path(layout.controllers["pids"], f"pyct-faults-{os.getpid()}")
    tidy.engine.run(config("true", auto_remove=True))
    folder.mkdir()
    try:
        for pid in launcher_processes(tidy):
            with contextlib.suppress(ProcessLookupError):
                (folder / "cgroup.procs").write_text(str(pid))
        number = int((folder / "pids.current").read_text())
        (folder / "pids.max").write_text(str(number + spare if spare else 1))
        refusals = 0
        for _ in range(3):  # the first may find everything prepared
            try:
                tidy.engine.run(config("true", auto_remove=True))
            except ContainersError as error:
                assert "\n" not in error.message and error.hint, (error.message, error.hint)
                refusals += 1
        assert refusals or spare, "starts without one more process: the limit does not limit"
        (folder / "pids.max").write_text("max")
        tidy.engine.run(config("true", auto_remove=True))
        assert tidy.left() == {}
    finally:
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                Path(layout.controllers["pids"], "cgroup.procs").write_text(pid)
        end = time.monotonic() + 5
        while folder.exists() and time.monotonic() < end:
            try:
                folder.rmdir()
            except OSError:
                time.sleep(0.05)


@contextlib.contextmanager
def little_memory(megabytes: float, pids: list[int]) -> Iterator[Path]:
    """These processes, and those that they make, get so much more memory; who needs what is not there is killed by the kernel."""
    layout = cgroups.layout()
    if "memory" not in layout.controllers:
        pytest.skip("no memory controller of cgroup v1 here")
    root = Path(layout.controllers["memory"])
    folder = root / f"pyct-faults-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / "memory.limit_in_bytes").write_text(str(int(megabytes * (1 << 20))))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (folder / "cgroup.procs").write_text(str(pid))
        yield folder
    finally:
        (folder / "memory.limit_in_bytes").write_text("-1")
        end = time.monotonic() + 5
        while folder.exists() and time.monotonic() < end:
            for pid in (folder / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    (root / "cgroup.procs").write_text(pid)
            with contextlib.suppress(OSError):
                folder.rmdir()


def test_no_more_memory_for_the_launcher_and_what_it_makes(tidy: House) -> None:
    """The kernel kills whom it likes of launcher, supervisors and starters: a line to the client, or a marked end, and nothing is left."""
    seen, killed = set(), 0
    for quarter in range(1, 40, 1 if os.environ.get("PYCONTAINERS_ALL_FAULTS") else 3):
        tidy.engine.run(config("true", auto_remove=True))
        tidy.settled(tidy.processes)  # what is made for the next start is there, and is what is to be short of memory
        with little_memory(quarter / 4, launcher_processes(tidy)) as group:
            try:
                tidy.engine.run(config("sh", "-c", "exit 7", name="f"))
                seen.add("done")
            except ContainersError as error:
                assert "\n" not in error.message and error.message, error.message
                seen.add("refused")
            killed += int((group / "memory.oom_control").read_text().rpartition("oom_kill ")[2] or 0)
        for info in tidy.note():
            if info.exit is not None:
                assert info.exit.code == 7 or info.exit.error, (quarter, info.exit)
        tidy.clear()
        assert tidy.left() == {}, quarter
    assert seen == {"done", "refused"} and killed, "the limits do not limit"


def test_no_more_memory_for_the_kernel(tidy: House) -> None:
    """What it may map, from too little to enough: each call is done, or refused in one line."""
    code = """
import resource
from pycontainers.errors import ContainersError
pc.run('host', ['true'], rm=True, network='none')
mapped = lambda: int(open('/proc/self/statm').read().split()[0]) * 4096
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
found = []
for spare in [0, *(1 << n for n in range(12, 25))]:
    resource.setrlimit(resource.RLIMIT_AS, (mapped() + spare, hard))
    try:
        pc.run('host', ['true'], rm=True, network='none')
        pc.ps()
        found.append('ok')
    except (ContainersError, MemoryError) as error:  # Python's own where there is not even room for a message
        found.append('refused' if chr(10) not in str(getattr(error, 'message', '')) else repr(error))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
pc.run('host', ['true'], rm=True, network='none')
result = found
"""
    outcome = tidy.outcome(tidy.kernel(code))
    assert "ok" in outcome, outcome
    assert set(eval(outcome["ok"])) <= {"ok", "refused"}, outcome
    assert tidy.left() == {}


def test_no_more_files_for_the_kernel(tidy: House) -> None:
    """From none to enough: each call is done, or refused in one line."""
    code = """
import os, resource
from pycontainers.errors import ContainersError
pc.run('host', ['true'], rm=True, network='none')
found = []
for spare in range(16):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    taken = []
    try:
        while True:
            taken.append(os.open('/dev/null', os.O_RDONLY))
    except OSError:
        pass
    for fd in taken[:spare]:
        os.close(fd)
    try:
        pc.run('host', ['true'], rm=True, network='none')
        found.append('ok')
    except ContainersError as error:
        found.append('refused' if error.hint and chr(10) not in error.message else repr(error))
    finally:
        for fd in taken[spare:]:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
pc.run('host', ['true'], rm=True, network='none')
result = found
"""
    outcome = tidy.outcome(tidy.kernel(code))
    assert "ok" in outcome, outcome
    assert set(eval(outcome["ok"])) == {"ok", "refused"}, outcome
    assert tidy.left() == {}


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextlib.contextmanager
def at_most(pids: list[int], number: int) -> Iterator[None]:
    """Open files of these processes, and of those that they make."""
    before = {}
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                before[pid] = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (number, before[pid][1]))
        yield
    finally:
        for pid, limit in before.items():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)


def crowd(path: str, greeting: bool) -> tuple[list[Any], dict[str, Any]]:
    """As many clients as are let in, and what the next one is told."""
    clients = []
    while len(clients) < 200:
        clients.append(sockets.connect(path, 0.3 if not greeting else 5))
        try:
            told, _ = sockets.receive(clients[-1])
        except TimeoutError:
            continue  # let in: nothing is said before it asks
        if told is None or "hello" not in told:
            return clients, told or {}
    raise AssertionError("200 were let in")


def test_a_launcher_with_as_many_clients_as_it_may_have_files(tidy: House) -> None:
    tidy.engine.run(config("true", auto_remove=True))
    with sockets.connect(tidy.paths.launcher_socket, 5) as conn:
        launcher = int((sockets.receive(conn)[0] or {})["pid"])
    with at_most([launcher], files(launcher) + 8):
        clients, told = crowd(str(tidy.paths.launcher_socket), greeting=True)
        assert "takes no more clients" in told["message"] and told["hint"], told
        begun = time.monotonic()
        refused(lambda: tidy.engine.run(config("true", auto_remove=True)), "takes no more clients", "Too many open files")
        assert time.monotonic() - begun < 9  # and not only when it has waited for a greeting long enough
        for client_ in clients:
            client_.close()
        tidy.engine.run(config("true", auto_remove=True))
    assert tidy.left() == {}


def test_a_supervisor_with_as_many_clients_as_it_may_have_files(tidy: House) -> None:
    """It is the container's life: it refuses, leaves out what it cannot do (samples, health checks), and goes on."""
    check = HealthCheck(test=("CMD", "true"), interval=0.2)
    info = tidy.start("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done", health=check)
    now = json.loads(Path(info.folder, "state.json").read_text())
    supervisor = now["supervisor"]["pid"]
    time.sleep(0.3)  # its first sample has been taken
    with at_most([supervisor], files(supervisor) + 8):
        clients, told = crowd(now["control"], greeting=False)
        assert "takes no more clients" in told["message"] and told["hint"], told
        for _ in range(5):
            refused(lambda: tidy.engine.update("f", Resources(pids_limit=50)), "takes no more clients")
        time.sleep(0.6)
        health = json.loads(Path(info.folder, "health.json").read_text())
        assert any("Too many open files" in probe["output"] for probe in health["log"]), health
        for client_ in clients:
            client_.close()
        assert tidy.engine.update("f", Resources(pids_limit=50)).resources.pids_limit == 50
    assert tidy.engine.stop("f").exit.code == 3
    tidy.clear()
    assert tidy.left() == {}


def test_no_more_files_for_the_launcher_and_what_it_makes(tidy: House) -> None:
    """From too few to enough: each start is done, or refused in one line and undone; none waits for what cannot come."""
    seen = set()
    tidy.engine.run(config("true", auto_remove=True))
    for number in range(8, 44, 2 if os.environ.get("PYCONTAINERS_ALL_FAULTS") else 3):
        with at_most(launcher_processes(tidy), number):
            begun = time.monotonic()
            try:
                tidy.engine.run(config("true", auto_remove=True))
                seen.add("done")
            except ContainersError as error:
                assert "\n" not in error.message and error.hint, (error.message, error.hint)
                seen.add("refused")
            assert time.monotonic() - begun < 30, number
        leave_launcher(tidy.paths)  # with all that had the limit from it
        tidy.engine.run(config("true", auto_remove=True))
        assert tidy.left() == {}, number
    assert seen == {"done", "refused"}


def test_who_starts_the_launcher_with_few_files_does_not_limit_others(small: Disk, tmp_path: Path) -> None:
    where = Paths(small.paths.home, tmp_path / "run").prepare()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files(os.getpid()) + 20, limit[1]))
        client.isolation(where)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        with sockets.connect(where.launcher_socket, 5) as conn:
            pid = (sockets.receive(conn)[0] or {})["pid"]
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] == min(1024, limit[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        leave_launcher(where)


@pytest.mark.parametrize("program", ["/nowhere/python", "/etc/passwd", "/bin/false"])
def test_a_launcher_that_cannot_be_started(small: Disk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str) -> None:
    run = tmp_path / "run"
    where = Paths(small.paths.home, run)
    argv = client.launcher_argv
    before = small.tree()
    monkeypatch.setattr(client, "launcher_argv", lambda paths: [program, *argv(paths)[1:]] if paths.run == run else argv(paths))
    with pytest.raises(ContainersError) as caught:
        NativeEngine(where).run(config("true"))
    assert "\n" not in caught.value.message and "launcher" in caught.value.message
    assert small.tree() == before


def test_a_run_folder_that_cannot_be_written(small: Disk, tmp_path: Path) -> None:
    before = small.tree()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "pyct-ro", str(tmp_path)], check=True)
    try:
        refused(lambda: NativeEngine(Paths(small.paths.home, tmp_path / "run")).run(config("true")), "Read-only file system")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert small.tree() == before
