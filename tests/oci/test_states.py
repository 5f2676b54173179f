"""The command line: states and what may be done in them, exit codes, messages, options of runc and crun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from pycontainers.errors import UsageError
from pycontainers.oci import store

pytestmark = pytest.mark.root


def becomes(oci: Any, name: str, status: str) -> None:
    end = time.monotonic() + 20
    while oci.state(name)["status"] != status:
        assert time.monotonic() < end, oci.state(name)


def test_the_whole_life(oci: Any, tmp_path: Path) -> None:
    bundle = oci.bundle(lambda spec: spec.update(annotations={"a": "b"}), "echo ran; sleep 1000")
    pid_file = tmp_path / "pid"
    assert oci.create("c", bundle, "--pid-file", str(pid_file)).code == 0
    state = oci.state("c")
    assert state["status"] == "created" and state["pid"] == int(pid_file.read_text()) and state["annotations"] == {"a": "b"}
    assert state["bundle"] == bundle and state["rootfs"] == str(oci.rootfs) and state["ociVersion"] == "1.0.2"
    assert Path(bundle, "out").read_text() == "", "nothing of the user's has run"
    Path(bundle, "config.json").write_text("{}")  # what changes after create has no effect
    assert oci("start", "c").code == 0
    assert oci.state("c")["status"] == "running"
    assert oci("kill", "c", "KILL").code == 0
    becomes(oci, "c", "stopped")
    assert oci.state("c")["pid"] == 0
    assert oci("delete", "c").code == 0
    assert oci("state", "c").code == 1


def test_what_a_state_forbids(oci: Any) -> None:
    """runtime.md, Operations: an error, and no effect."""
    assert oci.create("c", oci.bundle(None, "sleep 1000")).code == 0
    again = oci.create("c", oci.bundle(None, "true"))
    assert again.code == 1 and "already exists" in again.err
    assert "not paused" in oci("resume", "c").err
    oci("start", "c")
    second = oci("start", "c")
    assert second.code == 1 and "already running" in second.err
    refused = oci("delete", "c")
    assert refused.code == 1 and "not stopped: running" in refused.err and oci.state("c")["status"] == "running"
    assert oci("pause", "c").code == 0 and oci.state("c")["status"] == "paused"
    assert "cannot exec in a paused" in oci("exec", "c", "true").err and oci("pause", "c").code == 1
    assert oci("resume", "c").code == 0 and oci.state("c")["status"] == "running"
    oci("kill", "c", "9")
    becomes(oci, "c", "stopped")
    for command in (["kill", "c"], ["start", "c"], ["exec", "c", "true"], ["pause", "c"], ["update", "--memory", "64m", "c"]):
        ran = oci(*command)
        assert ran.code and ("not running" in ran.err or "stopped" in ran.err), (command, ran)
    for command in ("state", "start", "kill", "delete", "pause", "ps", "events"):
        ran = oci(command, "nobody")
        assert ran.code == 1 and "container does not exist: nobody" in ran.err, (command, ran)
    assert oci("delete", "--force", "nobody").code == 0, "as runc: it is not there, as was wanted"


def test_force_ends_a_paused_one(oci: Any) -> None:
    name = oci.running()
    oci("pause", name)
    assert oci("delete", "--force", name).code == 0 and oci("state", name).code == 1


def test_force_gives_back_the_id_of_a_create_that_was_killed(oci: Any) -> None:
    """Its folder is there, its state is not yet (runc removes it too)."""
    os.makedirs(f"{oci.root}/c/stage")
    assert "already exists" in oci.create("c", oci.bundle()).err and oci("state", "c").code == 1
    assert oci("delete", "--force", "c").code == 0
    assert oci.create("c", oci.bundle()).code == 0


def test_states_are_not_kept_in_somebody_elses_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pycontainers-oci-0"
    for _ in range(2):  # made, and found again
        assert store._private(str(folder)) == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    os.chown(folder, 1000, 1000)
    with pytest.raises(UsageError, match="not this user's alone"):
        store._private(str(folder))
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(UsageError, match="not this user's alone"):
        store._private(str(link))


def test_an_exec_has_a_session_keyring_of_its_own(oci: Any) -> None:
    """Else it would have its caller's, which goes on by fork and execve (session-keyring(7))."""
    for options, count in ([], "1"), (["--no-new-keyring"], "0"):
        name = oci.running("sleep 1000", lambda spec: spec["linux"].pop("maskedPaths", None), *options)
        assert oci("exec", name, "sh", "-c", f"grep -c '_ses.{name}:' /proc/keys").out == f"{count}\n", options


