"""Words to :class:`ContainerConfig`: the one translation that ``%container run``, the program and ``pc.run`` share.

Every value may come as text, as on a command line, or as the Python value that it stands for.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Unpack

from ..errors import UsageError
from ..linux.cgroups.limits import parse_size
from ..protocol import ContainerConfig, Device, ExecConfig, Mount, RestartPolicy, Ulimit
from .attachments import Ports, Volumes, exposed_list, parse_mount, port_list, tmpfs_list, volume_list
from .limits import LimitWords, resources_of, whole
from .settings import device_list, health_check, host_list, label_files, restart_policy, seconds, several, ulimit_list

_ENV_NAME = re.compile(r"[^=\0]+")

Pairs = Iterable[str] | Mapping[str, object] | None
Words = str | Iterable[str] | None
Seconds = str | float | None


class RunOptions(LimitWords, total=False):
    """The options of ``pc.run`` and ``pc.create``. Names and units are Docker's; sizes in bytes or as ``"128m"``, times in seconds or as
    ``"1m30s"``."""

    name: str | None
    ports: Ports
    expose: Iterable[str | int] | str | int | None
    publish_all: bool
    volumes: Volumes
    mounts: Iterable[str | Mount] | None
    tmpfs: Words | Mapping[str, str]
    shm_size: str | int | None
    devices: Iterable[str | Device] | str | None
    device_cgroup_rules: Words
    env: Pairs
    env_file: Words
    workdir: str | None
    entrypoint: str | Sequence[str] | None
    user: str | int | None
    group_add: Iterable[str | int] | str | None
    hostname: str | None
    domainname: str | None
    labels: Pairs
    label_file: Words
    annotations: Pairs
    network: str | None
    add_host: Words | Mapping[str, str]
    dns: Words
    dns_search: Words
    dns_option: Words
    pid: str | None
    ipc: str | None
    uts: str | None
    cgroupns: str | None
    userns: str | None
    privileged: bool
    cap_add: Words
    cap_drop: Words
    security_opt: Words
    sysctls: Pairs
    ulimits: Iterable[str | Ulimit] | Mapping[str, Any] | str | None
    oom_score_adj: str | int | None
    read_only: bool
    tty: bool
    init: bool
    rm: bool
    replace: bool
    restart: str | RestartPolicy | None
    lifetime: str | None
    stop_signal: str | int | None
    stop_timeout: Seconds
    health_cmd: str | Sequence[str] | None
    health_interval: Seconds
    health_timeout: Seconds
    health_retries: str | int | None
    health_start_period: Seconds
    health_start_interval: Seconds
    no_healthcheck: bool
    cidfile: str | None
    require_isolation: str | None


def container_config(
    image: str, command: str | Sequence[str] | None = None, *, interactive: bool = False, **options: Unpack[RunOptions]
) -> ContainerConfig:
    """Translate. What is None was not given. Whether this machine can give what is asked, the engine says.

    :raises UsageError: the first value that cannot be read, or two that contradict each other.
    """
    if not image or image.startswith("-"):
        raise UsageError(f"{image!r} is not the name of an image", "see: %container images; or use host")
    given: Callable[[str], Any] = options.get
    entrypoint, shm_size, stop_timeout, user = given("entrypoint"), given("shm_size"), given("stop_timeout"), given("user")
    config = ContainerConfig(
        image=image,
        command=command_words(command),
        name=given("name") or "",
        entrypoint=None if entrypoint is None else entrypoint_words(entrypoint),
        env=environment(given("env"), several(given("env_file"))),
        workdir=given("workdir") or "",
        user="" if user is None else str(user),
        group_add=tuple(map(str, several(given("group_add")))),
        hostname=given("hostname") or "",
        domainname=given("domainname") or "",
        labels=pairs(label_files(given("label_file")), "label") | pairs(given("labels"), "label"),
        annotations=pairs(given("annotations"), "annotation"),
        ports=port_list(given("ports")),
        expose=exposed_list(given("expose")),
        publish_all=bool(given("publish_all")),
        mounts=(*volume_list(given("volumes")), *map(parse_mount, given("mounts") or ()), *tmpfs_list(given("tmpfs"))),
        shm_size=None if shm_size is None else parse_size(shm_size, "--shm-size"),
        devices=device_list(given("devices")),
        device_cgroup_rules=several(given("device_cgroup_rules")),
        network=given("network") or "bridge",
        extra_hosts=host_list(given("add_host")),
        dns=several(given("dns")),
        dns_search=several(given("dns_search")),
        dns_options=several(given("dns_option")),
        pid=given("pid") or "",
        ipc=given("ipc") or "",
        uts=given("uts") or "",
        cgroupns=given("cgroupns") or "",
        userns=given("userns") or "auto",
        privileged=bool(given("privileged")),
        cap_add=several(given("cap_add")),
        cap_drop=several(given("cap_drop")),
        security_opt=several(given("security_opt")),
        sysctls=pairs(given("sysctls"), "sysctl"),
        ulimits=ulimit_list(given("ulimits")),
        oom_score_adj=_number(given("oom_score_adj"), "--oom-score-adj"),
        resources=resources_of(options),
        read_only=bool(given("read_only")),
        tty=bool(given("tty")),
        init=bool(given("init")),
        auto_remove=bool(given("rm")),
        replace=bool(given("replace")),
        stdin_open=interactive,
        restart=restart_policy(given("restart")),
        lifetime=given("lifetime") or "detached",
        stop_signal=str(given("stop_signal") or ""),
        stop_timeout=None if stop_timeout is None else _timeout(stop_timeout),
        health=health_check(options),
        cidfile=given("cidfile") or "",
        require_isolation=given("require_isolation") or "",
    )
    if config.auto_remove and config.restart.name != "no":
        raise UsageError(f"--restart {config.restart.name} and --rm contradict each other", "leave one of them out")
    return config


def _number(value: str | int | None, option: str) -> int | None:
    return None if value is None else whole(value, option)


def _timeout(value: str | float) -> float:
    """Seconds; -1 waits for ever (Docker)."""
    return -1.0 if str(value) == "-1" else seconds(value, "--stop-timeout")


def exec_config(
    command: str | Sequence[str],
    *,
    env: Pairs = None,
    env_file: Iterable[str] = (),
    workdir: str | None = None,
    user: str | int | None = None,
    tty: bool = False,
    privileged: bool = False,
) -> ExecConfig:
    """What ``exec`` takes. :raises UsageError: no command."""
    words = command_words(command)
    if not words:
        raise UsageError("exec needs a COMMAND", "for example: %container exec NAME sh -c 'ps'")
    return ExecConfig(words, environment(env, env_file), workdir or "", "" if user is None else str(user), tty, privileged)


def command_words(command: str | Sequence[str] | None) -> tuple[str, ...]:
    """A command given as one string is split as a shell would; a sequence is taken as it is."""
    if command is None:
        return ()
    if isinstance(command, str):
        try:
            return tuple(shlex.split(command))
        except ValueError as error:
            raise UsageError(f"command {command!r}: {error}", "give a list of words instead") from None
    return tuple(str(word) for word in command)


def entrypoint_words(entrypoint: str | Sequence[str]) -> tuple[str, ...]:
    """Docker takes ``--entrypoint`` as one word (never split); "" clears the image's own."""
    if isinstance(entrypoint, str):
        return (entrypoint,) if entrypoint else ()
    return tuple(entrypoint)


