"""The dashboard's kernel side: what pages are told, what their buttons do, and the form that does not move."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine, sample

from pycontainers.errors import StateError
from pycontainers.notebook.dashboard import panes, static
from pycontainers.notebook.dashboard.actions import Workers
from pycontainers.notebook.dashboard.board import Board, Use, close_all, follower
from pycontainers.notebook.dashboard.board import Page as Opened
from pycontainers.notebook.dashboard.rows import container_row, difference
from pycontainers.overview import Dashboard, forgotten
from pycontainers.protocol import ContainerConfig, ExitStatus, ImageInfo, LogLine, Port, RestartPolicy

HOSTILE = '<img src=x onerror="document.title=1">\x1b]52;c;ZXZpbA==\x07\u202e$x$'


def box(engine: FakeEngine, name: str, **changes: Any) -> Any:
    info = engine.create(ContainerConfig(image="host", command=("sleep", "1"), name=name))
    return engine._set(info.id, **changes)


def running(engine: FakeEngine, name: str, **changes: Any) -> Any:
    return box(engine, name, status="running", started=time.time() - 5, **changes)


class Page:
    """A page that keeps what it was told."""

    def __init__(self, engine: FakeEngine, view: str = "v1") -> None:
        self.sent: list[dict[str, Any]] = []
        self.came = threading.Condition()
        self.open = True
        self.board = Board(engine, self._send, lambda: not self.open)
        self.view = view

    def _send(self, message: dict[str, Any]) -> None:
        with self.came:
            self.sent.append(json.loads(json.dumps(message)))  # what a comm could not carry fails here
            self.came.notify_all()

    def say(self, **message: Any) -> None:
        self.board.ask({"view": self.view, "question": 1, **message})

    def wait(self, wanted: Callable[[dict[str, Any]], object], seconds: float = 10) -> dict[str, Any]:
        """The first message of which that is true."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [message for message in self.sent if wanted(message)][:1]
            return bool(found)

        with self.came:
            assert self.came.wait_for(there, seconds), f"it never came; what came: {self.sent}"
        return found[0]

    def hello(self) -> dict[str, Any]:
        self.say(kind="hello")
        return self.wait(lambda message: message["kind"] == "all")


@pytest.fixture
def page(engine: FakeEngine) -> Iterator[Page]:
    found = Page(engine)
    yield found
    found.open = False
    close_all()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("pycontainers-dash")]


def key(info: Any) -> str:
    return str(info.id.removeprefix("sha256:")[:16])


def test_a_page_is_told_everything_then_only_what_changes(engine: FakeEngine, page: Page) -> None:
    web, db = running(engine, "web", ports=(Port(80, 8080),)), running(engine, "db")
    whole = page.hello()
    rows = {row["name"]: row for row in whole["tabs"]["containers"]}
    assert set(rows) == {"web", "db"} and rows["web"]["state"] == "running" and rows["web"]["ports"][0]["url"].endswith(":8080/")
    engine._set(web.id, status="paused")
    told = page.wait(lambda message: message["kind"] == "rows")
    assert told["gone"] == [] and [row["id"] for row in told["rows"]] == [key(web)]
    assert told["rows"][0]["state"] == "paused" and "image" not in told["rows"][0]  # differences alone
    del engine.boxes[db.id]
    assert page.wait(lambda message: message["kind"] == "rows" and message["gone"])["gone"] == [key(db)]


def test_use_is_sent_once_a_second_and_only_where_it_changes(engine: FakeEngine, page: Page) -> None:
    info = running(engine, "web")
    engine.recorded = [sample(100.0 + at, cpu_usage=at * 500_000_000, memory=64 << 20) for at in range(5)]
    page.hello()
    told = page.wait(lambda message: message["kind"] == "use" and message["rows"])
    assert told["rows"] == {key(info): [50.0, 64 << 10]}
    page.wait(lambda message: message["kind"] == "use" and not message["rows"])  # nothing new: a clock alone


