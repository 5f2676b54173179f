"""Every instruction and flag: what it becomes, and what is wrong with it, at its place."""

from __future__ import annotations

import json
import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycontainers.builder import flags, parse, patterns, ports
from pycontainers.builder.expansion import ExpansionError, examine, expand
from pycontainers.builder.history import quoted
from pycontainers.builder.instructions import Copy, From, HealthCheck, OnBuild, Run, RunMount, interpret
from pycontainers.builder.lint import check
from pycontainers.builder.parser import parse as parse_text
from pycontainers.builder.plan import architecture, make_plan, platform_arguments, triggers
from pycontainers.builder.run_flags import mounts
from pycontainers.errors import BuildError, NotFound


def one(line: str):
    return parse(f"FROM scratch\n{line}").instructions[-1]


def failure(line: str) -> BuildError:
    with pytest.raises(BuildError) as caught:
        one(line)
    assert caught.value.hint and caught.value.source == line.split("\n")[caught.value.line - 2]
    return caught.value


def test_the_tree_of_the_docstring():
    tree = parse(b"ARG a\nFROM debian AS base\nRUN --mount=type=cache,target=/var/cache/apt apt-get update\nFROM base\n")
    assert [item.raw.keyword for item in tree.head] == ["ARG"] and len(tree.stages) == 2 and tree.stages[1].instructions == ()
    stage = tree.stages[0]
    run = stage.instructions[0]
    assert isinstance(stage.start, From) and (stage.start.base, stage.start.name) == ("debian", "base")
    assert isinstance(run, Run) and run.command.words == ("apt-get update",) and run.mounts[0].target == "/var/cache/apt"
    assert (run.raw.line, run.raw.column, run.raw.place(0)) == (3, 1, (3, 46))


def test_what_is_no_utf_8():
    for text in (b"FROM a\nRUN \xff", "FROM a\nRUN \udcff"):
        with pytest.raises(BuildError, match="not UTF-8") as caught:
            parse(text)
        assert (caught.value.line, caught.value.column) == (2, 5)


# -- HEALTHCHECK

@pytest.mark.parametrize(("line", "expected"), [
    ("NONE", {"Test": ["NONE"]}),
    ("none", {"Test": ["NONE"]}),
    ("CMD curl -f http://x || exit 1", {"Test": ["CMD-SHELL", "curl -f http://x || exit 1"]}),
    ('cmd ["a", "b"]', {"Test": ["CMD", "a", "b"]}),
    ("--interval=1m30s --timeout=1.5s --start-period=0 --start-interval=1ms --retries=3 CMD x",
     {"Test": ["CMD-SHELL", "x"], "Interval": 90 * 10**9, "Timeout": 15 * 10**8, "StartInterval": 10**6, "Retries": 3}),
    ("--interval= --retries=0 CMD x", {"Test": ["CMD-SHELL", "x"]}),
])
def test_health_check(line, expected):
    item = one(f"HEALTHCHECK {line}")
    assert isinstance(item, HealthCheck) and item.settings == expected


@pytest.mark.parametrize(("line", "column", "message"), [
    ("HEALTHCHECK", 1, "no arguments"), ("HEALTHCHECK CMD", 13, "no command"), ("HEALTHCHECK CMD []", 13, "no command"),
    ("HEALTHCHECK curl x", 13, "curl is not known"), ("HEALTHCHECK NONE x", 18, "nothing else"),
    ("HEALTHCHECK --interval=3 CMD x", 13, "not a duration"), ("HEALTHCHECK --timeout=1us CMD x", 13, "too short"),
    ("HEALTHCHECK --timeout=-1s CMD x", 13, "too short"), ("HEALTHCHECK --retries=x CMD x", 13, "not a number"),
    ("HEALTHCHECK --retries=-1 CMD x", 13, "not a number"), ("HEALTHCHECK --interval CMD x", 13, "has no value"),
    ("HEALTHCHECK --intervall=1s CMD x", 13, "unknown flag"), ("HEALTHCHECK CMD [1]", 17, "something else than strings"),
])
def test_health_check_errors(line, column, message):
    error = failure(line)
    assert message in error.message and error.column == column


