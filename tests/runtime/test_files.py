"""Users of an image, the log's form, the state folder: no container needed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontainers.errors import ContainersError, NameInUse
from pycontainers.protocol import ContainerConfig, Mount
from pycontainers.runtime import logs, recover, spec, state, users
from pycontainers.runtime.privileges import privileges_of

FILES = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n123:x:7:7::/odd:/bin/sh\nbroken line\n",
    "/etc/group": "root:x:0:\nann:x:1001:\naudio:x:29:ann,bob\nvideo:x:44:ann\n",
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", (0, 0, [0], "/root")),
        ("root", (0, 0, [0], "/root")),
        ("ann", (1000, 1001, [1001, 29, 44], "/home/ann")),
        ("1000", (1000, 1001, [1001, 29, 44], "/home/ann")),
        ("ann:audio", (1000, 29, [29], "/home/ann")),
        ("4000", (4000, 0, [0], "/")),
        ("4000:5000", (4000, 5000, [5000], "/")),
        ("123", (7, 7, [7], "/odd")),
    ],
)
def test_users(text: str, found: tuple[int, int, list[int], str]) -> None:
    assert users.resolve(text, lambda path: FILES.get(path, "")) == found


@pytest.mark.parametrize("text", ["nobody-here", "ann:nothing", "70000", "0:70000"])
def test_users_that_are_not_there(text: str) -> None:
    with pytest.raises(ContainersError):
        users.resolve(text, lambda path: FILES.get(path, ""))


def test_a_fifo_in_the_place_of_passwd_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "passwd")
    assert users.read_in_root(str(tmp_path / "passwd")) == ""


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=200)), max_size=20))
def test_log_gives_back_what_was_written(pieces: list[tuple[str, bytes]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/log"
        writer = logs.Writer(path)
        for stream, data in pieces:
            writer.feed(stream, data)
        writer.close()
        for stream in ("stdout", "stderr"):
            whole = b"".join(data for name, data in pieces if name == stream)
            back = b"".join(text + (b"" if partial else b"\n") for _, name, partial, text in logs.read(path) if name == stream)
            assert back == whole


def test_long_lines_are_cut_and_marked(tmp_path: Path) -> None:
    writer = logs.Writer(str(tmp_path / "log"))
    writer.feed("stdout", b"x" * 40000 + b"\nshort\n")
    writer.close()
    found = [(partial, len(text)) for _, _, partial, text in logs.read(str(tmp_path / "log"))]
    assert found == [(True, 16384), (True, 16384), (False, 7232), (False, 5)]


def test_log_time_is_rfc3339_with_nanoseconds() -> None:
    stamp = logs.timestamp(1_795_419_941_017_644_600).decode()
    assert stamp == "2026-11-23T07:45:41.017644600Z"
    assert abs(logs.parse_time(stamp) - 1_795_419_941.0176446) < 1e-6


def test_name_belongs_to_one(tmp_path: Path) -> None:
    containers = str(tmp_path)
    os.mkdir(tmp_path / ("a" * 64))
    state.claim_name(containers, "x", "a" * 64)
    with pytest.raises(NameInUse):
        state.claim_name(containers, "x", "b" * 64)
    state.release_name(containers, "x", "b" * 64)  # not his
    assert state.named(containers, "x") == "a" * 64
    os.rmdir(tmp_path / ("a" * 64))
    state.claim_name(containers, "x", "b" * 64)  # its container is gone
    assert state.named(containers, "x") == "b" * 64


def test_sweep_removes_what_dead_makers_left(tmp_path: Path) -> None:
    mine = tmp_path / recover.new_folder_name("a" * 64)
    parts = mine.name.split("-")
    dead = tmp_path / f".new-{'b' * 64}-{os.getpid()}-1-{parts[-1]}"
    elsewhere, long_ago = (tmp_path / f".new-{name * 64}-{os.getpid()}-1-aaaaaaaaaaaa.4026531836" for name in "ef")
    grave = tmp_path / f".gone-{'c' * 64}"
    for folder in (mine, dead, elsewhere, long_ago, grave):
        folder.mkdir()
    os.utime(long_ago, (0, 0))
    state.claim_name(str(tmp_path), "mine", "a" * 64)
    state.claim_name(str(tmp_path), "dead", "b" * 64)
    with pytest.raises(NameInUse):  # it is being put together: its folder has not got its name yet
        state.claim_name(str(tmp_path), "mine", "d" * 64)
    recover.sweep(str(tmp_path))
    assert mine.exists()
    assert not dead.exists()
    assert elsewhere.exists() and not long_ago.exists(), "another machine that shares this home may be at work"
    assert not grave.exists()
    assert os.listdir(tmp_path / "names") == ["mine"]


def test_state_of_another_machine_is_left_alone() -> None:
    from pycontainers.linux import process

    me = process.identity(os.getpid())
    here = {"machine": state.machine()}
    assert state.lives({**here, "supervisor": me})
    assert not state.lives({**here, "supervisor": {**me, "start": 1}})
    assert not state.lives({**here, "supervisor": {**me, "boot": "earlier"}})
    assert state.lives({"machine": "another", "supervisor": {**me, "boot": "earlier"}})
    assert state.lives({**here, "supervisor": {**me, "pidns": "pid:[1]"}})


def test_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    state.write(str(tmp_path), "x.json", {"n": 0})
    child = os.fork()
    if child == 0:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            for n in range(50):
                state.write(str(tmp_path), "x.json", {"n": n, "fill": "y" * 5000})
        os._exit(0)
    seen = 0
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        found = state.read(str(tmp_path), "x.json")
        assert found is not None
        seen += 1
    assert seen > 10


def test_spec_names_what_is_asked() -> None:
    config = ContainerConfig("host", ("sh",), user="ann", workdir="/w", env={"A": "b"}, mounts=(Mount("bind", "/d", "/s", read_only=True),))
    made = spec.oci_spec(
        config,
        {"Env": ["A=a", "B=c"], "User": "bob"},
        container_id="f" * 64,
        resources={"pids": {"limit": 3}},
        facts=spec.Facts(),
        files={},
        privileges=privileges_of(config, True),
        joins={},
    )
    assert made["process"]["user"]["username"] == "ann"
    assert set(made["process"]["env"]) >= {"A=b", "B=c"}
    assert made["linux"]["resources"] == {"pids": {"limit": 3}}
    assert made["mounts"][-1] == {"destination": "/d", "type": "bind", "source": "/s", "options": ["rbind", "rnodev", "rro", "ridmap"]}
    assert {n["type"] for n in made["linux"]["namespaces"]} == {"user", "pid", "mount", "uts", "ipc", "network", "cgroup", "time"}


@pytest.mark.parametrize(
    ("config", "image", "argv"),
    [
        (ContainerConfig("x", ("a",)), {"Cmd": ["b"]}, ["a"]),
        (ContainerConfig("x"), {"Cmd": ["b"], "Entrypoint": ["e"]}, ["e", "b"]),
        (ContainerConfig("x", ("a",)), {"Cmd": ["b"], "Entrypoint": ["e"]}, ["e", "a"]),
        (ContainerConfig("x", entrypoint=("n",)), {"Cmd": ["b"], "Entrypoint": ["e"]}, ["n"]),
    ],
)
def test_entrypoint_and_command(config: ContainerConfig, image: dict[str, list[str]], argv: list[str]) -> None:
    assert spec.command_of(config, image) == argv


def test_without_user_namespace_there_is_no_mknod() -> None:
    config, facts = ContainerConfig("x", ("a",), userns="host"), spec.Facts(user_namespace=False)
    privileges = privileges_of(config, facts.user_namespace)
    made = spec.oci_spec(config, {}, container_id="f" * 64, resources={}, facts=facts, files={}, privileges=privileges, joins={})
    assert "uidMappings" not in made["linux"]
    assert "CAP_MKNOD" not in made["process"]["capabilities"]["bounding"]
