"""What a container may do, from Docker's ``--privileged``, ``--cap-add``, ``--cap-drop`` and ``--security-opt``."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError, near
from ..linux import capabilities
from ..protocol import ContainerConfig
from . import defaults, seccomp_profile

_OPTIONS = ("no-new-privileges", "seccomp", "apparmor", "label", "systempaths", "writable-cgroups")
_TRUE, _FALSE = ("true", "1", "t", "T", "TRUE", "True"), ("false", "0", "f", "F", "FALSE", "False")


@dataclass(frozen=True)
class SecurityOptions:
    """``--security-opt``, parsed."""

    no_new_privileges: bool = False
    seccomp: str = ""
    apparmor: str = ""
    systempaths: str = ""
    writable_cgroups: bool | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Privileges:
    """As the specification takes it. ``notes``: what is weaker than usual, one line each."""

    capabilities: list[str]
    seccomp: dict[str, Any] | None
    no_new_privileges: bool = False
    apparmor: str = ""
    masked: list[str] = field(default_factory=list)
    readonly: list[str] = field(default_factory=list)
    writable_cgroups: bool = False
    writable_sys: bool = False
    notes: tuple[str, ...] = ()


def privileges_of(config: ContainerConfig, private_user: bool) -> Privileges:
    """:raises UsageError: an unknown capability or option; a profile that this machine does not have."""
    options = security_options(config.security_opt)
    names = capabilities_of(config.cap_add, config.cap_drop, config.privileged, private_user)
    open_paths = config.privileged or options.systempaths == "unconfined"
    masked = [] if open_paths else defaults.MASKED_PATHS + sorted(glob.glob("/sys/devices/system/cpu/cpu*/thermal_throttle"))
    # Docker: an explicit profile holds for a privileged container, too.
    open_calls = options.seccomp == "unconfined" or (config.privileged and not options.seccomp)
    return Privileges(
        capabilities=names,
        seccomp=None if open_calls else seccomp_profile.resolve(options.seccomp, names),
        no_new_privileges=options.no_new_privileges,
        apparmor=_apparmor(options.apparmor, config.privileged),
        masked=masked,
        readonly=[] if open_paths else list(defaults.READONLY_PATHS),
        writable_cgroups=config.privileged if options.writable_cgroups is None else options.writable_cgroups,
        writable_sys=config.privileged,
        notes=(*_labels(options.labels), *_privileged(config.privileged, private_user)),
    )


def security_options(texts: Iterable[str]) -> SecurityOptions:
    """``NAME=VALUE``, or ``NAME:VALUE`` as Docker wrote it before. :raises UsageError:"""
    found: dict[str, Any] = {}
    labels: list[str] = []
    for text in texts:
        name, mark, value = text.partition("=") if "=" in text else text.partition(":")
        if name not in _OPTIONS:
            raise UsageError(f"--security-opt {text!r} is unknown", near(name, _OPTIONS) or f"one of {', '.join(_OPTIONS)}")
        if name in ("no-new-privileges", "writable-cgroups"):
            found[name.replace("-", "_")] = _switch(value if mark else "true", text)
        elif not value:
            raise UsageError(f"--security-opt {text!r} has no value", f"for example --security-opt {name}=unconfined")
        elif name == "label":
            labels.append(value)
        else:
            found[name] = value
    if found.get("systempaths", "unconfined") != "unconfined":
        raise UsageError(f"--security-opt systempaths={found['systempaths']} is unknown", "systempaths=unconfined")
    return SecurityOptions(**found, labels=tuple(labels))


def _switch(value: str, text: str) -> bool:
    if value not in _TRUE + _FALSE:
        raise UsageError(f"--security-opt {text!r}: {value!r} is neither true nor false", "for example no-new-privileges=true")
    return value in _TRUE


def capabilities_of(add: Iterable[str], drop: Iterable[str], privileged: bool, private_user: bool) -> list[str]:
    """The capabilities of a container, in Docker's order of precedence (moby, oci/caps, TweakCapabilities).

    Privileged: all that there are. ``--cap-add ALL``: all but what is dropped. ``--cap-drop ALL``: only what is added. Else the default
    list, without what is dropped, with what is added.
    """
    added, dropped = _names(add, "--cap-add"), _names(drop, "--cap-drop")
    here = available(private_user)
    missing = [name for name in added if name not in here and name != "ALL"]
    if missing:
        raise UsageError(f"--cap-add {missing[0]}: this machine does not give it to us", "see CapBnd in /proc/self/status")
    basics = list(defaults.CAPABILITIES)
    if not private_user:
        # Without a user namespace a device node made inside would be the host's disk.
        basics.remove("CAP_MKNOD")
    if privileged:
        return here
    if "ALL" in added:
        return [name for name in here if name not in dropped]
    if "ALL" in dropped:
        return added
    kept = [name for name in basics if name not in dropped]
    return kept + [name for name in added if name not in kept]


def available(private_user: bool) -> list[str]:
    """All capabilities that a container can get: in a user namespace of its own all that the kernel knows, else what bounds us."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        bounding = next((int(line.split()[1], 16) for line in file if line.startswith("CapBnd:")), 0)
    last = capabilities.last()
    return [name for name, number in capabilities.NUMBER.items() if number <= last and (private_user or bounding >> number & 1)]


