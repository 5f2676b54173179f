"""Capabilities by name, and setting them. See capabilities(7)."""

from __future__ import annotations

import ctypes
import functools

from .syscalls import PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, PR_CAP_AMBIENT_RAISE, PR_CAPBSET_DROP, prctl, syscall

NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST "
    "NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE "
    "SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM "
    "BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
NUMBER = {f"CAP_{name}": number for number, name in enumerate(NAMES)}
_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


_Both = _Data * 2
"""Made once and kept: each process forked from the launcher would make the type anew, 0.08 ms between its fork and its execve."""


def mask(names: list[str]) -> int:
    """The bit mask of OCI names (``CAP_CHOWN``). KeyError for an unknown one."""
    result = 0
    for name in names:
        result |= 1 << NUMBER[name]
    return result


@functools.cache
def last() -> int:
    """The highest capability that this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="utf-8") as file:
        return int(file.read())


def limit_bounding(keep: int, last_cap: int) -> None:
    """Drop everything outside ``keep`` from the bounding set: no later execve can bring it back."""
    for number in range(last_cap + 1):
        if not keep >> number & 1:
            prctl(PR_CAPBSET_DROP, number)


def set_caps(effective: int, permitted: int, inheritable: int = 0) -> None:
    """capset(2) for the calling thread. Raises OSError (EPERM when raising what is not permitted)."""
    _set(effective, permitted, inheritable)


def regain() -> None:
    """Make effective again what is permitted: a change of ids from root empties the effective set (PR_SET_KEEPCAPS keeps the rest)."""
    _, permitted, inheritable = get_caps()
    _set(permitted, permitted, inheritable)


def _set(effective: int, permitted: int, inheritable: int) -> None:
    header = _Header(_VERSION_3, 0)
    data = _Both()
    for index in range(2):
        data[index].effective = effective >> 32 * index & 0xFFFFFFFF
        data[index].permitted = permitted >> 32 * index & 0xFFFFFFFF
        data[index].inheritable = inheritable >> 32 * index & 0xFFFFFFFF
    syscall("capset", ctypes.byref(header), data)


def get_caps() -> tuple[int, int, int]:
    """(effective, permitted, inheritable) masks of the calling thread."""
    header = _Header(_VERSION_3, 0)
    data = _Both()
    syscall("capget", ctypes.byref(header), data)
    return (
        data[0].effective | data[1].effective << 32,
        data[0].permitted | data[1].permitted << 32,
        data[0].inheritable | data[1].inheritable << 32,
    )


def clear_ambient() -> None:
    try:
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError:
        pass  # before Linux 4.3 there is no ambient set to clear


def raise_ambient(mask: int) -> None:
    """Raise each of ``mask``, which must be permitted and inheritable (capabilities(7)): it stays over execve of a plain program."""
    for number in range(mask.bit_length()):
        if mask >> number & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def permitted_mask() -> int:
    return get_caps()[1]
