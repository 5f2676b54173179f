"""podman and dockerd of Debian's packages drive ``pycontainers-oci`` as their runtime."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.oci.conftest import PACKAGE

pytestmark = pytest.mark.root
LIMITS = ["--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000"]  # podman's own are above the hard limits of many machines
STOPS = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done"


class Engine:
    """``words``: the client's command line, ``options``: of each run."""

    def __init__(self, words: list[str], options: list[str]) -> None:
        self.words, self.options = words, options

    def __call__(self, *arguments: str, stdin: str | None = None, code: int = 0) -> str:
        given = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        done: Any = subprocess.run([*self.words, *arguments], capture_output=True, text=True, timeout=120, check=False, **given)
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return str(done.stdout)

    def run(self, *arguments: str, stdin: str | None = None, code: int = 0) -> str:
        return self("run", *self.options, *arguments, stdin=stdin, code=code)

    def end(self, name: str) -> None:
        self("kill", name)
        self("rm", "--force", name)


@pytest.fixture(scope="module")
def image(rootfs: Path, place: Path) -> str:
    path = place / "box.tar"
    subprocess.run(["tar", "-C", str(rootfs), "-cf", str(path), "."], check=True)
    return str(path)


@pytest.fixture(scope="module")
def podman(place: Path, program: str, image: str) -> Iterator[Engine]:
    """In a mount namespace without the unified tree of a hybrid machine, which podman takes for cgroup v2."""
    if os.geteuid() or not shutil.which("podman") or not shutil.which("conmon"):
        pytest.skip("podman is not installed (Debian: apt-get install podman)")
    base = place / "podman"
    options = f"--root {base}/root --runroot {base}/run --tmpdir {base}/tmp --runtime {program}"
    options += " --cgroup-manager=cgroupfs --events-backend=file --storage-driver vfs"
    path = place / "podman.sh"
    path.write_text(
        "#!/bin/sh\nexec unshare -m sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; "
        f'exec podman {options} "$@"\' podman "$@"\n'
    )
    path.chmod(0o755)
    engine = Engine([str(path)], ["--network", "none", *LIMITS])
    engine("import", image, "box")
    yield engine
    engine("rm", "--all", "--force", "--time", "0")


@pytest.fixture(scope="module")
def docker(place: Path, program: str, image: str) -> Iterator[Engine]:
    """A dockerd of its own in a network namespace of its own: no bridge, no rules on the machine."""
    daemon = shutil.which("dockerd") or "/usr/sbin/dockerd"
    if os.geteuid() or not os.path.exists(daemon) or not shutil.which("docker"):
        pytest.skip("dockerd is not installed (Debian: apt-get install docker.io)")
    base = place / "docker"
    base.mkdir()
    words = ["unshare", "--net", daemon, "-H", f"unix://{base}/socket", "--data-root", f"{base}/data", "--exec-root", f"{base}/exec"]
    words += ["--pidfile", f"{base}/pid", "--bridge", "none", "--iptables=false", "--ip6tables=false", "--storage-driver", "vfs"]
    words += ["--add-runtime", f"ours={program}", "--default-runtime", "ours", "--cgroup-parent", f"/{place.name}"]
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    engine = Engine([shutil.which("docker") or "", "-H", f"unix://{base}/socket"], ["--network", "none"])
    try:
        end = time.monotonic() + 40
        while subprocess.run([*engine.words, "version"], capture_output=True, check=False).returncode:
            if process.poll() is not None or time.monotonic() > end:
                pytest.skip(f"dockerd does not start here: {(base / 'log').read_text()[-300:]}")
            time.sleep(0.1)
        engine("import", image, "box")
        yield engine
        if left := engine("ps", "-aq").split():
            engine("rm", "-f", *left)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if line.split()[4].startswith(f"{base}/"):
                subprocess.run(["umount", "-l", line.split()[4]], check=False)
        for path in Path("/sys/fs/cgroup").glob(f"*/{place.name}"):
            with contextlib.suppress(OSError):
                path.rmdir()


@pytest.fixture(params=["podman", "docker"])
def engine(request: Any) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


def test_run_exec_stop_and_remove(engine: Engine) -> None:
    engine.run("-d", "--name", "life", "box", "sh", "-c", STOPS)
    assert engine("inspect", "--format", "{{.State.Status}}", "life") == "running\n"
    assert engine("exec", "life", "sh", "-c", "echo in; exit 3", code=3) == "in\n"
    assert engine("exec", "-t", "life", "tty").strip() == "/dev/pts/0"
    engine("stop", "--time", "20", "life")
    assert engine("inspect", "--format", "{{.State.ExitCode}} {{.State.Status}}", "life") == "5 exited\n"
    assert engine("logs", "life").split() == ["up", "bye"]
    engine("start", "life")
    engine("kill", "life")
    assert engine("wait", "life") == "137\n"
    engine("rm", "life")


