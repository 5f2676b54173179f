"""What happens to a container between its start and its end: pause, update, rename, restarts, health, lifetime, and the record of it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pycontainers import errors
from pycontainers.linux import cgroups, process
from pycontainers.protocol import ContainerConfig, ExecConfig, HealthCheck, Resources, RestartPolicy

pytestmark = pytest.mark.root


def start(engine: Any, *command: str, **config: Any) -> Any:
    config.setdefault("network", "none")
    return engine.start(engine.create(ContainerConfig("host", command, **config)).id)


def until(what: Any, seconds: float = 15.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
    return found


def test_every_start_has_its_own_address_in_hosts(engine: Any) -> None:
    """Docker's rule: what the start before has added is gone."""
    hosts = {"extra_hosts": ("db:10.0.0.5", "machine:host-gateway")}
    info = start(engine, "sleep", "1000", network="bridge", **hosts)
    engine.stop(info.id, timeout=0)
    taken = start(engine, "sleep", "1000", network="bridge")  # whoever comes next may have its old address
    again = engine.start(info.id)
    lines: list[str] = []
    found: dict[str, list[str]] = {}
    engine.exec(info.id, ExecConfig(("cat", "/etc/hosts")), None, lambda stream, data: lines.append(data.decode()))
    for line in "".join(lines).splitlines():
        for name in line.partition("#")[0].split()[1:]:
            found.setdefault(name, []).append(line.split()[0])
    assert found[info.id[:12]] == [again.address] and again.address != taken.address
    assert found["db"] == ["10.0.0.5"] and len(found["machine"]) == 1


def test_pause_stops_every_process_and_unpause_lets_them_go_on(engine: Any) -> None:
    info = start(engine, "sh", "-c", "while :; do echo x; sleep 0.01; done")
    group = cgroups.open(engine.oci(info.id)["linux"]["cgroupsPath"])
    assert engine.pause(info.id).status == "paused" and group.is_frozen()
    written = os.stat(f"{info.folder}/log").st_size
    time.sleep(0.2)
    assert os.stat(f"{info.folder}/log").st_size == written
    with pytest.raises(errors.StateError, match="paused already"):
        engine.pause(info.id)
    assert engine.unpause(info.id).status == "running"
    until(lambda: os.stat(f"{info.folder}/log").st_size > written)
    with pytest.raises(errors.StateError, match="is not paused"):
        engine.unpause(info.id)


@pytest.mark.parametrize("end", ["stop", "kill", "remove"])
def test_a_paused_container_can_be_ended(engine: Any, end: str) -> None:
    info = start(engine, "sleep", "100")
    engine.pause(info.id)
    if end == "remove":
        engine.remove(info.id, force=True)
    else:
        assert getattr(engine, end)(info.id, **({"timeout": 0.2} if end == "stop" else {})).status == "exited"


def test_update_holds_at_once_and_for_later_starts(engine: Any) -> None:
    info = start(engine, "sleep", "100", resources=Resources(memory=64 << 20, pids_limit=50))
    folder = cgroups.open(engine.oci(info.id)["linux"]["cgroupsPath"]).paths["memory"]
    name = "memory.limit_in_bytes" if os.path.exists(f"{folder}/memory.limit_in_bytes") else "memory.max"
    assert Path(folder, name).read_text().strip() == str(64 << 20)
    for memory in (128 << 20, 32 << 20):  # up and down: memory and swap change in different orders
        assert engine.update(info.id, Resources(memory=memory)).resources.memory == memory
        assert Path(folder, name).read_text().strip() == str(memory)
    assert engine.find(info.id).resources.pids_limit == 50
    engine.stop(info.id, timeout=0)
    engine.update(info.id, Resources(cpus=0.5))
    engine.start(info.id)
    quota = engine.oci(info.id)["linux"]["resources"]
    assert quota["memory"]["limit"] == 32 << 20 and quota["cpu"]["quota"] == 50000 and quota["pids"]["limit"] == 50


def test_an_update_that_makes_no_sense_changes_nothing(engine: Any) -> None:
    info = start(engine, "sleep", "100", resources=Resources(memory=64 << 20))
    before = Path(info.folder, "config.json").read_bytes()
    with pytest.raises(errors.LimitError):
        engine.update(info.id, Resources(memory=1 << 20))
    with pytest.raises(errors.LimitError):
        engine.update(info.id, Resources(cpus=10000))
    assert Path(info.folder, "config.json").read_bytes() == before


