"""Numbers of system calls by name on each architecture for which seccomp filters are compiled.

The table is text beside this file, read when a filter is compiled and forgotten after: as dictionaries it would cost 200 kB in
every process that is forked from the launcher.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "syscall_table.txt")

X32_BIT = 0x40000000  # __X32_SYSCALL_BIT: x32 shares its AUDIT_ARCH with x86_64 and is told by this bit of the number

#: OCI name -> (AUDIT_ARCH_* of <linux/audit.h>, column of the table, bits in a register as far as a comparison looks at it)
ARCHITECTURES = {
    "SCMP_ARCH_X86_64": (0xC000003E, 0, 64),
    "SCMP_ARCH_X86": (0x40000003, 1, 32),
    "SCMP_ARCH_X32": (0xC000003E, 2, 32),
    "SCMP_ARCH_AARCH64": (0xC00000B7, 3, 64),
    "SCMP_ARCH_ARM": (0x40000028, 4, 32),
}

#: os.uname().machine -> what programs it can run, the native architecture first
MACHINES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}

# One number for many calls on x86 (ipc(2), socketcall(2)): the first argument says which. Kernel: include/uapi/linux/{net,ipc}.h.
_SOCKETCALL = (
    "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom shutdown setsockopt getsockopt "
    "sendmsg recvmsg accept4 recvmmsg sendmmsg"
)
_IPC = {
    "semop": 1,
    "semget": 2,
    "semctl": 3,
    "semtimedop": 4,
    "msgsnd": 11,
    "msgrcv": 12,
    "msgget": 13,
    "msgctl": 14,
    "shmat": 21,
    "shmdt": 22,
    "shmget": 23,
    "shmctl": 24,
}


def numbers(architectures: Sequence[str]) -> dict[str, dict[str, int]]:
    """OCI name of the architecture -> name of the call -> number (with the x32 bit on x32)."""
    with open(FILE, encoding="utf-8") as file:
        rows = [line.split() for line in file if line[0] != "#"]
    result = {}
    for architecture in architectures:
        column = ARCHITECTURES[architecture][1] + 1
        bit = X32_BIT if architecture == "SCMP_ARCH_X32" else 0
        result[architecture] = {row[0]: int(row[column]) | bit for row in rows if row[column] != "-"}
    return result


def multiplexed(architecture: str) -> dict[str, tuple[str, int]]:
    """Name of a call -> (the call through which it can be made as well, value of that one's first argument)."""
    if architecture != "SCMP_ARCH_X86":
        return {}
    result = {name: ("socketcall", number) for number, name in enumerate(_SOCKETCALL.split(), 1)}
    return result | {name: ("ipc", number) for name, number in _IPC.items()}
