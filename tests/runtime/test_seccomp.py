"""Seccomp in real containers: 32-bit programs, profiles of one's own, both orders with no_new_privs, a listener with its agent."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers import errors
from pycontainers.protocol import ContainerConfig, ExecConfig, Mount
from pycontainers.runtime import defaults, seccomp_profile
from tests.seccomp_agent import Agent

from . import i386

GETPID, SOCKET, SOCKETCALL, AF_INET, AF_ALG = 20, 359, 102, 2, 38  # numbers on i386

pytestmark = pytest.mark.root
intel = pytest.mark.skipif(platform.machine() != "x86_64", reason=f"i386 programs run on x86_64, this is {platform.machine()}")


@pytest.fixture
def program(tmp_path: Path) -> Any:
    """The mount of an i386 program that says hello and exits with the errno of a system call, 0 without one."""

    def make(*call: int) -> Mount:
        path = tmp_path / "program"
        path.write_bytes(i386.program(b"hello\n", first=i386.call(*call) if call else b""))
        path.chmod(0o755)
        return Mount("bind", "/program", str(path), read_only=True)

    return make


@pytest.fixture
def profile(tmp_path: Path) -> Any:
    """The path of a profile: the default one as an OCI object, with changes."""

    def make(**changes: Any) -> str:
        path = tmp_path / "profile.json"
        path.write_text(json.dumps(seccomp_profile.default_profile(defaults.CAPABILITIES) | changes))
        return f"seccomp={path}"

    return make


@intel
def test_a_32_bit_program_runs(run: Any, program: Any) -> None:
    assert run("/program", mounts=(program(),)) == "hello\n"
    assert run.status.code == 0


@intel
@pytest.mark.parametrize(
    ("call", "code"),
    [
        ((SOCKET, AF_INET, 1), 0),
        ((SOCKET, AF_ALG, 5), errno.EPERM),
        ((SOCKETCALL, 1, 0), errno.ENOSYS),  # the same by way of a pointer, which no filter can follow
        ((GETPID,), 256 - 1),  # minus its result
    ],
    ids=["socket", "AF_ALG", "socketcall", "getpid"],
)
def test_its_calls_are_filtered_by_its_own_numbers(run: Any, program: Any, call: tuple[int, ...], code: int) -> None:
    run("/program", mounts=(program(*call),))
    if code:
        assert run.status.code == code
    else:
        assert run.status.code > 200  # minus a descriptor


@intel
def test_a_32_bit_program_is_killed_where_its_architecture_is_not_admitted(run: Any, program: Any, profile: Any) -> None:
    assert run("/program", mounts=(program(),), security_opt=(profile(architectures=["SCMP_ARCH_X86_64"]),)) == ""
    assert run.status.code == 128 + 31  # SIGSYS


@pytest.mark.parametrize("privileges", ["no-new-privileges=true", "no-new-privileges=false"])
def test_both_orders(run: Any, privileges: str) -> None:
    """Without no_new_privs the filter is loaded while CAP_SYS_ADMIN is there; what the program gets is the same."""
    script = "grep -E '^(NoNewPrivs|Seccomp|CapEff|CapInh|CapAmb):' /proc/self/status; unshare -m true; echo $?"
    for user in ("", "65534"):
        lines = run("sh", "-c", script, user=user, security_opt=(privileges,)).split()
        values = dict(zip(lines[:10:2], lines[1:10:2], strict=True))
        assert values["NoNewPrivs:"] == ("1" if privileges.endswith("true") else "0")
        assert values["Seccomp:"] == "2"
        assert (int(values["CapEff:"], 16) == 0) == (user != "")
        assert not int(values["CapEff:"], 16) >> 21 & 1  # CAP_SYS_ADMIN
        assert int(values["CapInh:"], 16) == int(values["CapAmb:"], 16) == 0
        assert lines[-1] == "1"


def strict(*names: str) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": list(names), "action": "SCMP_ACT_ALLOW"}]}


@intel
def test_the_least_that_a_profile_has_to_allow(run: Any, program: Any, tmp_path: Path) -> None:
    """execve, and what drops the capabilities where the filter comes first. The program itself writes and exits."""
    path = tmp_path / "strict.json"
    option, archs = f"seccomp={path}", {"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]}
    path.write_text(json.dumps(strict("execve", "write", "exit") | archs))
    assert run("/program", mounts=(program(),), security_opt=(option, "no-new-privileges")) == "hello\n"
    with pytest.raises(errors.ContainersError, match="ended before its program was executed") as found:
        run("/program", mounts=(program(),), security_opt=(option, "no-new-privileges=false"))
    assert "capset" in found.value.hint
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_KILL", "syscalls": []}))
    with pytest.raises(errors.ContainersError, match="ended before its program was executed"):
        run("/program", mounts=(program(),), security_opt=(option, "no-new-privileges"))
    path.write_text(json.dumps(strict("execve", "write", "exit", "capset", "prctl") | archs))
    assert run("/program", mounts=(program(),), security_opt=(option, "no-new-privileges=false")) == "hello\n"


def test_a_profile_of_docker_s_format_by_its_path(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    rules = json.loads(Path(seccomp_profile.BUILTIN).read_text())
    no_folders = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV}
    with_net_raw = no_folders | {"includes": {"caps": ["CAP_NET_RAW"]}}
    path.write_text(json.dumps(rules | {"syscalls": [with_net_raw, *rules["syscalls"]]}))
    assert run("sh", "-c", "mkdir /a; echo $?", security_opt=(f"seccomp={path}",)) == "1\n"
    assert "cross-device" in run.stderr
    assert run("sh", "-c", "mkdir /a; echo $?", security_opt=(f"seccomp={path}",), cap_drop=("NET_RAW",)) == "0\n"
    assert run("sh", "-c", "unshare -U true; echo $?", security_opt=("seccomp=unconfined",)) == "0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("{", "is not JSON"),
        ("[]", "not an object"),
        ('{"syscalls": []}', "unknown action None"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "ALLOW"}]}', "read: unknown action 'ALLOW'"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["FAST"]}', "unknown flag 'FAST'"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}', "needs a listenerPath"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}, "archMap": 3}', "archMap is not a list"),
        (
            '{"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["x"], "action": "SCMP_ACT_LOG", "includes": {"minKernel": "old"}}]}',
            "kernel version 'old'",
        ),
    ],
)
def test_a_profile_that_makes_no_sense_leaves_nothing(run: Any, remains: Any, tmp_path: Path, text: str | None, message: str) -> None:
    path, before = tmp_path / "wrong.json", remains()
    if text is not None:
        path.write_text(text)
    with pytest.raises(errors.UsageError) as found:
        run("true", security_opt=(f"seccomp={path}",))
    assert str(path) in found.value.message
    assert message in found.value.message
    assert "\n" not in found.value.message
    assert remains() == before


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    found = Agent(str(tmp_path / "agent"))
    yield found
    found.close()


def notifying(profile: Any, path: Path) -> str:
    told = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}
    rules = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [told], "listenerPath": str(path), "listenerMetadata": "for me"}
    return str(profile(**rules))


@pytest.mark.parametrize("privileges", ["no-new-privileges=true", "no-new-privileges=false"])
def test_calls_are_answered_by_the_agent(run: Any, profile: Any, agent: Agent, tmp_path: Path, privileges: str) -> None:
    option = notifying(profile, tmp_path / "agent")
    assert run("sh", "-c", "mkdir /a; echo $?", security_opt=(option, privileges)) == "1\n"
    assert "cross-device" in run.stderr
    (state,) = agent.states
    assert state["fds"] == ["seccompFd"]
    assert state["metadata"] == "for me"
    assert state["state"]["status"] == "creating"
    assert len(state["state"]["id"]) == 64
    assert os.path.basename(state["state"]["bundle"]) == state["state"]["id"]
    assert state["pid"] == state["state"]["pid"] > 1
    assert len(agent.pids) == 1


def test_without_its_agent_nothing_starts(run: Any, profile: Any, remains: Any, tmp_path: Path) -> None:
    before = remains()
    with pytest.raises(errors.ContainersError, match=r"seccomp agent .*/nobody: No such file"):
        run("true", security_opt=(notifying(profile, tmp_path / "nobody"),))
    assert remains() == before


@intel
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_listener_of_a_bundle_goes_to_the_agent_at_its_start(agent: Agent, tmp_path: Path, no_new_privileges: bool) -> None:
    """``pycontainers-oci``: who creates the container has gone when its filter is loaded."""
    root = tmp_path / "rootfs"
    root.mkdir()
    (root / "program").write_bytes(i386.program(b"hello\n", first=i386.call(GETPID)))
    (root / "program").chmod(0o755)
    told = {"names": ["getpid"], "action": "SCMP_ACT_NOTIFY"}
    rules = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [told]}
    spec = {
        "ociVersion": "1.2.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/program"], "cwd": "/", "noNewPrivileges": no_new_privileges},
        "root": {"path": "rootfs"},
        "annotations": {"org.example.mine": "yes"},
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc")],
            "seccomp": rules | {"listenerPath": str(tmp_path / "agent"), "listenerMetadata": "for me"},
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "pycontainers.oci.program", "--root", str(tmp_path / "state")]
    name = f"seccomp-{os.getpid()}"
    done = subprocess.run([*command, "run", "--bundle", str(tmp_path), name], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (errno.EXDEV, "hello\n", "")
    (state,) = agent.states
    assert (state["fds"], state["metadata"]) == (["seccompFd"], "for me")
    assert state["state"]["id"] == name
    assert state["state"]["bundle"] == str(tmp_path)
    assert state["state"]["annotations"] == {"org.example.mine": "yes"}
    assert agent.pids == [state["pid"]]
    agent.close()
    done = subprocess.run([*command, "run", "--bundle", str(tmp_path), name], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode
    assert "seccomp agent" in done.stderr
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["~seccomp"]


def test_an_exec_has_a_listener_of_its_own(engine: Any, profile: Any, agent: Agent, tmp_path: Path) -> None:
    option = notifying(profile, tmp_path / "agent")
    asked = ContainerConfig("host", ("sleep", "100"), network="none", security_opt=(option,))
    info = engine.create(asked)
    engine.start(info.id)
    said = bytearray()
    assert engine.exec(info.id, ExecConfig(("mkdir", "/a")), None, lambda _, data: said.extend(data)).code == 1
    assert b"cross-device" in said
    first, second = agent.states
    assert (first["state"]["status"], second["state"]["status"]) == ("creating", "running")
    assert second["state"]["pid"] == first["pid"] != second["pid"]
    assert agent.pids == [second["pid"]]
    agent.close()
    with pytest.raises(errors.ContainersError, match="seccomp agent"):
        engine.exec(info.id, ExecConfig(("true",)))
    assert engine.find(info.id).status == "running"