@pytest.mark.parametrize(("text", "nanoseconds", "written"), [
    ("0", 0, "0s"), ("1s", 10**9, "1s"), ("1h15m30.918s", 4530918 * 10**6, "1h15m30.918s"), ("1.5h", 5400 * 10**9, "1h30m0s"),
    ("100ms", 10**8, "100ms"), ("1.000001ms", 1000001, "1.000001ms"), ("1µs", 1000, "1µs"), ("999ns", 999, "999ns"),
    (".5s", 5 * 10**8, "500ms"),
    ("+2m", 120 * 10**9, "2m0s"), ("2562047h47m16.854775807s", (1 << 63) - 1, "2562047h47m16.854775807s"),
])
def test_durations_are_go_s(text, nanoseconds, written):
    assert flags.duration(text) == nanoseconds and flags.written_duration(nanoseconds) == written


@pytest.mark.parametrize("text", ["", "1", "s", "1 s", "1d", "--1s", "1.s.", "9223372037s1000000000h", "1_0s", "１s", "." "s"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError):
        flags.duration(text)


# -- ONBUILD

@pytest.mark.parametrize(("line", "trigger"), [
    ("ONBUILD RUN a", "RUN a"), ("onbuild   copy --chown=1 a  b", "copy --chown=1 a  b"), ("ONBUILD RUN a \\\n  && b", "RUN a   && b"),
    ("ONBUILD COPY <<-A <<B /x/\n\ta\n\tA\nb\nB", "COPY <<-A <<B /x/\n\ta\nA\nb\nB"), ('ONBUILD CMD ["a"]', 'CMD ["a"]'),
])
def test_onbuild(line, trigger):
    item = one(line)
    assert isinstance(item, OnBuild) and item.trigger == trigger


@pytest.mark.parametrize(("line", "column", "message"), [
    ("ONBUILD", 1, "no arguments"), ("ONBUILD ONBUILD RUN x", 9, "not allowed"), ("ONBUILD FROM x", 9, "FROM is not allowed"),
    ("ONBUILD MAINTAINER x", 9, "not allowed"), ("ONBUILD RUUN x", 9, "unknown instruction"), ("ONBUILD COPY --fron=x a b", 14, "--fron"),
    ("ONBUILD COPY a", 14, "at least one source"), ("ONBUILD RUN --mount=type=x y", 13, "type=x"),
])
def test_onbuild_errors(line, column, message):
    error = failure(line)
    assert message in error.message and error.column == column


def test_triggers_stand_where_the_from_stands():
    (start,) = parse_text("# c\n  FROM base").instructions
    copy, run = triggers(["COPY --from=x a b", "RUN <<E\na\nE"], start)
    assert isinstance(copy, Copy) and copy.source_stage == "x" and copy.raw.flags[0].line == 2
    assert isinstance(run, Run) and run.command.words == ("a\n",) and run.raw.original == "ONBUILD RUN <<E\na\nE"
    assert (run.raw.error("x", offset=5).line, run.raw.error("x", offset=5).column, run.raw.error("x").source) == (2, 3, "  FROM base")
    for text in ("RUNN x", "FROM x", "RUN a\nRUN b", "ONBUILD RUN x", "", "COPY a"):
        with pytest.raises(BuildError, match="the base has ONBUILD") as caught:
            triggers([text], start)
        assert caught.value.line == 2


# -- RUN

@pytest.mark.parametrize(("text", "expected"), [
    ("target=/a", {"type": "bind", "target": "/a", "read_only": True}),
    ("type=bind,from=x,source=/s,dst=/a,rw", {"type": "bind", "target": "/a", "source": "/s", "origin": "x"}),
    ("type=bind,src=s,destination=/a,readwrite=false", {"type": "bind", "target": "/a", "source": "s", "read_only": True}),
    ("type=bind,target=/a,ro=0", {"type": "bind", "target": "/a"}),
    ("TYPE=Cache,Target=/a", {"type": "cache", "target": "/a"}),
    ("type=cache,target=/a,id=b,sharing=Locked,mode=0700,uid=1,gid=2,from=c,source=/d,readonly",
     {"type": "cache", "target": "/a", "id": "b", "sharing": "locked", "mode": 0o700, "uid": 1, "gid": 2, "origin": "c", "source": "/d",
      "read_only": True}),
    ("type=tmpfs,target=/a,size=1.5m", {"type": "tmpfs", "target": "/a", "size": 1572864}),
    ("type=secret,id=a,target=/b,required,mode=0400", {"type": "secret", "id": "a", "target": "/b", "required": True, "mode": 0o400,
                                                       "read_only": True}),
    ("type=secret,id=a,env=TOKEN,required=false", {"type": "secret", "id": "a", "env": "TOKEN", "read_only": True}),
    ("type=secret,id=../../s", {"type": "secret", "id": "../../s", "target": "/run/secrets/s", "read_only": True}),
    ("type=secret,id=a/b,target=/c,mode=07777,gid=4294967294", {"type": "secret", "id": "a/b", "target": "/c", "mode": 0o7777,
                                                                "gid": 4294967294, "read_only": True}),
    ("type=secret,id=..,env=T", {"type": "secret", "id": "..", "env": "T", "read_only": True}),
    ("type=secret,source=a", {"type": "secret", "id": "a", "source": "a", "read_only": True}),
    ("type=ssh,required=true", {"type": "ssh", "required": True, "read_only": True}),
    ('type=bind,"target=/a,b"', {"type": "bind", "target": "/a,b", "read_only": True}),
    ("type=bind", {"type": "bind", "read_only": True}),
])
def test_mounts(text, expected):
    run = one(f"RUN --mount='{text}' x")
    (mount,) = run.mounts
    assert mount == RunMount(flag=run.raw.flags[0], **expected)


@pytest.mark.parametrize(("text", "message", "hint"), [
    ("type=cach,target=/a", "type=cach", "did you mean cache"), ("type=bind,targett=/a", "unknown key 'targett'", "target"),
    ("type=bind,target", "target has no value", "target=VALUE"), ("type=cache,target=/a,sharing=lock", "sharing=lock", "locked"),
    ("type=bind,target=/a,sharing=locked", "sharing is not for type=bind", "cache"),
    ("type=tmpfs,target=/a,mode=1", "mode is not for", "cache"),
    ("type=bind,target=/a,uid=1", "uid is not for", "cache"), ("type=cache,target=/a,mode=9", "mode=9", "0755"),
    ("type=cache,target=/a,uid=x", "uid=x", "1000"), ("type=cache,target=/a,gid=4294967296", "gid=4294967296", "1000"),
    ("type=secret,id=a,mode=37777777777", "mode=37777777777 is too great", "07777"),
    ("type=cache,target=/a,mode=10000", "mode=10000", "07777"),
    ("type=cache,target=/a,uid=4294967295", "uid=4294967295", "4294967294"),
    ("type=secret,id=../..", "'../..' has no place", "target=/run"), ("type=secret,id=/", "'/' has no place", "target=/run"),
    ("type=cache,target=/a,size=1m", "size is not for type=cache", "tmpfs"),
    ("size=1m,type=tmpfs,target=/a", "size is not for type=bind", "before"),
    ("type=tmpfs,target=/a,size=x", "size=x", "64m"), ("type=cache,target=/a,required", "required is not for", "secret"),
    ("type=bind,target=/a,ro=maybe", "neither true nor false", "readonly"), ("type=secret", "neither id nor target", "id=token"),
    ("type=secret,id=a,source=b", "both source and id", "id"), ("type=secret,id=a,from=b", "has no from", "--secret"),
    ("type=bind,target=/a,env=X", "env is not for", "secret"), ("type=bind,from=$x,target=/a", "variables are not allowed", "FROM"),
    ("", "not a list", "type=cache"), ('type=bind,a"b=c', "not a list", "type=cache"), ('"type=bind', "not a list", "type=cache"),
])
def test_mount_errors(text, message, hint):
    error = failure(f"RUN --mount='{text}' x")
    assert message in error.message and hint in error.hint and error.column == 5


def test_mounts_wait_for_their_variables():
    run = one("RUN --mount=type=$t,target=/$p,uid=$u,mode=${m:-0700} --mount=type=bind,target=/b,ro=$r x")
    assert run.mounts[0].target == "/$p" and run.mounts[0].uid is None
    values = {"t": "cache", "p": "a,b", "u": "7", "r": "false"}
    first, second = mounts(run.raw, lambda text: expand(text, values))
    assert (first.type, first.target, first.uid, first.mode, second.read_only) == ("cache", "/a,b", 7, 0o700, False)
    wrongs = ({"t": "tmpfs"}, "mode is not for|uid is not for"), ({"u": "x"}, "uid=x"), ({"t": "cac"}, "type=cac"), ({"r": ""}, "readonly")
    for wrong, message in wrongs:
        with pytest.raises(BuildError, match=message):
            mounts(run.raw, lambda text, wrong=wrong: expand(text, {**values, **wrong}))


@pytest.mark.parametrize(("line", "message", "hint"), [
    ("RUN --network=bridge x", "--network=bridge", "default, none or host"),
    ("RUN --network=hots x", "--network=hots", "did you mean host"),
    ("RUN --security=insecure x", "refused", "rights"), ("RUN --security=x y", "--security=x", "sandbox"),
    ("RUN --device=nvidia x", "--device=nvidia is refused", "device"), ("RUN --mont=x y", "unknown flag --mont", "did you mean mount"),
    ("RUN --mount x", "has no value", "'='"), ("RUN --network x", "has no value", "VALUE"), ("RUN []", "empty command", "echo"),
])
def test_run_errors(line, message, hint):
    error = failure(line)
    assert message in error.message and hint in error.hint and error.column == 5


def test_run():
    assert one("RUN --network=NONE --security=sandbox x").network == "none"
    assert one("RUN").command.words == ("",)  # the shell does nothing, as with Docker
    assert one("RUN --mount=type=tmpfs,target=/a -- --x").command.words == ("--x",)
    script = one("RUN 3<<E cat <<'F'\na\nE\nb\nF")
    assert script.command.words == ("3<<E cat <<'F'\na\nE\nb\nF",) and [heredoc.descriptor for heredoc in script.raw.heredocs] == [3, 0]
    assert one("RUN <<-E\n\ta\n\t\tb\n\tE").command.words == ("a\nb\n",)
    assert one("RUN << E\na\nE").command.words == ("a\n",)
    assert one("RUN <<E\n#!/bin/x\na\nE").script.content == "#!/bin/x\na\n"


# -- COPY and ADD

def test_copy_flags():
    line = "COPY --from=x --chown=1:2 --chmod=u+x --link --parents=TRUE --exclude=*.a --exclude=b a /b/"
    item = one(line)
    assert (item.source_stage, item.chown, item.chmod) == ("x", "1:2", "u+x")
    assert (item.link, item.parents, item.exclude) == (True, True, ("*.a", "b"))
    assert not one("COPY --link=false --parents=false --chown= a b").link
    add = one("ADD --checksum=sha256:0 --keep-git-dir --unpack=false --exclude=x --link a b")
    assert (add.checksum, add.keep_git_dir, add.unpack, add.exclude, add.link, add.add) == ("sha256:0", True, False, ("x",), True, True)
    assert one("ADD --unpack a b").unpack is True and one("ADD a b").unpack is None


@pytest.mark.parametrize(("line", "message", "hint"), [
    ("COPY --link= a b", "has no value", "--link=false"), ("COPY --link=yes a b", "neither true nor false", "--link"),
    ("COPY --from a b", "has no value", "="), ("COPY --checksum=x a b", "unknown flag", "COPY takes"),
    ("ADD --from=x a b", "unknown flag", "ADD takes"),
    ("ADD --parents a b", "unknown flag", "ADD takes"), ("COPY --from=$x a b", "variables are not allowed", "FROM"),
    ("COPY --exclud=a c d", "unknown flag", "did you mean exclude"),
])
def test_copy_errors(line, message, hint):
    error = failure(line)
    assert message in error.message and hint in error.hint and error.column in (5, 6)


def test_flags_that_are_given_twice():
    for line, column in (("RUN --network=none --network=host x", 20), ("COPY --chown=a --chown=b c d", 16)):
        error = failure(line)
        assert "given twice" in error.message and error.column == column


def test_copied_here_documents():
    item = one("COPY a <<x <<'y' b /c/\n1\nx\n2\ny\n")
    assert item.sources == ("a", "b") and [(h.name, h.content, h.expand) for h in item.inline] == [("x", "1\n", True), ("y", "2\n", False)]
    assert [h.content for h in one("COPY <<x <<x /c/\n1\nx\n2\nx").inline] == ["2\n", "2\n"]  # BuildKit's way with one name for two
    assert [(h.name, h.content) for h in one('COPY ["<<x", "/c"]').inline] == [("x", "")]
    assert "destination" in failure("COPY a <<x\n1\nx").message


@pytest.mark.parametrize("name", ["../../evil", ".", "..", "a/b", "/", "x" * 256])
def test_here_documents_that_are_files_have_names_of_files(name):
    for line, column in ((f"COPY a <<{name} /d/", 8), (f"ADD <<'{name}' /d/", 5)):
        error = failure(f"{line}\nx\n{name}")
        assert "is not the name of a file" in error.message and error.column == column and error.hint.endswith("<<app.conf /etc/app.conf")
    assert "is not the name" in failure(f"RUN <<{name}\n#!/bin/x\na\n{name}").message
    assert one(f"RUN <<{name}\na\n{name}").command.words == ("a\n",)  # the shell's own: no file


# -- the others

@pytest.mark.parametrize(("line", "message"), [
    ("ENV a", "has no value"), ("ENV", "no arguments"), ("ENV a=1 b", "expects NAME=value"), ("LABEL =1", "expects NAME=value"),
    ("ARG", "no arguments"), ("SHELL []", "JSON list"), ("SHELL", "JSON list"), ("VOLUME []", "empty word"),
    ('VOLUME ["/a", " "]', "empty word"),
    ("EXPOSE", "no arguments"), ("USER", "no arguments"), ("WORKDIR", "no arguments"), ("STOPSIGNAL", "no arguments"),
    ("USER --x y", "unknown flag --x"), ("CMD a\0b", "NUL"), ("COPY a\0 b", "NUL"), ("ADD <<a\0b c\na\0b", "NUL"),
])
def test_other_errors(line, message):
    assert message in failure(line).message


@pytest.mark.parametrize(("text", "expected"), [
    ("80", (80, 80, "", False)), ("80/tcp", (80, 80, "tcp", False)), ("80/", (80, 80, "", False)),
    ("8000-8010/UDP", (8000, 8010, "UDP", False)),
    ("8080:80", (80, 80, "", True)), ("127.0.0.1::80", (80, 80, "", True)), ("[::1]:90-91:80-81/sctp", (80, 81, "sctp", True)),
    ("90-99:80", (80, 80, "", True)), ("0", (0, 0, "", False)),
])
def test_ports(text, expected):
    assert ports.read(text) == ports.Port(*expected)


@pytest.mark.parametrize("text", ["", "x", "65536", "9-8", "80-", "80/icmp", "/tcp", "x:80", "1-3:80-81", "300.1.1.1::80", "-1", "８０"])
def test_what_is_no_port(text):
    with pytest.raises(ValueError):
        ports.read(text)


@pytest.mark.parametrize(("text", "expected"), [
    ("linux/amd64", "linux/amd64"), ("amd64", "linux/amd64"), ("x86_64", "linux/amd64"), ("linux/aarch64", "linux/arm64"),
    ("linux/arm64/v8", "linux/arm64"), ("LINUX", "linux/own"), ("arm/v6", "arm/v6"), ("linux/arm/v7", "linux/arm/v7"),
    ("linux/arm", "linux/arm/v7"),
    ("armhf", "linux/arm/v7"), ("windows/amd64", "windows/amd64"), ("linux/amd64/v2", "linux/amd64/v2"),
])
def test_platforms(text, expected):
    assert flags.platform(text, "linux/own") == expected


@pytest.mark.parametrize("text", ["", "/", "a/b/c/d", "linux/", "lin ux"])
def test_what_is_no_platform(text):
    with pytest.raises(ValueError):
        flags.platform(text, "linux/own")


def test_go_s_quotes():
    assert quoted('a "b"\\\n\t\x01\x7f\u200bä€\U000e0001') == '"a \\"b\\"\\\\\\n\\t\\x01\\x7f\\u200bä€\\U000e0001"'


# -- the plan

def test_values_of_a_base_image_that_are_no_utf_8(builder):
    from pycontainers.builder.stage import StageState

    item, document = one("USER $A"), one("COPY <<x /d\n$A\nx")
    state = StageState(builder.store.scratch(), planned("FROM scratch\n"), {})
    state.settings["Env"] = ["A=\ud800"]
    for read in (lambda: state.apply(item), lambda: state.document(document.raw, document.inline[0])):
        with pytest.raises(BuildError, match="not UTF-8") as caught:
            read()
        assert caught.value.line == 2


def planned(text: str, target: str = "", build_args: dict[str, str] | None = None, **more):
    return make_plan(interpret(parse_text(text)), build_args or {}, target, **more)


def test_platform_of_from():
    own = architecture()
    plan = planned("ARG P=linux\nFROM --platform=$BUILDPLATFORM a\nFROM --platform=$P b\nFROM --platform=linux/s390x c AS other\nFROM b")
    assert len(plan.stages) == 1
    with pytest.raises(BuildError, match="s390x is not this machine's platform"):
        planned("FROM --platform=linux/s390x c AS other", "other")
    assert planned(f"FROM --platform={own} a").stages[0].platform == f"linux/{own}"
    for text, message in (("FROM --platform=$NO a", "is empty"), ("FROM --platform=a/b/c/d/e a", "is not a platform")):
        with pytest.raises(BuildError, match=message):
            planned(text)


def test_automatic_arguments():
    plan = planned("ARG TARGETARCH OTHER=x-$TARGETARCH\nFROM a AS One", "ONE", {"TARGETARCH": "mine"})
    assert plan.globals["TARGETSTAGE"] == "one" and plan.globals["OTHER"] == "x-mine" and plan.globals["BUILDARCH"] == architecture()
    assert planned("FROM a AS x\nFROM b AS y").globals["TARGETSTAGE"] == "y" and planned("FROM a").globals["TARGETSTAGE"] == "default"
    assert set(platform_arguments()) >= {"TARGETOSVERSION", "BUILDVARIANT"}


def test_named_contexts():
    contexts = {"alpine": "docker-image://x", "docker.io/library/debian:latest": "docker-image://y", "mid": "/folder", "scratch": "/no"}
    text = "FROM alpine:latest AS a\nFROM debian AS b\nFROM a AS mid\nRUN x\nFROM mid\nCOPY --from=alpine /a /a\nCOPY --from=b /b /b\n"
    text += "FROM scratch AS s"
    plan = planned(text, "3", contexts=contexts)
    by_name = {stage.title: stage for stage in plan.stages}
    assert (by_name["mid"].base, by_name["mid"].context, by_name["mid"].instructions, by_name["mid"].base_stage) == ("mid", "mid", (), None)
    assert by_name["b"].base == by_name["b"].context == "docker.io/library/debian:latest"
    assert by_name["stage-3"].base_stage == 2 and by_name["stage-3"].sources == {"b": 1} and "a" not in by_name
    assert planned(text, "a", contexts=contexts).stages[0].base == "alpine"
    assert planned(text, "s", contexts=contexts).stages[0].context == ""


def test_stages_by_name_and_number():
    assert planned("FROM a AS x\nFROM b AS x\nFROM x").stages[-1].base_stage == 1
    assert planned("FROM a AS x\nFROM X").stages[-1].base_stage is None  # FROM compares as it is written, --from does not (BuildKit)
    assert planned("FROM a AS x\nFROM b\nCOPY --from=X c d\nCOPY --from=0 c d").stages[-1].sources == {"X": 0, "0": 0}
    for text, message in (("FROM a\nCOPY --from=-1 b c", "no stage -1"),
                          ("FROM a AS x\nRUN --mount=from=x,target=/a b", "copy from itself"),
                          ("FROM a AS x\nFROM b\nRUN --mount=from=y,target=/c d\nFROM e AS y\nFROM stage-1", None)):
        if message:
            with pytest.raises(BuildError, match=message):
                planned(text)
    with pytest.raises(BuildError, match="defined below"):
        planned("FROM b AS x\nRUN --mount=from=y,target=/c d\nFROM e AS y", "x")
    with pytest.raises(NotFound, match="no stage named"):
        planned("FROM a", "9")
    with pytest.raises(BuildError, match="need each other"):
        planned("FROM a AS x\nCOPY --from=y b c\nFROM a AS y\nCOPY --from=x b c\nFROM z")


def test_triggers_of_a_stage_are_part_of_the_next():
    plan = planned("FROM a AS x\nONBUILD COPY --from=y b c\nONBUILD RUN d\nFROM e AS y\nFROM x AS z\nRUN f\nFROM z")
    stage = next(stage for stage in plan.stages if stage.name == "z")
    assert [item.raw.arguments for item in stage.instructions] == ["b c", "d", "f"] and stage.triggers == 2 and stage.needs == (0, 1)
    assert plan.stages[-1].instructions == () and plan.stages[-1].triggers == 0


# -- patterns against a regular expression

_SMALL = st.text(alphabet="ab*?\n", max_size=6)


@settings(max_examples=1000, deadline=None)
@given(_SMALL, st.text(alphabet="ab\n", max_size=8), st.text(alphabet="xa", max_size=2))
def test_patterns_are_regular_expressions(pattern, value, replacement):
    made = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    assert patterns.replace(pattern, replacement, value, every=False) == re.sub(made, replacement, value, count=1)
    for longest, star in ((True, ".*"), (False, ".*?")):
        made = "".join({"*": star, "?": "."}.get(char, re.escape(char)) for char in pattern)
        match = re.match(made, value)
        assert patterns.trim(pattern, value, suffix=False, longest=longest) == (value[match.end():] if match else value)
        backwards = re.match("".join({"*": star, "?": "."}.get(char, re.escape(char)) for char in reversed(pattern)), value[::-1])
        kept = value[:len(value) - backwards.end()] if backwards else value
        assert patterns.trim(pattern, value, suffix=True, longest=longest) == kept


def test_every_match_is_replaced():
    for pattern, value, expected in (("a", "banana", "bXnXnX"), ("a*", "banana", "bX"), ("?", "ab", "XX"), ("", "ab", "XaXbX"),

                                     ("*", "", "X"), ("*", "a\nb", "X\nX"), ("b", "aa", "aa"), ("\\*", "a*b*", "aXbX"),
                                     ("an", "banana", "bXXa")):
        assert patterns.replace(pattern, "X", value, every=True) == expected, (pattern, value)


@pytest.mark.parametrize(("word", "expected"), [
    ("${v/b/\\/}", "a\\/c"), ("${v//[abc]/x}", "abc"), ("${v%c}${v#a}", "abbc"), ('${v/"b"/x}', "axc"), ("${v/$w/x}", "axc"),
    ("${v/b/$w$w}", "abbc"),
    ("${u/a/b}", ""), ("${v:+${w:-x}}", "b"), ("$v$", "abc$"), ("${v}$", "abc$"), ("$$v", "v"), ("\\${v}", "${v}"), ("'${v'", "${v"),
])
def test_substitutions(word, expected):
    assert expand(word, {"v": "abc", "w": "b"}) == expected


def test_names_that_were_asked_for():
    found = examine("$a ${b:-$c} ${d:+$e} '$f' \\$g", {"a": "1", "d": "2"})
    assert found.found == {"a", "d"} and found.missing == {"b", "c", "e"}


# -- no text is slow, and none crashes

_BIG = 300_000


@pytest.mark.parametrize("text", [
    "FROM a\nRUN " + "x y " * (_BIG // 4), "FROM a\nRUN " + "'x' \"y\" <a " * (_BIG // 11) + " <<E\nE",
    "FROM a\nENV a=" + "\\x" * (_BIG // 2),
    "FROM a\nENV " + "a='b' " * (_BIG // 6), "FROM a\nCOPY " + "a " * (_BIG // 2) + "/x",
    "FROM a\nRUN --mount=" + "'a'\\ " * (_BIG // 5) + " x",
    "FROM a\nRUN [" + '"a",' * (_BIG // 4) + '"b"]', "FROM a\nRUN " + "[" * _BIG, "FROM a\nRUN " + "[" * _BIG + "<<E\nE",
    "FROM a\nRUN a " + "\\\n b " * 100_000, "FROM a\nRUN a \\\n" + "# c\n\n" * 100_000 + "b",
    "FROM a\nRUN " + "<<E " * 20_000 + "\n" + "E\n" * 20_000,
    "FROM a\n" + "RUN <<E\n" * 50_000, "# c\n" * 100_000 + "FROM a", "FROM a\n" + "ONBUILD " * 100_000 + "RUN x",
    "ARG a\nFROM " + "$a" * (_BIG // 2),
    "FROM " + "${a:-" * (_BIG // 5), "FROM a\nRUN " + "${a:-" * (_BIG // 5) + "<<E", "FROM a\nRUN --mount=" + "a=b," * (_BIG // 4) + " x",
    "FROM a AS s0\n" + "".join(f"FROM s{i} AS s{i + 1}\n" for i in range(5000)), "FROM a\n" + "x" * _BIG,
    "FROM a AS s0\n" + "".join(f"FROM s{i} AS s{i + 1}\nONBUILD RUN x\n" for i in range(3000)),
], ids=range(22))
def test_long_texts_take_no_longer_than_they_are(text):
    started = time.process_time()
    read(text)
    assert time.process_time() - started < 8  # a second here; a quadratic scan would take minutes


def read(text: str | bytes) -> None:
    try:
        dockerfile = parse_text(text)
        items = interpret(dockerfile)
        check(items, make_plan(items, {}), dockerfile)
    except BuildError as error:
        assert error.hint


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data):
    read(data)
    read(b"FROM a\n" + data)


def test_flipped_bytes_of_real_ones():
    from .dockerfiles import CORPUS
    random.seed(5)
    for text in CORPUS.values():
        data = bytearray(text.encode())
        for _ in range(40 if data else 0):
            broken = bytearray(data)
            for _ in range(random.randint(1, 4)):
                broken[random.randrange(len(broken))] = random.randrange(256)
            read(bytes(broken))


def test_broken_instructions_change_a_config_or_say_why(builder):
    from pycontainers.builder.stage import StageState

    from .dockerfiles import CORPUS
    random.seed(7)
    for text in CORPUS.values():
        for _ in range(15):
            data = list(text)
            for _ in range(random.randint(0, 3) if data else 0):
                data[random.randrange(len(data))] = random.choice("\0 \"'$={}:\\/[],-0a\n")
            try:
                items = interpret(parse_text("".join(data)))
                plan = make_plan(items, {})
            except BuildError:
                continue
            state = StageState(builder.store.scratch(), plan, {"a": "b"})
            state.begin()
            for item in items:
                try:
                    made_no_layer = state.apply(item)
                    assert made_no_layer or item.raw.keyword in ("FROM", "RUN", "COPY", "ADD", "WORKDIR")
                    if isinstance(item, Run):
                        state.mounts(item)
                except BuildError as error:
                    assert error.hint and error.line
            json.dumps(state.finished())


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ab${}:-+?#%/*\\'\"<= \n", max_size=40), st.dictionaries(st.sampled_from("ab"), st.text("ab*/\n", max_size=6)))
def test_any_substitution(word, values):
    try:
        expand(word, values, keep_quotes=True)
        expand(word, values, "`")
    except ExpansionError as error:
        assert error.hint
