"""``pc.contained`` and ``pc.map``: functions of this process, run in containers that have its Python and packages."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import MethodType
from typing import Any, Generic, Literal, ParamSpec, TypeVar, Unpack, overload

from .commands.frontend import native_engine
from .commands.options import RunOptions, container_config
from .commands.pulling import with_image
from .commands.settings import time_limit
from .errors import UsageError, near
from .events import finish
from .interpreter import calls, cell, setting
from .interpreter.counting import Count
from .interpreter.worker import Hooks
from .linux.cgroups.limits import parse_size
from .protocol import ContainerConfig
from .text import EscapeFilter

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class InContainer(RunOptions, total=False):
    """The options of ``pc.contained`` and ``pc.map``: those of ``pc.run``, and how values travel.

    ``image``: another one than ``"host"``; ``python``: the interpreter inside; ``timeout``: for one call, in seconds or as ``"1m30s"``;
    ``pickle``: any object may come back, and with it any code; ``output_limit``: bytes that come back at most.
    """

    image: str
    python: str | None
    timeout: str | float | None
    pickle: bool
    output_limit: str | int | None


_OWN = ("image", "python", "timeout", "pickle", "output_limit")
#: what makes no sense for a container that is there for a call alone
_REFUSED = ("name", "ports", "publish_all", "expose", "restart", "rm", "replace", "tty", "lifetime", "entrypoint", "cidfile")


class Contained(Generic[P, R]):
    """A function that runs in a container of its own wherever it is called; ``map`` runs it for many items on a few."""

    def __init__(self, function: Callable[P, R], options: InContainer) -> None:
        functools.update_wrapper(self, function)
        self.__contained__ = function
        self._options = options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        config, settings = _asked(self._options)

        def call() -> R:
            found: R = calls.call(native_engine(), config, self.__contained__, (args, kwargs), settings(), _hooks)
            return found

        return with_image(native_engine(), config.image, None, None, finish, call)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def map(self, items: Iterable[Any], *, workers: int = 0, errors: Literal["raise", "keep"] = "raise", progress: Any = None) -> list[R]:
        """As :func:`map`, with the options of this function."""
        return map(self.__contained__, items, workers=workers, errors=errors, progress=progress, **self._options)

    def __repr__(self) -> str:
        return f"<function {self.__contained__.__qualname__}, in a container>"


@overload
def contained(function: Callable[P, R], /) -> Contained[P, R]: ...


@overload
def contained(function: None = None, /, **options: Unpack[InContainer]) -> Callable[[Callable[P, R]], Contained[P, R]]: ...


def contained(function: Callable[P, R] | None = None, /, **options: Unpack[InContainer]) -> Any:
    """Let a function run in a container that has this Python and its packages: ``@pc.contained(memory="2g", timeout=60)``.

    Each call has a container of its own, without a network unless ``network="bridge"`` is given. Arguments, and what the function uses of
    its module, go in; what it prints appears as it comes; what it returns comes back in a form that runs no code when it is read
    (``pickle=True``: anything). What it raises is raised here, with its traceback there.

    :raises UsageError: an option that there is not.
    """
    _asked(options)
    if function is not None:
        return Contained(function, options)
    return lambda wrapped: Contained(wrapped, options)


def map(
    function: Callable[[Any], R],
    items: Iterable[Any],
    *,
    workers: int = 0,
    errors: Literal["raise", "keep"] = "raise",
    progress: bool | Callable[[int, int, int], None] | None = None,
    **options: Unpack[InContainer],
) -> list[R]:
    """``function`` of each item, on several containers at once, in the order of the items.

    :param workers: containers; 0 for as many as this machine has processors. They stay for many items: what one call leaves in its
        module's variables, or on the disk, the next call in the same container finds.
    :param errors: ``raise`` the first one and end the others, or ``keep`` them in the list, in the places of their items. A container that
        ends (out of memory, a crash, a timeout) costs the item that it had, and is replaced.
    :param progress: a bar where somebody looks (the default), False for none, or a function of (done, failed, all).
    :param options: as :func:`contained`.
    """
    if errors not in ("raise", "keep"):
        raise UsageError(f"errors={errors!r} is unknown", near(str(errors), ("raise", "keep")) or "raise or keep")
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 0:
        raise UsageError(f"workers={workers!r} is not a number of containers", "for example workers=4")
    given: InContainer = {**getattr(function, "_options", {}), **options}
    config, settings = _asked(given)
    found = calls.counted(items)
    count = workers or len(os.sched_getaffinity(0))
    with _bar(progress, len(found), getattr(function, "__name__", "map")) as told:

        def run() -> list[R]:
            return calls.map_calls(
                native_engine(), config, function, found, settings(), _hooks, workers=count, keep_errors=errors == "keep", progress=told
            )

        return with_image(native_engine(), config.image, None, None, finish, run) if found else []


def _asked(options: InContainer) -> tuple[ContainerConfig, Callable[[], cell.Settings]]:
    """What was asked for, checked as far as that is possible without an engine."""
    known = {**InContainer.__annotations__, **RunOptions.__annotations__}
    for word in options:
        if word in _REFUSED:
            raise UsageError(f"option {word!r} makes no sense for a container that is there for calls alone", "leave it out, or use pc.run")
        if word not in known:
            raise UsageError(f"there is no option {word!r}", near(word, known) or "see: help(pycontainers.contained)")
    words: dict[str, Any] = {name: value for name, value in options.items() if name not in _OWN}
    words["network"] = words.get("network") or "none"
    image = options.get("image") or "host"
    config = container_config(image, (), **words)
    timeout, limit = options.get("timeout"), options.get("output_limit")
    ready = {
        "timeout": None if timeout is None else time_limit(timeout, "timeout"),
        "pickled": bool(options.get("pickle")),
        "limit": cell.LIMIT if limit is None else parse_size(limit, "output_limit"),
    }
    return config, lambda: setting.of(native_engine(), image, options.get("python"), **ready)


def _hooks() -> Hooks:
    """For one container: output goes where this process prints; what is shown, into the notebook where there is one."""
    filters = {"stdout": EscapeFilter(), "stderr": EscapeFilter()}

    def write(stream: str, text: str) -> None:
        (sys.stderr if stream == "stderr" else sys.stdout).write(text)

    def output(stream: str, data: bytes) -> None:
        write(stream, filters[stream].feed(data))

    def shown(forms: Mapping[str, bytes]) -> None:
        notebook = _notebook()
        if notebook is not None:
            notebook.show(forms)
        else:
            output("stdout", forms.get("text/plain", b"") + b"\n")

    def ended() -> None:
        for stream, held in filters.items():
            write(stream, held.feed(b"", final=True))

    return Hooks(output, shown, ended=ended)


def _notebook() -> Any:
    """The notebook's front end, where this process is a kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    from .notebook.frontend import NotebookFrontend

    return NotebookFrontend(shell)


def _bar(progress: Any, count: int, name: str) -> Any:
    if callable(progress):
        return nullcontext(progress)
    if progress is False or (progress is None and count < 2):
        return nullcontext(lambda done, failed, count: None)
    if _notebook() is not None:
        from .notebook.bars import bar

        return bar(name)
    return _line(name) if progress or sys.stderr.isatty() else nullcontext(lambda done, failed, count: None)


@contextmanager
def _line(name: str) -> Iterator[Callable[[int, int, int], None]]:
    """A line on the terminal that is written anew."""
    count = Count(name)
    start = "\r\x1b[K" if sys.stderr.isatty() else ""

    def told(done: int, failed: int, all: int) -> None:
        count(done, failed, all)
        if start:
            print(f"{start}{count.text(False)}", end="", file=sys.stderr, flush=True)

    try:
        yield told
    finally:
        print(f"{start}{count.text(True)}", file=sys.stderr)
