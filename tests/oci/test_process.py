"""What of an OCI process arrives at the program."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from pycontainers.linux import cgroups
from tests.seccomp_agent import Agent

pytestmark = pytest.mark.root


def status(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def test_exit_code_output_environment_and_folder(oci: Any) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["process"].update(env=["PATH=/bin", "A=b=c"], cwd="/var")

    ran = oci.run('echo "$A $PWD $HOME"; echo bad >&2; exit 7', change)
    assert (ran.code, ran.out, ran.err) == (7, "b=c /var /root\n", "bad\n")


def test_exit_by_a_signal(oci: Any) -> None:
    """Process 1 of a pid namespace cannot kill itself: without one."""
    ran = oci.run("kill -9 $$", lambda spec: spec["linux"].update(namespaces=[{"type": kind} for kind in ("ipc", "uts", "mount")]))
    assert ran.code == 137, ran


def test_a_missing_folder_is_made(oci: Any) -> None:
    ran = oci.run("pwd", lambda spec: spec["process"].update(cwd="/var/new/one"))
    assert ran.out == "/var/new/one\n", ran


def test_ids_groups_and_umask(oci: Any) -> None:
    user = {"uid": 1234, "gid": 99, "additionalGids": [5, 100000], "umask": 0o027}
    ran = oci.run("grep -E 'Uid|Gid|Groups' /proc/self/status; umask", lambda spec: spec["process"].update(user=user))
    found = status(ran.out)
    assert found["Uid"].split() == ["1234"] * 4 and found["Gid"].split() == ["99"] * 4, ran
    assert found["Groups"].split() == ["5", "100000"]
    assert ran.out.splitlines()[-1] == "0027"


@pytest.mark.parametrize("uid", [0, 1000])
def test_capabilities_of_all_five_sets(oci: Any, uid: int) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["process"]["user"]["uid"] = uid
        spec["process"]["capabilities"] = {
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"],
            "ambient": ["CAP_KILL"],
        }

    found = status(oci.run("cat /proc/self/status", change).out)
    sets = {key: int(found[key], 16) for key in ("CapBnd", "CapPrm", "CapInh", "CapAmb")}
    assert sets["CapBnd"] == 1 << 0 | 1 << 5 | 1 << 21
    assert sets["CapAmb"] == sets["CapInh"] == 1 << 5, found
    if uid:  # over execve only what is ambient stays (capabilities(7))
        assert sets["CapPrm"] == int(found["CapEff"], 16) == 1 << 5


def test_unknown_capabilities_are_a_warning(oci: Any) -> None:
    ran = oci.run("echo on", lambda spec: spec["process"]["capabilities"]["bounding"].append("CAP_OF_TOMORROW"))
    assert ran.out == "on\n" and "CAP_OF_TOMORROW" in ran.err and "level=warning" in ran.err


@pytest.mark.parametrize("field", [True, False])
def test_no_new_privileges_and_a_filter(oci: Any, field: bool) -> None:
    """Without no_new_privs the filter is loaded earlier, while CAP_SYS_ADMIN is there."""

    def change(spec: dict[str, Any]) -> None:
        spec["process"]["noNewPrivileges"] = field
        refused = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
        spec["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
            "syscalls": [refused],
        }

    ran = oci.run("grep -E 'NoNewPrivs|^Seccomp:' /proc/self/status; mkdir /tmp/no", change)
    found = status(ran.out)
    assert found["NoNewPrivs"] == str(int(field)) and found["Seccomp"] == "2", ran
    assert "not supported" in ran.err


def test_resource_limits(oci: Any) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["process"]["rlimits"] = [
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_AS", "soft": 64 << 20, "hard": 64 << 20},  # less than our own process has: it must not hold before the end
        ]

    ran = oci.run("grep -E 'open files|core|address' /proc/self/limits", change)
    assert [line.split()[-3:-1] for line in ran.out.splitlines()] == [["0", "0"], ["100", "200"], ["67108864", "67108864"]], ran


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}, "RLIMIT_NONSENSE"),
        ({"type": "RLIMIT_NOFILE", "soft": 20, "hard": 10}, "soft RLIMIT_NOFILE 20 is above the hard one 10"),
        ({"type": "RLIMIT_NOFILE", "soft": 1 << 30, "hard": 1 << 40}, "RLIMIT_NOFILE cannot be"),
    ],
)
def test_limits_that_cannot_be_are_named(oci: Any, limit: dict[str, Any], message: str) -> None:
    ran = oci.run("true", lambda spec: spec["process"].update(rlimits=[limit]))
    assert ran.code == 1 and message in ran.err, ran


def test_scheduling_and_oom_score(oci: Any) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["process"].update(
            oomScoreAdj=321,
            scheduler={"policy": "SCHED_BATCH", "nice": 5},
            ioPriority={"class": "IOPRIO_CLASS_IDLE", "priority": 0},
        )

    ran = oci.run("cat /proc/self/oom_score_adj; ionice -p $$; cut -d' ' -f19,41 /proc/self/stat", change)
    assert ran.out.splitlines() == ["321", "idle: prio 7", "5 3"] or ran.out.splitlines()[::2] == ["321", "5 3"], ran
    ran = oci.run("true", lambda spec: spec["process"].update(scheduler={"policy": "SCHED_FAST"}))
    assert ran.code == 1 and "SCHED_FAST" in ran.err


def test_labels_need_their_module(oci: Any) -> None:
    if not Path("/sys/kernel/security/apparmor").exists():
        ran = oci.run("true", lambda spec: spec["process"].update(apparmorProfile="some-profile"))
        assert ran.code == 1 and "some-profile" in ran.err
    if not Path("/sys/fs/selinux").exists():
        ran = oci.run("true", lambda spec: spec["process"].update(selinuxLabel="system_u:object_r:t"))
        assert ran.code == 1 and "selinux label" in ran.err


class Taker:
    """Listens where ``--console-socket`` points."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.path = str(path)

    def take(self) -> int:
        conn, _ = self.listener.accept()
        _, fds, _, _ = socket.recv_fds(conn, 100, 1)
        return fds[0]


