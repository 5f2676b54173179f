"""What a container's namespaces are, and what is visible through them, beside this machine's: read from /proc, without entering anything.

Host name, System V IPC and the control group's path are told to whoever is in the namespace alone: for them a process of ours joins those
three (:mod:`.spaces_worker`); it stays in this machine's pid and mount namespaces, where nothing inside can see or reach it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..linux import capabilities, namespaces
from ..spaces import KINDS, Sight, Space, Spaces
from . import spaces_network
from .spaces_worker import told

_ROWS = 60
_SECONDS = 10.0
_START = "import sys; sys.path.insert(0, sys.argv[1]); from pycontainers.engines.spaces_worker import main; main(sys.argv[2:])"


def of(name: str, pid: int, others: Mapping[str, int]) -> Spaces:
    """The namespaces of ``pid``, which is the first process of container ``name``; "" and 0 for this machine.

    :param others: name -> first process of each running container.
    """
    own = numbers("self")
    found = numbers(pid) if pid else own
    known = {other: numbers(first) for other, first in others.items() if other != name}
    who = pid or os.getpid()
    inside = {**others, name: pid} if name else dict(others)
    words = told(who) if not pid else _inside(pid, own, found)
    look: dict[str, Callable[[], tuple[Sight, ...]]] = {
        "pid": lambda: _processes(who, {numbers(first).get("pid", 0): one for one, first in inside.items()}, bool(pid)),
        "mount": lambda: _mounts(who),
        "network": lambda: spaces_network.sights(who),
        "user": lambda: _users(who, "first process" if pid else "process"),
        "uts": lambda: _names(words),
        "ipc": lambda: _ipc(words),
        "cgroup": lambda: _groups(who, words, bool(pid)),
        "time": lambda: _clocks(who),
    }
    kinds = {}
    for kind in KINDS:
        shared = tuple(sorted(other for other, theirs in known.items() if found.get(kind) and theirs.get(kind) == found[kind]))
        try:
            sights = look[kind]()
        except (OSError, ValueError) as error:  # it has just ended, or this kernel does not say it
            sights = (Sight("", note=f"cannot be read: {error}"),)
        kinds[kind] = Space(kind, found.get(kind, 0), bool(found.get(kind)) and found.get(kind) == own.get(kind), shared, sights)
    return Spaces(name, pid or os.getpid(), kinds)


def numbers(pid: int | str) -> dict[str, int]:
    """OCI type -> inode of each namespace of a process; what cannot be read is left out."""
    return {kind: int(link.partition("[")[2].rstrip("]")) for kind, link in namespaces.links(pid).items()}


def _inside(pid: int, own: dict[str, int], found: dict[str, int]) -> dict[str, Any]:
    """What only somebody inside is told: of a process that joins what is not this process's own anyway."""
    kinds = [kind for kind in ("user", "uts", "ipc", "cgroup") if kind in found and found[kind] != own.get(kind)]
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    request = json.dumps({"pid": pid, "kinds": {kind: found[kind] for kind in kinds}})
    empty: dict[str, Any] = {"uts": [], "ipc": {}, "cgroup": [], "why": ""}
    if not {"uts", "ipc", "cgroup"} <= set(found):  # ptrace(2): this process may not look; its own must not be taken for theirs
        return {**empty, "why": f"cannot be read: this process may not look at process {pid}"}
    try:
        command = [sys.executable, "-I", "-S", "-c", _START, package, request]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False)
        answer: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return {**empty, "why": f"cannot be read: {error}"}
    return {**empty, **answer}


def _read(pid: int, name: str) -> str:
    # A process chooses its name, and the kernel takes only \n out of it: no other character may end a line here, nor a field.
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace", newline="\n") as file:
        return file.read(1 << 20)


def _cut(title: str, headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], note: str = "") -> Sight:
    return Sight(title, headers, tuple(rows[:_ROWS]), max(0, len(rows) - _ROWS), note)


def _processes(pid: int, containers: dict[int, str], inside: bool) -> tuple[Sight, ...]:
    """Those that have a number in the pid namespace of ``pid``: its own and those of namespaces below it."""
    this = os.stat(f"/proc/{pid}/ns/pid").st_ino
    containers = {number: name for number, name in containers.items() if number != this}  # --pid host: whose is no longer told
    level = len(_field(_read(pid, "status"), "NSpid").split())
    rows = []
    for name in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):
        try:
            theirs = os.stat(f"/proc/{name}/ns/pid").st_ino
            if inside and theirs != this:
                continue
            counted = _field(_read(int(name), "status"), "NSpid").split()
            command = _read(int(name), "cmdline").replace("\0", " ").strip() or f"[{_read(int(name), 'comm').strip()}]"
        except OSError:
            continue  # it has ended, or is not ours to look at
        if len(counted) >= level:
            rows.append((counted[level - 1], name if inside else containers.get(theirs, ""), command[:120]))
    if inside:
        note = "The same processes have other numbers on this machine; those of this machine have none inside."
        return (_cut("processes", ("PID INSIDE", "PID OUTSIDE", "COMMAND"), rows, note),)
    rows.sort(key=lambda row: (not row[1], row[2].startswith("[")))  # those of containers first, threads of the kernel last
    return (_cut("processes", ("PID", "CONTAINER", "COMMAND"), rows, "This machine sees those of all containers too."),)


