"""``python``: the cell's body in a container that has this notebook's own Python and packages."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ..errors import UsageError, near
from ..linux.cgroups.limits import parse_size
from ..results import Output, RunResult
from .declare import Option, Verb, declare
from .frontend import Context
from .options import container_config
from .pulling import with_image
from .run import PLURAL
from .run_options import PULL_OPTIONS, RUN_OPTIONS
from .settings import time_limit

#: Of run's options those that make sense for one process that is somebody's cell: it has no name, no ports, no restarts and no terminal.
_NOT_OURS = frozenset(
    "--name --interactive --tty --rm --replace --restart --lifetime --stop-signal --stop-timeout --entrypoint --health-cmd "
    "--health-interval --health-timeout --health-retries --health-start-period --health-start-interval --no-healthcheck --cidfile "
    "--publish --publish-all --expose --init".split()
)
CELL_OPTIONS = tuple(option for option in RUN_OPTIONS if option.flags[0] not in _NOT_OURS)
_OWN = (
    Option(("--input", "-i"), "send variables of this notebook in: -i df,model", "NAMES", many=True, completes="variable"),
    Option(("--output", "-o"), "bring variables of the cell back: -o result", "NAMES", many=True),
    Option(("--timeout",), "end the cell after this time: 60, 1m30s", "TIME"),
    Option(("--image",), "another image that has a Python, instead of host", "IMAGE", default="host", completes="image"),
    Option(("--python",), "the interpreter inside (default: this notebook's own in host, else python3)", "PATH"),
    Option(("--pickle",), "let any object come back: code inside can then do here what it likes"),
    Option(("--html",), "show HTML and SVG from inside too, in a frame that reaches neither page nor network"),
    Option(("--output-limit",), "bytes that come back at most (default 512m)", "SIZE"),
)


def run_cell(context: Context, args: SimpleNamespace, body: str | None) -> RunResult:
    """What the cell prints and shows appears as it comes; its results are variables of the notebook at the end."""
    from ..interpreter import cell, setting  # with the first cell, not with every command
    from ..interpreter.worker import Hooks

    if body is None and context.stdin is not None:
        body = context.stdin().decode("utf-8", "replace")
    if not body or not body.strip():
        raise UsageError("python needs a cell body: Python code", "write it below %%container python …")
    variables = {} if context.variables is None else context.variables
    outputs = _names(args.output, "--output")
    if outputs and context.variables is None:
        raise UsageError("--output brings variables into a notebook, and this is none", "write files: -v ./results:/results")
    given = {}
    for name in _names(args.input, "--input"):
        if name not in variables:
            known = [key for key in variables if not key.startswith("_")]
            hint = near(name, known) or f"set {name} first"
            if name == "t":  # -it, as of run and exec
                hint = "-i sends variables in, and a cell has no terminal: %container terminal NAME"
            raise UsageError(f"--input {name}: no variable {name!r} in this notebook", hint)
        given[name] = variables[name]
    own = {option.dest for option in (*_OWN, *PULL_OPTIONS)}
    words = {PLURAL.get(name, name): value for name, value in vars(args).items() if name not in own | {"help"}}
    words["network"] = words["network"] or "none"
    config = container_config(args.image, (), **words)
    timeout = None if args.timeout is None else time_limit(args.timeout, "--timeout")
    limit = cell.LIMIT if args.output_limit is None else parse_size(args.output_limit, "--output-limit")
    front, output, engine = context.frontend, Output(context.frontend.stream), context.engine
    hooks = Hooks(output, lambda forms: front.show(forms, args.html), front.clear)
    task = cell.Cell(body, context.line, given, outputs)

    def call() -> Any:
        settings = setting.of(engine, args.image, args.python, timeout=timeout, pickled=args.pickle, markup=args.html, limit=limit)
        return cell.run(engine, config, task, settings, hooks)

    follow: Callable[[Any], object] = front.progress
    name, exit, results = with_image(engine, args.image, args.pull, args.platform, follow, call)
    if context.variables is not None:
        context.variables.update(results)
    return RunResult(name, exit, bytes(output.stdout), bytes(output.stderr), output.truncated)


def _names(values: list[str], option: str) -> tuple[str, ...]:
    """``a,b`` and several options as names of variables. :raises UsageError:"""
    found = [name.strip() for value in values for name in value.split(",") if name.strip()]
    for name in found:
        if not name.isidentifier():
            raise UsageError(f"{option} {name!r} is not the name of a variable", f"for example {option} df,model")
    return tuple(dict.fromkeys(found))


declare(
    Verb(
        "python",
        "Run the cell in a container that has this notebook's Python and packages",
        run_cell,
        (*_OWN, *PULL_OPTIONS, *CELL_OPTIONS),
        body="required",
        body_help="Python code; its last expression is shown",
        details="The container has no network unless --network is given, and none of the notebook's variables but those of -i. It ends\n"
        "with the cell. What comes out is not trusted: plain values, NumPy arrays and tables come back, text and pictures are shown.",
        examples=("python -i df -o result --memory 2g --cpus 1 --timeout 60 --read-only",),
    )
)
