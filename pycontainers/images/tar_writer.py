"""A tar of whole files for archives of images, in one go to a stream: no times, no owners, so the same content gives the same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO

from ..errors import ImageError
from . import tar
from .pack import header
from .source import Reader

_CHUNK = 1 << 20
_BLOCK, _RECORD = 512, 20 * 512


class TarWriter:
    """:param output: is written to from where it stands; stays the caller's."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._size = 0

    def folder(self, path: str) -> None:
        self._header(path, 0, tar.FOLDER, 0o755)

    def data(self, path: str, content: bytes) -> None:
        self._header(path, len(content), tar.FILE, 0o644)
        self._write(content)
        self._write(b"\0" * (-len(content) % _BLOCK))

    def file(self, path: str, size: int, reader: Reader, sent: Callable[[int], None]) -> None:
        """:raises ImageError: the reader gives more or less than ``size`` bytes. The archive is of no use then."""
        self._header(path, size, tar.FILE, 0o644)
        done = 0
        while piece := reader.read(_CHUNK):
            done += len(piece)
            if done > size:
                break
            self._write(piece)
            sent(done)
        if done != size:
            raise ImageError(f"{path} has {'more' if done > size else 'less'} than {size} bytes", "verify tells what is damaged")
        self._write(b"\0" * (-size % _BLOCK))

    def end(self) -> int:
        """Bytes of the archive."""
        self._write(b"\0" * (2 * _BLOCK + -(self._size + 2 * _BLOCK) % _RECORD))  # POSIX: two empty blocks, records of 20 blocks
        return self._size

    def _header(self, path: str, size: int, kind: bytes, mode: int) -> None:
        entry = tar.Entry(os.fsencode(path), kind)
        entry.size, entry.mode = size, mode
        self._write(header(entry))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            count = self._output.write(view)
            view = view[len(view) if count is None else count :]
        self._size += len(data)
