"""Which device nodes a container may make, read and write: rules in order (runtime-spec, Allowed Device list), for both versions.

v1 has two control files that take one rule each. v2 has no file: a program of type BPF_PROG_TYPE_CGROUP_DEVICE is asked at each mknod(2)
and open(2) of a device node; :mod:`.device_program` makes it. What is meant is the same: the last rule that names an access decides it.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from . import files

#: type, major, minor; None is any
Node = tuple[str, int | None, int | None]


class Rule(NamedTuple):
    """``kind``: "c", "b", or "a" for both. ``major``, ``minor``: None is any. ``access``: of "r", "w", "m" (mknod)."""

    allow: bool
    kind: str
    major: int | None
    minor: int | None
    access: frozenset[str]


_ALL = frozenset("rwm")


def rules(resources: dict[str, Any]) -> list[Rule]:
    """The OCI runtime specification's ``linux.resources.devices``. :raises ValueError: what is none."""
    found = []
    for each in resources.get("devices") or ():
        kind, access = each.get("type") or "a", frozenset(each.get("access") or "rwm")
        numbers = [None if each.get(name) in (None, -1) else int(each[name]) for name in ("major", "minor")]
        bad = any(number is not None and not 0 <= number < 1 << 31 for number in numbers)
        if kind not in ("a", "b", "c", "u") or not access <= _ALL or bad:
            raise ValueError(f"{each!r} is not a device rule")
        found.append(Rule(bool(each.get("allow")), "c" if kind == "u" else kind, numbers[0], numbers[1], access))
    return found


def is_everything(rule: Rule) -> bool:
    return rule.kind == "a" and rule.major is None and rule.minor is None and rule.access == _ALL


class Listed:
    """What v1 can hold: a default, and exceptions from it (device_cgroup.c). Made by the rules in their order."""

    __slots__ = ("allowed", "exceptions")

    def __init__(self) -> None:
        self.allowed = False  # without a rule everything is denied, as runc has it
        self.exceptions: dict[Node, frozenset[str]] = {}

    def take(self, rule: Rule) -> None:
        """:raises ValueError: the rule cannot be expressed in v1's list."""
        if is_everything(rule):
            self.allowed, self.exceptions = rule.allow, {}
            return
        for kind in "bc" if rule.kind == "a" else rule.kind:
            node = (kind, rule.major, rule.minor)
            if rule.allow != self.allowed:
                self.exceptions[node] = self.exceptions.get(node, frozenset()) | rule.access
            else:
                self._except_no_more(node, rule.access)

    def _except_no_more(self, node: Node, access: frozenset[str]) -> None:
        for other, had in list(self.exceptions.items()):
            if not had & access or not _overlap(node, other):
                continue
            if not _covers(node, other):
                raise ValueError(f"cgroup v1 cannot express it: {_text(node, access)} lies within {_text(other, had)}")
            left = had - access
            self.exceptions.pop(other)
            if left:
                self.exceptions[other] = left


def _covers(whole: Node, part: Node) -> bool:
    return whole[0] == part[0] and all(a is None or a == b for a, b in zip(whole[1:], part[1:], strict=True))


def _overlap(one: Node, other: Node) -> bool:
    return one[0] == other[0] and all(a is None or b is None or a == b for a, b in zip(one[1:], other[1:], strict=True))


def _text(node: Node, access: frozenset[str]) -> str:
    """As devices.allow and devices.deny take it and devices.list shows it."""
    kind, *numbers = node
    return f"{kind} {':'.join('*' if number is None else str(number) for number in numbers)} {''.join(a for a in 'rwm' if a in access)}"


def apply_v1(folder: str, wanted: list[Rule]) -> None:
    """Put the group's list in force.

    A running container never loses a device for a moment: where both the old and the new list deny by default, what is new is allowed
    before what is old is denied. A group that allows everything is left as it was born, with what its parent has: the kernel would
    refuse to give it more.

    :raises OSError: as the kernel said. :raises ValueError: v1 cannot express these rules.
    """
    listed = Listed()
    for rule in wanted:
        listed.take(rule)
    new, old = listed.exceptions, _read(folder)
    if listed.allowed:
        _write(folder, "allow", [] if old is None else ["a"])
        _write(folder, "deny", [_text(*pair) for pair in new.items()])
    elif old is None:
        _write(folder, "deny", ["a"])
        _write(folder, "allow", [_text(*pair) for pair in new.items()])
    else:
        _write(folder, "allow", _less(new, old))
        _write(folder, "deny", _less(old, new))


def _read(folder: str) -> dict[Node, frozenset[str]] | None:
    """What the group may do beyond its default of nothing; None when its default is everything (the list shows no more then)."""
    found: dict[Node, frozenset[str]] = {}
    for text in files.read(f"{folder}/devices.list").splitlines():
        kind, numbers, access = text.split()
        if kind == "a":
            return None
        major, minor = (None if number == "*" else int(number) for number in numbers.split(":"))
        found[kind, major, minor] = frozenset(access)
    return found


def _less(some: dict[Node, frozenset[str]], others: dict[Node, frozenset[str]]) -> list[str]:
    left = ((node, access - others.get(node, frozenset())) for node, access in some.items())
    return [_text(node, access) for node, access in left if access]


def _write(folder: str, name: str, texts: list[str]) -> None:
    """One write a rule, through one descriptor."""
    if not texts:
        return
    path = f"{folder}/devices.{name}"
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for text in texts:
            os.write(fd, text.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)