def _field(status: str, name: str) -> str:
    return next((line.partition(":")[2].strip() for line in status.split("\n") if line.startswith(f"{name}:")), "")


def _mounts(pid: int) -> tuple[Sight, ...]:
    """proc_pid_mountinfo(5)."""
    rows = []
    for line in _read(pid, "mountinfo").split("\n"):
        left, _, right = line.partition(" - ")
        before, after = left.split(" "), right.split(" ")
        if len(before) < 6 or len(after) < 2:
            continue
        mode = "read-only" if "ro" in before[5].split(",") else "writable"
        part = f" {_unescaped(before[3])}" if before[3] != "/" else ""  # a bind mount: a part of what is mounted elsewhere
        rows.append((_unescaped(before[4]), after[0], _unescaped(after[1]) + part, mode))
    return (_cut("mounts", ("AT", "TYPE", "OF", "MODE"), sorted(rows)),)


def _unescaped(text: str) -> str:
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text[:200]


def _users(pid: int, who: str) -> tuple[Sight, ...]:
    sights = []
    for title, name in (("user ids", "uid_map"), ("group ids", "gid_map")):
        rows = [(first, outside, count) for first, outside, count in map(str.split, _read(pid, name).split("\n")[:-1])]
        sights.append(_cut(title, ("FROM, INSIDE", "IS, OUTSIDE", "HOW MANY"), rows))
    status = _read(pid, "status")
    inside = _field(status, "Uid").split()
    rights = [
        ("runs as", f"user {inside[1]} of this machine" if len(inside) > 1 else ""),
        ("capabilities", has := _capabilities(int(_field(status, "CapEff") or "0", 16))),
        ("bounding set", can if (can := _capabilities(int(_field(status, "CapBnd") or "0", 16))) != has else "the same"),
        ("new privileges", "never (no_new_privs)" if _field(status, "NoNewPrivs") == "1" else "by set-user-id programs"),
        ("system calls", "filtered by seccomp" if _field(status, "Seccomp") == "2" else "all"),
    ]
    return (*sights, Sight(f"what {'its' if who != 'process' else 'this'} {who} may do", ("WHAT", "VALUE"), tuple(rights)))


def _capabilities(mask: int) -> str:
    every = (1 << (capabilities.last() + 1)) - 1
    if mask & every == every:
        return f"all {capabilities.last() + 1}"
    return " ".join(name.lower() for number, name in enumerate(capabilities.NAMES) if mask >> number & 1) or "none"


def _names(words: dict[str, Any]) -> tuple[Sight, ...]:
    rows = [(name, str(value)) for name, value in zip(("host name", "domain name"), words["uts"], strict=False) if value]
    return (_cut("names", ("NAME", "VALUE"), rows, words["why"]),)


def _ipc(words: dict[str, Any]) -> tuple[Sight, ...]:
    found = words["ipc"]
    shm = [tuple(str(value) for value in row) for row in found.get("shm", [])]
    rows = [(name, str(found[key])) for key, name in (("sem", "semaphore sets"), ("msg", "message queues")) if key in found]
    rows.insert(0, ("shared memory segments", str(len(shm))))
    note = words["why"] or "What lies in /dev/shm is a mount: it belongs to the mount namespace."
    counts = _cut("System V", ("WHAT", "HOW MANY"), [] if words["why"] else rows, note)
    return (counts, _cut("shared memory", ("KEY", "BYTES", "ATTACHED"), shm)) if shm else (counts,)


def _groups(pid: int, words: dict[str, Any], inside_too: bool) -> tuple[Sight, ...]:
    outside = dict(_group(line) for line in _read(pid, "cgroup").split("\n")[:-1])
    if not inside_too:
        return (_cut("control groups", ("HIERARCHY", "PATH"), list(outside.items())),)
    inside = dict(_group(str(line)) for line in words["cgroup"])
    rows = [(name, inside.get(name, ""), path) for name, path in outside.items()]
    return (_cut("control groups", ("HIERARCHY", "SEEN INSIDE", "SEEN OUTSIDE"), rows, words["why"]),)


def _group(line: str) -> tuple[str, str]:
    number, _, rest = line.partition(":")
    name, _, path = rest.partition(":")
    return (name or ("unified (v2)" if number == "0" else number)), path


def _clocks(pid: int) -> tuple[Sight, ...]:
    try:
        lines = _read(pid, "timens_offsets").split("\n")
    except FileNotFoundError:
        return (Sight("clocks", note="this kernel has no time namespaces (they are there from Linux 5.6 on)"),)
    rows = [(words[0], f"{int(words[1]) + int(words[2]) / 1e9:+.3f} s") for line in lines if len(words := line.split()) == 3]
    return (_cut("shift against this machine's clocks", ("CLOCK", "SHIFT"), rows),)
