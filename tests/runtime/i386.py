"""A whole 32-bit program in 116 bytes, put together by hand: no compiler and no C library for i386 is needed."""

from __future__ import annotations

import struct

_BASE = 0x08048000
_HEADERS = 52 + 32  # Elf32_Ehdr, Elf32_Phdr


def program(text: bytes, *, first: bytes = b"") -> bytes:
    """An ELF file that writes ``text`` and exits with what its ``first`` instructions leave in %ebx (0 without them)."""
    message = b"\x31\xdb" + first + b"\x53"  # xor %ebx,%ebx; first; push %ebx
    message += b"\xb8\x04\x00\x00\x00\xbb\x01\x00\x00\x00"  # mov $4 (write),%eax; mov $1,%ebx
    length = len(message) + 5 + 5 + 2 + 1 + 5 + 2
    message += b"\xb9" + struct.pack("<I", _BASE + _HEADERS + length)  # mov $text,%ecx
    message += b"\xba" + struct.pack("<I", len(text)) + b"\xcd\x80"  # mov $length,%edx; int $0x80
    message += b"\x5b\xb8\x01\x00\x00\x00\xcd\x80"  # pop %ebx; mov $1 (exit),%eax; int $0x80
    code = message + text
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, _BASE + _HEADERS, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 0, _BASE, _BASE, _HEADERS + len(code), _HEADERS + len(code), 5, 4096)
    return header + segment + code


def call(number: int, ebx: int = 0, ecx: int = 0, edx: int = 0) -> bytes:
    """Instructions for ``first``: one system call; minus its result, an errno, goes to %ebx."""
    load = b"".join(op + struct.pack("<I", value) for op, value in ((b"\xb8", number), (b"\xbb", ebx), (b"\xb9", ecx), (b"\xba", edx)))
    return load + b"\xcd\x80\x89\xc3\xf7\xdb"  # int $0x80; mov %eax,%ebx; neg %ebx
