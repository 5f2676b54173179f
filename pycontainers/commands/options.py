"""Words to :class:`ContainerConfig`: the one translation that ``%container run``, the program and ``pc.run`` share.

Every value may come as text, as on a command line, or as the Python value that it stands for.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from ..errors import LimitError, NotFound, UsageError
from ..linux.cgroups.limits import parse_cpus, parse_cpuset, parse_size
from ..protocol import BuildRequest, ContainerConfig, ExecConfig, Mount, Resources
from .attachments import Ports, Volumes, parse_mount, port_list, tmpfs_list, volume_list

_ENV_NAME = re.compile(r"[^=\0]+")

Pairs = Iterable[str] | Mapping[str, object] | None


class RunOptions(TypedDict, total=False):
    """The options of ``pc.run`` and ``pc.create``. Names and units are Docker's; sizes in bytes or as ``"128m"``."""

    name: str | None
    memory: str | int | None
    memory_swap: str | int | None
    memory_reservation: str | int | None
    cpus: str | float | None
    cpu_shares: str | int | None
    cpuset_cpus: str | None
    pids_limit: str | int | None
    blkio_weight: str | int | None
    ports: Ports
    volumes: Volumes
    mounts: Iterable[str | Mount] | None
    tmpfs: Iterable[str] | Mapping[str, str] | None
    env: Pairs
    env_file: Iterable[str] | None
    workdir: str | None
    user: str | int | None
    hostname: str | None
    labels: Pairs
    entrypoint: str | Sequence[str] | None
    network: str | None
    read_only: bool
    rm: bool
    replace: bool
    userns: str | None
    stop_signal: str | None
    require_isolation: str | None


def container_config(
    image: str,
    command: str | Sequence[str] | None = None,
    *,
    name: str | None = None,
    memory: str | int | None = None,
    memory_swap: str | int | None = None,
    memory_reservation: str | int | None = None,
    cpus: str | float | None = None,
    cpu_shares: str | int | None = None,
    cpuset_cpus: str | None = None,
    pids_limit: str | int | None = None,
    blkio_weight: str | int | None = None,
    ports: Ports = None,
    volumes: Volumes = None,
    mounts: Iterable[str | Mount] | None = None,
    tmpfs: Iterable[str] | Mapping[str, str] | None = None,
    env: Pairs = None,
    env_file: Iterable[str] | None = None,
    workdir: str | None = None,
    user: str | int | None = None,
    hostname: str | None = None,
    labels: Pairs = None,
    entrypoint: str | Sequence[str] | None = None,
    network: str | None = None,
    read_only: bool = False,
    rm: bool = False,
    replace: bool = False,
    interactive: bool = False,
    userns: str | None = None,
    stop_signal: str | None = None,
    require_isolation: str | None = None,
) -> ContainerConfig:
    """Translate. Option names and units are Docker's. Whether this machine can give what is asked, the engine says.

    :raises UsageError: the first value that cannot be read.
    """
    if not image or image.startswith("-"):
        raise UsageError(f"{image!r} is not the name of an image", "see: %container images; or use host")
    return ContainerConfig(
        image=image,
        command=command_words(command),
        name=name or "",
        entrypoint=None if entrypoint is None else entrypoint_words(entrypoint),
        env=environment(env, env_file or ()),
        workdir=workdir or "",
        user="" if user is None else str(user),
        hostname=hostname or "",
        labels=pairs(labels, "label"),
        ports=port_list(ports),
        mounts=(*volume_list(volumes), *[parse_mount(mount) for mount in mounts or ()], *tmpfs_list(tmpfs)),
        network=network or "bridge",
        resources=Resources(
            memory=_size(memory, "--memory"),
            memory_swap=_size(memory_swap, "--memory-swap"),
            memory_reservation=_size(memory_reservation, "--memory-reservation"),
            cpus=None if cpus is None else parse_cpus(cpus),
            cpu_shares=_whole(cpu_shares, "--cpu-shares"),
            cpuset_cpus=_cpuset(cpuset_cpus),
            pids_limit=_whole(pids_limit, "--pids-limit"),
            blkio_weight=_whole(blkio_weight, "--blkio-weight"),
        ),
        read_only=read_only,
        auto_remove=rm,
        replace=replace,
        stdin_open=interactive,
        userns=userns or "auto",
        stop_signal=stop_signal or "",
        require_isolation=require_isolation or "",
    )


def exec_config(
    command: str | Sequence[str], *, env: Pairs = None, workdir: str | None = None, user: str | int | None = None
) -> ExecConfig:
    """What ``exec`` takes. :raises UsageError: no command."""
    words = command_words(command)
    if not words:
        raise UsageError("exec needs a COMMAND", "for example: %container exec NAME sh -c 'ps'")
    return ExecConfig(words, environment(env, ()), workdir or "", "" if user is None else str(user))


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


def _size(value: str | int | None, option: str) -> int | None:
    return None if value is None else parse_size(value, option)


def _cpuset(value: str | None) -> str | None:
    if value is not None:
        parse_cpuset(value)
    return value


def _whole(value: str | int | None, option: str) -> int | None:
    if value is None:
        return None
    try:
        return int(value)
    except ValueError:
        raise LimitError(f"{option} {value!r} is not a whole number", f"for example {option} 64") from None


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
    for item in values or ():
        key, _, value = item.partition("=")
        if not key:
            raise UsageError(f"{what} {item!r} has no name", f"--{what} NAME=VALUE")
        found[key] = value
    return found


def build_arguments(values: Pairs) -> dict[str, str]:
    """``--build-arg K=V``, or ``K`` alone for this process's own value (Docker: left out where it is not set)."""
    if isinstance(values, Mapping):
        return pairs(values, "build-arg")
    known: dict[str, Any] = {}
    for item in values or ():
        if "=" in item:
            known.update(pairs([item], "build-arg"))
        elif item in os.environ:
            known[item] = os.environ[item]
    return known


def build_request(
    dockerfile: str | os.PathLike[str],
    tags: Sequence[str] = (),
    *,
    context: str | os.PathLike[str] | None = None,
    build_args: Pairs = None,
    labels: Pairs = None,
    target: str | None = None,
    no_cache: bool = False,
    network: str | None = None,
) -> BuildRequest:
    """What ``build`` takes. ``dockerfile`` is its text (with a newline in it) or a path; ``context`` "" is none at all."""
    text, folder = os.fspath(dockerfile), "."
    if "\n" not in text:
        folder, text = read_dockerfile(text)
    if context is None:
        context = folder
    if context:
        context = os.path.abspath(os.path.expanduser(os.fspath(context)))
        if not os.path.isdir(context):
            raise NotFound(f"build context {context} is not a folder", "--context FOLDER, the folder that COPY reads")
    return BuildRequest(
        text,
        str(context),
        tuple(tags),
        build_arguments(build_args),
        pairs(labels, "label"),
        target or "",
        no_cache,
        network or "bridge",
    )


def read_dockerfile(path: str) -> tuple[str, str]:
    """``(folder, text)`` of a Dockerfile given by its path or by the folder that holds one. :raises NotFound: none there."""
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        path = os.path.join(path, "Dockerfile")
    try:
        with open(path, encoding="utf-8") as file:
            return os.path.dirname(path) or ".", file.read()
    except OSError as error:
        raise NotFound(f"Dockerfile {path}: {error.strerror}", "give its text, its path, or its folder") from None
