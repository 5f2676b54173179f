"""Namespaces: what the kernel says of real containers, and the forms in which it is shown, hostile names included."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pycontainers.engines import spaces
from pycontainers.engines.native import NativeEngine
from pycontainers.errors import StateError, UsageError
from pycontainers.namespaced import Namespaces
from pycontainers.notebook import namespaces as shown
from pycontainers.protocol import ContainerConfig
from pycontainers.spaces import KINDS, Spaces


@pytest.fixture(scope="module")
def real(state: Any) -> Iterator[NativeEngine]:
    """Two containers that share a network, and one with the host's pid and UTS namespaces."""
    engine = NativeEngine(state)
    shm = "import mmap,ctypes; c = ctypes.CDLL(None); print(c.shmget(0x1234, 8192, 0o1666), flush=True); import time; time.sleep(900)"
    for config in (
        ContainerConfig("host", ("python3", "-c", shm), name="one", network="none", hostname="inside"),
        ContainerConfig("host", ("sleep", "901"), name="two", network="container:one"),
        ContainerConfig("host", ("sleep", "902"), name="open", network="none", pid="host", uts="host", userns="host"),
    ):
        engine.create(config)
        engine.start(config.name)
    yield engine
    for name in ("two", "open", "one"):
        engine.remove(name, force=True)


def rows(found: Spaces, kind: str, title: str) -> list[tuple[str, ...]]:
    return next(list(sight.rows) for sight in found.kinds[kind].sights if sight.title == title)


@pytest.mark.root
def test_who_has_which_is_what_the_kernel_says(real: NativeEngine) -> None:
    found = Namespaces(real, ["one", "two", "open"])
    for one in found.containers:
        pid = real.find(one.name).pid
        for kind, space in one.kinds.items():
            link = os.readlink(f"/proc/{pid}/ns/{ {'mount': 'mnt', 'network': 'net'}.get(kind, kind)}")
            assert link.endswith(f"[{space.number}]")
            assert space.host is (found.host.kinds[kind].number == space.number)
    assert found["one"].kinds["network"].shared == ("two",) and found["two"].kinds["network"].shared == ("one",)
    assert not found["one"].kinds["pid"].shared
    assert {kind for kind, space in found["open"].kinds.items() if space.host} >= {"pid", "uts", "user"}
    table = {row[0]: row[3:] for row in found.rows()}
    assert table["network"][0].startswith("◐ with two") and table["pid"][0].startswith("● own")
    assert table["uts"][2].startswith("○ this machine's")


@pytest.mark.root
def test_what_is_visible_through_each(real: NativeEngine) -> None:
    one, host = real.namespaces("one"), real.namespaces()
    pid = real.find("one").pid
    ((first, outside, command),) = rows(one, "pid", "processes")
    assert (first, outside) == ("1", str(pid)) and command.startswith("python3")
    assert (str(pid), "one") in [row[:2] for row in rows(host, "pid", "processes")]
    mounts = {row[0]: row for row in rows(one, "mount", "mounts")}
    assert mounts["/"][1] == "overlay" and "/proc" in mounts
    assert [row[:2] for row in rows(one, "network", "interfaces")] == [("lo", "127.0.0.1/8 ::1/128")]
    assert not rows(one, "network", "routes") and rows(host, "network", "interfaces")
    ((first, base, count),) = rows(one, "user", "user ids")
    assert first == "0" and int(base) > 0 and int(count) > 1
    rights = dict(rows(one, "user", "what its first process may do"))
    assert rights["runs as"] == f"user {base} of this machine" and rights["system calls"] == "filtered by seccomp"
    assert "chown" in rights["capabilities"].split() and "sys_admin" not in rights["capabilities"]
    assert dict(rows(one, "uts", "names"))["host name"] == "inside"
    assert dict(rows(host, "uts", "names"))["host name"] == os.uname().nodename
    groups = [row for row in rows(one, "cgroup", "control groups") if real.find("one").id in row[2]]
    assert groups and {inside for _, inside, _ in groups} == {"/"}
    assert {row[0] for row in rows(one, "time", "shift against this machine's clocks")} == {"monotonic", "boottime"}


@pytest.mark.root
def test_shared_memory_is_seen_where_it_is(real: NativeEngine) -> None:
    assert [row[:2] for row in rows(real.namespaces("one"), "ipc", "shared memory")] == [(str(0x1234), "8192")]
    others = (real.namespaces("two"), real.namespaces())
    for other in others:
        assert not any(row[0] == str(0x1234) for sight in other.kinds["ipc"].sights for row in sight.rows)


@pytest.mark.root
def test_a_network_with_an_address_and_a_port(real: NativeEngine) -> None:
    serve = ("python3", "-m", "http.server", "8099")
    real.create(ContainerConfig("host", serve, name="served", network="bridge"))
    try:
        info = real.start("served")
        for _ in range(200):
            found = real.namespaces("served")
            if rows(found, "network", "listening"):
                break
        assert rows(found, "network", "listening") == [("0.0.0.0", "8099", "tcp")]
        names = {row[0]: row[1] for row in rows(found, "network", "interfaces")}
        assert info.address in names["eth0"] and rows(found, "network", "routes")[0][0] == "default"
    finally:
        real.remove("served", force=True)


