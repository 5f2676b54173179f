"""Whole builds: config, cache, arguments, failures. Steps run for real (see conftest); the store is the real one."""

from __future__ import annotations

import gc
import gzip
import tarfile

import pytest

from pycontainers.builder.solver import build
from pycontainers.builder.stage import PATH
from pycontainers.errors import BuildError, NotFound, UsageError
from pycontainers.events import Done, Note, StepFinished, StepOutput, StepStarted
from pycontainers.protocol import BuildRequest

FULL = """# syntax=docker/dockerfile:1
ARG NAME=visits
FROM scratch AS base
ARG NAME
ARG FLAVOUR=plain
ENV app=$NAME a=1
ENV a=2 b=$a PATH=/opt/bin:$PATH
WORKDIR /srv
WORKDIR $app
USER 1000:1000
LABEL "the key"="a value" x=$b
EXPOSE 8080 53/udp 7000-7002
VOLUME ["/data"]
STOPSIGNAL SIGINT
RUN echo made > made.txt; echo hello from $app $FLAVOUR
SHELL ["/bin/bash", "-ec"]
ENTRYPOINT exec server
CMD ["--port", "8080"]
"""


def cached(builder) -> list[bool]:
    return [event.cached for event in builder.events if isinstance(event, StepFinished)]


def ran(builder) -> int:
    return len(builder.runner.calls)


def test_config_of_a_whole_dockerfile(builder, look):
    image = builder(FULL, tags=("visits:1",), labels={"by": "test"}, build_args={"FLAVOUR": "sweet"})
    settings = image.config["config"]
    assert settings["Env"] == [f"PATH=/opt/bin:{PATH}", "app=visits", "a=2", "b=1"]
    assert settings["WorkingDir"] == "/srv/visits" and settings["User"] == "1000:1000"
    assert settings["Labels"] == {"the key": "a value", "x": "1", "by": "test"}
    assert sorted(settings["ExposedPorts"]) == ["53/udp", "7000/tcp", "7001/tcp", "7002/tcp", "8080/tcp"]
    assert settings["Volumes"] == {"/data": {}} and settings["StopSignal"] == "SIGINT"
    assert settings["Entrypoint"] == ["/bin/bash", "-ec", "exec server"] and settings["Cmd"] == ["--port", "8080"]
    call = builder.runner.calls[0]
    assert call["cwd"] == "/srv/visits" and call["user"] == "1000:1000" and call["network"] == "bridge"
    assert call["env"] == {"PATH": f"/opt/bin:{PATH}", "NAME": "visits", "FLAVOUR": "sweet", "app": "visits", "a": "2", "b": "1"}
    history = image.config["history"]
    assert [entry["created_by"] for entry in history if not entry.get("empty_layer")] == [
        "WORKDIR /srv", "WORKDIR /srv/visits",
        "RUN |2 NAME=visits FLAVOUR=sweet /bin/sh -c echo made > made.txt; echo hello from $app $FLAVOUR",
    ]
    assert image.config["rootfs"]["diff_ids"] == [layer.diff_id for layer in image.layers] and len(image.layers) == 3
    assert look.content(image, "/made.txt") == "made\n"
    assert builder.store.resolve("visits:1").id == image.id and image.names == ("visits:1",)
    started = [event for event in builder.events if isinstance(event, StepStarted)]
    assert [event.index for event in started] == list(range(1, started[0].total + 1)) and started[0].text == "FROM scratch AS base"
    assert b"".join(event.data for event in builder.events if isinstance(event, StepOutput)) == b"hello from visits sweet\n"
    assert isinstance(builder.events[-1], Done) and builder.events[-1].name == "visits:1"


def test_second_build_runs_nothing_gives_the_same_id(builder):
    builder.file("a.txt")
    text = FULL + "COPY a.txt /a.txt\n"
    first = builder(text, tags=("x",))
    assert not all(cached(builder))
    second = builder(text, tags=("x",))
    assert second.id == first.id and all(cached(builder)) and ran(builder) == 1


def test_no_cache_runs_again_and_equal_content_gives_the_equal_image(builder):
    text = "FROM scratch\nRUN touch -d @0 x"
    first = builder(text)
    again = builder(text, no_cache=True)
    assert ran(builder) == 2 and again.id == first.id and not cached(builder)[-1]


