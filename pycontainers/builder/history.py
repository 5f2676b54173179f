"""What the history of an image says of an instruction that only changed its config: Docker's own words, which are Go's formats.

``%q`` of a list and ``%+v`` of a struct: https://pkg.go.dev/fmt.
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
    times = " ".join(f"{key}:{written_duration(settings.get(key, 0))}" for key in ("Interval", "Timeout", "StartPeriod", "StartInterval"))
    return f"{{Test:[{' '.join(settings['Test'])}] {times} Retries:{settings.get('Retries', 0)}}}"

