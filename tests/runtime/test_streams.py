"""Input, output and terminals: attached from the start or later, by one client or several, slow ones among them."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pycontainers import errors
from pycontainers.commands import terminal
from pycontainers.protocol import ContainerConfig, ExecConfig, HealthCheck, Port
from pycontainers.runtime.loop import Loop
from pycontainers.runtime.output import Output

pytestmark = pytest.mark.root


def create(engine: Any, *command: str, **config: Any) -> str:
    return str(engine.create(ContainerConfig("host", command, network="none", **config)).id)


def read_until(session: Any, wanted: bytes, seconds: float = 10.0) -> bytes:
    """Output until ``wanted`` is in it, or the end."""
    found, deadline = b"", time.monotonic() + seconds
    while wanted not in found and not session.over and time.monotonic() < deadline:
        ready = select.select(session.sources(), [], [], 0.5)[0]
        for fd in ready:
            found += b"".join(data for _, data in session.receive(fd))
    return found


def test_input_reaches_a_container_and_its_end_is_seen(engine: Any) -> None:
    with engine.start_attached(create(engine, "cat", stdin_open=True), True) as session:
        session.feed(b"one\n")
        assert read_until(session, b"one\n") == b"one\n"
        session.feed(b"two")
        session.end_input()
        assert read_until(session, b"\0never") == b"two"
        assert session.exit["code"] == 0


def test_the_end_of_input_is_seen_whoever_was_forked_meanwhile(engine: Any) -> None:
    """The relay of a published port and a health check are copies of the supervisor, which holds the writing end."""
    slow = HealthCheck(test=("CMD", "sleep", "100"), interval=0.05, timeout=100)
    config = ContainerConfig("host", ("cat",), network="bridge", stdin_open=True, ports=(Port(80),), health=slow)
    with engine.start_attached(engine.create(config).id, True) as session:
        session.feed(b"one\n")
        assert read_until(session, b"one\n") == b"one\n"
        time.sleep(0.3)  # the check is under way
        session.end_input()
        read_until(session, b"\0never")
        assert session.exit and session.exit["code"] == 0


def test_a_program_that_does_not_read_makes_its_client_wait_and_not_its_supervisor_grow(engine: Any) -> None:
    info_id = create(engine, "sh", "-c", "mkfifo /tmp/go; read line </tmp/go; wc -c", stdin_open=True)
    with engine.start_attached(info_id, True) as session:
        given, quiet = 0, 0
        while quiet < 20 and given < 64 << 20:
            taken = session.offer(bytes(1 << 16))
            given, quiet = given + taken, 0 if taken else quiet + 1
            time.sleep(0 if taken else 0.02)
        assert 1 << 18 < given < 4 << 20, "a message, a pipe, and what the supervisor keeps"
        assert engine.exec(info_id, ExecConfig(("sh", "-c", "echo >/tmp/go"))).code == 0
        session.feed(bytes(1 << 20))
        session.end_input()
        assert int(read_until(session, b"\0never")) == given + (1 << 20)


@pytest.mark.parametrize("kind", ["run", "exec"])
def test_a_program_that_writes_more_than_it_reads_is_fed_by_one_thread(engine: Any, kind: str) -> None:
    """It reads on only after its output was read: whoever waits until input is taken, and reads nothing meanwhile, waits for ever."""
    stdin, found = os.memfd_create("input"), bytearray()
    os.write(stdin, bytes(1 << 20))
    os.lseek(stdin, 0, os.SEEK_SET)

    def drive(session: Any) -> None:
        terminal.drive(session, lambda stream, data: found.extend(data), stdin)

    if kind == "run":
        engine.run(ContainerConfig("host", ("od", "-v", "-x"), network="none", stdin_open=True), drive=drive)
    else:
        info = engine.start(create(engine, "sleep", "100"))
        engine.exec(info.id, ExecConfig(("od", "-v", "-x")), drive=drive)
    os.close(stdin)
    assert len(found.splitlines()) == (1 << 16) + 1


def test_a_notebook_with_a_thousand_open_files(engine: Any) -> None:
    """select(2) ends at descriptor 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    found = bytearray()
    try:
        info = engine.start(create(engine, "sleep", "100"))
        engine.exec(info.id, ExecConfig(("sh", "-c", "sleep 9 & echo heard")), None, lambda stream, data: found.extend(data))
        engine.run(ContainerConfig("host", ("echo", "too"), network="none"), None, lambda stream, data: found.extend(data))
    finally:
        for fd in opened:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == b"heard\ntoo\n"


