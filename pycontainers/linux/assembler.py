"""A very small assembler: one list of instructions, encoded for the two architectures, as a static ELF file.

Enough for a program of a few dozen instructions that does nothing but system calls (Intel SDM volume 2; Arm ARM, A64 base
instructions; elf(5)). Values are 64 bits wide, constants 32 bits with sign.
"""

from __future__ import annotations

import struct

TEXT, DATA = 0x400000, 0x600000
"""Where the program and its writable memory lie."""
_ALIGNMENT = 0x10000  # pages of arm64 may be of 64 KB
_HEADERS = 64 + 3 * 56  # ELF header and three program headers


class X86_64:
    """Encodings of the instructions below. ``registers``: rbx, rbp, r12 to r15, r9 and r8, which system calls leave alone."""

    machine = 62
    registers = (3, 5, 12, 13, 14, 15, 9, 8)
    result, stack = 0, 4
    arguments = (7, 6, 2, 10)
    conditions = {"==": 0x84, "!=": 0x85, "<": 0x8C, ">=": 0x8D, ">": 0x8F, "<=": 0x8E}
    calls = {
        "write": 1,
        "rt_sigprocmask": 14,
        "ioctl": 16,
        "getpid": 39,
        "clone": 56,
        "execve": 59,
        "wait4": 61,
        "kill": 62,
        "setpgid": 109,
        "rt_sigtimedwait": 128,
        "exit_group": 231,
    }

    def _wide(self, opcode: bytes, reg: int, rm: int) -> bytes:
        return bytes([0x48 | reg >> 3 << 2 | rm >> 3]) + opcode + bytes([0xC0 | (reg & 7) << 3 | rm & 7])

    def _memory(self, opcode: bytes, reg: int, base: int, offset: int) -> bytes:
        sib = b"\x24" if base & 7 == 4 else b""
        place = bytes([0x80 | (reg & 7) << 3 | base & 7]) + sib + struct.pack("<i", offset)
        return bytes([0x48 | reg >> 3 << 2 | base >> 3]) + opcode + place

    def set(self, to: int, value: int) -> bytes:
        return self._wide(b"\xc7", 0, to) + struct.pack("<i", value)

    def copy(self, to: int, source: int) -> bytes:
        return self._wide(b"\x89", source, to)

    def add(self, to: int, value: int) -> bytes:
        return self._wide(b"\x81", 0, to) + struct.pack("<i", value)

    def mask(self, to: int, value: int) -> bytes:
        return self._wide(b"\x81", 4, to) + struct.pack("<i", value)

    def shift(self, to: int, bits: int) -> bytes:
        return self._wide(b"\xc1", 5, to) + bytes([bits])

    def load(self, to: int, base: int, offset: int, size: int) -> bytes:
        return self._memory({8: b"\x8b", 4: b"\x63", 1: b"\x0f\xb6"}[size], to, base, offset)

    def store(self, source: int, base: int, offset: int, size: int) -> bytes:
        return self._memory({8: b"\x89", 1: b"\x88"}[size], source, base, offset)

    def compare(self, register: int, value: int) -> bytes:
        return self._wide(b"\x81", 7, register) + struct.pack("<i", value)

    def compare_registers(self, register: int, other: int) -> bytes:
        return self._wide(b"\x39", other, register)

    def branch(self, condition: str, distance: int) -> bytes:
        """``distance`` from the beginning of this instruction."""
        opcode = bytes([0x0F, self.conditions[condition]]) if condition else b"\xe9"
        return opcode + struct.pack("<i", distance - len(opcode) - 4)

    def call(self, number: int) -> bytes:
        return self.set(0, number) + b"\x0f\x05"


