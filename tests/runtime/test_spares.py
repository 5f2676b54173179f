"""What is made ahead of need: it is used, it may be killed, it is never stale, and it goes with the launcher."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.linux import cgroups, sockets
from pycontainers.protocol import ContainerConfig, ExecConfig, Mount, Port

pytestmark = pytest.mark.root


def launcher(engine: NativeEngine) -> int:
    with sockets.connect(engine.paths.launcher_socket, 5) as conn:
        greeting, _ = sockets.receive(conn)
        assert greeting is not None
        return int(greeting["pid"])


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def prepared(engine: NativeEngine) -> tuple[int, int, int]:
    """Mould, spare supervisor, its starter: as soon as they are there."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with contextlib.suppress(OSError):  # one that was there is being replaced
            for mould in children(launcher(engine)):
                for spare in children(mould):
                    for starter in children(spare):
                        # It stands in its own mounts: the last thing that it does before it waits.
                        alone = os.readlink(f"/proc/{starter}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
                        if alone and os.readlink(f"/proc/{starter}/ns/pid") == os.readlink("/proc/self/ns/pid") and not children(starter):
                            return mould, spare, starter
        time.sleep(0.02)
    raise AssertionError("no spare supervisor was made")


def first_process(engine: NativeEngine) -> int:
    """The one that is made ahead: a child of the spare supervisor in namespaces of its own, as soon as it waits for what it is to be."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        _, spare, starter = prepared(engine)
        with contextlib.suppress(OSError):
            for pid in children(spare):
                new = os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
                # The last that it does before it waits is to let go of what it does not need: stdio, its channel and three mounts are left.
                if pid != starter and new and len(os.listdir(f"/proc/{pid}/fd")) <= 7:
                    return pid
        time.sleep(0.02)
    raise AssertionError("no first process was made ahead")


def fresh(engine: NativeEngine, run: Any) -> None:
    """No launcher: the next one knows of nothing that is usual."""
    run("true")
    pid = launcher(engine)
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)


def gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def start(engine: NativeEngine, **more: Any) -> Any:
    return engine.start(engine.create(ContainerConfig("host", ("sleep", "1000"), network=more.pop("network", "none"), **more)).id)


def test_the_spare_becomes_the_next_supervisor(engine: NativeEngine, run: Any) -> None:
    run("true")
    _, spare, starter = prepared(engine)
    info = start(engine)
    now = json.loads(Path(info.folder, "state.json").read_text())
    assert now["supervisor"]["pid"] == spare
    assert gone(starter)  # it has started the container, and its memory and mounts went with it
    assert info.pid in children(spare)  # whose exit the supervisor reads
    assert os.readlink(f"/proc/{spare}/ns/mnt") == os.readlink("/proc/self/ns/mnt")
    assert engine.stop(info.id, timeout=0).exit.signal == signal.SIGKILL  # type: ignore[union-attr]


@pytest.mark.parametrize("victim", [0, 1, 2], ids=["mould", "supervisor", "starter"])
def test_one_that_was_killed_is_missed_by_nobody(engine: NativeEngine, run: Any, remains: Any, victim: int) -> None:
    run("true")
    before, found = remains(), prepared(engine)
    os.kill(found[victim], signal.SIGKILL)
    assert gone(found[victim])
    assert run("echo", "again") == "again\n"
    assert remains() == before


def test_one_that_removed_itself_has_taught_what_it_needed(engine: NativeEngine, run: Any) -> None:
    """Its folder is gone when the next spare is made: what the launcher keeps for starts, an ID map among it, it knows nevertheless."""
    fresh(engine, run)
    run("true")
    prepared(engine)
    fds, held = f"/proc/{launcher(engine)}/fd", []
    for fd in os.listdir(fds):
        with contextlib.suppress(FileNotFoundError):  # it is at work still
            held.append(os.readlink(f"{fds}/{fd}"))
    assert any(name.startswith("user:[") for name in held)


def test_a_run_that_goes_on_keeps_nobody_waiting(engine: NativeEngine, run: Any) -> None:
    """No spare is made beside a short run that somebody waits for; beside a long one there is one soon."""
    run("true")
    _, supervisor, _ = prepared(engine)
    session = engine.start_attached(engine.create(ContainerConfig("host", ("sleep", "1000"), network="none", auto_remove=True)).id)
    end = time.monotonic() + 5
    while prepared(engine)[1] == supervisor:  # as long as its starter is there, which has done its work, it looks like a spare
        assert time.monotonic() < end, "no spare is made while somebody waits"
        time.sleep(0.01)
    session.close()
    engine.remove(engine.containers()[0].id, force=True)


@pytest.mark.parametrize("starts", [0, 1, 2, 3])
def test_they_go_with_the_launcher(engine: NativeEngine, run: Any, starts: int) -> None:
    """From the first start on: the first ones of a mould may not hold what the later ones end by."""
    run("true")
    os.kill(launcher(engine), signal.SIGKILL)
    for _ in range(starts + 1):
        run("true")
        found = prepared(engine)
    os.kill(launcher(engine), signal.SIGKILL)
    assert all(gone(pid) for pid in found)
    assert run("echo", "again") == "again\n"


ahead = pytest.mark.skipif(cgroups.layout().version == "v2", reason="moving a process into a v2 group takes longer than making one there")


@ahead
def test_the_first_process_is_there_before_the_container(engine: NativeEngine, run: Any) -> None:
    run("true")
    ready = first_process(engine)
    assert not Path(f"/proc/{ready}/cgroup").read_text().count("pycontainers/"), "it is in no container's group yet"
    mounts = Path(f"/proc/{ready}/mountinfo").read_text().splitlines()
    others = {line.split()[4] for line in mounts if not line.split()[4].startswith(("/proc", "/sys", "/dev"))}
    assert others <= {"/"}, "it sees the machine's"
    info = start(engine, hostname="ready")
    assert info.pid == ready
    assert os.readlink(f"/proc/{ready}/ns/uts") != os.readlink("/proc/self/ns/uts")
    assert engine.stop(info.id, timeout=0).exit.signal == signal.SIGKILL  # type: ignore[union-attr]


_LOOK = """
import os, re, stat
lines = [line.split(" ") for line in open("/proc/self/mountinfo").read().splitlines()]
places = {line[0]: line[4] for line in lines}
for line in sorted(lines, key=lambda line: line[4]):
    rest = [re.sub("[0-9a-f]{64}|/[0-9]+(?=[:,]|$)|s/containers.*|(?<=s/images/host/)[0-9a-f]+", "x", word) for word in line[5:]]
    print(places.get(line[1], "-"), re.sub("[0-9a-f]{64}", "x", line[3]), line[4], *rest)
for line in open("/proc/self/status"):
    if re.match("Name|Umask|[TP]+g?id|NS|[UG]id|Groups|NoNew|Seccomp|Cap|Sig[BIC]", line):
        print(line.strip())
print(sorted(os.listdir("/proc/self/fd")), os.getcwd(), os.getsid(0), os.environ.get("HOME"))
print(re.sub("[0-9a-f]{64}", "x", open("/proc/self/cgroup").read()))
print(open("/proc/self/uid_map").read(), open("/proc/self/oom_score_adj").read())
print(sorted(name for name in os.listdir("/proc") if name.isdigit()))
for folder in ("/dev", "/dev/shm", "/dev/pts", "/dev/mqueue", "/sys/fs/cgroup", "/"):
    found = os.lstat(folder)
    print(folder, oct(found.st_mode), found.st_uid, found.st_gid)
    for name in sorted(os.listdir(folder)):
        found = os.lstat(f"{folder}/{name}")
        link = os.readlink(f"{folder}/{name}") if stat.S_ISLNK(found.st_mode) else ""
        print(" ", name, oct(found.st_mode), found.st_uid, found.st_gid, found.st_rdev, link)
for name in ("/proc/kcore", "/proc/keys", "/proc/sysrq-trigger", "/proc/sys/kernel/domainname", "/proc/acpi", "/sys/firmware"):
    try:
        with open(name, "r+b", buffering=0) as file: print(name, file.read(8))
    except OSError as error: print(name, error.errno)
import socket
# On the machine's network others make and remove links of theirs meanwhile.
print(socket.gethostname(), [name for _, name in socket.if_nameindex() if name in ("lo", "eth0")])
"""


@ahead
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"read_only": True},
        {"user": "nobody", "workdir": "/tmp"},
        {"mounts": (Mount("tmpfs", "/run"), Mount("tmpfs", "/dev/more"), Mount("bind", "/mnt/etc", "/etc"))},
        {"shm_size": 1 << 20},
        {"network": "bridge"},
        {"network": "host"},
        {"userns": "host"},
        {"privileged": True},
        {"security_opt": ("no-new-privileges",)},
        {"sysctls": {"net.ipv4.ip_default_ttl": "65"}},
        {"init": True},
        {"tty": True},
    ],
    ids=lambda options: "-".join(f"{key}={value}" for key, value in options.items()) or "nothing",
)
def test_nobody_can_tell_whether_it_was(engine: NativeEngine, run: Any, options: dict[str, Any]) -> None:
    """What is in the container is the same, to the letter, with a first process made ahead and with one made for it."""
    config = {"hostname": "look", **options}
    fresh(engine, run)
    alone = run("python3", "-c", _LOOK, **config)  # a launcher's first: nothing is known yet
    run("true", **options)  # these are usual now
    run("true", **options)
    prepared(engine)
    made = [first_process(engine)] if "privileged" not in options else []
    again = run("python3", "-c", _LOOK, **config)
    assert alone.count("\n") > 60
    assert again.splitlines() == alone.splitlines()
    assert all(gone(pid) for pid in made)


@ahead
def test_what_is_not_usual_gets_its_own(engine: NativeEngine, run: Any) -> None:
    run("true")
    ready = first_process(engine)
    info = start(engine, ipc="host")
    assert info.pid != ready
    assert gone(ready)
    supervisor = json.loads(Path(info.folder, "state.json").read_text())["supervisor"]["pid"]
    end = time.monotonic() + 5
    while children(supervisor) != [info.pid] and time.monotonic() < end:
        time.sleep(0.02)
    assert children(supervisor) == [info.pid], "nobody has waited for what was not needed"
    ready = first_process(engine)
    os.kill(ready, signal.SIGKILL)
    assert gone(ready)
    assert run("echo", "again") == "again\n"


@ahead
def test_one_exception_is_no_new_rule(engine: NativeEngine, run: Any) -> None:
    fresh(engine, run)
    run("true")
    run("true")
    ready = first_process(engine)
    shared = os.readlink("/proc/self/ns/ipc")
    run("true", ipc="host")
    assert os.readlink(f"/proc/{first_process(engine)}/ns/ipc") != shared
    run("true", ipc="host")
    run("true", ipc="host")
    assert os.readlink(f"/proc/{first_process(engine)}/ns/ipc") == shared, "it is what is asked for now"
    assert gone(ready)


def worker(engine: NativeEngine) -> int:
    """The exec worker that waits: a child of the mould that has no child. So are supervisors as they come and go, but not for long."""
    end, before = time.monotonic() + 10, -1
    while time.monotonic() < end:
        mould, supervisor, _ = prepared(engine)
        with contextlib.suppress(OSError):
            found = [pid for pid in children(mould) if pid != supervisor and not children(pid)]
            if before in found:
                return before
            before = found[0] if len(found) == 1 else -1
        time.sleep(0.1)
    raise AssertionError("no spare exec worker was made")


def test_an_exec_has_a_worker_ahead_of_need_once_there_was_one(engine: NativeEngine) -> None:
    info = start(engine)
    assert engine.exec(info.id, ExecConfig(("true",))).code == 0
    spare = worker(engine)
    engine.exec_detached(info.id, ExecConfig(("sleep", "1000")))
    assert len(children(spare)) == 1, "another than the spare has done it"
    other = worker(engine)  # while the first goes on
    assert other != spare
    os.kill(other, signal.SIGKILL)
    assert gone(other)
    assert engine.exec(info.id, ExecConfig(("true",))).code == 0
    last = worker(engine)
    os.kill(launcher(engine), signal.SIGKILL)
    assert gone(last)
    assert len(children(spare)) == 1, "what was begun goes on without the launcher"
    engine.remove(info.id, force=True)
    assert gone(spare)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on which something can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    yield folder
    subprocess.run(["umount", str(folder)], check=False, capture_output=True)


def test_what_was_mounted_meanwhile_is_seen(engine: NativeEngine, run: Any, disk: Path) -> None:
    """The spare stands in a copy of all mounts, and where propagation is private it hears of no later one."""
    run("true")
    prepared(engine)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=True)
    (disk / "file").write_text("new\n")
    assert run("cat", "/disk/file", mounts=(Mount("bind", "/disk", str(disk)),)) == "new\n"


def test_a_published_port_has_a_relay_when_somebody_comes(engine: NativeEngine) -> None:
    server = "import socket; s = socket.create_server(('', 8000)); c, _ = s.accept(); c.sendall(b'hello'); c.close(); s.accept()"
    info = engine.start(engine.create(ContainerConfig("host", ("python", "-c", server), network="bridge", ports=(Port(8000, 0),))).id)
    supervisor = json.loads(Path(info.folder, "state.json").read_text())["supervisor"]["pid"]
    time.sleep(0.5)
    assert children(supervisor) == [info.pid]
    with socket.create_connection(("127.0.0.1", info.ports[0].host_port), 10) as conn:
        said = conn.recv(5)
    assert said == b"hello"
    assert len(children(supervisor)) == 2
    engine.remove(info.id, force=True)
