"""What a start adds to a container's /etc/hosts: its address, which is another one each time, and the gateway's names."""

from __future__ import annotations

from collections.abc import Iterable

_OURS = "# of this start\n"
_MOST = 1 << 20  # characters that are kept: the file is the container's to write


def write(path: str, entries: Iterable[tuple[str, str]]) -> None:
    """Put (address, name) in the place of what the start before has added.

    In place: the file is bound into the container already.
    """
    with open(path, "r+", encoding="utf-8", errors="surrogateescape") as file:
        kept = file.read(_MOST).partition(_OURS)[0]
        if kept and not kept.endswith("\n"):
            kept += "\n"
        file.seek(0)
        file.truncate()
        file.write(kept + _OURS + "".join(f"{address}\t{name}\n" for address, name in entries))
