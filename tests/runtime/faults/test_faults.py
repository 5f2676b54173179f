"""SIGKILL at every step boundary: to the kernel that asks, the launcher, the supervisor, the first process, the worker of an exec.

For each scenario what is reached is recorded once without a fault; then it is run again for each step and each victim that lives there.
After the kill the next command, of a fresh engine, must find a picture that makes sense, and clean up; nothing may be left.

``make test-faults`` runs every pair of a step and a victim; otherwise each step once for each of its scenarios' processes, spread.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

import pytest

from pycontainers.errors import ContainersError, NotFound, StateError
from pycontainers.linux import cgroups
from pycontainers.protocol import ContainerConfig, ContainerInfo, ExecConfig
from pycontainers.runtime import state
from pycontainers.runtime.marks import STEPS

from .conductor import Step
from .conftest import House, Outcome

pytestmark = pytest.mark.root

WHOLE = bool(os.environ.get("PYCONTAINERS_ALL_FAULTS"))
SAY = ("sh", "-c", "echo hello; trap 'exit 7' TERM; while :; do sleep 0.02; done")


def _nothing(house: House) -> None:
    pass


def _created(house: House) -> None:
    house.engine.create(ContainerConfig("host", SAY, network="bridge", name="f"))


def _running(house: House) -> None:
    engine, info = house.engine, house.start(*SAY)
    end = time.monotonic() + 10
    while not list(engine.logs(info.id)):
        assert time.monotonic() < end, "the container prints nothing"
        time.sleep(0.01)


def _paused(house: House) -> None:
    _running(house)
    house.engine.pause("f")


def _ended(house: House) -> None:
    house.engine.run(ContainerConfig("host", ("echo", "hello"), network="none", name="f"))


class Scenario:
    """``code``: what the kernel runs. ``before``: what is there already. ``network``: whether a bridge is in it."""

    def __init__(self, code: str, before: Callable[[House], None] = _nothing) -> None:
        self.code, self.before = code, before


SCENARIOS = {
    "create": Scenario("pc.create('host', ['true'], name='f')"),
    "run --rm": Scenario("pc.run('host', ['echo', 'hello'], rm=True, name='f', network='bridge', ports=['18231:80'])"),
    "run": Scenario("result = pc.run('host', ['sh', '-c', 'echo hello; exit 3'], name='f', network='none', check=False).exit_code"),
    "run -d": Scenario("pc.run('host', ['sleep', '1000'], name='f', network='none', detach=True)"),
    "run, failing": Scenario("pc.run('host', ['/nowhere'], name='f', network='none', detach=True)"),
    "start": Scenario("pc.get('f').start()", _created),
    "exec": Scenario("pc.get('f').exec(['echo', 'hi'])", _running),
    "stop": Scenario("pc.get('f').stop()", _running),
    "stop of a paused one": Scenario("pc.get('f').stop()", _paused),
    "pause": Scenario("pc.get('f').pause()", _running),
    "rm": Scenario("pc.get('f').remove()", _ended),
    "rm -f": Scenario("pc.get('f').remove(force=True)", _running),
    "restarts": Scenario(
        "c = pc.create('host', ['sh', '-c', 'echo hello; exit 5'], name='f', network='bridge', restart='on-failure:1')\n"
        "c.start()\nimport time\nwhile c.reload().status != 'exited': time.sleep(0.02)"
    ),
}

VICTIMS = ("kernel", "launcher", "supervisor", "starter", "init", "exec")


def prepare(house: House, name: str) -> None:
    """Make what the scenario begins with, and tell the conductor who lives already."""
    house.conductor.arm()
    SCENARIOS[name].before(house)
    known = {}
    for info in house.note():
        now = state.read(info.folder, "state.json") or {}
        if now.get("supervisor"):
            known = {"supervisor": now["supervisor"]["pid"], "init": now["init"]["pid"]}
    house.conductor.arm(**known)


@pytest.fixture(scope="module")
def reached(house: House) -> dict[str, list[Step]]:
    """scenario -> its steps in the order in which they were first reached, when nothing goes wrong."""
    found = {}
    for name, scenario in SCENARIOS.items():
        prepare(house, name)
        outcome = house.outcome(house.kernel(scenario.code))
        assert "crash" not in outcome, f"{name}: {outcome}"
        found[name] = [step for step in dict.fromkeys(house.conductor.steps) if step[0] != "ahead"]
        house.conductor.arm()
        house.clear()
    return found


def victims(steps: list[Step], at: Step, begins_alive: bool) -> list[str]:
    """Who lives when ``at`` is reached."""
    index = steps.index(at)
    before, after = steps[: index + 1], steps[index:]

    def spoke(who: str, where: list[Step]) -> bool:
        return any(process == who for process, _ in where)

    found = ["kernel", "launcher"]
    ends = ("supervisor", "ended") in steps
    # Of one that was alive before, and is not asked to end, nothing need be heard.
    supervised = spoke("supervisor", after) if ends or not begins_alive else True
    supervised = supervised and (begins_alive or spoke("supervisor", before))
    if supervised:
        found.append("supervisor")
    if spoke("starter", before) and spoke("starter", after):
        found.append("starter")
    if supervised and (begins_alive or ("starter", "cloned") in before) and ("supervisor", "ended") not in before:
        found.append("init")
    if spoke("exec", before) and spoke("exec", after):
        found.append("exec")
    return found


def test_every_step_is_reached(reached: dict[str, list[Step]]) -> None:
    """A step that no scenario reaches is one at which nobody was killed."""
    steps = {step for found in reached.values() for step in found}
    assert steps == {(process, step) for process, names in STEPS.items() if process != "ahead" for step in names}


@pytest.mark.skipif(cgroups.layout().version == "v2", reason="no first process is made ahead")
@pytest.mark.parametrize("victim", ["ahead", "launcher"])
@pytest.mark.parametrize("step", STEPS["ahead"])
def test_a_kill_before_there_is_a_container(house: House, step: str, victim: str) -> None:
    """What is made ahead reaches its steps when it wants to, after a start: with no scenario's."""

    def comes(look: Callable[[], object]) -> bool:
        end = time.monotonic() + 10
        while not look() and time.monotonic() < end:
            time.sleep(0.02)
        return bool(look())

    for _ in range(2):
        house.conductor.arm()
        assert not _again(house)  # the pattern is known, to a launcher that lives
        # One that is on its way still would be met by the kill while the next start is being asked for, which then breaks off.
        assert comes(lambda: ("ahead", "ready") in _after(house.conductor.steps, ("supervisor", "answered"))), "no first process was made"
    house.conductor.arm(("ahead", step), victim)
    assert not _again(house)
    assert comes(lambda: house.conductor.fired), "no first process was made"
    house.conductor.arm()
    assert not _again(house)
    house.clear()
    assert not house.left()