def test_rename_of_running_and_ended_containers(engine: Any) -> None:
    info, other = start(engine, "sleep", "100", name="first"), start(engine, "sleep", "100", name="other")
    assert engine.rename("first", "second").name == "second"
    assert engine.find("second").id == info.id
    with pytest.raises(errors.NotFound):
        engine.find("first")
    with pytest.raises(errors.NameInUse):
        engine.rename("second", "other")
    with pytest.raises(errors.UsageError):
        engine.rename("second", "-bad")
    engine.stop("second", timeout=0)
    assert engine.rename("second", "first").name == "first" and engine.find("other").id == other.id
    assert engine.start(engine.create(ContainerConfig("host", ("true",), name="second", network="none")).id).name == "second"


def test_two_that_rename_to_the_same_name_do_not_both_win(engine: Any) -> None:
    infos = [start(engine, "sleep", "100") for _ in range(4)]
    won: list[str] = []
    lost: list[Exception] = []

    def rename(identifier: str) -> None:
        try:
            engine.rename(identifier, "wanted")
            won.append(identifier)
        except errors.NameInUse as error:
            lost.append(error)

    threads = [threading.Thread(target=rename, args=(info.id,)) for info in infos]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and len(lost) == 3 and engine.find("wanted").id == won[0]


def test_updates_from_several_processes_are_not_lost(engine: Any) -> None:
    """Each process changes another limit of one container, at the same time: all of them hold in the end."""
    info = start(engine, "sleep", "100")
    options = ["--memory=64m", "--cpu-shares=512", "--pids-limit=77", "--restart=on-failure:2"]
    program = [sys.executable, "-m", "pycontainers.commands.program", "update"]
    running = [subprocess.Popen([*program, option, info.id], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for option in options]
    assert [p.communicate()[1] for p in running] == [b""] * 4
    found = engine.find(info.id)
    assert (found.resources.memory, found.resources.cpu_shares, found.resources.pids_limit) == (64 << 20, 512, 77)
    assert found.restart == RestartPolicy("on-failure", 2)


@pytest.mark.parametrize(("policy", "code", "runs"), [("no", 3, 1), ("on-failure", 0, 1), ("on-failure", 3, 3), ("always", 0, 3)])
def test_restart_policies(engine: Any, policy: str, code: int, runs: int) -> None:
    retries = 2 if policy == "on-failure" else 0
    info = start(engine, "sh", "-c", f"echo run; exit {code}", restart=RestartPolicy(policy, retries))

    def ran() -> int:
        return sum(line.text == "run" for line in engine.logs(info.id))

    until(lambda: ran() >= runs)
    if policy == "always":
        assert engine.find(info.id).status in ("starting", "running", "restarting")
        assert engine.stop(info.id, timeout=0).status == "exited"
    else:
        until(lambda: engine.find(info.id).status == "exited")
        assert ran() == runs and engine.find(info.id).exit.code == code and engine.find(info.id).restarts == runs - 1
    count = ran()
    time.sleep(0.5)
    assert ran() == count


def test_pauses_between_restarts_grow(engine: Any) -> None:
    info = start(engine, "sh", "-c", "exit 1", restart=RestartPolicy("always"))
    until(lambda: engine.find(info.id).restarts >= 4)
    engine.stop(info.id, timeout=0)
    times = [event["timeNano"] / 1e9 for event in engine.events() if event["Action"] == "start" and event["Actor"]["ID"] == info.id]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps[2] > gaps[0] * 1.5, gaps  # each pause is twice the one before; a start takes its time, too


def test_a_restart_keeps_port_and_files_and_counts_on(engine: Any) -> None:
    script = "import http.server, os\nopen('/count', 'a').write('x')\n"
    script += "http.server.ThreadingHTTPServer(('', 8000), http.server.SimpleHTTPRequestHandler).serve_forever()"
    from pycontainers.protocol import Port

    info = start(engine, "python", "-c", script, network="bridge", ports=(Port(8000),), restart=RestartPolicy("always"), workdir="/tmp")
    port = info.ports[0].host_port

    def served() -> bool:
        import urllib.request

        try:
            return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).status == 200)
        except OSError:
            return False

    until(served)
    os.kill(engine.find(info.id).pid, signal.SIGKILL)
    until(lambda: engine.find(info.id).restarts == 1 and engine.find(info.id).status == "running")
    until(served)
    assert engine.find(info.id).ports[0].host_port == port
    engine.stop(info.id, timeout=0)
    assert len(engine.samples(info.id)) > 1