def test_it_is_ours_that_runs(engine: Engine, program: str) -> None:
    """The engine says which runtime a container has."""
    engine("create", *engine.options, "--name", "named", "box", "true")
    found = json.loads(engine("inspect", "named"))[0]
    assert found.get("OCIRuntime") == program or found["HostConfig"]["Runtime"] == "ours"
    engine("rm", "named")


def test_exit_codes(engine: Engine) -> None:
    engine.run("--rm", "box", "sh", "-c", "exit 42", code=42)
    engine.run("--rm", "box", "nosuch", code=127)
    engine.run("--rm", "box", "/etc/passwd", code=126)


def test_input_output_and_terminal(engine: Engine) -> None:
    assert engine.run("--rm", "-i", "box", "cat", stdin="piped\n") == "piped\n"
    out = engine.run("--rm", "-t", "box", "sh", "-c", "tty; test -c /dev/console && echo console")
    assert out.split() == ["/dev/pts/0", "console"]
    if shutil.which("script"):
        words = [*engine.words, "run", *engine.options, "--rm", "-it", "box", "sh", "-c", "read x; echo got $x"]
        command = ["script", "-qec", " ".join(f"'{word}'" for word in words), "/dev/null"]
        done = subprocess.run(command, input="hello\n", capture_output=True, text=True, timeout=60, check=False)
        assert "got hello" in done.stdout, done


def test_pause_and_update(engine: Engine) -> None:
    engine.run("-d", "--name", "frozen", "box", "sleep", "1000")
    engine("pause", "frozen")
    assert engine("inspect", "--format", "{{.State.Status}}", "frozen") == "paused\n"
    engine("unpause", "frozen")
    if "docker" in engine.words[0]:
        engine("update", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "30", "frozen")
        pid = engine("inspect", "--format", "{{.State.Pid}}", "frozen").strip()
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        group = next(line.split(":")[2] for line in lines if ":pids:" in line or line[0] == "0")
        files = [Path(f"/sys/fs/cgroup/pids{group}/pids.max"), Path(f"/sys/fs/cgroup{group}/pids.max")]
        assert next(file for file in files if file.exists()).read_text() == "30\n"
    engine.end("frozen")


def test_options_arrive(engine: Engine) -> None:
    script = "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status; hostname; pwd; ulimit -n; echo $X; touch /no 2>&1; "
    script += "touch /t/yes && echo yes; cat /v/f"
    is_docker = "docker" in engine.words[0]
    folder = Path(engine.words[2].removeprefix("unix://") if is_docker else engine.words[0]).parent
    (folder / "vol").mkdir(exist_ok=True)
    (folder / "vol/f").write_text("volume\n")
    words = ["--rm", "--user", "1000:1000", "--cap-drop", "all", "--hostname", "named", "-w", "/var", "-e", "X=y", "--read-only"]
    words += ["--tmpfs", "/t:mode=1777", "-v", f"{folder}/vol:/v:ro", "--memory", "64m", "--pids-limit", "50"]
    words += ["--security-opt", "no-new-privileges", *(["--ulimit", "nofile=500:600"] if is_docker else [])]
    out = engine.run(*words, "box", "sh", "-c", script).splitlines()
    limit = "500" if is_docker else "1000"
    assert out == [
        "1000",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "named",
        "/var",
        limit,
        "y",
        "touch: /no: Read-only file system",
        "yes",
        "volume",
    ]


def test_privileged_and_devices(engine: Engine) -> None:
    assert "mounted" in engine.run("--rm", "--privileged", "box", "sh", "-c", "mount -t tmpfs x /tmp && echo mounted")
    script = "stat -c %t:%T /dev/filled; echo x >/dev/filled"
    out = engine.run("--rm", "--device", "/dev/full:/dev/filled", "box", "sh", "-c", script, code=1)
    assert out == "1:7\n", "No space left on device"


def test_namespaces_of_another(engine: Engine) -> None:
    engine.run("-d", "--name", "first", *(["--ipc", "shareable"]), "box", "sleep", "1000")
    pid = engine("inspect", "--format", "{{.State.Pid}}", "first").strip()
    mode = ["--network", "container:first", "--pid", "container:first", "--ipc", "container:first"]
    words = ["run", "--rm", *(engine.options[2:]), *mode, "box", "sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/pid; ps"]
    out = engine(*words)
    assert os.readlink(f"/proc/{pid}/ns/net") in out and os.readlink(f"/proc/{pid}/ns/pid") in out and "sleep 1000" in out
    engine.end("first")


