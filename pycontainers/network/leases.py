"""Leases as files, for who does not need to know what an address is: a supervisor, which stays small. See :mod:`.addresses`."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def free(folder: str, container: str, address: str = "", *, but: str = "") -> list[str]:
    """Give back what ``container`` has, and say what that was; nothing where it has nothing, or there is no such folder.

    :param address: what it is known to have; without it, or if that is another's by now, all leases are looked at.
    :param but: the one that it keeps.
    """
    if address and drop(folder, address, container):
        return [address]
    mine = [name for name, owner in listed(folder) if owner == container and name != but]
    return [name for name in mine if drop(folder, name, container)]


def drop(folder: str, name: str, owner: str) -> bool:
    """Remove one lease if it is ``owner``'s; whether it was."""
    try:
        if os.readlink(f"{folder}/{name}") == owner:
            os.unlink(f"{folder}/{name}")
            return True
    except OSError:
        pass
    return False


def listed(folder: str) -> Iterator[tuple[str, str]]:
    """(address, id of its container). A file that is no lease is left alone."""
    try:
        names = os.listdir(folder)
    except OSError:
        return  # never made: nobody has an address
    for name in names:
        try:
            socket.inet_pton(socket.AF_INET, name)
            yield name, os.readlink(f"{folder}/{name}")
        except (ValueError, OSError):
            continue
