"""Streams compressed and not: told by their first bytes when read, deterministic when written.

gzip by ISA-L where it is installed (about twice zlib's speed at reading, fifteen times at writing), else zlib-ng, else zlib; zstd by
zstandard; bzip2 and xz are read, as Docker does. All of them let other threads run meanwhile.
"""

from __future__ import annotations

import functools
import importlib
import io
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, Protocol, cast

from ..errors import ImageError

_READ = 1 << 16  # bytes of compressed data at once
_PIECE = 1 << 18  # bytes of plain data at once: whatever a bomb would make of the above, no more is in memory
_BLOCK = 1 << 20  # bytes that one thread compresses; the result depends on it, and on nothing else
_WINDOW = 1 << 15  # deflate looks back no further (RFC 1951)
_LARGEST_WINDOW = 1 << 27  # of zstd: what its own program takes without being asked (RFC 8878, 3.1.1.1.2, leaves it to the reader)
_SUFFIX = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}


class CompressionError(ImageError):
    """Compressed data that is damaged, cut off or followed by something else."""


def kind_of(start: bytes) -> str:
    """``gzip``, ``zstd``, ``bzip2``, ``xz`` or ``none``, by the first 10 bytes of a stream."""
    if start.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if start.startswith(b"\x28\xb5\x2f\xfd") or (start[1:4] == b"\x2a\x4d\x18" and start[0] & 0xF0 == 0x50):  # a frame, or one to skip
        return "zstd"
    if start.startswith(b"BZh"):
        return "bzip2"
    return "xz" if start.startswith(b"\xfd7zXZ\x00") else "none"


def open_reader(file: BinaryIO) -> tuple[BinaryIO, str]:
    """A stream's plain bytes, and how it is compressed (see :func:`kind_of`).

    ``read(n)`` of what is returned gives at most n bytes, like a pipe, never more than 256 KiB; ``file`` stays open when it is closed.
    It raises :class:`CompressionError` for data that is damaged, cut off, or goes on after its end: another member or frame may follow,
    and zeros (gzip(1): padding), nothing else. How many bytes come out is for the caller to limit.
    """
    start = b""
    while len(start) < 10 and (more := file.read(10 - len(start))):
        start += more
    kind = kind_of(start)
    pieces = {"gzip": _gzip, "zstd": _zstd, "bzip2": _bzip2, "xz": _xz, "none": _plain}[kind](_Source(start, file))
    return cast(BinaryIO, _Plain(pieces)), kind  # what is asked of it here: read and close


class Compressor(Protocol):
    """What takes plain bytes and gives compressed ones; not for several threads at once."""

    def compress(self, data: bytes) -> bytes: ...

    def flush(self) -> bytes: ...


def compressor(kind: str, level: int | None = None, threads: int | None = None) -> Compressor:
    """For ``gzip``, ``zstd`` or ``none``. The same bytes in give the same bytes out, however they are cut and whatever ``threads`` is.

    :param level: gzip 1 to 9, zstd 1 to 19; None: the one at which a layer is about as small as Docker makes it.
    :raises ImageError: another kind.
    """
    threads = threads or min(4, len(os.sched_getaffinity(0)))
    if kind == "gzip":
        return _Gzip(level, threads)
    if kind == "zstd":
        made: Compressor = _zstandard().ZstdCompressor(level=level or 3, threads=threads, write_checksum=True).compressobj()
        return made
    if kind == "none":
        return _Uncompressed()
    raise ImageError(f"{kind!r} is no compression of layers", "gzip, zstd or none")


def compress(pieces: Iterable[bytes], kind: str, level: int | None = None) -> Iterator[bytes]:
    """``pieces`` as one compressed stream, in pieces."""
    made = compressor(kind, level)
    for piece in pieces:
        if data := made.compress(piece):
            yield data
    yield made.flush()


# -- reading


class _Source:
    """Compressed bytes, the first of which have been looked at."""

    def __init__(self, start: bytes, file: BinaryIO) -> None:
        self._start, self._file = start, file

    def read(self, size: int = _READ) -> bytes:
        if self._start:
            start, self._start = self._start, b""
            return start
        return self._file.read(size)


class _Plain(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return self.readall()
        if not self._left:
            piece = next(self._pieces, b"")
            if len(piece) <= size:
                return piece
            self._left = memoryview(piece)
        piece, self._left = bytes(self._left[:size]), self._left[size:]
        return piece

    def readinto(self, buffer: Any) -> int:
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


def _plain(source: _Source) -> Iterator[bytes]:
    while piece := source.read(_PIECE):
        yield piece


def _gzip(source: _Source) -> Iterator[bytes]:
    library, error = _deflate()
    return _members(source, "gzip", lambda: library.decompressobj(wbits=31), (error, zlib.error))


def _members(source: _Source, kind: str, make: Callable[[], Any], errors: tuple[type[Exception], ...]) -> Iterator[bytes]:
    """One compressed member after the other (RFC 1952, 2.2)."""
    data = source.read()
    while data:
        member = make()
        while not member.eof:
            try:
                piece = member.decompress(data, _PIECE)
            except errors as error:
                raise CompressionError(f"damaged {kind} data: {error}", "get it again") from None
            if piece:
                yield piece
            data = member.unconsumed_tail
            if not data and not member.eof and len(piece) < _PIECE and not (data := source.read()):
                raise CompressionError(f"the {kind} data ends in the middle", "it is not whole: get it again")
        data = _after(source, member.unused_data, kind)


def _after(source: _Source, data: bytes, kind: str) -> bytes:
    """What follows a member: another one, or zeros and no more."""
    data = data or source.read()
    while data and not data.strip(b"\0"):
        data = source.read()
        if data.strip(b"\0"):
            raise CompressionError(f"something follows the end of the {kind} data", "")
    return data


class _Unlike:
    """bz2's and lzma's decompressors (``needs_input``) in zlib's form (``unconsumed_tail``)."""

    def __init__(self, made: Any) -> None:
        self._made = made
        self.unconsumed_tail = b""

    @property
    def eof(self) -> bool:
        return bool(self._made.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._made.unused_data)

    def decompress(self, data: bytes, size: int) -> bytes:
        return bytes(self._made.decompress(data, size))


def _bzip2(source: _Source) -> Iterator[bytes]:
    import bz2

    return _members(source, "bzip2", lambda: _Unlike(bz2.BZ2Decompressor()), (OSError, ValueError))


def _xz(source: _Source) -> Iterator[bytes]:
    import lzma

    # A dictionary of 64 MiB is what xz -9 makes; one of 4 GiB is what an attacker asks for.
    return _members(source, "xz", lambda: _Unlike(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=80 << 20)), (lzma.LZMAError,))