@pytest.mark.parametrize(("one", "other", "again"), [
    ("RUN echo 1", "RUN echo 2", True),
    ("ENV x=1\nRUN true", "ENV x=2\nRUN true", True),
    ("ARG x=1\nRUN true", "ARG x=2\nRUN true", True),
    ("RUN true\nENV x=1", "RUN true\nENV x=2", False),
    ("USER 1\nRUN true", "USER 2\nRUN true", True),
    ("RUN true", "RUN --network=none true", True),
    ("LABEL a=1\nRUN true", "LABEL a=2\nRUN true", False),
])
def test_what_is_in_the_cache_key(builder, one, other, again):
    builder(f"FROM scratch\n{one}")
    builder(f"FROM scratch\n{other}")
    assert ran(builder) == 1 + again


def test_copy_is_cached_by_content_not_by_time(builder, look):
    file = builder.file("app/a.py", "1")
    text = "FROM scratch\nCOPY app /app\nRUN true"
    first = builder(text)
    file.write_text("1")
    assert builder(text).id == first.id and ran(builder) == 1
    file.write_text("2")
    changed = builder(text)
    assert changed.id != first.id and ran(builder) == 2 and look.content(changed, "/app/a.py") == "2"
    file.chmod(0o755)
    builder(text)
    assert ran(builder) == 3


def test_copy_from_a_stage_is_cached_by_content(builder, look):
    text = "FROM scratch AS one\nRUN touch -d @7 other{}; echo same > f; touch -d @7 f\nFROM scratch\nCOPY --from=one /f /g\nRUN true"
    image = builder(text.format(1))
    assert look.files(image) == ["/g"]
    builder(text.format(2))
    assert [call["argv"][-1] for call in builder.runner.calls].count("true") == 1


def test_stage_as_base_and_target(builder, look):
    text = "FROM scratch AS a\nENV x=1\nRUN touch a\nFROM a AS b\nRUN touch b\nFROM b\nRUN exit 1"
    image = builder(text, target="b")
    assert look.files(image) == ["/a", "/b"] and image.config["config"]["Env"] == [f"PATH={PATH}", "x=1"]


def test_image_as_base_and_reset_of_cmd(builder, look):
    builder("FROM scratch\nRUN touch below\nCMD [\"a\"]\nENV x=1", tags=("below",))
    image = builder("FROM below\nENTRYPOINT [\"b\"]\nCOPY --from=below /below /copied")
    assert look.files(image) == ["/below", "/copied"] and "Cmd" not in image.config["config"]
    assert image.config["config"]["Env"] == [f"PATH={PATH}", "x=1"] and len(image.layers) == 2


def test_proxy_arguments_are_set_and_not_in_the_key(builder):
    builder("FROM scratch\nRUN true", build_args={"http_proxy": "http://one"})
    assert builder.runner.calls[0]["env"]["http_proxy"] == "http://one"
    builder("FROM scratch\nRUN true", build_args={"http_proxy": "http://two", "typo": "1"})
    assert ran(builder) == 1
    assert [event.text for event in builder.events if isinstance(event, Note)] == ["build arguments that no ARG declares: typo"]


def test_failed_run_names_line_code_and_output_and_leaves_nothing(builder):
    with pytest.raises(BuildError) as caught:
        builder("FROM scratch\nRUN true\nRUN echo one; \\\n  printf 'two\\033[31m\\n'; exit 3", tags=("bad",))
    error = caught.value
    assert error.line == 3 and "exit code 3" in error.message and error.source == "RUN echo one; \\"
    assert "  one\n  two [31m" in error.hint
    assert builder.left_over() == []
    with pytest.raises(NotFound):
        builder.store.resolve("bad")


def test_a_build_that_is_given_up_leaves_nothing(builder):
    work = build(BuildRequest("FROM scratch\nRUN echo started; sleep 60"), builder.store, builder.runner)
    for event in work:
        if isinstance(event, StepOutput):
            break
    assert len(builder.left_over()) == 1
    work.close()
    gc.collect()
    assert builder.left_over() == []


