from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontainers.text import EscapeFilter, TerminalFilter, ago, clean, one_line, span, table

CLIPBOARD = b"\x1b]52;c;ZXZpbA==\x07"


def filtered(data: bytes, step: int = 1, cursor: bool = False) -> str:
    escape = EscapeFilter(cursor)
    return "".join(escape.feed(data[at : at + step]) for at in range(0, len(data), step)) + escape.feed(b"", final=True)


@given(st.integers(1, 40))
def test_clipboard_escapes_go_wherever_they_are_cut(step: int) -> None:
    data = b"a" + CLIPBOARD + b"b\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\\x1bP+q544e\x1b\\c\x1bcd"
    assert filtered(data, step) == "ablinkcd"


@given(st.integers(1, 10))
def test_colours_and_characters_survive_every_cut(step: int) -> None:
    data = "\x1b[31mrot\x1b[0m grün 漢\x1b[2J\r\n".encode()
    assert filtered(data, step) == "\x1b[31mrot\x1b[0m grün 漢\r\n"
    assert filtered(data, step, cursor=True) == data.decode()


@given(st.binary(max_size=200), st.integers(1, 7))
def test_nothing_but_colours_is_left(data: bytes, step: int) -> None:
    import re

    left = re.sub("\x1b\\[[0-9;:]*m", "", filtered(data, step))
    assert "\x1b" not in left and "\x07" not in left and "\x9d" not in left


def test_an_escape_that_never_ends_is_not_kept_without_bound() -> None:
    escape = EscapeFilter()
    escape.feed(b"\x1b]52;c;")
    for _ in range(40):
        escape.feed(b"A" * 10_000)
    assert len(escape._held) < 200_000


@given(st.text())
def test_clean_text_has_no_controls(text: str) -> None:
    assert not any((ord(char) < 32 and char not in "\n\t") or 127 <= ord(char) < 160 for char in clean(text))
    assert "\n" not in one_line(text)


def test_table_cells_cannot_break_rows() -> None:
    assert table(("A", "B"), [("x\ny", "\x1b[31mz")]) == "A    B\nx y  z"


def test_words() -> None:
    assert span(0.4) == "0 seconds" and span(61) == "1 minute" and span(86400 * 3) == "3 days"
    assert ago(0.0) == "" and ago(10.0, 100.0) == "1 minute ago"


HOSTILE = (
    b"\x1b]52;c;ZXZpbA==\x07",
    b"\x1b]0;t\x1b\\",
    b"\x1bP+q544e\x1b\\",
    b"\x1b_G\x1b\\",
    "\x9d0;t\x07".encode(),
    b"\x1b\x1b]8;;http://x\x07",
    b"\x1b^x\x1b\\",
)
PIECES = [b"\x1b", b"]", b"52;", b"[", b"P", b"\\", b"\x07", b"3", b"m", b" ", b"\xc2\x9d", b"(", b"x"]


def drawn(data: bytes, step: int) -> str:
    escape = TerminalFilter()
    return "".join(escape.feed(data[at : at + step]) for at in range(0, len(data), step)) + escape.feed(b"", final=True)


@given(st.integers(1, 12))
def test_a_terminal_draws_and_reaches_no_further(step: int) -> None:
    kept = "\x1b[?1049h\x1b[2J\x1b7\x1b[5;1H\x1b(0\x0elqk\x0f\x1b(B\x1b8\x1bM\x1b[?25l grün 漢\x1b[6n\x08\t\r\n"
    assert drawn(kept.encode(), step) == kept
    found = drawn(b"a".join(HOSTILE) + b"b", step)
    assert "\x1b" not in found and found.replace("0;t", "") == "aaaaaab"


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.integers(1, 5))
def test_no_control_string_ever_begins(parts: list[bytes], step: int) -> None:
    found = drawn(b"".join(parts), step)
    assert not any(f"\x1b{letter}" in found for letter in "]PX^_") and "\x9d" not in found and "\x90" not in found


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_what_a_terminal_counts_to_is_bounded(step: int) -> None:
    huge = b"\x1b[2147483647S\x1b[0001001L\x1b[1000M\x1b[20000000b\x1b[99999;99999H\x1b[38;2;1;2;3m\x1b[?2004h\x1b[" + b"9" * 4500 + b"T"
    assert drawn(huge, step) == "\x1b[1000S\x1b[1000L\x1b[1000M\x1b[1000b\x1b[65535;65535H\x1b[38;2;1;2;3m\x1b[?2004h\x1b[1000T"