def test_a_course_has_a_point_a_second_and_survives_a_new_start() -> None:
    use = Use()
    dense = [sample(at / 10, cpu_usage=int(at * 1e8)) for at in range(30)]
    assert use.take(dense) and list(use.cpu) == [100.0] * 5
    assert not use.take([sample(2.9, cpu_usage=int(29e8))])  # the same moment again
    use.take([sample(10.0, cpu_usage=5)])  # counters begin anew
    use.take([sample(11.0, cpu_usage=5 + int(2e8))])
    assert use.cpu[-1] == 20.0 and min(use.cpu) >= 0


@pytest.mark.parametrize(
    ("verb", "before", "after"), [("start", "created", "running"), ("stop", "running", "exited"), ("remove", "running", None)]
)
def test_buttons_act(engine: FakeEngine, page: Page, verb: str, before: str, after: str | None) -> None:
    info = box(engine, "web", status=before)
    page.hello()
    page.say(kind="act", tab="containers", verb=verb, ids=[key(info), "unknown"])
    assert page.wait(lambda message: message["kind"] == "said")["text"].startswith("web ")
    assert (engine.boxes[info.id].status if after else info.id not in engine.boxes) == (after or True)
    busy = page.wait(lambda message: message["kind"] == "rows" and any(row.get("busy") for row in message["rows"]))
    assert busy["rows"][0]["busy"].endswith("ing")


