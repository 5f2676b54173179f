"""Build checks: what each rule finds, and what it leaves alone; what ``# check=`` asks for; and that a build tells."""

from __future__ import annotations

import pytest

from pycontainers.builder import lint
from pycontainers.builder.instructions import interpret
from pycontainers.builder.parser import parse
from pycontainers.builder.plan import architecture, make_plan
from pycontainers.errors import BuildError
from pycontainers.events import Note

from .dockerfiles import CORPUS


def found(text: str, build_args: dict[str, str] | None = None, experimental: bool = False, **more) -> list[tuple[str, int]]:
    if experimental:
        text = "# check=experimental=all\n" + text
    dockerfile = parse(text)
    instructions = interpret(dockerfile)
    plan = make_plan(instructions, build_args or {})
    return [(warning.rule, warning.line - experimental) for warning in lint.check(instructions, plan, dockerfile, **more)]


@pytest.mark.parametrize(("text", "rule", "line"), [
    ("FROM scratch AS Base", "StageNameCasing", 1),
    ("FROM scratch as base", "FromAsCasing", 1),
    ("from scratch AS base", "FromAsCasing", 1),
    ("FROM scratch\nRUN a \\\n\n  b", "NoEmptyContinuation", 3),
    ("FROM scratch\nRUN a\nrun b", "ConsistentInstructionCasing", 3),
    ("from scratch\nrun a\nRUN b", "ConsistentInstructionCasing", 3),
    ("FROM scratch\nRUN a\nRun b", "ConsistentInstructionCasing", 3),
    ("FROM scratch AS a\nFROM scratch AS a", "DuplicateStageName", 2),
    ("FROM scratch AS context", "ReservedStageName", 1),
    ("FROM a\nFROM scratch AS scratch", "ReservedStageName", 2),
    ("FROM scratch\nCMD a b", "JSONArgsRecommended", 2),
    ("FROM scratch\nENTRYPOINT a", "JSONArgsRecommended", 2),
    ("FROM scratch\nMAINTAINER me", "MaintainerDeprecated", 2),
    ("ARG VERSION=1\nFROM a:${VERSIO}x", "UndefinedArgInFrom", 2),
    ("FROM --platform=$PLATFORM$BUILDPLATFORM a", "UndefinedArgInFrom", 1),
    ("FROM scratch\nWORKDIR app", "WorkdirRelativePath", 2),
    ("FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]", "MultipleInstructionsDisallowed", 2),
    ("FROM scratch\nENTRYPOINT [\"a\"]\nRUN x\nENTRYPOINT [\"b\"]", "MultipleInstructionsDisallowed", 2),
    ("FROM scratch\nHEALTHCHECK NONE\nHEALTHCHECK CMD x", "MultipleInstructionsDisallowed", 2),
    ("FROM scratch\nENV a b", "LegacyKeyValueFormat", 2),
    ("FROM scratch\nLABEL a b", "LegacyKeyValueFormat", 2),
    ("FROM --platform=$TARGETPLATFORM a", "RedundantTargetPlatform", 1),
    ("FROM --platform=${TARGETPLATFORM} a", "RedundantTargetPlatform", 1),
    ("FROM scratch\nARG GITHUB_TOKEN", "SecretsUsedInArgOrEnv", 2),
    ("FROM scratch\nENV api_key=x", "SecretsUsedInArgOrEnv", 2),
    ("FROM scratch\nENV PASSWORD=x", "SecretsUsedInArgOrEnv", 2),
    ("ARG TAG\nFROM a:$TAG", "InvalidDefaultArgInFrom", 2),
    (f"FROM --platform=linux/{architecture()} a AS b", "FromPlatformFlagConstDisallowed", 1),
    ("FROM scratch\nEXPOSE 80/TCP", "ExposeProtoCasing", 2),
    ("FROM scratch\nEXPOSE 8080:80", "ExposeInvalidFormat", 2),
    ("FROM scratch\nEXPOSE 127.0.0.1:80:80", "ExposeInvalidFormat", 2),
])
def test_what_each_rule_finds(text, rule, line):
    assert found(text, {"TAG": "1", "VERSIO": "1"}) == [(rule, line)]


@pytest.mark.parametrize("text", [
    "FROM scratch AS base\nRUN a \\\n  # comment\n  b\nCMD [\"a\"]",
    "from scratch as base\nrun a",
    "ARG a\nfrom scratch\nrun b",
    "FROM scratch\nSHELL [\"/bin/ash\", \"-c\"]\nCMD a",
    "FROM scratch AS a\nSHELL [\"/bin/ash\", \"-c\"]\nWORKDIR /x\nFROM a\nENTRYPOINT a\nWORKDIR y",
    "FROM scratch\nWORKDIR /a\nWORKDIR b\nWORKDIR $c",
    "FROM scratch AS a\nCMD [\"x\"]\nFROM a\nCMD [\"y\"]",
    "ARG VERSION=1\nFROM a:$VERSION\nFROM b:$TARGETARCH",
    "FROM --platform=$BUILDPLATFORM a",
    f"FROM --platform=linux/{architecture()} a AS build-{architecture()}",
    "FROM scratch\nARG PUBLIC_KEY TOKENS KEYBOARD\nENV MONKEY=1 AUTHOR=me",
    "FROM scratch\nEXPOSE 80 81/udp 82-90/tcp $p",
    "FROM scratch AS unused\nCMD a\nCMD b\nFROM scratch",
    "ARG TAG=1\nFROM a:$TAG\nFROM ${NOTHING:-x}",
    "FROM a\nCOPY --from=a x /x",
    "# comment\nFROM scratch AS a\n# comment\nARG b",
])
def test_what_they_leave_alone(text):
    assert [rule for rule, _ in found(text) if rule != "UndefinedArgInFrom" or "NOTHING" not in text] == []


