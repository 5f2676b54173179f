"""The view of a build with several steps at a time: its state is data, driven here by events as a solver yields them."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from typing import Any

import pytest

from pycontainers.building import KEEP, Tail, length
from pycontainers.commands.lines import DrawnProgress, LineProgress
from pycontainers.errors import BuildError
from pycontainers.events import Done, Event, Note, StepFailed, StepFinished, StepOutput, StepStarted
from pycontainers.notebook.progress import BuildView, show

HOSTILE = '<script>alert(1)</script><img src=x onerror="x">"\'&\x1b]52;c;ZXZpbA==\x07\u202e'
SIDE_BY_SIDE = [
    StepStarted(1, 6, "base", "FROM host"),
    StepFinished(1, 0.0, True),
    StepStarted(2, 6, "page", "RUN npm ci && \\\n    npm run build"),
    StepStarted(4, 6, "app", "RUN make -j2"),
    StepOutput(4, "stdout", b"cc one.c\ncc tw"),
    StepOutput(2, "stderr", b"added 3 pack"),
    StepOutput(4, "stdout", b"o.c\n"),
    StepOutput(2, "stderr", b"ages\n"),
]


class Page(HTMLParser):
    """Roles with their labels, tags, attributes, and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.roles: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.names: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}
        found = dict(attrs)
        if role := found.get("role"):
            self.roles.append((role, found.get("aria-label") or ""))

    def handle_data(self, data: str) -> None:
        self.text += data


def viewed(*events: Event) -> BuildView:
    view = BuildView()
    for event in events:
        view.handle(event)
    return view


def test_steps_side_by_side() -> None:
    view = viewed(*SIDE_BY_SIDE)
    assert [line.rpartition("  ")[0] if line[0] in "▶✓" else line for line in view.plain().split("\n")[:-1]] == [
        "✓ [base 1/6] FROM host",
        "▶ [page 2/6] RUN npm ci && npm run build",
        "    added 3 packages",
        "▶ [app 4/6] RUN make -j2",
        "    cc one.c",
        "    cc two.c",
    ]
    assert view.plain().split("\n")[-1].startswith("1 of 6 steps · 2 running · 0.")
    page = Page(view.bundle()["text/html"])
    assert [label for role, label in page.roles if role == "img"] == ["cached", "running", "running"]
    assert ("log", "build") in page.roles and "aria-busy" in page.names


def test_a_cancelled_step_is_not_a_failed_one() -> None:
    view = viewed(*SIDE_BY_SIDE, StepOutput(4, "stderr", b"no such file"), StepFailed(4, 1.5), StepFailed(2, 1.6, cancelled=True))
    view.failed()
    plain = view.plain()
    assert "✗ [app 4/6] RUN make -j2  failed after 1.5 s\n    cc one.c\n    cc two.c\n    no such file" in plain
    assert "⊘ [page 2/6] RUN npm ci && npm run build  cancelled after 1.6 s\n✗" in plain
    page = Page(view.bundle()["text/html"])
    assert [label for role, label in page.roles if role == "img"] == ["cached", "cancelled", "failed"]
    assert ("region", "output of step 4") in page.roles and "aria-busy" not in page.names


@pytest.mark.parametrize(
    ("events", "interrupted", "icons"),
    [(SIDE_BY_SIDE, False, "⊘⊘"), (SIDE_BY_SIDE, True, "⊘⊘"), (SIDE_BY_SIDE[:3], False, "✗"), (SIDE_BY_SIDE[:3], True, "⊘")],
)
def test_what_ran_when_it_broke_off(events: list[Event], interrupted: bool, icons: str) -> None:
    view = viewed(*events)
    view.failed(interrupted)
    assert "".join(line[0] for line in view.plain().split("\n") if line[0] in "✗⊘▶") == icons


