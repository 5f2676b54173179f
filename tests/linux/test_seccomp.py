"""The compiled filter against a plain reading of the profile; its cache; and what a real kernel does with it."""

from __future__ import annotations

import array
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontainers.linux import seccomp
from pycontainers.linux.seccomp import Filters, compile_filter
from pycontainers.linux.syscall_table import ARCHITECTURES, MACHINES, multiplexed, numbers
from pycontainers.runtime import defaults
from pycontainers.runtime.seccomp_profile import default_profile

from .bpf import decode, interpret

ALLOW, ERRNO, ENOSYS = 0x7FFF0000, 0x00050000, 0x00050000 | errno.ENOSYS
X86_64, I386 = 0xC000003E, 0x40000003
TABLE = numbers(list(ARCHITECTURES))


def holds(condition: dict[str, Any], arguments: tuple[int, ...]) -> bool:
    value, operator = arguments[condition["index"]], condition["op"]
    if operator == "SCMP_CMP_MASKED_EQ":
        return value & condition["value"] == condition["valueTwo"] & condition["value"]
    return {
        "SCMP_CMP_EQ": value == condition["value"],
        "SCMP_CMP_NE": value != condition["value"],
        "SCMP_CMP_LT": value < condition["value"],
        "SCMP_CMP_LE": value <= condition["value"],
        "SCMP_CMP_GT": value > condition["value"],
        "SCMP_CMP_GE": value >= condition["value"],
    }[operator]


def expected(profile: dict[str, Any], name: str, arguments: tuple[int, ...]) -> int:
    """The rule without conditions, else the first that holds; an argument that is named twice makes alternatives, each a rule.

    A comparison under an empty mask always holds: it is no condition.
    """
    default = ERRNO | profile.get("defaultErrnoRet", 1)
    verdicts = []
    for entry in profile["syscalls"]:
        verdict = ALLOW if entry["action"] == "SCMP_ACT_ALLOW" else ERRNO | entry.get("errnoRet", 1)
        conditions = entry.get("args", [])
        twice = len({c["index"] for c in conditions}) < len(conditions)
        for rule in [[c] for c in conditions] if twice else [conditions]:
            left = [c for c in rule if not (c["op"] == "SCMP_CMP_MASKED_EQ" and c["value"] == 0)]
            if name in entry["names"] and verdict != default and all(holds(c, arguments) for c in left):
                verdicts.append((bool(left), verdict))
    return sorted(verdicts, key=lambda found: found[0])[0][1] if verdicts else default


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


@given(ENTRIES, st.sampled_from(["read", "write", "openat", "clone"]), st.tuples(*[WORDS] * 6))
def test_any_profile_is_compiled_to_what_it_says(entries: list[dict[str, Any]], name: str, arguments: tuple[int, ...]) -> None:
    last = {"names": ["mseal"], "action": "SCMP_ACT_ALLOW"}  # so that nothing asked for lies above all that is named
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 7, "syscalls": [*entries, last]}
    code = decode(compile_filter(profile, "x86_64"))
    assert interpret(code, X86_64, TABLE["SCMP_ARCH_X86_64"][name], arguments) == expected(profile, name, arguments)


def test_jumps_over_any_distance() -> None:
    """Conditional jumps reach 255 instructions: a thousand rules with arguments, each with a verdict of its own, are further apart."""
    entries = [
        {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 100 + value, "args": [{"index": 1, "op": "SCMP_CMP_EQ", "value": value}]}
        for name in ("read", "openat", "mseal")
        for value in range(250)
    ]
    code = decode(compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": entries}, "x86_64"))
    for name in ("read", "openat", "mseal"):
        for value in (0, 1, 100, 249):
            assert interpret(code, X86_64, TABLE["SCMP_ARCH_X86_64"][name], (0, value, 0, 0, 0, 0)) == ERRNO | 100 + value
        assert interpret(code, X86_64, TABLE["SCMP_ARCH_X86_64"][name], (0, 250, 0, 0, 0, 0)) == ALLOW
    assert interpret(code, X86_64, 1) == ALLOW


def test_a_program_that_is_too_long_is_refused() -> None:
    arguments = [[{"index": 1, "op": "SCMP_CMP_EQ", "value": value << 32}] for value in range(1500)]
    entries = [
        {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2 + number, "args": given} for number, given in enumerate(arguments)
    ]
    with pytest.raises(ValueError, match=r"a program of \d{4} instructions, the kernel takes 4096"):
        compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": entries})


@pytest.mark.parametrize("machine", list(MACHINES))
def test_known_dangers_are_not_allowed_on_any_architecture(machine: str) -> None:
    code = decode(compile_filter(default_profile(defaults.CAPABILITIES) | {"architectures": list(MACHINES[machine])}, machine))
    names = "io_uring_setup keyctl add_key bpf userfaultfd kexec_load open_by_handle_at mount setns unshare swapon open_tree socketcall"
    for architecture in MACHINES[machine]:
        for name in names.split():
            if name in TABLE[architecture]:
                assert interpret(code, ARCHITECTURES[architecture][0], TABLE[architecture][name]) >> 16 == ERRNO >> 16, (architecture, name)
        for high in (0, 1 << 32, 0xFFFFFFFF << 32):  # the kernel takes the family as an int, whatever stands above it
            for family, verdict in ((2, ALLOW), (16, ALLOW), (38, ERRNO | 1), (40, ERRNO | 1)):
                found = interpret(code, ARCHITECTURES[architecture][0], TABLE[architecture]["socket"], (high | family, 0, 0, 0, 0, 0))
                assert found == verdict, (architecture, hex(high), family)


def test_what_is_newer_than_the_profile_is_enosys() -> None:
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["statx"], "action": "SCMP_ACT_ALLOW"}]}
    code = decode(compile_filter(profile, "x86_64"))
    assert [interpret(code, X86_64, number) for number in (331, 332, 333, 5000)] == [ERRNO | 1, ALLOW, ENOSYS, ENOSYS]
    allowing = decode(compile_filter(profile | {"defaultAction": "SCMP_ACT_ALLOW"}, "x86_64"))
    assert interpret(allowing, X86_64, 5000) == ALLOW


