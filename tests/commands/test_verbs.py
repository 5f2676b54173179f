from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine, sample

import pycontainers as pc
from pycontainers.errors import BuildError, ContainerFailed, NameInUse, NotFound, PortInUse, UsageError
from pycontainers.objects import Container, ContainerList, ImageList
from pycontainers.protocol import ExitStatus, LogLine
from pycontainers.results import RunResult
from pycontainers.usage import Stats, StatsTable


def test_detached_run_gives_a_container(command: Any, engine: FakeEngine) -> None:
    found = command("run -d --name web -p 8080:80 -m 64m -l a=b -e X=1 --network none host sleep 9")
    assert isinstance(found, Container) and found.status == "running" and found.name == "web"
    config = engine.calls[0][1]
    assert config.resources.memory == 64 << 20 and config.command == ("sleep", "9") and config.labels == {"a": "b"}
    assert config.env == {"X": "1"} and config.network == "none" and str(config.ports[0]) == "127.0.0.1:8080->80/tcp"


def test_foreground_run_streams_and_returns(command: Any, engine: FakeEngine) -> None:
    engine.output = [("stdout", b"out\n"), ("stderr", b"err\n")]
    result = command("run --rm -i host cat", "body\n")
    assert command.frontend.streamed == [("stdout", b"out\n"), ("stderr", b"err\n"), ("stdout", b"body\n")]
    assert isinstance(result, RunResult) and result.output == "out\nbody\n" and result.errors == "err\n" and result.exit_code == 0
    assert engine.calls[1][1].stdin_open and engine.calls[1][2] == b"body\n" and not engine.boxes


def test_a_bad_end_is_an_error_with_the_containers_code(command: Any, engine: FakeEngine) -> None:
    engine.next_exit = ExitStatus(3)
    with pytest.raises(ContainerFailed) as caught:
        command("run --name job host false")
    assert caught.value.exit_code == 3 and caught.value.message == "container job ended with exit code 3"


def test_an_oom_kill_is_told_in_one_line(command: Any, engine: FakeEngine) -> None:
    engine.next_exit = ExitStatus(137, 9, oom_killed=True, memory_peak=64 << 20)
    with pytest.raises(ContainerFailed) as caught:
        command("run --name big -m 64m host python")
    assert caught.value.message == "container big was OOM-killed: it needed more than its 64.0 MiB of memory (peak 64.0 MiB)"
    assert "--memory" in caught.value.hint and caught.value.exit_code == 137


def test_an_exit_that_nobody_saw_is_not_a_success(command: Any, engine: FakeEngine) -> None:
    engine.next_exit = ExitStatus(None, error="its supervisor was killed")
    with pytest.raises(ContainerFailed, match="supervisor"):
        command("run host true")


def test_a_body_for_a_detached_run_is_refused(command: Any) -> None:
    with pytest.raises(UsageError, match="body"):
        command("run -d host cat", "text")


def test_near_images_and_names_in_use(command: Any) -> None:
    command("run -d --name web host")
    with pytest.raises(NameInUse):
        command("run -d --name web host")
    with pytest.raises(NotFound) as caught:
        command("run hots")
    assert "host" in caught.value.hint


