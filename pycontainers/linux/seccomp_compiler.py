"""Compile an OCI ``linux.seccomp`` object (runtime-spec, config-linux) to a classic BPF program, for all architectures it names.

A profile becomes a graph of decisions: which architecture, then a binary search over intervals of numbers with the same verdict,
then comparisons of arguments. Equal parts of the graph are one node, so what architectures and calls have in common is there once.
BPF jumps forward only, and conditionally over 255 instructions at most: the program is written from its end.

Verdicts are libseccomp's, for which profiles are written (tests/linux/test_seccomp_verdicts.py compares them, call by call). What
differs on purpose: of several rules with arguments for one call the first that holds decides (libseccomp's order is that of its
inner tree), and numbers above all that the profile names are ENOSYS, as with runc: who wrote it could not know them, and C libraries
fall back from ENOSYS, not from EPERM.
"""

from __future__ import annotations

import errno
import struct
from typing import Any

from .syscall_table import ARCHITECTURES, MACHINES, X32_BIT, multiplexed, numbers
from .syscalls import MACHINE

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS of <linux/bpf_common.h>
NOTIFY = "SCMP_ACT_NOTIFY"

_LD, _JA, _JEQ, _JGE, _JGT, _RET, _AND = 0x20, 0x05, 0x15, 0x35, 0x25, 0x06, 0x54  # BPF_LD|BPF_W|BPF_ABS and so on
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data
_WORD = 0xFFFFFFFF

ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    NOTIFY: 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
OPERATORS = tuple(f"SCMP_CMP_{name}" for name in "NE LT LE EQ GE GT MASKED_EQ".split())
#: architectures of the specification whose programs no machine with a table here can run
_FOREIGN = tuple(
    f"SCMP_ARCH_{name}"
    for name in (
        "MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB"
    ).split()
)

Condition = tuple[int, str, int, int]  # argument, operator, value, value two
Rules = dict[tuple[Condition, ...], int]  # conditions, all of which must hold -> verdict, in order


def compile_filter(profile: dict[str, Any], machine: str = MACHINE) -> bytes:
    """The program, as ``struct sock_filter`` (8 bytes each), for programs that ``machine`` (uname -m) can run.

    Calls that an architecture does not have are skipped, as runc and crun do: the default action holds for them.
    :raises ValueError: an unknown action, operator, architecture; a value out of range; more than 4,096 instructions.
    """
    if machine not in MACHINES:
        raise ValueError(f"no table of system calls for {machine}")
    default_action = profile.get("defaultAction")
    if default_action == NOTIFY:
        raise ValueError(f"defaultAction {NOTIFY} would stop the runtime itself")  # runc refuses it as well
    default = _verdict(default_action, profile.get("defaultErrnoRet"))
    unknown = default if default_action in _PERMISSIVE else ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS
    entries = [_entry(entry) for entry in profile.get("syscalls") or ()]
    architectures = _architectures(profile, machine)
    graph = _Graph()
    bad = graph.give(ACTIONS["SCMP_ACT_KILL"])  # libseccomp's verdict for an architecture that was not asked for
    tables = numbers(architectures)
    trees: dict[int, int] = {}
    for architecture in architectures:
        if architecture == "SCMP_ARCH_X32":
            continue
        calls = _calls(entries, architecture, tables[architecture], default)
        leaves = _intervals(graph, calls, ARCHITECTURES[architecture][2], default, unknown)
        if architecture == "SCMP_ARCH_X86_64":
            leaves += _x32(graph, entries, tables.get("SCMP_ARCH_X32"), default, unknown, bad)
        trees[ARCHITECTURES[architecture][0]] = graph.load(_NR, _search(graph, leaves))
    root = bad
    for value in reversed(trees):
        root = graph.test(_JEQ, value, trees[value], root)
    return _assemble(graph.nodes, graph.load(_ARCH, root))


def _architectures(profile: dict[str, Any], machine: str) -> list[str]:
    """What the profile names and ``machine`` can run; its own always, as seccomp_init(3) has it."""
    named = profile.get("architectures") or ()
    for name in named:
        if name not in ARCHITECTURES and name not in _FOREIGN:
            raise ValueError(f"unknown architecture {name!r}")
    native, *others = MACHINES[machine]
    return [native, *(name for name in others if name in named)]


def _verdict(action: Any, errno_return: Any) -> int:
    if action not in ACTIONS:
        raise ValueError(f"unknown action {action!r}")
    if action not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return ACTIONS[action]
    value = errno.EPERM if errno_return is None else errno_return
    most = 4095 if action == "SCMP_ACT_ERRNO" else 0xFFFF  # MAX_ERRNO; a tracer may get any 16 bits
    if not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"errnoRet {value!r} is not a number from 0 to {most}")
    return ACTIONS[action] | value