def _after(steps: list[Step], step: Step) -> list[Step]:
    return steps[steps.index(step) :] if step in steps else []


# -- one kill


def fault(house: House, name: str, at: Step, victim: str) -> list[str]:
    """Run the scenario with one kill; what was wrong afterwards."""
    prepare(house, name)
    known = house.conductor.pids
    house.conductor.arm(at, victim, **{role: pid for role, pid in known.items() if role in ("supervisor", "init")})
    outcome = house.outcome(house.kernel(SCENARIOS[name].code), 40)
    fired = house.conductor.fired
    wrong = [] if fired else [f"nobody was killed: {outcome} {house.conductor.steps[-3:]}"]
    house.conductor.arm()
    try:
        wrong += _outcome(outcome, victim) + _next(house, victim) + _again(house)
    except BaseException as error:
        wrong.append(f"the next command: {type(error).__name__}: {error}")
    finally:
        house.clear()
        wrong += [f"left: {left}"] if (left := house.left()) else []
    return wrong


def _outcome(outcome: Outcome, victim: str) -> list[str]:
    """The kernel's call: done, or refused in one line. A launcher whose work was handed over is missed by nobody."""
    if "crash" in outcome:
        return [outcome["crash"]]
    if "error" in outcome and ("\n" in outcome["message"] or not outcome["message"]):
        return [f"an error is one line: {outcome}"]
    if "killed" in outcome and victim != "kernel":
        return [f"the kernel was killed as well: {outcome}"]
    return []


