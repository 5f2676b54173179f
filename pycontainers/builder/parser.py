"""Dockerfile text to raw instructions with positions. Knows lines, not meanings.

The format: https://docs.docker.com/reference/dockerfile/ (sections "Format", "Parser directives", "Here-documents").
Every text gives a :class:`Dockerfile` or a :class:`pycontainers.errors.BuildError`; all scans are linear in the text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from ..errors import BuildError, near
from .expansion import ExpansionError, split_shell_words
from .forms import BLANKS, SPACES, NotStrings, json_words

KEYWORDS = (
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD",
    "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)
_MEANT = {keyword.lower(): keyword for keyword in KEYWORDS}
"""By lower case, as BuildKit compares: 'ſ' has an upper case S, and is none of theirs."""

HEREDOC_KEYWORDS = frozenset({"ADD", "COPY", "RUN"})
DIRECTIVES = frozenset({"escape", "syntax", "check"})

_DIRECTIVE = re.compile(r"([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*", re.ASCII)
_HEREDOC = re.compile(r"([0-9]*)<<(-?)[ \t\n\f\r]*([^<]*)")
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)
_FLAG_RUN = re.compile(r"[^\t\n\v\f\r \\'\"]+")


@dataclass(frozen=True)
class Flag:
    """``--name`` or ``--name=value`` before the arguments; ``value`` is None without ``=``. Positions are 1-based."""

    name: str
    value: str | None
    line: int
    column: int


@dataclass(frozen=True)
class Heredoc:
    """One here-document. ``expand`` is False where the delimiter is quoted; ``chomp`` (``<<-``) drops leading tabs.

    ``content`` is what is meant, ``raw`` what is written (with the tabs), ``descriptor`` the number before ``<<``.
    """

    name: str
    content: str
    expand: bool
    chomp: bool
    raw: str = ""
    descriptor: int = 0


@dataclass(frozen=True)
class Raw:
    """One instruction: its keyword in upper case, flags, and the arguments with continuation lines joined.

    ``line`` to ``end_line`` (1-based, inclusive) is where it stands, ``original`` that text as written. ``segments`` holds
    ``(offset in arguments, line, column)`` for each physical line that the arguments were joined from.

    :param word: the keyword as written. ``comments``: the comment lines directly above, without ``#``.
    :param empty_lines: numbers of the empty lines between continuations. ``trigger``: of ONBUILD, the instruction in it.
    :param joined: the whole logical line, continuations joined, without here-documents.
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
    word: str = ""
    comments: tuple[str, ...] = ()
    empty_lines: tuple[int, ...] = ()
    trigger: Raw | None = None
    joined: str = ""

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column (1-based) of an offset in ``arguments``; of an ONBUILD's, which has no text here, those of the FROM."""
        return _place(self.segments, offset) if self.segments else (self.line, self.column)

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
    """A parsed Dockerfile: instructions in order, the directives at its top (and their lines), and the escape character."""

    instructions: tuple[Raw, ...]
    directives: dict[str, str]
    escape: str
    directive_lines: dict[str, int] = field(default_factory=dict)


def parse(text: str | bytes) -> Dockerfile:
    """Split a Dockerfile into raw instructions.

    :param text: bytes are taken as UTF-8.
    :raises BuildError: with line, column and the source line, for an unknown instruction, a bad directive, an
        unterminated here-document, text that is not UTF-8 or a file without instructions.
    """
    text = _decoded(text)
    written = text.removeprefix("\ufeff").split("\n")
    if not written[-1]:
        written.pop()  # what ends with a newline has no line after it
    lines = [line.rstrip("\r") for line in written]
    directives, places = _directives(lines)
    reader = _Reader(lines, written, directives.get("escape", "\\"), len(places))
    instructions: list[Raw] = []
    while (raw := reader.instruction()) is not None:
        instructions.append(raw)
    if not instructions:
        raise BuildError("the Dockerfile has no instructions", "begin with FROM, for example: FROM host")
    return Dockerfile(tuple(instructions), directives, reader.escape, places)


def _decoded(text: str | bytes) -> str:
    try:
        if isinstance(text, bytes):
            return text.decode()
        text.encode()  # surrogates from a careless decoding have no UTF-8: files and variables could not hold them
        return text
    except UnicodeError as error:
        start = int(getattr(error, "start", 0))
        before = text[:start] if isinstance(text, str) else text[:start].decode()
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        raise BuildError("the Dockerfile is not UTF-8", "save it as UTF-8", line=line, column=column) from None


