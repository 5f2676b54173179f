"""The clock of the machine set back and forward while containers run. It is the whole machine's: tried on one that is thrown away
(``SET_CLOCK=1 make test-cgroup2 …``), as no namespace has a wall clock of its own (time_namespaces(7))."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.metrics import history
from pycontainers.protocol import ContainerConfig, ExecConfig, HealthCheck, RestartPolicy

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.environ.get("SET_CLOCK") != "1", reason="sets the machine's clock: SET_CLOCK=1 on one that is thrown away"),
]


@pytest.fixture
def shift() -> Iterator[Callable[[float], None]]:
    begun, real = time.monotonic(), time.time()

    def by(seconds: float) -> None:
        time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)

    yield by
    time.clock_settime(time.CLOCK_REALTIME, real + time.monotonic() - begun)


@pytest.mark.parametrize("days", [-1, 2])
def test_containers_do_not_mind_a_clock_that_is_set(engine: Any, run: Any, shift: Callable[[float], None], days: int) -> None:
    def start(*command: str, **more: Any) -> Any:
        return engine.start(engine.create(ContainerConfig("host", command, network="none", **more)).id)

    says = start("sh", "-c", "while :; do echo tick; sleep 0.3; done")
    ends = start("sh", "-c", "sleep 0.5; exit 1", restart=RestartPolicy("always"))
    well = start("sleep", "1000", health=HealthCheck(("CMD", "true"), interval=0.5))
    time.sleep(11)  # sampled once a second from now on
    samples, lines = len(history.read(f"{says.folder}/samples.ring")), len(list(engine.logs(says.id)))
    restarts = engine.find(ends.id).restarts
    probe = json.loads(Path(well.folder, "health.json").read_text())["log"][-1]
    shift(days * 86400)
    time.sleep(8)
    assert 4 <= len(history.read(f"{says.folder}/samples.ring")) - samples <= 14
    assert len(list(engine.logs(says.id))) > lines
    assert engine.find(ends.id).restarts - restarts <= 2  # its pauses have grown to seconds, and go on to grow
    assert json.loads(Path(well.folder, "health.json").read_text())["log"][-1] != probe
    assert engine.find(says.id).status == engine.find(well.id).status == "running"
    assert engine.exec(says.id, ExecConfig(("true",))).code == 0
    assert run("echo", "again") == "again\n"
    since = list(engine.logs(says.id, since=time.time() - 5))
    assert 0 < len(since) < 40 and all(line.time >= time.time() - 30 for line in since)
    assert engine.stop(well.id, timeout=0.5).exit.code == 137