def _next(house: House, victim: str) -> list[str]:
    """What the next command shows makes sense, and each container can be used."""
    wrong, end = [], time.monotonic() + 10
    while (found := house.note()) and found[0].status in (state.STARTING, state.RESTARTING):
        if time.monotonic() > end:
            wrong.append(f"it stays {found[0].status}")
            break
        time.sleep(0.02)
    for info in found:
        with contextlib.suppress(NotFound):  # it is removing itself, as it was asked to
            wrong += _one(house, info, victim)
    return wrong


def _one(house: House, info: ContainerInfo, victim: str) -> list[str]:
    engine, wrong = house.engine, []
    text = [line.text for line in engine.logs(info.id)]
    if info.status == state.PAUSED:
        try:
            info = engine.unpause(info.id)
        except StateError:  # the stop that was asked for goes on: it has just ended
            info = engine.find(info.id)
    if info.status == state.RUNNING:
        try:
            code = engine.exec(info.id, ExecConfig(("true",))).code
        except StateError:  # what was asked before goes on: it has just ended
            code = 0
        if code:
            time.sleep(0.5)  # or it is just ending, and the exec with it
        wrong += [f"exec in it gives {code}"] if code and engine.find(info.id).status == state.RUNNING else []
    elif info.status == state.EXITED:
        if info.exit is None:
            wrong.append("an end without an exit record")
        elif info.exit.code is None and (victim != "supervisor" or not info.exit.error):
            wrong.append(f"its exit code is lost although the {victim} was killed: {info.exit}")
        elif info.exit.code is not None and not info.exit.error and info.exit.code < 125 and _says(info) and text[:1] != ["hello"]:
            wrong.append(f"its log is lost: {text}")
    elif info.status != state.CREATED:
        wrong.append(f"it is {info.status}")
    return wrong


def _says(info: ContainerInfo) -> bool:
    return "hello" in " ".join(info.command)


def _again(house: House) -> list[str]:
    said = bytearray()
    asked = ContainerConfig("host", ("echo", "again"), network="bridge", auto_remove=True)
    try:
        house.engine.run(asked, None, lambda stream, data: said.extend(data))
    except ContainersError as error:
        return [f"the next run: {error}"]
    return [] if said == b"again\n" else [f"the next run printed {bytes(said)!r}"]


#: Whose steps these are.
_OWNERS = {"client": "kernel", "removal": "kernel"}


def cases(reached: dict[str, list[Step]], name: str) -> list[tuple[Step, str]]:
    """All pairs of this scenario; or those of its steps whose turn it is here, with the process that takes the step."""
    steps = reached[name]
    found = [(at, victim) for at in steps for victim in victims(steps, at, ("supervisor", "locked") not in steps and _alive_before(name))]
    if WHOLE:
        return found
    turns = {step: [other for other, there in reached.items() if step in there] for step in steps}
    mine = {step for step in steps if turns[step][hash_of(step) % len(turns[step])] == name}
    return [(at, victim) for at, victim in found if at in mine and victim == _OWNERS.get(at[0], at[0])]


def hash_of(step: Step) -> int:
    """The same in each run."""
    return sum(map(ord, "".join(step)))


def _alive_before(name: str) -> bool:
    return SCENARIOS[name].before in (_running, _paused)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_any_step_leaves_nothing(house: House, reached: dict[str, list[Step]], name: str) -> None:
    wrong: list[str] = []
    tried = cases(reached, name)
    for at, victim in tried:
        found = fault(house, name, at, victim)
        wrong += [f"{name}: {victim} killed at {at[0]}:{at[1]}: {line}" for line in found]
    print(f"{name}: {len(tried)} kills")
    assert not wrong, "\n".join(wrong)