def test_calls_through_socketcall_and_ipc_are_those_of_the_kernel() -> None:
    found = {"socketcall": {}, "ipc": {}}
    for name, (call, number) in multiplexed("SCMP_ARCH_X86").items():
        found[call][name] = number
    headers = {"socketcall": Path("/usr/include/linux/net.h"), "ipc": Path("/usr/include/linux/ipc.h")}
    if not all(path.exists() for path in headers.values()):
        pytest.skip("no kernel headers (Debian: linux-libc-dev)")
    for call, path in headers.items():
        lines = [line.split() for line in path.read_text().splitlines() if line.startswith("#define ")]
        names = {words[1].removeprefix("SYS_").lower(): int(words[2]) for words in lines if len(words) > 2 and words[2].isdigit()}
        assert found[call] == {name: names[name] for name in found[call]}


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"defaultAction": "SCMP_ACT_DANCE"}, "unknown action 'SCMP_ACT_DANCE'"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "would stop the runtime itself"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]}, "unknown architecture 'SCMP_ARCH_Z80'"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000}, "errnoRet 5000 is not a number from 0 to 4095"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": ["read"]}, "syscalls: 'read' has no names"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [3], "action": "SCMP_ACT_LOG"}]}, "are not all names"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"]}]}, "syscalls read: unknown action None"),
        ("index 6", "syscalls read: argument 6 is not one of 0 to 5"),
        ("op SCMP_CMP_X", "syscalls read: unknown operator 'SCMP_CMP_X'"),
        ("value -1", "syscalls read: -1 is not a number of 64 bits"),
    ],
)
def test_what_makes_no_sense_is_said(profile: Any, message: str) -> None:
    if isinstance(profile, str):
        key, value = profile.split()
        argument = {"index": 0, "op": "SCMP_CMP_EQ", "value": 1} | {key: value if key == "op" else int(value)}
        profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [argument]}]}
    with pytest.raises(ValueError, match=message):
        compile_filter(profile)


# -- the cache


PROFILE = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time the compiler was at work."""
    calls: list[int] = []
    real = seccomp.compile_filter

    def counting(profile: dict[str, Any]) -> bytes:
        calls.append(1)
        return real(profile)

    monkeypatch.setattr(seccomp, "compile_filter", counting)
    return calls


def program_of(folder: Path, profile: dict[str, Any] = PROFILE) -> bytes:
    """By a launcher that has just started."""
    found = Filters(str(folder)).of(profile)
    assert found is not None
    return found.program


def test_a_profile_is_compiled_once(tmp_path: Path, compiled: list[int]) -> None:
    folder = tmp_path / "cache" / "seccomp"
    first = program_of(folder)
    assert program_of(folder) == first == compile_filter(PROFILE)
    assert compiled == [1]
    (file,) = folder.iterdir()
    assert (folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    program_of(folder, PROFILE | {"defaultAction": "SCMP_ACT_LOG"})
    assert len(list(folder.iterdir())) == 2
    assert len(compiled) == 2


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def _changed(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:-8] + b"\x06\x00\x00\x00\x00\x00\xff\x7f")


def _of_another(file: Path) -> None:
    """A file that is whole, and another profile's."""
    other = file.parent.parent / "other"
    program_of(other, {"defaultAction": "SCMP_ACT_ALLOW"})
    (found,) = other.iterdir()
    shutil.copy(found, file)
    file.chmod(0o600)


def _writable(file: Path) -> None:
    file.chmod(0o622)


