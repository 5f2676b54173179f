"""Hooks: their order, where they run, what they are told, and what a failing one does (config.md, runtime.md)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def hook(log: Path, word: str, after: str = "") -> dict[str, Any]:
    line = f"echo '{word} '$(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/uts) $(cat) >>{log}; {after}"
    return {"path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/usr/bin:/bin"]}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def every(log: Path, failing: str = "") -> Any:
    """Two hooks of each kind. The log's folder is there in the container too, for startContainer."""

    def change(spec: dict[str, Any]) -> None:
        spec["annotations"] = {"is": "told"}
        spec["mounts"].append({"destination": str(log.parent), "type": "bind", "source": str(log.parent), "options": ["bind"]})
        spec["hooks"] = {kind: [hook(log, f"{kind}-1", "exit 3" if kind == failing else ""), hook(log, f"{kind}-2")] for kind in KINDS}

    return change


def read(log: Path) -> list[tuple[str, str, str, dict[str, Any]]]:
    rows = (line.split(" ", 3) for line in log.read_text().splitlines())
    return [(word, mnt, uts, json.loads(told)) for word, mnt, uts, told in rows]


def test_order_place_and_state(oci: Any, log: Path) -> None:
    bundle = oci.bundle(every(log), f"echo program >>{log}.program")
    done = oci.create("c", bundle)
    assert done.code == 0, done
    assert [row[0] for row in read(log)] == [f"{kind}-{n}" for kind in KINDS[:3] for n in (1, 2)]
    pid = oci.state("c")["pid"]
    assert oci("start", "c").code == 0
    assert [row[0] for row in read(log)][6:] == [f"{kind}-{n}" for kind in KINDS[3:5] for n in (1, 2)]
    assert oci("delete", "--force", "c").code == 0
    rows = read(log)
    assert [row[0] for row in rows] == [f"{kind}-{n}" for kind in KINDS for n in (1, 2)]
    host = os.readlink("/proc/self/ns/mnt"), os.readlink("/proc/self/ns/uts")
    for word, mnt, uts, told in rows:
        kind = word.partition("-")[0]
        assert ((mnt, uts) == host) == (kind not in ("createContainer", "startContainer")), (word, mnt, uts)
        wanted = {"prestart": "creating", "createRuntime": "creating", "createContainer": "creating"}
        wanted |= {"startContainer": "created", "poststart": "running", "poststop": "stopped"}
        assert told["status"] == wanted[kind] and told["id"] == "c" and told["bundle"] == bundle and told["annotations"] == {"is": "told"}
        assert told.get("pid") == (None if kind == "poststop" else pid), told


def test_run_has_the_same_order(oci: Any, log: Path) -> None:
    assert oci.run("true", every(log)).code == 0
    rows = read(log)
    assert [row[0] for row in rows] == [f"{kind}-{n}" for kind in KINDS for n in (1, 2)]
    assert all(row[1] == os.readlink("/proc/self/ns/mnt") for row in rows if row[0].startswith(("post", "prestart", "createRuntime")))


@pytest.mark.parametrize("failing", KINDS[:3])
def test_one_that_fails_while_creating_ends_it(oci: Any, log: Path, failing: str) -> None:
    ran = oci.create("c", oci.bundle(every(log, failing)))
    assert ran.code == 1 and f"hooks.{failing}[0] /bin/sh: exit status 3" in ran.err, ran
    words = [row[0] for row in read(log)]
    assert f"{failing}-1" in words and f"{failing}-2" not in words
    assert words[-2:] == ["poststop-1", "poststop-2"], "it is destroyed as ever"
    assert oci("state", "c").code == 1


def test_one_that_fails_at_start_ends_it(oci: Any, log: Path) -> None:
    for failing in ("startContainer", "poststart"):
        oci.create("c", oci.bundle(every(log, failing), "sleep 100"))
        ran = oci("start", "c")
        assert ran.code == 1 and f"hooks.{failing}[0]" in ran.err, ran
        for _ in range(100):
            if oci.state("c")["status"] == "stopped":
                break
        assert oci.state("c")["status"] == "stopped"
        assert oci("delete", "c").code == 0


def test_one_that_fails_afterwards_is_a_warning(oci: Any, log: Path) -> None:
    ran = oci.run("exit 4", every(log, "poststop"))
    assert ran.code == 4 and "level=warning" in ran.err and "hooks.poststop[0]" in ran.err, ran
    assert read(log)[-1][0] == "poststop-2"


def test_timeout_arguments_and_environment(oci: Any, log: Path) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "30"], "timeout": 1}]}

    ran = oci.run("true", change)
    assert ran.code == 1 and "did not end within 1 s" in ran.err, ran

    def other(spec: dict[str, Any]) -> None:
        line = f"echo $0 $1 $MINE ${{HOME-none}} >{log}"
        spec["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", line, "zero", "one"], "env": ["MINE=yes"]}]}

    assert oci.run("true", other).code == 0
    assert log.read_text() == "zero one yes none\n"


def test_what_a_failing_hook_says_is_told(oci: Any) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["hooks"] = {"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", "echo for this reason >&2; exit 9"]}]}

    assert "exit status 9: for this reason" in oci.run("true", change).err
    ran = oci.run("true", lambda spec: spec.update(hooks={"prestart": [{"path": "/not/there"}]}))
    assert ran.code == 1 and "/not/there: No such file" in ran.err
    ran = oci.run("true", lambda spec: spec.update(hooks={"prestart": [{"path": "sh"}]}))
    assert "hooks.prestart[0].path 'sh' is not absolute" in ran.err
