"""What a container is cut off from, asked of the kernel from both sides."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pycontainers.linux import capabilities, namespaces
from pycontainers.protocol import ContainerConfig, ExecConfig
from pycontainers.runtime import defaults

pytestmark = pytest.mark.root

KINDS = ["user", "pid", "network", "mount", "uts", "ipc", "cgroup", "time"]


@pytest.fixture(scope="module")
def sleeper(state: Any) -> Any:
    from pycontainers.engines.native import NativeEngine

    engine = NativeEngine(state)
    info = engine.start(engine.create(ContainerConfig("host", ("sleep", "100"), name="sleeper", network="none")).id)
    yield engine, info
    engine.remove(info.id, force=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_namespace_is_its_own(sleeper: Any, kind: str) -> None:
    _, info = sleeper
    assert namespaces.links(info.pid)[kind] != namespaces.links("self")[kind]


def test_two_containers_share_no_namespace(sleeper: Any, run: Any) -> None:
    _, info = sleeper
    theirs = namespaces.links(info.pid)
    mine = json.loads(
        run(
            "python",
            "-c",
            "import os, json; print(json.dumps({n: os.readlink('/proc/self/ns/' + n) for n in os.listdir('/proc/self/ns')}))",
        )
    )
    assert not set(theirs.values()) & set(mine.values())


def test_root_inside_is_nobody_outside(sleeper: Any) -> None:
    engine, info = sleeper
    status = dict(line.split(":", 1) for line in Path(f"/proc/{info.pid}/status").read_text().splitlines())
    assert {int(uid) for uid in status["Uid"].split()} == {defaults.HOST_ID_BASE}
    assert {int(gid) for gid in status["Gid"].split()} == {defaults.HOST_ID_BASE}
    seen = []
    engine.exec(info.id, ExecConfig(("id", "-u")), None, lambda stream, data: seen.append(data))
    assert b"".join(seen) == b"0\n"


def test_process_sees_itself_as_pid_1_and_no_process_of_the_host(run: Any) -> None:
    out = run("python", "-c", "import os; print(os.getpid()); print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()))")
    assert out.splitlines() == ["1", "[1]"]


def test_hostname_is_its_own(run: Any) -> None:
    assert run("hostname", hostname="elsewhere") == "elsewhere\n"
    assert os.uname().nodename != "elsewhere"
    assert run("cat", "/etc/hostname", hostname="elsewhere") == "elsewhere\n"


def test_network_none_has_only_loopback_and_no_route(run: Any) -> None:
    script = "print(open('/proc/net/route').read().count('\\n'), sorted(__import__('os').listdir('/sys/class/net')))"
    assert run("python", "-c", script) == "1 ['lo']\n"
    assert (
        run(
            "python",
            "-c",
            "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname()); print('up')",
        )
        == "up\n"
    )


def test_capabilities_are_exactly_the_default_list(run: Any) -> None:
    status = dict(line.split(":", 1) for line in run("cat", "/proc/self/status").splitlines())
    wanted = capabilities.mask(defaults.CAPABILITIES)
    assert [int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")] == [wanted] * 3
    assert [int(status[name], 16) for name in ("CapInh", "CapAmb")] == [0, 0]
    assert status["NoNewPrivs"].strip() == "0", "as Docker: --security-opt no-new-privileges sets it"
    assert status["Seccomp"].strip() == "2"


def test_another_user_has_no_capabilities(run: Any) -> None:
    out = run("sh", "-c", "id; grep CapEff /proc/self/status; cat /etc/shadow; echo x > /etc/new", user="1234:2345")
    assert "uid=1234 gid=2345" in out
    assert "CapEff:\t0000000000000000" in out
    assert "new: Permission denied" in run.stderr


def test_user_by_name_has_its_group_and_home(run: Any) -> None:
    assert run("sh", "-c", "id -un; id -gn; echo $HOME", user="daemon").splitlines() == ["daemon", "daemon", "/usr/sbin"]


def test_no_descriptor_leaks(run: Any) -> None:
    assert (
        run("python", "-c", "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:3], len(os.listdir('/proc/self/fd')))")
        == "[0, 1, 2] 4\n"
    )


def test_no_environment_leaks(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_NOTEBOOK", "hunter2")
    names = set(run("python", "-c", "import os; print(*sorted(os.environ))", env={"MINE": "1"}).split())
    assert names == {"HOME", "HOSTNAME", "LANG", "MINE", "PATH"}


def test_dev_holds_the_listed_nodes_and_they_work(run: Any) -> None:
    names = set(run("ls", "/dev").split())
    assert names == {*defaults.DEVICES, "fd", "stdin", "stdout", "stderr", "ptmx", "core", "pts", "shm", "mqueue"}
    assert (
        run("sh", "-c", "echo gone > /dev/null; head -c 4 /dev/zero | od -An -tx1; test -c /dev/urandom && echo ok") == " 00 00 00 00\nok\n"
    )
    assert run("sh", "-c", "echo again > /dev/stdout") == "again\n"


def test_masked_paths_show_nothing(run: Any) -> None:
    for path in defaults.MASKED_PATHS:
        if Path(path).exists():
            out = run("sh", "-c", f"if [ -d {path} ]; then ls {path}; else cat {path}; fi")
            assert out == "", f"{path} shows {out[:60]!r}"


@pytest.mark.parametrize(
    "path", ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/mm/ksm/run", "/proc/sys/net/ipv4/ip_forward"]
)
def test_kernel_settings_cannot_be_written(run: Any, path: str) -> None:
    run("sh", "-c", f"echo 0 > {path}")
    assert run.status.code != 0
    assert "Read-only file system" in run.stderr or "Permission denied" in run.stderr or "cannot create" in run.stderr


def test_old_root_and_state_are_out_of_reach(run: Any, state: Any) -> None:
    out = run("cat", "/proc/self/mountinfo")
    points = [line.split()[4] for line in out.splitlines()]
    assert points.count("/") == 1
    assert not [p for p in points if p.startswith((str(state.home), str(state.run), "/run/"))], points
    assert run("sh", "-c", f"ls {state.home} 2>/dev/null | wc -l") == "0\n"


def test_nested_user_namespaces_and_mounts_are_refused(run: Any) -> None:
    script = (
        "import ctypes, os; l = ctypes.CDLL(None, use_errno=True);"
        "print(l.unshare(0x10000000), ctypes.get_errno(), l.mount(b't', b'/mnt', b'tmpfs', 0, None), ctypes.get_errno())"
    )
    assert run("python", "-c", script) == "-1 1 -1 1\n"


def test_mknod_of_a_disk_is_refused(run: Any) -> None:
    run("mknod", "/tmp/disk", "b", "254", "0")
    assert run.status.code != 0
    assert "Operation not permitted" in run.stderr


def test_cgroup_namespace_shows_its_own_root(run: Any) -> None:
    assert {line.split(":", 2)[2] for line in run("cat", "/proc/self/cgroup").splitlines()} == {"/"}
    run("sh", "-c", "mkdir /sys/fs/cgroup/mine || mkdir /sys/fs/cgroup/memory/mine")
    assert run.status.code != 0


def test_read_only_root(run: Any) -> None:
    out = run(
        "sh",
        "-c",
        "touch /x 2>&1; touch /usr/x 2>&1; touch /tmp/ok && echo written",
        read_only=True,
        mounts=(__import__("pycontainers").Mount("tmpfs", "/tmp"),),
    )
    assert out.count("Read-only file system") == 2
    assert out.endswith("written\n")


def test_work_is_not_seen_on_the_host(run: Any) -> None:
    run("sh", "-c", "echo mine > /usr/written-inside; echo mine > /etc/written-inside")
    assert run.status.code == 0
    assert not Path("/usr/written-inside").exists()
    assert not Path("/etc/written-inside").exists()


def test_exec_joins_every_namespace_and_the_cgroup(sleeper: Any) -> None:
    engine, info = sleeper
    seen: list[bytes] = []
    script = """import os