def test_an_error_stands_in_its_row_until_it_is_dismissed(engine: FakeEngine, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    info = running(engine, "web")

    def refuse(container: str, timeout: float | None = None) -> Any:
        raise StateError(f"it does not end {HOSTILE}", "ask again")

    monkeypatch.setattr(engine, "stop", refuse)
    page.hello()
    page.say(kind="act", tab="containers", verb="stop", ids=[key(info)])
    told = page.wait(lambda message: message["kind"] == "rows" and any(row.get("error") for row in message["rows"]))
    error = next(row["error"] for row in told["rows"] if row.get("error"))
    assert error["hint"] == "ask again" and "\x1b" not in error["text"] and "\u202e" not in error["text"]
    assert page.wait(lambda message: message["kind"] == "said")["error"] == error["text"]
    page.say(kind="dismiss", tab="containers", id=key(info))
    page.wait(lambda message: message["kind"] == "rows" and any("error" in row and row["error"] is None for row in message["rows"]))


def test_an_action_that_hangs_holds_up_nobody(engine: FakeEngine, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, other = running(engine, "slow"), running(engine, "other")
    let_go = threading.Event()
    stop = engine.stop

    def hang(container: str, timeout: float | None = None) -> Any:
        if container == slow.id:
            assert let_go.wait(20)
        return stop(container, timeout)

    monkeypatch.setattr(engine, "stop", hang)
    page.hello()
    begun = time.monotonic()
    page.say(kind="act", tab="containers", verb="stop", ids=[key(slow)])
    page.say(kind="act", tab="containers", verb="stop", ids=[key(slow)])  # once is enough
    page.say(kind="act", tab="containers", verb="stop", ids=[key(other)])
    assert page.wait(lambda message: message["kind"] == "said")["name"] == "other" and time.monotonic() - begun < 5
    let_go.set()
    page.wait(lambda message: message["kind"] == "said" and message["name"] == "slow")
    assert [call for call in engine.calls if call[0] == "stop"].count(("stop", slow.id, None)) == 1


def test_what_makes_no_sense_is_not_answered(engine: FakeEngine, page: Page) -> None:
    info = running(engine, "web")
    page.hello()
    for message in (
        {"kind": "act", "tab": "containers", "verb": "format", "ids": [key(info)]},
        {"kind": "act", "tab": "containers", "verb": "stop"},
        {"kind": "__class__"},
        {"kind": 7},
        {"kind": "open", "tab": "images", "pane": "logs", "id": key(info), "number": 1},
        {"kind": "open", "tab": "containers", "pane": "logs", "id": "../../etc", "number": 1},
        {"kind": "more", "start": "x"},
    ):
        page.board.ask({"view": page.view, **message})
    page.say(kind="act", tab="containers", verb="stop", ids=[key(info)])
    page.wait(lambda message: message["kind"] == "said")
    assert not [message for message in page.sent if message["kind"] == "pane"]


def test_a_log_is_shown_from_its_end_and_followed(engine: FakeEngine, page: Page) -> None:
    info = running(engine, "web")
    engine.lines = [LogLine(float(at), "stdout", f"line {at}") for at in range(5)]
    page.hello()
    page.say(kind="open", tab="containers", pane="logs", id=key(info), number=4)
    first = page.wait(lambda message: message["kind"] == "pane")
    assert first["number"] == 4 and first["start"] == 3 and [line[2] for line in first["lines"]] == ["line 3", "line 4"]
    engine.lines.append(LogLine(9.0, "stderr", HOSTILE + "x" * 100_000))
    more = page.wait(lambda message: message["kind"] == "pane" and message["start"] == 5)
    (_, error, text), = more["lines"]
    assert error is True and "\x1b" not in text and "\u202e" not in text and len(text) < 5000
    page.say(kind="more", start=3)
    earlier = page.wait(lambda message: "earlier" in message)
    assert earlier["start"] == 1 and [line[2] for line in earlier["earlier"]] == ["line 1", "line 2"]
    del engine.boxes[info.id]
    assert "no container" in page.wait(lambda message: message["kind"] == "pane" and "error" in message)["error"]


def test_panes_are_taken_in_their_order_and_a_shell_goes_on_behind_its_log(
    engine: FakeEngine, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    web, db = running(engine, "web"), running(engine, "db")
    made: list[str] = []

    class Widget:
        def __init__(self, ident: str) -> None:
            self.model_id = f"model of {ident}"
            made.append(f"+{ident}")

        def close(self) -> None:
            made.append(f"-{self.model_id[9:]}")

    monkeypatch.setattr(panes, "_terminal", lambda engine, ident: Widget(ident))
    monkeypatch.setattr(panes, "_end_terminal", lambda widget: widget.close())
    page.hello()

    def show(info: Any, pane: str, number: int) -> None:
        page.say(kind="open", tab="containers", pane=pane, id=key(info), number=number)

    def told(number: int) -> dict[str, Any]:
        return page.wait(lambda message: message["kind"] == "pane" and message["number"] == number)

    show(web, "terminal", 1)
    assert told(1)["model"] == f"model of {web.id}"
    show(web, "logs", 2)
    told(2)
    show(web, "terminal", 3)
    assert told(3)["model"] == f"model of {web.id}" and made == [f"+{web.id}"]  # the same shell
    show(db, "logs", 4)
    told(4)
    assert made == [f"+{web.id}", f"-{web.id}"]
    for number in range(5, 25):  # only the last of many that are asked for at once stays
        show(db, "inspect" if number % 2 else "processes", number)
    told(24)
    page.say(kind="close")
    page.say(kind="bye")
    end = time.monotonic() + 5
    while page.board._pages and time.monotonic() < end:
        time.sleep(0.01)
    assert not page.board._pages


def test_a_flood_is_told_of_not_followed(engine: FakeEngine) -> None:
    info = running(engine, "loud")

    class Watch:
        end = 0

        def log(self, container: str, after: int | None = None, before: int | None = None) -> Any:
            from pycontainers.protocol import LogPart

            line = LogLine(1.0, "stdout", "y")
            if after is None:
                return LogPart((line,), max(0, self.end - (64 << 10)), self.end)
            return LogPart((line,) if self.end > after else (), after, min(self.end, after + (64 << 10)))

    watch = Watch()
    pane = panes.LogPane(engine, info.id)
    assert pane.update(watch) == {"lines": [[1.0, False, "y"]], "start": 0}
    watch.end = 500 << 20
    assert pane.update(watch)["skipped"] == "499.9 MiB" and pane.update(watch) is None


def test_a_document_is_bounded() -> None:
    deep: Any = {}
    for _ in range(50):
        deep = {"a": deep}
    huge = {"labels": {f"k{at}\x1b[31m": HOSTILE * 1000 for at in range(5000)}, "deep": deep, "list": list(range(10_000))}
    found = json.dumps(panes.bounded(huge))
    assert len(found) < 1_500_000 and "4800 more" in found and "9800 more" in found and "\\u001b" not in found


def test_nobody_looks_while_no_page_is_open(engine: FakeEngine, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    from pycontainers.notebook.dashboard import board

    monkeypatch.setattr(board, "_LEFT", 0.3)
    page.hello()
    assert follower().running
    page.say(kind="bye")
    end = time.monotonic() + 10
    while follower().running and time.monotonic() < end:
        time.sleep(0.02)
    assert not follower().running
    page.sent.clear()
    page.hello()  # and again when one comes back
    assert follower().running


def test_what_cannot_be_read_now_may_be_the_next_time(engine: FakeEngine, page: Page) -> None:
    running(engine, "web")
    page.hello()
    watch = page.board._watch
    read = watch.containers

    def refuse() -> Any:
        raise OSError(28, "No space left on device")

    watch.containers = refuse  # type: ignore[method-assign]
    assert "No space left" in page.wait(lambda message: message["kind"] == "trouble")["text"]
    watch.containers = read  # type: ignore[method-assign]
    running(engine, "db")
    page.wait(lambda message: message["kind"] == "trouble" and not message["text"])
    page.wait(lambda message: message["kind"] == "rows" and any(row.get("name") == "db" for row in message["rows"]))


def test_many_pages_are_looked_after_once(engine: FakeEngine, page: Page) -> None:
    for view in ("v1", "v2", "v3"):
        page.board.ask({"kind": "hello", "view": view, "question": 1})
        page.wait(lambda message, view=view: message["kind"] == "all" and message["view"] == view)
    assert len(follower()._views) == 1


def test_an_hour_leaves_nothing_behind(engine: FakeEngine) -> None:
    import tracemalloc

    for number in range(20):
        running(engine, f"box{number}")
    now = [0]
    watch = engine.watch()
    watch.samples = lambda container: [sample(now[0], cpu_usage=now[0] * 10_000_000 + hash(container) % 97, memory=now[0] << 12)]
    engine.watch = lambda: watch  # type: ignore[method-assign]
    board = Board(engine, lambda message: None, lambda: False)
    board._pages["v"] = Opened()
    sizes = []
    tracemalloc.start()
    for _ in range(4):
        for _ in range(900):  # a quarter of an hour
            now[0] += 1
            board._look()
            board._measure()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[-1] - sizes[0] < 64 << 10, sizes


def test_forgotten_ones(engine: FakeEngine, tmp_path: Path) -> None:
    now = time.time()
    info = replace(running(engine, "old"), started=now - 3 * 86400)
    assert forgotten(info, now) == ["has been running for 3 days"]
    assert not forgotten(replace(info, restart=RestartPolicy("always")), now) and not forgotten(replace(info, status="exited"), now)
    assert not forgotten(replace(info, lifetime="kernel"), now)
    book = tmp_path / "a.ipynb"
    assert forgotten(replace(info, started=now, notebook=str(book)), now) == ["its notebook a.ipynb is gone"]
    book.touch()
    assert not forgotten(replace(info, started=now, notebook=str(book)), now)
    assert not forgotten(replace(info, started=now, notebook="a.ipynb"), now)


def test_states_are_said_by_icon_word_and_tone(engine: FakeEngine) -> None:
    info = box(engine, "web")
    seen = set()
    for status, exit in (
        ("created", None),
        ("running", None),
        ("paused", None),
        ("restarting", None),
        ("exited", ExitStatus(0)),
        ("exited", ExitStatus(3)),
        ("exited", ExitStatus(137, oom_killed=True)),
        ("exited", ExitStatus(None)),
    ):
        row = container_row(replace(info, status=status, exit=exit), time.time())
        seen.add((row["icon"], row["word"]))
    assert len(seen) == 8


def test_hostile_names_are_one_bounded_line(engine: FakeEngine) -> None:
    info = running(engine, "x", image=HOSTILE * 500, labels={HOSTILE: HOSTILE * 999}, notes=(HOSTILE,) * 99, notebook=HOSTILE)
    text = json.dumps(container_row(info, time.time()))
    assert len(text) < 6000 and "\\u001b" not in text and "\\u202e" not in text
    html = static.static(Dashboard(engine))
    assert "<img" not in html and "<span>$</span>x" in html


def test_differences() -> None:
    assert difference({}, {"a": {"id": "a", "x": 1}}) == ([{"id": "a", "x": 1}], [])
    assert difference({"a": {"id": "a", "x": 1, "y": 2}}, {"a": {"id": "a", "x": 1}}) == ([{"id": "a", "y": None}], [])
    assert difference({"a": {"id": "a"}, "b": {"id": "b"}}, {"b": {"id": "b"}}) == ([], ["a"])


def test_the_verb_and_its_forms(shell: Any, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    running(engine, "web")
    engine.pictures["app:1"] = ImageInfo("sha256:" + "1" * 64, ("app:1",), time.time(), 4096, True, {})
    found = shell.run_line_magic("container", "dashboard")
    assert isinstance(found, Dashboard) and "1 container, 1 running; 1 image" in repr(found)
    forms = shell.display_formatter.format(found)[0]
    assert set(forms) == {"text/plain", "text/html"} and "web" in forms["text/html"] and "app:1" in forms["text/html"]
    monkeypatch.setattr("pycontainers.notebook.frontend.surroundings.is_live", lambda *asked: True)
    forms = shell.display_formatter.format(found)[0]
    assert "application/vnd.jupyter.widget-view+json" in forms and "web" in forms["text/html"]
    quiet = shell.run_line_magic("container", "dashboard --static")
    assert "application/vnd.jupyter.widget-view+json" not in shell.display_formatter.format(quiet)[0]


def test_a_saved_notebook_stays_small(engine: FakeEngine) -> None:
    for number in range(500):
        running(engine, f"box{number}", ports=(Port(80, 8000 + number),))
        engine.pictures[f"app:{number}"] = ImageInfo(f"sha256:{number:064x}", (f"app:{number}",), time.time(), 4096, True, {})
    found = Dashboard(engine)
    forms = static.bundle(found, live=False)
    assert "and 460 more" in forms["text/html"] and sum(map(len, forms.values())) < 200_000


def test_workers_end_with_idleness(monkeypatch: pytest.MonkeyPatch) -> None:
    from pycontainers.notebook.dashboard import actions

    monkeypatch.setattr(actions, "_IDLE", 0.05)
    workers, done = Workers(3), threading.Semaphore(0)
    for _ in range(50):
        workers.do(done.release)
    assert all(done.acquire(timeout=5) for _ in range(50))
    end = time.monotonic() + 5
    while workers._threads and time.monotonic() < end:
        time.sleep(0.01)
    assert not workers._threads
    workers.do(done.release)
    assert done.acquire(timeout=5)
    # Closed while one is at work: that goes on to its end, and what comes later is done.
    let_go = threading.Event()
    workers.do(lambda: (let_go.wait(5), done.release()))
    workers.close(0.05)
    workers.do(done.release)
    assert done.acquire(timeout=5)
    let_go.set()
    assert done.acquire(timeout=5)
    workers.close()


def test_a_task_that_breaks_costs_no_worker() -> None:
    workers, done = Workers(1), threading.Semaphore(0)

    def broken() -> None:
        raise ZeroDivisionError

    workers.do(broken)
    workers.do(done.release)
    assert done.acquire(timeout=5)
    workers.close()
