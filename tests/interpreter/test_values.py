"""The plain form: what it carries comes back as it was, and what nobody should have written is an error, never code that runs."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import pathlib
import pickle
import uuid
import zoneinfo
from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pycontainers.errors import ContainersError
from pycontainers.interpreter import cell
from pycontainers.interpreter.inside import wire
from pycontainers.interpreter.inside.values import Packer, Unfit, Unpacker


def travelled(value: Any, arrow: bool = True) -> Any:
    packer = Packer(arrow)
    tree = json.loads(json.dumps(packer.tree(value)))
    body = bytearray().join(bytes(memoryview(buffer).cast("B")) for buffer in packer.buffers)
    return Unpacker(wire.split(body, [memoryview(buffer).nbytes for buffer in packer.buffers])).value(tree)


FRAME = pd.DataFrame(
    {
        "a": [1, 2, 3],
        "b": ["x", None, "z"],
        "c": pd.Categorical(["u", "v", "u"]),
        "d": pd.date_range("2024-10-26", periods=3, tz="Europe/Berlin"),
        "e": [1.5, np.nan, 2],
    },
    index=pd.Index([5, 6, 7], name="k"),
)


@pytest.mark.parametrize(
    "value",
    [
        None, True, -5, 1 << 300, 1.5, float("inf"), "ä\ud800" * 5, "x" * 9000, b"ab", bytearray(b"q"), [1, 2] * 50, [1.0] * 70,
        [1, 2.0] * 50, [True] * 80, [1 << 70] * 80, (1, (2,)), {1, 2}, frozenset({3}), {"a": {2: (3,)}, (1, 2): []}, 1j, range(3),
        slice(1, None, 2), datetime.datetime(2024, 1, 2, 3, 4, 5, 6), datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")), datetime.date(2024, 2, 29),
        datetime.time(1, 2), datetime.timedelta(1, 2, 3), decimal.Decimal("1.10"), uuid.UUID(int=7), pathlib.Path("/x"),
        pd.Timestamp("2024-10-27 02:30", tz="UTC").tz_convert("Europe/Berlin"), pd.Timedelta("3s"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("arrow", [True, False])
def test_plain_values_come_back_as_they_were(value: Any, arrow: bool) -> None:
    found = travelled(value, arrow)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3).T, np.array(5.0), np.zeros((0, 3)), np.array(["a", "bc"]),
        np.array([1, 2], "M8[s]"), np.zeros(3, [("a", "i4"), ("b", "f8")]), np.array([True]), np.arange(10)[::2],
        np.array([1, "a", None], dtype=object),
    ],
)  # fmt: skip
def test_arrays(value: np.ndarray[Any, Any]) -> None:
    found = travelled(value)
    assert found.dtype == value.dtype and found.shape == value.shape and found.tolist() == value.tolist()
    found[...] = found  # it can be written, as its owner expects


def test_scalars_keep_their_type() -> None:
    assert type(travelled(np.float32(2))) is np.float32 and type(travelled(np.datetime64(1, "s"))) is np.datetime64
    assert travelled(pd.NaT) is pd.NaT


@pytest.mark.parametrize("arrow", [True, False])
def test_frames_series_and_labels(arrow: bool) -> None:
    pd.testing.assert_frame_equal(travelled(FRAME, arrow), FRAME, check_dtype=arrow, check_categorical=arrow)
    pd.testing.assert_series_equal(travelled(FRAME["a"], arrow), FRAME["a"])
    pd.testing.assert_index_equal(travelled(FRAME.index, arrow), FRAME.index)
    mixed = pd.DataFrame({"a": [1, "x", None]})
    pd.testing.assert_frame_equal(travelled(mixed, arrow), mixed)


def test_what_arrow_has() -> None:
    table = pa.table({"a": [1, 2], "b": [[1], None]})
    assert travelled(table).equals(table) and travelled(table.to_batches()[0]).equals(table.to_batches()[0])
    levels = FRAME.set_index(["a", "b"])
    pd.testing.assert_frame_equal(travelled(levels), levels)


def test_what_has_no_plain_form_is_said() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value, words in (
        (endless, "contains itself"),
        (object(), "an object"),
        ({"a": print}, "builtin_function"),
        (np.array([object()]), "object"),
    ):
        with pytest.raises(Unfit, match=words):
            Packer().tree(value)


class Evil:
    """What pickle would run."""

    def __reduce__(self) -> Any:
        return print, ("pickled code has run",)


def npy(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("tree", "buffers"),
    [
        (["pickle", 0], [pickle.dumps(Evil())]),
        (["function", 0], []),
        (["module", "os", []], []),
        (["npy", 0, 1], [npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"), pickle.dumps(Evil())]),
        (["npy", 0, 1], [npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n"), b"\0" * 8]),
        (["npy", 0, 1], [npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -8), }\n"), b"\0" * 64]),
        (["npy", 0, 1], [npy(b"__import__('os').system('id')\n"), b""]),
        (["npy", 0, 0], [b"short"]),
        (["frame", 0], [b"\xff" * 100]),
        (["bytes", -1], [b"secret"]),
        (["bytes", 5], []),
        (["bytes", True], [b"", b"x"]),
        (["list", 5], []),
        (["list", [["list", [["x"]]]]], []),
        (["dict", [[["list", []], 1]]], []),
        (["UUID", 5], []),
        (["datetime", "2024-01-01T00:00:00", "../../etc/passwd", 0], []),
        ([], []),
        ({"a": 1}, []),
        (["int", 7], []),
        (["columns", [None, 1], [None, 2], [3]], []),
    ],
)  # fmt: skip
def test_what_nobody_should_have_written_is_one_line(tree: Any, buffers: list[bytes], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ContainersError, match="cannot be read"):
        cell.values({"values": [["x", tree]]}, [memoryview(bytearray(buffer)) for buffer in buffers], pickled=False)
    assert "has run" not in capsys.readouterr().out


def test_a_tree_that_is_nested_without_end() -> None:
    tree: Any = 1
    for _ in range(100_000):
        tree = ["list", [tree]]
    with pytest.raises(ContainersError, match="Recursion"):
        cell.values({"values": [["x", tree]]}, [], pickled=False)


def test_an_arrow_stream_with_indices_beyond_its_end_is_refused() -> None:
    """pyarrow reads what it is told; only a full validation looks whether it is there."""
    sink = io.BytesIO()
    table = pa.table({"a": pa.array(["u", "v", "u"] * 20).dictionary_encode()})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    data = bytearray(sink.getvalue())
    place = data.rfind(b"\0\0\0\0\1\0\0\0\0\0\0\0")
    data[place : place + 4] = b"\xff\xff\xff\x7f"
    with pytest.raises(ContainersError, match="cannot be read"):
        cell.values({"values": [["x", ["frame", 0]]]}, [memoryview(data)], pickled=False)


def arrow_stream(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write(table)
    return sink.getvalue()


def views() -> pa.Table:
    """Twenty texts that are one."""
    one = pa.array(["x" * 1_000_000], pa.string_view())
    _, entry, text = one.buffers()
    return pa.table({"a": pa.Array.from_buffers(pa.string_view(), 20, [None, pa.py_buffer(entry.to_pybytes() * 20), text])})


def labels_of_a_gigabyte() -> pa.Table:
    table = pa.Table.from_pandas(pd.DataFrame({"a": [1]}))
    told = json.loads(table.schema.metadata[b"pandas"])
    told["column_indexes"][0]["numpy_type"] = "S1000000000"
    return table.replace_schema_metadata({"pandas": json.dumps(told)})


MANY = 70_000_000


@pytest.mark.parametrize(
    ("table", "options", "words"),
    [
        (lambda: pa.table({"a": pa.nulls(MANY)}), {}, "would grow"),
        (lambda: pa.table({"a": pa.LargeListArray.from_arrays(pa.array([0, MANY]), pa.nulls(MANY))}), {}, "would grow"),
        (lambda: pa.table({"a": pa.StructArray.from_arrays([pa.nulls(MANY)], ["b"])}), {}, "would grow"),
        (lambda: pa.table({"a": pa.DictionaryArray.from_arrays(pa.array([0], "int8"), pa.nulls(MANY))}), {}, "would grow"),
        (lambda: pa.table({"a": np.zeros(100_000)}), {"compression": "zstd"}, "compressed"),
        (lambda: pa.table({"a": pa.array(["x" * 100_000]).dictionary_encode()}), {"compression": "lz4"}, "compressed"),
        (views, {}, "type string_view"),
        (lambda: pa.table({"a": pa.RunEndEncodedArray.from_arrays(pa.array([10**6], "int32"), [1.0])}), {}, "run_end_encoded"),
        (lambda: pa.table({"a": pa.array([b""], pa.binary(0))}), {}, "without a size"),
        (lambda: pa.table({"a": pa.array([[[]]], pa.list_(pa.list_(pa.int8(), 0)))}), {}, "without a size"),
        (lambda: pa.table({"a": pa.array([{}], pa.struct([]))}), {}, "of nothing"),
        (lambda: pa.table({"a": pa.array([[1]], pa.list_view(pa.int8()))}), {}, "list_view"),
        (labels_of_a_gigabyte, {}, "labels of the kind"),
    ],
    ids=["null", "list", "struct", "dictionary", "zstd", "lz4", "views", "runs", "binary0", "list0", "struct0", "listview", "labels"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["frame", "arrow"])
def test_a_small_stream_cannot_become_a_large_table(table: Any, options: dict[str, str], words: str, kind: str) -> None:
    data = bytearray(arrow_stream(table(), **options))
    assert len(data) < 2_000_000
    with pytest.raises(ContainersError, match=words):
        cell.values({"values": [["x", [kind, 0]]]}, [memoryview(data)], pickled=False)


@pytest.mark.parametrize(("limit", "fits"), [(1 << 20, False), (100 << 20, True)])
def test_a_table_grows_up_to_the_limit_that_was_asked_for(limit: int, fits: bool) -> None:
    data = memoryview(arrow_stream(pa.table({"a": pa.nulls(1_000_000)})))
    with nullcontext() if fits else pytest.raises(ContainersError, match="would grow to 7 MB"):
        cell.values({"values": [["x", ["frame", 0]]]}, [data], pickled=False, limit=limit)


def test_one_buffer_cannot_become_many_values() -> None:
    for kind, data in (("arrow", arrow_stream(pa.table({"a": [1]}))), ("bytes", b"x" * 1000), ("floats", bytes(800))):
        with pytest.raises(ContainersError, match="stands for two values"):
            cell.values({"values": [["x", ["list", [[kind, 0]] * 70]]]}, [memoryview(data)], pickled=False)
    head = npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000,), }\n")
    tree = ["columns", [None, ["range", 0, 70, 1]], [None, ["range", 0, 1_000_000, 1]], [["npy", 0, 1]] * 70]
    with pytest.raises(ContainersError, match="stands for two values"):
        cell.values({"values": [["x", tree]]}, [memoryview(head), memoryview(bytes(8_000_000))], pickled=False)


ONE = ["objects", [1], [1]]
LONG = ["range", 0, 10**12, 1]


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (["columns", [None, ONE], [None, LONG], [LONG]], "a column of 'range'"),
        (["columns", [None, ONE], [None, ["list", [1]]], [ONE]], "a column of 'list'"),
        (["columns", [None, ONE], [None, LONG], [ONE]], "labels of another number"),
        (["columns", [None, LONG], [None, ["range", 0, 1, 1]], [ONE]], "labels of another number"),
        (["columns", [None, ["range", 0, 2, 1]], [None, ["range", 0, 1, 1]], [ONE, ["objects", [2], [1, 2]]]], "different lengths"),
        (["Timedelta", "1" * 1000, None], "no text"),
    ],
)  # fmt: skip
def test_columns_are_as_long_as_what_has_come(tree: Any, words: str) -> None:
    with pytest.raises(ContainersError, match=words):
        cell.values({"values": [["x", tree]]}, [], pickled=False)


@pytest.mark.parametrize("arrow", [True, False])
@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"n": [None, None], "i": pd.array([1, None], "Int64"), "l": [[1], []], "d": [{"a": 1}, None]}),
        pd.DataFrame({"p": pd.period_range("2020", periods=2, freq="M"), "i": pd.interval_range(0, 2)}),
        pd.DataFrame({"a": [True, False] * 1000}, index=pd.date_range("2020", periods=2000, tz="UTC")),
        pd.DataFrame(index=range(5)), pd.DataFrame({"a": [1]}).iloc[:0], pd.DataFrame(columns=["a", "b"]),
        pd.DataFrame([[1, 2]], columns=pd.date_range("2020", periods=2, tz="UTC")),
    ],
    ids=["mixed", "own", "long", "index", "rows", "columns", "dates"],
)  # fmt: skip
def test_honest_frames_of_every_kind_pass(frame: pd.DataFrame, arrow: bool) -> None:
    if arrow or "i" not in frame:  # where there is no Arrow, these have no plain form
        pd.testing.assert_frame_equal(travelled(frame, arrow), frame, check_freq=False, check_index_type=False, check_column_type=False)