def test_kill_and_stop_end_a_restart_policy(engine: Any) -> None:
    info = start(engine, "sleep", "100", restart=RestartPolicy("always"))
    assert engine.kill(info.id).status == "exited"
    waiting = start(engine, "false", restart=RestartPolicy("always"))
    until(lambda: engine.find(waiting.id).restarts >= 3)
    assert engine.stop(waiting.id).status == "exited"


def test_wait_answers_at_the_next_end(engine: Any) -> None:
    info = start(engine, "sh", "-c", "sleep 0.3; exit 5", restart=RestartPolicy("on-failure"))
    assert engine.wait(info.id, 10).code == 5
    assert engine.find(info.id).status in ("running", "restarting", "starting")


def test_health_follows_the_command(engine: Any) -> None:
    check = HealthCheck(("CMD-SHELL", "echo looked; test -e /tmp/well"), interval=0.2, timeout=5, retries=2)
    info = start(engine, "sleep", "100", health=check)
    assert engine.find(info.id).health == "starting"
    until(lambda: engine.find(info.id).health == "unhealthy")

    engine.exec(info.id, ExecConfig(("touch", "/tmp/well")))
    until(lambda: engine.find(info.id).health == "healthy")
    log = json.loads(Path(info.folder, "health.json").read_text())["log"]
    assert len(log) <= 5 and log[-1]["code"] == 0 and log[-1]["output"] == "looked\n"

    def changes() -> list[str]:
        return [e["Action"] for e in engine.events() if e["Actor"]["ID"] == info.id and e["Action"].startswith("health")]

    until(lambda: changes() == ["health_status: unhealthy", "health_status: healthy"])


def test_a_check_that_hangs_is_ended_with_its_processes(engine: Any) -> None:
    info = start(engine, "sleep", "100", health=HealthCheck(("CMD", "sleep", "1234"), interval=0.1, timeout=0.3, retries=1))
    until(lambda: engine.find(info.id).health == "unhealthy")
    engine.stop(info.id, timeout=0)
    assert "exceeded timeout" in json.loads(Path(info.folder, "health.json").read_text())["log"][0]["output"]


def test_a_check_that_hangs_leaves_nothing_that_its_shell_has_started(engine: Any) -> None:
    check = HealthCheck(("CMD-SHELL", "sleep 1235; true"), interval=0.1, timeout=0.2, retries=2)
    info = start(engine, "sleep", "100", health=check)
    until(lambda: engine.find(info.id).health == "unhealthy")
    assert sum("1235" in line.split()[-1] for line in commands(engine, info.id)) <= 2  # the probe that is under way: shell and sleep


def commands(engine: Any, container: str) -> list[str]:
    said = bytearray()
    show = "for each in /proc/[0-9]*; do tr '\\0' ' ' < $each/cmdline; echo; done 2> /dev/null"
    engine.exec(container, ExecConfig(("sh", "-c", show)), None, lambda stream, data: said.extend(data))
    return [line for line in said.decode().splitlines() if line.startswith("sleep ")]


def test_a_check_whose_worker_hangs_does_not_keep_the_container_from_ending(engine: Any) -> None:
    """A pid namespace ends when all in it have been reaped; the probe is its worker's to reap."""
    info = start(engine, "sleep", "100", health=HealthCheck(("CMD", "sleep", "1236"), interval=0.1, timeout=60))
    until(lambda: "sleep 1236" in " ".join(commands(engine, info.id)))
    now = json.loads(Path(info.folder, "state.json").read_text())
    supervisor, first = now["supervisor"]["pid"], now["init"]["pid"]
    children = map(int, Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split())
    for worker in set(children) - {first}:
        os.kill(worker, signal.SIGSTOP)
    ended = engine.stop(info.id, timeout=0.2)
    assert ended.exit.code == 137


def test_failures_in_the_start_period_do_not_count(engine: Any) -> None:
    check = HealthCheck(("CMD", "false"), interval=0.1, timeout=5, retries=1, start_period=60, start_interval=0.1)
    info = start(engine, "sleep", "100", health=check)
    until(lambda: os.path.exists(f"{info.folder}/health.json"))
    until(lambda: len(json.loads(Path(info.folder, "health.json").read_text())["log"]) >= 3)
    assert engine.find(info.id).health == "starting"