def test_the_end_of_a_container_does_not_take_who_waits_for_an_exec(oci: Any) -> None:
    """Who calls exec stays outside the container's cgroup: killed with it, he could not say how the program ended."""
    name = oci.running("sleep 1000")
    group = Path(f"/proc/{oci.state(name)['pid']}/cgroup").read_text()
    command = [oci.path, "--root", oci.root, "exec", name, "sh", "-c", "echo in; sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None and caller.stdout.readline() == b"in\n"
        (inside,) = Path(f"/proc/{caller.pid}/task/{caller.pid}/children").read_text().split()
        assert Path(f"/proc/{inside}/cgroup").read_text() == group
        assert Path(f"/proc/{caller.pid}/cgroup").read_text() == Path("/proc/self/cgroup").read_text()
        assert oci("delete", "--force", name).code == 0
        assert caller.wait(20) == 128 + signal.SIGKILL


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a b", "~seccomp"])
def test_names_are_no_paths(oci: Any, name: str) -> None:
    ran = oci.create(name, oci.bundle())
    assert ran.code == 1 and "container id" in ran.err, ran


def test_a_failed_create_leaves_nothing(oci: Any) -> None:
    for command, why in (("nosuch", "executable file not found"), ("/etc/passwd", "permission denied"), ("/no/such", "no such file")):
        ran = oci.create("c", oci.bundle(lambda spec, command=command: spec["process"].update(args=[command])))
        assert ran.code == 1 and why in ran.err, ran
        assert json.loads(oci("list", "-f", "json").out) is None


def test_kill_by_any_name_and_to_all(oci: Any) -> None:
    script = "trap 'echo usr1 >>/tmp/got' USR1; trap 'echo term >>/tmp/got' TERM; touch /tmp/ready; while :; do sleep 0.05; done"
    name = oci.running(script)
    got = oci.rootfs / "tmp/got"
    for text in ("USR1", "SIGUSR1", "usr1", "10", ""):
        while not (oci.rootfs / "tmp/ready").exists():
            time.sleep(0.01)
        before = got.read_text() if got.exists() else ""
        assert oci("kill", name, *([text] if text else [])).code == 0
        end = time.monotonic() + 20
        while (got.read_text() if got.exists() else "") == before and time.monotonic() < end:
            time.sleep(0.02)
    assert got.read_text().split() == ["usr1"] * 4 + ["term"]
    for path in (got, oci.rootfs / "tmp/ready"):
        path.unlink()
    assert "unknown signal" in oci("kill", name, "NONSENSE").err
    assert oci("kill", "--all", name, "KILL").code == 0
    becomes(oci, name, "stopped")


def test_list_and_ps(oci: Any) -> None:
    first, second = oci.running(), oci.running()
    assert oci("list", "-q").out.split() == sorted([first, second])
    rows = json.loads(oci("list", "--format=json").out)
    assert [row["status"] for row in rows] == ["running", "running"] and rows[0]["owner"] == "root"
    table = oci("list").out.splitlines()
    assert table[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"] and len(table) == 3
    assert json.loads(oci("ps", "-f", "json", first).out) == [oci.state(first)["pid"]]
    assert "sleep 1000" in oci("ps", first).out
    assert oci("delete", "-f", "--regex", "^c").code == 0 and oci("list", "-q").out == ""


def test_update_and_events(oci: Any, tmp_path: Path) -> None:
    name = oci.running()
    assert oci("update", "--memory", "64m", "--pids-limit", "17", "--cpu-quota", "50000", "--cpu-period", "100000", name).code == 0
    data = json.loads(oci("events", "--stats", name).out)["data"]
    assert data["memory"]["usage"]["limit"] == 64 << 20 and data["pids"]["limit"] == 17
    assert oci("update", "-r", "-", name, stdin=json.dumps({"pids": {"limit": 19}, "memory": {"limit": 0}})).code == 0
    data = json.loads(oci("events", "--stats", name).out)["data"]
    assert data["memory"]["usage"]["limit"] == 64 << 20 and data["pids"]["limit"] == 19, "0 leaves a limit as it is"
    refused = oci("update", "--memory", "much", name)
    assert refused.code == 1 and "'much'" in refused.err


@pytest.mark.parametrize("form", ["text", "json"])
def test_log(oci: Any, tmp_path: Path, form: str) -> None:
    log = tmp_path / "log"
    done = subprocess.run(
        [oci.path, "--root", oci.root, "--log", str(log), "--log-format", form, "state", "nobody"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "container does not exist" in done.stderr
    line = log.read_text()
    if form == "json":
        found = json.loads(line)
        assert found["level"] == "error" and "container does not exist" in found["msg"] and found["time"]
    else:
        assert line.startswith('time="') and "level=error" in line


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["state"], "takes ID"),
        (["frobnicate"], "unknown command"),
        (["state", "--nonsense", "c"], "unknown option --nonsense"),
        (["create", "--bundle"], "needs a value"),
        (["create", "--preserve-fds", "many", "c"], "'many'"),
        (["checkpoint", "c"], "does not do that"),
        (["--cgroup-manager", "magic", "list"], "'magic'"),
        (["create", "--bundle", "/not/there", "c"], "/not/there/config.json: No such file"),
    ],
)
def test_usage_errors(oci: Any, words: list[str], why: str) -> None:
    ran = oci(*words)
    assert ran.code == 1 and why in ran.err and len(ran.err.splitlines()) == 1, ran


def test_options_of_runc_and_crun_are_understood(oci: Any) -> None:
    """Whatever ``--help`` of the installed ones lists, is listed here."""
    import re
    import shutil

    from pycontainers.oci import options

    for peer in filter(shutil.which, ("runc", "crun")):
        for command in ("", *options.COMMANDS):
            done = subprocess.run([peer, *([command] if command else []), "--help"], capture_output=True, text=True, check=False)
            if done.returncode or (command and f"{peer} {command}" not in done.stdout):
                continue
            text = done.stdout.partition("OPTIONS:")[2] or done.stdout
            asked = set(re.findall(r"^ +(?:-\w, )?--([a-z][a-z0-9-]+)", text, re.MULTILINE)) - {"usage", "help", "version"}
            known = {option.name for option in (options.COMMANDS[command].options if command else options.GLOBAL)}
            unknown = asked - known
            if command in ("checkpoint", "restore", "events", "init"):
                continue  # refused as a whole, or without options of its own
            assert not unknown, f"{peer} {command}: {unknown}"


def test_forms_of_options(oci: Any) -> None:
    bundle = oci.bundle(None, "echo on")
    for words in (["--bundle", bundle], [f"--bundle={bundle}"], ["-b", bundle], [f"-b{bundle}"], ["-bundle", bundle]):
        assert oci("run", *words, "c").out == "on\n", words
        assert oci("run", "c", *words).out == "on\n", "after the id too, as with runc"
    assert oci("--systemd-cgroup=false", "--rootless", "auto", "--debug", "list", "-q").code == 0
    assert oci("--version").out.startswith("pycontainers-oci version ") and "spec: 1." in oci("--version").out
    assert "usage: pycontainers-oci exec" in oci("exec", "--help").out


def test_cgroup_paths(oci: Any) -> None:
    from pycontainers.oci.bundle import cgroup_path

    assert cgroup_path("/a/b", "c", systemd=False) == "/a/b" and cgroup_path("a/../../b", "c", systemd=False) == "/b"
    assert cgroup_path("", "c", systemd=False) == "/pycontainers-oci/c"
    assert cgroup_path("user-1000.slice:run:x", "c", systemd=True) == "/user.slice/user-1000.slice/run-x.scope"
    assert cgroup_path("-.slice::x", "c", systemd=True) == "/x.scope"
    ran = oci.run("cat /proc/self/cgroup", lambda spec: spec["linux"].update(cgroupsPath=f"{oci.base.name}.slice:pre:fix"))
    assert f"/{oci.base.name}.slice/pre-fix.scope" in ran.out, ran
    for path in Path("/sys/fs/cgroup").glob(f"**/{oci.base.name}.slice"):
        path.rmdir()


def test_signals_go_to_the_program_in_the_foreground(oci: Any) -> None:
    bundle = oci.bundle(None, "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    with subprocess.Popen([oci.path, "--root", oci.root, "run", "-b", bundle, "c"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "got\n"
    assert process.returncode == 9


def test_keep(oci: Any) -> None:
    assert oci.run("exit 3", None, "--keep").code == 3
    assert oci.state(f"c{oci.count}")["status"] == "stopped"


def test_spec_runs_as_it_is_written(oci: Any, tmp_path: Path) -> None:
    assert oci("spec", "--bundle", str(tmp_path)).code == 0
    assert oci("spec", "--bundle", str(tmp_path)).code == 1, "what is there is not overwritten"
    spec = json.loads((tmp_path / "config.json").read_text())
    spec["process"].update(terminal=False, args=["id", "-u"], env=["PATH=/bin"])
    spec["root"]["path"] = str(oci.rootfs)
    spec["linux"]["cgroupsPath"] = f"/{oci.base.name}-spec"
    (tmp_path / "config.json").write_text(json.dumps(spec))
    ran = oci("run", "--bundle", str(tmp_path), "c")
    assert ran.out == "0\n", ran


class TestExec:
    def test_process_and_options(self, oci: Any, tmp_path: Path) -> None:
        name = oci.running()
        what = {"args": ["sh", "-c", "id -u; id -g; echo $A $PWD; umask; exit 4"], "cwd": "/tmp", "env": ["PATH=/bin", "A=b"]}
        (tmp_path / "p").write_text(json.dumps(what | {"user": {"uid": 7, "gid": 8, "umask": 0o077}}))
        ran = oci("exec", "--process", str(tmp_path / "p"), name)
        assert (ran.code, ran.out.split()) == (4, ["7", "8", "b", "/tmp", "0077"]), ran
        ran = oci("exec", "-u", "5:6", "-e", "X=y", "--cwd", "/var", "-g", "9", name, "sh", "-c", "id; echo $X $PWD $PATH")
        assert ran.out.splitlines() == ["uid=5 gid=6 groups=9", "y /var /bin"], ran

    def test_rights(self, oci: Any) -> None:
        name = oci.running()
        look = ["sh", "-c", "grep -E 'CapEff|NoNewPrivs' /proc/self/status"]
        plain, more = oci("exec", name, *look).out, oci("exec", "--cap", "CAP_NET_ADMIN", name, *look).out
        effective = [int(text.split()[1], 16) for text in (plain, more)]
        assert effective[1] == effective[0] | 1 << 12 and "NoNewPrivs:\t1" in plain

    def test_namespaces_cgroup_and_root_are_the_containers(self, oci: Any) -> None:
        name = oci.running()
        pid = oci.state(name)["pid"]
        ran = oci(
            "exec",
            name,
            "sh",
            "-c",
            "for n in pid net ipc uts mnt user cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup; ls /",
        )
        for kind in ("pid", "net", "ipc", "uts", "mnt", "user", "cgroup"):
            assert os.readlink(f"/proc/{pid}/ns/{kind}") in ran.out
        assert Path(f"/proc/{pid}/cgroup").read_text().replace("0::/", "").strip()[:20] in ran.out

    def test_failures(self, oci: Any) -> None:
        name = oci.running()
        ran = oci("exec", name, "nosuch")
        assert ran.code == 255 and "executable file not found" in ran.err, ran
        assert oci("exec", name, "/etc/passwd").code == 255
        assert oci("exec", "--cwd", "/not/there", name, "true").code == 255
        assert "not UID" in oci("exec", "--user", "root", name, "true").err
        assert "needs a command" in oci("exec", name).err

    def test_detached_with_a_pid_file(self, oci: Any, tmp_path: Path) -> None:
        name = oci.running()
        with open(tmp_path / "out", "w") as out:
            words = ["exec", "--detach", "--pid-file", str(tmp_path / "pid"), name, "sleep", "999"]
            done = subprocess.run([oci.path, "--root", oci.root, *words], stdout=out, stderr=out, timeout=60, check=False)
        assert done.returncode == 0
        pid = int((tmp_path / "pid").read_text())
        assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00999\x00"
        assert pid in json.loads(oci("ps", "-f", "json", name).out)

    def test_terminal(self, oci: Any, tmp_path: Path) -> None:
        from tests.oci.test_process import Taker, read_all

        name, taker = oci.running(), Taker(tmp_path / "s")
        words = ["exec", "--tty", "--detach", "--console-socket", taker.path, name, "sh", "-c", "tty; cut -d' ' -f7 /proc/self/stat"]
        with open(tmp_path / "out", "w") as out:
            done = subprocess.run([oci.path, "--root", oci.root, *words], stdout=out, stderr=out, timeout=60, check=False)
        assert done.returncode == 0, (tmp_path / "out").read_text()
        assert read_all(taker.take()).split() == ["/dev/pts/0", str(136 << 8)]

    def test_affinity(self, oci: Any, tmp_path: Path) -> None:
        name = oci.running()
        what = {
            "args": ["grep", "Cpus_allowed_list", "/proc/self/status"],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "execCPUAffinity": {"final": "0"},
        }
        (tmp_path / "p").write_text(json.dumps(what))
        assert oci("exec", "-p", str(tmp_path / "p"), name).out.split() == ["Cpus_allowed_list:", "0"]


def test_our_program_is_out_of_reach_of_its_containers(oci: Any) -> None:
    """CVE-2019-5736: what executes for a container before its own program lies on a read-only mount, and cannot be looked into."""
    oci.create("c", oci.bundle(None, "sleep 1000"))
    pid = oci.state("c")["pid"]
    mode = os.stat(f"/proc/{pid}/exe").st_mode & 0o7777
    with pytest.raises(OSError, match="Read-only file system"):
        os.chmod(f"/proc/{pid}/exe", mode)
    assert os.stat(f"/proc/{pid}/fd").st_uid == 0 and "python" in os.readlink(f"/proc/{pid}/exe")
    oci("start", "c")
    assert "busybox" in os.readlink(f"/proc/{pid}/exe")
