"""``start``, ``attach``, ``stop``, ``restart``, ``kill``, ``pause``, ``update``, ``rename``, ``rm`` …: from state to state."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

from ..errors import ContainersError, UsageError
from ..objects import Container
from ..protocol import ContainerInfo, Session, exit_of
from ..results import Output, RunResult, Text
from ..wording import failed
from .declare import Argument, Option, Verb, declare
from .frontend import Context
from .limits import LIMIT_OPTIONS, LimitWords, resources_of
from .run_options import RESTART
from .settings import restart_policy

Done = TypeVar("Done")

_MANY = (Argument("container", "name or id", "+", completes="container"),)
_RUNNING = (Argument("container", "name or id", "+", completes="running"),)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise UsageError(f"{text!r} is not a number of seconds", "0 or more")
    return value


_TIME = Option(("--time", "-t", "--timeout"), "seconds until SIGKILL (default: the container's own, else 10)", "SECONDS", convert=_seconds)
_SIGNAL = Option(("--signal", "-s"), "signal that asks it to end, instead of its own", "SIGNAL", default="")
_KEYS = Option(("--detach-keys",), "keys that let go of it (default ctrl-p,ctrl-q)", "KEYS")


def each(names: list[str], do: Callable[[str], Done], line: Callable[[Done], str] = str) -> list[Done]:
    """Do it for every name, also after one failed (as Docker does), then raise the first error, with what was done all the same.

    ``line``: how a result is shown then.
    """
    results, errors = [], []
    for name in names:
        try:
            results.append(do(name))
        except ContainersError as error:
            errors.append(error)
    if errors:
        first = errors[0]
        if len(errors) > 1:
            first.hint = "; ".join(filter(None, [first.hint, *[f"also: {error.message}" for error in errors[1:]]]))
        first.done = "\n".join(filter(None, map(line, results)))
        raise first
    return results


def _each(names: list[str], do: Callable[[str], ContainerInfo], context: Context) -> Any:
    """The same for containers: the one that is left, or the names of several."""
    results = each(names, do, lambda info: info.name)
    return Container(context.engine, results[0]) if len(results) == 1 else Text("\n".join(info.name for info in results))


def start(context: Context, args: SimpleNamespace, body: str | None) -> Any:
    if not (args.attach or args.interactive):
        return _each(args.container, lambda name: context.engine.start(name), context)
    if len(args.container) != 1:
        raise UsageError(f"--attach takes one container, not {len(args.container)}", "start the others without it")
    info = context.engine.find(args.container[0])
    session = context.engine.start_attached(info.id, args.interactive, context.frontend.size())
    return _sit(context, info, session, args.interactive, args.detach_keys)


def attach(context: Context, args: SimpleNamespace, body: str | None) -> RunResult | None:
    """Output from now on, and input, until it ends or is let go of; then as a foreground run. An interrupt lets go."""
    info = context.engine.find(args.container)
    return _sit(context, info, context.engine.attach(info.id, not args.no_stdin), not args.no_stdin, args.detach_keys)


def _sit(context: Context, info: ContainerInfo, session: Session, stdin: bool, keys: str | None) -> RunResult | None:
    output = Output(context.frontend.stream)
    try:
        size = context.frontend.size()
        if size is not None:
            session.resize(*size)
        context.frontend.drive(session, output, stdin, keys)
    finally:
        session.close()
    if not session.over:
        return None
    exit = exit_of(session)
    failure = failed(info.name, exit, info.resources.memory)
    if failure is not None:
        raise failure
    return RunResult(info.name, exit, bytes(output.stdout), bytes(output.stderr), output.truncated)


def stop(context: Context, args: SimpleNamespace, body: str | None) -> Any:
    return _each(args.container, lambda name: context.engine.stop(name, args.time, args.signal), context)


def restart(context: Context, args: SimpleNamespace, body: str | None) -> Any:
    def again(name: str) -> ContainerInfo:
        if context.engine.find(name).status in ("running", "paused", "restarting"):
            context.engine.stop(name, args.time, args.signal)
        return context.engine.start(name)

    return _each(args.container, again, context)


def pause(context: Context, args: SimpleNamespace, body: str | None) -> Any:
    return _each(args.container, lambda name: context.engine.pause(name), context)


def unpause(context: Context, args: SimpleNamespace, body: str | None) -> Any:
    return _each(args.container, lambda name: context.engine.unpause(name), context)


def rename(context: Context, args: SimpleNamespace, body: str | None) -> Container:
    return Container(context.engine, context.engine.rename(args.container, args.name))


def update(context: Context, args: SimpleNamespace, body: str | None) -> Any:
    words = {name: value for name, value in vars(args).items() if value not in (None, [], False)}
    limits = resources_of(words) if words.keys() & LimitWords.__annotations__.keys() else None
    policy = restart_policy(args.restart) if args.restart is not None else None
    if limits is None and policy is None:
        raise UsageError("update without anything to change", "for example: update --memory 256m NAME")
    return _each(args.container, lambda name: context.engine.update(name, limits, policy), context)


def kill(context: Context, args: SimpleNamespace, body: str | None) -> Any:
    return _each(args.container, lambda name: context.engine.kill(name, args.signal), context)


def wait(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    """The exit codes, a line each."""

    def code(name: str) -> str:
        found = context.engine.wait(name, args.timeout).code
        return "unknown" if found is None else str(found)

    return Text("\n".join(each(args.container, code)))


def remove(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    def gone(name: str) -> str:
        found = context.engine.find(name)
        context.engine.remove(found.id, args.force)
        return found.name

    return Text("\n".join(each(args.container, gone)))


declare(
    Verb(
        "start",
        "Start containers that were created or have ended",
        start,
        (
            Option(("--attach", "-a"), "show its output and wait for its end"),
            Option(("--interactive", "-i"), "pass stdin on"),
            _KEYS,
        ),
        _MANY,
        examples=("start web",),
    )
)
declare(
    Verb(
        "attach",
        "Connect to a running container's input and output",
        attach,
        (Option(("--no-stdin",), "output alone"), _KEYS),
        (Argument("container", "name or id", completes="running"),),
        examples=("attach --no-stdin web",),
    )
)
declare(Verb("stop", "Ask containers to end, and kill them after a time", stop, (_TIME, _SIGNAL), _RUNNING, examples=("stop -t 2 web",)))
declare(Verb("restart", "Stop and start containers", restart, (_TIME, _SIGNAL), _MANY))
declare(Verb("pause", "Freeze all processes of containers", pause, (), _RUNNING))
declare(Verb("unpause", "Let paused containers go on", unpause, (), _RUNNING))
declare(
    Verb(
        "rename",
        "Give a container another name",
        rename,
        (),
        (Argument("container", "name or id", completes="container"), Argument("name", "its new name")),
        examples=("rename web front",),
    )
)
declare(
    Verb(
        "update",
        "Change the limits and the restart policy of containers",
        update,
        (*LIMIT_OPTIONS, RESTART),
        _MANY,
        details="New limits hold at once, and for every later start. What is not named stays as it is.",
        examples=("update --memory 256m --cpus 1.5 web", "update --restart no web"),
    )
)
declare(
    Verb(
        "kill",
        "Send a signal to containers",
        kill,
        (Option(("--signal", "-s"), "signal by name or number (default SIGKILL)", "SIGNAL", default="SIGKILL"),),
        _RUNNING,
        examples=("kill -s SIGHUP web",),
    )
)
declare(
    Verb(
        "wait",
        "Wait until containers end and give their exit codes",
        wait,
        (Option(("--timeout", "-t"), "give up after so many seconds", "SECONDS", convert=_seconds),),
        _MANY,
    )
)
declare(
    Verb(
        "rm",
        "Remove containers with their files",
        remove,
        (Option(("--force", "-f"), "end a running one first"),),
        _MANY,
        examples=("rm -f web",),
    )
)
