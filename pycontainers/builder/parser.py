"""Dockerfile text to raw instructions with positions. Knows lines, not meanings.

The format: https://docs.docker.com/reference/dockerfile/ (sections "Format", "Parser directives", "Here-documents").
Every text gives a :class:`Dockerfile` or a :class:`pycontainers.errors.BuildError`; all scans are linear in the text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from ..errors import BuildError, near

KEYWORDS = (
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD",
    "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)
HEREDOC_KEYWORDS = frozenset({"ADD", "COPY", "RUN"})
DIRECTIVES = frozenset({"escape", "syntax", "check"})
BLANKS = " \t\v\f\r"

_DIRECTIVE = re.compile(r"#[ \t]*([A-Za-z][A-Za-z0-9]*)[ \t]*=(.*)")
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]+)")
_WORD_END = re.compile(r"[ \t\v\f\r]")


@dataclass(frozen=True)
class Flag:
    """``--name`` or ``--name=value`` before the arguments; ``value`` is None without ``=``. Positions are 1-based."""

    name: str
    value: str | None
    line: int
    column: int


@dataclass(frozen=True)
class Heredoc:
    """One here-document. ``expand`` is False where the delimiter is quoted; ``chomp`` (``<<-``) drops leading tabs."""

    name: str
    content: str
    expand: bool
    chomp: bool


@dataclass(frozen=True)
class Raw:
    """One instruction: its keyword in upper case, flags, and the arguments with continuation lines joined.

    ``line`` to ``end_line`` (1-based, inclusive) is where it stands, ``original`` that text as written. ``segments`` holds
    ``(offset in arguments, line, column)`` for each physical line that the arguments were joined from.
    """

    keyword: str
    line: int
    end_line: int
    column: int
    flags: tuple[Flag, ...]
    arguments: str
    heredocs: tuple[Heredoc, ...]
    original: str
    segments: tuple[tuple[int, int, int], ...]
    sources: tuple[str, ...]
    escape: str

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column (1-based) of an offset in ``arguments``."""
        index = max(bisect_right(self.segments, (offset, 1 << 60, 0)) - 1, 0)
        start, line, column = self.segments[index]
        return line, column + max(offset - start, 0)

    def error(self, message: str, hint: str = "", *, offset: int | None = None, flag: Flag | None = None) -> BuildError:
        """An error at this instruction, or at an offset of its arguments, or at one of its flags."""
        line, column = self.line, self.column
        if flag is not None:
            line, column = flag.line, flag.column
        elif offset is not None:
            line, column = self.place(offset)
        return BuildError(message, hint, line=line, column=column, source=self.sources[line - self.line])


@dataclass(frozen=True)
class Dockerfile:
    """A parsed Dockerfile: instructions in order, the directives at its top, and the escape character."""

    instructions: tuple[Raw, ...]
    directives: dict[str, str]
    escape: str


def parse(text: str) -> Dockerfile:
    """Split a Dockerfile into raw instructions.

    :raises BuildError: with line, column and the source line, for an unknown instruction, a bad directive, an
        unterminated here-document or a file without instructions.
    """
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    directives = _directives(lines)
    reader = _Reader(lines, directives.get("escape", "\\"))
    instructions: list[Raw] = []
    while (raw := reader.instruction()) is not None:
        instructions.append(raw)
    if not instructions:
        raise BuildError("the Dockerfile has no instructions", "begin with FROM, for example: FROM host")
    return Dockerfile(tuple(instructions), directives, reader.escape)


def _directives(lines: list[str]) -> dict[str, str]:
    """``# key=value`` lines at the very top. The first line that is none of the known ones ends them (it is a comment)."""
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _DIRECTIVE.fullmatch(line.strip())
        if match is None or (name := match[1].lower()) not in DIRECTIVES:
            break
        value = match[2].strip()
        if name in found:
            raise BuildError(f"directive {name} is given twice", "keep one of them", line=number, column=1, source=line)
        if name == "escape" and value not in ("\\", "`"):
            raise BuildError(f"escape is {value!r}", "it must be \\ or `", line=number, column=1, source=line)
        found[name] = value
    return found


