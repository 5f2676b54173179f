"""Raw instructions to typed ones. Checks form alone; values are expanded later, when they are known.

https://docs.docker.com/reference/dockerfile/. What is not supported yet is an error at its place, never dropped in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import near
from .parser import Dockerfile, Flag, Heredoc, Raw, split_words

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STAGE = re.compile(r"[a-z][a-z0-9._-]*")
_URL = re.compile(r"(https?://|git://|git@|ssh://)", re.IGNORECASE)


@dataclass(frozen=True)
class Instruction:
    """Base of all. ``raw`` has the position and the text as written."""

    raw: Raw


@dataclass(frozen=True)
class Command:
    """What RUN, CMD and ENTRYPOINT take: a JSON list (exec form) or one line for the shell (``words`` is that line alone)."""

    shell: bool
    words: tuple[str, ...]


@dataclass(frozen=True)
class From(Instruction):
    base: str
    name: str
    platform: str


@dataclass(frozen=True)
class RunMount:
    """One ``RUN --mount``. Texts are as written: the solver expands them; "" and None are what was not given.

    :param type: bind, cache, tmpfs, secret or ssh. ``origin``: the value of ``from``, a stage, a named context or an image.
    :param id: of a cache, a secret or an agent. ``sharing``: shared, private or locked. ``size``: bytes, of a tmpfs.
    :param mode, uid, gid: numbers. ``env``: the variable that holds a secret. ``required``: a missing secret or agent is an error.
    """

    type: str
    flag: Flag
    target: str = ""
    source: str = ""
    origin: str = ""
    id: str = ""
    sharing: str = "shared"
    read_only: bool = False
    required: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    env: str = ""


@dataclass(frozen=True)
class Run(Instruction):
    command: Command
    network: str
    mounts: tuple[RunMount, ...] = ()


@dataclass(frozen=True)
class Copy(Instruction):
    """COPY and ADD (``add``). ``source_stage`` is the value of ``--from``. ``inline`` sources are here-documents.

    :param exclude: patterns of ``--exclude``. ``checksum``: ``sha256:…``, or a commit, "" for none; ``unpack``: None is ADD's own rule.
    """

    sources: tuple[str, ...]
    inline: tuple[Heredoc, ...]
    destination: str
    source_stage: str
    chown: str
    chmod: str
    add: bool
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None


@dataclass(frozen=True)
class HealthCheck(Instruction):
    """``settings`` is the image config's ``Healthcheck`` object (Docker: ``Test``; ``Interval``, ``Timeout``, … in nanoseconds)."""

    settings: dict[str, Any]


@dataclass(frozen=True)
class OnBuild(Instruction):
    """``trigger`` is the instruction to run in a build that stands on this image, as written."""

    trigger: str