@pytest.mark.root
def test_what_does_not_run_has_none(real: NativeEngine) -> None:
    real.create(ContainerConfig("host", ("x",), name="idle", network="none"))
    with pytest.raises(StateError, match="not running"):
        Namespaces(real, ["idle"])
    real.remove("idle", force=True)
    before = len(os.listdir("/proc/self/fd"))
    Namespaces(real, ["one"])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("break_", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_process_whose_name_looks_like_a_line_is_not_believed(break_: str) -> None:
    name = f"{break_}Uid:\t7 7 7 7"
    program = f"import sys; open('/proc/self/comm', 'wb').write({name.encode()!r}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline()
        rights = dict(spaces._users(process.pid, "process")[-1].rows)
        process.communicate()
    assert rights["runs as"] == f"user {os.geteuid()} of this machine"


def test_a_mount_is_told_apart_by_spaces_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "36 35 8:1 / /a\x85b\u2028c rw shared:1 - ext4 /dev/x\x0cy rw\n"
    monkeypatch.setattr(spaces, "_read", lambda pid, name: line)
    assert spaces._mounts(1)[0].rows == (("/a\x85b\u2028c", "ext4", "/dev/x\x0cy", "writable"),)


# -- the forms


@pytest.fixture
def found(engine: Any) -> Namespaces:
    for name in ("web", "db"):
        engine.create(ContainerConfig("host", ("x",), name=name))
        engine.start(name)
    return Namespaces(engine, ["web", "db"])


def test_text_and_html_teach_and_escape(found: Namespaces) -> None:
    text = repr(found)
    assert all(f"{lesson.page}(7)" in text and kind in text for kind, lesson in KINDS.items())
    assert "\x1b" not in text and "… and 3 more" in text and "a note" in text
    html = shown.static(found)
    assert "<b>x" not in html and "&lt;b&gt;x" in html and html.count("<details") == len(KINDS) and "man7.org" in html
    forms = shown.bundle(found, live=False)
    assert set(forms) == {"text/plain", "text/html"}
    assert set(shown.bundle(found, live=True)) == {*forms, "application/vnd.jupyter.widget-view+json"}


@pytest.mark.root
def test_a_saved_notebook_stays_small(real: NativeEngine) -> None:
    forms = shown.bundle(Namespaces(real, ["one", "two", "open"]), live=False)
    assert sum(len(form.encode()) for form in forms.values()) < 150_000


def test_without_names_all_that_run_and_no_details(engine: Any, found: Namespaces) -> None:
    every = Namespaces(engine, detail=False)
    assert {one.name for one in every.containers} == {"web", "db"} and len(repr(every).splitlines()) == 1 + len(KINDS)
    assert "<details" not in shown.static(every)
    assert [row[0] for row in Namespaces(engine, ["web"], ["uts", "pid"]).rows()] == ["pid", "uts"]
    with pytest.raises(UsageError, match="no container 'wbe'"):
        found["wbe"]


def test_what_ends_meanwhile_is_left_out_unless_it_was_named(engine: Any, found: Namespaces, monkeypatch: pytest.MonkeyPatch) -> None:
    read = engine.namespaces

    def ended(name: str = "") -> Spaces:
        if name == "db":
            raise StateError("container 'db' is not running")
        return read(name)

    monkeypatch.setattr(engine, "namespaces", ended)
    assert [one.name for one in Namespaces(engine).containers] == ["web"]
    with pytest.raises(StateError, match="not running"):
        Namespaces(engine, ["db"])


def test_the_page_asks_and_nonsense_is_not_answered(found: Namespaces) -> None:
    from pycontainers.notebook.widgets.namespaces import _widget_class, look

    widget = _widget_class()(found)
    sent: list[Any] = []
    widget.send = lambda content, buffers=None: sent.append(content)
    widget._asked(widget, {"kind": "look", "of": "uts", "column": 2, "view": "v", "question": 1}, [])
    assert sent[0]["kind"] == "uts" and sent[0]["theirs"][0]["rows"][1][0] == "db" and sent[0]["host"]
    widget._asked(widget, {"kind": "read", "of": "pid", "column": 99, "view": "v", "question": 2}, [])
    assert sent[1]["column"] == 2
    for message in ({}, {"kind": "look"}, {"kind": "look", "of": "x", "column": 1}, {"kind": "look", "of": "pid", "column": -1}):
        widget._asked(widget, message, [])
    assert len(sent) == 2
    assert look(found, "pid", 0)["theirs"] == []


def test_the_verb(shell: Any, engine: Any, found: Namespaces) -> None:
    result = shell.run_line_magic("container", "namespaces web --kind network")
    assert result.kinds == ("network",) and result.detail
    assert not shell.run_line_magic("container", "namespaces").detail
    with pytest.raises(UsageError, match="no kind of namespace") as caught:
        shell.run_line_magic("container", "namespaces --kind netwrk")
    assert "network" in caught.value.hint
