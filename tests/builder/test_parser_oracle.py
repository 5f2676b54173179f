"""The parser beside BuildKit's own (the PyPI package ``dockerfile``, which wraps the one of BuildKit 0.12): instruction by instruction.

Where the two differ on purpose, :func:`known_difference` says so, with the reason.
"""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pycontainers.builder.forms import BLANKS, NotStrings, blank_words, json_words, split_words
from pycontainers.builder.parser import KEYWORDS, Raw, parse
from pycontainers.errors import BuildError

from .dockerfiles import CORPUS

dockerfile = pytest.importorskip("dockerfile", reason="the package dockerfile (BuildKit's parser) is not installed")

Row = tuple[str, str | None, bool, int, int, tuple[str, ...], tuple[str, ...], tuple[tuple[str, int, str], ...]]
"""Keyword, keyword within ONBUILD, is it the exec form, first line, last line, flags, words, here-documents."""


def oracle(text: str) -> list[Row] | None:
    """What BuildKit reads; None where it refuses."""
    try:
        commands = dockerfile.parse_string(text)
    except dockerfile.GoParseError:
        return None
    return [
        (c.cmd, c.sub_cmd, bool(c.json), c.start_line, c.end_line, tuple(c.flags), tuple(c.value),
         tuple((h.name, h.file_descriptor, h.content) for h in c.heredocs))
        for c in commands
    ]  # fmt: skip


def ours(text: str) -> list[Row] | None:
    try:
        return [row(raw) for raw in parse(text).instructions]
    except (BuildError, NotStrings):
        return None


def row(raw: Raw) -> Row:
    inner = raw.trigger or raw
    listed, words = values(inner)
    flags = tuple(f"--{flag.name}" + ("" if flag.value is None else f"={flag.value}") for flag in raw.flags)
    heredocs = tuple((heredoc.name, heredoc.descriptor, heredoc.raw) for heredoc in raw.heredocs)
    within = raw.trigger.word if raw.trigger else None
    return raw.word, within, listed, raw.line, raw.end_line, flags, words, () if within else heredocs  # the package drops ONBUILD's


def values(raw: Raw) -> tuple[bool, tuple[str, ...]]:
    text = raw.arguments
    match raw.keyword:
        case "RUN" | "CMD" | "ENTRYPOINT" | "SHELL":
            listed = json_words(text)
            return listed is not None, (text,) * bool(text) if listed is None else listed
        case "ADD" | "COPY" | "VOLUME":
            listed = json_words(text)
            return listed is not None, tuple(word for word, _ in blank_words(text)) if listed is None else listed
        case "FROM" | "EXPOSE":
            return False, tuple(word for word, _ in blank_words(text))
        case "ARG":
            return False, tuple(word for word, _ in split_words(text, raw.escape))
        case "ENV" | "LABEL":
            return False, pairs(raw)
        case "HEALTHCHECK":
            kind, *rest = BLANKS.split(text, maxsplit=1)
            rest = "".join(rest)
            listed = json_words(rest)
            return listed is not None, ((kind,) * bool(kind)) + ((rest,) * bool(rest) if listed is None else listed)
    return False, (text,) * bool(text)


def pairs(raw: Raw) -> tuple[str, ...]:
    words = [word for word, _ in split_words(raw.arguments, raw.escape)]
    if not words:
        return ()
    if "=" not in words[0]:
        first, *rest = blank_words(raw.arguments)
        if not rest:
            raise BuildError("no value")
        return first[0], raw.arguments[rest[0][1]:]
    if not all("=" in word for word in words):
        raise BuildError("no =")
    return tuple(part for word in words for part in word.partition("=")[::2])


