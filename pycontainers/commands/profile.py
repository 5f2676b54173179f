"""``profile`` and ``compare``: what runs used, one by one and over one another."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from ..errors import ContainersError, UsageError
from ..linux import process
from ..objects import Container
from ..profiles import Comparison, Profile
from ..protocol import Engine
from ..results import Output, RunResult, Text
from ..usage import Course, Stats, events
from ..wording import failed
from .declare import Argument, Option, Verb, declare
from .frontend import Context, streams
from .run import IMAGE_ARGUMENTS, QUIET, config_of, with_its_image
from .run_options import PULL_OPTIONS, RUN_OPTIONS
from .stats import CSV, written

_LABEL = "io.pycontainers.profile"
_OWNER = "io.pycontainers.profile.owner"
"""Who removes it when it has ended: the identity of a process, as JSON."""
_FORMS = (
    Option(("--static",), "a picture and text that do not change"),
    Option(("--table",), "text alone"),
)
_OWN = ("keep", "static", "table", "csv")


def _form(args: SimpleNamespace) -> str:
    return "table" if args.table else "static" if args.static else "live"


def profile(context: Context, args: SimpleNamespace, body: str | None) -> Profile:
    """Output streams as it comes. A run that fails is shown too, before the error: what it used often says why."""
    engine, token = context.engine, secrets.token_hex(8)
    if args.restart not in (None, "", "no"):
        raise UsageError("a run that is started again has no end to be measured, and --restart was given", "leave out --restart")
    wanted = config_of(SimpleNamespace(**{name: value for name, value in vars(args).items() if name not in _OWN}), body is not None)
    labels = {**wanted.labels, _LABEL: token}
    if not args.keep:
        labels[_OWNER] = json.dumps(process.identity(os.getpid()))
    # Nobody is there to see what it used, nor to remove it, when this process has gone: it ends with it.
    lifetime = "kernel" if args.lifetime is None else wanted.lifetime
    config = replace(wanted, auto_remove=False, labels=labels, lifetime=lifetime)
    _sweep(engine)
    output = Output(context.frontend.stream)
    given = streams(context, args, body, output)
    with _removed(engine, token, keep=args.keep):
        info, exit = with_its_image(context, args, lambda: engine.run(config, **given))
        result = RunResult(info.name, exit, bytes(output.stdout), bytes(output.stderr), output.truncated)
        found = engine.find(info.id)
        ended = found if found.exit is not None else replace(found, exit=exit)
        shown = Profile(ended, list(engine.samples(info.id)), events(engine, [info])[info.id], result, form=_form(args))
    if args.csv is not None:
        context.frontend.stream("stdout", f"{written([shown], args.csv)}\n".encode())
    failure = failed(info.name, exit, info.resources.memory or config.resources.memory)
    if failure is not None:
        context.frontend.present(shown)
        raise failure
    return shown


@contextmanager
def _removed(engine: Engine, token: str, keep: bool) -> Iterator[None]:
    """The container goes however the run ended, also after an interrupt: found by a label, since its name may never have been learned."""
    try:
        yield
    finally:
        if not keep:
            for info in engine.containers(all=True):
                if info.labels.get(_LABEL) == token:
                    engine.remove(info.id, force=True)


def _sweep(engine: Engine) -> None:
    """Remove what is left of runs whose process was killed before it could do that."""
    for info in engine.containers(all=True):
        if info.status not in ("exited", "created") or _OWNER not in info.labels:
            continue
        try:
            gone = process.alive(json.loads(info.labels[_OWNER])) is False
        except (ValueError, TypeError, AttributeError, KeyError):  # a label that somebody else has put there
            continue
        if gone:
            with suppress(ContainersError):  # another process may do the same
                engine.remove(info.id)


def compare(context: Context, args: SimpleNamespace, body: str | None) -> Comparison | Text:
    """Names of containers, or of variables that hold a profile or a container."""
    if len(args.run) < 2:
        raise UsageError("compare needs two runs at least", "compare A B: containers, or variables with profiles")
    runs = [_run(context, name) for name in args.run]
    if args.csv is not None:
        return written(Comparison(runs, args.run).courses, args.csv)
    return Comparison(runs, args.run, _form(args))


def _run(context: Context, name: str) -> Course:
    held: Any = (context.variables or {}).get(name)
    if isinstance(held, Course):
        return held
    try:
        return Stats(context.engine, held.id if isinstance(held, Container) else name)
    except ContainersError as error:
        if error.hint or not context.variables:
            raise
        raise type(error)(error.message, "a container, or a variable that holds a profile: %container profile -o NAME …") from None


declare(
    Verb(
        "profile",
        "Run a command once in a new container and show what it used",
        profile,
        (
            Option(("--keep",), "keep the ended container, with its record"),
            *_FORMS,
            CSV,
            *PULL_OPTIONS,
            QUIET,
            *[option for option in RUN_OPTIONS if option.dest != "rm"],
        ),
        IMAGE_ARGUMENTS,
        body="optional",
        body_help="stdin of the command",
        details="Wall and CPU time, peak memory, bytes read and written, throttling, and their course.\n"
        "The container is removed afterwards.",
        examples=("profile --memory 256m --cpus 1 host python -c 'sum(range(10**7))'", "profile -o before host ./job"),
    )
)
declare(
    Verb(
        "compare",
        "Show what two or more runs used beside each other, each from its start",
        compare,
        (*_FORMS, CSV),
        (Argument("run", "name or id of a container, running or ended, or a variable that holds a profile", "+", completes="container"),),
        details="Ratios are to the first.",
        examples=("compare before after", "compare web-1 web-2 web-3 --static"),
    )
)
