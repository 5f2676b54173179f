"""``.dockerignore`` with its exact semantics (https://docs.docker.com/build/concepts/context/#dockerignore-files, moby/patternmatcher).

The last pattern that matches a path *or one of its parents* decides; ``!`` includes again; ``**`` crosses folders; ``*`` and ``?``
stay inside one. Patterns with many wildcards are matched by a walk over a set of states: a regular expression could take for ever.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import BuildError

Matched = tuple[bool, ...]
"""For each pattern: does it match the path, or a parent of it?"""


@dataclass(frozen=True)
class Pattern:
    text: str
    negated: bool
    matches: Callable[[str], bool]


class Ignore:
    """The patterns of one file. Paths are relative to the context, without a leading slash."""

    def __init__(self, text: str = "") -> None:
        """:raises BuildError: a pattern that is malformed, with its line in .dockerignore."""
        self.patterns: list[Pattern] = []
        for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
            if line.startswith("#") or not (pattern := line.strip()):
                continue
            negated = pattern.startswith("!")
            pattern = pattern[1:].strip() if negated else pattern
            if not pattern:
                raise BuildError(f".dockerignore line {number}: '!' without a pattern", "write !PATTERN, or remove the line")
            pattern = _clean(pattern)
            if pattern == ".":  # ignored for historical reasons, says Docker's page
                continue
            try:
                self.patterns.append(Pattern(pattern, negated, matcher(pattern, True)))
            except re.error:
                raise BuildError(f".dockerignore line {number}: malformed pattern {pattern!r}", "close the [, or write \\[") from None
        self.has_exceptions = any(pattern.negated for pattern in self.patterns)

    def start(self, path: str) -> Matched:
        """What matches ``path``, parents included."""
        matched: Matched = (False,) * len(self.patterns)
        if path:
            parts = path.split("/")
            for index in range(1, len(parts) + 1):
                matched = self.step(matched, "/".join(parts[:index]))
        return matched

    def step(self, parent: Matched, path: str) -> Matched:
        """What matches ``path``, given what matched its parent."""
        return tuple(above or pattern.matches(path) for above, pattern in zip(parent, self.patterns, strict=True))

    def excluded(self, matched: Matched) -> bool:
        result = False
        for pattern, hit in zip(self.patterns, matched, strict=True):
            if hit:
                result = not pattern.negated
        return result


def _clean(pattern: str) -> str:
    """Go's ``filepath.Clean``, then without one leading slash."""
    cleaned = posixpath.normpath(pattern)
    if cleaned.startswith("//"):  # POSIX lets two slashes stand; Go does not
        cleaned = cleaned[1:]
    return cleaned[1:] if len(cleaned) > 1 and cleaned.startswith("/") else cleaned


_LITERAL, _ONE, _STAR, _CLASS, _ANY, _ENTRY, _FOLDERS = range(7)
_Token = tuple[int, str]


def _tokens(pattern: str, crossing: bool) -> list[_Token]:
    """``**/`` (or ``**`` inside) is "nothing, or anything up to a slash"; ``**`` at the end is anything."""
    tokens: list[_Token] = []
    at, size = 0, len(pattern)
    while at < size:
        char = pattern[at]
        at += 1
        if crossing and char == "*" and pattern.startswith("*", at):
            at += 1
            if pattern.startswith("/", at):
                at += 1
            tokens.extend([(_ANY, "")] if at >= size else [(_ENTRY, ""), (_FOLDERS, "")])
        elif char == "*":
            if not (tokens and tokens[-1][0] == _STAR):
                tokens.append((_STAR, ""))
        elif char == "?":
            tokens.append((_ONE, ""))
        elif char == "\\" and at < size:
            tokens.append((_LITERAL, pattern[at]))
            at += 1
        elif char == "[":
            tokens.append((_CLASS, text := _class_at(pattern, at)))
            at += len(text) - 1
        else:
            tokens.append((_LITERAL, char))
    return tokens


def _class_at(pattern: str, at: int) -> str:
    """The character class whose ``[`` stands just before ``at``, as a regular expression's. :raises re.error: it has no end."""
    end = at + 1 if pattern.startswith("^", at) else at
    first = end
    while end < len(pattern) and (pattern[end] != "]" or end == first):
        end += 2 if pattern[end] == "\\" else 1
    text = "[" + pattern[at:end + 1]
    if end >= len(pattern) or end == first:
        raise re.error(f"unterminated character class in {pattern!r}")
    re.compile(text)
    return text


_EXPRESSION = {_ONE: "[^/]", _STAR: "[^/]*", _ANY: ".*", _ENTRY: "", _FOLDERS: "(?:.*/)?"}


def matcher(pattern: str, crossing: bool) -> Callable[[str], bool]:
    """Does a path match? ``crossing``: ``**`` crosses slashes; otherwise it is ``*`` (Go's ``filepath.Match``).

    :raises re.error: a character class without an end.
    """
    tokens = _tokens(pattern, crossing)
    if all(kind == _LITERAL for kind, _ in tokens):
        return "".join(text for _, text in tokens).__eq__
    if sum(kind in (_STAR, _ANY, _FOLDERS) for kind, _ in tokens) <= 2:
        source = "".join(re.escape(text) if kind == _LITERAL else text if kind == _CLASS else _EXPRESSION[kind] for kind, text in tokens)
        compiled = re.compile(source, re.DOTALL).fullmatch
        return lambda path: compiled(path) is not None
    return _Walk(tokens)


class _Walk:
    """Matches by the set of states that a path can be in: time is length of path times length of pattern, always."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.classes = {text: re.compile(text) for kind, text in tokens if kind == _CLASS}

    def __call__(self, path: str) -> bool:
        states = self._reach({0})
        for char in path:
            states = self._reach({after for state in states for after in self._after(state, char)})
            if not states:
                return False
        return len(self.tokens) in states

    def _reach(self, states: set[int]) -> set[int]:
        pending, reached = list(states), set(states)
        while pending:
            state = pending.pop()
            kind = self.tokens[state][0] if state < len(self.tokens) else _LITERAL
            steps = {_STAR: (state + 1,), _ANY: (state + 1,), _ENTRY: (state + 1, state + 2)}.get(kind, ())
            for step in steps:
                if step not in reached:
                    reached.add(step)
                    pending.append(step)
        return reached

    def _after(self, state: int, char: str) -> tuple[int, ...]:
        if state >= len(self.tokens):
            return ()
        kind, text = self.tokens[state]
        if kind == _ANY:
            return (state,)
        if kind == _FOLDERS:
            return (state, state + 1) if char == "/" else (state,)
        if kind == _STAR:
            return (state,) if char != "/" else ()
        if kind == _ONE:
            return (state + 1,) if char != "/" else ()
        if kind == _CLASS:
            return (state + 1,) if self.classes[text].fullmatch(char) else ()
        return (state + 1,) if kind == _LITERAL and text == char else ()
