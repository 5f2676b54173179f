"""Our compiler against libseccomp: the verdict for every system call of every architecture, and for arguments about every boundary.

Both programs run in the same small interpreter. What differs on purpose is in :func:`same` and in
:func:`test_the_first_of_several_rules_with_arguments_decides`, and nowhere else.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycontainers.linux.seccomp_compiler import compile_filter
from pycontainers.linux.syscall_table import ARCHITECTURES, MACHINES, X32_BIT, multiplexed, numbers
from pycontainers.runtime import defaults, seccomp_profile

from .bpf import LibSeccomp, Program, decode, interpret

LIBRARY = LibSeccomp.open()
TABLE = numbers(list(ARCHITECTURES))
PODMAN = Path("/usr/share/containers/seccomp.json")
CAPABILITIES = {"none": [], "default": list(defaults.CAPABILITIES), "admin": ["CAP_SYS_ADMIN", "CAP_SYS_NICE"]}
ENOSYS = 0x00050000 | errno.ENOSYS

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no libseccomp.so.2 to compare with (Debian: libseccomp2)")


def bit(architecture: str) -> int:
    return X32_BIT if architecture == "SCMP_ARCH_X32" else 0


def every_number(architecture: str) -> Iterator[int]:
    """All that a table could hold and some more; then those at the edges of what is told from each other."""
    for number in (*range(700), *range(0xF0000, 0xF0010), 0x3FFFFFFF):
        yield number | bit(architecture)
    yield 0xFFFFFFFF


def known(profile: dict[str, Any], architectures: list[str]) -> dict[str, Any]:
    """The profile without calls that are newer than the installed libseccomp, and without those that no architecture here has."""
    assert LIBRARY is not None
    there = {name for architecture in architectures for name in TABLE[architecture] if LIBRARY.knows(name)}
    entries = [entry | {"names": [name for name in entry["names"] if name in there]} for entry in profile["syscalls"]]
    return profile | {"syscalls": [entry for entry in entries if entry["names"]]}


def same(profile: dict[str, Any], architecture: str, number: int, ours: int, theirs: int) -> bool:
    """Equal, or the one difference for single numbers: above all that are named it is ENOSYS, as runc adds it to libseccomp's."""
    table = TABLE[architecture]
    named = [table[name] for entry in profile["syscalls"] for name in entry["names"] if name in table]
    if named and number > max(named) and profile["defaultAction"] not in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"):
        return ours == (theirs if bit(architecture) and number == 0xFFFFFFFF else ENOSYS) or ours == theirs
    return ours == theirs


def compare(profile: dict[str, Any], machine: str, arguments: list[tuple[int, ...]], *, whole: bool) -> None:
    """Every number, and with ``arguments`` those whose verdict may hang on them; libseccomp's program made for all architectures as a
    ``whole``, or for each by itself: it loses rules where the first one is for a call that an architecture does not have (2.5.4).
    """
    assert LIBRARY is not None
    examined = {name for entry in profile["syscalls"] if entry.get("args") for name in entry["names"]} | {"socketcall", "ipc"}
    ours = decode(compile_filter(profile, machine))
    for architecture in profile["architectures"]:
        together = profile["architectures"] if whole else [architecture]
        theirs = decode(LIBRARY.compile(known(profile, together), together))
        audit = ARCHITECTURES[architecture][0]
        cases = [(number, (0,) * 6) for number in every_number(architecture)] if whole else []
        chosen = {TABLE[architecture].get(name, 999 | bit(architecture)) for name in examined}
        for number, values in cases + [(number, values) for number in sorted(chosen) for values in arguments]:
            mine, other = interpret(ours, audit, number, values), interpret(theirs, audit, number, values)
            assert same(profile, architecture, number, mine, other), (architecture, number, values, hex(mine), hex(other))
    if whole:
        assert foreign(ours, profile) == foreign(theirs, profile)


def foreign(program: Program, profile: dict[str, Any]) -> list[int]:
    """Verdicts for calls of architectures that nobody asked for: s390x, and x32 where it is not admitted."""
    audits = [0x80000016] if "SCMP_ARCH_X32" in profile["architectures"] else [0x80000016, 0xC000003E]
    return [interpret(program, audit, number) for audit in audits for number in (X32_BIT, X32_BIT | 1, 0xFFFFFFFE, 0xFFFFFFFF)]


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_the_table_is_libseccomps(architecture: str) -> None:
    """It gives what goes through socketcall and ipc a number below -1 (as well); the header's is looked at elsewhere."""
    assert LIBRARY is not None
    found = {name: LIBRARY.number(architecture, name) for name in TABLE[architecture]}
    wrong = {name: number for name, number in found.items() if number >= 0 and number != TABLE[architecture][name]}
    assert not wrong
    assert sum(number >= 0 for number in found.values()) > 300


@pytest.mark.parametrize("machine", list(MACHINES))
@pytest.mark.parametrize("capabilities", list(CAPABILITIES))
@pytest.mark.parametrize("path", [seccomp_profile.BUILTIN, PODMAN], ids=["ours", "podman"])
def test_every_call_of_whole_profiles(machine: str, capabilities: str, path: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"no {path} (Debian: golang-github-containers-common, which podman brings)")
    profile = seccomp_profile.from_docker(seccomp_profile.load(str(path)), CAPABILITIES[capabilities], machine, "6.1.0")
    profile = known(profile, profile["architectures"])
    firsts = [0, 1, 8, 12, 16, 38, 40, 0x20000, 0x7E020000, 0x10000000, 0xFFFFFFFF, 1 << 32, 1 << 32 | 38]
    compare(profile, machine, [(value, 0, third, 0, 0, 0) for value in firsts for third in (0, 9)], whole=True)


