"""Dockerfile text to raw and typed instructions: positions, forms, and every text gives a result or a BuildError."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycontainers.builder.instructions import Arg, Cmd, Copy, Env, From, Label, Run, interpret
from pycontainers.builder.parser import parse
from pycontainers.builder.plan import make_plan
from pycontainers.errors import BuildError, ContainersError


def typed(text: str):
    return interpret(parse(text))


def failure(text: str, target: str = "") -> BuildError:
    with pytest.raises(BuildError) as caught:
        make_plan(typed(text), {}, target)
    return caught.value


def test_positions_flags_and_original_text():
    text = "# a comment\n\n  FROM host AS base\nCOPY --chown=1:2 \\\n  # dropped\n\n  --chmod=644 a \\\n  b /d/\n"
    raws = parse(text).instructions
    assert [(r.keyword, r.line, r.end_line, r.column) for r in raws] == [("FROM", 3, 3, 3), ("COPY", 4, 8, 1)]
    copy = raws[1]
    assert [(f.name, f.value, f.line, f.column) for f in copy.flags] == [("chown", "1:2", 4, 6), ("chmod", "644", 7, 3)]
    assert copy.arguments.split() == ["a", "b", "/d/"]
    assert copy.place(0) == (7, 15)
    assert copy.place(copy.arguments.index("b")) == (8, 3)
    assert copy.original == "COPY --chown=1:2 \\\n  # dropped\n\n  --chmod=644 a \\\n  b /d/"


def test_continuations_join_as_docker_does():
    run = typed("FROM host\nRUN echo a \\ \n # comment\n  && echo b\\\\\nRUN x")[1]
    assert run.command.words == ("echo a   && echo b\\\\",)


def test_crlf_and_byte_order_mark():
    first, second = typed("\ufeffFROM host\r\nRUN echo \\\r\n a\r\n")
    assert isinstance(first, From) and second.command.words == ("echo  a",)


def test_escape_directive():
    raws = parse("# escape=`\n# syntax=docker/dockerfile:1\nFROM host\nRUN a `\n b\\\n")
    assert raws.directives == {"escape": "`", "syntax": "docker/dockerfile:1"}
    assert raws.instructions[1].arguments == "a  b\\"


def test_directive_after_a_comment_is_a_comment():
    assert parse("# hello\n# escape=`\nFROM host\n").escape == "\\"


@pytest.mark.parametrize(("text", "words", "shell"), [
    ('["a", "b c"]', ("a", "b c"), False),
    ("['a', 'b']", ("['a', 'b']",), True),
    ('["a", "b"', ('["a", "b"',), True),
    ("echo $X", ("echo $X",), True),
])
def test_exec_form_and_its_fallback(text, words, shell):
    command = typed(f"FROM host\nCMD {text}")[1]
    assert isinstance(command, Cmd) and command.command.words == words and command.command.shell is shell


def test_env_label_and_arg_forms():
    env, old, label, arg = typed('FROM host\nENV a=1 b="x y" c=a\\ b\nENV name the  rest\nLABEL "k"="v w"\nARG x y=2')[1:]
    assert isinstance(env, Env) and env.pairs == (("a", "1"), ("b", '"x y"'), ("c", "a\\ b"))
    assert old.pairs == (("name", "the  rest"),)
    assert isinstance(label, Label) and label.pairs == (('"k"', '"v w"'),)
    assert isinstance(arg, Arg) and arg.pairs == (("x", None), ("y", "2"))


def test_heredocs():
    text = "FROM host\nRUN <<EOF\necho a\n# kept\nEOF\nRUN cat <<-'A' <<B\n\tx $y\n\tA\nz\nB\n"
    text += "COPY <<one <<\"two\" /d/\n1\none\n2\ntwo\nUSER x"
    script, piped, copy, user = typed(text)[1:]
    assert script.command.words == ("echo a\n# kept\n",)
    assert piped.command.words == ("cat <<-'A' <<B\n\tx $y\nA\nz\nB",)
    assert isinstance(copy, Copy) and [(h.name, h.content, h.expand) for h in copy.inline] == [("one", "1\n", True), ("two", "2\n", False)]
    assert copy.sources == () and user.user == "x"


def test_heredoc_with_an_interpreter_is_a_file_while_it_runs():
    run = typed("FROM host\nRUN <<EOF\n#!/usr/bin/env python3\nprint(1)\nEOF")[1]
    assert isinstance(run, Run) and run.command.words == ("/dev/pipes/EOF",)
    assert run.script is not None and run.script.content == "#!/usr/bin/env python3\nprint(1)\n"


@pytest.mark.parametrize(("text", "line", "column", "message", "hint"), [
    ("FROM host\nRUUN x", 2, 1, "unknown instruction 'RUUN'", "did you mean RUN"),
    ("FROM host\n  COPY --form=x a b", 2, 8, "unknown flag --form", "did you mean from"),
    ("FROM host\nCOPY a", 2, 6, "at least one source", "COPY ."),
    ("FROM host\nENV a=1 b", 2, 9, "expects NAME=value, not 'b'", "quote"),
    ("FROM host\nARG =x", 2, 5, "has no name", "ARG VERSION"),
    ("FROM host\nRUN <<EOF\nx", 2, 5, "'EOF' has no end", "EOF alone"),
    ("FROM host\nCMD [1]", 2, 5, "something else than strings", "JSON string"),
    ("FROM host\nSHELL bash", 2, 7, "JSON list", "SHELL ["),
    ("FROM host AS\n", 1, 11, "FROM takes one image", "AS base"),
    ("FROM host AS 9x\n", 1, 14, "invalid stage name", "letter"),
    ("RUN x\nFROM host", 1, 1, "RUN before the first FROM", "ARG"),
    ("FROM ${x:?no-x}\n", 1, 6, "x: no-x", "ARG"),
    ("FROM --platform=linux/s390x host\n", 1, 6, "not this machine's platform", "linux/"),
    ("FROM host AS a\nCOPY --from=b /x /x\nFROM host AS b\nCOPY --from=a /x /x", 1, 1, "need each other", "circle"),
    ("FROM host\nCOPY --from=7 /x /x", 2, 6, "no stage 7", "0 to 0"),
    ("FROM host\nCOPY --from=0 /x /x", 2, 6, "copy from itself", "earlier"),
    ("FROM host AS a\nCOPY --from=b /x /x\nFROM host AS b\nFROM a", 2, 6, "defined below", "move it up"),
])
def test_errors_name_place_source_and_remedy(text, line, column, message, hint):
    error = failure(text)
    assert (error.line, error.column) == (line, column)
    assert message in error.message and hint in error.hint
    assert error.source == text.split("\n")[line - 1]


@pytest.mark.parametrize("text", ["", "\n\n", "# only\n", "ARG x=1\n"])
def test_nothing_to_build(text):
    assert "FROM" in failure(text).hint


def test_only_the_stages_that_the_target_needs_in_order():
    text = "ARG B=host\nFROM scratch AS Files\nFROM $B AS one\nFROM host AS unused\nRUN x\nFROM one AS two\nCOPY --from=files /a /a\n"
    text += "RUN --mount=from=FILES,target=/m x\nFROM two"
    plan = make_plan(typed(text), {"B": "other"}, "TWO")
    assert [stage.title for stage in plan.stages] == ["files", "one", "two"]
    assert plan.stages[1].base == "other" and plan.stages[2].base_stage == 1 and plan.stages[2].sources == {"files": 0, "FILES": 0}
    with pytest.raises(ContainersError, match="no stage named 'tow'"):
        make_plan(typed(text), {}, "tow")


def test_a_long_chain_of_stages_is_no_recursion():
    text = "FROM scratch AS s0\n" + "".join(f"FROM s{i} AS s{i + 1}\n" for i in range(3000))
    assert len(make_plan(typed(text), {}).stages) == 3001


_PIECES = st.sampled_from([
    "FROM ", "RUN ", "COPY ", "ENV ", "ARG ", "LABEL ", "CMD ", "host", " AS ", "\n", "\\\n", "\\", "<<EOF", "EOF", "--from=", "--", '"',
    "'", "[", "]", '["a"]', "# escape=`\n", "`", "$", "${", "}", ":-", "=", " ", "\t", "\r", "\0", "ä", "x", "/", "#", "0",
])


@settings(max_examples=400, deadline=None)
@given(st.one_of(
    st.text(max_size=200), st.lists(_PIECES, max_size=40).map("".join),
    st.lists(_PIECES, max_size=30).map(lambda pieces: "FROM host\n" + "".join(pieces)),
))
def test_any_text_gives_a_plan_or_a_build_error(text):
    try:
        dockerfile = parse(text)
        for raw in dockerfile.instructions:
            for offset in (0, len(raw.arguments)):
                line, column = raw.place(offset)
                assert raw.line <= line <= raw.end_line and column >= 1
        make_plan(interpret(dockerfile), {})
    except BuildError as error:
        assert error.hint
        if error.line:
            assert error.source == text.removeprefix("\ufeff").split("\n")[error.line - 1].rstrip("\r")
