from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pycontainers.commands import declare, reference
from pycontainers.commands.complete import candidates, files
from pycontainers.errors import UsageError

ROOT = Path(__file__).parents[2]
RUN = declare.find("run")


def parse(line: str) -> Any:
    words = line.split()
    return declare.parse(declare.find(words[0]), words[1:])


def test_options_after_the_image_belong_to_the_container() -> None:
    args = parse("run -d --memory=64m host sh -c --rm -x -- -d")
    assert args.detach and args.memory == "64m" and args.image == "host" and not args.rm
    assert args.command == ("sh", "-c", "--rm", "-x", "--", "-d")


def test_short_options_join_and_carry_values() -> None:
    args = parse("run -dip8080:80 -m=64m -p 9:9 host")
    assert args.detach and args.interactive and args.publish == ["8080:80", "9:9"] and args.memory == "64m"


def test_a_value_may_begin_with_a_dash() -> None:
    assert parse("run -e -x --memory-swap -1 host").env == ["-x"]


def test_switches_can_be_turned_off() -> None:
    assert parse("run --rm=false host").rm is False
    with pytest.raises(UsageError, match="switch"):
        parse("run --rm=maybe host")


def test_options_may_follow_arguments_where_no_command_follows() -> None:
    args = parse("logs web -n 5 --follow")
    assert args.container == "web" and args.tail == 5 and args.follow


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("run --memroy 64m host", "--memroy", "--memory"),
        ("run -Z host", "-Z", "help run"),
        ("run --name", "needs a value", "usage"),
        ("run", "needs IMAGE", "usage"),
        ("rm", "needs CONTAINER", "usage"),
        ("ps web", "no argument 'web'", "usage"),
        ("stop -t soon web", "'soon' is not a SECONDS", "usage"),
        ("tag a", "needs NAME", "usage"),
    ],
)
def test_wrong_lines_say_what_and_how(line: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line)
    assert message in caught.value.message and hint in caught.value.hint


def test_unknown_verb_offers_near_names() -> None:
    with pytest.raises(UsageError) as caught:
        declare.find("stast")
    assert "stats" in caught.value.hint


@pytest.mark.parametrize("line", ["run --help", "run -h", "ps -h", "run -d -h"])
def test_help(line: str) -> None:
    assert parse(line).help


def test_hostname_keeps_its_short_form() -> None:
    args = parse("run -h box host")
    assert args.hostname == "box" and not args.help


def test_every_verb_has_a_help_page() -> None:
    for verb in declare.verbs().values():
        page = verb.help()
        assert page.startswith(f"Usage: %container {verb.name}") and verb.summary in page
        for option in verb.options:
            assert all(flag in page for flag in option.flags)
        assert verb.body == "none" or verb.body_help


def test_no_verb_declares_a_flag_twice() -> None:
    for verb in declare.verbs().values():
        flags = [flag for option in verb.options for flag in option.flags]
        assert len(flags) == len(set(flags)), verb.name


def test_two_verbs_of_one_name_are_refused() -> None:
    with pytest.raises(RuntimeError):
        declare.declare(RUN)


def test_reference_page_is_not_stale() -> None:
    written = (ROOT / "docs/reference.md").read_text("utf-8")
    assert written == reference.page(), "python -m pycontainers.commands.reference > docs/reference.md"


def test_reference_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "pycontainers.commands.reference"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == reference.page()


def names(kind: str) -> list[str]:
    return {"container": ["web", "old"], "running": ["web"], "image": ["visits:latest"]}[kind]


@pytest.mark.parametrize(
    ("words", "last", "expected"),
    [
        ([], "st", ["start", "stats", "stop"]),
        (["stop"], "", ["web"]),
        (["rm", "web"], "o", ["old"]),
        (["run"], "--mem", ["--memory", "--memory-reservation", "--memory-swap", "--memory-swappiness"]),
        (["run", "-d"], "", ["host", "visits:latest"]),
        (["run", "--network"], "", ["bridge", "host", "none"]),
        (["run"], "--network=n", ["--network=none"]),
        (["run", "host"], "--", []),
        (["run", "--name"], "w", []),
        (["exec", "web"], "s", []),
        (["help"], "do", ["doctor"]),
        (["nonsense"], "", []),
        (["run", "--nonsense"], "", []),
    ],
)
def test_completion_follows_the_declaration(words: list[str], last: str, expected: list[str]) -> None:
    assert candidates(words, last, names) == expected


def test_files_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app").mkdir()
    (tmp_path / "app.py").touch()
    assert files("a") == ["app/", "app.py"]
    assert files("./a", folders=True) == ["./app/"]
    assert files("missing/x") == []