def read_all(master: int) -> str:
    data = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # EIO: nobody has the terminal any more
            return data.decode()
        if not chunk:
            return data.decode()
        data += chunk


def test_terminal_by_console_socket(oci: Any, tmp_path: Path) -> None:
    taker = Taker(tmp_path / "s")

    def change(spec: dict[str, Any]) -> None:
        spec["process"].update(terminal=True, consoleSize={"height": 33, "width": 77}, user={"uid": 1000, "gid": 1000})

    script = "tty; stty size; stat -c '%u %t' /dev/console $(tty); echo x >/dev/tty; cut -d' ' -f7 /proc/self/stat"
    oci.running(script, change, "--console-socket", taker.path)
    lines = read_all(taker.take()).splitlines()
    assert lines[:2] == ["/dev/pts/0", "33 77"], lines
    assert lines[2:4] == ["1000 88", "1000 88"], "the terminal belongs to the user, and /dev/console is it (major 136)"
    assert lines[4] == "x" and lines[5] == str(136 << 8), "it is the controlling terminal"


def test_a_terminal_that_is_no_devpts_is_refused(oci: Any, tmp_path: Path) -> None:
    """A file in the place of /dev/pts/ptmx must not become the terminal (CVE-2025-52565 and its kind)."""
    taker = Taker(tmp_path / "s")

    def change(spec: dict[str, Any]) -> None:
        spec["process"]["terminal"] = True
        spec["mounts"] = [mount for mount in spec["mounts"] if mount["destination"] != "/dev/pts"]
        fake = tmp_path / "pts"
        fake.mkdir()
        (fake / "ptmx").touch()
        spec["mounts"].append({"destination": "/dev/pts", "type": "bind", "source": str(fake), "options": ["bind"]})

    bundle = oci.bundle(change)
    ran = oci.create("c", bundle, "--console-socket", taker.path)
    assert ran.code == 1 and "terminal" in ran.err, ran