def _directives(lines: list[str]) -> tuple[dict[str, str], dict[str, int]]:
    """``# key=value`` lines at the very top. The first line that is none of the known ones ends them (it is a comment)."""
    found: dict[str, str] = {}
    places: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        text = line.lstrip(SPACES)
        match = _DIRECTIVE.fullmatch(text[1:].lstrip(SPACES)) if text.startswith("#") else None
        if match is None or (name := match[1].lower()) not in DIRECTIVES:
            break
        value = match[2]
        if name in found:
            raise BuildError(f"directive {name} is given twice", "keep one of them", line=number, column=1, source=line)
        if name == "escape" and value not in ("\\", "`"):
            raise BuildError(f"escape is {value!r}", "it must be \\ or `", line=number, column=1, source=line)
        found[name], places[name] = value, number
    return found, places


class _Reader:
    """Walks over the physical lines, one instruction at a time. ``lines`` are without, ``written`` with their carriage returns."""

    def __init__(self, lines: list[str], written: list[str], escape: str, start: int) -> None:
        self.lines, self.written, self.escape, self.next = lines, written, escape, start
        self.missed_heredoc = False

    def instruction(self) -> Raw | None:
        comments = self._comments()
        if self.next >= len(self.lines):
            return None
        first = self.next
        joined, segments, empty = self._join()
        text = joined.rstrip(SPACES)
        keyword = self._keyword(text, 0, segments)
        trigger = self._trigger(text, keyword, segments) if keyword == "ONBUILD" else None
        flags, begin, end = _arguments(text, _end_of_word(text, 0), segments)
        heredocs = self._heredocs(joined, trigger or (keyword, text[begin:end]), first)
        self.missed_heredoc = not heredocs and "<<" in text
        sources = tuple(self.lines[first:self.next])

        def made(start: int, flags: tuple[Flag, ...], begin: int, end: int, inner: Raw | None = None) -> Raw:
            outer = start == 0
            line, column = (first + 1, _indent(self.lines[first]) + 1) if outer else _place(segments, start)
            word = text[start:_end_of_word(text, start)]
            return Raw(
                _MEANT[word.lower()], line, self.next, column, flags, text[begin:end], heredocs,
                "\n".join(self.lines[first:self.next]).strip(SPACES) if outer else text[start:],
                _within(segments, begin), sources[line - first - 1:], self.escape, word, comments if outer else (), empty if outer else (),
                inner, joined[start:])

        inner = None
        if trigger is not None:
            start = begin
            inner = made(start, *_arguments(text, _end_of_word(text, start), segments))
        return made(0, flags, begin, end, inner)

    def _comments(self) -> tuple[str, ...]:
        """Skip to the next instruction; the comment lines above it (an empty line or an empty comment separates)."""
        found: list[str] = []
        while self.next < len(self.lines) and _skippable(line := self.lines[self.next]):
            comment = line.strip(SPACES)[1:].strip(SPACES)
            found = [*found, comment] if comment and len(found) < 100 else []
            self.next += 1
        return tuple(found)

    def _join(self) -> tuple[str, list[tuple[int, int, int]], tuple[int, ...]]:
        """One logical line: continuations joined, comments and empty lines inside them dropped (Docker does both)."""
        line = self.lines[self.next]
        indent = _indent(line)
        segments = [(0, self.next + 1, indent + 1)]
        body, more = self._continued(line[indent:])
        parts, length, empty = [body], len(body), []
        self.next += 1
        while more and self.next < len(self.lines):
            line = self.lines[self.next]
            self.next += 1
            if _skippable(line):
                if not line.strip(SPACES):
                    empty.append(self.next)
                continue
            body, more = self._continued(line)
            if not length:  # nothing but an escape so far: the line begins here
                segments.clear()
            segments.append((length, self.next, 1))
            parts.append(body)
            length += len(body)
        text = "".join(parts)
        indent = _indent(text)
        return text[indent:], list(_within(segments, indent)), tuple(empty)

    def _continued(self, line: str) -> tuple[str, bool]:
        """The line without its trailing escape. An escape that is itself escaped does not continue."""
        stripped = line.rstrip(" \t")
        if not stripped.endswith(self.escape) or stripped[-2:-1] == self.escape:
            return line, False
        return stripped[:-1], True

    def _keyword(self, text: str, start: int, segments: list[tuple[int, int, int]]) -> str:
        """:raises BuildError: no instruction has that name."""
        word = text[start:_end_of_word(text, start)]
        keyword = _MEANT.get(word.lower())
        if keyword is None:
            hint = near(word[:40].upper(), KEYWORDS) or f"the instructions are {', '.join(KEYWORDS)}"
            if self.missed_heredoc:
                hint = "for a here-document above, << must begin a word, and all quotes of its line be closed"
            line, column = _place(segments, start)
            raise BuildError(f"unknown instruction {word[:40]!r}", hint, line=line, column=column, source=self.lines[line - 1])
        return keyword

    def _trigger(self, text: str, keyword: str, segments: list[tuple[int, int, int]]) -> tuple[str, str] | None:
        """Keyword and arguments of the instruction in ONBUILD; None for none, and for another ONBUILD (which is refused later)."""
        _, start, end = _arguments(text, _end_of_word(text, 0), segments)
        if start == end or (inner := self._keyword(text, start, segments)) == "ONBUILD":
            return None
        _, begin, end = _arguments(text, _end_of_word(text, start), segments)
        return inner, text[begin:end]

    def _heredocs(self, text: str, of: tuple[str, str], first: int) -> tuple[Heredoc, ...]:
        """The here-documents that a line opens, in order. The exec form opens none."""
        keyword, arguments = of
        if keyword not in HEREDOC_KEYWORDS or "<<" not in text:
            return ()
        try:
            if json_words(arguments) is not None:
                return ()
            words = split_shell_words(text)
        except (ExpansionError, NotStrings):  # what the shell may understand, but not BuildKit: then << is the shell's, too
            return ()
        return tuple(self._body(mark, first) for word in words if (mark := heredoc_mark(word)) is not None)

    def _body(self, mark: Heredoc, first: int) -> Heredoc:
        found: list[str] = []
        while self.next < len(self.lines):
            line = self.lines[self.next]
            self.next += 1
            if (line.lstrip("\t") if mark.chomp else line) == mark.name:
                raw = "".join(found)
                content = _LEADING_TABS.sub("", raw) if mark.chomp else raw
                return Heredoc(mark.name, content, mark.expand, mark.chomp, raw, mark.descriptor)
            found.append(self.written[self.next - 1] + "\n")
        number = next((n for n in range(first, self.next) if "<<" in self.lines[n]), first)
        hint = f"put {mark.name} alone on a line after it"
        raise BuildError(f"the here-document {mark.name!r} has no end", hint, line=number + 1,
                         column=self.lines[number].find("<<") + 1 or 1, source=self.lines[number])


