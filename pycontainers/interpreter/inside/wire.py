"""Messages between the notebook and a container's Python: twelve bytes that say two lengths, a JSON object, and buffers after it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from typing import Any

HEAD = struct.Struct("<IQ")
"""Bytes of the JSON object, and of all buffers together. How long each of them is, the object says: ``sizes``."""


SHOWN = 24 << 20
"""Bytes of one thing that is shown, in all its forms."""


def message(fields: dict[str, Any], buffers: Iterable[Any] = ()) -> list[memoryview]:
    """The pieces of one message, to be written one after the other. No buffer is copied."""
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    sizes = [view.nbytes for view in views]
    text = json.dumps({**fields, "sizes": sizes}).encode("ascii")
    return [memoryview(HEAD.pack(len(text), sum(sizes)) + text), *[view for view in views if view.nbytes]]


def split(body: Any, sizes: Any) -> list[memoryview]:
    """The buffers of a message. :raises ValueError: the sizes are not those of the body."""
    view = memoryview(body)
    if not isinstance(sizes, list) or any(type(size) is not int or size < 0 for size in sizes) or sum(sizes) != view.nbytes:
        raise ValueError("buffers of other sizes than were said")
    found, at = [], 0
    for size in sizes:
        found.append(view[at : at + size])
        at += size
    return found


def send(sock: Any, pieces: Iterable[memoryview]) -> None:
    for piece in pieces:
        sock.sendall(piece)


def receive(sock: Any) -> tuple[dict[str, Any], list[memoryview]]:
    """Wait for a message whose sender is trusted (inside: the notebook). :raises EOFError: there is none any more."""
    length, size = HEAD.unpack(_exactly(sock, HEAD.size))
    fields = json.loads(bytes(_exactly(sock, length)))
    return fields, split(_exactly(sock, size), fields["sizes"])


def _exactly(sock: Any, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view.nbytes:
        count = sock.recv_into(view)
        if not count:
            raise EOFError("the other side has gone")
        view = view[count:]
    return data
