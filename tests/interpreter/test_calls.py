"""``pc.contained`` and ``pc.map`` with real containers."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pycontainers as pc
from pycontainers.engines.native import NativeEngine
from pycontainers.errors import ContainerFailed, ContainersError, UsageError
from pycontainers.interpreter.channel import Channel

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("engine")]
FACTOR = 3


def helper(x: int) -> int:
    return x * FACTOR


class Base:
    def who(self) -> str:
        return type(self).__name__


@dataclasses.dataclass
class Point(Base):
    x: int
    y: int = 2

    def total(self) -> int:
        return helper(self.x + self.y)

    def next(self) -> Point:
        return Point(self.x + 1)


class Ping:
    def pong(self) -> Pong:
        return Pong()


class Pong:
    def ping(self) -> Ping:
        return Ping()


def outer(by: int) -> Callable[[int], int]:
    def inner(x: int) -> int:
        return x * by if x < 2 else inner(x - 1) * by

    return inner


def square(x: int) -> tuple[int, str]:
    import socket

    if x == 5:
        os._exit(3)
    if x == 7:
        raise ValueError(f"no {x}")
    return x * x, socket.gethostname()


@pytest.fixture
def nothing_left(remains: Callable[[], dict[str, list[str]]]) -> Any:
    before = remains()
    yield
    assert remains() == before


def test_a_function_with_what_it_uses(capsys: pytest.CaptureFixture[str], nothing_left: None) -> None:
    @pc.contained(memory="256m")
    def scale(x: int, *, add: int = 1) -> int:
        """Its words."""
        print("inside", x)
        return helper(x) + add

    assert scale(2, add=5) == 11 and scale.__doc__ == "Its words." and scale.__name__ == "scale"
    assert capsys.readouterr().out == "inside 2\n"


def test_a_method() -> None:
    class Scale:
        by = 3

        @pc.contained
        def times(self: Any, x: int) -> int:
            return int(self["by"] * x)

    assert Scale.times({"by": 3}, 2) == 6 and Scale.times.__name__ == "times"
    assert pc.contained(Point.total)(Point(1)) == 9


def test_closures_recursion_partials_builtins_modules_and_lambdas() -> None:
    assert pc.contained(outer(2))(3) == 8
    assert pc.contained(functools.partial(helper))(4) == 12
    assert pc.contained(math.sqrt)(9.0) == 3.0
    assert pc.contained(lambda values: np.linalg.norm(values))(np.array([3.0, 4.0])) == 5.0


def test_classes_of_a_file_beside_the_notebook_go_by_their_text(nothing_left: None) -> None:
    def use(point: Point) -> list[Any]:
        return [point.total(), point.who(), point.next().total(), type(Ping().pong().ping()).__name__]

    assert pc.map(use, [Point(1), Point(2)], workers=1) == [[9, "Point", 12, "Ping"], [12, "Point", 15, "Ping"]]
    assert pc.contained(lambda points: {name: point.x for name, point in points.items()})({"a": Point(1)}) == {"a": 1}
    assert pc.contained(pickle=True)(Point(3).next)() == Point(4)
    with pytest.raises(ContainersError, match=r"what the function returns is a .*Point"):
        pc.contained(Point(3).next)()

    class Inner:
        pass

    with pytest.raises(UsageError, match="Inner"):
        pc.contained(str)(Inner())


def test_an_exception_is_of_its_kind_and_shows_the_lines_of_its_function(nothing_left: None, capsys: pytest.CaptureFixture[str]) -> None:
    @pc.contained
    def pick(x: int) -> int:
        print("picking")
        return [1, 2, 3][x]

    with pytest.raises(IndexError, match="out of range") as caught:
        pick(7)
    assert capsys.readouterr().out == "picking\n"
    error: Any = caught.value
    assert isinstance(error, pc.ContainedError) and "return [1, 2, 3][x]" in "\n".join(error.lines) and error.item is None
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, IndexError) and again.lines == error.lines and str(again) == str(error)


def test_each_call_is_alone_and_has_no_network() -> None:
    @pc.contained
    def leave() -> list[str]:
        import socket

        found = os.listdir("/tmp")
        open("/tmp/left", "w").close()
        try:
            socket.create_connection(("192.0.2.1", 80), 1)
        except OSError as error:
            found.append(str(error.strerror))
        return found

    assert leave() == leave() == ["Network is unreachable"]


def test_memory_and_time_end_a_call_and_nothing_else(nothing_left: None) -> None:
    @pc.contained(memory="64m", timeout=20)
    def fill() -> int:
        return len(bytearray(500 << 20))

    @pc.contained(timeout=0.5)
    def wait() -> None:
        time.sleep(60)

    with pytest.raises(ContainerFailed, match=r"fill ran out of memory.*64\.0 MiB.*peak"):
        fill()
    with pytest.raises(ContainerFailed, match=r"wait was ended after 0.5 s \(peak"):
        wait()


def test_what_comes_back_runs_no_code_unless_that_is_asked_for() -> None:
    import collections

    def count() -> Any:
        return collections.Counter("aab")

    with pytest.raises(ContainersError, match=r"what the function returns is a collections\.Counter"):
        pc.contained(count)()
    assert pc.contained(pickle=True)(count)() == {"a": 2, "b": 1}


def test_map_keeps_the_order_replaces_the_dead_and_keeps_errors(nothing_left: None) -> None:
    told: list[tuple[int, int, int]] = []
    found: list[Any] = pc.map(square, range(12), workers=3, errors="keep", progress=lambda *counts: told.append(counts))
    good = [value for value in found if not isinstance(value, Exception)]
    assert [value[0] for value in good] == [x * x for x in range(12) if x not in (5, 7)]
    assert isinstance(found[5], ContainerFailed) and "call 5 of square ended with exit code 3" in found[5].message
    assert isinstance(found[7], ValueError) and str(found[7]) == "no 7" and found[7].item == 7
    assert told[0] == (0, 0, 12) and told[-1] == (12, 2, 12) and 3 <= len({value[1] for value in good}) <= 4


def _runner() -> Any:
    """What a hostile function has: it is its own process, so it has everything that the runner has."""
    import gc

    return next(item for item in gc.get_objects() if type(item).__name__ == "Runner")


def test_answers_that_make_no_sense_cost_their_item(nothing_left: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(x: int) -> int:
        runner = _runner()
        told = {1: {"op": "done", "values": [["", ["dict", 5]]]}, 2: {"op": "raised", "error": {"chain": [{}]}}, 3: {"op": "done"}}.get(x)

        def instead(fields: Any, buffers: Any = ()) -> None:
            del runner.send
            runner.send({**told, "call": x})
            if x == 3:
                runner.send({"op": "done", "values": [["", 3]], "call": x})

        if told:
            runner.send = instead
        return x

    def fall(told: Any, **more: Any) -> ContainersError:
        if told:
            raise OverflowError("cannot convert float infinity to integer")
        return ContainersError("told nothing")

    monkeypatch.setattr("pycontainers.interpreter.failures.raised", fall)
    found: list[Any] = pc.map(answer, range(6), workers=1, errors="keep")
    assert [found[place] for place in (0, 5)] == [0, 5] and "cannot be read" in found[1].message
    assert "nothing that can be read" in found[2].message
    # Two answers to one question: that ends the container, and costs the item that it has by then.
    assert isinstance(found[3], ContainersError) and (found[4] == 4 or "nobody has asked for" in found[4].message)


def test_a_fork_that_goes_on_in_a_map_gives_no_answer(nothing_left: None) -> None:
    def fork(x: int) -> int:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        return x if child else -1

    assert pc.map(fork, range(4), workers=1) == [0, 1, 2, 3]


def test_what_an_idle_container_says_ends_it_alone(nothing_left: None, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    refuse = Channel._refused
    monkeypatch.setattr(Channel, "_refused", lambda self, why: (refused.append(why), refuse(self, why))[1])

    def late(x: int) -> int:
        if x == 0:
            runner = _runner()
            threading.Timer(0.3, lambda: [runner.send({"op": "done", "values": [], "call": x}) for _ in range(1000)]).start()
        else:
            time.sleep(1.5)
        return x

    assert pc.map(late, [0, 1], workers=2) == [0, 1] and refused == ["an answer that nobody has asked for"]


def test_containers_that_cannot_start_cost_items_and_not_results(nothing_left: None, monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = NativeEngine.start_attached, []

    def first(self: NativeEngine, *args: Any, **more: Any) -> Any:
        started.append(args)
        if len(started) > limit:
            raise ContainersError("there is no room", "make some")
        return start(self, *args, **more)

    def end(x: int) -> int:
        if x == 1:
            os._exit(3)
        return x

    monkeypatch.setattr(NativeEngine, "start_attached", first)
    limit = 1
    found: list[Any] = pc.map(end, range(4), workers=1, errors="keep")
    assert found[0] == 0 and "exit code 3" in found[1].message and [str(error.message) for error in found[2:]] == ["there is no room"] * 2
    started.clear()
    assert pc.map(helper, range(4), workers=2) == [0, 3, 6, 9]  # one goes on alone
    limit = 0
    with pytest.raises(ContainersError, match="there is no room"):
        pc.map(helper, range(4), workers=2, errors="keep")


def test_what_one_container_writes_does_not_reach_into_what_another_does(capsys: pytest.CaptureFixture[str]) -> None:
    def write(own: tuple[str, str]) -> None:
        path, word = own
        if word == "cut":
            os.write(1, b"\xc3")
            os.write(1, b"\x1b]0;")
            open(path, "w").close()
            time.sleep(1)
        while not os.path.exists(path):
            time.sleep(0.01)
        print("an important line" if word != "cut" else "", flush=True)
        os.write(2, b"\xc3" if word == "cut" else b"")

    import tempfile

    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o777)
        pc.map(write, [("/meet/x", "cut"), ("/meet/x", "line")], workers=2, volumes={folder: "/meet"}, timeout=30)
    told = capsys.readouterr()
    assert "an important line\n" in told.out and told.out.count("\ufffd") == 1
    assert told.err == "\ufffd"  # what has begun and does not end is said at the end


def test_map_works_at_the_same_time() -> None:
    """Two that wait for each other's start through a shared folder: one after the other they would never end."""

    def meet(folder_and_own: tuple[str, int]) -> bool:
        folder, own = folder_and_own
        open(f"{folder}/{own}", "w").close()
        while len(os.listdir(folder)) < 2:
            time.sleep(0.01)
        return True

    import tempfile

    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o777)
        assert pc.map(meet, [("/meet", 1), ("/meet", 2)], workers=2, volumes={folder: "/meet"}, timeout=30) == [True, True]