def _link(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def _foreign(file: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(file, 65534, 65534)


@pytest.mark.parametrize("spoil", [_cut, _changed, _of_another, _writable, _link, _foreign], ids=lambda spoil: spoil.__name__.strip("_"))
def test_a_file_that_cannot_be_trusted_is_not(tmp_path: Path, compiled: list[int], spoil: Any) -> None:
    folder = tmp_path / "mine"
    first = program_of(folder)
    (file,) = folder.iterdir()
    spoil(file)
    del compiled[:]
    assert program_of(folder) == first
    assert compiled == [1]
    del compiled[:]
    assert program_of(folder) == first  # mended
    assert compiled == []


def test_another_compiler_does_not_take_the_old_ones_programs(tmp_path: Path, compiled: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    program_of(tmp_path)
    monkeypatch.setattr(seccomp, "_compiler", lambda: [1])
    program_of(tmp_path)
    assert len(compiled) == 2


def test_the_cache_does_not_grow_for_ever_and_is_not_needed(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for number in range(1, 200):
        program_of(folder, {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": number})
    assert len(list(folder.iterdir())) <= 64
    assert program_of(Path("/proc/nothing")) == compile_filter(PROFILE)


# -- the kernel


def python(code: str, *, also: tuple[int, ...] = ()) -> str:
    """What a Python process prints that begins with ``code``'s imports of ours."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=dict(os.environ), check=False, pass_fds=also
    )
    assert not done.stderr, done.stderr
    return done.stdout


def test_the_kernel_enforces_it() -> None:
    found = python("""
        import os, socket, ctypes
        from pycontainers.linux import seccomp, syscalls, namespaces
        from pycontainers.runtime.seccomp_profile import default_profile
        program = seccomp.compile_filter(default_profile([]))
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        seccomp.load(program, 4)
        libc = ctypes.CDLL(None, use_errno=True)
        def tried(call):
            try:
                call()
                return 0
            except OSError as error:
                return error.errno
        def raw(*arguments):
            if libc.syscall(*map(ctypes.c_long, arguments)) < 0:
                raise OSError(ctypes.get_errno(), "")
        number = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
        print(tried(lambda: socket.socket(socket.AF_INET).close()), tried(lambda: socket.socket(38, socket.SOCK_SEQPACKET)),
              tried(lambda: raw(number, 1 << 32 | 38, 5, 0)), tried(lambda: raw(number, 1 << 32 | 2, 1, 0)),
              tried(lambda: namespaces.unshare(namespaces.CLONE_NEWUSER)), tried(lambda: syscalls.syscall("clone3", 0, 0)),
              os.waitstatus_to_exitcode(os.system("exit 3")))
    """)
    assert found == "0 1 1 0 1 38 3\n"


@pytest.mark.parametrize("flags", [[], ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"], ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"], None])
def test_the_kernel_takes_the_flags(flags: list[str] | None) -> None:
    found = python(f"""
        from pycontainers.linux import seccomp, syscalls
        filter = seccomp.Filters("/proc/nothing").of({PROFILE | {"flags": flags} if flags is not None else PROFILE!r})
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        print(filter.flags, filter.load(), [line.split()[1] for line in open("/proc/self/status") if line.startswith("Seccomp:")])
    """)
    wanted = {"[]": 0, "None": 4}.get(str(flags), 3 if flags and len(flags) == 2 else 4)
    assert found == f"{wanted} -1 ['2']\n"


def test_flags_that_make_no_sense_are_said() -> None:
    filters = Filters("/proc/nothing")
    with pytest.raises(ValueError, match="unknown flag 'FAST'"):
        filters.of(PROFILE | {"flags": ["FAST"]})
    notified = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}
    with pytest.raises(ValueError, match="needs a listenerPath"):
        filters.of(notified)
    notified["syscalls"][0]["names"].append("sendmsg")
    with pytest.raises(ValueError, match="cannot be used for sendmsg"):
        filters.of(notified | {"listenerPath": "/run/agent"})


def test_the_listener_reaches_its_agent(tmp_path: Path) -> None:
    """The state and one descriptor in one connection; what comes through the listener is the call that was made."""
    path, got = str(tmp_path / "agent"), {}

    def agent(server: socket.socket) -> None:
        with server.accept()[0] as conn:
            data, rights, _, _ = conn.recvmsg(65536, 1024)
            got["descriptors"] = [fd for _, _, packed in rights for fd in array.array("i", packed)]
            while more := conn.recv(65536):
                data += more
            got["state"] = json.loads(data)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        waiting = threading.Thread(target=agent, args=(server,), daemon=True)
        waiting.start()
        found = python(f"""
            from pycontainers.linux import seccomp, syscalls
            filter = seccomp.Filters("/proc/nothing").of({{
                "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_TSYNC"],
                "listenerPath": {path!r}, "listenerMetadata": "mine",
                "syscalls": [{{"names": ["mkdirat", "mkdir"], "action": "SCMP_ACT_NOTIFY"}}]}})
            conn = seccomp.connect_agent({path!r})
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            seccomp.hand_over(conn, {{"ociVersion": "1.2.0", "pid": 7, "metadata": "mine"}}, filter.load())
            print("done")
        """)
        waiting.join(30)
    assert found == "done\n"
    assert got["state"] == {"ociVersion": "1.2.0", "pid": 7, "fds": ["seccompFd"], "metadata": "mine"}
    (listener,) = got["descriptors"]
    try:
        assert os.readlink(f"/proc/self/fd/{listener}") == "anon_inode:seccomp notify"
    finally:
        os.close(listener)
