"""``run`` and ``create``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ..errors import UsageError
from ..objects import Container, Output, RunResult
from ..protocol import ContainerConfig
from ..wording import failed
from .declare import Argument, Option, Verb, declare
from .frontend import Context
from .options import container_config

RUN_OPTIONS = (
    Option(("--name",), "name of the container (default: one is made up)", "NAME"),
    Option(("--publish", "-p"), "publish a port: [[IP:]HOSTPORT:]PORT[/PROTO]; on 127.0.0.1 unless IP is given", "PORT", many=True),
    Option(("--volume", "-v"), "mount a folder or file: SOURCE:TARGET[:ro]", "VOLUME", many=True, host_path="volume", completes="file"),
    Option(
        ("--mount",),
        "type=bind,source=…,target=…[,readonly] or type=tmpfs,target=…[,tmpfs-size=…]",
        "MOUNT",
        many=True,
        host_path="mount",
    ),
    Option(("--tmpfs",), "mount a tmpfs: TARGET[:size=64m,mode=1777]", "TARGET", many=True),
    Option(("--memory", "-m"), "memory limit in bytes, or with k, m, g", "SIZE"),
    Option(("--memory-swap",), "limit of memory and swap together, -1 for unlimited swap", "SIZE"),
    Option(("--memory-reservation",), "memory kept when the machine runs short", "SIZE"),
    Option(("--cpus",), "processors it may use: 0.5 is half of one", "NUMBER"),
    Option(("--cpu-shares", "-c"), "weight against others when processors are short (2 to 262144)", "SHARES"),
    Option(("--cpuset-cpus",), "processors it may run on: 0-1,3", "CPUS"),
    Option(("--pids-limit",), "processes and threads at most, -1 for unlimited", "NUMBER"),
    Option(("--blkio-weight",), "weight of block I/O (10 to 1000)", "WEIGHT"),
    Option(("--env", "-e"), "environment variable NAME=VALUE, or NAME for this process's own value", "ENV", many=True),
    Option(("--env-file",), "read environment variables from a file", "FILE", many=True, host_path="whole", completes="file"),
    Option(("--workdir", "-w"), "working directory inside", "FOLDER"),
    Option(("--user", "-u"), "user inside: NAME or UID[:GID]", "USER"),
    Option(("--hostname", "-h"), "host name inside", "NAME"),
    Option(("--label", "-l"), "label NAME=VALUE", "LABEL", many=True),
    Option(("--network", "--net"), "bridge, none or host", "NETWORK", completes="bridge|none|host"),
    Option(("--read-only",), "the root file system cannot be written"),
    Option(("--rm",), "remove the container when it has ended"),
    Option(("--replace",), "remove another container of this name first"),
    Option(("--entrypoint",), "replace the image's entrypoint; '' clears it", "COMMAND"),
    Option(("--interactive", "-i"), "keep stdin open"),
    Option(("--userns",), "auto (root inside is not root outside) or host", "MODE", completes="auto|host"),
    Option(("--stop-signal",), "signal that asks it to stop", "SIGNAL"),
    Option(("--require-isolation",), "refuse where isolation is weaker than this", "LEVEL", completes="full"),
)
_ARGUMENTS = (
    Argument("image", "name or id of an image; host is this machine's own system, read-only", completes="image"),
    Argument("command", "command and its arguments, instead of the image's own", "rest"),
)


def config_of(args: SimpleNamespace, stdin_open: bool = False) -> ContainerConfig:
    """The options of ``run`` and ``create`` as a ContainerConfig."""
    words = dict(vars(args))
    for other in ("help", "detach", "image", "command"):
        words.pop(other, None)
    words["interactive"] = words["interactive"] or stdin_open
    return container_config(
        args.image,
        args.command,
        ports=words.pop("publish"),
        volumes=words.pop("volume"),
        mounts=words.pop("mount"),
        labels=words.pop("label"),
        **words,
    )


def run(context: Context, args: SimpleNamespace, body: str | None) -> Any:
    """Detached: the Container. Foreground: output streams as it comes; a RunResult, or ContainerFailed."""
    if args.detach:
        if body is not None:
            raise UsageError("a cell body is the stdin of a foreground run, and --detach was given", "leave out -d, or the body")
        config = config_of(args)
        return Container.launch(context.engine, config)
    stdin = body.encode() if body is not None else context.stdin() if args.interactive and context.stdin else None
    config = config_of(args, stdin is not None)
    output = Output(context.frontend.stream)
    info, exit = context.engine.run(config, stdin, output)
    failure = failed(info.name, exit, info.resources.memory or config.resources.memory)
    if failure is not None:
        raise failure
    return RunResult(info.name, exit, bytes(output.stdout), bytes(output.stderr), output.truncated)


def create(context: Context, args: SimpleNamespace, body: str | None) -> Container:
    return Container(context.engine, context.engine.create(config_of(args)))


declare(
    Verb(
        "run",
        "Create a container from an image and start it",
        run,
        (Option(("--detach", "-d"), "leave it running in the background"), *RUN_OPTIONS),
        _ARGUMENTS,
        body="optional",
        body_help="stdin of the command",
        details="Options after IMAGE belong to the command inside. In -v, --mount and --env-file, $NAME and ~ are those\n"
        "of this machine; everywhere else a dollar reaches the container as it is.",
        examples=("run --rm host python -c 'print(42)'", "run -d --name web -p 8080:80 -v $PWD/data:/data --memory 128m visits"),
    )
)
declare(Verb("create", "Create a container without starting it", create, RUN_OPTIONS, _ARGUMENTS, examples=("create --name web visits",)))
