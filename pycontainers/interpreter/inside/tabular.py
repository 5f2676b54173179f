"""What NumPy, pandas and Arrow have, in plain form: a part of ``values``. None of them is imported before a value of its kind is met."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from .plain import Packer, Tree, Unfit, Unpacker

# -- writing


def _ndarray(packer: Packer, value: Any) -> Tree:
    import numpy

    if value.dtype.hasobject:
        if value.dtype != object:
            return NotImplemented
        return ["objects", list(value.shape), [packer.part(item) for item in value.reshape(-1).tolist()]]
    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    flat = value.T if fortran else numpy.ascontiguousarray(value)
    head, form = io.BytesIO(), numpy.lib.format
    fields = {"descr": form.dtype_to_descr(value.dtype), "fortran_order": fortran, "shape": value.shape}
    try:
        form.write_array_header_1_0(head, fields)
    except ValueError:
        head.seek(0)
        form.write_array_header_2_0(head, fields)
    data = flat.reshape(-1).view(numpy.uint8) if value.size and value.dtype.itemsize else b""
    return ["npy", packer.buffer(head.getvalue()), packer.buffer(data)]


def _generic(packer: Packer, value: Any) -> Tree:
    import numpy

    found = _ndarray(packer, numpy.asarray(value))
    return found if found is NotImplemented else ["scalar", found]


def _stream(packer: Packer, table: Any) -> int:
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return packer.buffer(sink.getvalue())


def _table(packer: Packer, value: Any) -> Tree:
    return ["arrow", _stream(packer, value)] if packer.arrow else NotImplemented


def _batch(packer: Packer, value: Any) -> Tree:
    import pyarrow

    return ["batch", _stream(packer, pyarrow.Table.from_batches([value]))] if packer.arrow else NotImplemented


def _frame(packer: Packer, value: Any) -> Tree:
    if packer.arrow:
        import pyarrow

        try:
            return ["frame", _stream(packer, pyarrow.Table.from_pandas(value))]
        except (pyarrow.ArrowException, ValueError, TypeError, NotImplementedError):
            pass  # a column of several kinds of things, two columns of one name: column by column
    return [
        "columns",
        _labels(packer, value.columns),
        _labels(packer, value.index),
        [_column(packer, value.iloc[:, i]) for i in range(value.shape[1])],
    ]


def _series(packer: Packer, value: Any) -> Tree:
    return ["series", packer.part(value.name), _frame(packer, value.to_frame("values"))]


def _index(packer: Packer, value: Any) -> Tree:
    return ["index", packer.part(value.name), _frame(packer, value.to_frame(index=False, name="values"))]


def _stamp(packer: Packer, value: Any) -> Tree:
    """A pandas.Timestamp or Timedelta, with its offset in the text and its zone by name where it has one."""
    zone = getattr(value, "tz", None)
    return [type(value).__name__, value.isoformat(), getattr(zone, "key", None)]


def _nat(packer: Packer, value: Any) -> Tree:
    return ["NaT"]


def _labels(packer: Packer, index: Any) -> Tree:
    if type(index).__name__ == "RangeIndex":
        return [packer.part(index.name), ["range", index.start, index.stop, index.step]]
    if type(index).__name__ == "MultiIndex":
        raise Unfit("a pandas object with several levels of labels, where Arrow cannot take it")
    return [packer.part(index.name), _column(packer, index)]


def _column(packer: Packer, column: Any) -> Tree:
    import numpy

    values = column.to_numpy()
    if getattr(column.dtype, "tz", None) is not None or values.dtype != column.dtype:
        values = numpy.asarray(column, dtype=object)  # what is pandas' own kind alone: item by item
    return packer.part(values)


WRITERS: dict[Any, Callable[[Packer, Any], Tree]] = {
    ("numpy", "ndarray"): _ndarray,
    ("pyarrow", "Table"): _table,
    ("pyarrow", "RecordBatch"): _batch,
    ("pandas", "DataFrame"): _frame,
    ("pandas", "Series"): _series,
    ("pandas", "Timestamp"): _stamp,
    ("pandas", "Timedelta"): _stamp,
    ("pandas", "NaTType"): _nat,
    **{("pandas", name): _index for name in ("Index", "RangeIndex", "DatetimeIndex", "TimedeltaIndex", "CategoricalIndex")},
    **{
        ("numpy", name): _generic
        for name in "bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 longlong ulonglong float16 float32 float64 "
        "longdouble complex64 complex128 clongdouble str_ bytes_ datetime64 timedelta64".split()
    },
}


# -- reading


def _read_npy(unpacker: Unpacker, head: int, data: int) -> Any:
    """As ``numpy.load(allow_pickle=False)``, in place: what the head says must be exactly what the data hold."""
    import numpy

    form, start = numpy.lib.format, io.BytesIO(unpacker.buffer(head))
    version = form.read_magic(start)
    readers = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
    shape, fortran, dtype = readers[version](start)
    count = 1
    for length in shape:
        count *= length
    body = unpacker.buffer(data)
    if dtype.hasobject or min(shape, default=0) < 0 or count * dtype.itemsize != len(body):
        raise ValueError("an array of another size than was said")
    found = numpy.frombuffer(body, dtype, count) if count and dtype.itemsize else numpy.empty(0, dtype)
    return found.reshape(shape[::-1]).T if fortran else found.reshape(shape)


def _read_scalar(unpacker: Unpacker, tree: Tree) -> Any:
    return unpacker.value(tree)[()]


def _read_objects(unpacker: Unpacker, shape: list[int], items: list[Tree]) -> Any:
    import numpy

    found = numpy.empty(len(items), dtype=object)
    for place, item in enumerate(items):
        found[place] = unpacker.value(item)
    return found.reshape(shape)


def _read_table(unpacker: Unpacker, index: int) -> Any:
    """:raises ValueError: an old pyarrow, which runs code that a stream's schema names (CVE-2023-47248), or a stream that would grow."""
    import pyarrow

    from . import arrow  # with the first table, not with every cell

    if tuple(int(part) for part in pyarrow.__version__.split(".")[:2]) < (14, 0) or pyarrow.__version__ == "14.0.0":
        raise ValueError(f"pyarrow {pyarrow.__version__} runs code that is in data: 14.0.1 or newer is needed")
    stream = pyarrow.py_buffer(unpacker.buffer(index))
    with pyarrow.ipc.open_stream(stream) as reader:  # which has read the schema, and nothing else
        arrow.check_schema(reader.schema)
        arrow.check_messages(stream)
        table = reader.read_all()
    table.validate(full=True)  # offsets and indices within their buffers: what is not looked at may be read past its end
    _account(unpacker, arrow.cost(table))
    return table


