"""Docker's profile format to the OCI object: for which container, machine and kernel a rule holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pycontainers import errors
from pycontainers.linux.seccomp_compiler import compile_filter
from pycontainers.runtime import defaults, seccomp_profile
from pycontainers.runtime.seccomp_profile import from_docker

CAPS = ["CAP_CHOWN", "CAP_SYS_TIME"]


def rule(**conditions: Any) -> dict[str, Any]:
    return {"names": ["read"], "action": "SCMP_ACT_ALLOW"} | conditions


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        ({}, True),
        ({"includes": {}, "excludes": {}}, True),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_SYS_TIME"]}}, True),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_KILL"]}}, False),  # all of them
        ({"excludes": {"caps": ["CAP_KILL"]}}, True),
        ({"excludes": {"caps": ["CAP_KILL", "CAP_CHOWN"]}}, False),  # any of them
        ({"includes": {"arches": ["amd64", "x32"]}}, True),
        ({"includes": {"arches": ["arm", "arm64"]}}, False),
        ({"excludes": {"arches": ["s390x", "amd64"]}}, False),
        ({"includes": {"minKernel": "4.8"}}, True),
        ({"includes": {"minKernel": "6.1"}}, True),
        ({"includes": {"minKernel": "6.10"}}, False),  # numbers, not text
        ({"excludes": {"minKernel": "6.1"}}, False),
        ({"excludes": {"minKernel": "7.0"}}, True),
        ({"includes": {"caps": ["CAP_CHOWN"]}, "excludes": {"arches": ["amd64"]}}, False),
    ],
)
def test_what_a_rule_is_for(conditions: dict[str, Any], holds: bool) -> None:
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule(**conditions)]}
    found = from_docker(profile, CAPS, "x86_64", "6.1.0-13-amd64")
    assert found["syscalls"] == ([rule()] if holds else [])


def test_architectures() -> None:
    below = {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}
    others = [{"architecture": "SCMP_ARCH_S390X", "subArchitectures": None}, below]
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "archMap": others}
    assert from_docker(profile, [], "x86_64", "6.1")["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert from_docker(profile, [], "aarch64", "6.1")["architectures"] == []  # its own alone
    with pytest.raises(ValueError, match="architectures and archMap"):
        from_docker(profile | {"architectures": ["SCMP_ARCH_X86"]}, [], "x86_64", "6.1")


def test_older_words_and_podman_s() -> None:
    """``name`` for ``names``; errors by their names, which count where both are given."""
    old = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "defaultErrno": "ENOSYS"}
    rules = [{"name": "read", "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "EINVAL", "comment": "why"}]
    found = from_docker(old | {"syscalls": rules}, [], "x86_64", "6.1")
    assert (found["defaultErrnoRet"], found["syscalls"]) == (38, [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22}])
    with pytest.raises(ValueError, match="name and names"):
        from_docker(old | {"syscalls": [rule(name="write")]}, [], "x86_64", "6.1")
    with pytest.raises(ValueError, match="unknown error 'EWHAT'"):
        from_docker(old | {"defaultErrno": "EWHAT"}, [], "x86_64", "6.1")


def test_an_oci_object_comes_out_as_it_went_in() -> None:
    profile = seccomp_profile.default_profile(defaults.CAPABILITIES) | {"flags": [], "listenerPath": "/run/a", "listenerMetadata": "b"}
    assert from_docker(profile, [], "x86_64", "6.1") == profile


def test_what_the_option_means(tmp_path: Path) -> None:
    builtin = seccomp_profile.default_profile(CAPS)
    assert seccomp_profile.resolve("unconfined", CAPS) is None
    assert seccomp_profile.resolve(None, CAPS) == seccomp_profile.resolve("builtin", CAPS) == builtin
    assert seccomp_profile.resolve(seccomp_profile.BUILTIN, CAPS) == builtin
    with pytest.raises(errors.UsageError, match="No such file"):
        seccomp_profile.resolve(str(tmp_path / "nothing"), CAPS)


def test_the_default_profile_is_well_formed_for_every_machine() -> None:
    """Each name once among those without arguments or conditions, known to the table of some architecture or a documented one."""
    profile = json.loads(Path(seccomp_profile.BUILTIN).read_text())
    always = [name for entry in profile["syscalls"] if entry.keys() <= {"names", "action", "comment"} for name in entry["names"]]
    assert len(always) == len(set(always))
    for machine in ("x86_64", "aarch64"):
        for capabilities in ([], defaults.CAPABILITIES, ["CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYS_NICE"]):
            assert len(compile_filter(from_docker(profile, capabilities, machine, "6.1"), machine)) // 8 < 500
