"""A process that joins a container's user, UTS, IPC and cgroup namespaces and says what it is told there. No other namespace is joined."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from ..linux import namespaces

_MOST = 60


def main(words: list[str]) -> None:
    """``words``: a JSON object: ``pid``; ``kinds``: OCI type -> the inode that its namespace must have, the pid may be another's by now."""
    asked = json.loads(words[0])
    pid = int(asked["pid"])
    fds = []
    why = ""
    try:
        for kind, number in asked["kinds"].items():
            fd = os.open(f"/proc/{pid}/ns/{namespaces.KINDS[kind][1]}", os.O_RDONLY | os.O_CLOEXEC)
            if os.fstat(fd).st_ino != number:
                raise ProcessLookupError(f"process {pid} has ended")
            fds.append((kind, fd))
        namespaces.join(fds)
    except OSError as error:
        why = f"cannot be read: {error.strerror or error}"
    json.dump({"why": why} if why else told(pid), sys.stdout)


def told(pid: int) -> dict[str, Any]:
    """As this process is told it: ``uts`` names, System V ``ipc``, and how the control groups of ``pid`` are called."""
    names = os.uname().nodename, _line("/proc/sys/kernel/domainname")
    ipc: dict[str, Any] = {}
    for name in ("shm", "sem", "msg"):
        rows = [line.split() for line in _text(f"/proc/sysvipc/{name}").split("\n")[1:-1]]
        # sysvipc(7): key shmid perms size cpid lpid nattch …
        ipc[name] = [(row[0], row[3], row[6]) for row in rows if len(row) > 6][:_MOST] if name == "shm" else len(rows)
    return {"uts": list(names), "ipc": ipc, "cgroup": _text(f"/proc/{pid}/cgroup").split("\n")[:-1][:_MOST], "why": ""}


def _line(path: str) -> str:
    found = _text(path).strip()
    return "" if found == "(none)" else found


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