def test_map_raises_the_first_error_and_ends_the_others(nothing_left: None) -> None:
    def fail(x: int) -> None:
        if x:
            time.sleep(60)
        raise KeyError("first")

    began = time.monotonic()
    with pytest.raises(KeyError, match="first"):
        pc.map(fail, range(4), workers=2)
    assert time.monotonic() - began < 20


def test_a_timeout_is_each_items_own(nothing_left: None) -> None:
    def wait(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    found: list[Any] = pc.map(wait, [0.1, 60, 0.2], workers=2, timeout=2, errors="keep")
    assert found[0] == 0.1 and found[2] == 0.2 and "call 1 of wait was ended after 2 s" in found[1].message


def test_an_interrupt_ends_a_map_within_a_second(nothing_left: None) -> None:
    moments: list[float] = []

    def wait(x: int) -> None:
        if x:
            time.sleep(60)

    def interrupt() -> None:
        moments.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    def told(done: int, failed: int, count: int) -> None:
        if done:
            threading.Thread(target=interrupt, daemon=True).start()

    took: list[float] = []
    while len(took) < 3 and min(took, default=9.0) >= 1.0:  # other tests may have had the processors
        moments.clear()
        with pytest.raises(KeyboardInterrupt):
            pc.map(wait, range(3), workers=2, progress=told)
        took.append(time.monotonic() - moments[0])
    assert min(took) < 1.0


def test_one_item_that_cannot_go_in_costs_that_item(nothing_left: None) -> None:
    found: list[Any] = pc.map(helper, [1, threading.Lock(), 3], workers=1, errors="keep")
    assert found[0] == 3 and found[2] == 9 and isinstance(found[1], UsageError) and "argument of call 1" in found[1].message
    assert pc.map(helper, []) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memry": 1}, "no option 'memry'"),
        ({"name": "x"}, "'name' makes no sense"),
        ({"timeout": "soon"}, "length of time"),
        ({"timeout": 0}, "no time at all"),
        ({"memory": "x"}, "memory"),
    ],
)
def test_options_are_looked_at_when_the_function_is_defined(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        pc.contained(**options)
    assert caught.value.hint
    for wrong in ({"workers": -1}, {"workers": True}, {"errors": "ignore"}):
        with pytest.raises(UsageError):
            pc.map(helper, [1], **wrong)  # type: ignore[call-overload, arg-type, unused-ignore]


def test_functions_that_cannot_go_in_are_said_before_anything_starts(engine: NativeEngine) -> None:
    lock = threading.Lock()

    def hold() -> None:
        lock.acquire()

    with pytest.raises(UsageError, match=r"hold cannot be sent into a container: it uses lock, and .*lock"):
        pc.contained(hold)()
