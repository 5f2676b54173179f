"""Variables, quotes and escapes in arguments, by the rules of BuildKit's shell lexer.

https://docs.docker.com/reference/dockerfile/#environment-replacement: ``$x``, ``${x}``, ``${x:-w}``, ``-``, ``:+``, ``+``,
``:?``, ``?``, ``#``, ``##``, ``%``, ``%%``, ``/`` and ``//``. Patterns know ``*``, ``?`` and the escape. Matching walks over a
set of states, so that no pattern is slow (a regular expression of a stranger's could take for ever).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import ContainersError

MAX_DEPTH = 50
"""Nested substitutions (``${a:-${b:-…}}``) allowed. Far more than anybody writes, far less than Python's stack."""


class ExpansionError(ContainersError):
    """A substitution that is malformed, or a variable that must be set and is not. The caller knows the line."""


def expand(word: str, values: Mapping[str, str], escape: str = "\\", *, keep_quotes: bool = False) -> str:
    """The word with its variables replaced and one level of quotes and escapes taken off.

    :param keep_quotes: quotes are ordinary text (the content of a here-document).
    :raises ExpansionError: for a malformed substitution, an open quote, or ``${x?message}`` where x is not set.
    """
    return _Lexer(word, values, escape, keep_quotes).run()[0]


def expand_words(word: str, values: Mapping[str, str], escape: str = "\\") -> list[str]:
    """As :func:`expand`, and split at blanks that are neither quoted nor escaped; an unquoted variable's value splits too."""
    return _Lexer(word, values, escape, False).run()[1]


class _Words:
    """Collects words: blanks outside quotes split, quoted text makes a word even when it is empty."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.word: list[str] = []
        self.started = False

    def text(self, text: str) -> None:
        for char in text:
            if char.isspace():
                self.end()
            else:
                self.quoted(char)

    def quoted(self, text: str) -> None:
        self.word.append(text)
        self.started = True

    def end(self) -> None:
        if self.started:
            self.done.append("".join(self.word))
        self.word, self.started = [], False


class _Lexer:
    def __init__(self, text: str, values: Mapping[str, str], escape: str, keep_quotes: bool) -> None:
        self.text, self.values, self.escape, self.keep_quotes = text, values, escape, keep_quotes
        self.at, self.depth = 0, 0

    def run(self) -> tuple[str, list[str]]:
        words = _Words()
        result = self.until("", words)
        words.end()
        return result, words.done

    def peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def take(self) -> str:
        char = self.peek()
        self.at += 1
        return char

    def until(self, stop: str, words: _Words, raw_escapes: bool = False) -> str:
        """Text up to ``stop`` (which is taken too); ``raw_escapes`` keeps escapes, for a pattern that has its own."""
        out: list[str] = []
        while char := self.peek():
            if char == stop:
                self.at += 1
                return "".join(out)
            if char == "'" and not self.keep_quotes:
                words.quoted(piece := self.single())
            elif char == '"' and not self.keep_quotes:
                words.quoted(piece := self.double())
            elif char == "$":
                words.text(piece := self.dollar())
            else:
                self.at += 1
                if char == self.escape:
                    following = self.take()
                    if not following:
                        break  # an escape at the very end vanishes (BuildKit)
                    piece = char + following if raw_escapes or (self.keep_quotes and following not in ("$", char)) else following
                    words.quoted(piece)
                else:
                    words.text(piece := char)
            out.append(piece)
        if stop:
            raise ExpansionError(f"the substitution has no closing {stop!r}: {self.text!r}", "write ${NAME}, or escape the $")
        return "".join(out)

    def single(self) -> str:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise ExpansionError(f"the single quote has no end: {self.text!r}", "close it, or escape it")
        piece, self.at = self.text[self.at + 1:end], end + 1
        return piece

    def double(self) -> str:
        self.at += 1
        out: list[str] = []
        while char := self.peek():
            if char == "$":
                out.append(self.dollar())
                continue
            self.at += 1
            if char == '"':
                return "".join(out)
            if char == self.escape:
                following = self.take()
                # Inside double quotes the escape works only on these (as in sh); before others it stays.
                out.append(following if following in ('"', "$", self.escape) else char + following)
            else:
                out.append(char)
        raise ExpansionError(f"the double quote has no end: {self.text!r}", "close it, or escape it")

    def dollar(self) -> str:
        self.at += 1
        if self.peek() != "{":
            name = self.name()
            return self.values.get(name, "") if name else "$"
        self.at += 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpansionError(f"substitutions are nested more than {MAX_DEPTH} deep", "use an ARG or ENV in between")
        try:
            return self.braces()
        finally:
            self.depth -= 1

    def braces(self) -> str:
        name = self.name()
        if not name:
            raise ExpansionError(f"bad substitution: {self.text!r}", "a variable's name must follow ${")
        modifier = self.take()
        if modifier == "}":
            return self.values.get(name, "")
        if not modifier:
            raise ExpansionError(f"the substitution has no closing '}}': {self.text!r}", "write ${NAME}, or escape the $")
        empty_is_unset = modifier == ":"
        if empty_is_unset:
            modifier = self.take()
        value = self.values.get(name)
        if modifier in ("-", "+", "?") and modifier:
            word = self.until("}", _Words())
            return _default(name, modifier, word, value, empty_is_unset)
        if modifier in ("#", "%") and modifier and not empty_is_unset:
            return self.trim(modifier, value or "")
        if modifier == "/" and not empty_is_unset:
            return self.replace(value or "")
        written = (":" if empty_is_unset else "") + modifier
        raise ExpansionError(f"unsupported modifier {written!r} in ${{{name}{written}…}}", "known are :- - :+ + :? ? # ## % %% / //")

    def trim(self, modifier: str, value: str) -> str:
        pattern = self.until("}", _Words(), raw_escapes=True)
        longest = pattern.startswith(modifier)
        tokens = _tokens(pattern[1:] if longest else pattern, self.escape)
        choose: Callable[[list[int]], int] = max if longest else min
        if modifier == "#":
            ends = _ends(tokens, value, 0)
            return value[choose(ends):] if ends else value
        # A suffix is a prefix of the text read backwards.
        ends = _ends(tokens[::-1], value[::-1], 0)
        return value[:len(value) - choose(ends)] if ends else value

    def replace(self, value: str) -> str:
        every = self.peek() == "/"
        self.at += every
        pattern = _tokens(self.until("/", _Words(), raw_escapes=True), self.escape)
        replacement = self.until("}", _Words())
        out: list[str] = []
        at = 0
        while at < len(value):
            ends = _ends(pattern, value, at)
            if not ends or max(ends) == at:
                out.append(value[at])
                at += 1
                continue
            out.append(replacement)
            at = max(ends)
            if not every:
                break
        return "".join(out) + value[at:]

    def name(self) -> str:
        """A name, a positional number, or one of the shell's special parameters (all of which are unset here)."""
        start = self.at
        first = self.peek()
        if first and (first.isalpha() or first == "_"):
            while (char := self.peek()) and (char.isalnum() or char == "_"):
                self.at += 1
        elif first.isdigit():
            while self.peek().isdigit():
                self.at += 1
        elif first and first in "@*#!?-$":
            self.at += 1
        return self.text[start:self.at]


