"""Pictures from containers: only what is a PNG, JPEG, GIF or WebP of a bearable size goes to the page."""

from __future__ import annotations

import struct

MOST_BYTES = 10 << 20
_SIDE, _PIXELS, _TOGETHER = 16_384, 40_000_000, 200_000_000
"""A page decodes a picture in full, four bytes a pixel, however small its file is."""


class Room:
    """What several pictures may take together."""

    def __init__(self) -> None:
        self._left = _TOGETHER

    def take(self, pixels: int) -> None:
        """:raises ValueError: there is no room for so many more"""
        if pixels > self._left:
            raise ValueError(f"with it the pictures of this cell have more than {_TOGETHER // 1_000_000} megapixels together")
        self._left -= pixels


def checked(kind: str, data: bytes, room: Room | None = None) -> tuple[int, int]:
    """(width, height) of a picture of this media type. :raises ValueError: it is none, or too large; the text says why."""
    if len(data) > MOST_BYTES:
        raise ValueError(f"{len(data) >> 20} MB are too many")
    try:
        width, height = _READERS[kind](data)
    except (struct.error, IndexError):
        raise ValueError("it is cut off") from None
    if not (0 < width <= _SIDE and 0 < height <= _SIDE and width * height <= _PIXELS):
        raise ValueError(f"{width} × {height} pixels are too many, or none")
    if room is not None:
        room.take(width * height)
    return width, height


def _png(data: bytes) -> tuple[int, int]:
    """PNG (RFC 2083): a signature, then chunks; the first is IHDR, the last IEND."""
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        raise ValueError("it is no PNG")
    width, height = struct.unpack(">II", data[16:24])
    at = 8
    while data[at + 4 : at + 8] != b"IEND":
        (length,) = struct.unpack(">I", data[at : at + 4])
        at += 12 + length
    return width, height


def _jpeg(data: bytes) -> tuple[int, int]:
    """JPEG (ITU T.81): segments up to the one that says the size (SOF0 to SOF15 but for DHT, JPG and DAC)."""
    if data[:3] != b"\xff\xd8\xff":
        raise ValueError("it is no JPEG")
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError("it is no JPEG")
        kind = data[at + 1]
        if kind == 0xFF:
            at += 1
            continue
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        at += 2 + length


def _gif(data: bytes) -> tuple[int, int]:
    if data[:6] not in (b"GIF87a", b"GIF89a"):
        raise ValueError("it is no GIF")
    if data[-1] != 0x3B:
        raise ValueError("it is cut off")
    width, height = struct.unpack("<HH", data[6:10])
    return width, height


def _webp(data: bytes) -> tuple[int, int]:
    """WebP (RFC 9649): lossy (VP8), lossless (VP8L), or extended (VP8X)."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError("it is no WebP")
    if len(data) < 30 or int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise ValueError("it is cut off")
    form = data[12:16]
    if form == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if form == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if form == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("it is no WebP")


_READERS = {"image/png": _png, "image/jpeg": _jpeg, "image/gif": _gif, "image/webp": _webp}
KINDS = tuple(_READERS)