class TestDocker:
    def test_init(self, docker: Engine) -> None:
        assert "docker-init" in docker.run("--rm", "--init", "box", "ps")

    def test_restart_policy(self, docker: Engine) -> None:
        docker.run("-d", "--name", "again", "--restart", "on-failure:2", "box", "sh", "-c", "echo x; exit 1")
        end = time.monotonic() + 40
        while docker("inspect", "--format", "{{.RestartCount}} {{.State.Status}}", "again") != "2 exited\n":
            assert time.monotonic() < end, docker("inspect", "--format", "{{.RestartCount}} {{.State.Status}}", "again")
            time.sleep(0.1)
        assert docker("logs", "again").split() == ["x", "x", "x"]
        docker("rm", "again")

    def test_health(self, docker: Engine) -> None:
        docker.run("-d", "--name", "well", "--health-cmd", "true", "--health-interval", "1s", "box", "sleep", "1000")
        end = time.monotonic() + 40
        while docker("inspect", "--format", "{{.State.Health.Status}}", "well") != "healthy\n":
            assert time.monotonic() < end
            time.sleep(0.1)
        docker("rm", "-f", "well")

    def test_hook_that_joins_the_network(self, docker: Engine) -> None:
        """dockerd sets the network up in a prestart hook, with the first process's pid."""
        assert "lo" in docker.run("--rm", "box", "ls", "/sys/class/net")


class TestPodman:
    def test_pid_file_and_health(self, podman: Engine, tmp_path: Path) -> None:
        health = ["--health-cmd", "true", "--health-interval", "disable"]
        podman.run("-d", "--name", "filed", "--pidfile", str(tmp_path / "pid"), *health, "box", "sleep", "1000")
        pid = int((tmp_path / "pid").read_text())
        assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep")
        podman("healthcheck", "run", "filed")
        podman("rm", "--force", "--time", "0", "filed")

    def test_pod(self, podman: Engine) -> None:
        """A user namespace, and owners of volumes as they are."""
        out = podman.run("--rm", "--uidmap", "0:200000:1000", "--gidmap", "0:200000:1000", "box", "cat", "/proc/self/uid_map")
        assert out.split() == ["0", "200000", "1000"]


@pytest.fixture(scope="module")
def somebody(place: Path, image: str) -> Iterator[Engine]:
    """podman of an ordinary user, made for this. It calls the runtime as root of the user's own namespace."""
    if os.geteuid() or not all(map(shutil.which, ("podman", "useradd", "newuidmap", "setpriv"))):
        pytest.skip("podman, uidmap or useradd is missing (Debian: apt-get install podman uidmap)")
    name, base = f"pyct{os.getpid():x}", place / "somebody"
    base.mkdir()
    (base / "package").mkdir()
    shutil.copytree(Path(PACKAGE) / "pycontainers", base / "package/pycontainers")
    program = base / "pycontainers-oci"
    start = 'import sys; sys.path.insert(0, sys.argv.pop(1)); from pycontainers.oci.program import main; main()'
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")  # a virtual environment of root's may be closed to him
    program.write_text(f"#!/bin/sh\nexec {python} -I -S -c '{start}' {base}/package \"$@\"\n")
    program.chmod(0o755)
    make = ["useradd", "--no-create-home", "--home-dir", str(base / "home"), "--shell", "/bin/sh", name]
    subprocess.run(make, check=True, capture_output=True)
    user = pwd.getpwnam(name)
    for folder in ("home", "run"):
        (base / folder).mkdir(0o700)
        os.chown(base / folder, user.pw_uid, user.pw_gid)
    become = f"setpriv --reuid={user.pw_uid} --regid={user.pw_gid} --init-groups --inh-caps=-all env -i PATH={os.environ['PATH']}"
    become += f" HOME={base}/home XDG_RUNTIME_DIR={base}/run USER={name}"
    options = f"--cgroup-manager=cgroupfs --events-backend=file --storage-driver vfs --runtime {program}"
    path = base / "podman.sh"
    path.write_text(
        f"#!/bin/sh\ncd {base}/home\nexec unshare -m sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; "
        f'exec {become} podman {options} "$@"\' podman "$@"\n'
    )
    path.chmod(0o755)
    engine = Engine([str(path)], ["--network", "none", *LIMITS])
    try:
        if subprocess.run([*become.split(), str(program), "--version"], capture_output=True, check=False).returncode:
            pytest.skip("an ordinary user cannot execute this machine's python3")
        done = subprocess.run([str(path), "import", image, "box"], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"podman does not run for an ordinary user here: {done.stderr[-300:]}")
        yield engine
        engine("rm", "--all", "--force", "--time", "0")
    finally:
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == user.pw_uid:  # podman's pause process, which keeps his user namespace
                    os.kill(int(entry.name), signal.SIGKILL)
        subprocess.run(["userdel", name], check=False, capture_output=True)


class TestOrdinaryUser:
    def test_run_exec_stop_and_remove(self, somebody: Engine) -> None:
        test_run_exec_stop_and_remove(somebody)

    def test_ids(self, somebody: Engine) -> None:
        assert len(somebody.run("--rm", "box", "cat", "/proc/self/uid_map").splitlines()) == 2
        assert somebody.run("--rm", "--userns", "keep-id", "box", "id", "-u").strip() not in ("0", "")
        out = somebody.run("--rm", "--user", "7:8", "box", "sh", "-c", "id -u; id -g; head -c1 /dev/zero | wc -c")
        assert out.split() == ["7", "8", "1"]

    def test_terminal(self, somebody: Engine) -> None:
        assert somebody.run("--rm", "-t", "box", "tty").strip() == "/dev/pts/0"
