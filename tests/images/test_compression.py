"""Compressed streams next to the programs that everybody uses: gzip, zstd, bzip2, xz."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import shutil
import subprocess
import sys
import textwrap
import zlib
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pycontainers.images import compression
from pycontainers.images.compression import CompressionError, compress, compressor, open_reader
from pycontainers.images.readahead import ReadAhead

DATA = b"".join(b"%d some text that repeats\n" % (number // 3) for number in range(200_000)) + random.Random(1).randbytes(700_000)
LIBRARIES = ("isal", "zlib_ng", "zlib")


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each of the modules that can be under it, where it is installed."""
    if request.param != "zlib":
        pytest.importorskip(request.param)
    hidden = LIBRARIES[: LIBRARIES.index(request.param)]
    for name in [name for name in sys.modules if name.partition(".")[0] in hidden]:
        monkeypatch.delitem(sys.modules, name)
    find = compression.importlib.import_module

    def hide(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in hidden:
            raise ImportError(name)
        return find(name, *rest)

    monkeypatch.setattr(compression.importlib, "import_module", hide)
    compression._deflate.cache_clear()
    yield compression._deflate()[0].__name__
    compression._deflate.cache_clear()


def plain(data: bytes, step: int = 0) -> tuple[bytes, str]:
    """Read to the end, from a file that gives at most ``step`` bytes at once."""
    file = io.BytesIO(data)
    source: Any = file
    if step:
        source = type("Slow", (), {"read": lambda self, size: file.read(min(size, step))})()
    reader, kind = open_reader(source)
    pieces = []
    while piece := reader.read(1 << 20):
        assert len(piece) <= 1 << 18
        pieces.append(piece)
    return b"".join(pieces), kind


def run(program: str, *arguments: str, data: bytes) -> bytes:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return subprocess.run([program, *arguments], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize(("program", "kind"), [("gzip", "gzip"), ("zstd", "zstd"), ("bzip2", "bzip2"), ("xz", "xz"), ("cat", "none")])
@pytest.mark.parametrize("step", [0, 1000])
def test_what_programs_compress_is_read(program: str, kind: str, step: int) -> None:
    data = run(program, *([] if program == "cat" else ["-c"]), data=DATA)
    assert plain(data, step) == (DATA, kind)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_programs_read_what_we_compress(kind: str, library: str) -> None:
    data = b"".join(compress([DATA[:100], DATA[100:]], kind))
    assert run(kind, "-dc", data=data) == DATA and plain(data) == (DATA, kind)
    assert plain(b"".join(compress([], kind))) == (b"", kind)
    assert len(data) < len(zlib.compress(DATA, 6)) * 1.1


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
def test_the_same_bytes_however_they_come_and_whoever_works(kind: str) -> None:
    def made(step: int, threads: int) -> bytes:
        made = compressor(kind, threads=threads)
        return b"".join(made.compress(DATA[at : at + step]) for at in range(0, len(DATA), step)) + made.flush()

    assert len({made(step, threads) for step, threads in [(len(DATA), 1), (1 << 20, 2), (99_999, 3), (1 << 16, 1)]}) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=3000), max_size=6), st.sampled_from(["gzip", "zstd"]), st.sampled_from([0, 1, 7]))
def test_anything_survives(pieces: list[bytes], kind: str, step: int) -> None:
    assert plain(b"".join(compress(pieces, kind)), step) == (b"".join(pieces), kind)


def test_many_members_and_frames_are_one_stream(library: str) -> None:
    members = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")
    assert plain(members)[0] == plain(members, 1)[0] == b"one two"
    frame = zstandard.ZstdCompressor().compress
    skipped = b"\x53\x2a\x4d\x18\x03\0\0\0abc"
    assert plain(skipped + frame(b"one ") + skipped + frame(b"") + frame(b"two") + skipped) == (b"one two", "zstd")
    assert plain(bz2.compress(b"one ") + bz2.compress(b"two"))[0] == b"one two"
    assert plain(lzma.compress(b"one ") + lzma.compress(b"two"))[0] == b"one two"


