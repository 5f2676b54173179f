"""Of what kind the values of ``pc.build`` may be: a wrong one is refused by its name before anything is read or asked.

A command line gives nothing but text; Python gives anything.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from ..protocol import Ulimit

_TEXT = (str,)
_PATH = (str, os.PathLike)
_NO_WORD = (bytes, bytearray, list, tuple, dict, set, frozenset, type(None))
"""What str() makes of them is no value of a build argument or a label."""

_CHECKED_LATER = ("build_args", "labels", "files")
"""Of their names and values more is asked (:func:`sound`), or they are contents."""

_DECODE = "decode it as what it is, for example data.decode('latin-1')"


@dataclass(frozen=True)
class _Kind:
    """What may stand by itself, in a list, and as a value by a name (a bare ``object``: whatever has a text)."""

    hint: str
    alone: tuple[type, ...] = ()
    listed: tuple[type, ...] = ()
    named: tuple[type, ...] = ()
    confidential: bool = False


_SWITCH = (bool, int)
_NAMES = _TEXT, _TEXT
_KINDS = {
    "dockerfile": _Kind("its text, its path, or the folder that holds one", _PATH),
    "tag": _Kind('for example tag="app:1", or a list of names', *_NAMES),
    "output": _Kind('for example output="./out", output="type=docker,dest=app.tar", or a list of them', _PATH, _PATH),
    "context": _Kind('a folder, for example context="./app"; "" is none', _PATH),
    "files": _Kind('the content of each by its path, as text or bytes: files={"app.py": "print(1)"}', named=(str, bytes)),
    "contexts": _Kind('for example contexts={"src": "./lib"}, or ["src=./lib"]', *_NAMES, _PATH),
    "build_args": _Kind('text, a number or a path: build_args={"VERSION": "1.0"}, or ["VERSION=1.0"]', *_NAMES, (object,)),
    "labels": _Kind('text by its name: labels={"version": "1.0"}, or ["version=1.0"]', *_NAMES, (object,)),
    "target": _Kind('the name of a stage: target="app"', _TEXT),
    "no_cache": _Kind("True or False", _SWITCH),
    "no_cache_filter": _Kind('names of stages: no_cache_filter=["app"]', *_NAMES),
    "pull": _Kind("True or False", _SWITCH),
    "platform": _Kind('for example platform="linux/amd64"', _TEXT),
    "network": _Kind('network="bridge", "none" or "host"', _TEXT),
    "secrets": _Kind('text, bytes or a path by its id: secrets={"token": text}, or "id=token,src=FILE"', *_NAMES, (*_PATH, bytes), True),
    "ssh": _Kind('ssh="default", or the socket of an agent by an id: ssh={"default": path}', *_NAMES, _PATH),
    "cache_from": _Kind('for example cache_from="type=local,src=FOLDER", or a list of them', *_NAMES),
    "cache_to": _Kind('for example cache_to="type=local,dest=FOLDER", or a list of them', *_NAMES),
    "add_host": _Kind('for example add_host={"db": "10.0.0.5"}, or ["db:10.0.0.5"]', *_NAMES, _TEXT),
    "shm_size": _Kind('for example shm_size="128m", or a number of bytes', (str, int)),
    "ulimits": _Kind(
        'for example ulimits={"nofile": (1024, 2048)}, or ["nofile=1024:2048"]', _TEXT, (str, Ulimit), (str, int, tuple, list)
    ),
    "explain": _Kind("True or False", _SWITCH),
    "host_certificates": _Kind("True or False", _SWITCH),
    "parallel": _Kind("a number of steps: parallel=4", (str, int)),
}


def checked(name: str, value: Any) -> Any:
    """The value; of what is read but once (a generator), all that it gives. :raises UsageError: it is of no kind that ``name`` takes."""
    kind = _KINDS[name]
    if value is None or _is(value, kind.alone):
        _passable(name, value)
        return value
    if isinstance(value, Mapping) and kind.named:
        for key, item in value.items():
            if not isinstance(key, str):
                raise UsageError(f"{name}: the name {_shown(key)} is {_kind_of(key)}", kind.hint)
            if not _is(item, kind.named):
                said = "" if kind.confidential else f"{_shown(item)}, "
                raise UsageError(f"{name}: the value of {key!r} is {said}{_kind_of(item)}", kind.hint)
            if name not in _CHECKED_LATER:
                _passable(name, key)
                _passable(name, item if not (kind.confidential and isinstance(item, str)) else "")
        return value
    if isinstance(value, Iterable) and kind.listed and not isinstance(value, Mapping | bytes | bytearray | os.PathLike):
        items = tuple(value)
        for item in items:
            if not _is(item, kind.listed):
                raise UsageError(f"{name}: {_shown(item)} in it is {_kind_of(item)}", kind.hint)
            _passable(name, item)
        return items
    raise UsageError(f"{name}={_shown(value)} is {_kind_of(value)}", kind.hint)


def _passable(name: str, value: Any) -> None:
    """:raises UsageError: a word that is no path and no name: with a NUL, or with half a character."""
    if name == "dockerfile" or not isinstance(value, str | os.PathLike):
        return
    text = os.fspath(value)
    if "\0" in text:
        raise UsageError(f"{name}: {_around(text)} has a NUL character", "remove it: no variable, path or name can hold one")
    encoded(text, f"{name}: {_around(text)}", _DECODE)


def _is(value: Any, kinds: tuple[type, ...]) -> bool:
    if object in kinds:
        return not isinstance(value, _NO_WORD)
    if isinstance(value, bool) and bool not in kinds:  # an int by birth alone
        return False
    if not isinstance(value, kinds):
        return False
    return not isinstance(value, os.PathLike) or isinstance(os.fspath(value), str)


def _shown(value: Any) -> str:
    return " ".join(reprlib.repr(value).split())


def _kind_of(value: Any) -> str:
    word = type(value).__name__
    return "None" if value is None else f"{'an' if word[0] in 'aeiouAEIOU' else 'a'} {word}"


def encoded(text: str, what: str, hint: str) -> bytes:
    """Text as bytes; bytes of a file or variable that were read as ``surrogateescape`` come back. :raises UsageError: it has none."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UsageError(f"{what} is not UTF-8", hint) from None


def sound(pairs: Mapping[str, str], what: str) -> None:
    """:raises UsageError: a name or value that no variable and no JSON can hold, or an empty name."""
    for name, value in pairs.items():
        if not name:
            raise UsageError(f"{what} {'=' + value[:40]!r} has no name", f"--{what} NAME=VALUE")
        for text, shown in ((name, f"the name of {what} {name[:80]!r}"), (value, f"{what} {name[:80]}={_around(value)}")):
            if "\0" in text:
                raise UsageError(f"{shown} has a NUL character", "remove it: no variable, path or label can hold one")
            try:
                text.encode()
            except UnicodeEncodeError:
                raise UsageError(f"{shown} is not UTF-8", _DECODE) from None


def _around(value: str) -> str:
    """The part of a value in which something is wrong."""
    at = next((number for number, char in enumerate(value) if char == "\0" or "\ud800" <= char <= "\udfff"), 0)
    start = max(at - 30, 0)
    return f"{'…' if start else ''}{value[start : at + 30]!r}{'…' if len(value) > at + 30 else ''}"