@pytest.mark.parametrize(("text", "line", "message", "hint"), [
    ("FROM scratch AS base\nFROM bsae", 2, "bsae", "did you mean base"),
    ("FROM scratch\nCOPY --from=nowhere /a /a", 2, "nowhere", ""),
    ("FROM scratch\nCOPY a.tx /a", 2, "a.tx is not in the build context", "did you mean a.txt"),
    ("FROM scratch\nCOPY ../a /a", 2, "outside of the build context", "context"),
    ("FROM scratch\nCOPY --chown=alice a.txt /a", 2, "alice", "numeric"),
    ("FROM scratch\nCOPY --chown=4294967295 a.txt /a", 2, "4294967295", "1000:1000"),
    ("FROM scratch\nCOPY --chmod=u+q a.txt /a", 2, "--chmod=u+q", "octal"),
    ("FROM scratch\nCOPY a[.txt /a", 2, "malformed pattern", "close"),
    ("FROM scratch\nCOPY a.txt /f\nCOPY a.txt /f/g", 3, "/f is not a folder", "destination"),
    ("FROM scratch\nCOPY a.txt /d/e\nCOPY a.txt /x/\nCOPY b.txt /d/../d/e/x", 4, "/d/e is not a folder", "destination"),
    ("FROM scratch\nADD x.tar.gz /", 2, "x.tar.gz cannot be unpacked", "get or make it again"),
    ("FROM scratch\nEXPOSE 99999", 2, "invalid port '99999'", "8080"),
    ("FROM scratch\nARG a='\0'\nWORKDIR /$a", 2, "NUL character", "remove"),
    ("FROM scratch\nVOLUME $nobody", 2, "empty after substitution", "ARG"),
    ("FROM scratch\nRUN --network=none true\nCOPY a.txt /f\nWORKDIR /f", 4, "/f is not a folder", ""),
    ("FROM scratch\nENV a=\"${b:?b is needed}\"", 2, "b: b is needed", "--build-arg b"),
])
def test_errors_name_the_line(builder, text, line, message, hint):
    builder.file("a.txt")
    builder.file("b.txt")
    builder.file("x.tar.gz", gzip.compress(tarfile.TarInfo("x").tobuf() + b"not its end"))
    with pytest.raises(BuildError) as caught:
        builder(text)
    assert caught.value.line == line and message in caught.value.message and hint in caught.value.hint
    assert builder.left_over() == []


def test_a_stage_that_nothing_needs_is_never_looked_up(builder):
    builder("FROM no-such-image\nRUN exit 1\nFROM scratch")
    assert ran(builder) == 0


def test_growing_values_are_stopped(builder):
    with pytest.raises(BuildError, match="too long"):
        builder("FROM scratch\nENV a=0123456789\n" + "ENV a=$a$a\n" * 60)


def test_no_context(builder):
    with pytest.raises(BuildError, match="this build has none"):
        builder("FROM scratch\nCOPY a /a", context="")
    builder("FROM scratch\nCOPY <<f /f\nx\nf\n", context="")


def test_expansion_uses_one_snapshot_and_env_beats_arg(builder):
    image = builder("FROM scratch\nARG v=arg\nENV v=env w=$v\nENV x=$v\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc")
    assert image.config["config"]["Env"][1:] == ["v=env", "w=arg", "x=env", "abc=bye", "def=hello", "ghi=bye"]


def test_an_arg_after_env_holds_for_steps_and_not_for_the_image(builder):
    """The reference says that ENV always wins; BuildKit takes what came last."""
    image = builder("FROM scratch AS a\nENV v=env\nARG v=arg u\nRUN true\nFROM a\nENV w=$v\nRUN true")
    assert image.config["config"]["Env"][1:] == ["v=env", "w=arg"]
    first, second = builder.runner.calls
    assert first["env"]["v"] == "arg" and second["env"]["v"] == "arg" and "u" not in first["env"]
    assert image.config["history"][2]["created_by"] == "RUN |2 v=arg u= /bin/sh -c true"