def test_zeros_may_follow_and_nothing_else(library: str) -> None:
    assert plain(gzip.compress(b"x") + bytes(100_000))[0] == b"x"
    for data in (
        gzip.compress(b"x") + b"garbage that follows",
        gzip.compress(b"x") + bytes(70_000) + b"g",
        zstandard.compress(b"x") + b"garbage",
    ):
        with pytest.raises(CompressionError):
            plain(data)


@pytest.mark.parametrize("make", [gzip.compress, zstandard.compress, bz2.compress, lzma.compress])
def test_what_is_cut_off_is_never_taken_for_whole(make: Any, library: str) -> None:
    data = make(DATA[:50_000])
    for size in [*range(12, min(len(data), 300), 7), len(data) // 2, *range(len(data) - 12, len(data))]:
        for step in (0, 5):
            with pytest.raises(CompressionError, match=r"ends in the middle|damaged"):
                plain(data[:size], step)


def test_damage_is_found(library: str) -> None:
    for data in (gzip.compress(DATA[:50_000]), b"".join(compress([DATA[:50_000]], "zstd")), lzma.compress(DATA[:50_000])):
        broken = bytearray(data)
        broken[len(data) // 2] ^= 0x10
        with pytest.raises(CompressionError):
            plain(bytes(broken))


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_bomb_costs_no_memory(kind: str) -> None:
    """A gigabyte of zeros out of some kilobytes: in a process of its own, whose peak is its own."""
    program = textwrap.dedent(f"""
        import io, resource, zstandard, zlib
        from pycontainers.images.compression import open_reader
        if {kind!r} == "zstd":
            made = zstandard.ZstdCompressor(level=19).compressobj()
        else:
            made = zlib.compressobj(9, zlib.DEFLATED, 31)
        data = b"".join(made.compress(bytes(1 << 20)) for _ in range(1024)) + made.flush()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        reader, kind = open_reader(io.BytesIO(data))
        size = 0
        while piece := reader.read(1 << 20):
            size += len(piece)
        assert size == 1 << 30, size
        print(len(data), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ})
    small, grown = map(int, done.stdout.split())
    assert small < 2 << 20 and grown < 40 << 10  # KiB


def test_a_window_larger_than_zstds_own_limit_is_refused() -> None:
    settings = zstandard.ZstdCompressionParameters.from_level(3, window_log=30, enable_ldm=True)
    made = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    with pytest.raises(CompressionError, match="damaged zstd data"):
        plain(made.compress(bytes(1000)) + made.flush())


# -- reading ahead


def test_read_ahead_gives_everything_in_order_and_its_digest() -> None:
    file = io.BytesIO(DATA)
    ahead = ReadAhead(lambda size: file.read(min(size, 9999)))
    assert b"".join(iter(ahead.read, b"")) == DATA and ahead.read() == b""
    assert ahead.digest == "sha256:" + hashlib.sha256(DATA).hexdigest() and ahead.size == len(DATA)


def test_read_ahead_holds_a_few_pieces_and_no_more() -> None:
    given = []
    ahead = ReadAhead(lambda size: given.append(size) or bytes(size))
    for _ in range(100):
        ahead.read()
    ahead.close()
    for thread in ahead._threads:
        thread.join(10)
        assert not thread.is_alive()
    assert len(given) < 100 + 40


def test_what_reading_raises_comes_in_its_turn() -> None:
    def source(size: int) -> bytes:
        if len(seen) < 3:
            seen.append(size)
            return b"x"
        raise OSError(5, "gone")

    seen: list[int] = []
    ahead = ReadAhead(source)
    assert [ahead.read() for _ in range(3)] == [b"x"] * 3
    with pytest.raises(OSError, match="gone"):
        ahead.read()


def test_a_limit_ends_what_is_endless() -> None:
    ahead = ReadAhead(lambda size: bytes(size), limit=10 << 20)
    with pytest.raises(Exception, match="more than 10485760 bytes"):
        while ahead.read():
            pass
