from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_engine import FakeEngine
from IPython.core.error import UsageError as MagicNotFound

from pycontainers.commands.declare import find, parse
from pycontainers.errors import ContainerFailed, NotFound, UsageError
from pycontainers.notebook import expansion
from pycontainers.notebook.surroundings import is_live, port_link
from pycontainers.objects import Container
from pycontainers.protocol import ExitStatus, Port
from pycontainers.results import RunResult


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("{name}", ["web"]),
        ("a-{name}-{number}", ["a-web-7"]),
        ("{words}", ["a b", "c"]),
        ("{thing.inner}", ["x"]),
        ("{words[1]}", ["c"]),
        ("{{.Names}}", ["{{.Names}}"]),
        ('\'{"json": {"a": 1}}\'', ['{"json": {"a": 1}}']),
        ("$HOME ${HOME} ${name}", ["$HOME", "${HOME}", "${name}"]),
        ("'{name} {number}'", ["web 7"]),
        ("{}", ["{}"]),
    ],
)
def test_words_are_expanded_one_by_one(word: str, expected: list[str]) -> None:
    namespace = {"name": "web", "number": 7, "words": ["a b", "c"], "thing": SimpleNamespace(inner="x")}
    assert expansion.split(word, namespace) == expected


def test_a_value_is_not_expanded_again_nor_split() -> None:
    assert expansion.split("{text}", {"text": "a b {name} $HOME"}) == ["a b {name} $HOME"]


@pytest.mark.parametrize("line", ["{nmae}", "awk {print}", "{thing.missing}", "{words[9]}", "'open"])
def test_what_cannot_be_expanded_is_an_error(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        expansion.split(line, {"name": 1, "thing": 1, "words": []})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("line", "parts", "silent"),
    [
        ("stop a ; %container rm a", ["stop a", "rm a"], False),
        ("ps;", ["ps"], True),
        ("stop a;%container rm a ;", ["stop a", "rm a"], True),
        ("exec a sh -c 'x ; %container rm a'", ["exec a sh -c 'x ; %container rm a'"], False),
        ("exec a find . -exec ls {} \\;", ["exec a find . -exec ls {} \\;"], False),
        ("exec a sh -c x; y", ["exec a sh -c x; y"], False),
        ("stop a ; %containers rm", ["stop a ; %containers rm"], False),
        ("", [""], False),
    ],
)
def test_several_commands_in_a_line(line: str, parts: list[str], silent: bool) -> None:
    assert expansion.commands(line) == (parts, silent)


def test_dollars_of_this_machine_only_in_host_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    verb = find("run")
    line = "run -v $PWD/data:/x/$HOME --mount type=bind,source=${DATA},target=/$DATA -e A=$DATA --env-file $DATA/env host echo $DATA"
    args = parse(verb, line.split()[1:])
    expansion.expand_host_paths(verb, args, {"PWD": "/stale", "DATA": "/d", "HOME": "/h"})
    assert args.volume == [f"{tmp_path}/data:/x/$HOME"] and args.mount == ["type=bind,source=/d,target=/$DATA"]
    assert args.env == ["A=$DATA"] and args.env_file == ["/d/env"] and args.command == ("echo", "$DATA")
    with pytest.raises(UsageError, match="NOWHERE"):
        expansion.expand_host_paths(verb, parse(verb, ["-v", "$NOWHERE/x:/x", "host"]), {})


def test_line_magic_returns_objects(shell: Any, engine: FakeEngine) -> None:
    shell.user_ns["name"] = "web"
    found = shell.run_line_magic("container", "run -d --name {name} -v $PWD/data:/data host")
    assert isinstance(found, Container) and found.name == "web"
    assert engine.calls[0][1].mounts[0].source == os.path.join(os.getcwd(), "data")
    assert shell.run_line_magic("container", "ps;") is None
    assert "Usage: %container VERB" in shell.run_line_magic("container", "")
    assert "Usage: %container ps" in shell.run_line_magic("container", "ps --help")


def test_two_commands_in_one_cell_line(shell: Any, engine: FakeEngine) -> None:
    shell.run_cell("%container run -d --name visits host\n%container stop visits ; %container rm visits", store_history=False)
    assert not engine.boxes


