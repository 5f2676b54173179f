"""The plain form of values: a tree that JSON can say, and buffers beside it. Reading it runs no code, whoever wrote it.

A value that JSON knows stands for itself; every other is a list whose first item says its kind. NumPy's arrays go as ``.npy`` without
pickle, what pandas and Arrow have as an Arrow stream (as columns where there is no pyarrow). Where the form has no place for a value,
:class:`Packer` asks ``other``; what that says is read by a ``read`` that only who trusts the sender passes.
"""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

from . import tabular
from .plain import FOREIGN, READERS, WRITERS, Packer, Tree, Unfit, Unpacker, said

__all__ = ["Packer", "Tree", "Unfit", "Unpacker", "said"]

_INLINE = 1 << 12
"""Text longer than this is a buffer of its own."""
_MANY = 64
"""A list of at least so many integers, or so many floats, is one buffer."""


# -- writing


def _itself(packer: Packer, value: Any) -> Tree:
    return value


def _int(packer: Packer, value: int) -> Tree:
    # Decimal digits of large numbers take quadratic time, and Python refuses more than 4300 of them.
    return value if -(1 << 256) < value < 1 << 256 else ["int", hex(value)]


def _str(packer: Packer, value: str) -> Tree:
    return value if len(value) < _INLINE else ["str", packer.buffer(value.encode("utf-8", "surrogatepass"))]


def _bytes(packer: Packer, value: Any) -> Tree:
    return [type(value).__name__, packer.buffer(bytes(value))]


def _list(packer: Packer, value: Any) -> Tree:
    kinds = set(map(type, value)) if len(value) >= _MANY else ()
    if kinds == {float}:
        return ["floats", packer.buffer(array.array("d", value))]
    if kinds == {int}:
        try:
            return ["ints", packer.buffer(array.array("q", value))]
        except OverflowError:
            pass
    return ["list", [packer.part(item) for item in value]]


def _items(packer: Packer, value: Any) -> Tree:
    return [type(value).__name__, [packer.part(item) for item in value]]


def _dict(packer: Packer, value: dict[Any, Any]) -> Tree:
    return ["dict", [[packer.part(key), packer.part(item)] for key, item in value.items()]]


def _complex(packer: Packer, value: complex) -> Tree:
    return ["complex", value.real, value.imag]


def _range(packer: Packer, value: range) -> Tree:
    return ["range", *[packer.part(part) for part in (value.start, value.stop, value.step)]]


def _slice(packer: Packer, value: slice) -> Tree:
    return ["slice", *[packer.part(part) for part in (value.start, value.stop, value.step)]]


def _text_of(packer: Packer, value: Any) -> Tree:
    return [type(value).__name__, str(value)]


def _moment(packer: Packer, value: Any) -> Tree:
    """A date, time or datetime; its zone by name where it has one (else its offset stands in the text)."""
    zone = getattr(value, "tzinfo", None)
    if zone is None or type(zone).__name__ == "timezone":
        return [type(value).__name__, value.isoformat(), None, getattr(value, "fold", 0)]
    key = getattr(zone, "key", None)
    if not isinstance(key, str):
        return NotImplemented
    return [type(value).__name__, value.replace(tzinfo=None).isoformat(), key, value.fold]


def _timedelta(packer: Packer, value: Any) -> Tree:
    return ["timedelta", value.days, value.seconds, value.microseconds]


_KNOWN: dict[type, Callable[[Packer, Any], Tree]] = {
    type(None): _itself,
    bool: _itself,
    float: _itself,
    int: _int,
    str: _str,
    bytes: _bytes,
    bytearray: _bytes,
    list: _list,
    tuple: _items,
    set: _items,
    frozenset: _items,
    dict: _dict,
    complex: _complex,
    range: _range,
    slice: _slice,
}
_MET: dict[Any, Callable[[Packer, Any], Tree]] = {
    ("datetime", "datetime"): _moment,
    ("datetime", "date"): _moment,
    ("datetime", "time"): _moment,
    ("datetime", "timedelta"): _timedelta,
    ("decimal", "Decimal"): _text_of,
    ("uuid", "UUID"): _text_of,
    ("pathlib", "PosixPath"): _text_of,
    ("pathlib", "PurePosixPath"): _text_of,
}


# -- reading


def _array(code: str) -> Callable[[Unpacker, int], Any]:
    def read(unpacker: Unpacker, index: int) -> Any:
        found = array.array(code)
        found.frombytes(unpacker.buffer(index))
        return found.tolist()

    return read


def _sequence(kind: Callable[[Any], Any]) -> Callable[[Unpacker, Any], Any]:
    return lambda unpacker, items: kind([unpacker.value(item) for item in items])


def _read_dict(unpacker: Unpacker, pairs: Any) -> Any:
    return {unpacker.value(key): unpacker.value(value) for key, value in pairs}


def _read_range(unpacker: Unpacker, *parts: Any) -> Any:
    return range(*[unpacker.value(part) for part in parts])


def _read_slice(unpacker: Unpacker, *parts: Any) -> Any:
    return slice(*[unpacker.value(part) for part in parts])


def _read_text(module: str, name: str) -> Callable[[Unpacker, str], Any]:
    def read(unpacker: Unpacker, text: str) -> Any:
        from importlib import import_module

        if not isinstance(text, str) or len(text) > 10_000:
            raise ValueError(f"no text of a {name}")
        return getattr(import_module(module), name)(text)

    return read


def _read_moment(name: str) -> Callable[..., Any]:
    def read(unpacker: Unpacker, text: str, zone: str | None = None, fold: int = 0) -> Any:
        import datetime

        found = getattr(datetime, name).fromisoformat(text)
        if name == "date":
            return found
        if zone is None:
            return found.replace(fold=fold)
        from zoneinfo import ZoneInfo

        return found.replace(tzinfo=ZoneInfo(zone), fold=fold)

    return read


def _read_timedelta(unpacker: Unpacker, days: int, seconds: int, microseconds: int) -> Any:
    import datetime

    return datetime.timedelta(days, seconds, microseconds)


_READ: dict[Any, Callable[..., Any]] = {
    "int": lambda unpacker, text: int(text, 16),
    "str": lambda unpacker, index: str(unpacker.buffer(index), "utf-8", "surrogatepass"),
    "bytes": lambda unpacker, index: bytes(unpacker.buffer(index)),
    "bytearray": lambda unpacker, index: bytearray(unpacker.buffer(index)),
    "floats": _array("d"),
    "ints": _array("q"),
    "list": _sequence(list),
    "tuple": _sequence(tuple),
    "set": _sequence(set),
    "frozenset": _sequence(frozenset),
    "dict": _read_dict,
    "complex": lambda unpacker, real, imaginary: complex(real, imaginary),
    "range": _read_range,
    "slice": _read_slice,
    "Decimal": _read_text("decimal", "Decimal"),
    "UUID": _read_text("uuid", "UUID"),
    "PosixPath": _read_text("pathlib", "PosixPath"),
    "PurePosixPath": _read_text("pathlib", "PurePosixPath"),
    "datetime": _read_moment("datetime"),
    "date": _read_moment("date"),
    "time": _read_moment("time"),
    "timedelta": _read_timedelta,
}

WRITERS.update(_KNOWN)
FOREIGN.update({**_MET, **tabular.WRITERS})
READERS.update({**_READ, **tabular.READERS})