_TIMES = 4


def _account(unpacker: Unpacker, size: int) -> None:
    """Count the bytes that tables of one message have in memory: few bytes may stand for many, and one buffer for many columns.

    :raises ValueError: they are more than the limit, and more than :data:`_TIMES` what has come.
    """
    unpacker.tables += size
    if unpacker.limit is None or unpacker.tables <= max(unpacker.limit, _TIMES * sum(len(buffer) for buffer in unpacker.buffers)):
        return
    raise ValueError(f"its tables would grow to {unpacker.tables >> 20} MB here")


def _read_batch(unpacker: Unpacker, index: int) -> Any:
    import pyarrow

    table = _read_table(unpacker, index).combine_chunks()
    batches = table.to_batches()
    return batches[0] if batches else pyarrow.RecordBatch.from_pylist([], schema=table.schema)


def _read_frame(unpacker: Unpacker, index: int) -> Any:
    return _read_table(unpacker, index).to_pandas()


def _read_columns(unpacker: Unpacker, columns: Tree, index: Tree, data: list[Tree]) -> Any:
    import pandas

    found = [_read_column(unpacker, column) for column in data]
    count = len(found[0]) if found else None
    labels = _read_labels(unpacker, index, count)
    if any(column.shape != (len(labels),) for column in found):
        raise ValueError("columns of different lengths")  # pandas would fill them up to the longest
    frame = pandas.DataFrame({place: pandas.Series(column) for place, column in enumerate(found)}, index=None if found else labels)
    frame.index = labels
    frame.columns = _read_labels(unpacker, columns, len(found))
    return frame


def _read_column(unpacker: Unpacker, tree: Tree) -> Any:
    """An array; a range here would become as many numbers as it says."""
    if tree[0] not in ("npy", "objects", "pickle"):
        raise ValueError(f"a column of {str(tree[0])[:40]!r}")
    found = unpacker.value(tree)
    _account(unpacker, found.nbytes)
    return found


def _read_labels(unpacker: Unpacker, tree: Tree, count: int | None) -> Any:
    import pandas

    name, values = tree
    found = unpacker.value(values) if values[0] == "range" else _read_column(unpacker, values)
    if count is not None and len(found) != count:
        raise ValueError("labels of another number than what they are for")
    return pandas.Index(found, name=unpacker.value(name))


def _read_series(unpacker: Unpacker, name: Tree, frame: Tree) -> Any:
    return unpacker.value(frame).iloc[:, 0].rename(unpacker.value(name))


def _read_index(unpacker: Unpacker, name: Tree, frame: Tree) -> Any:
    import pandas

    return pandas.Index(unpacker.value(frame).iloc[:, 0], name=unpacker.value(name))


def _read_stamp(name: str) -> Callable[..., Any]:
    def read(unpacker: Unpacker, text: str, zone: str | None) -> Any:
        import pandas

        if not isinstance(text, str) or len(text) > 100:
            raise ValueError(f"no text of a {name}")
        found = getattr(pandas, name)(text)
        return found if zone is None else found.tz_convert(zone)

    return read


def _read_nat(unpacker: Unpacker) -> Any:
    import pandas

    return pandas.NaT


READERS: dict[Any, Callable[..., Any]] = {
    "npy": _read_npy,
    "scalar": _read_scalar,
    "objects": _read_objects,
    "arrow": _read_table,
    "batch": _read_batch,
    "frame": _read_frame,
    "columns": _read_columns,
    "series": _read_series,
    "index": _read_index,
    "Timestamp": _read_stamp("Timestamp"),
    "Timedelta": _read_stamp("Timedelta"),
    "NaT": _read_nat,
}