def test_experimental_rules_must_be_asked_for():
    text = "# not it\nFROM scratch AS base\n# base the same\nARG base\n# x of both\nARG x y\n# apart\n\nARG z\nCOPY a b /c/\n"
    text += "FROM base\nCOPY --from=base b /a"
    assert found(text, ignored=lambda path: path == "b") == []
    expected = [("InvalidDefinitionDescription", 2), ("CopyIgnoredFile", 10)]
    assert found(text, experimental=True, ignored=lambda path: path == "b") == expected


@pytest.mark.parametrize(("directive", "rules"), [
    ("skip=JSONArgsRecommended", {"MaintainerDeprecated"}),
    ("skip=JSONArgsRecommended, MaintainerDeprecated", set()),
    ("skip=all", set()),
    ("skip=other", {"JSONArgsRecommended", "MaintainerDeprecated"}),
    ("error=false;skip=MaintainerDeprecated", {"JSONArgsRecommended"}),
])
def test_the_directive(directive, rules):
    assert {rule for rule, _ in found(f"# check={directive}\nFROM scratch\nMAINTAINER me\nCMD a")} == rules


@pytest.mark.parametrize("directive", ["skipp=x", "x", "error=perhaps", "skip=a;nothing=1"])
def test_a_directive_that_is_not_understood(directive):
    with pytest.raises(BuildError, match="not understood") as caught:
        found(f"# syntax=x\n# check={directive}\nFROM scratch")
    assert caught.value.line == 2 and caught.value.hint


def test_a_build_argument_replaces_the_directive():
    text = "# check=skip=all\nFROM scratch\nCMD a"
    assert found(text, build_args={}) == []
    dockerfile = parse(text)
    instructions = interpret(dockerfile)
    args = {"BUILDKIT_DOCKERFILE_CHECK": "skip=none"}
    assert [w.rule for w in lint.check(instructions, make_plan(instructions, args), dockerfile, build_args=args)] == ["JSONArgsRecommended"]


def test_near_names_and_addresses():
    dockerfile = parse("ARG VERSION=1\nFROM a:${VERSIO}x")
    instructions = interpret(dockerfile)
    (warning,) = lint.check(instructions, make_plan(instructions, {}), dockerfile)
    assert "did you mean VERSION," in warning.message
    assert warning.url == "https://docs.docker.com/go/dockerfile/rule/undefined-arg-in-from/"
    assert lint._warning("JSONArgsRecommended", 1, "").url.endswith("/json-args-recommended/")
    assert str(warning).endswith("(line 2)")


@pytest.mark.parametrize("text", CORPUS.values())
def test_any_dockerfile_is_checked_or_refused(text):
    try:
        found(text, experimental=True, ignored=lambda path: True)
    except BuildError as error:
        assert error.hint


# -- in a build


def notes(builder) -> list[str]:
    return [event.text for event in builder.events if isinstance(event, Note)]


def test_a_build_says_what_is_not_defined(builder):
    builder.file("a")
    builder("FROM scratch\nENV HERE=/x\nRUN true", tags=("base",))
    text = "FROM base\nARG GIVEN\nENV a=$HERE b=$HER c=$GIVEN d=$PATH e=${NO:-x}\nWORKDIR $HERE/$HERE\nCOPY a $DEST/b\n"
    text += "COPY <<x /y\n$INSIDE\nx\n"
    builder(text + "FROM scratch\nENV z=$UNUSED\n", target="0")
    assert notes(builder) == [
        "UndefinedVar: the variable $HER is not defined (did you mean $HERE?) (line 3)",
        "UndefinedVar: the variable $NO is not defined (line 3)",
        "UndefinedVar: the variable $DEST is not defined (line 5)", "UndefinedVar: the variable $INSIDE is not defined (line 6)",
    ]
    builder("# check=skip=UndefinedVar\n" + text)
    assert notes(builder) == []


def test_another_language_is_not_taken_for_docker_s_in_silence(builder):
    for syntax in ("docker/dockerfile:1", "docker.io/docker/dockerfile:1.7-labs", "docker/dockerfile-upstream@sha256:0"):
        builder(f"# syntax={syntax}\nFROM scratch")
        assert notes(builder) == []
    builder("# syntax=somebody/frontend:1\nFROM scratch")
    assert len(notes(builder)) == 1 and "somebody/frontend:1" in notes(builder)[0]


def test_a_build_that_wants_no_warnings_fails(builder):
    with pytest.raises(BuildError, match="checks failed: JSONArgsRecommended, MaintainerDeprecated"):
        builder("# check=error=true\nFROM scratch\nRUN touch made\nCMD a\nMAINTAINER me")
    assert builder.runner.calls == []
    with pytest.raises(BuildError, match="checks failed: UndefinedVar"):
        builder("# check=error=true\nFROM scratch\nENV a=$b")
    builder("# check=error=true;skip=UndefinedVar\nFROM scratch\nENV a=$b")
