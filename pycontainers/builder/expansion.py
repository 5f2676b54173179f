"""Variables, quotes and escapes in arguments, by the rules of BuildKit's shell lexer.

https://docs.docker.com/reference/dockerfile/#environment-replacement: ``$x``, ``${x}``, ``${x:-w}``, ``-``, ``:+``, ``+``,
``:?``, ``?``, ``#``, ``##``, ``%``, ``%%``, ``/`` and ``//``; the patterns of the last six are in :mod:`.patterns`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ContainersError
from . import patterns
from .forms import SPACES

MAX_DEPTH = 50
"""Nested substitutions (``${a:-${b:-…}}``) allowed. Far more than anybody writes, far less than Python's stack."""

_PLAIN = re.compile(r"[^\\`'\"$}/<]+")
_BLANK = re.compile(f"[{SPACES}]+")


class ExpansionError(ContainersError):
    """A substitution that is malformed, or a variable that must be set and is not. The caller knows the line."""


@dataclass(frozen=True)
class Expanded:
    """A word with its variables replaced: as one ``text``, and split into ``words``. ``found`` and ``missing``: names asked for."""

    text: str
    words: list[str]
    found: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()


def expand(word: str, values: Mapping[str, str], escape: str = "\\", *, keep_quotes: bool = False) -> str:
    """The word with its variables replaced and one level of quotes and escapes taken off.

    :param keep_quotes: for the content of a here-document: quotes are ordinary text, and a backslash, which alone is the escape
        there, goes before any character (not only before ``$``, as it would in a shell: BuildKit does so, and says so).
    :raises ExpansionError: for a malformed substitution, an open quote, or ``${x?message}`` where x is not set.
    """
    return examine(word, values, escape, keep_quotes=keep_quotes).text


def expand_words(word: str, values: Mapping[str, str], escape: str = "\\") -> list[str]:
    """As :func:`expand`, and split at blanks that are neither quoted nor escaped; an unquoted variable's value splits too."""
    return examine(word, values, escape).words


def examine(word: str, values: Mapping[str, str], escape: str = "\\", *, keep_quotes: bool = False) -> Expanded:
    """As :func:`expand`, with all that there is to know about it."""
    lexer = _Lexer(word, values, _Rules("\\" if keep_quotes else escape, quotes=not keep_quotes))
    return lexer.run()


def split_shell_words(line: str, *, raw: bool = True) -> list[str]:
    """The words of a line for a shell: the variables that are not set stay as they are.

    :param raw: quotes and escapes stay in the words. :raises ExpansionError: an open quote, a substitution that is not known.
    """
    return _Lexer(line, {}, _Rules("\\", raw_quotes=raw, raw_escapes=raw, keep_unset=True)).run().words


@dataclass
class _Rules:
    escape: str
    quotes: bool = True
    raw_quotes: bool = False
    raw_escapes: bool = False
    keep_unset: bool = False


@dataclass
class _Words:
    """Collects words: blanks outside quotes split. A word of quotes alone is none (BuildKit)."""

    done: list[str] = field(default_factory=list)
    word: list[str] = field(default_factory=list)

    def text(self, text: str) -> None:
        start = 0
        for blank in _BLANK.finditer(text):
            self.quoted(text[start:blank.start()])
            self.end()
            start = blank.end()
        self.quoted(text[start:])

    def quoted(self, text: str) -> None:
        if text:
            self.word.append(text)

    def end(self) -> None:
        if self.word:
            self.done.append("".join(self.word))
            self.word = []