class AArch64:
    """``registers``: x19 to x26; x9 is for ourselves."""

    machine = 183
    registers = (19, 20, 21, 22, 23, 24, 25, 26)
    result, stack = 0, 31
    arguments = (0, 1, 2, 3)
    conditions = {"==": 0, "!=": 1, ">=": 10, "<": 11, ">": 12, "<=": 13}
    calls = {
        "ioctl": 29,
        "write": 64,
        "exit_group": 94,
        "kill": 129,
        "rt_sigprocmask": 135,
        "rt_sigtimedwait": 137,
        "setpgid": 154,
        "getpid": 172,
        "clone": 220,
        "execve": 221,
        "wait4": 260,
    }

    def _word(self, value: int) -> bytes:
        return struct.pack("<I", value)

    def set(self, to: int, value: int) -> bytes:
        low, high = value & 0xFFFF, value >> 16 & 0xFFFF
        first = 0xD2800000 | low << 5 if value >= 0 else 0x92800000 | (~value & 0xFFFF) << 5  # movz, or movn: all higher bits are ones
        return self._word(first | to) + self._word(0xF2A00000 | high << 5 | to)

    def copy(self, to: int, source: int) -> bytes:
        return self._word(0x910003E0 | to if source == self.stack else 0xAA0003E0 | source << 16 | to)

    def add(self, to: int, value: int) -> bytes:
        return self._word((0x91000000 if value >= 0 else 0xD1000000) | abs(value) << 10 | to << 5 | to)

    def mask(self, to: int, value: int) -> bytes:
        return self.set(9, value) + self._word(0x8A000000 | 9 << 16 | to << 5 | to)

    def shift(self, to: int, bits: int) -> bytes:
        return self._word(0xD340FC00 | bits << 16 | to << 5 | to)

    def load(self, to: int, base: int, offset: int, size: int) -> bytes:
        opcode = {8: 0xF9400000, 4: 0xB9800000, 1: 0x39400000}[size]
        return self._word(opcode | offset // size << 10 | base << 5 | to)

    def store(self, source: int, base: int, offset: int, size: int) -> bytes:
        return self._word({8: 0xF9000000, 1: 0x39000000}[size] | offset // size << 10 | base << 5 | source)

    def compare(self, register: int, value: int) -> bytes:
        return self.set(9, value) + self.compare_registers(register, 9)

    def compare_registers(self, register: int, other: int) -> bytes:
        return self._word(0xEB00001F | other << 16 | register << 5)

    def branch(self, condition: str, distance: int) -> bytes:
        if not condition:
            return self._word(0x14000000 | distance // 4 & 0x3FFFFFF)
        return self._word(0x54000000 | (distance // 4 & 0x7FFFF) << 5 | self.conditions[condition])

    def call(self, number: int) -> bytes:
        return self.set(8, number) + self._word(0xD4000001)


class Assembler:
    """Instructions one after the other, with labels. An operand that is a tuple ``(register,)`` is its value, an int a constant."""

    def __init__(self, target: X86_64 | AArch64) -> None:
        self.target = target
        self.code = bytearray()
        self.labels: dict[str, int] = {}
        self.jumps: list[tuple[int, str, str]] = []

    def _of(self, register: int) -> int:
        return self.target.registers[register]

    def label(self, name: str) -> None:
        self.labels[name] = len(self.code)

    def set(self, to: int, value: int) -> None:
        self.code += self.target.set(self._of(to), value)

    def copy(self, to: int, source: int) -> None:
        self.code += self.target.copy(self._of(to), self._of(source))

    def from_stack(self, to: int) -> None:
        self.code += self.target.copy(self._of(to), self.target.stack)

    def add(self, to: int, value: int) -> None:
        self.code += self.target.add(self._of(to), value)

    def mask(self, to: int, value: int) -> None:
        self.code += self.target.mask(self._of(to), value)

    def shift(self, to: int, bits: int) -> None:
        self.code += self.target.shift(self._of(to), bits)

    def load(self, to: int, base: int, offset: int = 0, size: int = 8) -> None:
        self.code += self.target.load(self._of(to), self._of(base), offset, size)

    def store(self, source: int, base: int, offset: int = 0, size: int = 8) -> None:
        self.code += self.target.store(self._of(source), self._of(base), offset, size)

    def jump(self, label: str) -> None:
        self._jump("", label)

    def jump_if(self, register: int, condition: str, value: int | tuple[int], label: str) -> None:
        if isinstance(value, int):
            self.code += self.target.compare(self._of(register), value)
        else:
            self.code += self.target.compare_registers(self._of(register), self._of(value[0]))
        self._jump(condition, label)

    def _jump(self, condition: str, label: str) -> None:
        self.jumps.append((len(self.code), condition, label))
        self.code += self.target.branch(condition, 0)

    def call(self, name: str, *arguments: int | tuple[int], to: int | None = None) -> None:
        """A system call; its result goes to the register ``to``."""
        for place, argument in zip(self.target.arguments, arguments, strict=False):
            if isinstance(argument, int):
                self.code += self.target.set(place, argument)
            else:
                self.code += self.target.copy(place, self._of(argument[0]))
        self.code += self.target.call(self.target.calls[name])
        if to is not None:
            self.code += self.target.copy(self._of(to), self.target.result)

    def finished(self) -> bytes:
        for place, condition, label in self.jumps:
            jump = self.target.branch(condition, self.labels[label] - place)
            self.code[place : place + len(jump)] = jump
        return bytes(self.code)


TARGETS: dict[str, X86_64 | AArch64] = {"x86_64": X86_64(), "aarch64": AArch64()}


def elf(machine: int, code: bytes, texts: bytes, memory: int) -> bytes:
    """A static executable: ``texts`` at :func:`text_address`, then the code, which is its beginning; ``memory`` bytes of zeros at DATA."""
    body = texts + b"\0" * (-len(texts) % 4)
    entry = text_address() + len(body)
    size = _HEADERS + len(body) + len(code)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, machine, 1, entry, 64, 0, 0, 64, 56, 3, 0, 0, 0)
    segments = (
        struct.pack("<IIQQQQQQ", 1, 5, 0, TEXT, TEXT, size, size, _ALIGNMENT),  # PT_LOAD, read and execute
        struct.pack("<IIQQQQQQ", 1, 6, 0, DATA, DATA, 0, memory, _ALIGNMENT),  # PT_LOAD, read and write
        struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16),  # PT_GNU_STACK: not executable
    )
    return header + b"".join(segments) + body + code


def text_address() -> int:
    return TEXT + _HEADERS
