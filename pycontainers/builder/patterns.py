"""Patterns of ``${x#p}``, ``${x%p}`` and ``${x/p/r}``: ``*`` and ``?`` alone, as in BuildKit; neither matches a newline there.

A pattern is run over all its states at a time, as bits of one number: no pattern of a stranger's takes longer than its length times
the text's (a regular expression could take for ever).
"""

from __future__ import annotations

MANY, ONE = "*", "?"
Token = tuple[str, str]
"""A kind (``*``, ``?`` or ``""`` for a literal) and the literal character."""


def tokens(pattern: str) -> list[Token]:
    """:raises ValueError: an escape before what needs none. The escape is a backslash, whatever the Dockerfile's is (BuildKit)."""
    found: list[Token] = []
    chars = iter(pattern)
    for char in chars:
        if char == "\\":
            escaped = next(chars, "")
            if escaped not in ("}", "/", MANY, ONE, "\\") or not escaped:
                raise ValueError(f"\\{escaped}")
            found.append(("", escaped))
        elif char not in (MANY, ONE):
            found.append(("", char))
        elif char == ONE or not found or found[-1][0] != MANY:
            found.append((char, char))
    return found


class Automaton:
    """Bit n of a state: the first n tokens have matched."""

    def __init__(self, pattern: list[Token]) -> None:
        self.size = len(pattern)
        self.many = sum(1 << index for index, (kind, _) in enumerate(pattern) if kind == MANY)
        self.one = sum(1 << index for index, (kind, _) in enumerate(pattern) if kind == ONE)
        self.literals: dict[str, int] = {}
        for index, (kind, char) in enumerate(pattern):
            if not kind:
                self.literals[char] = self.literals.get(char, 0) | 1 << index
        self.first = self._skip(1)

    def _skip(self, state: int) -> int:
        return state | (state & self.many) << 1  # what may match nothing is passed (two in a row were made one)

    def step(self, state: int, char: str) -> int:
        taken = state & self.literals.get(char, 0)
        if char == "\n":
            return self._skip(taken << 1)
        return self._skip((taken | state & self.one) << 1 | state & self.many)

    def done(self, state: int) -> bool:
        return bool(state >> self.size & 1)

    def ends(self, text: str, start: int) -> list[int]:
        """Every offset at which a match that begins at ``start`` can end."""
        state = self.first
        found = [start] if self.done(state) else []
        for offset in range(start, len(text)):
            state = self.step(state, text[offset])
            if not state:
                break
            if self.done(state):
                found.append(offset + 1)
        return found


def starts(pattern: list[Token], text: str) -> list[bool]:
    """For each offset, and the end: can a match begin there? The reversed pattern is tried from every offset in one go."""
    backwards = Automaton(pattern[::-1])
    state = backwards.first
    found = [backwards.done(state)]
    for char in reversed(text):
        state = backwards.step(state, char) | backwards.first
        found.append(backwards.done(state))
    return found[::-1]


def trim(pattern: str, value: str, *, suffix: bool, longest: bool) -> str:
    """``value`` without what the pattern matches at its beginning, or at its end. :raises ValueError: as :func:`tokens`."""
    parts = tokens(pattern)
    if suffix:  # a suffix is a prefix of the text read backwards
        parts, value = parts[::-1], value[::-1]
    ends = Automaton(parts).ends(value, 0)
    if ends:
        value = value[max(ends) if longest else min(ends):]
    return value[::-1] if suffix else value


def replace(pattern: str, replacement: str, value: str, *, every: bool) -> str:
    """The leftmost longest match replaced, or every one from left to right. :raises ValueError: as :func:`tokens`."""
    parts = tokens(pattern)
    automaton, begins = Automaton(parts), starts(parts, value)
    out: list[str] = []
    copied, at, last = 0, 0, -1
    while at <= len(value):
        if not begins[at]:
            at += 1
            continue
        end = max(automaton.ends(value, at))
        if end == at == last:  # nothing, right after a match, is no match of its own (Go's regexp package)
            at += 1
            continue
        out += [value[copied:at], replacement]
        copied = last = end
        at = max(end, at + (end == at))
        if not every:
            break
    return "".join(out) + value[copied:]