def environment(env: Pairs, files: Iterable[str]) -> dict[str, str]:
    """``K=V``, or ``K`` alone to pass on this process's own value. Files first, so that ``-e`` wins (Docker's order)."""
    found: dict[str, str] = {}
    for path in files:
        found.update(env_file_pairs(path))
    if isinstance(env, Mapping):
        found.update({_env_name(str(name)): str(value) for name, value in env.items()})
        return found
    for item in env or ():
        name, equals, value = item.partition("=")
        _env_name(name)
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def _env_name(name: str) -> str:
    if not _ENV_NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not the name of an environment variable", "-e NAME=VALUE")
    return name


def env_file_pairs(path: str) -> dict[str, str]:
    """Docker's env file: a ``K=V`` or ``K`` a line, ``#`` comments; quotes are part of the value."""
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--env-file {path}: {getattr(error, 'strerror', None) or error}", "a text file with NAME=VALUE lines") from None
    items = [line.lstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for item in items:
        if " " in item.partition("=")[0]:
            raise UsageError(f"--env-file {path}: {item.partition('=')[0]!r} contains white space", "NAME=VALUE")
    return environment(items, ())


def pairs(values: Pairs, what: str) -> dict[str, str]:
    """``K=V`` or ``K`` (empty value): labels and build arguments."""
    if isinstance(values, Mapping):
        return {str(key): str(value) for key, value in values.items()}
    found = {}
    for item in several(values):
        key, _, value = item.partition("=")
        if not key:
            raise UsageError(f"{what} {item!r} has no name", f"--{what} NAME=VALUE")
        found[key] = value
    return found
