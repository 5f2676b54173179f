"""How arguments are written: blanks, the exec form, and words. Shared by the parser and the typed instructions.

The exec form is JSON as BuildKit's (that is Go's) decoder takes it: https://docs.docker.com/reference/dockerfile/#exec-form.
"""

from __future__ import annotations

import json
import re

SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space, which is what BuildKit trims and splits at (Python's ``isspace`` adds the separators 0x1c to 0x1f)."""

BLANKS = re.compile(r"[\t\v\f\r ]+")
"""What separates the words of most instructions (no newline: a line has none)."""

_UNPAIRED = re.compile("[\ud800-\udfff]")
_RUN_OF_WORD = re.compile(r"[^'\"\\`" + SPACES + "]+")


class NotStrings(ValueError):
    """A JSON list that holds something else than strings. Docker refuses it; any other text that is no JSON is the shell form."""


def json_words(text: str) -> tuple[str, ...] | None:
    """The words of the exec form; None where the text is not JSON.

    :raises NotStrings: a JSON list of something else.
    """
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_number, parse_int=_number)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(word, str) for word in value):
        raise NotStrings(text)
    return tuple(_UNPAIRED.sub("\ufffd", word) for word in value)  # a lone surrogate has no UTF-8: Go puts U+FFFD, too


def _refuse(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are Python's own addition


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)  # no float64: Go's decoder fails, so the text is the shell form
    return value


def blank_words(text: str) -> list[tuple[str, int]]:
    """Words with their offsets, split at blanks alone: quotes keep nothing together (ADD, COPY, EXPOSE, FROM, VOLUME)."""
    words, start = [], 0
    for match in BLANKS.finditer(text):
        words.append((text[start:match.start()], start))
        start = match.end()
    words.append((text[start:], start))
    return [(word, offset) for word, offset in words if word]


def split_words(text: str, escape: str) -> list[tuple[str, int]]:
    """Words with their offsets (ARG, ENV, LABEL). Quotes and escapes keep blanks together and *stay in the word*: expansion takes
    them off. An escape at the very end vanishes."""
    words: list[tuple[str, int]] = []
    index, size = 0, len(text)
    while index < size:
        if text[index] in SPACES:
            index += 1
            continue
        start, quote = index, ""
        out: list[str] = []
        while index < size and (quote or text[index] not in SPACES):
            if plain := _RUN_OF_WORD.match(text, index):
                out.append(plain[0])
                index = plain.end()
                continue
            char = text[index]
            if char == escape and quote != "'":
                if index + 1 == size:
                    index, quote = size, ""
                    break
                out.append(text[index:index + 2])  # whatever follows belongs to the word, blank or quote
                index += 2
                continue
            if quote:
                quote = "" if char == quote else quote
            elif char in "'\"":
                quote = char
            out.append(char)
            index += 1
        if out:
            words.append(("".join(out), start))
    return words
