"""``.dockerignore`` with its exact semantics (https://docs.docker.com/build/concepts/context/#dockerignore-files, moby/patternmatcher).

Of the patterns that match a path *or one of its parents* the last decides (almost: see :meth:`Ignore.step`); ``!`` includes again;
``**`` crosses folders; ``*`` and ``?`` stay inside one. Patterns with many wildcards are matched by a walk over a set of states: a
regular expression could take for ever.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..errors import BuildError, ContainersError

Matched = tuple[bool, ...]
"""For each run of patterns that say the same: did one of them match the path, or a parent of it?"""

KEEP, PERHAPS, DROP = range(3)
"""What becomes of a path: PERHAPS is an excluded folder in which something may be included again."""


class PatternError(ContainersError):
    """A pattern that is malformed."""


@dataclass(frozen=True)
class Pattern:
    text: str
    negated: bool


class _Group:
    """Patterns that stand together and say the same: whether one of them matches is all that counts, and is found at once."""

    def __init__(self, patterns: list[str], negated: bool) -> None:
        self.negated = negated
        self._whole: set[str] = set()
        ends, sources = [], []
        self._others: list[Callable[[str], bool]] = []
        for pattern in patterns:
            end = _suffix(pattern)
            tokens = _tokens(pattern, True)
            if end:
                ends.append(end)
                self._whole.update([end[1:]] if end.startswith("/") else [])
            elif all(kind == _LITERAL for kind, _ in tokens):
                self._whole.add("".join(text for _, text in tokens))
            elif source := _source(tokens):
                sources.append(source)
            else:
                self._others.append(_Walk(tokens))
        self._ends = tuple(ends)
        self._expression = re.compile("|".join(f"(?:{source})" for source in sources), re.DOTALL).fullmatch if sources else None

    def matches(self, path: str) -> bool:
        if path in self._whole or path.endswith(self._ends):
            return True
        if self._expression is not None and self._expression(path) is not None:
            return True
        return any(matches(path) for matches in self._others)


class Ignore:
    """The patterns of one file. Paths are relative to the context, without a leading slash."""

    def __init__(self, text: str = "", name: str = ".dockerignore") -> None:
        """:raises BuildError: a pattern that is malformed, with its line in the file."""
        self.patterns: list[Pattern] = []
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            if line.startswith("#") or not (pattern := line.strip()):
                continue
            try:
                self._add(pattern)
            except PatternError as error:
                raise BuildError(f"{name} line {number}: {error.message}", error.hint) from None
        self._gather()

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Ignore:
        """Patterns of ``--exclude``. :raises PatternError: one is malformed."""
        made = cls()
        for pattern in patterns:
            if pattern.strip():
                made._add(pattern.strip(), rooted=True)
        made._gather()
        return made

    def _add(self, pattern: str, rooted: bool = False) -> None:
        """``rooted``: a slash at the beginning stays, and then nothing matches: so does BuildKit with ``--exclude``."""
        negated = pattern.startswith("!")
        pattern = pattern[1:].strip() if negated else pattern
        if not pattern:
            raise PatternError("'!' without a pattern", "write !PATTERN, or remove the line")
        pattern = _clean(pattern, rooted)
        if pattern == ".":  # ignored for historical reasons, says Docker's page
            return
        _tokens(pattern, True)  # is it well formed?
        self.patterns.append(Pattern(pattern, negated))

    def _gather(self) -> None:
        self.has_exceptions = any(pattern.negated for pattern in self.patterns)
        runs = itertools.groupby(self.patterns, lambda pattern: pattern.negated)
        self._groups = [_Group([pattern.text for pattern in run], negated) for negated, run in runs]

    def start(self, path: str) -> Matched:
        """What matches ``path``, parents included."""
        matched: Matched = (False,) * len(self._groups)
        if path:
            parts = path.split("/")
            for index in range(1, len(parts) + 1):
                matched = self.step(matched, "/".join(parts[:index]))
        return matched

    def step(self, parent: Matched, path: str) -> Matched:
        """What matches ``path``, given what matched its parent."""
        hits, excluded = [], False
        for group, above in zip(self._groups, parent, strict=True):
            # Patterns that would change nothing are not asked, and then do not count for what is below either: so a `!` of a folder that
            # nothing excludes does not include again what is excluded in it. moby/patternmatcher has it like that.
            hit = above or (group.negated == excluded and group.matches(path))
            hits.append(hit)
            if hit:
                excluded = not group.negated
        return tuple(hits)

    def excluded(self, matched: Matched) -> bool:
        for group, hit in zip(reversed(self._groups), reversed(matched), strict=True):
            if hit:
                return not group.negated
        return False

    def reaches_into(self, path: str) -> bool:
        """May a ``!`` pattern match something below the folder ``path``?"""
        parts = path.split("/")
        return any(pattern.negated and reaches(pattern.text.split("/"), parts) for pattern in self.patterns)


def reaches(pattern: list[str], path: list[str]) -> bool:
    """May a pattern match something below the folder ``path``? Both by their parts."""
    for wanted, part in zip(pattern, path, strict=False):
        if "**" in wanted:
            return True
        if not path_matcher(wanted)(part):
            return False
    return len(pattern) > len(path)


def has_wildcard(pattern: str) -> bool:
    """Is there a ``*``, ``?`` or ``[`` that no backslash escapes?"""
    escaped = False
    for char in pattern:
        if not escaped and char in "*?[":
            return True
        escaped = not escaped and char == "\\"
    return False


class Filter:
    """Patterns on the way through a tree.

    :param top: the path of where the way begins, as the patterns see it ("" is their own root).
    :param spared: paths that no pattern can hide.
    """

    def __init__(self, ignore: Ignore, top: str = "", spared: frozenset[str] = frozenset()) -> None:
        self.ignore, self.top, self._spared = ignore, top.strip("/"), spared
        self._above_spared = {"/".join(parts[:count]) for parts in (path.split("/") for path in spared) for count in range(1, len(parts))}

    def start(self) -> Matched:
        return self.ignore.start(self.top)

    def step(self, matched: Matched, relative: str, folder: bool) -> tuple[Matched, int]:
        """What matches the path ``relative`` to the top, whose folder's is ``matched``; and what becomes of it."""
        path = f"{self.top}/{relative}" if self.top else relative
        after = self.ignore.step(matched, path)
        return after, self.verdict(after, path, folder)

    def verdict(self, matched: Matched, path: str, folder: bool) -> int:
        if not self.ignore.excluded(matched) or path in self._spared:
            return KEEP
        if folder and (path in self._above_spared or (self.ignore.has_exceptions and self.ignore.reaches_into(path))):
            return PERHAPS
        return DROP


def _clean(pattern: str, rooted: bool) -> str:
    """Go's ``filepath.Clean``, then (unless ``rooted``) without one leading slash."""
    cleaned = posixpath.normpath(pattern)
    if cleaned.startswith("//"):  # POSIX lets two slashes stand; Go does not
        cleaned = cleaned[1:]
    return cleaned[1:] if len(cleaned) > 1 and cleaned.startswith("/") and not rooted else cleaned


def path_matcher(pattern: str) -> Callable[[str], bool]:
    """A pattern of .dockerignore. :raises PatternError: it is malformed."""
    return _Group([pattern], False).matches


def _suffix(pattern: str) -> str:
    """What a path has to end with, where that is all: ``**`` at the very beginning before nothing but plain characters. So ``**foo``
    matches ``a/xfoo``, and ``**/foo`` matches ``foo`` too.
    """
    plain = pattern[2:]
    return plain if pattern.startswith("**") and not any(char in plain for char in "*?[]\\") else ""


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
        elif char == "\\":
            if at >= size:
                raise PatternError(f"malformed pattern {pattern!r}", "a \\ at the end escapes nothing")
            tokens.append((_LITERAL, pattern[at]))
            at += 1
        elif char == "[":
            text, at = _class_at(pattern, at)
            tokens.append((_CLASS, text))
        else:
            tokens.append((_LITERAL, char))
    return tokens


def _class_at(pattern: str, at: int) -> tuple[str, int]:
    """The character class whose ``[`` stands just before ``at``, as a regular expression's; and where it ends.

    As Go has it: ``[`` [``^``] one or more of C, ``\\``C, FROM``-``TO ``]``; ``-`` and ``]`` mean themselves only behind a backslash.

    :raises PatternError: it is none.
    """
    def one(at: int) -> tuple[str, int]:
        char = pattern[at : at + 1]
        if char == "\\":
            at += 1
            char = pattern[at : at + 1]
        elif char in "-]":
            char = ""
        if not char:
            raise PatternError(f"malformed pattern {pattern!r}", "close the [, or write \\[")
        return char, at + 1

    negated = pattern.startswith("^", at)
    at += negated
    parts: list[str] = []
    while not (parts and pattern.startswith("]", at)):
        first, at = one(at)
        last = first
        if pattern.startswith("-", at):
            last, at = one(at + 1)
        if last < first:
            raise PatternError(f"malformed pattern {pattern!r}", "a range goes from the lower character to the higher")
        parts.append(f"{re.escape(first)}-{re.escape(last)}")
    return ("[^" if negated else "[") + "".join(parts) + "]", at + 1


_EXPRESSION = {_ONE: "[^/]", _STAR: "[^/]*", _ANY: ".*", _ENTRY: "", _FOLDERS: "(?:.*/)?"}


def matcher(pattern: str, crossing: bool) -> Callable[[str], bool]:
    """Does a path match? ``crossing``: ``**`` crosses slashes; otherwise it is ``*`` (Go's ``filepath.Match``).

    :raises PatternError: a character class without an end.
    """
    tokens = _tokens(pattern, crossing)
    if all(kind == _LITERAL for kind, _ in tokens):
        return "".join(text for _, text in tokens).__eq__
    source = _source(tokens)
    if source:
        compiled = re.compile(source, re.DOTALL).fullmatch
        return lambda path: compiled(path) is not None
    return _Walk(tokens)


def _source(tokens: list[_Token]) -> str:
    """As a regular expression, "" where that could take for ever."""
    if sum(kind in (_STAR, _ANY, _FOLDERS) for kind, _ in tokens) > 2:
        return ""
    return "".join(re.escape(text) if kind == _LITERAL else text if kind == _CLASS else _EXPRESSION[kind] for kind, text in tokens)


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
