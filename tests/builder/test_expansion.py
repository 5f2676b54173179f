"""Substitution, quotes and escapes: the table of Docker's reference, and no text hangs or crashes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycontainers.builder.expansion import ExpansionError, expand, expand_words

VALUES = {"a": "hello", "empty": "", "path": "/usr/local/lib/x.tar.gz", "sp": "one two", "str": "foobarbaz", "dots": "a.b.c"}


@pytest.mark.parametrize(("word", "expected"), [
    ("$a", "hello"), ("${a}b", "hellob"), ("$ab", ""), ("\\$a", "$a"), ("'$a'", "$a"), ('"$a b"', "hello b"), ("\\\\$a", "\\hello"),
    ("${x:-d}", "d"), ("${empty:-d}", "d"), ("${empty-d}", ""), ("${x-d}", "d"), ("${a:-d}", "hello"),
    ("${x:+d}", ""), ("${a:+d}", "d"), ("${empty:+d}", ""), ("${empty+d}", "d"), ("${a:?no}", "hello"), ("${empty?no}", ""),
    ("${x:-${y:-$a}}", "hello"), ("${x:-'$a'}", "$a"), ("${x:-a\\}b}", "a}b"),
    ("${path#*/}", "usr/local/lib/x.tar.gz"), ("${path##*/}", "x.tar.gz"), ("${path%.*}", "/usr/local/lib/x.tar"),
    ("${path%%.*}", "/usr/local/lib/x"), ("${str#f*b}", "arbaz"), ("${str##f*b}", "az"), ("${a#x}", "hello"), ("${str#f?o}", "barbaz"),
    ("${str/ba/xx}", "fooxxrbaz"), ("${str//ba/xx}", "fooxxrxxz"), ("${str//o/}", "fbarbaz"), ("${dots//./_}", "a_b_c"),
    ("${str/b*/X}", "fooX"), ("${path//\\//_}", "_usr_local_lib_x.tar.gz"), ("${x/a/b}", ""),
    ("$", "$"), ("a$", "a$"), ("$-", ""), ("$1x", "x"), ('"\\$a \\x \\""', '$a \\x "'), ("'a\\'", "a\\"),
    ('a"b c"\'d e\'', "ab cd e"), ("x\\", "x"),
])
def test_docker_table(word, expected):
    assert expand(word, VALUES) == expected


@pytest.mark.parametrize(("word", "part"), [
    ("${", "no closing"), ("${}", "bad substitution"), ("${a", "no closing"), ("${a:-x", "no closing"),
    ("${a^}", "unsupported modifier '^'"),
    ("${a:x}", "unsupported modifier ':x'"), ("${a:#x}", "unsupported modifier"), ("${a/\\a/b}", "invalid escape"),
    ("'a", "single quote has no end"), ('"a', "double quote has no end"),
    ("${x?}", "x: is not allowed to be unset"),
    ("${empty:?}", "empty: is not allowed to be empty"), ("${x:?give x}", "x: give x"), ("${x:-" * 60, "nested"),
])
def test_errors(word, part):
    with pytest.raises(ExpansionError) as caught:
        expand(word, VALUES)
    assert part in caught.value.message and caught.value.hint


def test_words_split_outside_quotes_only():
    assert expand_words("$sp 'a b'\"$sp\" x\\ y ''", VALUES) == ["one", "two", "a bone two", "x y"]


def test_heredoc_content_keeps_quotes_and_loses_every_escape():
    assert expand("it's \"$a\" \\$a \\n \\\\", VALUES, "`", keep_quotes=True) == "it's \"hello\" $a n \\"


def test_another_escape_character():
    assert expand("`$a c:\\$a", VALUES, "`") == "$a c:\\hello"


@pytest.mark.timeout(60)
def test_hostile_pattern_ends():
    """Tried one after the other, its ways to match would take longer than the world will last."""
    expand("${v%%" + "*a" * 30 + "b}", {"v": "a" * 2000})


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab$ {}:-+?#%/*\\'\"x", max_size=60))
def test_any_word_expands_or_says_why(word):
    try:
        expand(word, VALUES)
        expand_words(word, VALUES)
    except ExpansionError as error:
        assert error.hint
