"""``namespaces``: what a container's namespaces are, and what is visible through them."""

from __future__ import annotations

from types import SimpleNamespace

from ..errors import UsageError, near
from ..namespaced import Namespaces
from ..spaces import KINDS
from .declare import Argument, Option, Verb, declare
from .frontend import Context


def _kind(text: str) -> str:
    if text not in KINDS:
        raise UsageError(f"--kind {text!r} is no kind of namespace", near(text, KINDS) or ", ".join(KINDS))
    return text


def namespaces(context: Context, args: SimpleNamespace, body: str | None) -> Namespaces:
    """Of those named; of all that run where none is: then who shares what with whom, and details on a page alone."""
    form = "static" if args.static else "live"
    return Namespaces(context.engine, args.container, args.kind, form, detail=bool(args.container or args.kind))


declare(
    Verb(
        "namespaces",
        "Show which namespaces containers have, share, and what is visible through each",
        namespaces,
        (
            Option(("--kind",), "only this kind", "KIND", many=True, convert=_kind, completes="|".join(KINDS)),
            Option(("--static",), "text and a table that do not change"),
        ),
        (Argument("container", "name or id of a running container; all that run where none is named", "*", completes="running"),),
        details="Beside each container's view stands that of this machine. Numbers are the kernel's own (ls -l /proc/PID/ns): namespaces\n"
        "with the same number are the same one.",
        examples=("namespaces web", "namespaces web db --kind network"),
    )
)
