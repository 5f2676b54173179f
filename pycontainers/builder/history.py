"""What the history of an image says of an instruction: Docker's own words, which are Go's formats.

``%q`` of a list and of a struct: https://pkg.go.dev/fmt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import instructions as ins
from .flags import written_duration

_SHORT = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", '"': '\\"', "\\": "\\\\"}


def created_by(item: ins.Instruction, words: Sequence[str]) -> str:
    """:param words: what the instruction came to, after substitution."""
    keyword = item.raw.keyword
    match item:
        case ins.Cmd() | ins.Entrypoint():
            return f"{keyword} [{' '.join(map(quoted, words))}]"
        case ins.Volume() | ins.Expose() | ins.Shell():
            return f"{keyword} [{' '.join(words)}]"
        case ins.HealthCheck():
            return f"HEALTHCHECK {_health(item.settings)}"
    return " ".join([keyword, *words])


def copied(item: ins.Copy, sources: Sequence[str], destination: str, owner: str, mode: str) -> str:
    """What it says of COPY and ADD. All texts as they are after substitution."""
    flags = ["--parents"] * item.parents + [f"--chown={owner}"] * bool(owner) + [f"--chmod={mode}"] * bool(mode)
    return " ".join([item.raw.keyword, *flags, *sources, *(f"<<{heredoc.name}" for heredoc in item.inline), destination])


def quoted(text: str) -> str:
    """As Go's strconv.Quote."""
    out = []
    for char in text:
        if char in _SHORT:
            out.append(_SHORT[char])
        elif char == " " or (char.isprintable() and not char.isspace()):
            out.append(char)
        else:
            number = ord(char)
            out.append(f"\\x{number:02x}" if number < 0x80 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}")
    return '"' + "".join(out) + '"'


def _health(settings: Mapping[str, Any]) -> str:
    times = " ".join(quoted(written_duration(settings.get(key, 0))) for key in ("Interval", "Timeout", "StartPeriod", "StartInterval"))
    retries = quoted(chr(min(settings.get("Retries", 0), 0x10FFFF)))[1:-1]  # %q of a number is the character of that number
    return f"&{{[{' '.join(map(quoted, settings['Test']))}] {times} '{retries}'}}"