def test_cell_magic_body_is_stdin_and_never_expanded(shell: Any, engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_cell_magic("container", "run --rm -o result host cat", "print({x}) $HOME\n")
    assert engine.calls[-1][2] == b"print({x}) $HOME\n"
    assert isinstance(shell.user_ns["result"], RunResult) and capsys.readouterr().out == "print({x}) $HOME\n"
    shell.run_cell_magic("container", "-o other run --rm \\", "  host cat\nbody\n")
    assert shell.user_ns["other"].output == "body\n"
    shell.run_cell_magic("container", "build -t x", "FROM host\nRUN echo {y} $HOME\n")
    assert engine.calls[-1][1].dockerfile == "FROM host\nRUN echo {y} $HOME\n"


@pytest.mark.parametrize(("line", "cell"), [("ps", "body"), ("ps ; %container ps", "body"), ("run -o 1x host", "b"), ("-o", "b")])
def test_bodies_where_none_belongs(shell: Any, line: str, cell: str) -> None:
    with pytest.raises(UsageError):
        shell.run_cell_magic("container", line, cell)


def test_errors_are_one_line_and_a_hint(shell: Any, engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.run_cell("%container sotp web")
    shown = "".join(capsys.readouterr())
    assert isinstance(result.error_in_exec, UsageError)
    assert "error: unknown verb 'sotp'" in shown and "hint:  did you mean stop" in shown and "Traceback" not in shown
    engine.next_exit = ExitStatus(9)
    assert isinstance(shell.run_cell("%container run host").error_in_exec, ContainerFailed)
    capsys.readouterr()
    shell.run_line_magic("config", "ContainerMagics.full_tracebacks = True")
    shell.run_cell("%container sotp web")
    assert "Traceback" in "".join(capsys.readouterr())


def test_output_of_a_container_is_filtered(shell: Any, engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.output = [("stdout", b"\x1b[32mgreen\x1b[0m \x1b]52;c;"), ("stdout", b"ZXZpbA==\x07ok \xe6\xbc"), ("stdout", b"\xa2")]
    shell.run_line_magic("container", "run --rm host x")
    assert capsys.readouterr().out == "\x1b[32mgreen\x1b[0m ok 漢"


def test_completion(shell: Any, engine: FakeEngine) -> None:
    from IPython.core import completer

    shell.run_line_magic("container", "run -d --name visits host")

    def complete(text: str) -> list[str]:
        return shell.Completer.complete(None, text, len(text))[1]

    assert "stats" in complete("%container st")
    assert "visits" in complete("%container stop vi")
    assert "--memory" in complete("%container run --mem")
    assert "visits" in complete("x = %container stats ")
    assert "build" in complete("%%container bu")

    def in_cell(line: str) -> list[str]:
        text = f"%%container {line}\nARG VERSION=1\nFROM host AS base\n  from base as Page\n"
        with completer.provisionalcompleter():
            return [found.text for found in shell.Completer.completions(text, len(line) + 12)]

    assert in_cell("build --target ") == ["Page", "base"] and in_cell("build --target=ba") == ["--target=base"]
    assert in_cell("build --build-arg ") == ["VERSION"] and "base" not in in_cell("build --context ")
    assert "--memory" not in complete("print('--mem")


def test_files_and_variables_of_a_notebook_reach_a_build(
    shell: Any, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACE", str(tmp_path))
    shell.user_ns.update(version=3, password="secret")
    shell.run_cell_magic("container", "file app src/{version}.py", "print({x})\n")
    line = "build --context app --build-arg version --build-arg TEXT=v{version} --secret id=key,env=password --output type=docker"
    shell.run_cell_magic("container", f"{line} --build-context lib=$PLACE -o $PLACE/out --cache-to type=local,dest=$PLACE/c", "FROM $A\n")
    request = engine.calls[-2][1]
    assert request.files == {"src/3.py": b"print({x})\n"} and request.build_args == {"version": "3", "TEXT": "v3"}
    assert request.secrets == {"key": b"secret"} and request.contexts == {"lib": str(tmp_path)} and request.dockerfile == "FROM $A\n"
    assert request.cache_to == (f"type=local,dest={tmp_path}/c",) and engine.calls[-1] == (
        "export_folder",
        "sha256:" + "2" * 64,
        f"{tmp_path}/out",
    )
    assert shell.Completer.complete(None, "%container build --files ", 25)[1] == ["app"]
    shell.run_line_magic("reload_ext", "pycontainers")
    assert "src/3.py" in repr(shell.run_line_magic("container", "file"))


def test_unloading_takes_everything_away(shell: Any) -> None:
    matchers, formatters = len(shell.Completer.custom_matchers), len(shell.display_formatter.formatters["text/html"].type_printers)
    configurables = len(shell.configurables)
    for _ in range(3):
        shell.run_line_magic("reload_ext", "pycontainers")
    assert len(shell.Completer.custom_matchers) == matchers and len(shell.configurables) == configurables
    assert len(shell.display_formatter.formatters["text/html"].type_printers) == formatters
    shell.run_line_magic("unload_ext", "pycontainers")
    assert not shell.Completer.custom_matchers and len(shell.configurables) == configurables - 1
    assert not any("pycontainers" in str(kind) for kind in shell.display_formatter.formatters["text/html"].type_printers)
    with pytest.raises(MagicNotFound):
        shell.run_line_magic("container", "ps")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pycontainers")]
    shell.run_line_magic("load_ext", "pycontainers")


@pytest.mark.parametrize(
    ("environ", "namespace", "kernel", "live"),
    [
        ({}, {}, True, False),
        ({"JPY_SESSION_NAME": "a.ipynb"}, {}, True, True),
        ({"JPY_SESSION_NAME": "a.ipynb", "PYCONTAINERS_STATIC": "1"}, {}, True, False),
        ({"JPY_SESSION_NAME": "a.ipynb"}, {}, False, False),
        ({"PYCONTAINERS_STATIC": "0"}, {}, True, True),
        ({}, {"__vsc_ipynb_file__": "/a.ipynb"}, True, True),
    ],
)
def test_who_watches(environ: dict[str, str], namespace: dict[str, Any], kernel: bool, live: bool) -> None:
    assert is_live(environ, namespace, kernel) is live


def test_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    from pycontainers.notebook import surroundings

    port = Port(80, 8080)
    assert port_link(port, {}).url == "http://127.0.0.1:8080/"
    assert port_link(Port(80, 8080, "0.0.0.0"), {}).url == "http://127.0.0.1:8080/"
    assert port_link(Port(53, 53, protocol="udp"), {}).url == ""
    hub = {"JUPYTERHUB_SERVICE_PREFIX": "/user/me/"}
    assert port_link(port, hub).url == "/user/me/proxy/8080/"
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "jpserver-77.json").write_text(json.dumps({"base_url": "/lab7/", "hostname": "localhost"}))
    assert port_link(port, {"JPY_PARENT_PID": "77"}).url == "/lab7/proxy/8080/"
    (tmp_path / "jpserver-77.json").write_text(json.dumps({"base_url": "/", "hostname": "localhost"}))
    assert port_link(port, {"JPY_PARENT_PID": "77"}).url == "http://127.0.0.1:8080/"
    monkeypatch.setattr(surroundings, "find_spec", lambda name: None)
    assert port_link(port, hub).url == "" and "jupyter-server-proxy" in port_link(port, hub).hint


def test_what_was_done_is_shown_before_the_error(shell: Any, engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        shell.run_line_magic("container", f"run -d --name {name} host")
    capfd.readouterr()
    with pytest.raises(NotFound, match="nosuch"):
        shell.run_line_magic("container", "stop a nosuch b")
    assert capfd.readouterr().out == "a\nb\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%container -o x ps --al", ["--all"]),
        ("%container ps --ou", ["--out"]),
        ("%container -o w", ["where"]),
        ("%container inspect {whe", ["{where}"]),
        ("%container run -v {whe", ["{where}"]),
        ("%container run -v x={whe", ["x={where}"]),
        ("%container version ", ["--help", "--out"]),
        ("%container cp we", ["web:"]),
        ("%%container build -t x\nFROM ho", ["host"]),
        ("%%container build -t x\nFROM host AS first\nFROM fi", ["first"]),
        ("%%container build -t x\nFROM host AS first\nFROM host\nCOPY --from=f", ["first"]),
        ("%%container build -t x\nFROM host AS first\nRUN --mount=type=bind,from=fi", ["first"]),
    ],
)
def test_completion_of_what_only_a_notebook_has(shell: Any, engine: FakeEngine, line: str, expected: list[str]) -> None:
    shell.user_ns["where"] = "/data"
    shell.run_line_magic("container", "run -d --name web host")
    _, matches = shell.complete("", line, len(line)) if "\n" not in line else ("", at_end(shell, line))
    assert matches == expected


def at_end(shell: Any, text: str) -> list[str]:
    """Completions at the end of a cell of several lines, as the kernel asks for them."""
    return [found.text for found in shell.Completer.completions(text, len(text))]