@dataclass(frozen=True)
class Env(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Label(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Arg(Instruction):
    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class Workdir(Instruction):
    path: str


@dataclass(frozen=True)
class User(Instruction):
    user: str


@dataclass(frozen=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True)
class Cmd(Instruction):
    command: Command


@dataclass(frozen=True)
class Entrypoint(Instruction):
    command: Command


@dataclass(frozen=True)
class StopSignal(Instruction):
    signal: str


@dataclass(frozen=True)
class Shell(Instruction):
    words: tuple[str, ...]


@dataclass(frozen=True)
class Volume(Instruction):
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Maintainer(Instruction):
    name: str


def interpret(dockerfile: Dockerfile) -> list[Instruction]:
    """Typed instructions in order. :raises BuildError: at the place of what is wrong or not supported yet."""
    return [_BUILDERS[raw.keyword](raw) if raw.keyword in _BUILDERS else _unsupported(raw) for raw in dockerfile.instructions]


def _unsupported(raw: Raw) -> Instruction:
    hints = {
        "HEALTHCHECK": "leave it out and check from the notebook for now",
        "ONBUILD": "write the instruction into the Dockerfile that builds on this image",
    }
    raise raw.error(f"{raw.keyword} is not supported yet", hints.get(raw.keyword, "leave it out for now"))


def _flags(raw: Raw, known: tuple[str, ...], later: dict[str, str] | None = None) -> dict[str, Flag]:
    """The instruction's flags by name. ``later`` are real ones that are not supported yet, with what to do instead."""
    found: dict[str, Flag] = {}
    for flag in raw.flags:
        if later and flag.name in later:
            raise raw.error(f"{raw.keyword} --{flag.name} is not supported yet", later[flag.name], flag=flag)
        if flag.name not in known:
            hint = near(flag.name, known) or (f"{raw.keyword} takes --{', --'.join(known)}" if known else f"{raw.keyword} takes no flags")
            raise raw.error(f"unknown flag --{flag.name} of {raw.keyword}", hint, flag=flag)
        if flag.name in found:
            raise raw.error(f"{raw.keyword} --{flag.name} is given twice", "keep one of them", flag=flag)
        if not flag.value and flag.name != "link":
            raise raw.error(f"{raw.keyword} --{flag.name} has no value", f"write --{flag.name}=VALUE", flag=flag)
        found[flag.name] = flag
    return found


def _value(flags: dict[str, Flag], name: str) -> str:
    return (flags[name].value or "") if name in flags else ""


def _needs_arguments(raw: Raw, example: str) -> None:
    if not raw.arguments:
        raise raw.error(f"{raw.keyword} has no arguments", f"for example: {example}")


def _json_list(raw: Raw) -> tuple[str, ...] | None:
    """The JSON list of the exec form; None where it is not JSON (Docker then takes the text as shell form)."""
    if not raw.arguments.startswith("["):
        return None
    try:
        value = json.loads(raw.arguments)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(word, str) for word in value):
        raise raw.error(f"the exec form of {raw.keyword} has something else than strings: {raw.arguments[:60]}",
                        'every word is a JSON string: ["sleep", "5"]', offset=0)
    return tuple(value)


def _command(raw: Raw) -> Command:
    words = _json_list(raw)
    if "\0" in raw.arguments or any("\0" in word for word in words or ()):
        raise raw.error(f"{raw.keyword} has a NUL character", "remove it", offset=0)
    return Command(True, (raw.arguments,)) if words is None else Command(False, words)


def _from(raw: Raw) -> Instruction:
    flags = _flags(raw, ("platform",))
    words = split_words(raw.arguments, raw.escape)
    if not words:
        raise raw.error("FROM has no image", "for example: FROM host, or FROM scratch")
    if len(words) == 1:
        return From(raw, words[0][0], "", _value(flags, "platform"))
    if len(words) != 3 or words[1][0].upper() != "AS":
        raise raw.error(f"FROM takes one image, and AS with a name: {raw.arguments!r}", "for example: FROM host AS base",
                        offset=words[1][1])
    name = words[2][0].lower()
    if not _STAGE.fullmatch(name):
        raise raw.error(f"invalid stage name {words[2][0]!r}", "letters, digits, '.', '_' and '-', and a letter first", offset=words[2][1])
    return From(raw, words[0][0], name, _value(flags, "platform"))


def _run(raw: Raw) -> Instruction:
    flags = _flags(raw, ("network", "security"), {
        "mount": "COPY what the step needs, and remove it in the same RUN", "device": "leave it out",
    })
    network = _value(flags, "network") or "default"
    if network not in ("default", "none", "host"):
        raise raw.error(f"RUN --network={network}", "it must be default, none or host", flag=flags["network"])
    if _value(flags, "security") not in ("", "sandbox"):
        raise raw.error("RUN --security=insecure is not supported", "a build step never gets more rights than a container",
                        flag=flags["security"])
    if raw.heredocs:
        return Run(raw, Command(True, (_heredoc_script(raw),)), network)
    _needs_arguments(raw, "RUN echo hello")
    command = _command(raw)
    if not command.words:
        raise raw.error("RUN has an empty command", 'for example: RUN ["echo", "hello"]', offset=0)
    return Run(raw, command, network)


def _heredoc_script(raw: Raw) -> str:
    """The text for the shell. ``RUN <<EOF`` alone is a script; otherwise the shell reads the here-documents itself."""
    only = raw.heredocs[0]
    if len(raw.heredocs) > 1 or not re.fullmatch(r"<<-?(['\"]?)" + re.escape(only.name) + r"\1", raw.arguments):
        parts = [raw.arguments + "\n"]
        for heredoc in raw.heredocs:
            parts.append(heredoc.content + heredoc.name + "\n")
        return "".join(parts)
    interpreter, newline, _ = only.content.partition("\n")
    if not interpreter.startswith("#!") or not newline:
        return only.content
    # A script with its own interpreter: the shell hands the text over on a descriptor, so that no file is left in the layer.
    end = "PYCONTAINERS_END_OF_SCRIPT"
    return f"exec {interpreter[2:].strip()} /dev/fd/3 3<<'{end}'\n{only.content}{end}\n"


def _copy(raw: Raw) -> Instruction:
    add = raw.keyword == "ADD"
    later = {"exclude": "name it in .dockerignore", "parents": "COPY each folder to its own destination"}
    later |= {"checksum": "check it in a RUN", "keep-git-dir": "clone before the build", "unpack": "unpack in a RUN"} if add else {}
    flags = _flags(raw, ("chown", "chmod", "link") + (() if add else ("from",)), later)
    _needs_arguments(raw, f"{raw.keyword} . /app/")
    listed = _json_list(raw)
    words = [(word, 0) for word in listed] if listed is not None else split_words(raw.arguments, raw.escape)
    if len(words) < 2:
        raise raw.error(f"{raw.keyword} needs at least one source and a destination", f"for example: {raw.keyword} . /app/", offset=0)
    stage = _value(flags, "from")
    if "$" in stage:
        raise raw.error(f"variables are not allowed in --from={stage}", "name a stage: FROM image:$VERSION AS name, then --from=name",
                        flag=flags["from"])
    inline = {f"<<{'-' if h.chomp else ''}{q}{h.name}{q}": h for h in raw.heredocs for q in ("", "'", '"')}
    sources = []
    for word, offset in words[:-1]:
        if add and _URL.match(word):
            raise raw.error(f"ADD of a URL is not supported yet: {word}", "fetch it in a RUN, or into the context, and COPY it",
                            offset=offset)
        if word not in inline:
            sources.append(word)
    if inline and stage:
        raise raw.error("a here-document cannot be combined with --from", "use two COPY instructions", flag=flags["from"])
    destination = words[-1][0]
    if len(words) > 2 and "$" not in destination and not is_folder_path(destination):
        raise raw.error(f"{raw.keyword} has several sources, so the destination {destination!r} must end with '/'",
                        f"write {destination}/", offset=words[-1][1])
    return Copy(raw, tuple(sources), raw.heredocs, destination, stage, _value(flags, "chown"), _value(flags, "chmod"), add)


def is_folder_path(path: str) -> bool:
    """A destination that is meant as a folder: it ends with ``/``, or is ``.`` or ``..`` or ends with one."""
    return path.endswith(("/", "/.", "/..")) or path in (".", "..")


def _pairs(raw: Raw, example: str) -> tuple[tuple[str, str], ...]:
    """``NAME=value …``, or the old form ``NAME value to the end of the line``."""
    _flags(raw, ())
    words = split_words(raw.arguments, raw.escape)
    if not words:
        raise raw.error(f"{raw.keyword} has no arguments", f"for example: {example}")
    if "=" not in words[0][0]:
        if len(words) < 2:
            raise raw.error(f"{raw.keyword} {words[0][0]} has no value", f"for example: {example}", offset=0)
        return ((words[0][0], raw.arguments[words[1][1]:]),)
    pairs = []
    for word, offset in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise raw.error(f"{raw.keyword} expects NAME=value, not {word!r}", "quote a value that has blanks in it", offset=offset)
        pairs.append((name, value))
    return tuple(pairs)


def _arg(raw: Raw) -> Instruction:
    _flags(raw, ())
    _needs_arguments(raw, "ARG VERSION=1.0")
    pairs: list[tuple[str, str | None]] = []
    for word, offset in split_words(raw.arguments, raw.escape):
        name, equals, value = word.partition("=")
        if not NAME.fullmatch(name):
            raise raw.error(f"invalid name {name!r} in ARG", "letters, digits and '_', and no digit first", offset=offset)
        pairs.append((name, value if equals else None))
    return Arg(raw, tuple(pairs))


def _words(raw: Raw, example: str) -> tuple[str, ...]:
    _flags(raw, ())
    _needs_arguments(raw, example)
    listed = _json_list(raw) if raw.keyword == "VOLUME" else None
    return listed if listed is not None else tuple(word for word, _ in split_words(raw.arguments, raw.escape))


def _rest(raw: Raw, example: str) -> str:
    _flags(raw, ())
    _needs_arguments(raw, example)
    return raw.arguments


def _one_word(raw: Raw, example: str) -> str:
    text = _rest(raw, example)
    words = split_words(text, raw.escape)
    if len(words) > 1:
        raise raw.error(f"{raw.keyword} takes one argument", f"for example: {example}", offset=words[1][1])
    return text


def _bare_command(raw: Raw) -> Command:
    _flags(raw, ())
    return _command(raw)


def _shell(raw: Raw) -> Instruction:
    _flags(raw, ())
    words = _json_list(raw)
    if not words:
        raise raw.error("SHELL takes a JSON list", 'for example: SHELL ["/bin/bash", "-c"]', offset=0)
    return Shell(raw, words)


def _stop_signal(raw: Raw) -> Instruction:
    return StopSignal(raw, _one_word(raw, "STOPSIGNAL SIGTERM"))


_BUILDERS: dict[str, Callable[[Raw], Instruction]] = {
    "FROM": _from,
    "RUN": _run,
    "COPY": _copy,
    "ADD": _copy,
    "ARG": _arg,
    "ENV": lambda raw: Env(raw, _pairs(raw, "ENV NAME=value")),
    "LABEL": lambda raw: Label(raw, _pairs(raw, "LABEL name=value")),
    "WORKDIR": lambda raw: Workdir(raw, _rest(raw, "WORKDIR /app")),
    "USER": lambda raw: User(raw, _one_word(raw, "USER nobody")),
    "EXPOSE": lambda raw: Expose(raw, _words(raw, "EXPOSE 8080")),
    "VOLUME": lambda raw: Volume(raw, _words(raw, "VOLUME /data")),
    "CMD": lambda raw: Cmd(raw, _bare_command(raw)),
    "ENTRYPOINT": lambda raw: Entrypoint(raw, _bare_command(raw)),
    "STOPSIGNAL": _stop_signal,
    "SHELL": _shell,
    "MAINTAINER": lambda raw: Maintainer(raw, _rest(raw, "MAINTAINER name")),
}

__all__ = [
    "Arg", "Cmd", "Command", "Copy", "Entrypoint", "Env", "Expose", "From", "Instruction", "Label", "Maintainer", "Run",
    "Shell", "StopSignal", "User", "Volume", "Workdir", "interpret", "is_folder_path",
]
