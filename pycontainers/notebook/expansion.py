"""From the text of a magic to words: splitting, ``{name}`` and, in host paths only, ``$NAME``.

IPython's own expansion is all or nothing: one unknown name leaves the whole line as it was, without a word, and
``awk {print}`` becomes ``<built-in function print>``. So the magic is marked ``no_var_expand`` and words are expanded here.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from ..commands.declare import Argument, Option, Verb
from ..errors import UsageError, near
from ..objects import Container, Image

# {name}, {name.attribute}, {name[0]}; not {{…}} (Go templates), not ${…} (shells), not JSON (no name after the brace).
_FIELD = re.compile(r"(?<![{$])\{([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*|\[\d+\])*)\}(?!\})")
_PLACES = ("src=", "source=", "dest=")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def commands(line: str, magic: str = "%container") -> tuple[list[str], bool]:
    """``stop a ; %container rm a`` as its commands, and whether a last ``;`` asks for silence. Quoted ones do not count."""
    parts, start, quote, at = [], 0, "", 0
    while at < len(line):
        char = line[at]
        if char == "\\" and quote != "'":
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == ";":
            after = line[at + 1 :].lstrip()
            if not after or re.match(re.escape(magic) + r"(\s|$)", after):
                parts.append(line[start:at])
                start = len(line) - len(after) + (len(magic) if after else 0)
                at = start
                continue
        at += 1
    last = line[start:]
    silent = not last.strip() and bool(parts)
    return [part.strip() for part in (parts if silent else [*parts, last])], silent


def split(line: str, namespace: Mapping[str, Any]) -> list[str]:
    """Words by the shell's rules of quoting, with ``{name}`` replaced. :raises UsageError: an open quote, an unknown name."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{line!r}: {str(error).lower()}", "close the quote, or put a backslash before it") from None
    return [text for word in words for text in _expand(word, namespace)]


def _expand(word: str, namespace: Mapping[str, Any]) -> list[str]:
    whole = _FIELD.fullmatch(word)
    if whole:
        value = _value(whole, namespace)
        if isinstance(value, list | tuple):
            return [_text(item) for item in value]
        return [_text(value)]
    return [_FIELD.sub(lambda match: _text(_value(match, namespace)), word)]


def _value(match: re.Match[str], namespace: Mapping[str, Any]) -> Any:
    name = match[1]
    if name not in namespace:
        known = [key for key in namespace if not key.startswith("_")]
        raise UsageError(
            f"{match[0]}: no variable {name!r} in this notebook",
            near(name, known) or f"set {name} first; for braces that belong to the command, put its text into a variable",
        )
    value = namespace[name]
    try:
        for attribute, index in re.findall(r"\.(\w+)|\[(\d+)\]", match[2]):
            value = getattr(value, attribute) if attribute else value[int(index)]
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise UsageError(f"{match[0]}: {error}", f"{name} is a {type(namespace[name]).__name__}") from None
    return value


def _text(value: Any) -> str:
    return value.id if isinstance(value, Container | Image) else str(value)


def expand_host_paths(verb: Verb, args: SimpleNamespace, environ: Mapping[str, str]) -> None:
    """Put ``$NAME`` of this machine into values that name its paths. Everywhere else a dollar belongs to the container."""
    declarations: tuple[Option | Argument, ...] = (*verb.options, *verb.arguments)
    for declared in declarations:
        if not declared.host_path or (value := getattr(args, declared.dest, None)) is None:
            continue
        if isinstance(value, list):
            setattr(args, declared.dest, [_host_path(item, declared.host_path, environ) for item in value])
        else:
            setattr(args, declared.dest, _host_path(value, declared.host_path, environ))


def _host_path(text: str, form: str, environ: Mapping[str, str]) -> str:
    if form == "volume":
        source, colon, rest = text.partition(":")
        return _environment(source, text, environ) + colon + rest
    if form == "mount":
        items = [_environment(item, text, environ) if item.startswith(("source=", "src=")) else item for item in text.split(",")]
        return ",".join(items)
    if form == "value":
        name, equals, value = text.partition("=")
        return name + equals + _environment(value, text, environ)
    if form == "output" and "=" in text:
        items = [_environment(item, text, environ) if item.startswith(_PLACES) else item for item in text.split(",")]
        return ",".join(items)
    return _environment(text, text, environ)


def _environment(part: str, text: str, environ: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name == "PWD":
            return os.getcwd()  # `%cd` changes the folder, and not the variable
        if name not in environ:
            raise UsageError(f"{text!r}: no environment variable {name}", near(name, environ))
        return environ[name]

    return _VARIABLE.sub(value, part)
