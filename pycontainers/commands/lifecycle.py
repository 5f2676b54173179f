"""``start``, ``stop``, ``restart``, ``kill``, ``wait``, ``rm``: from one state to another."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ..errors import ContainersError, UsageError
from ..objects import Container, Text
from .declare import Argument, Option, Verb, declare
from .frontend import Context

_MANY = (Argument("container", "name or id", "+", completes="container"),)
_RUNNING = (Argument("container", "name or id", "+", completes="running"),)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise UsageError(f"{text!r} is not a number of seconds", "0 or more")
    return value


_TIME = Option(("--time", "-t", "--timeout"), "seconds until SIGKILL (default 10)", "SECONDS", default=10.0, convert=_seconds)


def each(names: list[str], do: Callable[[str], Any]) -> list[Any]:
    """Do it for every name, also after one failed (as Docker does), then raise the first error."""
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
        raise first
    return results


def _one_or_lines(results: list[Container]) -> Any:
    return results[0] if len(results) == 1 else Text("\n".join(item.known.name for item in results))


def start(context: Context, args: SimpleNamespace, body: str | None) -> Any:
    return _one_or_lines(each(args.container, lambda name: Container(context.engine, context.engine.start(name))))


def stop(context: Context, args: SimpleNamespace, body: str | None) -> Any:
    return _one_or_lines(each(args.container, lambda name: Container(context.engine, context.engine.stop(name, args.time))))


def restart(context: Context, args: SimpleNamespace, body: str | None) -> Any:
    def again(name: str) -> Container:
        if context.engine.find(name).status == "running":
            context.engine.stop(name, args.time)
        return Container(context.engine, context.engine.start(name))

    return _one_or_lines(each(args.container, again))


def kill(context: Context, args: SimpleNamespace, body: str | None) -> Any:
    return _one_or_lines(each(args.container, lambda name: Container(context.engine, context.engine.kill(name, args.signal))))


def wait(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    """The exit codes, a line each."""
    codes = each(args.container, lambda name: context.engine.wait(name, args.timeout).code)
    return Text("\n".join("unknown" if code is None else str(code) for code in codes))


def remove(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    def gone(name: str) -> str:
        found = context.engine.find(name)
        context.engine.remove(found.id, args.force)
        return found.name

    return Text("\n".join(each(args.container, gone)))


declare(Verb("start", "Start containers that were created or have ended", start, (), _MANY, examples=("start web",)))
declare(Verb("stop", "Ask containers to end, and kill them after a time", stop, (_TIME,), _RUNNING, examples=("stop -t 2 web",)))
declare(Verb("restart", "Stop and start containers", restart, (_TIME,), _MANY))
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