def test_much_input_and_output_pass_unchanged_and_nobody_is_starved(engine: Any) -> None:
    """More than every buffer on the way holds, in both directions at once."""
    data = os.urandom(1 << 16) * 64
    found = bytearray()
    with engine.start_attached(create(engine, "cat", stdin_open=True), True) as session:
        writer = threading.Thread(target=lambda: (session.feed(data), session.end_input()))
        writer.start()
        for _, piece in session.stream():
            found += piece
        writer.join()
    assert bytes(found) == data


def test_attach_sees_what_comes_from_now_on_and_leaving_ends_nothing(engine: Any) -> None:
    info = engine.start(create(engine, "sh", "-c", "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.05; done"))
    with engine.attach(info.id) as first, engine.attach(info.id) as second:
        assert b"line" in read_until(first, b"line") and b"line" in read_until(second, b"line")
    assert engine.find(info.id).status == "running"
    with engine.attach(info.id) as again:
        assert b"line" in read_until(again, b"line")
        engine.kill(info.id)
        read_until(again, b"\0never")
        assert again.exit["signal"] == 9


def test_a_client_that_does_not_read_holds_up_neither_requests_nor_the_end(engine: Any) -> None:
    """Its pipe to the container fills, the container waits; stop, exec and the exit record do not. Later it gets all that it missed."""
    info = engine.start(create(engine, "sh", "-c", "yes stuck; sleep 100"))
    with engine.attach(info.id) as stuck:
        time.sleep(0.3)
        assert engine.exec(info.id, ExecConfig(("true",))).code == 0
        engine.pause(info.id)
        engine.unpause(info.id)
        assert engine.stop(info.id, timeout=0).status == "exited"
        assert engine.start(info.id).status == "running", "nothing of it is held any more"
        assert set(read_until(stuck, b"\0never").splitlines()) >= {b"stuck"}
        assert stuck.exit["signal"] == 9
    engine.kill(info.id)


def test_detached_with_stdin_open_waits_for_a_client(engine: Any) -> None:
    info = engine.start(create(engine, "head", "-n1", stdin_open=True))
    time.sleep(0.1)
    assert engine.find(info.id).status == "running"
    with engine.attach(info.id, True) as session:
        session.feed(b"at last\n")
        assert b"at last" in read_until(session, b"at last")
    assert engine.wait(info.id, 5).code == 0


def test_terminal_of_a_container(engine: Any) -> None:
    """A terminal of its own devpts, with the client's size, which follows; the log has what was shown."""
    script = "tty; stty size; read line; stty size; echo got $line; test -t 0 && test -t 1 && test -t 2 && ls -l /proc/self/fd/0"
    identifier = create(engine, "sh", "-c", script, tty=True, stdin_open=True)
    with engine.start_attached(identifier, True, (33, 77)) as session:
        assert session.tty
        assert b"/dev/pts/0\r\n33 77\r\n" in read_until(session, b"33 77")
        session.resize(44, 88)
        time.sleep(0.1)
        session.feed(b"typed\n")
        rest = read_until(session, b"\0never")
        assert b"44 88" in rest and b"got typed" in rest and b"/dev/pts/0" in rest and session.exit["code"] == 0
    assert "got typed" in "".join(line.text for line in engine.logs(identifier))


