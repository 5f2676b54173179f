"""A connection file, as a Jupyter client writes it, and the one that the kernel in the container gets instead.

A client connects to five TCP ports (or, with ``transport: ipc``, to five sockets ``IP-PORT``). The kernel binds five sockets of
Unix domain on a small tmpfs of its container, and so needs no network. Between them goes a plain stream of bytes: what ZeroMQ speaks
is the same over both, and so are keys and signatures.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ContainersError, UsageError
from ..paths import Paths, private_folder
from .program import FOLDER

_SOCKET = f"{FOLDER}/socket"
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
_MAKING = 60.0  # seconds
_LARGEST = 1 << 16  # bytes of a connection file: real ones have some hundreds


def read(path: str) -> dict[str, Any]:
    """The client's file. :raises UsageError: it is none, or its transport is not known here."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.loads(file.read(_LARGEST))
        ports = [int(found[f"{channel}_port"]) for channel in CHANNELS]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path!r} is not a connection file: {error!r}", "Jupyter gives it in place of {connection_file}") from None
    if found.get("transport", "tcp") not in ("tcp", "ipc"):
        raise UsageError(f"{path!r}: transport {found['transport']!r} is unknown", "tcp or ipc")
    if not all(0 < port < 1 << 16 for port in ports):
        raise UsageError(f"{path!r}: ports {ports} are not five ports", "the client chooses them before it starts the kernel")
    return dict(found)


def inside(document: dict[str, Any]) -> dict[str, Any]:
    """The same for the kernel: its own sockets; keys, names and whatever else a client says stay."""
    ports = {f"{channel}_port": number for number, channel in enumerate(CHANNELS, 1)}
    return {**document, "transport": "ipc", "ip": _SOCKET, **ports}


def socket_name(channel: str) -> str:
    """The name of a channel's socket in :data:`FOLDER`; zmq makes it of address and port number."""
    return f"{os.path.basename(_SOCKET)}-{CHANNELS.index(channel) + 1}"


def listen(document: dict[str, Any]) -> dict[str, socket.socket]:
    """The client's five addresses, bound: channel -> listening socket. :raises ContainersError: one is taken."""
    found: dict[str, socket.socket] = {}
    try:
        for channel in CHANNELS:
            found[channel] = _bind(document, int(document[f"{channel}_port"]))
    except OSError as error:
        for sock in found.values():
            sock.close()
        raise ContainersError(f"the kernel's address {error.filename}: {error.strerror}", "start the kernel again") from None
    return found


def _bind(document: dict[str, Any], port: int) -> socket.socket:
    ip = str(document.get("ip") or "127.0.0.1")
    unix = document.get("transport") == "ipc"
    family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in ip else socket.AF_INET
    address: Any = f"{ip}-{port}" if unix else (ip, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if unix:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address)  # of this kernel before its restart
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the same ports after a restart
        sock.bind(address)
        sock.listen(64)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        error.filename = error.filename or address
        raise
    return sock


class Kept:
    """A kernel's connection file on this machine. ``drop``: it is not needed any more; inside, its mount stays."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def drop(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


@contextlib.contextmanager
def kept(paths: Paths, document: dict[str, Any]) -> Iterator[Kept]:
    """A file with ``document`` (it holds the key), in a folder that only its user can enter, for no longer than this lasts.

    Whoever is killed leaves his file: the next one removes it, since nobody holds its lock any more.
    """
    folder = paths.run / "kernels"
    private_folder(folder)
    _sweep(folder)
    path = folder / f"{secrets.token_hex(8)}.json"
    new = path.with_suffix(".new")  # until its lock is taken
    # Readable for whatever user the kernel has inside; outside, the folder is closed.
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.fchmod(fd, 0o644)
        os.write(fd, json.dumps(document, indent=1).encode())
        os.rename(new, path)
        yield Kept(path)
    finally:
        for name in (new, path):
            Kept(name).drop()
        os.close(fd)


def _sweep(folder: Path) -> None:
    """Remove the files of those who were killed. One without a lock that was made just now is somebody's who is about to take it."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if path.suffix == ".new" and time.time() - path.stat().st_mtime < _MAKING:
                continue
        with contextlib.suppress(OSError):  # another sweeps as well; or it is in use: EWOULDBLOCK
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(fd)