def links(pid): return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in os.listdir(f"/proc/{pid}/ns")}
print(links("self") == links(1))"""
    engine.exec(info.id, ExecConfig(("python", "-c", script)), None, lambda stream, data: seen.append(data))
    assert seen == [b"True\n"]
    seen.clear()
    engine.exec(
        info.id,
        ExecConfig(("sh", "-c", "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; ls /proc/self/fd | wc -l")),
        None,
        lambda stream, data: seen.append(data),
    )
    text = b"".join(seen).decode()
    assert f"{capabilities.mask(defaults.CAPABILITIES):016x}" in text
    assert "NoNewPrivs:\t0" in text and "Seccomp:\t2" in text
    assert text.endswith("\n4\n")


def test_secrets_of_the_host_are_not_inside(run: Any, tmp_path: Path) -> None:
    """Planted in likely places on the real machine, looked for from inside by name and by content."""
    marker = f"planted-{os.getpid()}"
    home = Path.home()
    places = [
        home / f".{marker}",
        home / ".ssh" / marker,
        Path("/opt") / marker,
        Path("/srv") / marker,
        Path("/var/lib") / marker,
        Path("/etc/ssl/private") / marker,
        Path("/run") / marker,
        Path("/tmp") / marker,
    ]
    made = []
    try:
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(marker)
            made.append(place)
        out = run(
            "sh",
            "-c",
            f"find / -xdev -name '*{marker}*' 2>/dev/null; find / -name '*{marker}*' -not -path '/proc/*' 2>/dev/null; "
            "ls /etc/shadow /etc/ssh /var/run/docker.sock /etc/machine-id 2>/dev/null; ls -A /root /home 2>/dev/null",
        )
        assert marker not in out
        assert not [line for line in out.splitlines() if line.startswith(("/etc/", "/var/"))]
    finally:
        for place in made:
            place.unlink()


def test_host_root_owned_files_are_protected_from_root_inside(run: Any, tmp_path: Path) -> None:
    """A device of the host's, and a host process: root inside has no right over them."""
    out = run("sh", "-c", "kill -0 1 && echo self; dmesg 2>&1 | head -1; hostname other 2>&1; date -s 2000-01-01 2>&1")
    assert "self" in out
    assert "Operation not permitted" in out
    assert subprocess.run(["hostname"], capture_output=True, text=True, check=False).stdout != "other\n"