def test_terminal_ends_programs_by_keys(engine: Any) -> None:
    with engine.start_attached(create(engine, "sh", "-c", "echo up; sleep 100", tty=True, stdin_open=True), True) as session:
        read_until(session, b"up")
        for _ in range(60):  # the shell, process 1, does not die of it (pid_namespaces(7)): it may not have forked yet
            if session.over:
                break
            session.feed(b"\x03")  # ctrl-c: SIGINT to the foreground group
            read_until(session, b"\0never", 0.5)
        assert session.exit["code"] == 130 or session.exit["signal"] == 2


def test_exec_on_a_terminal(engine: Any) -> None:
    info = engine.start(create(engine, "sleep", "100"))
    seen: list[bytes] = []

    def drive(session: Any) -> None:
        assert session.tty
        seen.append(read_until(session, b"50 100"))
        session.feed(b"exit 7\n")
        seen.append(read_until(session, b"\0never"))

    status = engine.exec(info.id, ExecConfig(("sh", "-c", "stty size; exec sh"), tty=True), drive=drive, size=(50, 100))
    assert b"50 100" in seen[0] and status.code == 7


def test_exec_detached_privileged_and_refused_while_paused(engine: Any) -> None:
    info = engine.start(create(engine, "sleep", "100"))
    engine.exec_detached(info.id, ExecConfig(("sh", "-c", "sleep 0.2; echo made > /tmp/made")))
    found: list[bytes] = []
    collect = lambda stream, data: found.append(data)  # noqa: E731
    engine.exec(info.id, ExecConfig(("sh", "-c", "grep -E 'CapEff|Seccomp:' /proc/self/status"), privileged=True), None, collect)
    effective, seccomp = [line.split()[1] for line in b"".join(found).decode().splitlines()[:2]]
    last = int(open("/proc/sys/kernel/cap_last_cap").read())
    assert int(effective, 16) == (1 << last + 1) - 1 and seccomp == "0"
    found.clear()
    for _ in range(50):
        engine.exec(info.id, ExecConfig(("cat", "/tmp/made")), None, collect)
        if b"made" in b"".join(found):
            break
        time.sleep(0.1)
    assert b"made" in b"".join(found)
    engine.pause(info.id)
    with pytest.raises(errors.StateError, match="is paused"):
        engine.exec(info.id, ExecConfig(("true",)))
    engine.unpause(info.id)