def _entry(entry: Any) -> tuple[list[str], list[tuple[Condition, ...]], int]:
    """One of ``syscalls``, checked: names, the alternatives of conditions, the verdict."""
    if not isinstance(entry, dict) or not isinstance(entry.get("names"), list) or not entry["names"]:
        raise ValueError(f"syscalls: {_short(entry)} has no names")
    names: list[str] = entry["names"]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"syscalls: {_short(names)} are not all names")
    try:
        verdict = _verdict(entry.get("action"), entry.get("errnoRet"))
        conditions = [_condition(argument) for argument in entry.get("args") or ()]
    except ValueError as error:
        raise ValueError(f"syscalls {names[0]}: {error}") from None
    if len({condition[0] for condition in conditions}) < len(conditions):
        # One argument twice: alternatives, not both. So runc and crun do, since libseccomp could not express it.
        return names, [(condition,) for condition in conditions], verdict
    return names, [tuple(sorted(conditions))], verdict


def _condition(argument: Any) -> Condition:
    index, value, two, operator = (
        argument.get(key, 0) if isinstance(argument, dict) else None for key in ("index", "value", "valueTwo", "op")
    )
    if operator not in OPERATORS:
        raise ValueError(f"unknown operator {operator!r}")
    if not isinstance(index, int) or not 0 <= index <= 5:
        raise ValueError(f"argument {index!r} is not one of 0 to 5")
    for number in (value, two):
        if not isinstance(number, int) or not 0 <= number < 1 << 64:
            raise ValueError(f"{number!r} is not a number of 64 bits")
    return index, str(operator), int(value or 0), int(two or 0)


def _short(what: Any) -> str:
    text = repr(what)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _calls(entries: list[Any], architecture: str, table: dict[str, int], default: int) -> dict[int, Rules]:
    """number -> its rules."""
    through, word = multiplexed(architecture), (1 << ARCHITECTURES[architecture][2]) - 1
    result: dict[int, Rules] = {}
    for names, alternatives, verdict in entries:
        for name in names:
            places = [(table[name], alternatives)] if name in table else []
            if name in through:
                call, number = through[name]
                # The arguments lie behind a pointer: which call it is takes the place of the first, as libseccomp has it (so a condition
                # on another one looks at a register of socketcall's own). A profile that means it names socketcall itself.
                which = (0, "SCMP_CMP_EQ", number, 0)
                places.append((table[call], [(which, *(c for c in rule if c[0])) for rule in alternatives]))
            for number, conditions in places:
                rules = result.setdefault(number, {})
                for condition in conditions if verdict != default else ():
                    # Without comparisons under an empty mask, which always hold: it may be a rule without arguments.
                    needed = tuple(c for c in condition if c[1] != "SCMP_CMP_MASKED_EQ" or c[2] & word)
                    rules.setdefault(needed, verdict)
    for rules in result.values():
        if () in rules:  # a rule without arguments replaces those with (seccomp_rule_add(3))
            verdict = rules[()]
            rules.clear()
            rules[()] = verdict
    return result


Leaf = tuple[int, int]  # first number, node: it holds up to the next one's first number


def _intervals(graph: _Graph, calls: dict[int, Rules], bits: int, default: int, unknown: int, first: int = 0) -> list[Leaf]:
    """Sorted; neighbours are never the same node."""
    otherwise = graph.give(default)
    result: list[Leaf] = []
    following = first
    for number in sorted(calls):
        if number > following:
            _append(result, following, otherwise)
        node = otherwise
        for conditions, verdict in reversed(calls[number].items()):
            node = _chain(graph, conditions, bits, graph.give(verdict), node)
        _append(result, number, node)
        following = number + 1
    _append(result, following, graph.give(unknown if calls else default))
    return result


def _append(result: list[Leaf], first: int, node: int) -> None:
    if not result or result[-1][1] != node:
        result.append((first, node))


def _x32(graph: _Graph, entries: list[Any], table: dict[str, int] | None, default: int, unknown: int, bad: int) -> list[Leaf]:
    """The numbers with the x32 bit. -1 is none of them: it is what a tracer sets to skip a call."""
    if table is None:
        return [(X32_BIT, bad), (_WORD, graph.give(default))]
    calls = _calls(entries, "SCMP_ARCH_X32", table, default)
    return [*_intervals(graph, calls, 32, default, unknown, X32_BIT), (_WORD, graph.give(default))]


def _search(graph: _Graph, leaves: list[Leaf]) -> int:
    if len(leaves) == 1:
        return leaves[0][1]
    if len(leaves) == 3 and leaves[0][1] == leaves[2][1] and leaves[1][0] + 1 == leaves[2][0]:
        return graph.test(_JEQ, leaves[1][0], leaves[1][1], leaves[0][1])  # one number among others
    middle = len(leaves) // 2
    low, high = _search(graph, leaves[:middle]), _search(graph, leaves[middle:])
    return graph.test(_JGE, leaves[middle][0], high, low)


