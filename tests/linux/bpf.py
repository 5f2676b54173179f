"""Classic BPF as the kernel runs it over ``struct seccomp_data`` (include/uapi/linux/seccomp.h), and what libseccomp makes of a profile."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import struct
from collections.abc import Sequence
from typing import Any

from pycontainers.linux.seccomp_compiler import ACTIONS, _condition

Program = list[tuple[int, int, int, int]]


def decode(program: bytes) -> Program:
    return [struct.unpack_from("<HBBI", program, start) for start in range(0, len(program), 8)]


def interpret(code: Program, arch: int, number: int, arguments: Sequence[int] = (0,) * 6) -> int:
    """The verdict. Knows what libseccomp and our compiler write, and nothing else."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *arguments)
    accumulator, at = 0, 0
    while True:
        operation, true, false, k = code[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif operation == 0x54:
            accumulator &= k
        elif operation == 0x05:
            at += k
        elif operation == 0x06:
            return k
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x25: accumulator > k}[operation]
            at += true if holds else false


class _Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


class LibSeccomp:
    """libseccomp, asked as runc asks it. ``None`` of :meth:`open` where it is not installed."""

    TOKENS = {
        "SCMP_ARCH_X86_64": 0xC000003E,
        "SCMP_ARCH_X86": 0x40000003,
        "SCMP_ARCH_X32": 0x4000003E,
        "SCMP_ARCH_AARCH64": 0xC00000B7,
        "SCMP_ARCH_ARM": 0x40000028,
    }
    OPERATORS = ["", "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"]
    UNKNOWN = -1  # __NR_SCMP_ERROR

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.seccomp_init.restype = ctypes.c_void_p

    @classmethod
    def open(cls) -> LibSeccomp | None:
        found = ctypes.util.find_library("seccomp") or "libseccomp.so.2"
        try:
            return cls(ctypes.CDLL(found))
        except OSError:
            return None

    def number(self, architecture: str, name: str) -> int:
        """-1 for a name that it does not know, below for one that the architecture does not have."""
        return int(self._library.seccomp_syscall_resolve_name_arch(self.TOKENS[architecture], name.encode()))

    def knows(self, name: str) -> bool:
        return int(self._library.seccomp_syscall_resolve_name(name.encode())) != self.UNKNOWN

    def compile(self, profile: dict[str, Any], architectures: Sequence[str]) -> bytes:
        """As libcontainer/seccomp does: rules that give what the default gives are left out, an argument named twice is two rules."""
        default = self._action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(default)))
        try:
            native = self._library.seccomp_arch_native()
            for architecture in architectures:
                if self.TOKENS[architecture] & 0xFFFFFFFF != native & 0xFFFFFFFF:
                    self._check(self._library.seccomp_arch_add(context, ctypes.c_uint32(self.TOKENS[architecture])))
            if native & 0xFFFFFFFF not in [self.TOKENS[architecture] for architecture in architectures]:
                self._check(self._library.seccomp_arch_remove(context, ctypes.c_uint32(native)))
            for entry in profile["syscalls"]:
                action = self._action(entry["action"], entry.get("errnoRet"))
                if action != default:
                    self._add(context, entry, action)
            return self._export(context)
        finally:
            self._library.seccomp_release(context)

    def _add(self, context: ctypes.c_void_p, entry: dict[str, Any], action: int) -> None:
        found = [_condition(argument) for argument in entry.get("args") or ()]
        twice = len({index for index, _, _, _ in found}) < len(found)
        for name in entry["names"]:
            number = self._library.seccomp_syscall_resolve_name(name.encode())
            if number == self.UNKNOWN:
                continue
            for rule in [[condition] for condition in found] if twice else [found]:
                array = (_Comparison * 6)(*[_Comparison(index, self.OPERATORS.index(op), a, b) for index, op, a, b in rule])
                result = self._library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(rule), array)
                if result != -17:  # EEXIST: the same rule again
                    self._check(result)

    def _export(self, context: ctypes.c_void_p) -> bytes:
        file = os.memfd_create("filter")
        try:
            self._check(self._library.seccomp_export_bpf(context, file))
            return os.pread(file, 1 << 20, 0)
        finally:
            os.close(file)

    @staticmethod
    def _action(name: str, number: int | None) -> int:
        return ACTIONS[name] | ((1 if number is None else number) if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else 0)

    @staticmethod
    def _check(result: int) -> None:
        if result < 0:
            raise OSError(-result, os.strerror(-result))
