"""What root inside an ordinary user's container must not reach: the user's own processes and namespaces, one level up."""

from __future__ import annotations

import os
from collections.abc import Callable

from .conftest import Somebody

NONE = ("--network", "none")

#: Tries to enter, trace and look into a process; prints what worked. The calls are the kernel's own words for it.
TRY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid, found = int(sys.argv[1]), []
for kind, flag in (("user", 0x10000000), ("mnt", 0x20000), ("net", 0x40000000)):
    try:
        if libc.setns(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY), flag) == 0:
            found.append(f"setns {kind}")
    except OSError:
        pass
for name in ("root/", "cwd/", "environ", "mem", "fd/0"):
    try:
        os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))
        found.append(name)
    except OSError:
        pass
if libc.ptrace(0x4206, pid, 0, 0) == 0:  # PTRACE_SEIZE: PTRACE_ATTACH would leave it stopped when this process ends
    found.append("ptrace")
print(found)
"""


def test_user_processes_are_out_of_reach(somebody: Somebody) -> None:
    """Even privileged and with the machine's pid namespace, where it sees them, and although they are of the same user."""
    name = somebody("run", "-d", *NONE, "--privileged", "--pid", "host", "host", "sleep", "60").strip()
    for pid in (somebody.holder["holder"]["pid"], somebody.launcher()):
        assert somebody("exec", "--privileged", name, "python3", "-c", TRY, str(pid)) == "[]\n"
    # From one level up, where the holder lives, the same attempts succeed: the attack is a real one.
    holder = somebody.holder["holder"]["pid"]
    done = somebody.do("nsenter", f"--user=/proc/{holder}/ns/user", "--preserve-credentials", "python3", "-c", TRY, str(holder))
    assert "ptrace" in done.stdout and "setns net" in done.stdout, done.stderr


def test_the_users_interpreter_cannot_be_changed(somebody: Somebody) -> None:
    """CVE-2019-5736 where the user owns the interpreter: what executes it inside has it from a read-only mount."""
    python = os.readlink(f"/proc/{somebody.launcher()}/exe") if somebody("run", "--rm", *NONE, "host", "true") == "" else ""
    before = os.stat(python)
    script = "import os, sys\nfor call in (lambda: os.chmod('/proc/self/exe', 0o4777), lambda: open('/proc/self/exe', 'r+b')):\n" \
        "    try: call(); print('done')\n    except OSError as error: print(error.errno)\n"
    assert "done" not in somebody("run", "--rm", *NONE, "host", "/proc/self/exe", "-c", script, code=None)
    after = os.stat(python)
    assert (before.st_mode, before.st_mtime_ns, before.st_size) == (after.st_mode, after.st_mtime_ns, after.st_size)


def test_cgroups_of_the_machine_are_not_written(people: Callable[..., Somebody]) -> None:
    """CVE-2023-25809: without a cgroup namespace of one's own, and with the machine's /sys."""
    somebody = people()
    for options in (("--cgroupns", "host"), ("--network", "host"), ()):
        found = somebody("run", "--rm", *options, "host", "sh", "-c", "find /sys/fs/cgroup -writable -type f 2>/dev/null | head -3")
        assert found == ""
