"""``build --check``: what Docker's build checks say of a Dockerfile, without building anything."""

from __future__ import annotations

from ..errors import ContainersError
from ..protocol import BuildRequest
from ..results import Text
from ..text import clean


def check(request: BuildRequest, name: str) -> Text:
    """:param name: what the Dockerfile is called.

    :raises BuildError: it is wrong. :raises ContainersError: there are warnings; they are in its ``done``.
    """
    from ..builder import lint
    from ..builder.instructions import interpret
    from ..builder.parser import parse
    from ..builder.plan import make_plan

    dockerfile = parse(request.dockerfile)
    instructions = interpret(dockerfile)
    plan = make_plan(instructions, request.build_args, request.target, contexts=request.contexts)
    found = lint.check(instructions, plan, dockerfile, build_args=request.build_args)
    if not found:
        return Text("Check complete, no warnings found.")
    lines = request.dockerfile.split("\n")
    told = []
    for warning in found:
        told += [f"{name}:{warning.line}: {warning.rule}: {warning.message}"]
        told += [f"  {warning.line:>4} | {lines[warning.line - 1].rstrip()}"] if 0 < warning.line <= len(lines) else []
        told += [f"       see {warning.url}"]
    error = ContainersError(
        f"{len(found)} warning{'s' if len(found) > 1 else ''} in {name}",
        f"mend them, or leave a rule out by a first line: # check=skip={found[0].rule}",
    )
    error.done = clean("\n".join(told))
    raise error
