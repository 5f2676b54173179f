"""System calls that Python 3.11 has no wrapper for, as functions that raise :class:`OSError` with the call's name.

Numbers from 424 on are the same on every architecture (Linux's common table); the few older ones used here are listed for
x86_64 and aarch64, the architectures that this project supports.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

libc = ctypes.CDLL(None, use_errno=True)
# PyDLL keeps the GIL over the call. clone3 must: the child of a call that had released it would have to take it back from
# a state that belongs to the parent.
_libc_gil = ctypes.PyDLL(None, use_errno=True)

MACHINE = os.uname().machine
_OLD_NUMBERS = {  # name: (x86_64, aarch64)
    "pivot_root": (155, 41),
    "seccomp": (317, 277),
    "keyctl": (250, 219),
    "capget": (125, 90),
    "capset": (126, 91),
    "clone": (56, 220),
    "ioprio_set": (251, 30),
    "sched_setattr": (314, 274),
    "personality": (135, 92),
    "renameat2": (316, 276),
    "bpf": (321, 280),
}
_COLUMN = {"x86_64": 0, "aarch64": 1}.get(MACHINE, 0)
NUMBER = {name: pair[_COLUMN] for name, pair in _OLD_NUMBERS.items()} | {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_CAPBSET_DROP = 1, 4, 8, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47
PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
PR_SET_SECUREBITS, SECBIT_NOROOT, SECBIT_NOROOT_LOCKED = 28, 1, 2  # capabilities(7), "The securebits flags"
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000


def fail(name: str, detail: str = "") -> OSError:
    """The OSError of the last failed call: its errno, with the call's name in the message."""
    number = ctypes.get_errno()
    return OSError(number, f"{name}: {os.strerror(number)}{f' ({detail})' if detail else ''}")


_syscall = libc.syscall
_syscall.restype = ctypes.c_long
_syscall_gil = _libc_gil.syscall
_syscall_gil.restype = ctypes.c_long


def syscall(name: str, *arguments: object, detail: str = "", keep_gil: bool = False) -> int:
    """Call ``name`` with integers, bytes, ctypes objects; integers are passed as longs. Raises OSError."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = (_syscall_gil if keep_gil else _syscall)(ctypes.c_long(NUMBER[name]), *converted)
    if result < 0:
        raise fail(name, detail)
    return result


def exchange(one: str, other: str) -> None:
    """Two files change places, at once for everybody who looks (renameat2(2), RENAME_EXCHANGE)."""
    syscall("renameat2", AT_FDCWD, one.encode(), AT_FDCWD, other.encode(), 2)


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    result: int = libc.prctl(option, ctypes.c_ulong(a), ctypes.c_ulong(b), ctypes.c_ulong(c), ctypes.c_ulong(d))
    if result < 0:
        raise fail("prctl", str(option))
    return result


def sethostname(name: str) -> None:
    data = name.encode()
    if libc.sethostname(data, ctypes.c_size_t(len(data))) < 0:
        raise fail("sethostname", name)


def setdomainname(name: str) -> None:
    data = name.encode()
    if libc.setdomainname(data, ctypes.c_size_t(len(data))) < 0:
        raise fail("setdomainname", name)


def setfsid(uid: int, gid: int) -> None:
    """The ids used for file access alone (setfsuid(2)). They report no error: asking again tells whether they took."""
    libc.setfsgid(gid)
    libc.setfsuid(uid)
    if libc.setfsuid(-1) != uid or libc.setfsgid(-1) != gid:
        raise OSError(1, f"setfsuid: could not become {uid}:{gid}")


def close_range(first: int, last: int = 0xFFFFFFFF, cloexec: bool = False) -> None:
    """Close, or mark close-on-exec, every descriptor in a range (close_range(2), Linux 5.9; the flag 5.11)."""
    syscall("close_range", first, last, 4 if cloexec else 0)


def close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor but stdio and these, which stay where they are."""
    first = 3
    for fd in sorted(kept):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)


def new_session_keyring(name: str) -> None:
    """A session keyring of its own (keyctl(2)): the starter's keys must not be readable inside.

    EPERM, EACCES, EDQUOT and ENOSYS are common in nested containers and not fatal (runc and crun do the same).
    """
    try:
        syscall("keyctl", 1, name.encode())
    except OSError:
        pass
