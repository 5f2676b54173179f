"""From create to removal, as a user of Docker expects it."""

from __future__ import annotations

import os
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pycontainers import errors
from pycontainers.commands.program import main
from pycontainers.protocol import ContainerConfig, ExecConfig, Mount, Port, Resources

pytestmark = pytest.mark.root


def config(*command: str, **more: Any) -> ContainerConfig:
    return ContainerConfig(more.pop("image", "host"), command, network=more.pop("network", "none"), **more)


def started(engine: Any, *command: str, **more: Any) -> Any:
    return engine.start(engine.create(config(*command, **more)).id)


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code(run: Any, code: int) -> None:
    run("sh", "-c", f"exit {code}")
    assert run.status.code == code
    assert run.status.signal == 0


def test_death_by_signal_is_128_and_its_number(engine: Any) -> None:
    info = started(engine, "sleep", "100")
    engine.kill(info.id)
    assert engine.wait(info.id).code == 137
    assert engine.wait(info.id).signal == 9


def test_streams_are_kept_apart_and_in_full(run: Any) -> None:
    out = run("python", "-c", "import sys; sys.stdout.write('x' * 300000); sys.stderr.write('problem')")
    assert out == "x" * 300000
    assert run.stderr == "problem"


def test_stdin_is_the_body(run: Any) -> None:
    assert run("python", "-", stdin=b"import sys; print(6 * 7); sys.exit(3)") == "42\n"
    assert run.status.code == 3


def test_without_body_stdin_is_empty(run: Any) -> None:
    assert run("cat") == ""


def test_log_keeps_time_stream_and_unfinished_lines(engine: Any) -> None:
    info = started(engine, "sh", "-c", "echo one; echo two >&2; printf three")
    engine.wait(info.id)
    lines = list(engine.logs(info.id))
    assert sorted((line.stream, line.text, line.partial) for line in lines) == [
        ("stderr", "two", False),
        ("stdout", "one", False),
        ("stdout", "three", True),
    ]
    assert all(abs(line.time - time.time()) < 60 for line in lines)
    assert [line.text for line in engine.logs(info.id, tail=1)] == [lines[-1].text]


def test_log_follows_until_the_end(engine: Any) -> None:
    info = started(engine, "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done")
    assert [line.text for line in engine.logs(info.id, follow=True)] == ["1", "2", "3"]


