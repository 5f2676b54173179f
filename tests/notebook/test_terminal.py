"""Terminals below the page: real shells in a real container, what a page is sent and what is taken from it, and the package's build."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pycontainers import terminals
from pycontainers.engines.native import NativeEngine
from pycontainers.errors import ContainersError, UsageError
from pycontainers.notebook import terminals as shown
from pycontainers.notebook.display import _terminal as bundle
from pycontainers.notebook.widgets import terminal as drawn
from pycontainers.protocol import ContainerConfig, ExecConfig
from pycontainers.terminals import CHUNK, KEPT, MOST_INPUT, WINDOW, Terminal, in_container, of_container

ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def real(state: Any) -> Iterator[NativeEngine]:
    """The native engine with a container "box" that runs."""
    engine = NativeEngine(state)
    engine.create(ContainerConfig("host", ("sleep", "900"), name="box", network="none"))
    engine.start("box")
    yield engine
    engine.remove("box", force=True)


@pytest.fixture
def shell(real: NativeEngine) -> Iterator[Terminal]:
    found = in_container(real, "box", ExecConfig(("sh",)))
    yield found
    found.close()
    assert found.wait(10)


class Page:
    """Takes what it is sent; ``reads``: and says so."""

    def __init__(self, terminal: Terminal, reads: bool = True) -> None:
        self.terminal, self.reads = terminal, reads
        self.got, self.at, self.lost_times, self.changes = bytearray(), 0, 0, 0
        terminal.watch(self)

    def output(self, at: int, data: bytes) -> None:
        assert at == self.at, "pieces follow each other"
        self.at = at + len(data)
        self.got += data
        if self.reads:
            self.terminal.seen(self.at)

    def lost(self) -> None:
        self.lost_times += 1

    def changed(self) -> None:
        self.changes += 1


@pytest.mark.root
def test_a_shell_on_a_terminal(shell: Terminal) -> None:
    page = Page(shell)
    page.at = shell.screen()[0]
    shell.resize(33, 101)
    assert shell.write(b"stty size; echo $TERM; tty; exit 3\n") and shell.wait(10)
    assert "33 101" in shell.text and "xterm-256color" in shell.text and "/dev/pts/" in shell.text
    assert shell.state == "exit code 3" and not shell.running and page.changes == 1 and not shell.write(b"x")
    assert b"xterm-256color" in page.got
    shell.start()
    assert shell.write(b"echo again-$((1+1))\n")
    until(lambda: "again-2" in shell.text)


@pytest.mark.root
def test_closing_hangs_up(shell: Terminal, real: NativeEngine) -> None:
    shell.write(b"sleep 71\n")
    until(lambda: any("sleep 71" in row[-1] for row in real.top("box")[1]))
    shell.close()
    assert shell.wait(10) and shell.state == "closed"
    until(lambda: not any("sleep 71" in row[-1] for row in real.top("box")[1]))


@pytest.mark.root
def test_a_flood_that_nobody_reads_is_bounded_and_slow(shell: Terminal) -> None:
    page = Page(shell, reads=False)
    page.at = shell.screen()[0]
    shell.write(b"yes\n")
    until(lambda: shell._unread() > WINDOW)
    sent, before, since = len(page.got), shell._output.end, time.monotonic()
    time.sleep(1)
    read = shell._output.end - before
    assert len(page.got) == sent <= WINDOW, "nothing more is sent to a page that does not read"
    assert read <= 4 * CHUNK * (time.monotonic() - since + 1)
    at, kept = shell.screen()
    assert len(kept) <= KEPT + 4 * CHUNK and at >= shell._output.end - 4 * CHUNK
    page.at, page.reads = at, True
    shell.write(b"\x03")
    shell.write(b"echo over-$((1+1))\n")
    until(lambda: b"over-2" in page.got or "over-2" in shell.text)


@pytest.mark.root
def test_a_page_that_comes_back_is_told_to_ask_anew(shell: Terminal) -> None:
    page = Page(shell, reads=False)
    page.at = shell.screen()[0]
    shell.write(b"yes\n")
    until(lambda: shell._unread() > WINDOW)
    shell.seen(page.at)
    assert page.lost_times == 1
    page.at, page.reads = shell.screen()[0], True
    got = len(page.got)
    until(lambda: len(page.got) > got)


@pytest.mark.root
def test_a_flood_costs_the_kernel_little(shell: Terminal) -> None:
    page = Page(shell)
    page.at = shell.screen()[0]
    shell.write(b"yes\n")
    until(lambda: len(page.got) > CHUNK)
    cpu, got, since = time.process_time(), len(page.got), time.monotonic()
    time.sleep(1)
    seconds = time.monotonic() - since
    assert (len(page.got) - got) / seconds < 8 << 20
    assert (time.process_time() - cpu) / seconds < 0.3


@pytest.mark.root
def test_modes_and_a_redraw_outlast_what_is_dropped(shell: Terminal) -> None:
    shell.write(b"printf '\\033[?1049h\\033[?25l'; head -c 900000 /dev/zero | tr '\\0' x; printf 'e\\156d'\n")
    shell.seen(0)
    until(lambda: (shell.seen(shell._output.end), "end" in shell.text[-2000:])[1])
    replay = shell.screen()[1]
    assert replay.startswith(b"\x1b[?1049h\x1b[?25l") and len(replay) < KEPT + 8 * CHUNK
    shell.write(b"\nprintf '\\033[?1049l'; trap 'echo resi\\zed' WINCH\n")
    until(lambda: "WINCH" in shell.text[-200:])
    shell.redraw()
    shell.write(b"\n")
    until(lambda: "resized" in shell.text)
    assert shell.size == (24, 80) or until(lambda: shell.size == (24, 80)) is None


@pytest.mark.root
def test_input_for_a_program_that_does_not_read_is_bounded(shell: Terminal) -> None:
    shell.write(b"stty raw -echo; echo raw-$((1+1)); sleep 72\n")
    until(lambda: "raw-2" in shell.text)  # a line that is being edited would take any number, and forget them
    taken = 0
    while shell.write(b"x" * CHUNK):
        taken += CHUNK
        assert taken < MOST_INPUT + 8 * CHUNK
    assert len(shell._input) <= MOST_INPUT


@pytest.mark.root
def test_what_does_not_start_is_an_error_of_the_cell(real: NativeEngine) -> None:
    before = threading.active_count()
    with pytest.raises(ContainersError, match="nosuch"):
        in_container(real, "box", ExecConfig(("nosuch",)))
    with pytest.raises(ContainersError, match="nobody"):
        in_container(real, "nobody", ExecConfig(()))
    info = real.create(ContainerConfig("host", ("nosuch",), name="own", network="none", tty=True, stdin_open=True))
    with pytest.raises(ContainersError, match="nosuch"):
        of_container(real, info)
    assert "own" not in [one.name for one in real.containers(all=True)]
    until(lambda: threading.active_count() <= before)


@pytest.mark.root
def test_the_terminal_of_a_container_of_its_own_ends_it(real: NativeEngine) -> None:
    config = ContainerConfig("host", ("sh",), name="own", network="none", tty=True, stdin_open=True, auto_remove=True)
    terminal = of_container(real, real.create(config))
    terminal.write(b"echo $((6*7))\n")
    until(lambda: "42" in terminal.text)
    terminal.close()
    assert terminal.wait(20) and terminal.state == "closed"
    until(lambda: "own" not in [one.name for one in real.containers(all=True)])


@pytest.mark.root
def test_from_python(real: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    from pycontainers.objects import Container

    box = Container(real, real.find("box"))
    terminal = box.terminal("sh")
    assert repr(terminal) == "<Terminal in box: sh, running>"
    monkeypatch.setattr(shown, "form", lambda: "lines")  # without the library it is shown all the same
    assert drawn.widget(terminal).form == "lines" and drawn.widget(terminal).library is None
    shown.discard(terminal)
    assert terminal.wait(10) and set(box.namespaces("uts")["box"].kinds) >= {"uts"}


# -- its widget


@pytest.fixture
def view(shell: Terminal) -> Iterator[Any]:
    found = drawn.widget(shell)
    found.sent = []
    found.send = lambda content, buffers=None: found.sent.append((content, buffers))
    yield found
    shown.discard(shell)


def asked(widget: Any, /, **message: Any) -> None:
    widget._asked(widget, {"view": "a", **message}, [])


@pytest.mark.root
def test_a_view_gets_the_screen_and_what_follows(view: Any, shell: Terminal) -> None:
    assert drawn.widget(shell) is view
    shell.write(b"echo first-$((1+1))\n")
    until(lambda: "first-2" in shell.text)
    asked(view, kind="open", rows=30, columns=90)
    screens = [(content, buffers) for content, buffers in view.sent if content["kind"] == "screen"]
    (content, buffers) = screens[-1]
    assert content["to"] == "a" and b"first-2" in buffers[0] and shell.size == (30, 90) and view.leader == "a"
    at = content["at"]
    asked(view, kind="input", text="echo secönd\n")
    until(lambda: "secönd\n" in shell.text.replace("echo secönd\n", ""))
    later = view.sent[view.sent.index(screens[-1]) + 1 :]
    assert next(one["at"] for one, _ in later if one["kind"] == "output") == at


@pytest.mark.root
def test_of_several_views_one_answers_what_programs_ask(view: Any, shell: Terminal) -> None:
    asked(view, kind="open", rows=30, columns=90)
    asked(view, kind="open", rows=20, columns=70, view="b")
    assert shell.size == (20, 70) and view.leader == "b" and view.size == [20, 70]
    written: list[bytes] = []
    shell.write = lambda data: written.append(data) or True  # type: ignore[method-assign,func-returns-value,assignment]
    for name in ("a", "b"):
        asked(view, kind="input", text="\x1b[24;80R", view=name)
        asked(view, kind="input", text="typed", view=name)
    assert written == [b"typed", b"\x1b[24;80R", b"typed"]


@pytest.mark.root
@pytest.mark.parametrize(
    "message",
    [
        {},
        {"kind": "open"},
        {"kind": "size", "rows": "x", "columns": 2},
        {"kind": "input", "text": 7},
        {"kind": "input", "text": "x" * (2 << 20)},
    ],
)
def test_what_makes_no_sense_changes_nothing(view: Any, shell: Terminal, message: dict[str, Any]) -> None:
    before = shell.size
    asked(view, **message)
    assert shell.running and shell.size == before and not shell._input
    asked(view, kind="size", rows=-5, columns=10**9)
    assert shell.size == (2, 1000)


def fake(began: list[str], name: str) -> Terminal:
    """A terminal whose process does nothing."""
    began.append(name)
    return Terminal(name, ("x",), lambda drive, size: None)  # type: ignore[arg-type,return-value]


def test_a_cell_that_is_run_again_ends_what_it_showed_before() -> None:
    def kernel(cell: str, execution: str) -> Any:
        parent = {"header": {"msg_id": execution}, "metadata": {"cellId": cell}}
        return SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda channel: parent))

    began: list[str] = []
    first, second, third, other = (fake(began, name) for name in ("1", "2", "3", "4"))
    bundle(first, True, kernel("a", "x"))
    bundle(second, True, kernel("a", "x"))
    bundle(other, True, kernel("b", "y"))
    assert not first._closing and not second._closing
    forms = bundle(third, True, kernel("a", "z"))
    assert first._closing and second._closing and not third._closing and not other._closing
    assert set(forms) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"} and "Terminal in" in forms["text/html"]
    shown.close_all()
    assert third._closing and other._closing and not shown._widgets


def test_hostile_names_are_text() -> None:
    found = Terminal("<b>x</b>", ("<img src=x>", "\x1b]0;t\x07"), lambda drive, size: None)  # type: ignore[arg-type,return-value]
    assert "<img" not in shown.static(found) and "<b>x" not in shown.static(found) and "\x1b" not in repr(found)


# -- the verbs


def test_where_nobody_can_type_the_verb_says_so(engine: Any) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    from pycontainers.notebook.frontend import NotebookFrontend

    assert NotebookFrontend(InteractiveShell()).terminals == ""
    from list_frontend import ListFrontend

    from pycontainers.commands.declare import find, parse
    from pycontainers.commands.frontend import Context

    verb = find("terminal")
    front = ListFrontend()
    engine.create(ContainerConfig("host", ("x",), name="web"))
    with pytest.raises(UsageError) as caught:
        verb.function(Context(lambda: engine, front), parse(verb, ["web", "top"]), None)
    assert "nobody can type" in caught.value.message and "exec web top" in caught.value.hint
    front.terminals = "lines"
    for words in (["terminal", "-e", "A=1", "web"], ["exec", "-it", "web", "sh"]):
        verb = find(words[0])
        engine.calls.clear()
        found = verb.function(Context(lambda: engine, front), parse(verb, words[1:]), None)
        assert isinstance(found, Terminal) and found.form == "lines" and found.wait(5)
        config = engine.calls[-1][2]
        assert config.tty and config.env["TERM"] == "dumb"
        assert config.command == (terminals.SHELL if words[0] == "terminal" else ("sh",))
        assert (config.env.get("A") == "1") is ("-e" in words)


# -- the build


@pytest.fixture(scope="module")
def hook() -> Any:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_npm_the_build_goes_on_and_says_why(hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    shutil.copytree(ROOT / "js", tmp_path / "js", ignore=shutil.ignore_patterns("node_modules", "out"))
    (tmp_path / "pycontainers/notebook/widgets").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sleep").symlink_to(str(shutil.which("sleep")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert "npm" in hook.bundle(tmp_path)
    npm = tmp_path / "bin/npm"
    npm.write_text("#!/bin/sh\necho 'npm error network' >&2\nexit 1\n")
    npm.chmod(0o755)
    assert hook.bundle(tmp_path) == "npm ci: npm error network"
    npm.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(hook, "SECONDS", 0.1)
    assert "timed out" in hook.bundle(tmp_path)
    assert not list((tmp_path / "pycontainers/notebook/widgets").iterdir())


def test_the_lockfile_names_each_package_with_its_digest() -> None:
    import json

    packages = json.loads((ROOT / "js/package-lock.json").read_text())["packages"]
    for name, package in packages.items():
        assert not name or package["integrity"].startswith("sha512-"), name
