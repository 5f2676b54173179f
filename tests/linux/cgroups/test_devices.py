"""Device rules: what they mean, what v1's list and v2's program make of them, and what the kernel then does."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontainers.errors import LimitError
from pycontainers.linux import cgroups
from pycontainers.linux.cgroups import devices as module
from pycontainers.linux.cgroups.device_program import program
from pycontainers.linux.cgroups.devices import Listed, Rule, rules
from pycontainers.linux.cgroups.limits import DEVICE_RULES, EVERY_DEVICE

from .conftest import Start

NUMBERS = st.sampled_from([None, 1, 5])
ACCESS = st.sets(st.sampled_from("rwm"), min_size=1).map(frozenset)
RULES = st.lists(st.builds(Rule, st.booleans(), st.sampled_from("abc"), NUMBERS, NUMBERS, ACCESS), max_size=6)
REQUESTS = [(k, major, minor, set(a)) for k in "bc" for major in (1, 5, 9) for minor in (1, 9) for a in ("r", "w", "m", "rw", "rwm")]


def meant(found: list[Rule], kind: str, major: int, minor: int, access: set[str]) -> bool:
    """The last rule that names an access decides it; without one it is denied."""

    def allowed(one: str) -> bool:
        for rule in reversed(found):
            if rule.kind in ("a", kind) and rule.major in (None, major) and rule.minor in (None, minor) and one in rule.access:
                return rule.allow
        return False

    return all(map(allowed, access))


def executed(code: bytes, kind: str, major: int, minor: int, access: set[str]) -> bool:
    """The program on a machine of our own that knows the instructions it uses, by their numbers in the kernel's documentation."""
    word = sum({"m": 1, "r": 2, "w": 4}[a] for a in access) << 16 | {"b": 1, "c": 2}[kind]
    context, registers, at = struct.pack("<III", word, major, minor), [0] * 10, 0
    while True:
        code_, pair, offset, constant = struct.unpack_from("<BBhi", code, at * 8)
        to, source = pair & 15, pair >> 4
        at += 1
        if code_ == 0x61:
            registers[to] = struct.unpack_from("<I", context, offset)[0]
        elif code_ == 0xBC:
            registers[to] = registers[source]
        elif code_ == 0xB4:
            registers[to] = constant & 0xFFFFFFFF
        elif code_ == 0x54:
            registers[to] &= constant & 0xFFFFFFFF
        elif code_ == 0x74:
            registers[to] >>= constant
        elif code_ == 0x05 or (code_ == 0x56 and registers[to] != constant) or (code_ == 0x46 and registers[to] & constant):
            at += offset
        elif code_ == 0x95:
            return registers[0] == 1
        else:
            assert code_ in (0x56, 0x46), hex(code_)


@given(RULES)
def test_the_program_does_what_is_meant(found: list[Rule]) -> None:
    code = program(found)
    for request in REQUESTS:
        assert executed(code, *request) == meant(found, *request), request


@given(RULES)
def test_v1s_list_means_the_same_or_is_refused(found: list[Rule]) -> None:
    listed = Listed()
    try:
        for rule in found:
            listed.take(rule)
    except ValueError as error:
        assert "cgroup v1 cannot express it" in str(error)
        return
    as_rules = [Rule(listed.allowed, "a", None, None, frozenset("rwm"))]
    as_rules += [Rule(not listed.allowed, *node, access) for node, access in listed.exceptions.items()]
    for request in REQUESTS:
        assert meant(as_rules, *request) == meant(found, *request), (request, listed.exceptions)