def _names(texts: Iterable[str], option: str) -> list[str]:
    """``net_admin``, ``CAP_NET_ADMIN`` → ``CAP_NET_ADMIN``; ALL stays."""
    found = []
    for text in texts:
        name = text.strip().upper()
        name = name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"
        name = "ALL" if name == "CAP_ALL" else name
        if name != "ALL" and name not in capabilities.NUMBER:
            plain = [known.removeprefix("CAP_") for known in capabilities.NUMBER]
            raise UsageError(f"{option} {text!r} is not a capability", near(name.removeprefix("CAP_"), plain) or "see capabilities(7)")
        found.append(name)
    return list(dict.fromkeys(found))


def _apparmor(profile: str, privileged: bool) -> str:
    if profile in ("", "unconfined"):
        return "unconfined" if (profile or privileged) and _has_apparmor() else ""
    if not _has_apparmor():
        raise UsageError(f"--security-opt apparmor={profile}: AppArmor is not enabled on this machine", "leave it out")
    return profile


def _has_apparmor() -> bool:
    try:
        with open("/sys/module/apparmor/parameters/enabled", encoding="utf-8") as file:
            return file.read(1) == "Y"
    except OSError:
        return False


def has_selinux() -> bool:
    return os.path.exists("/sys/fs/selinux/enforce")


def _labels(labels: tuple[str, ...]) -> list[str]:
    """SELinux labels. Without SELinux they mean nothing, and Docker says nothing; here a note does."""
    kinds = ("disable", "user:", "role:", "type:", "level:", "filetype:", "nested")
    for label in labels:
        if not label.startswith(kinds):
            raise UsageError(f"--security-opt label={label} is unknown", "label=disable, or user:, role:, type:, level: and a value")
    wanted = [label for label in labels if label != "disable"]
    if wanted and has_selinux():
        raise UsageError(f"--security-opt label={wanted[0]}: SELinux labels are not supported", "label=disable")
    return [f"label={label} means nothing: SELinux is not enabled on this machine" for label in wanted]


def _privileged(privileged: bool, private_user: bool) -> list[str]:
    if not privileged:
        return []
    if private_user:
        return [
            "--privileged within a user namespace: all capabilities over what the container owns, no seccomp filter, nothing masked; "
            "devices and settings of the machine stay its root's (--userns host gives those too)"
        ]
    return ["--privileged without a user namespace: root inside is root of this machine, with all its devices; nothing is isolated from it"]
