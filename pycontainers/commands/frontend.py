"""What a verb gets from whoever called it: the notebook, the program, or a test. Nothing here or below prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar

from ..errors import ContainersError, UsageError
from ..events import Work
from ..protocol import Drive, Engine, OnOutput, Session

if TYPE_CHECKING:
    from .file_sets import FileSets

T = TypeVar("T")


class Frontend(Protocol):
    """Where output goes while a verb runs.

    ``is_live``: somebody watches and the display can be redrawn (a page with widgets, a terminal).
    ``prompt``: what help texts put before a verb.
    ``terminals``: a session with a terminal becomes a :class:`pycontainers.terminals.Terminal` that is shown, and goes on after its
    command: ``full``, or ``lines`` where whole lines alone can be typed; "" where somebody sits at the command itself, or nobody.
    """

    is_live: bool
    prompt: str

    @property
    def terminals(self) -> str: ...

    def progress(self, work: Work[T], form: str = "auto", done: str = "built") -> T:
        """Draw the events of ``work`` as they come; return its result.

        :param form: auto, plain (lines), quiet or rawjson (an event a line).
        :param done: what is said of the result at the end: ``built NAME in 1.2 s``.
        """
        ...

    def ask(self, question: str, hidden: bool = False) -> str:
        """What the person here answers; ``hidden`` is not shown, and kept nowhere. :raises UsageError: nobody can be asked here."""
        ...

    def stream(self, stream: str, data: bytes) -> None:
        """Pass on output of a container as it comes; ``stream`` is ``stdout`` or ``stderr``."""
        ...

    def show(self, forms: Mapping[str, bytes], markup: bool = False) -> None:
        """Show something from inside a container, by media type, as it came: what is let through is decided here.

        :param markup: the user wants HTML and SVG from inside too.
        """
        ...

    def clear(self, wait: bool) -> None:
        """Take away what the command has shown so far; with ``wait`` when something new comes."""
        ...

    def present(self, result: object) -> None:
        """Show what a verb would have returned, of one that is about to fail."""
        ...

    def drive(self, session: Session, write: OnOutput, stdin: bool, keys: str | None = None) -> None:
        """Sit at a session until it is over or is detached from. Output goes to ``write``; with ``stdin`` its input comes from here."""
        ...

    def size(self) -> tuple[int, int] | None:
        """(rows, columns) of the terminal that a session would be shown on, None where there is none."""
        ...


@dataclass(frozen=True)
class Context:
    """The surroundings of one command. ``engine`` is asked for on first need: `help` must work where nothing else does.

    ``stdin`` reads all of the program's own input, where it has one. ``written``: the command as somebody wrote it, before variables
    were put in: what stands there stays in a history. ``variables``, ``files``: what a notebook has beside a shell: its variables, and
    the sets of files that its cells have written. ``line``: the number of the body's first line in its cell.
    """

    get_engine: Callable[[], Engine]
    frontend: Frontend
    stdin: Callable[[], bytes] | None = None
    written: str = ""
    variables: MutableMapping[str, Any] | None = None
    files: FileSets | None = None
    line: int = 1

    @property
    def engine(self) -> Engine:
        return self.get_engine()


class Streams(TypedDict, total=False):
    """What ``Engine.run`` and ``Engine.exec`` take for input and output."""

    stdin: bytes | None
    on_output: OnOutput
    drive: Drive
    size: tuple[int, int] | None


def streams(context: Context, args: SimpleNamespace, body: str | None, output: OnOutput) -> Streams:
    """How a foreground command of ``args`` (``interactive``, ``tty``) is connected: to a cell's body, or to who sits at the front end."""
    if body is not None and args.tty:
        raise UsageError("a cell body is the command's whole input, and --tty was given", "leave out -t, or the body")
    if body is not None or not (args.interactive or args.tty):
        return {"stdin": body.encode() if body is not None else None, "on_output": output}
    front = context.frontend
    keys = getattr(args, "detach_keys", None)
    return {"drive": lambda session: front.drive(session, output, args.interactive, keys), "size": front.size()}


def call(context: Context, function: Callable[[Context, SimpleNamespace, str | None], Any], args: SimpleNamespace, body: str | None) -> Any:
    """Run a verb. What a command for several things has done is shown before the error that names what failed."""
    try:
        return function(context, args, body)
    except ContainersError as error:
        if error.done:
            context.frontend.stream("stdout", f"{error.done}\n".encode())
        raise


def native_engine() -> Engine:
    """The process-wide native engine."""
    from ..engines import native

    return native.engine()
