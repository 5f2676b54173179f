"""``exec``: one more process in a running container. (The module cannot be named after the builtin.)"""

from __future__ import annotations

from types import SimpleNamespace

from ..errors import ContainerFailed
from ..objects import Output, RunResult
from ..text import one_line
from .declare import Argument, Option, Verb, declare
from .frontend import Context
from .options import exec_config


def execute(context: Context, args: SimpleNamespace, body: str | None) -> RunResult:
    """Output streams as it comes; a RunResult, or ContainerFailed with the command's own exit code."""
    config = exec_config(args.command, env=args.env, workdir=args.workdir, user=args.user)
    stdin = body.encode() if body is not None else context.stdin() if args.interactive and context.stdin else None
    output = Output(context.frontend.stream)
    exit = context.engine.exec(args.container, config, stdin, output)
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
            Option(("--interactive", "-i"), "pass stdin on"),
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
