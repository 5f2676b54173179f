"""``exec``: one more process in a running container. (The module cannot be named after the builtin.)"""

from __future__ import annotations

from types import SimpleNamespace

from ..errors import ContainerFailed, UsageError
from ..results import Output, RunResult
from ..terminals import SHELL, Terminal, in_container
from ..text import one_line
from .declare import Argument, Option, Verb, declare
from .frontend import Context, streams
from .options import exec_config


def execute(context: Context, args: SimpleNamespace, body: str | None) -> RunResult | Terminal | None:
    """Output streams as it comes; a RunResult, or ContainerFailed with the command's own exit code. ``-it`` on a page: a Terminal."""
    words = dict(vars(args))
    given = {name: words[name] for name in ("env", "env_file", "workdir", "user", "tty", "privileged")}
    config = exec_config(args.command, **given)
    if args.detach:
        if body is not None:
            raise UsageError("a cell body is the stdin of a foreground exec, and --detach was given", "leave out -d, or the body")
        context.engine.exec_detached(args.container, config)
        return None
    if args.tty and args.interactive and body is None and context.frontend.terminals:
        return in_container(context.engine, args.container, config, context.frontend.terminals)
    output = Output(context.frontend.stream)
    exit = context.engine.exec(args.container, config, **streams(context, args, body, output))
    if exit.code is None and not exit.error:
        return None  # let go of
    if exit.code != 0:
        what = f"{config.command[0]} in container {args.container}"
        reason = exit.error or (f"was ended by signal {exit.signal}" if exit.signal else f"ended with exit code {exit.code}")
        killed = ", OOM-killed" if exit.oom_killed else ""
        raise ContainerFailed(f"{one_line(what)} {one_line(reason)}{killed}", exit.hint, exit_code=1 if exit.code is None else exit.code)
    return RunResult(args.container, exit, bytes(output.stdout), bytes(output.stderr), output.truncated)


def terminal(context: Context, args: SimpleNamespace, body: str | None) -> RunResult | Terminal | None:
    """On a page a Terminal, which is shown and goes on after the cell; in a shell the same as ``exec -it``."""
    front = context.frontend
    if not front.terminals and not front.is_live:
        what = " ".join(args.command) or "COMMAND"
        raise UsageError("nobody can type into a terminal here", f"run a command and see what it writes: exec {args.container} {what}")
    command = args.command or SHELL
    return execute(context, SimpleNamespace(**{**_ON_A_TERMINAL, **vars(args), "command": command}), None)


_ON_A_TERMINAL = {"interactive": True, "tty": True, "detach": False, "detach_keys": None}

_SURROUNDINGS = (
    Option(("--env", "-e"), "environment variable NAME=VALUE, or NAME for this process's own value", "ENV", many=True),
    Option(("--workdir", "-w"), "working directory inside", "FOLDER"),
    Option(("--user", "-u"), "user inside: NAME or UID[:GID]", "USER"),
    Option(("--env-file",), "read environment variables from a file", "FILE", many=True, host_path="whole", completes="file"),
)
_PRIVILEGED = Option(("--privileged",), "with all capabilities and without the seccomp filter")

declare(
    Verb(
        "exec",
        "Run a command in a running container",
        execute,
        (
            *_SURROUNDINGS,
            Option(("--interactive", "-i"), "pass stdin on"),
            Option(("--tty", "-t"), "on a terminal of its own"),
            _PRIVILEGED,
            Option(("--detach", "-d"), "leave it running in the background"),
            Option(("--detach-keys",), "keys that let go of it: its terminal closes (default ctrl-p,ctrl-q)", "KEYS"),
        ),
        (
            Argument("container", "name or id of a running container", completes="running"),
            Argument("command", "command and its arguments", "rest"),
        ),
        body="optional",
        body_help="stdin of the command",
        details="With -it on a notebook's page it is a terminal, as with the verb of that name.",
        examples=("exec web sh -c 'hostname; ps; id'",),
    )
)
declare(
    Verb(
        "terminal",
        "Open a terminal in a running container",
        terminal,
        (*_SURROUNDINGS, _PRIVILEGED),
        (
            Argument("container", "name or id of a running container", completes="running"),
            Argument("command", "command and its arguments, instead of bash or sh", "rest"),
        ),
        details="In a notebook it stays below the cell and goes on after it; in a shell it is exec -it.\n"
        "The command ends with its terminal.",
        examples=("terminal web", "terminal -u root web vi /etc/hosts"),
    )
)
