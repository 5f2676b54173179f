"""Compile an OCI ``linux.seccomp`` object to a classic BPF program, and load it (seccomp(2), OCI runtime-spec config-linux).

The program first checks the architecture (a foreign one would give the numbers other meanings), then the x32 bit, then finds
the number by binary search over intervals of equal verdict, so that a call costs about eight comparisons.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import Any

from .syscall_table import ARCHITECTURES
from .syscalls import MACHINE, syscall

_LD_W_ABS, _JMP_JA, _JMP_JEQ, _JMP_JGE, _JMP_JGT, _RET, _AND = 0x20, 0x05, 0x15, 0x35, 0x25, 0x06, 0x54
_X32_BIT = 0x40000000
_SECCOMP_SET_MODE_FILTER = 1
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS of <linux/bpf_common.h>

_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}

Instruction = tuple[int, int, int, int]  # code, jt, jf, k
Conditions = tuple[tuple[int, str, int, int], ...]  # (argument index, operator, value, value two); all must hold


def compile_filter(profile: dict[str, Any], machine: str = MACHINE) -> bytes:
    """The program, as bytes of ``struct sock_filter`` (8 bytes each).

    Calls that this kernel's table does not know are skipped, as runc and crun do: the default action holds for them.
    Raises ValueError for an unknown action or operator, or a program longer than 4,096 instructions.
    """
    if machine not in ARCHITECTURES:
        raise ValueError(f"no table of system calls for {machine}")
    arch, _, numbers = ARCHITECTURES[machine]
    default = _verdict(profile["defaultAction"], profile.get("defaultErrnoRet"))
    rules = _rules(profile.get("syscalls", []), numbers)
    program: list[Instruction] = [
        (_LD_W_ABS, 0, 0, 4),
        (_JMP_JEQ, 1, 0, arch),
        (_RET, 0, 0, _ACTIONS["SCMP_ACT_ERRNO"] | errno.EPERM),
        (_LD_W_ABS, 0, 0, 0),
    ]
    if machine == "x86_64":
        # x32 numbers pass the architecture check and reach the same kernel functions under other numbers (seccomp(2), NOTES).
        program += [(_JMP_JGE, 0, 1, _X32_BIT), (_RET, 0, 0, _ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS)]
    program += _search(_intervals(rules, default), default)
    if len(program) > _MAX_INSTRUCTIONS:
        raise ValueError(f"seccomp program of {len(program)} instructions, the kernel takes {_MAX_INSTRUCTIONS}")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def load(program: bytes) -> None:
    """Install the filter on the calling thread. Needs no_new_privs or CAP_SYS_ADMIN in the user namespace."""

    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    what = Program(len(program) // 8, program)
    syscall("seccomp", _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(what))


def _verdict(action: str, errno_return: int | None) -> int:
    if action not in _ACTIONS:
        raise ValueError(f"unknown seccomp action {action!r}")
    value = _ACTIONS[action]
    if action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        value |= (errno.EPERM if errno_return is None else errno_return) & 0xFFFF
    return value


Rules = dict[int, list[tuple[Conditions, int]]]


def _rules(entries: list[dict[str, Any]], numbers: dict[str, int]) -> Rules:
    """number -> [(conditions, verdict)] in order; an entry without arguments has the empty condition, which always holds."""
    result: Rules = {}
    for entry in entries:
        verdict = _verdict(entry["action"], entry.get("errnoRet"))
        conditions = tuple((a["index"], a["op"], a["value"], a.get("valueTwo", 0)) for a in entry.get("args") or ())
        for name in entry["names"]:
            if name in numbers:
                result.setdefault(numbers[name], []).append((conditions, verdict))
    return result


def _intervals(rules: Rules, default: int) -> list[tuple[int, list[tuple[Conditions, int]]]]:
    """Sorted [(first number, rules)]: each holds up to the next one's start. Neighbours of equal verdict are one."""
    result: list[tuple[int, list[tuple[Conditions, int]]]] = []
    following = 0
    for number in sorted(rules):
        if number > following:
            _append(result, following, [((), default)])
        _append(result, number, rules[number])
        following = number + 1
    _append(result, following, [((), default)])
    return result