class _Lexer:
    def __init__(self, text: str, values: Mapping[str, str], rules: _Rules) -> None:
        self.text, self.values, self.rules = text, values, rules
        self.at, self.depth, self.raw_escapes = 0, 0, rules.raw_escapes
        self.found: set[str] = set()
        self.missing: set[str] = set()

    def run(self) -> Expanded:
        words = _Words()
        result = self.until("", words, self.rules.raw_escapes)
        words.end()
        return Expanded(result, words.done, frozenset(self.found), frozenset(self.missing))

    def peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def take(self) -> str:
        char = self.peek()
        self.at += 1
        return char

    def until(self, stop: str, words: _Words, raw_escapes: bool) -> str:
        """Text up to ``stop`` (which is taken too); ``raw_escapes`` keeps escapes, for a pattern that has its own."""
        before, self.raw_escapes = self.raw_escapes, raw_escapes
        out: list[str] = []
        while char := self.peek():
            if char == stop:
                self.at += 1
                self.raw_escapes = before
                return "".join(out)
            if plain := _PLAIN.match(self.text, self.at):
                words.text(piece := plain[0])
                self.at = plain.end()
            elif char == "'" and self.rules.quotes:
                words.quoted(piece := self.single())
            elif char == '"' and self.rules.quotes:
                words.quoted(piece := self.double())
            elif char == "$":
                words.text(piece := self.dollar())
            elif char == "<":
                # << keeps the blanks after it: a here-document's name may stand apart (so may what is shifted, to BuildKit)
                words.quoted(piece := self.shift())
            elif char == self.rules.escape:
                self.at += 1
                piece = (char if raw_escapes else "") + self.take()  # at the very end an escape vanishes
                words.quoted(piece)
            else:
                self.at += 1
                words.text(piece := char)
            out.append(piece)
        if stop:
            raise ExpansionError(f"the substitution has no closing {stop!r}: {_shown(self.text)}", "write ${NAME}, or escape the $")
        return "".join(out)

    def shift(self) -> str:
        start, self.at = self.at, self.at + 1
        if self.peek() == "<":
            self.at += 1
            while self.peek() in ("\t", "\r", " "):
                self.at += 1
        return self.text[start:self.at]

    def single(self) -> str:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise ExpansionError(f"the single quote has no end: {_shown(self.text)}", "close it, or escape it")
        kept = self.rules.raw_quotes
        piece, self.at = self.text[self.at + (not kept):end + kept], end + 1
        return piece

    def double(self) -> str:
        self.at += 1
        out: list[str] = ['"'] if self.rules.raw_quotes else []
        while char := self.peek():
            if char == "$":
                out.append(self.dollar())
                continue
            if plain := _PLAIN.match(self.text, self.at):
                out.append(plain[0])
                self.at = plain.end()
                continue
            self.at += 1
            if char == '"':
                return "".join(out) + ('"' if self.rules.raw_quotes else "")
            if char == self.rules.escape:
                # Inside double quotes the escape works only on these (as in sh); before others it stays.
                out.append(char if self.raw_escapes else "")
                if self.peek() in ('"', "$", char):
                    char = self.take()
            out.append(char)
        raise ExpansionError(f"the double quote has no end: {_shown(self.text)}", "close it, or escape it")

    def value(self, name: str) -> str | None:
        value = self.values.get(name)
        (self.missing if value is None else self.found).add(name)
        return value

    def dollar(self) -> str:
        self.at += 1
        if self.peek() != "{":
            name = self.name()
            if not name:
                return "$"
            value = self.value(name)
            return value if value is not None else "$" + name if self.rules.keep_unset else ""
        self.at += 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpansionError(f"substitutions are nested more than {MAX_DEPTH} deep", "use an ARG or ENV in between")
        try:
            return self.braces()
        finally:
            self.depth -= 1

    def braces(self) -> str:
        if self.peek() in ("{", "}", ":"):
            raise ExpansionError(f"bad substitution: {_shown(self.text)}", "a variable's name must follow ${")
        name = self.name()
        modifier = written = self.take()
        if not modifier:
            raise self.unclosed()
        if modifier == "}":
            value = self.value(name)
            return value if value is not None else f"${{{name}}}" if self.rules.keep_unset else ""
        if modifier == "/":
            return self.replaced(name)
        if modifier == ":":
            modifier = self.take()
            written += modifier
        if modifier not in ("+", "-", "?", "#", "%") or written in (":#", ":%"):
            if not modifier:
                raise self.unclosed()
            raise ExpansionError(f"unsupported modifier {written!r} in ${{{name}{written}…}}", "known are :- - :+ + :? ? # ## % %% / //")
        word = self.until("}", _Words(), modifier in ("#", "%"))
        value = self.value(name)
        if value is None and self.rules.keep_unset:
            return f"${{{name}{written}{word}}}"
        if modifier in ("#", "%"):
            return self.trimmed(modifier, word, value or "")
        return _default(name, modifier, word, value, written.startswith(":"))

    def unclosed(self) -> ExpansionError:
        return ExpansionError(f"the substitution has no closing '}}': {_shown(self.text)}", "write ${NAME}, or escape the $")

    def trimmed(self, modifier: str, word: str, value: str) -> str:
        longest = word.startswith(modifier)
        try:
            return patterns.trim(word[1:] if longest else word, value, suffix=modifier == "%", longest=longest)
        except ValueError as error:
            raise _bad_pattern(word, error) from None

    def replaced(self, name: str) -> str:
        every = self.peek() == "/"
        self.at += every
        pattern = self.until("/", _Words(), True)
        replacement = self.until("}", _Words(), True)
        value = self.value(name)
        if value is None and self.rules.keep_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        try:
            return patterns.replace(pattern, replacement, value or "", every=every)
        except ValueError as error:
            raise _bad_pattern(pattern, error) from None

    def name(self) -> str:
        """A name, a positional number, or one of the shell's special parameters (all of which are unset here)."""
        start = self.at
        first = self.peek()
        if first.isdecimal():
            while self.peek().isdecimal():
                self.at += 1
        elif first and first in "@*#!?-$":
            self.at += 1
        else:
            while (char := self.peek()) and (char.isalpha() or char.isdecimal() or char == "_"):
                self.at += 1
        return self.text[start:self.at]


def _default(name: str, modifier: str, word: str, value: str | None, empty_is_unset: bool) -> str:
    missing = value is None or (empty_is_unset and not value)
    if modifier == "-":
        return word if missing else value or ""
    if modifier == "+":
        return "" if missing else word
    if missing:
        what = "is not allowed to be unset" if value is None else "is not allowed to be empty"
        raise ExpansionError(f"{name}: {word or what}", f"set it with ARG or ENV before, or with --build-arg {name}=VALUE after ARG {name}")
    return value or ""


def _bad_pattern(pattern: str, error: ValueError) -> ExpansionError:
    what = f"invalid escape {str(error)!r} in the pattern {_shown(pattern)}"
    return ExpansionError(what, "a backslash goes before *, ?, /, } and itself")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:199] + "…")
