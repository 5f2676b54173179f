"""Arrow streams from containers: a part of ``tabular``. What is small where it comes from and large where it is read is refused."""

from __future__ import annotations

import json
import re
import struct
from typing import Any

_ROW = 128
"""Bytes, about, of an object of Python for one row: an array for a list, a dict for a structure."""
#: The kinds of labels of columns that pandas may be told of: "S1000000000" would make each of them a gigabyte.
_LABELS = re.compile(r"(?![SUVa]\d)[A-Za-z]+\d{0,3}(_\w{1,20})?(\[[^\]]{0,60}\])?")


def check_messages(stream: Any) -> None:
    """Look at the messages of a stream before anything is made of them. :raises ValueError: one is compressed.

    Our writer compresses nothing, and pyarrow cannot be told to refuse it.
    """
    import pyarrow

    reader = pyarrow.ipc.MessageReader.open_stream(stream)
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        if message.type not in ("schema", "record batch", "dictionary"):
            raise ValueError(f"a message of type {message.type!r}")
        if message.type != "schema":
            _check_batch(message.metadata.to_pybytes(), message.type == "dictionary")


def _check_batch(data: bytes, dictionary: bool) -> None:
    """Arrow's Message.fbs: a Message has (version, header type, header, body length, metadata), a DictionaryBatch (id, batch, delta), a
    RecordBatch (length, nodes, buffers, compression, numbers of the buffers of views).
    """
    message = _follow(data, 0)
    if _field(data, message, 4):  # before there was a field for it, compression was said here
        raise ValueError("a batch with words of its own")
    batch = _follow(data, _field(data, message, 2))
    if dictionary:
        batch = _follow(data, _field(data, batch, 1))
    if _field(data, batch, 3):
        raise ValueError("it is compressed")
    if _field(data, batch, 4):
        raise ValueError("it has views, of which many can be of one text")


def _follow(data: bytes, at: int) -> int:
    """A reference of a flatbuffer: how much further on what it means stands."""
    found: int = at + struct.unpack_from("<I", data, at)[0]
    return found


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table stands, 0 where the table has it not: https://flatbuffers.dev/internals/"""
    fields = table - struct.unpack_from("<i", data, table)[0]
    if fields < 0 or 4 + 2 * number >= struct.unpack_from("<H", data, fields)[0]:
        return 0
    place = struct.unpack_from("<H", data, fields + 4 + 2 * number)[0]
    return table + place if place else 0


def check_schema(schema: Any) -> None:
    """:raises ValueError: a type whose values can be more than their bytes say, or what pandas may not be told."""
    for kind in schema.types:
        _check_type(kind)
    told = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    for level in told.get("column_indexes", ()):
        if not _LABELS.fullmatch(str(level["numpy_type"])):
            raise ValueError(f"labels of the kind {str(level['numpy_type'])[:40]!r}")


def _check_type(kind: Any) -> None:
    from pyarrow import types

    if hasattr(kind, "storage_type"):
        return _check_type(kind.storage_type)
    if (types.is_fixed_size_binary(kind) and kind.byte_width < 1) or (types.is_fixed_size_list(kind) and kind.list_size < 1):
        raise ValueError(f"values without a size: {str(kind)[:60]}")
    if types.is_dictionary(kind):
        return _check_type(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _check_type(kind.value_type)
    if types.is_map(kind):
        _check_type(kind.key_type)
        return _check_type(kind.item_type)
    if types.is_struct(kind):
        if not kind.num_fields:
            raise ValueError("structures of nothing")
        for place in range(kind.num_fields):
            _check_type(kind.field(place).type)
        return None
    plain = (
        types.is_null, types.is_primitive, types.is_decimal, types.is_string, types.is_large_string, types.is_binary, types.is_large_binary,
        types.is_fixed_size_binary,
    )  # fmt: skip
    if not any(fits(kind) for fits in plain):
        raise ValueError(f"values of the type {str(kind)[:60]}")
    return None


def cost(table: Any) -> int:
    """About how many bytes it takes as pandas has it: a missing number has eight, and so has a missing anything."""
    found: int = max(sum(_cost(chunk) for column in table.columns for chunk in column.chunks), 8 * table.num_rows)
    return found


def _cost(array: Any) -> int:
    from pyarrow import types

    kind, count = array.type, len(array)
    if hasattr(kind, "storage_type"):
        return _cost(array.storage)
    if types.is_dictionary(kind):
        return _cost(array.indices) + _cost(array.dictionary)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _ROW * count + _cost(array.values)
    if types.is_map(kind):
        return _ROW * count + _cost(array.keys) + _cost(array.items)
    if types.is_struct(kind):
        return _ROW * count + sum(_cost(array.field(place)) for place in range(kind.num_fields))
    if types.is_primitive(kind):
        width: int = (kind.bit_width + 7) // 8
        return count * (max(8, width) if array.null_count else width)
    size: int = array.nbytes
    return size + 8 * count
