"""Resident helpers: started on need, by one of many, replaced when dead or old, and nobody lost when they leave."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pycontainers.errors import HelperError, PortInUse
from pycontainers.linux import helper, process, server, sockets

ROOT = str(Path(__file__).parents[2])
PROGRAM = str(Path(__file__).with_name("helper_program.py"))


class Echo:
    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.pids = folder, str(folder / "echo.sock"), set()

    def connect(self, version="1", idle="60", *extra, timeout=10.0):
        argv = [sys.executable, "-I", "-S", PROGRAM, ROOT, self.path, version, idle, *extra]
        return helper.connect(self.path, "echo", helper.executed(argv), version, self.folder / "locks", timeout)

    def ask(self, message=None, **options):
        reply, _, sock = helper.request(lambda: self.connect(**options), message or {})
        sock.close()
        self.pids.add(reply["pid"])
        return reply


@pytest.fixture
def echo(tmp_path):
    made = Echo(tmp_path)
    yield made
    try:
        sock = sockets.connect(made.path, 1)
    except OSError:
        return
    pid = sockets.receive(sock)[0]["pid"]
    sockets.send(sock, {"op": "leave"})
    assert process.wait_gone(pid, 5)


def test_starts_once_and_stays(echo):
    first, second = echo.ask({"n": 1}), echo.ask({"n": 2})
    assert first["pid"] == second["pid"]
    assert second["echo"] == {"n": 2}


def test_starts_clean(echo, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    reply = echo.ask()
    assert set(reply["env"]) <= {"PATH", "LANG", "LC_CTYPE"}
    assert reply["cwd"] == "/"
    pid = reply["pid"]
    targets = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # our own connection, which it closes now
            targets.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    others = {t for t in targets if not t.startswith(("socket:", "anon_inode:"))}
    assert others == {"/dev/null", str(echo.folder / "echo.log")}
    assert os.getsid(pid) != os.getsid(0)
    assert os.getsid(pid) != pid, "a session leader could get a terminal"


def test_leaves_no_zombie(echo):
    pid = echo.ask()["pid"]
    with open(f"/proc/{pid}/status") as file:
        parent = next(int(line.split()[1]) for line in file if line.startswith("PPid"))
    assert parent != os.getpid()
    before = zombies()  # of other tests' children
    os.kill(pid, 9)
    assert echo.ask()["pid"] != pid  # another one was started
    assert zombies() <= before


def zombies() -> set[str]:
    """Pids of our own children that nobody has waited for."""
    listed = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "pid=,stat="], capture_output=True, text=True).stdout
    return {line.split()[0] for line in listed.splitlines() if line.split()[1].startswith("Z")}


def test_descriptors_travel(echo):
    read, write = os.pipe()
    os.write(write, b"hello")
    with echo.connect() as sock:
        sockets.send(sock, {}, [read])
        assert sockets.receive(sock)[0]["texts"] == ["hello"]
    os.close(read)
    os.close(write)


def test_errors_keep_their_class(echo):
    with pytest.raises(PortInUse, match="port 80") as caught:
        echo.ask({"op": "refuse"})
    assert caught.value.hint == "take another"


def test_a_bug_does_not_end_it(echo):
    pid = echo.ask()["pid"]
    with pytest.raises(Exception, match="ZeroDivisionError: oops"):
        echo.ask({"op": "bug"})
    assert echo.ask()["pid"] == pid
    assert "ZeroDivisionError" in (echo.folder / "echo.log").read_text()


def test_started_again_after_sigkill(echo):
    pid = echo.ask()["pid"]
    os.kill(pid, signal.SIGKILL)
    assert process.wait_gone(pid, 5)
    assert echo.ask()["pid"] != pid


def test_another_version_replaces(echo):
    old = echo.ask()["pid"]
    with echo.connect() as waiting:
        sockets.send(waiting, {"n": "asked before the upgrade"})
        new = echo.ask(version="2")["pid"]
        assert sockets.receive(waiting)[0]["echo"] == {"n": "asked before the upgrade"}
    assert new != old
    assert process.wait_gone(old, 0)


def test_many_at_once_start_one(echo):
    failures = []

    def work():
        try:
            for _ in range(5):
                echo.ask()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(echo.pids) == 1


def test_leaving_loses_nobody(echo):
    """Helpers that leave after a millisecond, asked by clients that come all the time: each is answered."""
    end = time.monotonic() + 3
    failures, count = [], [0]

    def work(pause):
        while time.monotonic() < end:
            try:
                assert echo.ask({"n": 1}, idle="0.001")["echo"] == {"n": 1}
                count[0] += 1
            except Exception as error:
                failures.append(error)
            time.sleep(pause)

    threads = [threading.Thread(target=work, args=(pause,)) for pause in (0.003, 0.005, 0.011)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert count[0] > 20
    assert len(echo.pids) > 2, "none left in between: the test shows nothing"


def test_leaves_when_idle_and_takes_its_path_along(echo):
    pid = echo.ask(idle="0.05")["pid"]
    assert process.wait_gone(pid, 5)
    assert not os.path.exists(echo.path)


def test_who_waits_when_it_leaves_is_still_served(tmp_path):
    """A client in the backlog of a helper that has decided to leave, its request sent already."""
    path = str(tmp_path / "x.sock")
    listener = sockets.listen(path)

    class Leaving(server.Server):
        def handle(self, conn, message, fds):
            sockets.send(conn, {"n": message["n"] + 1})
            return True

    with sockets.connect(path, 5) as client:
        sockets.send(client, {"n": 1})
        leaving = Leaving(listener, "x", "1", path)
        leaving.leave()
        leaving.run()
        assert sockets.receive(client)[0]["hello"] == "x"
        assert sockets.receive(client)[0] == {"n": 2}
        assert sockets.receive(client) == (None, [])
    assert not os.path.exists(path)


def test_leaving_does_not_take_the_path_of_another(tmp_path):
    path = str(tmp_path / "x.sock")
    listener = sockets.listen(path)
    idle = server.Server(listener, "x", "1", path, idle_seconds=0.0)
    os.unlink(path)
    with sockets.listen(path):
        idle.run()
        assert os.path.exists(path)


def test_a_client_that_waits_is_told_not_heard(echo):
    """After the helper left, sending on an old connection fails: the client knows that nothing happened."""
    with echo.connect(idle="0.05") as sock:
        assert helper.process.wait_gone(sockets.peer_credentials(sock)[0], 0.0) is False  # our own listen(2)
        deadline = time.monotonic() + 5
        while os.path.exists(echo.path) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            sockets.send(sock, {"n": 1})


def test_failure_names_the_log(echo):
    with pytest.raises(HelperError, match="before its greeting") as caught:
        echo.connect("1", "60", "fail")
    assert "no such luck" in caught.value.hint


def test_missing_program(tmp_path):
    with pytest.raises(HelperError, match="/nonexistent/program"):
        helper.connect(tmp_path / "x.sock", "x", helper.executed(["/nonexistent/program"]), "1", tmp_path, 2)


def test_log_is_bounded(tmp_path):
    path = tmp_path / "x.log"
    path.write_bytes(b"a" * (helper.LOG_LIMIT + 1))
    os.close(helper.open_log(str(path)))
    assert path.stat().st_size == 0
    assert (tmp_path / "x.log.1").stat().st_size == helper.LOG_LIMIT + 1


def test_lock_times_out(tmp_path):
    inner = helper.locked(tmp_path / "l", time.monotonic() + 0.05)
    with helper.locked(tmp_path / "l", time.monotonic() + 1), pytest.raises(HelperError, match="is locked"), inner:
        pass