def test_the_program_on_a_real_terminal(state: Any) -> None:
    """A shell typed into through a pseudo-terminal: raw mode, the window's size, keys that detach, the terminal restored."""
    import fcntl
    import struct
    import termios

    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 41, 111, 0, 0))
    before = termios.tcgetattr(slave)
    command = [sys.executable, "-m", "pycontainers.commands.program", "run", "-it", "--name", "typed", "--network", "none", "host", "sh"]
    program = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    seen = b""

    def expect(wanted: bytes) -> None:
        nonlocal seen
        deadline = time.monotonic() + 20
        while wanted not in seen and time.monotonic() < deadline and select.select([master], [], [], 1)[0] is not None:
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 1 << 16)
        assert wanted in seen, seen
        seen = seen.partition(wanted)[2]

    try:
        expect(b"#")
        os.write(master, b"echo size $(stty size)\r")
        expect(b"size 41 111")
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
        os.kill(program.pid, 28)  # SIGWINCH: the kernel sends it to the foreground group of a controlling terminal
        time.sleep(0.2)
        os.write(master, b"echo size $(stty size)\r")
        expect(b"size 20 60")
        os.write(master, b"\x10\x11")
        assert program.wait(10) == 0
        assert termios.tcgetattr(slave) == before
    finally:
        program.kill()
        os.close(master)
        os.close(slave)
    ps = [sys.executable, "-m", "pycontainers.commands.program"]
    assert "Up" in subprocess.run([*ps, "ps"], capture_output=True, text=True, check=True).stdout
    subprocess.run([*ps, "rm", "-f", "typed"], capture_output=True, check=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_foreground_container_ends_with_the_program_that_shows_it(state: Any, engine: Any, number: int) -> None:
    command = [sys.executable, "-m", "pycontainers.commands.program", "run", "--rm", "--name", "shown", "--network", "none", "host"]
    env = {**os.environ, "PYCONTAINERS_HOME": str(state.home), "PYCONTAINERS_RUN": str(state.run)}
    script = "trap 'echo asked; exit 9' TERM INT HUP; echo ready; while :; do sleep 0.05; done"
    shown = subprocess.Popen([*command, "sh", "-c", script], env=env, stdout=subprocess.PIPE)
    assert shown.stdout is not None and shown.stdout.readline() == b"ready\n"
    shown.send_signal(number)
    shown.communicate(timeout=60)
    assert shown.returncode == 128 + number
    assert "shown" not in [info.name for info in engine.containers(all=True)]


def test_an_exec_learns_how_its_program_ended_with_the_container(engine: Any) -> None:
    """The container's end kills what is in its cgroup: the worker that waits for the exit code is not in it, the program is."""
    info = engine.start(create(engine, "sleep", "100"))
    ended: list[Any] = []
    runs = threading.Thread(target=lambda: ended.append(engine.exec(info.id, ExecConfig(("sleep", "200")))))
    runs.start()
    from pycontainers.linux import cgroups

    group = cgroups.open(engine.oci(info.id)["linux"]["cgroupsPath"])
    names: list[str] = []
    deadline = time.monotonic() + 10
    while names != ["sleep"] * 2 and time.monotonic() < deadline:  # between clone and execve it is a copy of the worker
        time.sleep(0.01)
        names = [open(f"/proc/{pid}/comm").read().strip() for pid in group.pids()]
    assert names == ["sleep"] * 2, f"in the cgroup: {names}"
    engine.kill(info.id)
    runs.join(10)
    assert ended and (ended[0].code, ended[0].signal) == (137, 9)


@pytest.mark.parametrize("console", [False, True], ids=["pipe", "terminal"])
def test_draining_ends_although_each_piece_that_is_read_makes_room_for_another(tmp_path: Path, console: bool) -> None:
    """Whoever holds the other end is here quicker than the supervisor, always: it never finds nothing to read."""
    output = Output(str(tmp_path / "log"), Loop())
    if console:
        master, writer = os.openpty()
        output.console(master)
    else:
        writer, other = output.pipes()
        os.close(other)
    last = b"the container's last line\n"
    os.write(writer, last)

    class Refilling:
        behind = False
        seen = bytearray()

        def offer(self, data: bytes) -> None:
            self.seen += data[1:]
            assert len(self.seen) < 8 << 20, "it goes on as long as somebody writes"
            os.write(writer, b"x" * 1000 + b"\n")

    output.clients.append(client := Refilling())
    output.drain()
    os.close(writer)
    assert client.seen.replace(b"\r", b"").startswith(last) and not output.streams


@pytest.mark.parametrize("tty", [False, True], ids=["pipe", "terminal"])
def test_who_goes_on_writing_into_its_output_does_not_keep_a_container_from_ending(engine: Any, tty: bool) -> None:
    """Somebody outside who was given its stdout; what it has written itself is there to the last byte."""
    lines = "seq 9000; touch /tmp/ready; exec sleep 1000"
    info = engine.start(create(engine, "sh", "-c", lines, tty=tty))
    while engine.exec(info.id, ExecConfig(("test", "-e", "/tmp/ready"))).code:
        time.sleep(0.02)
    out = os.open(f"/proc/{info.pid}/fd/1", os.O_WRONLY | os.O_NOCTTY)
    writers: list[int] = []
    while len(writers) < 2:
        writers.append(os.fork())
        if writers[-1] == 0:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            try:
                while True:
                    os.write(out, (b"o" * 200 + b"\n") * 300)
            finally:
                os._exit(0)
    os.close(out)
    try:
        time.sleep(0.2)
        engine.kill(info.id)
        assert engine.wait(info.id, 20).signal == signal.SIGKILL
    finally:
        for pid in writers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    text = [line.text.strip() for line in engine.logs(info.id)]
    assert [line for line in text if line.isdigit()] == [str(number) for number in range(1, 9001)]
    engine.remove(info.id, force=True)