def test_what_docker_writes_into_history(builder):
    text = """FROM scratch
ENV a="x y" b=1
ARG c=$a d
LABEL "k k"='v'
EXPOSE 9 53/UDP 7-8
VOLUME /a /b
USER $b
STOPSIGNAL $b
SHELL ["/bin/ash", "-c"]
HEALTHCHECK --interval=90s --timeout=1500ms --retries=3 CMD curl "$a"
ONBUILD RUN true
MAINTAINER me
ENTRYPOINT echo "\\x"
CMD ["a", "b\\n"]
"""
    image = builder(text)
    assert [entry["created_by"] for entry in image.config["history"]] == [
        "ENV a=x y b=1", "ARG c=x y d", "LABEL k k=v", "EXPOSE [53/udp 7/tcp 8/tcp 9/tcp]", "VOLUME [/a /b]", "USER 1", "STOPSIGNAL 1",
        "SHELL [/bin/ash -c]",
        r'''HEALTHCHECK &{["CMD-SHELL" "curl \"$a\""] "1m30s" "1.5s" "0s" "0s" '\x03'}''',
        "MAINTAINER me", r'ENTRYPOINT ["/bin/ash" "-c" "echo \"\\x\""]', r'CMD ["a" "b\n"]',
    ]
    settings = image.config["config"]
    assert settings["ArgsEscaped"] is True and settings["WorkingDir"] == "/" and settings["OnBuild"] == ["RUN true"]
    assert settings["Healthcheck"] == {
        "Test": ["CMD-SHELL", 'curl "$a"'], "Interval": 90 * 10**9, "Timeout": 1500 * 10**6, "Retries": 3,
    }


def test_what_docker_writes_into_history_of_copies(builder):
    builder.file("a b")
    builder.file("c")
    text = 'FROM scratch\nARG v=c d=/d/\nWORKDIR /w//x/\n'
    text += 'COPY --chmod=600 --link --chown=1:2 $v <<-"e" $d\ne\nCOPY ["a b", "."]\nWORKDIR ../y'
    image = builder(text)
    assert [entry["created_by"] for entry in image.config["history"]][1:] == [
        "WORKDIR /w//x/", "COPY --chown=1:2 --chmod=600 c <<e /d/", "COPY a b .", "WORKDIR /w/y",
    ]


def test_instructions_that_a_base_wants_done(builder, look):
    builder.file("x", "content")
    text = "FROM scratch\nENV d=/to\nONBUILD COPY <<-one $d/\n\ttext\n\tone\nONBUILD COPY \\\n  x /x\nONBUILD ENV e=$d"
    base = builder(text, tags=("base",))
    assert base.config["config"]["OnBuild"] == ["COPY <<-one $d/\n\ttext\none", "COPY   x /x", "ENV e=$d"] and look.files(base) == []
    image = builder("FROM base AS one\nONBUILD COPY x /y\nFROM one AS two\nFROM two")
    assert look.files(image) == ["/to/", "/to/one", "/x", "/y"] and look.content(image, "/to/one") == "text\n"
    assert image.config["config"]["Env"][1:] == ["d=/to", "e=/to"] and "OnBuild" not in image.config["config"]
    builder("FROM scratch\nONBUILD COPY --from=Files /x /z", tags=("base",))
    text = "FROM scratch AS files\nCOPY x /x\nFROM base\n"
    assert look.files(builder(text + "COPY --from=files /x /w")) == ["/w", "/z"]
    with pytest.raises(BuildError, match=r":3:.*a stage that nothing else needs"):
        builder(text)
    builder("FROM scratch\nONBUILD COPY no /y", tags=("base",))
    with pytest.raises(BuildError, match=r":2:.*no is not in the build context"):
        builder("# c\nFROM base")


def test_host_stays_local(builder):
    image = builder("FROM host\nENV x=1\nRUN touch made")
    assert image.host and image.host == builder.store.resolve("host").host and len(image.layers) == 1
    assert builder.runner.calls[0]["env"]["x"] == "1"


def test_a_name_that_cannot_be_is_refused_before_anything_runs(builder):
    for name, hint in (("Bad Name", ""), ("host", "another name"), ("UPPER", ""), ("a@sha256:" + "0" * 64, "tag")):
        with pytest.raises(UsageError) as caught:
            builder("FROM scratch\nRUN echo x > y", tags=("fine", name))
        assert hint in caught.value.hint and ran(builder) == 0 and not builder.store.images()
