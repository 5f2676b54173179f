"""The notebook as the commands see it: where output and progress of a running cell go."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from getpass import getpass
from typing import Any, TypeVar

from IPython.core.error import StdinNotImplementedError

from ..commands.file_sets import FileSets
from ..commands.lines import lines
from ..errors import UsageError
from ..events import Work
from ..protocol import OnOutput, Session
from ..text import EscapeFilter
from . import surroundings
from .hosts import PAGE

T = TypeVar("T")
SETS = FileSets()
"""The sets of files of this kernel: loading the extension anew loses none."""


class NotebookFrontend:
    """One for each command. Output goes to the cell as it comes, with colours, without escapes that reach further."""

    prompt = "%container"

    def __init__(self, shell: Any) -> None:
        self.has_kernel = getattr(shell, "kernel", None) is not None
        self.is_live = surroundings.is_live(os.environ, shell.user_ns, self.has_kernel)
        self._last = ""
        self._filters = {"stdout": EscapeFilter(), "stderr": EscapeFilter()}

    @property
    def has_widgets(self) -> bool:
        """Whether a live page shows widgets, as far as is known; where it does not, that is said, once, with the remedy."""
        if not self.is_live:
            return False
        if not PAGE.shows_widgets():
            PAGE.tell()
            return False
        return True

    @property
    def terminals(self) -> str:
        if not (self.is_live and PAGE.shows_widgets()):
            return ""
        from . import terminals  # with the first that is asked for, not with the extension

        return terminals.form()

    def progress(self, work: Work[T], form: str = "auto", done: str = "built") -> T:
        if form == "auto" and self.is_live:
            from .progress import show

            return show(work, done)
        return lines(form, print, done).follow(work)

    def ask(self, question: str, hidden: bool = False) -> str:
        """By the page's own field below the cell; a password goes neither into the notebook nor into a history."""
        try:
            return getpass(question) if hidden else input(question)
        except EOFError:
            raise UsageError(f"{question.rstrip(': ')}: nobody answered", "") from None
        except StdinNotImplementedError:  # this run of the notebook has no page
            hint = "give it by a variable, {password}, that the notebook reads from its environment"
            raise UsageError(f"{question.rstrip(': ')}: nobody can be asked where a notebook runs without a page", hint) from None

    def stream(self, stream: str, data: bytes) -> None:
        self._write(stream, self._filters[stream].feed(data))

    def show(self, forms: Mapping[str, bytes], markup: bool = False) -> None:
        from . import outputs

        sys.stdout.flush()
        sys.stderr.flush()
        outputs.show(forms, lambda note: self.stream("stderr", note.encode()), markup)

    def clear(self, wait: bool) -> None:
        import IPython.display as shown

        from . import outputs

        outputs.cleared()
        shown.clear_output(wait)  # type: ignore[no-untyped-call,unused-ignore]

    def present(self, result: object) -> None:
        from IPython.display import display

        self.close()
        display(result)  # type: ignore[no-untyped-call]

    def drive(self, session: Session, write: OnOutput, stdin: bool, keys: str | None = None) -> None:
        """A cell shows output; nobody can type into it. An interrupt ends it."""
        if stdin and session.tty and self.is_live:
            PAGE.tell()  # a page with widgets has a terminal for this
        if stdin:
            session.end_input()
        for stream, data in session.stream():
            write(stream, data)

    def size(self) -> tuple[int, int] | None:
        return None

    def close(self) -> None:
        """Write what was held back: half a character, half an escape."""
        for stream, escape in self._filters.items():
            self._write(stream, escape.feed(b"", final=True))

    def _write(self, stream: str, text: str) -> None:
        if not text:
            return
        if stream != self._last:
            # The kernel sends each stream by itself a few times a second: flushed at a change, they keep their order.
            sys.stdout.flush()
            sys.stderr.flush()
            self._last = stream
        (sys.stderr if stream == "stderr" else sys.stdout).write(text)
