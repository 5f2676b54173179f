"""Raw instructions to typed ones. Checks form alone; values are expanded later, when they are known.

https://docs.docker.com/reference/dockerfile/. What cannot be done is an error at its place, never dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .flags import MANY, SWITCH, TEXT, Flags, duration
from .forms import BLANKS, SPACES, NotStrings, blank_words, json_words, split_words
from .parser import Dockerfile, Heredoc, Raw, heredoc_mark
from .run_flags import RunMount, mounts
from .tree import (
    SCRIPTS,
    Arg,
    Cmd,
    Command,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    HealthCheck,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)

_STAGE = re.compile(r"[a-z][a-z0-9._-]*")
_HEALTH_TIMES = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod", "start-interval": "StartInterval"}
_LONGEST_NAME = 255  # bytes: NAME_MAX
_SHORTEST = 10**6
"""Nanoseconds: a health check's times are 0 or at least this (Docker's API)."""


def interpret(dockerfile: Dockerfile) -> list[Instruction]:
    """Typed instructions in order. :raises BuildError: at the place of what is wrong."""
    return [typed(raw) for raw in dockerfile.instructions]


def typed(raw: Raw) -> Instruction:
    """One instruction. :raises BuildError:"""
    return _BUILDERS[raw.keyword](raw)


def is_folder_path(path: str) -> bool:
    """A destination that is meant as a folder: it ends with ``/``, or is ``.`` or ``..`` or ends with one."""
    return path.endswith(("/", "/.", "/..")) or path in (".", "..")


def _needs_arguments(raw: Raw, example: str) -> None:
    if not raw.arguments:
        raise raw.error(f"{raw.keyword} has no arguments", f"for example: {example}")


def _json_list(raw: Raw, text: str | None = None, offset: int = 0) -> tuple[str, ...] | None:
    """The JSON list of the exec form; None where it is not JSON (Docker then takes the text as shell form)."""
    try:
        return json_words(raw.arguments if text is None else text)
    except NotStrings:
        raise raw.error(f"the exec form of {raw.keyword} has something else than strings: {raw.arguments[offset:offset + 60]}",
                        'every word is a JSON string: ["sleep", "5"]', offset=offset) from None


def _command(raw: Raw, text: str | None = None, offset: int = 0) -> Command:
    text = raw.arguments if text is None else text
    words = _json_list(raw, text, offset)
    if "\0" in text or any("\0" in word for word in words or ()):
        raise raw.error(f"{raw.keyword} has a NUL character", "remove it", offset=offset)
    return Command(True, (text,)) if words is None else Command(False, words)


def _from(raw: Raw) -> Instruction:
    flags = Flags(raw, {"platform": TEXT})
    words = blank_words(raw.arguments)
    if not words:
        raise raw.error("FROM has no image", "for example: FROM host, or FROM scratch")
    if len(words) == 1:
        return From(raw, words[0][0], "", flags.text("platform"))
    if len(words) != 3 or words[1][0].upper() != "AS":
        raise raw.error(f"FROM takes one image, and AS with a name: {raw.arguments[:80]!r}", "for example: FROM host AS base",
                        offset=words[1][1])
    name = words[2][0].lower()
    if not _STAGE.fullmatch(name):
        raise raw.error(f"invalid stage name {words[2][0][:80]!r}", "letters, digits, '.', '_' and '-', and a letter first",
                        offset=words[2][1])
    return From(raw, words[0][0], name, flags.text("platform"))


def _run(raw: Raw) -> Instruction:
    flags = Flags(raw, {"mount": MANY, "network": TEXT, "security": TEXT, "device": MANY})
    network = flags.one_of("network", ("default", "none", "host"))
    if flags.one_of("security", ("sandbox", "insecure")) == "insecure":
        raise raw.error("RUN --security=insecure is refused", "a build step never gets more rights than a container",
                        flag=flags.flag("security"))
    if (device := flags.flag("device")) is not None:
        raise raw.error(f"RUN --device={device.value} is refused", "a build step gets no device of this machine", flag=device)
    if raw.heredocs:
        script, command = _heredoc_script(raw)
        return Run(raw, Command(True, (command,)), network, mounts(raw), script)
    command_line = _command(raw)
    if not command_line.words:
        raise raw.error("RUN has an empty command", 'for example: RUN ["echo", "hello"]', offset=0)
    return Run(raw, command_line, network, mounts(raw))


def _heredoc_script(raw: Raw) -> tuple[Heredoc | None, str]:
    """What the shell gets. ``RUN <<EOF`` alone is a script; otherwise the shell reads the here-documents itself."""
    only = raw.heredocs[0]
    if heredoc_mark(raw.arguments) is None:
        return None, "\n".join([raw.arguments, *(heredoc.raw + heredoc.name for heredoc in raw.heredocs)])
    if not only.raw.startswith("#!") or "\n" not in only.content:
        return None, only.content
    _needs_file_name(raw, only, 0)
    # A script with its own interpreter: a file that is there while it runs, which the kernel gives to the interpreter (as BuildKit).
    return only, f"{SCRIPTS}/{only.name}"


def _needs_file_name(raw: Raw, heredoc: Heredoc, offset: int) -> None:
    """:raises BuildError: the here-document becomes a file of its name, and that is none."""
    name = heredoc.name
    if name in ("", ".", "..") or "/" in name or "\0" in name or len(name.encode()) > _LONGEST_NAME:
        raise raw.error(f"the here-document {name[:80]!r} is not the name of a file", f"for example: {raw.keyword} <<app.conf"
                        + (" /etc/app.conf" if raw.keyword != "RUN" else ""), offset=offset)


def _copy(raw: Raw) -> Instruction:
    add = raw.keyword == "ADD"
    kinds = {"chown": TEXT, "chmod": TEXT, "link": SWITCH, "exclude": MANY}
    kinds |= {"checksum": TEXT, "keep-git-dir": SWITCH, "unpack": SWITCH} if add else {"from": TEXT, "parents": SWITCH}
    flags = Flags(raw, kinds)
    _needs_arguments(raw, f"{raw.keyword} . /app/")
    listed = _json_list(raw)
    words = [(word, 0) for word in listed] if listed is not None else blank_words(raw.arguments)
    if len(words) < 2:
        raise raw.error(f"{raw.keyword} needs at least one source and a destination", f"for example: {raw.keyword} . /app/", offset=0)
    stage = flags.text("from")
    if "$" in stage:
        raise raw.error(f"variables are not allowed in --from={stage}", "name a stage: FROM image:$VERSION AS name, then --from=name",
                        flag=flags.flag("from"))
    if any("\0" in word for word, _ in words):
        raise raw.error(f"{raw.keyword} has a NUL character", "remove it", offset=0)
    destination, place = words[-1]
    if heredoc_mark(destination) is not None:
        raise raw.error(f"a here-document cannot be the destination of {raw.keyword}", "the destination comes last, after the <<EOF",
                        offset=place)
    # As in BuildKit: of two with one name the last counts, and one in the exec form, where none is read, is empty.
    contents = {heredoc.name: heredoc for heredoc in raw.heredocs}
    inline: list[Heredoc] = []
    sources: list[str] = []
    for word, offset in words[:-1]:
        mark = heredoc_mark(word)
        if mark is None:
            sources.append(word)
        else:
            _needs_file_name(raw, mark, offset)
            inline.append(contents.get(mark.name, mark))
    return Copy(raw, tuple(sources), tuple(inline), destination, stage, flags.text("chown"), flags.text("chmod"), add,
                flags.switch("link"), flags.switch("parents"), flags.many("exclude"), flags.text("checksum"),
                flags.switch("keep-git-dir"), flags.choice("unpack"))


def _health_check(raw: Raw) -> Instruction:
    times = Flags(raw, {**dict.fromkeys(_HEALTH_TIMES, TEXT), "retries": TEXT})
    word, *_ = BLANKS.split(raw.arguments, maxsplit=1)
    rest = raw.arguments[len(word):].lstrip("\t\v\f\r ")
    place = len(raw.arguments) - len(rest)
    if word.upper() == "NONE":
        if rest or raw.flags:
            raise raw.error("HEALTHCHECK NONE takes nothing else", "write HEALTHCHECK NONE", offset=place if rest else 0)
        return HealthCheck(raw, {"Test": ["NONE"]})
    if word.upper() != "CMD":
        what = f"HEALTHCHECK {word[:40]} is not known" if word else "HEALTHCHECK has no arguments"
        raise raw.error(what, "for example: HEALTHCHECK CMD curl -f http://localhost/, or HEALTHCHECK NONE", offset=0 if word else None)
    command = _command(raw, rest, place)
    if not command.words or not any(command.words):
        raise raw.error("HEALTHCHECK CMD has no command", "for example: HEALTHCHECK CMD curl -f http://localhost/", offset=0)
    settings: dict[str, Any] = {"Test": ["CMD-SHELL" if command.shell else "CMD", *command.words]}
    for name, key in _HEALTH_TIMES.items():
        if value := _health_time(raw, times, name):
            settings[key] = value
    if retries := _retries(raw, times):
        settings["Retries"] = retries
    return HealthCheck(raw, settings)


def _health_time(raw: Raw, flags: Flags, name: str) -> int:
    text = flags.text(name)
    try:
        value = duration(text) if text else 0
    except ValueError:
        raise raw.error(f"HEALTHCHECK --{name}={text[:40]} is not a duration", f"for example: --{name}=30s, 1m30s or 500ms",
                        flag=flags.flag(name)) from None
    if value and value < _SHORTEST:
        raise raw.error(f"HEALTHCHECK --{name}={text[:40]} is too short", "0, or at least 1ms", flag=flags.flag(name))
    return value


def _retries(raw: Raw, flags: Flags) -> int:
    text = flags.text("retries")
    if text and not re.fullmatch(r"\+?[0-9]{1,9}", text):
        raise raw.error(f"HEALTHCHECK --retries={text[:40]} is not a number", "for example: --retries=3", flag=flags.flag("retries"))
    return int(text or 0)


def _on_build(raw: Raw) -> Instruction:
    Flags(raw)
    _needs_arguments(raw, "ONBUILD COPY . /app/")
    inner = raw.trigger
    if inner is None:
        raise raw.error("ONBUILD within ONBUILD is not allowed", "only what builds on this image runs the instruction", offset=0)
    if inner.keyword in ("FROM", "MAINTAINER"):
        raise raw.error(f"ONBUILD {inner.keyword} is not allowed", "any other instruction is", offset=0)
    typed(inner)  # what is wrong in it is said here, not in the build of somebody who cannot change it
    text = re.sub(rf"^ONBUILD[{SPACES}]*", "", raw.joined, flags=re.IGNORECASE)
    return OnBuild(raw, text + "".join(f"\n{heredoc.raw}{heredoc.name}" for heredoc in raw.heredocs))


def _pairs(raw: Raw, example: str) -> tuple[tuple[tuple[str, str], ...], bool]:
    """``NAME=value …``, or the old form ``NAME value to the end of the line`` (then True)."""
    Flags(raw)
    words = split_words(raw.arguments, raw.escape)
    if not words:
        raise raw.error(f"{raw.keyword} has no arguments", f"for example: {example}")
    if "=" not in words[0][0]:
        first, *rest = blank_words(raw.arguments)
        if not rest:
            raise raw.error(f"{raw.keyword} {words[0][0][:80]} has no value", f"for example: {example}", offset=0)
        return ((first[0], raw.arguments[rest[0][1]:]),), True
    pairs = []
    for word, offset in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise raw.error(f"{raw.keyword} expects NAME=value, not {word[:80]!r}", "quote a value that has blanks in it", offset=offset)
        pairs.append((name, value))
    return tuple(pairs), False


def _arg(raw: Raw) -> Instruction:
    Flags(raw)
    words = split_words(raw.arguments, raw.escape)
    if not words:
        raise raw.error("ARG has no arguments", "for example: ARG VERSION=1.0")
    pairs: list[tuple[str, str | None]] = []
    for word, offset in words:
        name, equals, value = word.partition("=")
        if not name or "\0" in name:
            raise raw.error(f"ARG {word[:80]} has no name", "for example: ARG VERSION=1.0", offset=offset)
        pairs.append((name, value if equals else None))
    return Arg(raw, tuple(pairs))


def _words(raw: Raw, example: str) -> tuple[str, ...]:
    Flags(raw)
    _needs_arguments(raw, example)
    listed = _json_list(raw) if raw.keyword == "VOLUME" else None
    words = tuple(word for word, _ in blank_words(raw.arguments)) if listed is None else tuple(word.strip(SPACES) for word in listed)
    if not words or not all(words):
        raise raw.error(f"{raw.keyword} has an empty word", f"for example: {example}", offset=0)
    return words


def _rest(raw: Raw, example: str) -> str:
    Flags(raw)
    _needs_arguments(raw, example)
    return raw.arguments


def _bare_command(raw: Raw) -> Command:
    Flags(raw)
    return _command(raw)


def _shell(raw: Raw) -> Instruction:
    Flags(raw)
    words = _json_list(raw)
    if not words:
        raise raw.error("SHELL takes a JSON list", 'for example: SHELL ["/bin/bash", "-c"]', offset=0 if raw.arguments else None)
    return Shell(raw, words)


_BUILDERS: dict[str, Callable[[Raw], Instruction]] = {
    "FROM": _from,
    "RUN": _run,
    "COPY": _copy,
    "ADD": _copy,
    "ARG": _arg,
    "ENV": lambda raw: Env(raw, *_pairs(raw, "ENV NAME=value")),
    "LABEL": lambda raw: Label(raw, *_pairs(raw, "LABEL name=value")),
    "WORKDIR": lambda raw: Workdir(raw, _rest(raw, "WORKDIR /app")),
    "USER": lambda raw: User(raw, _rest(raw, "USER nobody")),
    "EXPOSE": lambda raw: Expose(raw, _words(raw, "EXPOSE 8080")),
    "VOLUME": lambda raw: Volume(raw, _words(raw, "VOLUME /data")),
    "CMD": lambda raw: Cmd(raw, _bare_command(raw)),
    "ENTRYPOINT": lambda raw: Entrypoint(raw, _bare_command(raw)),
    "STOPSIGNAL": lambda raw: StopSignal(raw, _rest(raw, "STOPSIGNAL SIGTERM")),
    "SHELL": _shell,
    "HEALTHCHECK": _health_check,
    "ONBUILD": _on_build,
    "MAINTAINER": lambda raw: Maintainer(raw, _rest(raw, "MAINTAINER name")),
}

__all__ = [
    "Arg", "Cmd", "Command", "Copy", "Entrypoint", "Env", "Expose", "From", "HealthCheck", "Instruction", "Label", "Maintainer",
    "OnBuild", "Run", "RunMount", "Shell", "StopSignal", "User", "Volume", "Workdir", "interpret", "is_folder_path", "typed",
]
