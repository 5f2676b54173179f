"""``top``: the processes of a container, as this machine sees them. By ps(1), whose options users know; by /proc where there is none."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Sequence

from ..errors import UsageError
from ..linux import cgroups


def top(cgroup: str, init: int, options: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """(titles, rows) of the processes in a cgroup; where there is none, of those in the pid namespace of ``init``.

    ``options``: those of ps(1), ``-ef`` where none are given, as with Docker.

    :raises UsageError: ps refuses the options, or prints no PID column.
    """
    pids = set(cgroups.open(cgroup).pids()) or _beside(init)
    if shutil.which("ps") is None:
        if options:
            raise UsageError("top with options needs ps on this machine", "apt-get install procps, or leave the options out")
        return _from_proc(pids)
    # Without -q ps(1) chooses by itself, and `-o pid,comm` alone would choose the processes of our own terminal.
    chosen = ["-q", ",".join(map(str, sorted(pids)))] if pids else ["-e"]
    done = subprocess.run(["ps", *(options or ["-ef"]), *chosen], capture_output=True, text=True, errors="replace", check=False)
    if done.returncode and done.stderr.strip():
        line = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise UsageError(f"ps {' '.join(options)}: {line}", "top takes the options of ps, for example: -o pid,comm")
    lines = done.stdout.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise UsageError(f"ps {' '.join(options)} prints no PID column", "have it print one: -o pid,…")
    place = titles.index("PID")
    rows = [line.split(None, len(titles) - 1) for line in lines[1:]]
    return titles, [row for row in rows if len(row) > place and row[place].isdigit() and int(row[place]) in pids]


def _beside(init: int) -> set[int]:
    """All processes of its pid namespace that we may look at (ptrace(2)); only itself where that is this machine's."""

    def namespace(pid: str) -> str:
        try:
            return os.readlink(f"/proc/{pid}/ns/pid")
        except OSError:
            return ""

    own = namespace(str(init))
    if not own or own == namespace("self"):
        return {init}
    return {int(name) for name in os.listdir("/proc") if name.isdigit() and namespace(name) == own} | {init}


def _from_proc(pids: set[int]) -> tuple[list[str], list[list[str]]]:
    titles = ["UID", "PID", "PPID", "STIME", "TIME", "CMD"]
    tick, now = os.sysconf("SC_CLK_TCK"), time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    rows = []
    for pid in sorted(pids):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                name, _, rest = file.read().partition("(")[2].rpartition(")")
            with open(f"/proc/{pid}/cmdline", "rb") as command:
                words = command.read().rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
            owner = os.stat(f"/proc/{pid}").st_uid
        except OSError:
            continue  # it has just ended
        fields = rest.split()
        seconds = (int(fields[11]) + int(fields[12])) // tick
        begun = time.strftime("%H:%M", time.localtime(now + int(fields[19]) / tick))
        spent = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        rows.append([_user(owner), str(pid), fields[1], begun, spent, words or f"[{name}]"])
    return titles, rows


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
