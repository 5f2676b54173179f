"""What the machine refuses whoever asks (a full or read-only disk, no memory, no more processes or files), in one line with a hint."""

from __future__ import annotations

import errno
import functools
import inspect
import os
from collections.abc import Callable, Generator
from typing import Any, NoReturn, TypeVar

from ..errors import exhausted

Engine = TypeVar("Engine", bound=type)


def in_one_line(engine: Engine) -> Engine:
    """Class decorator: every verb raises such an error as one of ours. Other errors of the system are mistakes, and stay what they are."""
    for name, function in list(vars(engine).items()):
        if inspect.isfunction(function) and not name.startswith("_"):
            setattr(engine, name, _verb(function))
    return engine


def _verb(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def verb(*arguments: Any, **named: Any) -> Any:
        try:
            found = function(*arguments, **named)
        except (OSError, MemoryError) as error:
            _refuse(error)
        return _steps(found) if inspect.isgenerator(found) else found

    return verb


def _steps(work: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    try:
        return (yield from work)
    except (OSError, MemoryError) as error:
        _refuse(error)


def _refuse(error: OSError | MemoryError) -> NoReturn:
    if isinstance(error, MemoryError):  # Python's own way to say ENOMEM
        error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    raise exhausted(error) or error from None
