"""Hold a container still while its files are read (``commit``), whoever is killed meanwhile."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from typing import Any

from ..errors import StateError
from ..linux import cgroups, process, sockets
from . import state


def main(folder: str, run: str, conn: socket.socket) -> None:
    """In a worker of its own. Never raises."""
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with its client; a frozen container must not stay behind
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        hold(folder, f"{run}/frozen", conn)
    except BaseException as error:
        sockets.reply_error(conn, error)


def hold(folder: str, marks: str, conn: socket.socket) -> None:
    """Let nothing of the container move while the client lives; it need not tell us when it is done, or killed.

    The mark says who has frozen it: should this process be killed too, :func:`sweep` thaws. It is a link, which is there with
    what it says or not at all (symlink(2)); a file would take a second one beside it, which a SIGKILL leaves.
    """
    spec, now = state.read(folder, "config.json"), state.read(folder, "state.json")
    if spec is None or now is None or now["status"] != state.RUNNING:
        sockets.send(conn, {"ready": False})
        return
    group, mark = cgroups.open(spec["linux"]["cgroupsPath"]), f"{os.path.basename(folder)}.{os.getpid()}"
    os.makedirs(marks, mode=0o700, exist_ok=True)
    os.symlink(json.dumps(process.identity(os.getpid())), f"{marks}/{mark}")
    try:
        group.freeze()
        sockets.send(conn, {"ready": True})
        sockets.receive(conn)
    except KeyError:
        sockets.send(conn, {"ready": False})  # no freezer on this machine
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
        raise StateError(f"container {os.path.basename(folder)[:12]} is just ending", "try again") from None
    finally:
        _thaw(folder, group, marks, mark)


def _thaw(folder: str, group: Any, marks: str, mark: str) -> None:
    now = state.read(folder, "state.json")
    others = [name for name in os.listdir(marks) if name != mark and name.startswith(os.path.basename(folder))]
    try:
        # Paused meanwhile, it is to stay so; held by another commit too, the last of them thaws.
        if not others and (not now or now["status"] != state.PAUSED):
            group.thaw()
    except (OSError, KeyError):
        pass  # it has ended
    try:
        os.unlink(f"{marks}/{mark}")
    except FileNotFoundError:
        pass


def sweep(containers: str, run: str) -> None:
    """Thaw what a killed commit and its killed worker left frozen. Costs one look into an empty folder."""
    marks = f"{run}/frozen"
    try:
        names = os.listdir(marks)
    except FileNotFoundError:
        return
    for mark in names:
        folder = f"{containers}/{mark.partition('.')[0]}"
        try:
            guard = json.loads(os.readlink(f"{marks}/{mark}"))
        except FileNotFoundError:
            continue  # just done
        if process.alive(guard) is not False:
            continue
        spec = state.read(folder, "config.json")
        group = cgroups.open(spec["linux"]["cgroupsPath"]) if spec else None
        _thaw(folder, group, marks, mark) if group else os.unlink(f"{marks}/{mark}")