def _chain(graph: _Graph, conditions: tuple[Condition, ...], bits: int, true: int, false: int) -> int:
    for index, operator, value, two in reversed(conditions):
        true = _compare(graph, _ARGS + 8 * index, operator, value, two, bits, true, false)
    return true


def _compare(graph: _Graph, offset: int, operator: str, value: int, two: int, bits: int, true: int, false: int) -> int:
    """Compare the argument at ``offset`` (its low word first: all machines here are little-endian).

    Where registers have 32 bits the high word is not looked at, nor is that of ``value``.
    """
    if operator in ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE"):
        opposite = {"SCMP_CMP_NE": "SCMP_CMP_EQ", "SCMP_CMP_LT": "SCMP_CMP_GE", "SCMP_CMP_LE": "SCMP_CMP_GT"}[operator]
        return _compare(graph, offset, opposite, value, two, bits, false, true)
    if operator in ("SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"):
        mask, wanted = ((1 << 64) - 1, value) if operator == "SCMP_CMP_EQ" else (value, value & two)
        low = _word(graph, offset, mask & _WORD, wanted & _WORD, true, false)
        return low if bits == 32 else _word(graph, offset + 4, mask >> 32, wanted >> 32, low, false)
    jump = _JGE if operator == "SCMP_CMP_GE" else _JGT
    low = graph.load(offset, graph.test(jump, value & _WORD, true, false))
    if bits == 32:
        return low
    high = graph.test(_JGT, value >> 32, true, graph.test(_JEQ, value >> 32, low, false))
    return graph.load(offset + 4, high)


def _word(graph: _Graph, offset: int, mask: int, wanted: int, true: int, false: int) -> int:
    if not mask:
        return true  # wanted lies within the mask: nothing is left to compare
    test = graph.test(_JEQ, wanted, true, false)
    return graph.load(offset, test if mask == _WORD else graph.add(_AND, mask, test, test))


class _Graph:
    """Nodes (code, k, next if true, next if false), each once; those that it leads to come before it."""

    def __init__(self) -> None:
        self.nodes: list[tuple[int, int, int, int]] = []
        self._known: dict[tuple[int, int, int, int], int] = {}

    def add(self, code: int, k: int, true: int, false: int) -> int:
        node = (code, k, true, false)
        if node not in self._known:
            self._known[node] = len(self.nodes)
            self.nodes.append(node)
        return self._known[node]

    def give(self, verdict: int) -> int:
        return self.add(_RET, verdict, -1, -1)

    def load(self, offset: int, then: int) -> int:
        return self.add(_LD, offset, then, then)

    def test(self, code: int, k: int, true: int, false: int) -> int:
        return true if true == false else self.add(code, k, true, false)


def _assemble(nodes: list[tuple[int, int, int, int]], root: int) -> bytes:
    """Write the program from its last instruction: what a node leads to is there already, at a known distance."""
    program = _Program(nodes)
    used = bytearray(len(nodes))
    used[root] = 1
    for index in range(root, -1, -1):
        if used[index] and nodes[index][0] != _RET:
            used[nodes[index][2]] = used[nodes[index][3]] = 1
    for index in range(root + 1):
        if used[index]:
            program.place(index)
    if len(program.code) > MAX_INSTRUCTIONS:
        raise ValueError(f"a program of {len(program.code)} instructions, the kernel takes {MAX_INSTRUCTIONS}")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in reversed(program.code))


class _Program:
    _REACH = 250  # of 255: up to two more instructions come between

    def __init__(self, nodes: list[tuple[int, int, int, int]]) -> None:
        self.nodes = nodes
        self.code: list[tuple[int, int, int, int]] = []  # code, jt, jf, k; the last instruction first
        self.at: dict[int, int] = {}  # node -> the latest place it was written to, or can be reached by

    def place(self, index: int) -> None:
        code, k, true, false = self.nodes[index]
        if code == _RET:
            return  # written where it is needed
        if code in (_LD, _AND):  # goes on with the very next instruction
            if self.at.get(true) != len(self.code) - 1:
                self._bring(true)
            self.code.append((code, 0, 0, k))
        else:
            self._within_reach(true)
            self._within_reach(false)
            top = len(self.code)
            self.code.append((code, top - 1 - self.at[true], top - 1 - self.at[false], k))
        self.at[index] = len(self.code) - 1

    def _within_reach(self, index: int) -> None:
        if index not in self.at or len(self.code) - self.at[index] > self._REACH:
            self._bring(index)

    def _bring(self, index: int) -> None:
        """Make the node reachable from the next instruction: a verdict again, or a plain jump, which reaches everything."""
        code, k, _, _ = self.nodes[index]
        top = len(self.code)
        self.code.append((_RET, 0, 0, k) if code == _RET else (_JA, 0, 0, top - 1 - self.at[index]))
        self.at[index] = top
