"""The words of the command line: a table a command, and their parser. argparse would cost more than a whole ``state``."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import UsageError, near


class Option(NamedTuple):
    """``name`` without dashes; ``short`` a letter; ``kind``: flag, text, number, or list (may be given again)."""

    name: str
    short: str = ""
    kind: str = "text"
    help: str = ""


class Command(NamedTuple):
    """``words``: names of its arguments, the last one with … for the rest. ``ends``: options end at the first word after the id."""

    help: str
    words: tuple[str, ...]
    options: tuple[Option, ...]
    ends: bool = False


GLOBAL = (
    Option("root", help="folder for the state of containers (/run/pycontainers-oci)"),
    Option("log", help="file for messages (stderr)"),
    Option("log-format", help="text or json"),
    Option("log-level", help="debug, info, warning, error (warning)"),
    Option("debug", kind="flag", help="more messages"),
    Option("cgroup-manager", help="cgroupfs, systemd (its paths, made by us) or disabled"),
    Option("systemd-cgroup", kind="flag", help="cgroupsPath has the form slice:prefix:name"),
    Option("rootless", help="true, false or auto: whether cgroups may be missing"),
    Option("criu", help="taken and not used"),
    Option("help", "h", "flag"),
    Option("version", "v", "flag"),
)
_BUNDLE = Option("bundle", "b", help="the bundle's folder (.)")
_CREATE = (
    _BUNDLE,
    Option("config", "f", help="another name for config.json"),
    Option("console-socket", help="socket that gets the terminal's master"),
    Option("pid-file", help="file for the first process's pid"),
    Option("no-pivot", kind="flag", help="move the root instead of pivot_root"),
    Option("no-new-keyring", kind="flag", help="keep the session keyring"),
    Option("no-subreaper", kind="flag", help="do not adopt orphans"),
    Option("preserve-fds", kind="number", help="so many descriptors from 3 on go to the program"),
)
_CONTAINER = ("ID",)
_LIMITS = (
    "blkio-weight cpu-period cpu-quota cpu-burst cpu-idle cpu-rt-period cpu-rt-runtime cpu-share kernel-memory kernel-memory-tcp "
    "memory memory-reservation memory-swap pids-limit"
).split()

COMMANDS: dict[str, Command] = {
    "create": Command("make a container that waits for start", _CONTAINER, _CREATE),
    "start": Command("run the program of a created container", _CONTAINER, ()),
    "run": Command(
        "create and start",
        _CONTAINER,
        (*_CREATE, Option("detach", "d", "flag", "do not wait"), Option("keep", "", "flag", "do not delete when it ends")),
    ),
    "state": Command("its state, as JSON", _CONTAINER, ()),
    "kill": Command(
        "send a signal to the first process",
        ("ID", "[SIGNAL]"),
        (Option("all", "a", "flag", "to every process"), Option("regex", "r", "flag", "ID is a regular expression")),
    ),
    "delete": Command(
        "take away what is left",
        _CONTAINER,
        (Option("force", "f", "flag", "end it first"), Option("regex", "r", "flag", "ID is a regular expression")),
    ),
    "exec": Command(
        "another process in a running container",
        ("ID", "[COMMAND…]"),
        (
            Option("process", "p", help="file with an OCI process"),
            Option("pid-file", help="file for its pid"),
            Option("console-socket", help="socket that gets the terminal's master"),
            Option("cwd", help="working directory"),
            Option("env", "e", "list", "NAME=VALUE"),
            Option("tty", "t", "flag", "a terminal"),
            Option("user", "u", help="UID[:GID]"),
            Option("additional-gids", "g", "list", "further groups"),
            Option("detach", "d", "flag", "do not wait"),
            Option("cap", "c", "list", "a further capability"),
            Option("no-new-privs", kind="flag"),
            Option("preserve-fds", kind="number"),
            Option("apparmor"),
            Option("process-label"),
            Option("cgroup", kind="list", help="[CONTROLLER:]GROUP below the container's"),
            Option("ignore-paused", kind="flag"),
            Option("no-subreaper", kind="flag"),
        ),
        ends=True,
    ),
    "list": Command("all containers", (), (Option("format", "f", help="table or json"), Option("quiet", "q", "flag", "ids alone"))),
    "ps": Command("the processes of a container", ("ID", "[OPTION…]"), (Option("format", "f", help="table or json"),), ends=True),
    "pause": Command("stop all processes", _CONTAINER, ()),
    "resume": Command("let them go on", _CONTAINER, ()),
    "update": Command(
        "change limits",
        _CONTAINER,
        (
            Option("resources", "r", help="file with OCI linux.resources, - for stdin"),
            *(Option(name) for name in _LIMITS),
            Option("cpuset-cpus"),
            Option("cpuset-mems"),
            Option("l3-cache-schema"),
            Option("mem-bw-schema"),
        ),
    ),
    "events": Command(
        "what it uses, as JSON lines", _CONTAINER, (Option("stats", kind="flag", help="once"), Option("interval", help="5s"))
    ),
    "features": Command("what this runtime can do, as JSON", (), ()),
    "spec": Command(
        "write a config.json to start from",
        (),
        (_BUNDLE, Option("file", "f", help="its name"), Option("rootless", kind="flag", help="for an ordinary user")),
    ),
    "mounts": Command("refused: no mounts are added to a running container", ("[…]",), ()),
    "checkpoint": Command("refused: no process is frozen to disk", ("[…]",), ()),
    "restore": Command("refused: no process is frozen to disk", ("[…]",), ()),
}


def parse(words: list[str], options: tuple[Option, ...], *, stops: int | None) -> tuple[dict[str, Any], list[str]]:
    """({option: value}, the other words). Options end at ``--``, and after ``stops`` other words where that is not None.

    ``--name value``, ``--name=value``, ``-n value``, ``-nvalue``, and one dash before a long name, as Go programs take.

    :raises UsageError: an option that does not exist, or has no value.
    """
    known = {option.name: option for option in options}
    letters = {option.short: option for option in options if option.short}
    found: dict[str, Any] = {}
    rest: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word == "--":
            return found, rest + words[index:]
        if not word.startswith("-") or word == "-":
            rest.append(word)
            if stops is not None and len(rest) >= stops:
                return found, rest + words[index:]
            continue
        name, equals, value = word.lstrip("-").partition("=")
        option = known.get(name) or (letters.get(name) if not word.startswith("--") else None)
        if option is None and not word.startswith("--") and word[1] in letters:
            option, equals, value = letters[word[1]], "=", word[2:]
            if option.kind == "flag":  # -aq
                words = words[:index] + [f"-{word[2:]}"] + words[index:]
                equals = value = ""
        if option is None:
            raise UsageError(f"unknown option {word}", near(name, known))
        if option.kind == "flag":
            found[option.name] = value.lower() not in ("false", "0", "no") if equals else True
            continue
        if not equals:
            if index == len(words):
                raise UsageError(f"option {word} needs a value", option.help)
            value = words[index]
            index += 1
        if option.kind == "list":
            found.setdefault(option.name, []).append(value)
        elif option.kind == "number":
            if not value.isdigit():
                raise UsageError(f"option {word} needs a number and not {value!r}", option.help)
            found[option.name] = int(value)
        else:
            found[option.name] = value
    return found, rest


def usage(command: str = "") -> str:
    lines = []
    if not command:
        lines += ["usage: pycontainers-oci [OPTION…] COMMAND …", "", "commands:"]
        lines += [f"  {name:<11} {what.help}" for name, what in COMMANDS.items()]
        lines += ["", "options, before the command:"]
        options: tuple[Option, ...] = GLOBAL
    else:
        what = COMMANDS[command]
        lines += [f"usage: pycontainers-oci {command} [OPTION…] {' '.join(what.words)}", "", what.help]
        options = what.options
        lines += ["", "options:"] if options else []
    for option in options:
        short = f"-{option.short}, " if option.short else "    "
        value = "" if option.kind == "flag" else " VALUE"
        lines.append(f"  {short}--{option.name + value:<22} {option.help}".rstrip())
    return "\n".join(lines) + "\n"