OPERATORS = ["SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_GT", "SCMP_CMP_GE", "SCMP_CMP_MASKED_EQ"]
EDGES = [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, 0xFFFFFFFF00000000, (1 << 64) - 1]
WORDS = st.one_of(st.integers(0, 4), st.sampled_from(EDGES), st.integers(0, (1 << 64) - 1))
CONDITIONS = st.fixed_dictionaries({"index": st.integers(0, 5), "op": st.sampled_from(OPERATORS), "value": WORDS, "valueTwo": WORDS})
@pytest.mark.parametrize("machine", list(MACHINES))
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_at_every_edge(machine: str, operator: str) -> None:
    arguments = [(0, 0, near % (1 << 64), 0, 0, 0) for edge in EDGES for near in (edge - 1, edge, edge + 1)]
    for value in EDGES:
        for two in EDGES if operator == "SCMP_CMP_MASKED_EQ" else [7]:
            condition = {"index": 2, "op": operator, "value": value, "valueTwo": two}
            rule = {"names": ["openat"], "action": "SCMP_ACT_TRAP", "args": [condition]}
            profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": list(MACHINES[machine]), "syscalls": [rule]}
            compare(profile, machine, arguments, whole=False)


ACTIONS = ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG"]
NAMES = ["read", "clone", "socket", "shmget", "personality", "fcntl64", "waitpid", "set_tls", "futex_time64", "openat"]


@st.composite
def profiles(draw: st.DrawFn) -> dict[str, Any]:
    """For a call one rule with several arguments, or several values of one argument, and perhaps a rule without, in any order.

    Those with arguments have one action for a call. (Of rules that overlap libseccomp's tree loses some, `< 0` next to `< 1 << 32` for
    one: what such mean here is compared with a plain reading, in test_seccomp.py.)
    """
    entries = []
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=4)):
        action, number = draw(st.sampled_from(ACTIONS)), draw(st.sampled_from([None, 0, 1, 38, 4094]))
        index = draw(st.integers(0, 5))
        alone = st.builds(lambda condition, index=index: [condition | {"index": index, "op": "SCMP_CMP_EQ"}], CONDITIONS)
        several = st.lists(CONDITIONS, max_size=3, unique_by=lambda condition: condition["index"])
        for arguments in draw(st.one_of(st.lists(several, max_size=1), st.lists(alone, max_size=4))):
            entries.append({"names": [name], "action": action, "errnoRet": number, "args": arguments})
        # (Not where the call is multiplexed: libseccomp refuses a second action for socketcall's number, and with it the rule.)
        if name not in multiplexed("SCMP_ARCH_X86") and draw(st.integers(0, 3)) == 0:
            entries.append({"names": [name], "action": draw(st.sampled_from(ACTIONS))})
    machine = draw(st.sampled_from(list(MACHINES)))
    native, *others = MACHINES[machine]
    return {
        "defaultAction": draw(st.sampled_from(ACTIONS)),
        "defaultErrnoRet": draw(st.sampled_from([None, 1, 38])),
        "architectures": [native, *(name for name in others if draw(st.booleans()))],
        "syscalls": draw(st.permutations(entries)),
    }


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(profiles(), st.lists(st.tuples(*[WORDS] * 6), min_size=4, max_size=4))
def test_profiles_with_arguments(profile: dict[str, Any], random: list[tuple[int, ...]]) -> None:
    machine = "x86_64" if profile["architectures"][0] == "SCMP_ARCH_X86_64" else "aarch64"
    arguments = [*random, (0,) * 6]
    for entry in profile["syscalls"]:
        for condition in entry.get("args") or ():
            for value in (condition["value"], condition["valueTwo"], condition["value"] & condition["valueTwo"]):
                for near in (value - 1, value, value + 1, value ^ 1 << 32, value & 0xFFFFFFFF):
                    old = random[len(arguments) % len(random)]
                    arguments.append(tuple(near % (1 << 64) if index == condition["index"] else old[index] for index in range(6)))
    # Multiplexed calls are told by their first argument.
    arguments += [(number, *random[0][1:]) for number in (1, 2, 23)]
    compare(profile, machine, arguments, whole=False)


def test_an_architecture_that_was_not_asked_for_is_killed() -> None:
    assert LIBRARY is not None
    for architectures in (["SCMP_ARCH_X86_64"], ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], list(MACHINES["x86_64"])):
        profile = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures, "syscalls": []}
        compare(profile, "x86_64", [], whole=True)


def test_the_first_of_several_rules_with_arguments_decides() -> None:
    """On purpose: libseccomp's order is that of its tree, whatever the profile's."""
    high = {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9, "args": [{"index": 0, "op": "SCMP_CMP_GT", "value": 5}]}
    even = {"names": ["read"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 1, "valueTwo": 0}]}
    for rules, expected in (([high, even], 0x00050009), ([even, high], 0x00030000)):
        code = decode(compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}, "x86_64"))
        assert interpret(code, 0xC000003E, 0, (8, 0, 0, 0, 0, 0)) == expected
        assert interpret(code, 0xC000003E, 0, (4, 0, 0, 0, 0, 0)) == 0x00030000
        assert interpret(code, 0xC000003E, 0, (7, 0, 0, 0, 0, 0)) == 0x00050009
        assert interpret(code, 0xC000003E, 0, (3, 0, 0, 0, 0, 0)) == 0x7FFF0000