def _default(name: str, modifier: str, word: str, value: str | None, empty_is_unset: bool) -> str:
    missing = value is None or (empty_is_unset and not value)
    if modifier == "-":
        return word if missing else value or ""
    if modifier == "+":
        return "" if missing else word
    if missing:
        what = "not allowed to be unset" if value is None else "not allowed to be empty"
        raise ExpansionError(f"{name}: {word or what}", f"set it with ARG or ENV before, or with --build-arg {name}=VALUE after ARG {name}")
    return value or ""


_MANY, _ONE = "*", "?"
_Token = tuple[str, str]
"""A kind (``*``, ``?`` or ``""`` for a literal) and the literal character."""


def _tokens(pattern: str, escape: str) -> list[_Token]:
    tokens: list[_Token] = []
    chars = iter(pattern)
    for char in chars:
        if char == escape:
            tokens.append(("", next(chars, escape)))
        elif char in (_MANY, _ONE):
            if not (char == _MANY and tokens and tokens[-1][0] == _MANY):
                tokens.append((char, char))
        else:
            tokens.append(("", char))
    return tokens


def _ends(tokens: list[_Token], text: str, start: int) -> list[int]:
    """Every offset at which a match that begins at ``start`` can end."""
    states = _skip({0}, tokens)
    ends = [start] if len(tokens) in states else []
    for offset in range(start, len(text)):
        following = set()
        for state in states:
            if state == len(tokens):
                continue
            kind, literal = tokens[state]
            if kind == _MANY:
                following.add(state)
            elif kind == _ONE or literal == text[offset]:
                following.add(state + 1)
        if not following:
            break
        states = _skip(following, tokens)
        if len(tokens) in states:
            ends.append(offset + 1)
    return ends


def _skip(states: set[int], tokens: list[_Token]) -> set[int]:
    """With every state after a ``*`` that may match nothing."""
    reached = set(states)
    for state in states:
        while state < len(tokens) and tokens[state][0] == _MANY:
            state += 1
            reached.add(state)
    return reached
