"""``exec``: one more process in a running container. (The module cannot be named after the builtin.)"""

from __future__ import annotations

from types import SimpleNamespace

from ..errors import ContainerFailed, UsageError
from ..results import Output, RunResult
from ..text import one_line
from .declare import Argument, Option, Verb, declare
from .frontend import Context, streams
from .options import exec_config


def execute(context: Context, args: SimpleNamespace, body: str | None) -> RunResult | None:
    """Output streams as it comes; a RunResult, or ContainerFailed with the command's own exit code."""
    words = dict(vars(args))
    given = {name: words[name] for name in ("env", "env_file", "workdir", "user", "tty", "privileged")}
    config = exec_config(args.command, **given)
    if args.detach:
        if body is not None:
            raise UsageError("a cell body is the stdin of a foreground exec, and --detach was given", "leave out -d, or the body")
        context.engine.exec_detached(args.container, config)
        return None
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


declare(
    Verb(
        "exec",
        "Run a command in a running container",
        execute,
        (
            Option(("--env", "-e"), "environment variable NAME=VALUE, or NAME for this process's own value", "ENV", many=True),
            Option(("--workdir", "-w"), "working directory inside", "FOLDER"),
            Option(("--user", "-u"), "user inside: NAME or UID[:GID]", "USER"),
            Option(("--env-file",), "read environment variables from a file", "FILE", many=True, host_path="whole", completes="file"),
            Option(("--interactive", "-i"), "pass stdin on"),
            Option(("--tty", "-t"), "on a terminal of its own"),
            Option(("--privileged",), "with all capabilities and without the seccomp filter"),
            Option(("--detach", "-d"), "leave it running in the background"),
            Option(("--detach-keys",), "keys that let go of it: its terminal closes (default ctrl-p,ctrl-q)", "KEYS"),
        ),
        (
            Argument("container", "name or id of a running container", completes="running"),
            Argument("command", "command and its arguments", "rest"),
        ),
        body="optional",
        body_help="stdin of the command",
        examples=("exec web sh -c 'hostname; ps; id'",),
    )
)