def _append(result: list[tuple[int, list[tuple[Conditions, int]]]], first: int, rules: list[tuple[Conditions, int]]) -> None:
    if not result or result[-1][1] != rules:
        result.append((first, rules))


def _search(intervals: list[tuple[int, list[tuple[Conditions, int]]]], default: int) -> list[Instruction]:
    if len(intervals) == 1:
        return _leaf(intervals[0][1], default)
    middle = len(intervals) // 2
    low, high = _search(intervals[:middle], default), _search(intervals[middle:], default)
    # Conditional jumps reach 255 instructions; a plain jump reaches everything.
    return [(_JMP_JGE, 0, 1, intervals[middle][0]), (_JMP_JA, 0, 0, len(low)), *low, *high]


def _leaf(rules: list[tuple[Conditions, int]], default: int) -> list[Instruction]:
    code: list[Instruction] = []
    for conditions, verdict in rules:
        if not conditions:
            return [*code, (_RET, 0, 0, verdict)]
        block: list[Instruction] = [(_RET, 0, 0, verdict)]
        for condition in reversed(conditions):
            block = _condition(*condition, skip=len(block)) + block
        code += block
    return [*code, (_RET, 0, 0, default)]


def _condition(index: int, operator: str, value: int, value_two: int, skip: int) -> list[Instruction]:
    """Fall through when the 64-bit argument satisfies the operator, else jump over ``skip`` more instructions."""
    low, high = 16 + 8 * index, 20 + 8 * index  # offsetof(struct seccomp_data, args) on a little-endian machine
    mask = value if operator == "SCMP_CMP_MASKED_EQ" else 0xFFFFFFFFFFFFFFFF
    wanted = value_two if operator == "SCMP_CMP_MASKED_EQ" else value
    high_value, low_value = wanted >> 32 & 0xFFFFFFFF, wanted & 0xFFFFFFFF
    if operator in ("SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"):
        return [
            (_LD_W_ABS, 0, 0, high),
            (_AND, 0, 0, mask >> 32 & 0xFFFFFFFF),
            (_JMP_JEQ, 0, 3 + skip, high_value),
            (_LD_W_ABS, 0, 0, low),
            (_AND, 0, 0, mask & 0xFFFFFFFF),
            (_JMP_JEQ, 0, skip, low_value),
        ]
    if operator == "SCMP_CMP_NE":
        return [(_LD_W_ABS, 0, 0, high), (_JMP_JEQ, 0, 2, high_value), (_LD_W_ABS, 0, 0, low), (_JMP_JEQ, skip, 0, low_value)]
    if operator in ("SCMP_CMP_GE", "SCMP_CMP_GT"):
        jump = _JMP_JGE if operator == "SCMP_CMP_GE" else _JMP_JGT
        return [
            (_LD_W_ABS, 0, 0, high),
            (_JMP_JGT, 3, 0, high_value),
            (_JMP_JEQ, 0, 2 + skip, high_value),
            (_LD_W_ABS, 0, 0, low),
            (jump, 0, skip, low_value),
        ]
    if operator in ("SCMP_CMP_LE", "SCMP_CMP_LT"):
        jump = _JMP_JGT if operator == "SCMP_CMP_LE" else _JMP_JGE  # the opposite test, with its branches exchanged
        return [
            (_LD_W_ABS, 0, 0, high),
            (_JMP_JGT, 3 + skip, 0, high_value),
            (_JMP_JEQ, 0, 2, high_value),
            (_LD_W_ABS, 0, 0, low),
            (jump, skip, 0, low_value),
        ]
    raise ValueError(f"unknown seccomp operator {operator!r}")