def _zstd(source: _Source) -> Iterator[bytes]:
    """Its reader ends in silence where the data does. So a frame of our own, that nobody can foresee, goes after the data: what comes out
    ends with it only if the last frame before was whole.
    """
    library, last = _zstandard(), os.urandom(16)
    ending = [library.ZstdCompressor().compress(last)]
    ended = False

    class Source:
        def read(self, size: int = -1) -> bytes:
            nonlocal ended
            data = source.read(size)
            if not data and ending:
                ended = True
                return bytes(ending.pop())
            return data

    reader = library.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).stream_reader(
        Source(), read_size=_READ, read_across_frames=True, closefd=False
    )
    held = b""
    try:
        while piece := reader.read(_PIECE):
            if ended:
                held += piece
                piece, held = held[: -len(last)], held[-len(last) :]
            if piece:
                yield piece
    except library.ZstdError as error:
        text = str(error).removeprefix("zstd decompress error: ")
        if ended:
            raise CompressionError(f"the zstd data ends in the middle, or something follows it ({text})", "get it again") from None
        raise CompressionError(f"damaged zstd data: {text}", "get it again") from None
    if held != last:
        raise CompressionError("the zstd data ends in the middle", "it is not whole: get it again")


# -- writing


class _Uncompressed:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class _Gzip:
    """One member, whose blocks several threads compress: each knows the 32 KiB before it, and ends at a byte (Z_SYNC_FLUSH)."""

    _HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no name, no time, no operating system: always the same

    def __init__(self, level: int | None, threads: int) -> None:
        self._library, _ = _deflate()
        self._level = _own_level(self._library, level)
        self._pool = ThreadPoolExecutor(threads, "gzip")
        self._threads = threads
        self._waiting: deque[Future[bytes]] = deque()
        self._gathered: list[bytes] = []
        self._size = self._crc = self._total = 0
        self._before = b""
        self._made = self._HEAD

    def compress(self, data: bytes) -> bytes:
        self._gathered.append(data)
        self._size += len(data)
        if self._size >= _BLOCK:
            joined = b"".join(self._gathered)
            whole = len(joined) - len(joined) % _BLOCK
            for at in range(0, whole, _BLOCK):
                self._submit(joined[at : at + _BLOCK])
            self._gathered, self._size = [joined[whole:]], len(joined) - whole
        return self._finished(2 * self._threads)

    def flush(self) -> bytes:
        if self._size:
            self._submit(b"".join(self._gathered))
        data = self._finished(0) + b"\x03\0"  # an empty last block
        self._pool.shutdown()
        return data + self._crc.to_bytes(4, "little") + (self._total & 0xFFFFFFFF).to_bytes(4, "little")

    def _submit(self, block: bytes) -> None:
        self._crc = self._library.crc32(block, self._crc)
        self._total += len(block)
        self._waiting.append(self._pool.submit(self._block, block, self._before))
        self._before = block[-_WINDOW:]

    def _block(self, block: bytes, before: bytes) -> bytes:
        settings = {"zdict": before} if before else {}
        made = self._library.compressobj(self._level, zlib.DEFLATED, -15, **settings)
        return bytes(made.compress(block) + made.flush(zlib.Z_SYNC_FLUSH))

    def _finished(self, most: int) -> bytes:
        """What is ready in order; waits until no more than ``most`` blocks are under way."""
        data, self._made = [self._made], b""
        while self._waiting and (len(self._waiting) > most or self._waiting[0].done()):
            data.append(self._waiting.popleft().result())
        return b"".join(data)


# -- the libraries


@functools.cache
def _deflate() -> tuple[Any, type[Exception]]:
    """The fastest module with zlib's functions, and its error."""
    for name in ("isal.isal_zlib", "zlib_ng.zlib_ng"):
        try:
            module: Any = importlib.import_module(name)
            return module, module.error
        except ImportError:
            pass
    return zlib, zlib.error


def _own_level(library: Any, level: int | None) -> int:
    """ISA-L has levels 0 to 3; asked for more, it gives its best."""
    if library.__name__.startswith("isal"):
        return 3 if level is None else min(level, 3)
    return 6 if level is None else level


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise ImageError("zstd needs the Python package zstandard", "pip install zstandard") from None
    return zstandard
