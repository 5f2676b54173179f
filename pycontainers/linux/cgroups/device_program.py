"""cgroup v2's device rules: a program for the kernel's BPF machine, written and attached by us (bpf(2); cgroup-v2.rst, Device controller).

The kernel runs it at mknod(2) and open(2) of a device node with ``struct bpf_cgroup_dev_ctx`` (include/uapi/linux/bpf.h): access in the
upper and type in the lower half of the first word, then major and minor; it answers 1 to allow, 0 to refuse with EPERM. Several programs
on a group, and those of the groups above it, must all allow.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from ..syscalls import syscall
from .devices import Rule, is_everything

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_TYPE_CGROUP_DEVICE, _CGROUP_DEVICE = 15, 6  # enum bpf_prog_type, enum bpf_attach_type
_ALLOW_MULTI, _REPLACE = 2, 4
_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
_KIND = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
_MOST = 64  # programs on one group (BPF_CGROUP_MAX_PROGS)

# Registers: r0 the answer, r1 the context; r2 type, r3 accesses that no rule has decided yet, r4 major, r5 minor.
_LOAD_WORD, _AND, _OR_MOVE, _SHIFT_RIGHT, _EXIT = 0x61, 0x54, 0xB4, 0x74, 0x95  # ldxw, and32, mov32 with a constant, rsh32, exit
_MOVE_REGISTER, _JUMP_NOT_EQUAL, _JUMP_SET = 0xBC, 0x56, 0x46  # mov32 from a register, jne32, jset32 with a constant (Linux 5.1)


def _instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    """``struct bpf_insn``: code, two registers in a byte, jump in instructions, constant."""
    return struct.pack("<BBhi", code, source << 4 | to, offset, constant)


def _answer(allow: bool) -> list[bytes]:
    return [_instruction(_OR_MOVE, 0, constant=int(allow)), _instruction(_EXIT)]


def program(rules: list[Rule]) -> bytes:
    """Rules are asked from the last to the first. A rule decides its accesses: denied, the whole request is refused; allowed, they are
    taken off the request, which is granted when nothing of it is left. What no rule decides is refused."""
    code = [
        _instruction(_LOAD_WORD, 2, 1, 0),
        _instruction(_MOVE_REGISTER, 3, 2),
        _instruction(_AND, 2, constant=0xFFFF),
        _instruction(_SHIFT_RIGHT, 3, constant=16),
        _instruction(_LOAD_WORD, 4, 1, 4),
        _instruction(_LOAD_WORD, 5, 1, 8),
    ]
    for rule in reversed(rules):
        code += _rule(rule)
        if is_everything(rule):
            return b"".join(code)  # decides all: what follows could not be reached, which the verifier refuses
    return b"".join([*code, *_answer(False)])


def _rule(rule: Rule) -> list[bytes]:
    mask = sum(_ACCESS[access] for access in rule.access)
    if mask == 7:
        body = _answer(rule.allow)
    elif rule.allow:
        body = [_instruction(_AND, 3, constant=~mask), _instruction(_JUMP_NOT_EQUAL, 3, offset=2, constant=0), *_answer(True)]
    else:
        body = [_instruction(_JUMP_SET, 3, offset=1, constant=mask), _instruction(0x05, offset=2), *_answer(False)]  # ja: over the answer
    tests = [(2, _KIND.get(rule.kind)), (4, rule.major), (5, rule.minor)]
    for register, number in reversed(tests):
        if number is not None:
            body.insert(0, _instruction(_JUMP_NOT_EQUAL, register, offset=len(body), constant=number))
    return body


def _bpf(command: int, fields: bytes) -> int:
    """bpf(2). The kernel takes a short structure for one with zeros behind it."""
    return syscall("bpf", command, ctypes.create_string_buffer(fields, len(fields)), len(fields))


def _pointer(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def load(rules: list[Rule]) -> int:
    """A descriptor of the program. :raises OSError: EPERM without CAP_BPF (or CAP_SYS_ADMIN) in the first user namespace."""
    text = program(rules)
    code, license = ctypes.create_string_buffer(text, len(text)), ctypes.create_string_buffer(b"GPL")
    # prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags, prog_name, prog_ifindex, attach type
    fields = struct.pack(
        "<IIQQIIQII16sII",
        *(_TYPE_CGROUP_DEVICE, len(text) // 8, _pointer(code), _pointer(license), 0, 0, 0, 0, 0),
        *(b"pycontainers", 0, _CGROUP_DEVICE),
    )
    return _bpf(_PROG_LOAD, fields)


def _attached(group: int) -> list[int]:
    """Descriptors of the programs on this very group, in the order in which they are run."""
    ids = ctypes.create_string_buffer(4 * _MOST)
    fields = ctypes.create_string_buffer(struct.pack("<IIIIQI", group, _CGROUP_DEVICE, 0, 0, _pointer(ids), _MOST), 32)
    syscall("bpf", _PROG_QUERY, fields, 32)
    count = struct.unpack_from("<I", fields, 24)[0]
    found = []
    for number in struct.unpack_from(f"<{count}I", ids):
        try:
            found.append(_bpf(_PROG_GET_FD_BY_ID, struct.pack("<III", number, 0, 0)))
        except OSError as error:
            if error.errno != errno.ENOENT:  # gone meanwhile
                raise
    return found


def attach(folder: str, rules: list[Rule]) -> None:
    """Put the rules in force on the group, in place of those before: no device is lost, or open, for a moment in between.

    :raises OSError: EPERM as :func:`load`; ENOSYS, EINVAL on a kernel without CONFIG_CGROUP_BPF.
    """
    group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened = [group]
    try:
        old = _attached(group)
        opened += old
        if rules and is_everything(rules[-1]) and rules[-1].allow:
            _detach(group, old)  # no program, no question: what the groups above allow
            return
        new = load(rules)
        opened.append(new)
        replaced = old[0] if len(old) == 1 else -1
        if replaced >= 0:
            try:
                _bpf(_PROG_ATTACH, struct.pack("<IIIII", group, new, _CGROUP_DEVICE, _ALLOW_MULTI | _REPLACE, replaced))
                return
            except OSError as error:
                if error.errno != errno.EINVAL:  # Linux before 5.6, or the program was attached without ALLOW_MULTI
                    raise
        # Both are in force until the old ones are gone: an access that both allow is never refused.
        _bpf(_PROG_ATTACH, struct.pack("<IIII", group, new, _CGROUP_DEVICE, _ALLOW_MULTI))
        _detach(group, old)
    finally:
        for fd in opened:
            os.close(fd)


def _detach(group: int, programs: list[int]) -> None:
    for each in programs:
        _bpf(_PROG_DETACH, struct.pack("<IIII", group, each, _CGROUP_DEVICE, 0))