class _Reader:
    """Walks over the physical lines, one instruction at a time."""

    def __init__(self, lines: list[str], escape: str) -> None:
        self.lines, self.escape, self.next = lines, escape, 0

    def instruction(self) -> Raw | None:
        while self.next < len(self.lines) and _skippable(self.lines[self.next]):
            self.next += 1
        if self.next >= len(self.lines):
            return None
        first = self.next
        text, segments = self._join()
        keyword, begin = _keyword(text, first + 1, segments[0][2], self.lines[first])
        place = _Places(segments)
        flags, begin = _flags(text, begin, place, self.escape)
        while begin < len(text) and text[begin] in BLANKS:
            begin += 1
        arguments = text[begin:].rstrip(BLANKS)
        heredocs = self._heredocs(arguments, first) if keyword in HEREDOC_KEYWORDS and "<<" in arguments else ()
        original = "\n".join(self.lines[first:self.next])
        kept = tuple((max(offset - begin, 0), line, column + max(begin - offset, 0)) for offset, line, column in place.covering(begin))
        return Raw(keyword, first + 1, self.next, segments[0][2], flags, arguments, heredocs, original.strip(), kept,
                   tuple(self.lines[first:self.next]), self.escape)

    def _join(self) -> tuple[str, list[tuple[int, int, int]]]:
        """One logical line: continuations joined, comments and empty lines inside them dropped (Docker does both)."""
        line = self.lines[self.next]
        indent = len(line) - len(line.lstrip(BLANKS))
        segments = [(0, self.next + 1, indent + 1)]
        body, more = self._continued(line[indent:])
        parts, length = [body], len(body)
        self.next += 1
        while more and self.next < len(self.lines):
            line = self.lines[self.next]
            self.next += 1
            if _skippable(line):
                continue
            body, more = self._continued(line)
            segments.append((length, self.next, 1))
            parts.append(body)
            length += len(body)
        return "".join(parts), segments

    def _continued(self, line: str) -> tuple[str, bool]:
        """The line without its trailing escape. An escape that is itself escaped does not continue."""
        stripped = line.rstrip(" \t")
        if not stripped.endswith(self.escape) or stripped[-2:-1] == self.escape:
            return line, False
        return stripped[:-1], True

    def _heredocs(self, arguments: str, first: int) -> tuple[Heredoc, ...]:
        found = []
        for word, _ in split_words(arguments, self.escape):
            match = _HEREDOC.fullmatch(word)
            if match is None:
                continue
            name = match[3]
            quoted = len(name) > 1 and name[0] == name[-1] and name[0] in "'\""
            name = name[1:-1] if quoted else name
            if not name or name[0] in "'\"" or any(c.isspace() for c in name):
                continue
            found.append(self._heredoc_body(name, not quoted, match[2] == "-", first))
        return tuple(found)

    def _heredoc_body(self, name: str, expand: bool, chomp: bool, first: int) -> Heredoc:
        content: list[str] = []
        while self.next < len(self.lines):
            line = self.lines[self.next]
            self.next += 1
            bare = line.lstrip("\t") if chomp else line
            if bare == name:
                return Heredoc(name, "".join(content), expand, chomp)
            content.append(bare + "\n")
        column = self.lines[first].find("<<") + 1
        raise BuildError(f"the here-document {name!r} has no end", f"put {name} alone on a line after it",
                         line=first + 1, column=max(column, 1), source=self.lines[first])


class _Places:
    """Offsets in a joined line to places in the file."""

    def __init__(self, segments: list[tuple[int, int, int]]) -> None:
        self.segments = segments

    def of(self, offset: int) -> tuple[int, int]:
        start, line, column = self.segments[max(bisect_right(self.segments, (offset, 1 << 60, 0)) - 1, 0)]
        return line, column + offset - start

    def covering(self, offset: int) -> list[tuple[int, int, int]]:
        """The segments from the one that holds ``offset`` on."""
        return self.segments[max(bisect_right(self.segments, (offset, 1 << 60, 0)) - 1, 0):]


def _skippable(line: str) -> bool:
    stripped = line.strip()
    return not stripped or stripped[0] == "#"


def _keyword(text: str, line: int, column: int, source: str) -> tuple[str, int]:
    match = _WORD_END.search(text)
    end = match.start() if match else len(text)
    word = text[:end]
    keyword = word.upper()
    if keyword not in KEYWORDS:
        hint = near(keyword, KEYWORDS) or f"the instructions are {', '.join(KEYWORDS)}"
        raise BuildError(f"unknown instruction {word[:40]!r}", hint, line=line, column=column, source=source)
    return keyword, end


def _flags(text: str, begin: int, places: _Places, escape: str) -> tuple[tuple[Flag, ...], int]:
    """The leading ``--flag`` words; a bare ``--`` ends them. Quotes and escapes inside are taken off."""
    flags: list[Flag] = []
    while True:
        while begin < len(text) and text[begin] in BLANKS:
            begin += 1
        if not text.startswith("--", begin):
            return tuple(flags), begin
        word, end = _flag_word(text, begin, escape)
        if word == "--":
            return tuple(flags), end
        name, equals, value = word[2:].partition("=")
        line, column = places.of(begin)
        flags.append(Flag(name, value if equals else None, line, column))
        begin = end


def _flag_word(text: str, begin: int, escape: str) -> tuple[str, int]:
    out: list[str] = []
    quote = ""
    while begin < len(text):
        char = text[begin]
        if char == escape and begin + 1 < len(text):
            begin += 1
            out.append(text[begin])
        elif quote:
            if char == quote:
                quote = ""
            else:
                out.append(char)
        elif char in "'\"":
            quote = char
        elif char in BLANKS:
            break
        else:
            out.append(char)
        begin += 1
    return "".join(out), begin


def split_words(text: str, escape: str) -> list[tuple[str, int]]:
    """Words with their offsets. Quotes and escapes keep blanks together and *stay in the word*: expansion takes them off."""
    words: list[tuple[str, int]] = []
    index, size = 0, len(text)
    while index < size:
        if text[index] in BLANKS:
            index += 1
            continue
        start, quote = index, ""
        while index < size and (quote or text[index] not in BLANKS):
            char = text[index]
            if char == escape and quote != "'":
                index += 1  # whatever follows belongs to the word, blank or quote
            elif quote:
                if char == quote:
                    quote = ""
            elif char in "'\"":
                quote = char
            index += 1
        index = min(index, size)
        words.append((text[start:index], start))
    return words
