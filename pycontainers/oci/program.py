"""``pycontainers-oci``: parse, do, and tell in the form that engines read. Rooms are loaded by the command that needs them."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .messages import Messages
    from .store import Store

#: Commands whose process enters a container, or becomes one: executed from a read-only mount (:mod:`pycontainers.linux.executable`)
_ENTERING = ("create", "run", "exec")
_GUARDED = "PYCONTAINERS_OCI_GUARDED"


def main() -> None:
    """Entry point of the program; ends the process."""
    if os.environ.pop(_GUARDED, "") != "1" and not set(_ENTERING).isdisjoint(sys.argv[1:]):
        _guard()  # before anything else is loaded: all of it would be loaded twice
    os._exit(_flushed(_main(sys.argv[1:])))  # no clean-up of the interpreter: a third of the time of a short command


def _main(arguments: list[str]) -> int:
    from ..errors import ContainersError, UsageError
    from . import options as words
    from .messages import Messages, line_of

    messages = Messages()
    try:
        given, rest = words.parse(arguments, words.GLOBAL, stops=1)
        if given.get("version"):
            from ..version import __version__

            sys.stdout.write(f"pycontainers-oci version {__version__}\nspec: 1.2.0\n")
            return 0
        if given.get("help") or not rest or rest[0] == "help":
            sys.stdout.write(words.usage(rest[1] if len(rest) > 1 and rest[1] in words.COMMANDS else ""))
            return 0
        level = "debug" if given.get("debug") else given.get("log-level", "warning")
        messages = Messages(given.get("log", ""), given.get("log-format", "text"), level)
        return _command(rest[0], rest[1:], given, messages)
    except ContainersError as error:
        messages.write("error", line_of(error))
        return 255 if "exec" in arguments and not isinstance(error, UsageError) else 1
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        messages.write("error", line_of(error))
        return 1


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        pass
    return code


def _command(name: str, arguments: list[str], given: dict[str, Any], messages: Messages) -> int:
    from ..errors import UsageError, near
    from . import options as words
    from .store import Store, default_root

    command = words.COMMANDS.get(name)
    if command is None:
        raise UsageError(f"unknown command {name!r}", near(name, words.COMMANDS))
    with_help = (*command.options, words.Option("help", "h", "flag"))
    options, rest = words.parse(arguments, with_help, stops=1 if command.ends else None)
    if options.get("help"):
        sys.stdout.write(words.usage(name))
        return 0
    needed = sum(not word.startswith("[") for word in command.words)
    if len(rest) < needed or (len(rest) > len(command.words) and not any("…" in word for word in command.words)):
        wanted = " ".join(command.words) or "no argument"
        raise UsageError(f"{name} takes {wanted} and got {' '.join(rest) or 'nothing'}", words.usage(name).split("\n")[0])
    manager = given.get("cgroup-manager") or ("systemd" if given.get("systemd-cgroup") else "cgroupfs")
    if manager not in ("cgroupfs", "systemd", "disabled"):
        raise UsageError(f"--cgroup-manager {manager!r} does not exist", "cgroupfs, systemd or disabled")
    store = Store(given.get("root") or default_root())
    return int(_HANDLERS[name](store, messages, options, rest, manager) or 0)


def _guard() -> None:
    """Execute ourselves again, from a read-only copy of the interpreter's mount and without the user's Python environment.

    A container may make our process its program (CVE-2019-5736); what it finds in /proc/PID/exe then must not be writable.
    """
    from ..linux import executable

    python = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = dict(os.environ, **{_GUARDED: "1"})
    path, fd = executable.guarded(python, environment)
    if fd >= 0:
        start = "import sys; sys.path.insert(0, sys.argv.pop(1)); from pycontainers.oci.program import main; main()"
        os.execve(path, [python, "-I", "-S", "-c", start, package, *sys.argv[1:]], environment)


def _caller(store: Store, messages: Messages, options: dict[str, Any], manager: str) -> Any:
    from .lifecycle import Caller

    return Caller(store, messages, options, manager)


def _create(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> None:
    from . import lifecycle

    lifecycle.create(_caller(store, messages, options, manager), rest[0], detached=True)


def _start(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> None:
    from . import lifecycle

    lifecycle.start(_caller(store, messages, options, manager), store.open(rest[0]))


def _run(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> int:
    from . import lifecycle

    return lifecycle.run(_caller(store, messages, options, manager), rest[0])


def _state(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> None:
    _json(store.open(rest[0]).oci_state())


def _kill(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> None:
    from . import lifecycle

    number = _signal(rest[1] if len(rest) > 1 else "TERM")
    caller = _caller(store, messages, options, manager)
    for container in store.matching(rest[0]) if options.get("regex") else [store.open(rest[0])]:
        lifecycle.kill(caller, container, number, everybody=bool(options.get("all")))


def _signal(text: str) -> int:
    import signal

    from ..errors import UsageError

    if text.isdigit() and 0 < int(text) < signal.NSIG:
        return int(text)
    name = text.upper().removeprefix("SIG")
    base, plus, offset = name.partition("+") if "+" in name else name.partition("-")
    found = getattr(signal, f"SIG{base}", None)
    if not isinstance(found, int) or (plus and not offset.isdigit()):
        raise UsageError(f"unknown signal {text!r}", "a name such as TERM, or a number")
    return int(found) + (int(offset) if plus == "+" else -int(offset or 0))


def _delete(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> None:
    from ..errors import NotFound
    from . import lifecycle

    force = bool(options.get("force"))
    try:
        found = store.matching(rest[0]) if options.get("regex") else [store.open(rest[0])]
    except NotFound:
        if not force:
            raise
        store.clear(rest[0])
        return
    for container in found:
        lifecycle.delete(_caller(store, messages, options, manager), container, force=force)


def _exec(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> int:
    from .execute import execute

    return execute(_caller(store, messages, options, manager), store.open(rest[0]), rest[1:])


def _list(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> None:
    from . import query

    sys.stdout.write(query.listing(store.all(), options.get("format", "table"), quiet=bool(options.get("quiet"))))


def _ps(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> None:
    from . import query

    sys.stdout.write(query.processes(store.open(rest[0]), options.get("format", "table")))


def _pause(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> None:
    from . import control

    control.pause(store.open(rest[0]))


def _resume(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> None:
    from . import control

    control.resume(store.open(rest[0]))


def _update(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> None:
    from . import control

    control.update(store.open(rest[0]), options, messages)


def _events(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> None:
    from ..errors import NotFound
    from . import query

    container = store.open(rest[0])
    while container.pid:
        _json(query.statistics(container))
        sys.stdout.flush()
        if options.get("stats"):
            return
        query.wait(query.seconds(options.get("interval", "5s")))
    if options.get("stats"):
        raise NotFound("container not running", f"{container.id} has nothing to count")


def _features(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> None:
    from . import query

    _json(query.features())


def _spec(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> None:
    import json

    from ..errors import UsageError
    from . import query

    path = os.path.join(options.get("bundle") or ".", options.get("file") or "config.json")
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(json.dumps(query.spec(rootless=bool(options.get("rootless"))), indent=2) + "\n")
    except FileExistsError:
        raise UsageError(f"{path} exists", "remove it first, or --file NAME") from None


def _refused(store: Store, messages: Messages, options: dict[str, Any], rest: list[str], manager: str) -> None:
    from ..errors import UsageError

    raise UsageError("this runtime does not do that: no checkpoint, no restore, no mounts into a running container")


def _json(what: Any) -> None:
    import json

    sys.stdout.write(json.dumps(what, indent=2) + "\n")


_HANDLERS: dict[str, Any] = {
    "create": _create,
    "start": _start,
    "run": _run,
    "state": _state,
    "kill": _kill,
    "delete": _delete,
    "exec": _exec,
    "list": _list,
    "ps": _ps,
    "pause": _pause,
    "resume": _resume,
    "update": _update,
    "events": _events,
    "features": _features,
    "spec": _spec,
    "mounts": _refused,
    "checkpoint": _refused,
    "restore": _refused,
}


if __name__ == "__main__":
    main()
