"""Flags of instructions, and the values that they and their like take: booleans and durations as Go writes them, platforms, sizes.

Go's forms: https://pkg.go.dev/time#ParseDuration, https://pkg.go.dev/strconv#ParseBool.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import near
from .parser import Flag, Raw

TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})

TEXT, SWITCH, MANY = "text", "switch", "many"
"""Kinds of flags: with a value, a boolean (``--link``, ``--link=false``), with a value and any number of times."""

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)(i?b?)", re.IGNORECASE)
_LARGEST = (1 << 63) - 1


class Flags:
    """The flags of one instruction, checked against what it takes. :raises BuildError: unknown, twice, without or with a bad value."""

    def __init__(self, raw: Raw, kinds: Mapping[str, str] | None = None) -> None:
        kinds = kinds or {}
        self.raw = raw
        self.found: dict[str, list[Flag]] = {}
        for flag in raw.flags:
            self._check(flag, kinds)
            self.found.setdefault(flag.name, []).append(flag)

    def _check(self, flag: Flag, kinds: Mapping[str, str]) -> None:
        raw, name = self.raw, flag.name
        kind = kinds.get(name)
        if kind is None:
            takes = f"{raw.keyword} takes --{', --'.join(kinds)}" if kinds else f"{raw.keyword} takes no flags"
            raise raw.error(f"unknown flag --{name[:40]} of {raw.keyword}", near(name[:40], kinds) or takes, flag=flag)
        if name in self.found and kind != MANY:
            raise raw.error(f"{raw.keyword} --{name} is given twice", "keep one of them", flag=flag)
        if kind == SWITCH:
            if flag.value is not None and flag.value.lower() not in ("true", "false"):
                what = "is neither true nor false" if flag.value else "has no value"
                raise raw.error(f"{raw.keyword} --{name}={flag.value} {what}", f"write --{name}, or --{name}=false", flag=flag)
        elif flag.value is None:
            raise raw.error(f"{raw.keyword} --{name} has no value", f"write --{name}=VALUE, with '=' and no blank", flag=flag)

    def flag(self, name: str) -> Flag | None:
        return self.found[name][0] if name in self.found else None

    def text(self, name: str) -> str:
        flag = self.flag(name)
        return (flag.value or "") if flag else ""

    def switch(self, name: str) -> bool:
        return self.choice(name) is True

    def choice(self, name: str) -> bool | None:
        """None where the flag is not given."""
        flag = self.flag(name)
        return None if flag is None else flag.value is None or flag.value.lower() == "true"

    def many(self, name: str) -> tuple[str, ...]:
        return tuple(flag.value or "" for flag in self.found.get(name, ()))

    def one_of(self, name: str, values: Sequence[str]) -> str:
        """The value, which must be one of them, or the first where it is not given."""
        flag = self.flag(name)
        if flag is None:
            return values[0]
        value = (flag.value or "").lower()
        if value not in values:
            hint = near(value[:40], values) or f"it must be {', '.join(values[:-1])} or {values[-1]}"
            raise self.raw.error(f"{self.raw.keyword} --{name}={flag.value}", hint, flag=flag)
        return value


def boolean(text: str) -> bool:
    """:raises ValueError: not what Go takes for a boolean."""
    if text in TRUE or text in FALSE:
        return text in TRUE
    raise ValueError(text)


def duration(text: str) -> int:
    """``1m30s``, ``1.5h``, ``-2ms``, ``0`` in nanoseconds. :raises ValueError: no duration, or longer than 292 years."""
    from decimal import Decimal  # few Dockerfiles have a duration, and every build would wait for it

    unsigned = text[1:] if text[:1] in ("-", "+") else text
    if unsigned == "0":
        return 0
    total, at = Decimal(0), 0
    while at < len(unsigned):
        match = _DURATION.match(unsigned, at)
        if match is None or len(match[1]) > 40:
            raise ValueError(text)
        total += Decimal(match[1]) * _UNITS[match[2]]
        at = match.end()
    if not at or total > _LARGEST:
        raise ValueError(text)
    return -int(total) if text[0] == "-" else int(total)


def written_duration(nanoseconds: int) -> str:
    """As Go writes it: ``0s``, ``1.5ms``, ``1m30s``, ``2h0m0s``."""
    if nanoseconds == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if nanoseconds < size * 1000:
            return f"{_decimal(nanoseconds, size)}{unit}"
    minutes, rest = divmod(nanoseconds, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(rest, _UNITS['s'])}s"
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}" if minutes else seconds


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0") if rest else str(whole)


def size(text: str) -> int:
    """``64m``, ``1GiB``, ``512`` in bytes; units are powers of 1024. :raises ValueError:"""
    from decimal import Decimal

    match = _SIZE.fullmatch(text)
    if match is None or len(match[1]) > 40 or (match[3].lower() in ("i", "ib") and not match[2]):
        raise ValueError(text)
    found = int(Decimal(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))
    if found > _LARGEST:
        raise ValueError(text)
    return found


def platform(text: str, own: str) -> str:
    """``linux/amd64`` from ``amd64``, ``linux/x86_64``, ``linux``: os, architecture and variant as containerd normalises them.

    :param own: this machine's platform, for the part that is not given. :raises ValueError: not a platform.
    """
    parts = text.lower().split("/")
    if not 1 <= len(parts) <= 3 or not all(re.fullmatch(r"[a-z0-9_.-]+(\([a-z0-9_.-]+\))?", part) for part in parts):
        raise ValueError(text)
    if len(parts) == 1:
        known = ("linux", "windows", "darwin", "freebsd", "macos")
        parts = [parts[0], own.split("/")[1]] if parts[0] in known else ["linux", parts[0]]
    names = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm", "armel": "arm"}
    variant = parts[2] if len(parts) == 3 else {"armhf": "v7", "armel": "v6"}.get(parts[1], "")
    machine = names.get(parts[1], parts[1])
    if (machine, variant) in (("amd64", "v1"), ("arm64", "v8"), ("arm64", "8")):
        variant = ""
    if machine == "arm" and not variant:
        variant = "v7"
    return "/".join(part for part in (parts[0], machine, variant) if part)
