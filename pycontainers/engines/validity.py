"""What can be wrong with a request, found before anything is made. Each is one line with the actual value."""

from __future__ import annotations

import os
import re
import resource
from typing import Any

from ..errors import LimitError, UsageError, near
from ..linux import capabilities, signals
from ..linux.cgroups import limits
from ..protocol import ContainerConfig, Mount, Ulimit
from ..runtime import defaults
from ..runtime.privileges import has_selinux
from ..runtime.spec import command_of
from . import naming

_RESTARTS = ("no", "on-failure", "always", "unless-stopped")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_DOMAIN = re.compile(r"\.|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
#: sysctls of the IPC namespace (runc, libcontainer/configs/validate)
_IPC_SYSCTLS = (
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni kernel.shm_rmid_forced"
).split()
_PROPAGATING = ("shared", "rshared")


def check(config: ContainerConfig, image_config: dict[str, Any]) -> None:
    """:raises UsageError: the first thing that is wrong. What concerns namespaces is for :mod:`.sharing`."""
    if config.name:
        naming.check(config.name)
    if (config.ports or config.publish_all) and config.network == "none":
        raise UsageError("a container with --network none has no ports to publish", "leave out -p, or use --network bridge")
    if config.require_isolation not in ("", "full"):
        raise UsageError(f"--require-isolation {config.require_isolation!r} is unknown", "full")
    _check_names(config)
    _check_process(config, image_config)
    _check_life(config)
    _check_resolver(config)
    _check_sysctls(config)
    limits.check_resources(config.resources)
    for ulimit in config.ulimits:
        _check_ulimit(ulimit)
    _check_oom_score(config.oom_score_adj)
    if config.shm_size is not None and config.shm_size <= 0:
        raise LimitError(f"--shm-size {config.shm_size} is not a size", "for example --shm-size 256m")
    targets = set()
    for mount in config.mounts:
        _check_mount(mount, config)
        if mount.target in targets:
            raise UsageError(f"two mounts on {mount.target}", "give each its own target")
        targets.add(mount.target)
    if config.cidfile and os.path.lexists(config.cidfile):
        raise UsageError(f"--cidfile {config.cidfile} exists already", "remove it, or choose another: it may be a running container's")


def _check_names(config: ContainerConfig) -> None:
    if config.hostname and (len(config.hostname) > 63 or not _HOSTNAME.fullmatch(config.hostname)):
        raise UsageError(f"hostname {config.hostname!r} is not valid", "letters, digits and '-', at most 63")
    if config.domainname and (len(config.domainname) > 64 or not _HOSTNAME.fullmatch(config.domainname)):
        raise UsageError(f"domainname {config.domainname!r} is not valid", "letters, digits, '-' and '.', at most 64")


def _check_process(config: ContainerConfig, image_config: dict[str, Any]) -> None:
    if not command_of(config, image_config):
        raise UsageError(f"image {config.image!r} has no command of its own", "give one after the image's name")
    workdir = config.workdir or image_config.get("WorkingDir") or "/"
    if not workdir.startswith("/"):
        raise UsageError(f"working directory {workdir!r} is not an absolute path", "for example -w /data")
    for text in (*command_of(config, image_config), *config.env, *config.env.values()):
        if "\0" in text:
            raise UsageError("a command or environment value holds a NUL byte", "")
    for group in config.group_add:
        if group.isdigit() and not int(group) < defaults.ID_COUNT:
            raise UsageError(f"--group-add {group} is outside the container's 0..{defaults.ID_COUNT - 1}", "use an id that is mapped")
        if not group or ":" in group:
            raise UsageError(f"--group-add {group!r} is not a group", "a group of the image, or a number")


def _check_life(config: ContainerConfig) -> None:
    policy = config.restart
    if policy.name not in _RESTARTS:
        raise UsageError(f"--restart {policy.name!r} is not a policy", near(policy.name, _RESTARTS) or f"one of {', '.join(_RESTARTS)}")
    if policy.retries < 0 or (policy.retries and policy.name != "on-failure"):
        raise UsageError(f"--restart {policy.name}:{policy.retries}: only on-failure takes a number of attempts", "on-failure:3")
    if config.auto_remove and policy.name != "no":
        raise UsageError(f"--restart {policy.name} and --rm contradict each other", "leave one of them out")
    if config.stop_signal:
        signals.number(config.stop_signal)
    if config.health is not None and config.health.test and config.health.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise UsageError(f"health check {config.health.test[0]!r} is unknown", "NONE, CMD or CMD-SHELL, and the command")


def _check_resolver(config: ContainerConfig) -> None:
    import ipaddress  # 6 ms at import

    for address in config.dns:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise UsageError(f"--dns {address!r} is not an IP address", "for example --dns 9.9.9.9") from None
    for domain in config.dns_search:
        if not _DOMAIN.fullmatch(domain):
            raise UsageError(f"--dns-search {domain!r} is not a domain", "for example --dns-search example.org, or . for none")
    for option in config.dns_options:
        if not option or any(c.isspace() for c in option):
            raise UsageError(f"--dns-option {option!r} is not an option of resolv.conf", "for example --dns-option ndots:2")
    if config.network == "none" and any(line.endswith(":host-gateway") for line in config.extra_hosts):
        raise UsageError("--add-host with host-gateway needs a network, and this container has none", "--network bridge")


def _check_sysctls(config: ContainerConfig) -> None:
    """Only those that belong to a namespace of the container's own: every other one is the machine's."""
    for name, value in config.sysctls.items():
        dotted = name.replace("/", ".")
        if not re.fullmatch(r"[a-z0-9_.*-]+", dotted, re.IGNORECASE) or ".." in dotted or "\0" in value or "\n" in value:
            raise UsageError(f"--sysctl {name}={value} is not a kernel setting", "for example --sysctl net.core.somaxconn=1024")
        if not value:
            raise UsageError(f"--sysctl {name} has no value", f"for example --sysctl {name}=1")
        if dotted.startswith("net."):
            kind, mode = "network", config.network
        elif dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
            kind, mode = "ipc", config.ipc
        elif dotted == "kernel.domainname":
            kind, mode = "uts", config.uts
        else:
            hint = "--hostname sets it" if dotted == "kernel.hostname" else "net.*, kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.*"
            raise UsageError(f"--sysctl {name}: this setting is not one of a container's own", hint)
        if mode == "host":
            message = f"--sysctl {name} and --{kind} host contradict each other"
            raise UsageError(message, f"it would be this machine's own setting; leave out --{kind}")


def _check_ulimit(limit: Ulimit) -> None:
    number = getattr(resource, f"RLIMIT_{limit.name.upper()}", None)
    if number is None:
        raise LimitError(f"--ulimit {limit.name} does not exist", "see setrlimit(2)")
    asked = f"--ulimit {limit.name}={limit.soft}:{limit.hard}"
    if limit.name == "nofile":
        with open("/proc/sys/fs/nr_open", encoding="utf-8") as file:
            most = int(file.read())
        if limit.hard == -1 or limit.hard > most:
            raise LimitError(f"{asked}: this machine allows no process more than {most}", f"at most {most} (fs.nr_open)")
    hard = resource.getrlimit(number)[1]
    if hard == resource.RLIM_INFINITY or (limit.hard != -1 and limit.hard <= hard) or _may_raise():
        return
    raise LimitError(f"{asked}: the hard limit here is {hard}, and raising it takes CAP_SYS_RESOURCE", f"at most {limit.name}={hard}")


def _may_raise() -> bool:
    return bool(capabilities.get_caps()[0] >> capabilities.NUMBER["CAP_SYS_RESOURCE"] & 1)


def _check_oom_score(score: int | None) -> None:
    if score is None:
        return
    if not -1000 <= score <= 1000:
        raise LimitError(f"--oom-score-adj {score} is out of range", "from -1000 (never) to 1000 (first)")
    with open("/proc/self/oom_score_adj", encoding="utf-8") as file:
        own = int(file.read())
    if score < own and not _may_raise():
        raise LimitError(f"--oom-score-adj {score} is below this process's own {own}, which takes CAP_SYS_RESOURCE", f"at least {own}")


def _check_mount(mount: Mount, config: ContainerConfig) -> None:
    if not mount.target.startswith("/") or os.path.normpath(mount.target) == "/" or ".." in mount.target.split("/"):
        raise UsageError(f"mount target {mount.target!r} is not an absolute path below /", "for example -v DIR:/data")
    if mount.type == "bind":
        if not mount.source.startswith("/"):
            raise UsageError(f"mount source {mount.source!r} is not an absolute path", "for example -v $PWD/data:/data")
        if not mount.create and not os.path.exists(mount.source):
            raise UsageError(f"mount source {mount.source} does not exist", "make it first, or use -v, which makes a folder")
        _check_bind(mount, config)
    elif mount.type != "tmpfs":
        raise UsageError(f"mount type {mount.type!r} is not supported", "bind or tmpfs")


def _check_bind(mount: Mount, config: ContainerConfig) -> None:
    if {"z", "Z"} & set(mount.options) and has_selinux():
        message = f"mount on {mount.target}: SELinux relabelling is not supported"
        raise UsageError(message, "label the source by chcon(1), and leave out z and Z")
    if config.userns != "host" and any(word in _PROPAGATING for word in mount.options):
        # Mounts made in a mount namespace of another user namespace never reach the one above (mount_namespaces(7)).
        message = f"mount on {mount.target}: mounts made in a user namespace do not reach this machine"
        raise UsageError(message, "rslave lets this machine's in; --userns host gives both ways")
