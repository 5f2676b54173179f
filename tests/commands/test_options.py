from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontainers.commands.attachments import parse_mount, parse_port, parse_volume, port_list, tmpfs_list, volume_list
from pycontainers.commands.options import (
    RunOptions,
    container_config,
    environment,
    exec_config,
)
from pycontainers.errors import LimitError, UsageError
from pycontainers.protocol import Mount, Port


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [Port(80, 0)]),
        ("8080:80", [Port(80, 8080)]),
        ("8080:80/udp", [Port(80, 8080, protocol="udp")]),
        ("0.0.0.0:8080:80", [Port(80, 8080, "0.0.0.0")]),
        ("0.0.0.0::80", [Port(80, 0, "0.0.0.0")]),
        ("[::1]:8080:80", [Port(80, 8080, "::1")]),
        ("8000-8001:80-81", [Port(80, 8000), Port(81, 8001)]),
        ("80-81", [Port(80), Port(81)]),
    ],
)
def test_ports(text: str, expected: list[Port]) -> None:
    assert parse_port(text) == expected


@pytest.mark.parametrize(
    "text", ["", "x", "80:", "0", "65536", "8080:80/sctp", "300.0.0.1:1:2", "9-8", "1-3:5-6", "1:2:3:4", "-1", "host:1:2"]
)
def test_wrong_ports(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_port(text)
    assert caught.value.message


@given(st.text(alphabet="0123456789:-./[]audpct", max_size=24))
def test_a_port_is_parsed_or_refused(text: str) -> None:
    try:
        found = parse_port(text)
    except UsageError:
        return
    assert all(1 <= port.container_port <= 65535 and 0 <= port.host_port <= 65535 for port in found)


def test_ports_from_python_values() -> None:
    assert port_list({8080: 80}) == (Port(80, 8080),)
    assert port_list(80) == (Port(80),)
    assert port_list([Port(1), "2:3"]) == (Port(1), Port(3, 2))
    with pytest.raises(UsageError, match="twice"):
        port_list(["8080:80", "8080:81"])


def test_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert parse_volume("./data:/data") == Mount("bind", "/data", str(tmp_path / "data"), create=True)
    assert parse_volume(".:/work:ro") == Mount("bind", "/work", str(tmp_path), read_only=True, create=True)
    assert parse_volume("~/x:/x:rw").source == "/home/me/x"
    assert volume_list({"/a": "/b"}) == (Mount("bind", "/b", "/a", create=True),)
    assert not (tmp_path / "data").exists(), "parsing makes nothing"


@pytest.mark.parametrize("text", ["data:/data", "/a", "/a:b", ":/b", "/a:/", "/a:/..", "/a:/b:rx", "/a:/b:ro,rw"])
def test_wrong_volumes(text: str) -> None:
    with pytest.raises(UsageError):
        parse_volume(text)


def test_a_bare_name_says_that_a_path_is_needed() -> None:
    with pytest.raises(UsageError) as caught:
        parse_volume("data:/data")
    assert "volume" in caught.value.message and "./data" in caught.value.hint


def test_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_mount("type=bind,source=./d,target=/d,readonly") == Mount("bind", "/d", str(tmp_path / "d"), read_only=True)
    assert parse_mount("type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1777").options == (f"size={64 << 20}", "mode=1777")
    assert tmpfs_list(["/run:size=1m,ro"]) == (Mount("tmpfs", "/run", read_only=True, options=(f"size={1 << 20}",)),)


@pytest.mark.parametrize(
    "text",
    [
        "type=bind,target=/d",
        "type=bind,source=/d",
        "type=volume,source=d,target=/d",
        "type=tmpfs,source=/a,target=/t",
        "what=1",
        "type=bind,source=/a,target=/b,tmpfs-size=1m",
        "type=tmpfs,target=/t,tmpfs-mode=999",
        "type=bind,source=/a,target=b",
    ],
)
def test_wrong_mounts(text: str) -> None:
    with pytest.raises(UsageError):
        parse_mount(text)


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "here")
    monkeypatch.delenv("NOT_SET", raising=False)
    file = tmp_path / "env"
    file.write_text("# comment\nA=1\n\nB='quoted'\nFROM_HERE\n")
    assert environment(["A=2", "C=x=y", "NOT_SET"], [str(file)]) == {"A": "2", "B": "'quoted'", "FROM_HERE": "here", "C": "x=y"}
    assert environment({"N": 1}, ()) == {"N": "1"}
    for wrong in (["=x"], [""]):
        with pytest.raises(UsageError):
            environment(wrong, ())
    with pytest.raises(UsageError, match="No such file"):
        environment([], [str(tmp_path / "missing")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pids_limit": "many"}, "pids-limit"),
        ({"cpu_shares": "x"}, "cpu-shares"),
        ({"memory": "lots"}, "memory"),
    ],
)
def test_wrong_limits(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LimitError, match=message):
        container_config("host", **options)


def test_limits_as_text_and_as_values() -> None:
    text = container_config("host", memory="128m", cpus="0.5", pids_limit="64", memory_swap="-1").resources
    assert text == container_config("host", memory=128 << 20, cpus=0.5, pids_limit=64, memory_swap=-1).resources
    assert (text.memory, text.cpus, text.pids_limit, text.memory_swap) == (128 << 20, 0.5, 64, -1)


def test_commands_and_entrypoints() -> None:
    assert container_config("host", "sh -c 'a b'").command == ("sh", "-c", "a b")
    assert container_config("host", entrypoint="").entrypoint == ()
    assert container_config("host", entrypoint="my tool").entrypoint == ("my tool",)
    assert exec_config(["ls"]).command == ("ls",)
    for wrong in ("sh -c 'open",):
        with pytest.raises(UsageError):
            container_config("host", wrong)
    with pytest.raises(UsageError):
        exec_config([])
    with pytest.raises(UsageError):
        container_config("-d")


def test_typed_options_name_every_parameter() -> None:
    import inspect

    import pycontainers as pc
    from pycontainers.commands import run
    from pycontainers.commands.declare import find

    of_the_call = {"pull", "platform", "quiet"}
    options = {run.PLURAL.get(option.dest, option.dest) for option in find("create").options} - {"interactive"} - of_the_call
    assert set(RunOptions.__annotations__) == options
    assert set(inspect.signature(pc.create).parameters) == options | {"image", "command", "pull", "platform"}