@pytest.mark.parametrize(
    "bad",
    [{"type": "x"}, {"access": "rx"}, {"type": "c", "major": -5}, {"type": "c", "major": 1 << 40}, {"type": "c", "major": "all"}],
)
def test_no_rules(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        rules({"devices": [{"allow": True, **bad}]})


#: Makes nodes by their numbers in a folder of its own, and says which accesses work.
TRY = """
import os, sys
sys.stdin.readline()
for name in sys.argv[2:]:
    kind, major, minor = name.split("-")
    path, mode = f"{sys.argv[1]}/{name}", 0o600 | (0o020000 if kind == "c" else 0o060000)
    found = ""
    try:
        os.mknod(path, mode, os.makedev(int(major), int(minor)))
        found += "m"
    except FileExistsError:
        found += "m"
    except PermissionError:
        pass
    for flag, letter in ((os.O_RDONLY, "r"), (os.O_WRONLY, "w")):
        try:
            os.close(os.open(path, flag | os.O_NONBLOCK))
            found += letter
        except PermissionError:
            pass
        except OSError:
            found += letter  # allowed, and no such device behind it
    print(name, found, flush=True)
"""


def tried(group: cgroups.Group, folder: Path, *names: str) -> dict[str, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", TRY, str(folder), *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    group.add(process.pid)
    out, err = process.communicate(b"\n", timeout=60)
    assert process.returncode == 0, err.decode()
    return {line.split(" ")[0]: line.split(" ")[1] for line in out.decode().splitlines()}


def enforced(group_path: str, devices: list[dict[str, Any]]) -> cgroups.Group:
    group = cgroups.create(group_path, {"devices": devices})
    if group.notes:
        pytest.skip(group.notes[0])
    return group


FULL, NULL, DISK = "c-1-7", "c-1-3", "b-7-201"


@pytest.mark.root
def test_docker_s_rules_in_force(group_path: str, tmp_path: Path) -> None:
    """A disk's node may be made, with the right to, and not be opened: the way out of a container by way of the host's disk."""
    bare = cgroups.create(group_path, {})
    assert tried(bare, tmp_path, DISK, NULL) == {DISK: "mrw", NULL: "mrw"}  # really attempted: it works without rules
    group = enforced(group_path, DEVICE_RULES)
    assert tried(group, tmp_path, DISK, NULL, "c-10-229") == {DISK: "m", NULL: "mrw", "c-10-229": "m"}


@pytest.mark.root
def test_privileged_may_everything(group_path: str, tmp_path: Path) -> None:
    group = enforced(group_path, EVERY_DEVICE)
    assert tried(group, tmp_path, DISK, NULL) == {DISK: "mrw", NULL: "mrw"}


@pytest.mark.root
def test_rules_of_a_running_group_are_replaced(group_path: str, tmp_path: Path) -> None:
    group = enforced(group_path, DEVICE_RULES)
    more = [*DEVICE_RULES, {"allow": True, "type": "b", "major": 7, "minor": 201, "access": "r"}]
    group.update({"devices": more})
    assert tried(group, tmp_path, DISK, FULL) == {DISK: "mr", FULL: "mrw"}
    group.update({"devices": [rule for rule in more if rule.get("minor") != 7]})
    assert tried(group, tmp_path, DISK, FULL) == {DISK: "mr", FULL: "m"}
    group.update({"pids": {"limit": 50}})  # what does not name devices leaves them
    assert tried(group, tmp_path, DISK, FULL) == {DISK: "mr", FULL: "m"}
    group.update({"devices": EVERY_DEVICE})
    assert tried(group, tmp_path, DISK, FULL) == {DISK: "mrw", FULL: "mrw"}
    group.update({"devices": DEVICE_RULES})
    assert tried(group, tmp_path, DISK, FULL) == {DISK: "m", FULL: "mrw"}


@pytest.mark.root
def test_no_moment_without_a_device_while_rules_change(group_path: str, tmp_path: Path, start: Start) -> None:
    group = enforced(group_path, DEVICE_RULES)
    node = tmp_path / "null"
    os.mknod(node, 0o600 | 0o020000, os.makedev(1, 3))
    script = "import os, sys\nsys.stdin.readline()\nwhile True: os.close(os.open(sys.argv[1], os.O_RDWR))"
    process = start(sys.executable, "-c", script, str(node))
    group.add(process.pid)
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    others = [DEVICE_RULES, [*DEVICE_RULES, {"allow": True, "type": "b", "major": 7, "access": "r"}], DEVICE_RULES[:4]]
    for _ in range(20):
        for devices in others:
            group.update({"devices": devices})
    assert process.poll() is None


@pytest.mark.root
def test_each_single_write_leaves_what_both_lists_have(group_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on v1, without luck: looked at after each write. (v2 exchanges the whole program.)"""
    group = enforced(group_path, DEVICE_RULES)
    if not os.path.exists(f"{group.paths['devices']}/devices.list"):
        pytest.skip("v2 has no list of devices")
    write, seen = module._write, []

    def one_by_one(folder: str, name: str, texts: list[str]) -> None:
        for text in texts:
            write(folder, name, [text])
            seen.append(text)
            assert {"c 1:3 rwm", "c 136:* rwm"} <= set(Path(folder, "devices.list").read_text().splitlines()), (name, text)

    monkeypatch.setattr(module, "_write", one_by_one)
    other = [rule for rule in DEVICE_RULES if rule.get("minor") != 5]
    group.update({"devices": [*other, {"allow": True, "type": "c", "major": 1, "minor": 7, "access": "r"}]})
    group.update({"devices": DEVICE_RULES})
    assert seen


@pytest.mark.root
def test_a_group_below_cannot_have_more(group_path: str, tmp_path: Path) -> None:
    enforced(group_path, DEVICE_RULES)
    below = cgroups.create(f"{group_path}/c", {"devices": EVERY_DEVICE})
    try:
        assert tried(below, tmp_path, DISK) == {DISK: "m"}
    finally:
        below.remove()


@pytest.mark.root
def test_rules_that_v1_cannot_hold(group_path: str, tmp_path: Path) -> None:
    """A hole in a wildcard: v2's program has it, v1's list would silently be wider, so it is an error."""
    holed = [*DEVICE_RULES, {"allow": True, "type": "b", "major": 7, "access": "rwm"}]
    holed.append({"allow": False, "type": "b", "major": 7, "minor": 201, "access": "rw"})
    if "devices" in cgroups.layout().controllers and cgroups.layout().version != "v2":
        with pytest.raises(LimitError, match="cgroup v1 cannot express it: b 7:201 rw lies within b 7:"):
            cgroups.create(group_path, {"devices": holed})
        assert cgroups.open(group_path).paths == {}
    else:
        assert tried(enforced(group_path, holed), tmp_path, DISK, "b-7-202") == {DISK: "m", "b-7-202": "mrw"}
