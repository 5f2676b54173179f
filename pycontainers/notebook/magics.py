"""``%container`` and ``%%container``."""

from __future__ import annotations

import os
import traceback
from dataclasses import replace
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets import Bool

from ..commands.declare import OUT, Verb, find, parse
from ..commands.frontend import Context, call, native_engine
from ..commands.system import overview
from ..errors import ContainersError, UsageError
from ..results import Text
from . import expansion
from .frontend import SETS, NotebookFrontend


@magics_class
class ContainerMagics(Magics):
    """The verbs as magics. ``%config ContainerMagics.full_tracebacks = True`` shows where an error came from."""

    full_tracebacks = Bool(False, help="Show whole tracebacks for errors that are told in one line otherwise.").tag(config=True)

    @no_var_expand
    @line_cell_magic
    def container(self, line: str, cell: str | None = None) -> Any:
        """Build, run and watch containers: ``%container help`` lists the verbs, ``%container help VERB`` explains one.

        In a line magic ``{name}`` is the value of a Python variable; ``-o NAME`` keeps the result in one. A cell's body is a Dockerfile
        (``build``), Python (``python``), a file's text (``file``) or the stdin of the command (``run``, ``exec``, ``profile``); it is
        never expanded.
        """
        try:
            return self._container(line, cell)
        except ContainersError as error:
            if self.full_tracebacks:
                lines = traceback.format_exception(error)
                # IPython asks the error itself how it wants to be shown.
                setattr(error, "_render_traceback_", lambda: "".join(lines).split("\n"))  # noqa: B010
            raise

    @property
    def _shell(self) -> Any:
        return self.shell

    def _container(self, line: str, cell: str | None) -> Any:
        first = 2  # the body's first line in the cell, as the page numbers them
        while cell is not None and line.endswith("\\") and not line.endswith("\\\\"):
            more, _, cell = cell.partition("\n")
            line = line[:-1] + " " + more
            first += 1
        parts, silent = expansion.commands(line)
        if cell is not None and len(parts) > 1:
            raise UsageError(f"{len(parts)} commands and one cell body", "put each command into a line or cell of its own")
        result = None
        for part in parts:
            result = self._command(part, cell, first)
        return None if silent else result

    def _command(self, line: str, cell: str | None, first: int = 2) -> Any:
        words = expansion.split(line, self._shell.user_ns)
        out = None
        if words and words[0] in ("-o", "--out"):
            if len(words) < 2:
                raise UsageError("option --out needs a value: NAME", "%%container -o result run …")
            out, words = words[1], words[2:]
        frontend = NotebookFrontend(self._shell)
        if not words or words[0] in ("-h", "--help"):
            return Text(overview(frontend.prompt))
        verb = find(words[0])
        args = parse(replace(verb, options=(*verb.options, OUT)), words[1:])
        if args.help:
            return Text(verb.help(frontend.prompt))
        out = args.__dict__.pop("out", None) or out
        if out is not None and not out.isidentifier():
            raise UsageError(f"--out {out!r} is not the name of a variable", "letters, digits and _")
        body = self._body(verb, cell)
        expansion.expand_host_paths(verb, args, os.environ)
        try:
            context = Context(native_engine, frontend, written=line, variables=self._shell.user_ns, files=SETS, line=first)
            result = call(context, verb.function, args, body)
        finally:
            frontend.close()
        if out is None:
            return result
        self._shell.user_ns[out] = result
        return None

    @staticmethod
    def _body(verb: Verb, cell: str | None) -> str | None:
        if cell is not None and not cell.strip():
            cell = None
        if cell is None and verb.body == "required":
            raise UsageError(f"{verb.name} needs a cell body: {verb.body_help}", f"write it below %%container {verb.name} …")
        if cell is not None and verb.body == "none":
            raise UsageError(f"{verb.name} takes no cell body", f"%container {verb.name} …, with one % sign")
        return cell


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext pycontainers``. Loading twice is harmless."""
    from . import completion, display

    unload_ipython_extension(shell)
    shell.register_magics(ContainerMagics)
    display.attach(shell, lambda: NotebookFrontend(shell).has_widgets)
    completion.attach(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take everything away again: magics, completion, display, threads."""
    import sys

    from . import completion, display
    from .sampler import sampler

    manager = shell.magics_manager
    for kind in ("line", "cell"):
        manager.magics[kind].pop("container", None)
    found = manager.registry.pop("ContainerMagics", None)
    if found in shell.configurables:
        shell.configurables.remove(found)
    completion.detach(shell)
    display.detach(shell)
    sampler().close()
    terminals = sys.modules.get(f"{__package__}.terminals")  # none was opened: it need not be loaded for that
    if terminals is not None:
        terminals.close_all()
    board = sys.modules.get(f"{__package__}.dashboard.board")  # nobody who never saw a dashboard pays for one
    if board is not None:
        board.close_all()
