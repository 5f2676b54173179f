"""The compiled filter against a plain reading of the profile, for every system call; and loaded into a real process."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontainers.linux import seccomp
from pycontainers.linux.syscall_table import ARCHITECTURES
from pycontainers.runtime import defaults
from pycontainers.runtime.seccomp_profile import _ALWAYS, default_profile

ALLOW, ERRNO = 0x7FFF0000, 0x00050000


def interpret(program: bytes, arch: int, number: int, arguments: tuple[int, ...] = (0,) * 6) -> int:
    """Classic BPF as the kernel runs it over struct seccomp_data (include/uapi/linux/seccomp.h)."""
    data = struct.pack("<iIQ6Q", number, arch, 0, *arguments)
    accumulator, at = 0, 0
    code = [struct.unpack_from("<HBBI", program, start) for start in range(0, len(program), 8)]
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


def holds(condition: dict[str, Any], arguments: tuple[int, ...]) -> bool:
    value, operator = arguments[condition["index"]], condition["op"]
    if operator == "SCMP_CMP_MASKED_EQ":
        return value & condition["value"] == condition["valueTwo"]
    return {
        "SCMP_CMP_EQ": value == condition["value"],
        "SCMP_CMP_NE": value != condition["value"],
        "SCMP_CMP_LT": value < condition["value"],
        "SCMP_CMP_LE": value <= condition["value"],
        "SCMP_CMP_GT": value > condition["value"],
        "SCMP_CMP_GE": value >= condition["value"],
    }[operator]


def expected(profile: dict[str, Any], name: str, arguments: tuple[int, ...]) -> int:
    for entry in profile["syscalls"]:
        if name in entry["names"] and all(holds(c, arguments) for c in entry.get("args", [])):
            return ALLOW if entry["action"] == "SCMP_ACT_ALLOW" else ERRNO | entry.get("errnoRet", 1)
    return ERRNO | profile.get("defaultErrnoRet", 1)


@pytest.mark.parametrize("machine", sorted(ARCHITECTURES))
@pytest.mark.parametrize("capabilities", [[], list(defaults.CAPABILITIES), ["CAP_SYS_ADMIN"]], ids=["none", "default", "admin"])
def test_every_call_gets_the_verdict_of_the_profile(machine: str, capabilities: list[str]) -> None:
    arch, _, numbers = ARCHITECTURES[machine]
    profile = default_profile(capabilities)
    program = seccomp.compile_filter(profile, machine)
    values = [0, 1, 2, 16, 38, 39, 40, 41, 0x8, 0x20000, 0x20008, 0xFFFFFFFF, 0x10000000, 0x00020000, 0x11, 1 << 32, (1 << 32) | 38]
    for name, number in numbers.items():
        for value in values:
            arguments = (value, 0, 0, 0, 0, 0)
            assert interpret(program, arch, number, arguments) == expected(profile, name, arguments), (name, hex(value))


def test_foreign_architectures_and_unknown_numbers_are_refused() -> None:
    program = seccomp.compile_filter(default_profile([]), "x86_64")
    arch = ARCHITECTURES["x86_64"][0]
    assert interpret(program, 0x40000003, 1) == ERRNO | 1  # i386: 1 would be exit
    assert interpret(program, arch, 0x40000000 | 1) == ERRNO | 38  # x32
    assert interpret(program, arch, 335) == interpret(program, arch, 5000) == ERRNO | 1


def test_known_dangers_are_not_allowed() -> None:
    for name in (
        "io_uring_setup",
        "keyctl",
        "bpf",
        "userfaultfd",
        "kexec_load",
        "open_by_handle_at",
        "mount",
        "setns",
        "unshare",
        "swapon",
        "ptrace_x",
    ):
        assert name not in _ALWAYS


OPERATORS = ["SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_GT", "SCMP_CMP_GE", "SCMP_CMP_MASKED_EQ"]
WORDS = st.one_of(st.integers(0, 8), st.integers(0, (1 << 64) - 1), st.sampled_from([1 << 32, (1 << 32) - 1, (1 << 32) + 1, 1 << 63]))
CONDITIONS = st.lists(
    st.fixed_dictionaries({"index": st.integers(0, 5), "op": st.sampled_from(OPERATORS), "value": WORDS, "valueTwo": WORDS}), max_size=3
)
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {
            "names": st.lists(st.sampled_from(["read", "write", "openat", "clone"]), min_size=1, max_size=3),
            "action": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"]),
            "args": CONDITIONS,
        }
    ),
    max_size=6,
)


@given(ENTRIES, st.sampled_from(["read", "write", "openat", "clone", "close"]), st.tuples(*[WORDS] * 6))
def test_any_profile_is_compiled_to_what_it_says(entries: list[dict[str, Any]], name: str, arguments: tuple[int, ...]) -> None:
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 7, "syscalls": entries}
    arch, _, numbers = ARCHITECTURES["x86_64"]
    program = seccomp.compile_filter(profile, "x86_64")
    assert interpret(program, arch, numbers[name], arguments) == expected(profile, name, arguments)


def test_unknown_words_are_errors() -> None:
    with pytest.raises(ValueError, match="SCMP_ACT_DANCE"):
        seccomp.compile_filter({"defaultAction": "SCMP_ACT_DANCE"})
    with pytest.raises(ValueError, match="SCMP_CMP_X"):
        rule = {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "SCMP_CMP_X", "value": 1}]}
        seccomp.compile_filter({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})


def test_kernel_enforces_it() -> None:
    code = """
        import os, socket, ctypes
        from pycontainers.linux import seccomp, syscalls, namespaces
        from pycontainers.runtime.seccomp_profile import default_profile
        program = seccomp.compile_filter(default_profile([]))
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        seccomp.load(program)
        def tried(call):
            try:
                call()
                return 0
            except OSError as error:
                return error.errno
        print(tried(lambda: socket.socket(socket.AF_INET).close()), tried(lambda: socket.socket(38, socket.SOCK_SEQPACKET)),
              tried(lambda: namespaces.unshare(namespaces.CLONE_NEWUSER)), tried(lambda: syscalls.syscall("clone3", 0, 0)),
              os.waitstatus_to_exitcode(os.system("exit 3")))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.stdout == "0 1 1 38 3\n", done.stderr
