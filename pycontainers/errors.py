"""The one hierarchy of errors.

Every error is one line that says what is wrong, with the actual value, and a ``hint`` that says what to do about it.
Magics show ``error: message`` and the hint without a traceback; the program prints the same to stderr and exits with
``exit_code``.
"""

from __future__ import annotations

import builtins
import errno
from collections.abc import Iterable
from functools import cache


class ContainersError(Exception):
    """Base of everything that pycontainers raises on purpose.

    :param message: one line: what is wrong, with the actual value in it.
    :param hint: what the user can do about it ("" where nothing can be said).
    """

    exit_code = 1
    done = ""
    """Of one command for several things: what it did for the others, as it would have shown it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = " ".join(str(message).split("\n")).strip()
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message

    def _render_traceback_(self) -> list[str]:
        """IPython calls this instead of formatting a traceback: the message alone, as a proper ``error`` output."""
        lines = [f"error: {self.message}"]
        if self.hint:
            lines.append(f"hint:  {self.hint}")
        return lines


class UsageError(ContainersError):
    """The request itself is wrong: unknown verb or option, a value that makes no sense. Exit code 125, as Docker."""

    exit_code = 125


class NotFound(ContainersError):
    """A container, image, file or network that does not exist."""


class NameInUse(ContainersError):
    """The name belongs to another container."""

    exit_code = 125


class StateError(ContainersError):
    """The object is not in a state in which this can be done (not running, still in use)."""


class LimitError(UsageError):
    """A resource limit that makes no sense or that this machine cannot enforce."""


class IsolationError(ContainersError):
    """The kernel or this host refuses what isolation needs; the message names the blocker, the hint the remedy."""

    exit_code = 125


class PortInUse(ContainersError):
    """A host port that cannot be bound."""

    exit_code = 125


class NetworkError(ContainersError):
    """A bridge, link, address or rule could not be made."""

    exit_code = 125


class CommandNotFound(ContainersError):
    """The command does not exist inside the image. Exit code 127, as the shell and Docker."""

    exit_code = 127


class CommandNotExecutable(ContainersError):
    """The command exists inside the image and cannot be executed. Exit code 126, as the shell and Docker."""

    exit_code = 126


class BuildError(ContainersError):
    """A Dockerfile that is wrong, or a step that failed.

    :param line: 1-based line in the Dockerfile, ``column`` 1-based, 0 where unknown; ``source`` the line's own text.
    :param file: what the Dockerfile is called.
    """

    def __init__(self, message: str, hint: str = "", *, line: int = 0, column: int = 0, source: str = "", file: str = "Dockerfile") -> None:
        place = f"{file}:{line}:{column}: " if line and column else f"{file}:{line}: " if line else ""
        super().__init__(place + message, hint)
        self.text, self.line, self.column, self.source, self.file = message, line, column, source, file

    def of_file(self, name: str) -> BuildError:
        """The same error in a Dockerfile of another name."""
        if not self.line or name == self.file:
            return self
        return BuildError(self.text, self.hint, line=self.line, column=self.column, source=self.source, file=name)

    def _render_traceback_(self) -> list[str]:
        lines = super()._render_traceback_()
        if self.source:
            # The caret stands right where no character is wider than one, and no escape of a Dockerfile reaches the terminal.
            start = max(0, self.column - 100)
            shown, before = "".join(char if char.isprintable() else " " for char in self.source[start : start + 160]), "…" if start else ""
            lines[1:1] = [f"  {self.line:>4} | {before}{shown}{'…' if len(self.source) > start + 160 else ''}"]
            if self.column:
                lines[2:2] = [" " * (8 + len(before) + self.column - start) + "^"]
        return lines


class ImageError(ContainersError):
    """An image, layer or reference that is malformed or cannot be stored."""


class RegistryError(ContainersError):
    """A registry that cannot be reached, refuses, or answers what it may not."""


class HelperError(ContainersError):
    """The launcher or the network helper could not be started or broke off."""


class ContainerFailed(ContainersError):
    """A foreground container ended with a non-zero code. ``exit_code`` is the container's own."""

    def __init__(self, message: str, hint: str = "", *, exit_code: int = 1) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code