def heredoc_mark(word: str) -> Heredoc | None:
    """What opens a here-document (``<<EOF``, ``3<<-'EOF'``), without content; None for any other word."""
    match = _HEREDOC.fullmatch(word)
    if match is None or not match[3]:
        return None
    try:
        names = split_shell_words(match[3], raw=False)
    except ExpansionError:
        return None
    if len(names) != 1:
        return None
    # A quote that is gone did quote something, and then nothing in the document is expanded (POSIX, 2.7.4).
    expand = sum(map(names[0].count, "'\"")) == sum(map(match[3].count, "'\""))
    digits = match[1][-9:]
    return Heredoc(names[0], "", expand, match[2] == "-", "", int(digits) if digits else 0)


def _place(segments: list[tuple[int, int, int]] | tuple[tuple[int, int, int], ...], offset: int) -> tuple[int, int]:
    start, line, column = segments[max(bisect_right(segments, (offset, 1 << 60, 0)) - 1, 0)]
    return line, column + max(offset - start, 0)


def _within(segments: list[tuple[int, int, int]], begin: int) -> tuple[tuple[int, int, int], ...]:
    """The segments of the text from ``begin`` on, with offsets that count from there."""
    first = max(bisect_right(segments, (begin, 1 << 60, 0)) - 1, 0)
    return tuple((max(offset - begin, 0), line, column + max(begin - offset, 0)) for offset, line, column in segments[first:])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(SPACES))


def _skippable(line: str) -> bool:
    stripped = line.lstrip(SPACES)
    return not stripped or stripped[0] == "#"


def _end_of_word(text: str, start: int) -> int:
    match = BLANKS.search(text, start)
    return match.start() if match else len(text)


def _arguments(text: str, begin: int, segments: list[tuple[int, int, int]]) -> tuple[tuple[Flag, ...], int, int]:
    """The leading ``--flag`` words (a bare ``--`` ends them), and where the arguments after them begin and end."""
    flags: list[Flag] = []
    while True:
        while begin < len(text) and text[begin] in SPACES:
            begin += 1
        if not text.startswith("--", begin):
            break
        word, end = _flag_word(text, begin)
        if word == "--":
            begin = end
            while begin < len(text) and text[begin] in SPACES:
                begin += 1
            break
        name, equals, value = word[2:].partition("=")
        line, column = _place(segments, begin)
        flags.append(Flag(name, value if equals else None, line, column))
        begin = end
    return tuple(flags), begin, len(text)


def _flag_word(text: str, begin: int) -> tuple[str, int]:
    """A flag without its quotes and escapes. The escape is a backslash here, whatever the directive says (BuildKit)."""
    out: list[str] = []
    quote = ""
    while begin < len(text):
        if plain := _FLAG_RUN.match(text, begin):
            out.append(plain[0])
            begin = plain.end()
            continue
        char = text[begin]
        if char == "\\":
            out.append(text[begin + 1:begin + 2])
            begin += 2
            continue
        if quote and char != quote:
            out.append(char)
        elif quote:
            quote = ""
        elif char in "'\"":
            quote = char
        else:
            break
        begin += 1
    return "".join(out), min(begin, len(text))