def test_a_container_ends_with_the_process_it_was_made_for(engine: Any, state: Any) -> None:
    script = (
        "import sys\nimport pycontainers as pc\n"
        "box = pc.run('host', ['sleep', '1000'], detach=True, network='none', lifetime='kernel', name='bound')\n"
        "print(box.id, flush=True)\nsys.stdin.read()\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdin is not None and owner.stdout is not None
    identifier = owner.stdout.readline().strip()
    assert engine.find(identifier).status == "running" and engine.find(identifier).lifetime == "kernel"
    owner.kill()
    owner.wait()
    until(lambda: engine.find(identifier).status == "exited")
    owner.stdin.close()
    owner.stdout.close()


def test_events_tell_the_whole_life_in_dockers_form(engine: Any) -> None:
    begun = time.time()
    info = start(engine, "sleep", "100", labels={"purpose": "test"}, name="told")
    engine.pause(info.id)
    engine.unpause(info.id)
    engine.stop(info.id, timeout=0)
    engine.remove(info.id)
    found = [event for event in engine.events(since=begun) if event["Actor"]["ID"] == info.id]
    actions = [event["Action"] for event in found]
    assert actions == ["create", "start", "pause", "unpause", "kill", "kill", "die", "stop", "destroy"], actions
    die = found[actions.index("die")]
    assert die["Type"] == "container" and die["Actor"]["Attributes"]["exitCode"] == "137"
    assert die["Actor"]["Attributes"]["name"] == "told" and die["Actor"]["Attributes"]["purpose"] == "test"
    assert die["time"] == die["timeNano"] // 1_000_000_000


def test_events_follow_over_the_rotation_of_the_file(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pycontainers.runtime import journal

    monkeypatch.setattr(journal, "LIMIT", 2000)
    home = str(engine.paths.home)
    seen: list[str] = []
    over = threading.Event()
    started = time.time()

    def follow() -> None:
        for event in journal.read(home, since=started, follow=lambda: not over.is_set()):
            if event["Type"] == "test":
                seen.append(event["Action"])

    reader = threading.Thread(target=follow)
    reader.start()
    time.sleep(0.2)
    for number in range(60):
        journal.record(home, str(number), "x", {}, kind="test")
        time.sleep(0.01)
    until(lambda: len(seen) >= 60)
    over.set()
    reader.join()
    assert seen == [str(number) for number in range(60)]
    assert os.path.exists(f"{home}/events.log.1")


def test_top_lists_the_processes(engine: Any) -> None:
    info = start(engine, "sh", "-c", "sleep 1234 & wait")
    until(lambda: len(cgroups.open(engine.oci(info.id)["linux"]["cgroupsPath"]).pids()) == 2)
    titles, rows = engine.top(info.id)
    assert "PID" in titles and len(rows) == 2 and any("sleep 1234" in row[-1] for row in rows)
    titles, rows = engine.top(info.id, ("-o", "pid,comm"))
    assert titles == ["PID", "COMMAND"] and len(rows) == 2


def test_requests_for_what_does_not_run_are_one_line(engine: Any) -> None:
    info = engine.create(ContainerConfig("host", ("true",), network="none", name="idle"))
    for act in (engine.pause, engine.unpause, engine.attach, engine.top, engine.kill):
        with pytest.raises(errors.StateError, match="'idle' is not running"):
            act(info.id)


def test_a_supervisor_out_of_reach_is_ended_by_force(engine: Any, state: Any) -> None:
    """Its socket was deleted (a cleaned /run): stop says so, rm -f still works, and nothing stays."""
    info = start(engine, "sleep", "100")
    supervisor = json.loads(Path(info.folder, "state.json").read_text())["supervisor"]
    os.unlink(state.run / "containers" / f"{info.id}.sock")
    with pytest.raises(errors.StateError, match="cannot be asked"):
        engine.stop(info.id)
    engine.remove(info.id, force=True)
    assert not os.path.exists(info.folder) and process.alive(supervisor) is False


def test_poststop_hooks_of_a_specification_run_when_all_is_gone(engine: Any, tmp_path: Path) -> None:
    info = engine.create(ContainerConfig("host", ("true",), network="none"))
    spec = json.loads(Path(info.folder, "config.json").read_text())
    script = f"cat > {tmp_path}/state; ls -d /sys/fs/cgroup/*{spec['linux']['cgroupsPath']} > {tmp_path}/groups 2>/dev/null"
    spec["hooks"] = {"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    Path(info.folder, "config.json").write_text(json.dumps(spec))
    engine.start(info.id)
    engine.wait(info.id)
    until(lambda: (tmp_path / "groups").exists())
    told = json.loads((tmp_path / "state").read_text())
    assert told["id"] == info.id and told["status"] == "stopped" and (tmp_path / "groups").read_text() == ""
