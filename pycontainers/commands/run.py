"""``run`` and ``create``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

from ..errors import UsageError
from ..events import Work
from ..objects import Container
from ..protocol import ContainerConfig, Drive, OnOutput, Session
from ..results import Output, RunResult
from ..terminals import of_container
from ..wording import failed
from .declare import Argument, Option, Verb, declare
from .frontend import Context, streams
from .options import container_config
from .pulling import with_image
from .run_options import PULL_OPTIONS, RUN_OPTIONS

T = TypeVar("T")
QUIET = Option(("--quiet", "-q"), "do not show a pull")

IMAGE_ARGUMENTS = (
    Argument(
        "image", "name or id of an image, pulled where it is not here; host is this machine's own system, read-only", completes="image"
    ),
    Argument("command", "command and its arguments, instead of the image's own", "rest"),
)
#: option -> name in Python, where several values are meant and Docker's word is in the singular
PLURAL = {
    "publish": "ports",
    "volume": "volumes",
    "mount": "mounts",
    "label": "labels",
    "annotation": "annotations",
    "device": "devices",
    "device_cgroup_rule": "device_cgroup_rules",
    "sysctl": "sysctls",
    "ulimit": "ulimits",
}
#: options of the call, not of the container
_OF_THE_CALL = ("help", "detach", "detach_keys", "sig_proxy", "attach", "image", "command", "pull", "platform", "quiet")


def config_of(args: SimpleNamespace, stdin_open: bool = False) -> ContainerConfig:
    """The options of ``run`` and ``create`` as a ContainerConfig."""
    words = {PLURAL.get(name, name): value for name, value in vars(args).items() if name not in _OF_THE_CALL}
    words["interactive"] = words["interactive"] or stdin_open
    return container_config(args.image, args.command, **words)


def run(context: Context, args: SimpleNamespace, body: str | None) -> Any:
    """Detached: the Container. Foreground: output streams as it comes; a RunResult, or ContainerFailed. ``-it`` on a page: a Terminal."""
    if args.detach:
        if args.attach:
            raise UsageError("--attach and --detach contradict each other", "leave one of them out")
        if body is not None:
            raise UsageError("a cell body is the stdin of a foreground run, and --detach was given", "leave out -d, or the body")
        config = config_of(args)
        return with_its_image(context, args, lambda: Container.launch(context.engine, config))
    config = config_of(args, body is not None)
    if args.tty and args.interactive and body is None and context.frontend.terminals:
        info = with_its_image(context, args, lambda: context.engine.create(config))
        return of_container(context.engine, info, context.frontend.terminals)
    output = Output(context.frontend.stream)
    shown = _wanted(output, args.attach)
    given = streams(context, args, body, shown)
    if body is None and not args.sig_proxy:
        given = {**given, "drive": _letting_go(given.get("drive"), shown)}
    info, exit = with_its_image(context, args, lambda: context.engine.run(config, **given))
    failure = failed(info.name, exit, info.resources.memory or config.resources.memory)
    if failure is not None:
        raise failure
    return RunResult(info.name, exit, bytes(output.stdout), bytes(output.stderr), output.truncated)


def with_its_image(context: Context, args: SimpleNamespace, call: Callable[[], T]) -> T:
    def follow(work: Work[Any]) -> object:
        return context.frontend.progress(work, "quiet" if args.quiet else "auto", "pulled")

    return with_image(context.engine, args.image, args.pull, args.platform, follow, call)


def _wanted(output: OnOutput, streams: list[str]) -> OnOutput:
    """``--attach``: only these streams are shown; all where none is named."""
    wanted = [stream.lower() for stream in streams]
    for stream in wanted:
        if stream not in ("stdin", "stdout", "stderr"):
            raise UsageError(f"--attach {stream!r} is no stream", "stdin, stdout or stderr")
    return (lambda stream, data: output(stream, data) if stream in wanted else None) if wanted else output


def _letting_go(drive: Drive | None, output: OnOutput) -> Drive:
    """``--sig-proxy=false``: an interrupt is not the container's, which runs on."""

    def driving(session: Session) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            if drive is not None:
                drive(session)
                return
            for stream, data in session.stream():
                output(stream, data)

    return driving


def create(context: Context, args: SimpleNamespace, body: str | None) -> Container:
    config = config_of(args)
    return Container(context.engine, with_its_image(context, args, lambda: context.engine.create(config)))


declare(
    Verb(
        "run",
        "Create a container from an image and start it",
        run,
        (
            Option(("--detach", "-d"), "leave it running in the background"),
            Option(("--attach", "-a"), "show only this stream: stdout or stderr", "STREAM", many=True, completes="stdin|stdout|stderr"),
            Option(("--sig-proxy",), "an interrupt ends the container; --sig-proxy=false lets it run on", default=True),
            Option(("--detach-keys",), "keys that let go of it (default ctrl-p,ctrl-q)", "KEYS"),
            *PULL_OPTIONS,
            QUIET,
            *RUN_OPTIONS,
        ),
        IMAGE_ARGUMENTS,
        body="optional",
        body_help="stdin of the command",
        details="Options after IMAGE belong to the command inside. In -v, --mount and --env-file, $NAME and ~ are those\n"
        "of this machine; everywhere else a dollar reaches the container as it is.",
        examples=("run --rm host python -c 'print(42)'", "run -d --name web -p 8080:80 -v $PWD/data:/data --memory 128m visits"),
    )
)
declare(
    Verb(
        "create",
        "Create a container without starting it",
        create,
        (*PULL_OPTIONS, QUIET, *RUN_OPTIONS),
        IMAGE_ARGUMENTS,
        examples=("create --name web visits",),
    )
)