@pytest.mark.parametrize(("terminal", "socket_given"), [(True, False), (False, True)])
def test_terminal_and_console_socket_go_together(oci: Any, terminal: bool, socket_given: bool, tmp_path: Path) -> None:
    taker = Taker(tmp_path / "s")
    bundle = oci.bundle(lambda spec: spec["process"].update(terminal=terminal))
    ran = oci.create("c", bundle, *(("--console-socket", taker.path) if socket_given else ()))
    assert ran.code == 1 and "console-socket" in ran.err


def test_preserved_descriptors(oci: Any, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_text("handed over")
    bundle = oci.bundle(None, "ls /proc/self/fd; cat <&3")
    fd = os.open(given, os.O_RDONLY)
    try:
        os.dup2(fd, 3, inheritable=True)
        ran = oci("run", "--preserve-fds", "1", "--bundle", bundle, "c", pass_fds=(3,))
    finally:
        os.close(fd)
    assert ran.out.split() == ["0", "1", "2", "3", "4", "handed", "over"], ran  # 4 is the folder that ls reads


def test_nothing_of_ours_is_open(oci: Any) -> None:
    ran = oci.run("ls -l /proc/self/fd /proc/1/fd | grep -v total")
    assert "socket" not in ran.out and "/fd/3 " not in ran.out, ran


def test_process_errors_name_field_and_value(oci: Any) -> None:
    changes: list[tuple[str, Any]] = [
        ("process.cwd 'here'", lambda spec: spec["process"].update(cwd="here")),
        ("process.args is empty", lambda spec: spec["process"].update(args=[])),
        ("process.env: 'NOTHING'", lambda spec: spec["process"].update(env=["NOTHING"])),
        ("process is missing", lambda spec: spec.pop("process")),
        ("process.args is", lambda spec: spec["process"].update(args="sh")),
    ]
    for message, change in changes:
        bundle = oci.bundle(change)
        ran = oci.create("c", bundle)
        assert ran.code == 1 and message in ran.err, (message, ran)
        assert json.loads(oci("list", "-f", "json").out) is None


def notifying(path: Path) -> Any:
    told = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [told], "listenerPath": str(path), "listenerMetadata": "for me"}
    return lambda spec: spec["linux"].update(seccomp=profile)


def test_an_exec_has_a_listener_of_its_own(oci: Any, tmp_path: Path) -> None:
    """Each process that loads the filter has one; all of them go to the agent."""
    agent = Agent(str(tmp_path / "agent"))
    try:
        name = oci.running("sleep 1000", notifying(tmp_path / "agent"))
        ran = oci("exec", name, "mkdir", "/a")
        assert ran.code == 1 and "cross-device" in ran.err.lower(), ran
        first, second = agent.states
        assert second["state"] == {**first["state"], "status": "running"} and second["pid"] != first["pid"]
        assert agent.pids == [second["pid"]]
    finally:
        agent.close()
    refused = oci("exec", name, "true")
    assert refused.code == 255 and "seccomp agent" in refused.err, refused
    assert oci.state(name)["status"] == "running"


def test_what_a_killed_create_has_made_goes_by_delete(oci: Any, tmp_path: Path) -> None:
    """Killed by whom it tells that there will be a terminal: its cgroup is made by then, and no process."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "console"))
    server.listen()
    server.settimeout(30)

    def kill() -> None:
        conn, _ = server.accept()
        with conn:
            os.kill(struct.unpack("iII", conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    bundle = oci.bundle(lambda spec: spec["process"].update(terminal=True))
    assert oci.create("c", bundle, "--console-socket", str(tmp_path / "console")).code == -signal.SIGKILL
    killer.join()
    server.close()
    path = json.loads(Path(bundle, "config.json").read_text())["linux"]["cgroupsPath"]
    assert cgroups.open(path).paths, "there is something to take away"
    assert oci.state("c")["status"] == "creating"
    assert oci("delete", "--force", "c").code == 0 and oci("state", "c").code == 1
    assert not cgroups.open(path).paths