def test_why_a_step_ran() -> None:
    many = "\n".join(f"file {n} changed" for n in range(50))
    view = viewed(*SIDE_BY_SIDE, StepFinished(4, 2.0, False, f"app.py changed {HOSTILE}"), StepFinished(2, 1.0, False, many))
    view.handle(Done("x", 2.0))
    plain, page = view.plain(), Page(view.bundle()["text/html"])
    assert "RUN make -j2  2.0 s\n    ↳ app.py changed <script>" in plain and "    ↳ and 39 more\n" in plain
    assert "↳ app.py changed <script>" in page.text and not {"script", "img"} & set(page.tags)
    assert view.plain().endswith("built x in 2.00 s · 1 of 3 steps cached")


def long_build(count: int) -> list[Event]:
    """Of every ten steps nine are cached; the last three still run."""
    events: list[Event] = []
    for index in range(1, count + 1):
        events.append(StepStarted(index, count, f"stage{index % 7}", f"RUN {'x' * 3000} {index}"))
        if index > count - 3:
            events.append(StepOutput(index, "stdout", b"y" * 100_000 + b"\nlast words\n"))
        else:
            events.append(StepFinished(index, 0.1, index % 10 != 0))
    return events


def test_a_long_build_stays_small_and_cheap() -> None:
    view = viewed(*long_build(200))
    bundle = view.bundle()
    assert len(bundle["text/plain"].split("\n")) < 40 and len(bundle["text/html"]) < 40_000
    assert "197 of 200 steps · 3 running" in bundle["text/plain"]
    assert "  … 189 steps: 171 cached, 18 done\n" in bundle["text/plain"] and "[stage4 200/200]" in bundle["text/plain"]
    started = time.perf_counter()
    for _ in range(20):
        view.bundle()
    assert (time.perf_counter() - started) / 20 < 0.02
    for index in (198, 199, 200):
        view.handle(StepFinished(index, 0.2, False))
    view.handle(Done("x", 20.0))
    page = Page(view.bundle()["text/html"])
    assert page.tags.count("details") == 20 and "9 steps cached" in page.text and len(view.bundle()["text/html"]) < 1_000_000
    assert view.plain().count("\n") < 60 and "built x in 20.00 s · 178 of 200 steps cached" in view.plain()


def test_however_long_a_build_was_what_stays_is_bounded() -> None:
    view = viewed(*long_build(3000), StepFinished(2999, 0.2, False), Done("x", 20.0))
    view.failed()
    page = Page(view.bundle()["text/html"])
    assert len(view.bundle()["text/html"]) < 400_000 and "2792 more" in page.text and "cancelled after" in page.text
    assert view.plain().count("\n") < 20 and "  … 2992 steps: 2693 cached, 299 done\n" in view.plain()


def test_many_steps_at_a_time() -> None:
    events: list[Event] = [StepStarted(index, 100, "", f"RUN {index}") for index in range(1, 101)]
    view = viewed(*events)
    assert view.plain().count("▶") == 12 and "  … 88 steps running\n" in view.plain()


def test_output_is_bounded_and_read_as_it_was_drawn() -> None:
    tail = Tail()
    tail.feed("stdout", b"1%\r2%\r100%\r\nno")
    tail.feed("stderr", b"err\r")
    tail.feed("stderr", b"\nend")
    tail.feed("stdout", b"w\n\n\x1b[31mred\x1b[0m\x1b]52;c;ZXZpbA==\x07")
    assert tail.all() == ["100%", "err", "now", "red", "end"] and tail.last(2) == ["red", "end"]
    started = time.perf_counter()
    for _ in range(200):
        tail.feed("stdout", b"z" * 100_000)  # a line without an end
    for _ in range(300):
        tail.feed("stderr", b"a line of text\n" * 1000)
    kept = tail.all()
    assert sum(map(len, kept)) < 2 * KEEP and kept[0].startswith("… 2") and time.perf_counter() - started < 5