def known_difference(text: str, theirs: list[Row] | None, mine: list[Row] | None) -> str:
    """Why the two may differ on this text; "" where they must not."""
    if re.search(r"^\s*#\s*check\s*=", text, re.IGNORECASE | re.MULTILINE):
        return "the directive check came with BuildKit 0.15: to 0.12 it is a comment, which ends the directives"
    if "\0" in text:
        return "the package reads text up to a NUL character"
    if any(trailing(raw) for raw in raws(text)):
        return "BuildKit 0.12 reads a list and leaves what follows it; since 0.13 that is no JSON, and so the shell form"
    if re.search(r"<<[ \t\r]", text):
        return "blanks between << and the name came with BuildKit 0.22"
    if re.search(r"<<[^\n]*\$\{[^}\n]*[#%/:]|\$\{[^}\n]*[#%/:][^\n]*<<", text):
        return "the modifiers # % / came with BuildKit 0.13: before, their line was not read for here-documents"
    if max(map(len, text.encode().split(b"\n"))) >= 65535:
        return "BuildKit refuses lines of 64 KiB; here they have no bound"
    if any(ord(char) > 127 for line in text.split("\n") if "--" in line for char in line):
        return "BuildKit reads flags byte by byte, and breaks every letter beyond ASCII in them"
    if theirs is not None and mine is None:
        words = [word for command in theirs for word in (command[0] or "", command[1]) if word is not None]
        if any(word.lower() not in map(str.lower, KEYWORDS) for word in words):
            return "an unknown instruction is an error of BuildKit's next pass"
    if any(word and word.lower() == "onbuild" and (within or "onbuild").lower() == "onbuild" for word, within, *_ in theirs or mine or []):
        return "ONBUILD with nothing in it, or with another ONBUILD, is an error of BuildKit's next pass"
    return ""


def raws(text: str) -> list[Raw]:
    try:
        return [one for raw in parse(text).instructions for one in (raw, raw.trigger) if one is not None]
    except BuildError:
        return []


def trailing(raw: Raw) -> bool:
    """Does a JSON list end before the arguments do?"""
    start = raw.arguments.find("[")
    try:
        return start >= 0 and json.JSONDecoder().raw_decode(raw.arguments[start:])[1] < len(raw.arguments) - start
    except (ValueError, RecursionError):
        return False


def check(text: str) -> None:
    try:
        theirs = oracle(text)
    except UnicodeDecodeError:
        return  # BuildKit ends HEALTHCHECK's first word in the middle of a letter whose bytes have a Latin-1 blank
    mine = ours(text)
    if theirs != mine and not known_difference(text, theirs, mine):
        for one, other in zip(theirs or [], mine or [], strict=False):
            assert other == one, f"differs in {text!r}"
        assert mine == theirs, f"differs in {text!r}"


@pytest.mark.parametrize("name", CORPUS)
def test_corpus(name):
    check(CORPUS[name])


def test_the_corpus_is_not_waved_through():
    """Most of it is compared in full: what known_difference lets pass is a few."""
    passed = [name for name, text in CORPUS.items() if oracle(text) != ours(text)]
    assert len(CORPUS) >= 100 and len(passed) <= 8, passed


def test_what_is_different_is_known():
    for text in ("# check=skip=all\n# escape=`\nFROM a\nRUN b `\n c", "FROM a\nRUN cat << EOF\nb\nEOF\n", "FROM a\nRUN x " + "y" * 70000,
                 "FROM a\nCOPY --chown=ä b c", "FROM a\nNOPE", "FROM a\nRUN ${x#y} <<EOF\nz\nEOF"):
        theirs, mine = oracle(text), ours(text)
        assert theirs != mine and known_difference(text, theirs, mine), text


_WORDS = st.sampled_from([
    *(f"{keyword} " for keyword in KEYWORDS), "run ", "Onbuild ", "cmd ", "NONE", "--from=", "--a", "--", "-", "=", "a", "b c", "$x",
    "${x}", "${x:-y}", "$", "\\", "\\ ", "`", "'", '"', "[", "]", ",", '"a"', '["a", "b"]', "[1]", "<<", "<<E", "<<-E", "3<<'E'", "E", "<",
    "#", " ", "  ", "\t", "\r", "\v", "\x85", "\u3000", "ä", "\0",
])  # fmt: skip
_LINES = st.lists(_WORDS, max_size=8).map("".join)
_ENDS = st.sampled_from(["\n", "\n", "\n", "\\\n", "\\ \n", "\r\n", "`\n", "\nE\n", "\n\tE\n", "\n\n", "\n# c\n"])
_HEADS = st.sampled_from(["", "", "FROM a\n", "# escape=`\n", "# syntax=x\n", "\ufeff", "\n", "# c\n"])
_BODIES = st.lists(st.tuples(_LINES, _ENDS), max_size=6)
_FILES = st.builds(lambda head, lines: head + "".join(line + end for line, end in lines), _HEADS, _BODIES)


@settings(max_examples=1500, deadline=None)
@given(_FILES)
@example("RUN a \\\n\\\n b")
def test_generated(text):
    check(text)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(CORPUS)), st.integers(0, 400), st.integers(0, 3), st.text("\\\n\"'`$<E=[], \t#-", max_size=3))
def test_corpus_with_a_change(name, at, removed, added):
    text = CORPUS[name]
    at %= len(text) + 1
    check(text[:at] + added + text[at + removed:])