def test_what_cannot_start_does_not_stay(command: Any, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(container: str) -> None:
        raise PortInUse("port 8080 is in use", "another port")

    monkeypatch.setattr(engine, "start", busy)
    with pytest.raises(PortInUse):
        command("run -d --name web -p 8080:80 host")
    with pytest.raises(PortInUse):
        pc.run("host", detach=True)
    assert not engine.boxes


def test_exec(command: Any, engine: FakeEngine) -> None:
    command("run -d --name web host")
    engine.output = [("stdout", b"hi")]
    assert command("exec -u 5 -w /tmp -e A=1 web sh -c 'echo hi' -x").output == "hi"
    _, name, config, stdin = engine.calls[-1]
    assert (name, config.command, config.user, config.workdir, config.env, stdin) == (
        "web",
        ("sh", "-c", "echo hi", "-x"),
        "5",
        "/tmp",
        {"A": "1"},
        None,
    )
    engine.next_exit = ExitStatus(127, error="no such file", hint="check the name")
    with pytest.raises(ContainerFailed) as caught:
        command("exec web nothing")
    assert caught.value.exit_code == 127 and "no such file" in caught.value.message


def test_the_life_of_a_container(command: Any, engine: FakeEngine) -> None:
    command("create --name web host")
    assert engine.find("web").status == "created"
    assert command("start web").status == "running"
    command("stop -t 2 web")
    assert engine.calls[-1] == ("stop", "web", 2.0)
    command("restart web")
    command("kill -s HUP web")
    assert engine.calls[-1] == ("kill", "web", "HUP")
    assert str(command("wait web")) == "137"
    assert str(command("rm web")) == "web" and not engine.boxes


def test_several_names_go_on_after_an_error(command: Any, engine: FakeEngine) -> None:
    for name in ("a", "b"):
        command(f"run -d --name {name} host")
    with pytest.raises(NotFound) as caught:
        command("rm -f a missing b gone")
    assert not engine.boxes and "missing" in caught.value.message and "gone" in caught.value.hint


def test_ps_and_its_forms(command: Any, engine: FakeEngine) -> None:
    command("run -d --name web -p 8080:80 host sh -c 'a very long command line indeed'")
    command("create --name idle host")
    found = command("ps")
    assert isinstance(found, ContainerList) and [item.name for item in found] == ["web"]
    assert "127.0.0.1:8080->80/tcp" in repr(found) and "…" in repr(found) and "Up 0 seconds" in repr(found)
    assert "idle" in repr(command("ps -a")) and "indeed" in repr(command("ps --no-trunc"))
    assert str(command("ps -q")) == engine.find("web").short_id


def test_inspect_and_port(command: Any, engine: FakeEngine) -> None:
    command("run -d --name web -p 8080:80 host")
    assert json.loads(repr(command("inspect web")))[0]["name"] == "web"
    assert command("inspect --oci web")[0]["ociVersion"] == "1.2.0"
    with pytest.raises(NotFound) as caught:
        command("inspect wob")
    assert "web" in caught.value.hint
    assert str(command("port web")) == "80/tcp -> 127.0.0.1:8080"
    assert str(command("port web 80")) == "127.0.0.1:8080"
    with pytest.raises(NotFound):
        command("port web 81")


def test_logs(command: Any, engine: FakeEngine) -> None:
    command("run -d --name web host")
    engine.lines = [LogLine(0.0, "stdout", "one"), LogLine(1.5, "stderr", "two\x1b]52;c;eA==\x07"), LogLine(2.0, "stdout", "cut", True)]
    found = command("logs web")
    assert repr(found) == "one\ntwo\ncut" and "one" in found and found[1].stream == "stderr"
    assert str(command("logs -t -n 3 web")).startswith("1970-01-01T00:00:00.000000Z one\n")
    assert command("logs -f web") is None and command.frontend.streamed[0] == ("stdout", b"one\n")
    command("logs --since 10m web")
    assert abs(engine.calls[-1][4] - (time.time() - 600)) < 5
    for wrong in ("--since yesterday", "--tail few"):
        with pytest.raises(UsageError):
            command(f"logs {wrong} web")


def test_stats(command: Any, engine: FakeEngine) -> None:
    command("run -d --name web --cpus 0.5 -m 64m --pids-limit 9 host")
    engine.recorded = [
        sample(10.0, cpu_usage=0, memory=1 << 20, pids=1),
        sample(11.0, cpu_usage=500_000_000, throttled=250_000_000, memory=2 << 20, net_rx=1024, pids=3),
        sample(12.0, cpu_usage=500_000_000, throttled=250_000_000, memory=3 << 20, net_rx=1024, pids=2, oom_kills=1),
    ]
    found = command("stats web")
    assert isinstance(found, Stats) and found.form == "live"
    cpu, memory, network, _, processes, pressure = found.panels()
    assert "older than the program" in pressure.note and not pressure.series
    assert cpu.series[0].values == (50.0, 0.0) and cpu.series[1].values == (25.0, 0.0) and cpu.limit == 50.0
    assert memory.series[0].peak == 3 << 20 and memory.limit == 64 << 20
    assert network.series[0].values == (1024.0, 0.0) and processes.limit == 9 and processes.series[0].last == 2
    assert [(mark.text, mark.time) for mark in found.marks()] == [("OOM-killed", 2.0)]
    assert "50.0 %" in repr(found) and "OOM-killed at 2.0 s" in repr(found) and "64.0 MiB" in repr(found)
    assert command("stats --static web").form == command("stats --no-stream web").form == "static"
    assert len(command("stats --seconds 1.5 web").samples) == 2
    table = command("stats")
    assert isinstance(table, StatsTable) and "3.0 MiB / 64.0 MiB" in repr(table)


def test_stats_without_samples(command: Any) -> None:
    command("run -d --name web host")
    assert "nothing recorded yet" in repr(command("stats web"))


def test_build_and_images(command: Any, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = command("build -t visits --build-arg A=1 --target app --no-cache", "FROM host\n")
    request = engine.calls[-1][1]
    assert (request.dockerfile, request.context, request.tags) == ("FROM host\n", str(tmp_path), ("visits",))
    assert request.no_cache and request.target == "app" and request.build_args == {"A": "1"} and image.names == ("visits",)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    command("build -t two .")
    assert engine.calls[-1][1].dockerfile == "FROM scratch\n"
    assert isinstance(command("images"), ImageList) and "this machine" in repr(command("images"))
    assert "RUN <script>" in repr(command("history visits"))
    command("tag visits other")
    assert "untagged other" in str(command("rmi other"))
    for line, body in (
        ("build", None),
        ("build -f Dockerfile .", "FROM host"),
        ("build --context . .", "FROM host"),
        ("build --progress x", "F"),
    ):
        with pytest.raises(UsageError):
            command(line, body)


def test_a_failed_build_raises(command: Any, engine: FakeEngine) -> None:
    engine.build_error = BuildError("step failed", line=2)
    with pytest.raises(BuildError, match="Dockerfile:2"):
        command("build", "FROM host\n")


def test_doctor_prune_version_help(command: Any) -> None:
    assert "✗" in repr(command("doctor")) and "EPERM" in repr(command("doctor"))
    assert str(command("prune")) == "nothing to remove"
    assert pc.__version__ in str(command("version"))
    assert "Usage: %container run" in str(command("help run")) and "Images:" in str(command("help"))


def test_functions(engine: FakeEngine) -> None:
    with pc.run("host", ["sleep", "9"], name="web", detach=True, memory="128m", ports={8080: 80}, volumes={"/tmp": "/x"}) as box:
        assert box.status == "running" and box.ports[0].host_port == 8080 and pc.get("web") == box
        assert pc.ps() == [box] and "web" in repr(box)
        engine.output = [("stdout", b"42\n")]
        assert box.exec("python -c 'print(42)'", input="x", check=True).output == "42\n"
        assert engine.calls[-1][2].command == ("python", "-c", "print(42)") and engine.calls[-1][3] == b"x"
        assert box.stop(1).exit_code == 143
    assert not engine.boxes and "removed" in repr(box)
    assert pc.run("host", "true").output == "42\n"
    engine.next_exit = ExitStatus(1)
    assert pc.run("host", check=False).exit_code == 1
    with pytest.raises(ContainerFailed):
        pc.run("host")
    assert pc.build("FROM host\n", "visits").names == ("visits",) and pc.get_image("visits").size == 4096
    assert pc.create(pc.get_image("visits")).status == "created" and len(pc.list_images()) == 1


def test_functions_name_near_options(engine: FakeEngine) -> None:
    import inspect

    with pytest.raises(UsageError) as caught:
        pc.run("host", memroy="1g")  # type: ignore[call-overload]
    assert "memory" in caught.value.hint
    assert {"memory", "ports", "detach"} <= set(inspect.signature(pc.run).parameters)


def test_captured_output_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from pycontainers import results

    monkeypatch.setattr(results, "_CAPTURE_LIMIT", 10)
    output = results.Output()
    for _ in range(3):
        output("stdout", b"12345678")
    assert bytes(output.stdout) == b"1234567812" and output.truncated