def test_notes_are_told_once() -> None:
    view = viewed(*[Note(f"note {n % 40}") for n in range(80)])
    assert "△ note 0 (2 times)\n" in view.plain() and "△ 10 more notes" in view.plain() and "note 35" not in view.plain()


def test_lengths() -> None:
    assert [length(0.04), length(9.9), length(14.2), length(14.2, exact=True), length(119), length(185)] == [
        "0.0 s", "9.9 s", "14 s", "14.2 s", "119 s", "3 m 05 s",
    ]  # fmt: skip


def test_the_plain_form_says_whose_line_it_is() -> None:
    found: list[str] = []
    lines = LineProgress(found.append)
    for event in [
        *SIDE_BY_SIDE,
        StepFailed(4, 1.5),
        StepFailed(2, 1.6, cancelled=True),
        StepFinished(1, 0.5, False, "a changed\nb changed"),
    ]:
        lines.handle(event)
    assert found == [
        "#1 [base 1/6] FROM host",
        "#1 CACHED",
        "#2 [page 2/6] RUN npm ci && npm run build",
        "#4 [app 4/6] RUN make -j2",
        "#4 | cc one.c",
        "#4 | cc two.c",
        "#2 | added 3 packages",
        "#4 ERROR after 1.50 s",
        "#2 CANCELED after 1.60 s",
        "#1 done in 0.50 s",
        "#1 why: a changed",
        "#1 why: b changed",
    ]


def screen(written: list[str]) -> list[str]:
    """What a terminal shows of it: lines, the cursor moved up, what is below erased."""
    lines: list[str] = []
    for text in "".join(written).split("\n"):
        while found := re.match(r"\x1b\[(\d+)A\x1b\[J", text):
            del lines[len(lines) - int(found[1]) :]
            text = text[found.end() :]
        lines.append(text)
    return lines


@pytest.mark.parametrize("rows", [24, 7, 0])
def test_a_terminal_shows_what_runs_below_what_is_over(rows: int) -> None:
    written: list[str] = []
    progress = DrawnProgress(written.append, lambda: (rows, 60))
    for event in SIDE_BY_SIDE:
        progress.handle(event)
        progress._draw()
    said = [["    added 3 packages"], ["    cc one.c", "    cc two.c"]] if rows != 7 else [["    added 3 packages"], ["    cc two.c"]]
    running = ["▶ [page 2/6] RUN npm ci && npm run build", *said[0], "▶ [app 4/6] RUN make -j2", *said[1]]
    assert screen(written) == ["✓ [base 1/6] FROM host  CACHED", *[line.replace("    ", "  | ") for line in running], ""]
    progress.handle(StepFailed(4, 1.5))
    progress._broken_off(False)
    progress.close()
    assert screen(written) == [
        "✓ [base 1/6] FROM host  CACHED",
        "✗ [app 4/6] RUN make -j2  failed after 1.5 s",
        "  | cc one.c",
        "  | cc two.c",
        "⊘ [page 2/6] RUN npm ci && npm run build  cancelled after 0.0 s",
        "",
    ]


def test_an_interrupt_in_the_page_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop button raises in whatever the cell waits for: the work is closed, and the last drawing says cancelled."""
    import IPython.display

    drawn: list[Any] = []
    closed: list[bool] = []

    class Handle:
        def update(self, bundle: Any, raw: bool) -> None:
            drawn.append(bundle)

    monkeypatch.setattr(IPython.display, "display", lambda *_, **__: Handle())

    def work() -> Any:
        try:
            yield from SIDE_BY_SIDE
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    with pytest.raises(KeyboardInterrupt):
        show(work())
    assert closed and "⊘ [app 4/6]" in drawn[-1]["text/plain"] and "✗" not in drawn[-1]["text/plain"]

    def broken() -> Any:
        yield from SIDE_BY_SIDE[:3]
        raise BuildError("no")

    with pytest.raises(BuildError):
        show(broken())
    assert "✗ [page 2/6]" in drawn[-1]["text/plain"]
