"""``dashboard``: everything that there is, live."""

from __future__ import annotations

from types import SimpleNamespace

from ..overview import Dashboard
from .declare import Option, Verb, declare
from .frontend import Context


def dashboard(context: Context, args: SimpleNamespace, body: str | None) -> Dashboard:
    return Dashboard(context.engine, "static" if args.static else "live")


declare(
    Verb(
        "dashboard",
        "Show containers and images in one live view, and act on them",
        dashboard,
        (Option(("--static",), "tables that do not change (nbconvert, GitHub, headless runs)"),),
        details="In a notebook with widgets: search, state, health, ports, what each uses now; start, stop, restart, pause, remove; logs,\n"
        "figures, processes, everything about one, and a terminal in it. It follows what others do. Keys are listed by ?.",
        examples=("dashboard", "dashboard --static"),
    )
)
