"""Signals by name or number, as kill(1) and Docker take them."""

from __future__ import annotations

import signal

from ..errors import UsageError


def number(name: str | int) -> int:
    """``SIGTERM``, ``term``, ``15``, ``RTMIN+3`` as a number. :raises UsageError: there is no such signal."""
    text = str(name).upper().removeprefix("SIG")
    base, plus, offset = text.partition("+") if "+" in text else text.partition("-")
    if text.isdigit():
        found = int(text)
    elif base in ("RTMIN", "RTMAX"):
        start = int(signal.SIGRTMIN if base == "RTMIN" else signal.SIGRTMAX)
        found = start + (int(plus + offset) if offset.isdigit() else 0 if not plus else 1 << 16)
    else:
        item = getattr(signal, f"SIG{text}", None)
        found = int(item) if isinstance(item, signal.Signals) else 0
    if not 1 <= found <= signal.SIGRTMAX:
        raise UsageError(f"signal {str(name)!r} is unknown", "for example SIGTERM, HUP or 9")
    return found