def test_stop_lets_the_program_end_itself(engine: Any) -> None:
    info = started(engine, "sh", "-c", "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    next(iter(engine.logs(info.id, follow=True)))
    assert engine.stop(info.id).exit.code == 5
    assert [line.text for line in engine.logs(info.id)] == ["ready", "bye"]


def test_stop_kills_what_does_not_listen(engine: Any) -> None:
    # pid 1 without a handler ignores SIGTERM; without the timeout that is given here it would be waited for without end
    info = started(engine, "sleep", "100", stop_timeout=-1)
    assert engine.stop(info.id, timeout=0.3).exit.code == 137


def test_start_again_keeps_files_and_log(engine: Any) -> None:
    info = started(engine, "sh", "-c", "echo x >> /count; wc -l < /count")
    engine.wait(info.id)
    engine.start(info.id)
    engine.wait(info.id)
    assert [line.text.strip() for line in engine.logs(info.id)] == ["1", "2"]


def test_running_container_is_not_started_twice_nor_removed(engine: Any) -> None:
    info = started(engine, "sleep", "100")
    with pytest.raises(errors.StateError, match="running already"):
        engine.start(info.id)
    with pytest.raises(errors.StateError, match="is running"):
        engine.remove(info.id)
    engine.remove(info.id, force=True)
    with pytest.raises(errors.NotFound):
        engine.find(info.id)


def test_names(engine: Any) -> None:
    first = engine.create(config("true", name="taken"))
    with pytest.raises(errors.NameInUse, match="in use"):
        engine.create(config("true", name="taken"))
    again = engine.create(config("true", name="taken", replace=True))
    assert again.id != first.id
    assert engine.find("taken").id == again.id == engine.find(again.id[:6]).id
    with pytest.raises(errors.NotFound) as found:
        engine.find("takem")
    assert "taken" in found.value.hint


@pytest.mark.parametrize(
    ("command", "kind", "code"),
    [
        ("no-such-thing", errors.CommandNotFound, 127),
        ("/no/such", errors.CommandNotFound, 127),
        ("/etc/passwd", errors.CommandNotExecutable, 126),
        ("/etc", errors.CommandNotExecutable, 126),
    ],
)
def test_commands_that_cannot_run(engine: Any, remains: Any, command: str, kind: type[errors.ContainersError], code: int) -> None:
    before = remains()
    with pytest.raises(kind) as found:
        engine.run(config(command))
    assert found.value.exit_code == code
    assert command in found.value.message
    assert "\n" not in found.value.message
    assert remains() == before


def test_script_without_its_interpreter_says_so(engine: Any, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(errors.CommandNotFound, match="interpreter"):
        engine.run(config("/tools/script", mounts=(Mount("bind", "/tools", str(tmp_path)),)))


def test_memory_exhaustion_is_reported(run: Any) -> None:
    run("python", "-c", "x = bytearray(200 << 20)", resources=Resources(memory=32 << 20, memory_swap=32 << 20))
    assert run.status.oom_killed
    assert run.status.code == 137
    assert 16 << 20 < run.status.memory_peak <= 33 << 20


def test_bind_mount_keeps_owners_right(run: Any, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from outside")
    os.chown(tmp_path / "in", 1000, 1000)
    out = run(
        "sh",
        "-c",
        "cat /data/in; stat -c %u:%g /data/in; echo new > /data/out; chown 1000:1000 /data/out",
        mounts=(Mount("bind", "/data", str(tmp_path)),),
    )
    assert out == "from outside1000:1000\n"
    assert (tmp_path / "out").read_text() == "new\n"
    assert ((tmp_path / "out").stat().st_uid, (tmp_path / "out").stat().st_gid) == (1000, 1000)
    run("sh", "-c", "echo root > /data/root", mounts=(Mount("bind", "/data", str(tmp_path)),))
    assert (tmp_path / "root").stat().st_uid == 0


def test_read_only_mount_and_single_file(run: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    out = run(
        "sh",
        "-c",
        "cat /etc/single; echo x > /etc/single; echo x > /data/y",
        mounts=(
            Mount("bind", "/etc/single", str(tmp_path / "file"), read_only=True),
            Mount("bind", "/data", str(tmp_path), read_only=True),
        ),
    )
    assert out == "content"
    assert run.stderr.count("Read-only file system") == 2


def test_mount_target_with_links_stays_inside(run: Any, tmp_path: Path) -> None:
    """/bin is a link in the image: a mount below it must land in the image's /usr/bin, not the host's."""
    (tmp_path / "tool").write_text("#!/bin/sh\necho tool\n")
    (tmp_path / "tool").chmod(0o755)
    assert run("tool", mounts=(Mount("bind", "/bin/tool", str(tmp_path / "tool")),)) == "tool\n"
    assert not Path("/bin/tool").exists()


def test_tmpfs_has_its_size(run: Any) -> None:
    run("sh", "-c", "head -c 2000000 /dev/zero > /scratch/x", mounts=(Mount("tmpfs", "/scratch", options=("size=1m",)),))
    assert "No space left" in run.stderr


def test_working_directory_is_made(run: Any) -> None:
    assert run("pwd", workdir="/new/place") == "/new/place\n"


def test_published_port_reaches_the_server(engine: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    info = started(engine, "python", "-m", "http.server", "8000", network="bridge", ports=(Port(8000, free),))
    text = _get(f"http://127.0.0.1:{free}/etc/hostname")
    assert text == f"{info.id[:12]}\n"
    assert info.ports[0].host_port == free
    with pytest.raises(errors.PortInUse, match=str(free)):
        engine.run(config("true", network="bridge", ports=(Port(8000, free),)))
    engine.remove(info.id, force=True)
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{free}/", timeout=2)


def _get(url: str) -> str:
    for _ in range(100):
        try:
            return urllib.request.urlopen(url, timeout=5).read().decode()
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


def test_containers_reach_each_other_on_the_bridge(engine: Any, run: Any) -> None:
    info = started(engine, "python", "-m", "http.server", "8000", network="bridge", workdir="/etc")
    address = engine.find(info.id).address
    script = (
        "import time, urllib.request\nfor _ in range(50):\n  try:\n"
        f"    print(urllib.request.urlopen('http://{address}:8000/hostname').read().decode(), end='')\n"
        "    break\n  except OSError: time.sleep(0.1)"
    )
    assert run("python", "-", stdin=script.encode(), network="bridge") == f"{info.id[:12]}\n"


def test_host_network_is_the_hosts(run: Any) -> None:
    assert run("readlink", "/proc/self/ns/net", network="host").strip() == os.readlink("/proc/self/ns/net")


def test_exec_codes_user_env_and_workdir(engine: Any) -> None:
    info = started(engine, "sleep", "100", env={"A": "1"})
    seen: list[bytes] = []
    status = engine.exec(
        info.id,
        ExecConfig(("sh", "-c", "echo $A $B $(id -u) $(pwd); exit 9"), {"B": "2"}, "/tmp", "daemon"),
        None,
        lambda stream, data: seen.append(data),
    )
    assert (status.code, b"".join(seen)) == (9, b"1 2 1 /tmp\n")
    with pytest.raises(errors.CommandNotFound):
        engine.exec(info.id, ExecConfig(("no-such",)))
    with pytest.raises(errors.ContainersError, match="nobody-here"):
        engine.exec(info.id, ExecConfig(("true",), user="nobody-here"))
    engine.stop(info.id, 0)
    with pytest.raises(errors.StateError, match=f"container {info.name} is not running"):  # as it was called
        engine.exec(info.name, ExecConfig(("true",)))


def test_exec_is_limited_like_its_container(engine: Any) -> None:
    info = started(engine, "sleep", "100", resources=Resources(pids_limit=5))
    seen: list[bytes] = []
    engine.exec(
        info.id, ExecConfig(("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait")), None, lambda stream, data: seen.append(data)
    )
    assert b"fork" in b"".join(seen)


@pytest.mark.parametrize(
    ("resources", "files"),
    [
        (
            Resources(memory=64 << 20, memory_swap=96 << 20),
            {"memory/memory.limit_in_bytes": "67108864", "memory.max": "67108864", "memory.swap.max": "33554432"},
        ),
        (Resources(cpus=0.5), {"cpu/cpu.cfs_quota_us": "50000", "cpu.max": "50000 100000"}),
        (Resources(cpu_shares=512), {"cpu/cpu.shares": "512", "cpu.weight": "59"}),
        (Resources(cpuset_cpus="0"), {"cpuset/cpuset.cpus": "0", "cpuset.cpus": "0"}),
        (Resources(pids_limit=10), {"pids/pids.max": "10", "pids.max": "10"}),
    ],
)
def test_limits_are_seen_inside(run: Any, resources: Resources, files: dict[str, str]) -> None:
    paths = " ".join(f"/sys/fs/cgroup/{name}" for name in files)
    out = run("sh", "-c", f"for f in {paths}; do [ -e $f ] && echo $f=$(cat $f); done; true", resources=resources)
    assert out, "none of the files is there"
    for line in out.splitlines():
        name, _, value = line.removeprefix("/sys/fs/cgroup/").partition("=")
        assert value == files[name]


def test_samples_are_there_after_exit(run: Any, engine: Any) -> None:
    info = started(engine, "python", "-c", "import time\nend = time.time() + 1.2\nwhile time.time() < end: pass")
    engine.wait(info.id)
    samples = engine.samples(info.id)
    assert len(samples) >= 5
    assert samples[-1].cpu_usage > 100_000_000  # of 1.2 s, on a machine that others use too
    assert samples[-1].time - samples[0].time > 0.8


BAD = {
    "no such image": config("true", image="hoost"),
    "memory too small": config("true", resources=Resources(memory=1024)),
    "too many cpus": config("true", resources=Resources(cpus=99.0)),
    "cpuset": config("true", resources=Resources(cpuset_cpus="77")),
    "pids": config("true", resources=Resources(pids_limit=0)),
    "network": config("true", network="brigde"),
    "name": config("true", name="no spaces"),
    "hostname": config("true", hostname="x" * 64),
    "user": config("true", user="no-such-user"),
    "relative workdir": config("true", workdir="here"),
    "missing source": config("true", mounts=(Mount("bind", "/x", "/no/such/folder"),)),
    "mount on root": config("true", mounts=(Mount("bind", "/", "/tmp"),)),
    "mount in proc": config("true", mounts=(Mount("tmpfs", "/proc/sys"),)),
    "relative target": config("true", mounts=(Mount("tmpfs", "x"),)),
    "target climbs": config("true", mounts=(Mount("tmpfs", "/x/../../y"),)),
    "nul": config("a\0b"),
    "port without network": config("true", ports=(Port(80, 8080),)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(engine: Any, remains: Any, name: str) -> None:
    before = remains()
    with pytest.raises(errors.ContainersError) as found:
        engine.run(BAD[name])
    assert "\n" not in found.value.message
    assert len(found.value.message) > 10
    assert remains() == before


def test_whole_life_leaves_nothing(engine: Any, run: Any, remains: Any) -> None:
    run("true")
    before = remains()
    for network in ("none", "bridge"):
        run("sh", "-c", "echo x > /usr/x; sleep 0.2 & true", network=network)
        info = started(engine, "sleep", "100", network=network)
        engine.stop(info.id, 0)
        engine.remove(info.id)
    assert remains() == before


def test_of_several_the_others_are_done_and_the_error_names_what_failed(engine: Any, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("first", "second")
    for name in names:
        engine.create(config("sleep", "1000", name=name))
    for verb, after in (("start", "running"), ("pause", "paused"), ("unpause", "running"), ("kill", "exited"), ("restart", "running")):
        assert main([verb, "first", "nosuch", "second"]) == 1, verb
        said = capsys.readouterr()
        assert said.out == "first\nsecond\n" and said.err.startswith("error: no container 'nosuch'"), said
        assert [engine.find(name).status for name in names] == [after, after], verb
    assert main(["stop", "-t", "0", "nosuch", "first", "neither"]) == 1
    said = capsys.readouterr()
    assert said.out == "first\n" and "also: no container 'neither'" in said.err
    assert main(["rm", "first", "second"]) == 1
    said = capsys.readouterr()
    assert said.out == "first\n" and "container 'second' is running" in said.err
    engine.remove("second", force=True)


def test_too_many_words_for_a_program(engine: Any) -> None:
    info = started(engine, "sleep", "1000")
    with pytest.raises(errors.CommandNotExecutable, match=r"too long \(1\d{5} bytes, the longest 131073\)") as caught:
        engine.exec(info.id, ExecConfig(("true", "x" * 131072)))
    assert "in a file" in caught.value.hint
    assert engine.exec(info.id, ExecConfig(("true", "x" * 131071))).code == 0
    engine.remove(info.id, force=True)