class ContainedError(ContainersError):
    """What a cell or a function has raised inside a container. ``str()`` is what it said there; ``lines`` are its traceback there.

    Where its kind is one of Python's own, the error is of that kind too: ``except ValueError`` catches a ValueError from inside.
    ``kind``: the name of its class there; ``item``: which call of a ``pc.map`` raised it, None elsewhere.
    """

    def __init__(self, message: str, kind: str = "", lines: Iterable[str] = (), item: int | None = None) -> None:
        super().__init__(message)
        self.text, self.kind, self.lines, self.item = message, kind, list(lines), item
        if self.lines:
            self.add_note("\n".join(self.lines))

    @classmethod
    def of(cls, bases: Iterable[str], message: str, kind: str, lines: Iterable[str], item: int | None = None) -> ContainedError:
        """:param bases: names of Python's own exceptions that it is one of, the nearest first."""
        names = list(bases)
        if "SyntaxError" in names:
            return _kind("SyntaxError")(message, kind, lines, item)
        return _kind(next((name for name in names if name in _KINDS), ""))(message, kind, lines, item)

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[object, ...]:
        name = "" if type(self) is ContainedError else type(self).__name__
        return _again, (name, self.text, self.kind, self.lines, self.item)

    def _render_traceback_(self) -> list[str]:
        return self.lines or super()._render_traceback_()


#: Those of Python's own that take one text and mean nothing to the interpreter itself (as StopIteration does, or KeyboardInterrupt),
#: nor to IPython (which looks for the place of a SyntaxError in what was typed here).
_KINDS = frozenset(
    "ArithmeticError AssertionError AttributeError BlockingIOError BrokenPipeError BufferError ChildProcessError ConnectionAbortedError "
    "ConnectionError ConnectionRefusedError ConnectionResetError EOFError FileExistsError FileNotFoundError FloatingPointError ImportError "
    "IndexError InterruptedError IsADirectoryError KeyError LookupError MemoryError ModuleNotFoundError NameError "
    "NotADirectoryError NotImplementedError OSError OverflowError PermissionError ProcessLookupError RecursionError ReferenceError "
    "RuntimeError SystemError TimeoutError TypeError UnboundLocalError ValueError ZeroDivisionError".split()
)


@cache
def _kind(name: str) -> type[ContainedError]:
    if not name:
        return ContainedError
    parents = (ContainedError, getattr(builtins, name)) if name in _KINDS else (ContainedError,)
    return type(name, parents, {"__module__": __name__, "__doc__": f"A {name} from inside a container."})


def _again(name: str, message: str, kind: str, lines: list[str], item: int | None) -> ContainedError:
    return _kind(name)(message, kind, lines, item)


_EXHAUSTED = {
    errno.ENOSPC: "make room there (%container prune), or move the state to another disk with PYCONTAINERS_HOME",
    errno.EDQUOT: "make room there (%container prune), or move the state to another disk with PYCONTAINERS_HOME",
    errno.EROFS: "make it writable, or move the state with PYCONTAINERS_HOME and PYCONTAINERS_RUN",
    errno.EMFILE: "this process, or a helper of ours, holds too many files: close some, or raise the limit (ulimit -n)",
    errno.ENFILE: "the machine holds too many files: end something, or raise fs.file-max",
    errno.ENOMEM: "the machine, or this session's limit, has no memory left: end something",
    errno.EAGAIN: "no more processes are allowed here (ulimit -u, a pids limit of this session): end something",
}


def exhausted(error: OSError) -> ContainersError | None:
    """What the machine refuses whoever asks (a full disk, no memory, no more processes) as one line; None for any other error."""
    hint = _EXHAUSTED.get(error.errno or 0)
    if hint is None:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return ContainersError(f"{where}{error.strerror or error}", hint)


def near(name: str, names: Iterable[str]) -> str:
    """A hint that offers the names closest to ``name``: ``did you mean a, b?``, or "" when nothing is near."""
    from difflib import get_close_matches  # only when something went wrong: helpers load this module and stay small

    close = get_close_matches(name, sorted(set(names)), n=3, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else ""
