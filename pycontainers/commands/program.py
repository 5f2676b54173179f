"""The ``pycontainers`` program: the same verbs in a shell, with Docker's exit codes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ..errors import ContainerFailed, ContainersError, UsageError
from ..events import Work
from ..objects import Container, Image
from ..protocol import OnOutput, Session
from ..results import Logs, Problems, RunResult
from ..text import EscapeFilter
from ..usage import Stats, StatsTable
from ..wording import line_text
from .declare import Verb, find, parse
from .frontend import Context, call, native_engine
from .lines import DrawnProgress, lines
from .system import overview

T = TypeVar("T")
PROMPT = "pycontainers"


class Unread(KeyboardInterrupt):
    """Nobody reads our output any more (``… run … | head``). As an interrupt it ends a foreground container: none writes on for nobody."""


class Ended(KeyboardInterrupt):
    """This process is asked to end. As an interrupt: what is half made is taken back, and a foreground container ends with it."""

    def __init__(self, number: int) -> None:
        self.number = number


class ProgramFrontend:
    """stdout and stderr of this process. Bytes pass untouched into files and pipes; a terminal gets no clipboard escapes."""

    prompt = PROMPT
    terminals = ""

    def __init__(self) -> None:
        self.is_live = sys.stdout.isatty()
        self._filters = {name: EscapeFilter(cursor=True) for name in ("stdout", "stderr") if getattr(sys, name).isatty()}

    def progress(self, work: Work[T], form: str = "auto", done: str = "built") -> T:
        def write(text: str) -> None:
            sys.stderr.write(text)
            sys.stderr.flush()

        if form == "auto" and sys.stderr.isatty():
            from . import terminal

            return DrawnProgress(write, lambda: terminal.size(sys.stderr.fileno()), done).follow(work)
        return lines(form, lambda line: write(line + "\n"), done).follow(work)

    def ask(self, question: str, hidden: bool = False) -> str:
        if sys.stdin is None or not sys.stdin.isatty():
            raise UsageError(f"{question.rstrip(': ')}: nobody can be asked, stdin is not a terminal", "say it with an option: see --help")
        if hidden:
            from getpass import getpass

            return getpass(question)
        return input(question)

    def stream(self, stream: str, data: bytes) -> None:
        out = sys.stderr.buffer if stream == "stderr" else sys.stdout.buffer
        escape = self._filters.get(stream)
        try:
            out.write(escape.feed(data).encode("utf-8", "replace") if escape else data)
            out.flush()
        except BrokenPipeError:
            raise Unread from None

    def show(self, forms: Mapping[str, bytes], markup: bool = False) -> None:
        text = forms.get("text/plain", b"something that a shell cannot show: " + ", ".join(forms).encode())
        self.stream("stdout", text + b"\n")

    def clear(self, wait: bool) -> None:
        pass

    def present(self, result: object) -> None:
        print(repr(result), flush=True)

    def drive(self, session: Session, write: OnOutput, stdin: bool, keys: str | None = None) -> None:
        from . import terminal

        if stdin and session.tty and not sys.stdin.isatty():
            raise UsageError("the input device is not a terminal", "leave out -t where input comes from a pipe or file")
        number = sys.stdin.fileno() if stdin and sys.stdin is not None else -1
        terminal.drive(session, write, number, terminal.DETACH if keys is None else terminal.detach_keys(keys))

    def size(self) -> tuple[int, int] | None:
        from . import terminal

        return terminal.size() if sys.stdout.isatty() else None


def read_stdin() -> bytes:
    """All of stdin, nothing where it is a terminal."""
    return b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    if words is None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:  # nohup(1) has had one ignored
                signal.signal(number, _end)
    try:
        code = _main(list(sys.argv[1:] if words is None else words))
        sys.stdout.flush()
        return code
    except ContainersError as error:
        # A command's own exit code is its own affair, as with Docker; what it cannot know (out of memory) comes with a hint.
        if isinstance(error, ContainerFailed) and not error.hint:
            return error.exit_code
        # Hints are written for cells; the verbs are the same here.
        print("\n".join(error._render_traceback_()).replace("%container ", f"{PROMPT} "), file=sys.stderr)
        return error.exit_code
    except (BrokenPipeError, Unread):
        # Quiet, as the shell's own tools. The interpreter flushes stdout once more at its end: that must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except MemoryError:  # not even room for an error of ours, perhaps
        os.write(2, b"error: Cannot allocate memory\nhint:  the machine, or this session's limit, has no memory left: end something\n")
        return 1
    except Ended as ended:
        return 128 + ended.number
    except KeyboardInterrupt:
        return 130


def _end(number: int, frame: Any) -> None:
    raise Ended(number)


def _main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(overview(PROMPT))
        return 0
    if words[0] in ("-v", "--version"):
        words = ["version"]
    verb = find(words[0])
    args = parse(verb, words[1:])
    if args.help:
        print(verb.help(PROMPT))
        return 0
    context = Context(native_engine, ProgramFrontend(), read_stdin, " ".join(words))
    try:
        result = call(context, verb.function, args, None)
    except ContainersError as error:
        if verb.name in ("run", "create") and error.exit_code == 1 and not isinstance(error, ContainerFailed):
            error.exit_code = 125  # Docker: 125 is a run that never came to the container's own code
        raise
    show(verb, result)
    return 1 if isinstance(result, Problems) and result.unrepaired else 0


def show(verb: Verb, result: Any) -> None:
    """Print what a verb returned."""
    if result is None or isinstance(result, RunResult) or result == "":
        return
    if isinstance(result, Container):
        print(result.id if verb.name in ("run", "create") else result.known.name)
    elif isinstance(result, Image):
        print(result.id)
    elif isinstance(result, Logs):
        front = ProgramFrontend()
        for line in result:
            front.stream(line.stream, line_text(line, result.timestamps).encode("utf-8", "replace"))
    elif isinstance(result, Stats | StatsTable):
        _show_stats(result)
    else:
        print(repr(result))


def _show_stats(result: Stats | StatsTable) -> None:
    """Once; in a terminal again each second until the end or Ctrl-C, unless --static."""
    parts = result if isinstance(result, StatsTable) else [result]
    live = sys.stdout.isatty() and any(part.form == "live" and part.info.status == "running" for part in parts)
    print(repr(result))
    while live:
        time.sleep(1.0)
        height = repr(result).count("\n") + 1
        for part in parts:
            part.reload()
        print(f"\x1b[{height}A\x1b[J{result!r}", flush=True)
        live = any(part.info.status == "running" for part in parts)


if __name__ == "__main__":
    sys.exit(main())
