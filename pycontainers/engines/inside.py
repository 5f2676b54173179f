"""Work of an ordinary user that needs the ids of his images: done by this same engine in a process that has joined his namespaces.

Layers hold files of all ids; he may read, give and remove them only where he is root over them. So a build, a commit, and removing
images run in a *worker* (:mod:`.worker`): a fresh interpreter (a process with threads cannot join a user namespace, setns(2)) that joins,
calls the method of the same name there, and sends events and result back. The rooms below do not know.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..errors import HelperError
from ..events import Event
from ..linux import helper, sockets
from ..paths import Paths
from ..runtime import client

_START = "import sys; sys.path.insert(0, sys.argv[1]); from pycontainers.engines.worker import main; main(sys.argv[2:])"
_END_SECONDS = 20.0


def needed() -> bool:
    """Whether this process is an ordinary user's."""
    return os.geteuid() != 0


def call(paths: Paths, method: str, *arguments: Any) -> Any:
    """The result of ``NativeEngine(paths).method(*arguments)`` in the user's namespaces."""
    steps = work(paths, method, *arguments)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def work(paths: Paths, method: str, *arguments: Any) -> Generator[Event, None, Any]:
    """The same for a method that yields events. Whoever lets go of it interrupts the worker and waits until it has tidied up.

    :raises ContainersError: what the method raised there.
    """
    client.connect(paths).close()  # there are namespaces to join now
    with contextlib.ExitStack() as stack:
        given = [handed_on(argument, stack) for argument in arguments]
        return (yield from _work(paths, method, given))


def _work(paths: Paths, method: str, arguments: list[Any]) -> Generator[Event, None, Any]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    streams = [argument.fd for argument in arguments if isinstance(argument, Stream)]
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    log = helper.open_log(f"{paths.run}/worker.log")
    try:
        worker = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, package, str(paths.home), str(paths.run), str(writer)],
            stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=[writer, *streams], start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(log)
        os.close(writer)
    assert worker.stdin is not None
    with os.fdopen(reader, "rb") as results:
        try:
            with contextlib.suppress(BrokenPipeError), worker.stdin as stdin:
                pickle.dump({"sys.path": sys.path, "method": method, "arguments": arguments}, stdin)
            while (found := _next(results, paths))[0] == "event":
                yield found[1]
        except BaseException:
            worker.send_signal(signal.SIGINT)
            raise
        finally:
            _wait(worker)
    if found[0] == "error":
        sockets.raise_error(found[1])
    return found[1]


@dataclass(frozen=True)
class Stream:
    """An open file among the arguments: the worker gets its descriptor."""

    fd: int
    mode: str


def handed_on(argument: Any, stack: contextlib.ExitStack) -> Any:
    """A file object as a :class:`Stream`, until ``stack`` ends; anything else as it is.

    What is no file of the kernel's (a BytesIO) goes by way of one without a name: a pipe would need a thread, and somebody at its end.
    """
    writing = hasattr(argument, "write") and argument.writable()
    if not writing and not hasattr(argument, "read"):
        return argument
    mode = "wb" if writing else "rb"
    try:
        if writing:
            argument.flush()  # what was written before stands before
        fd = os.dup(argument.fileno())  # 0, 1 and 2 are the worker's own
        stack.callback(os.close, fd)
        return Stream(fd, mode)
    except OSError:
        spool = stack.enter_context(tempfile.TemporaryFile())
    if writing:
        stack.callback(shutil.copyfileobj, spool, argument)
        stack.callback(spool.seek, 0)  # before that
    else:
        shutil.copyfileobj(argument, spool)
        spool.seek(0)
        spool.flush()
    return Stream(spool.fileno(), mode)


def _next(results: BinaryIO, paths: Paths) -> tuple[str, Any]:
    try:
        found: tuple[str, Any] = pickle.load(results)  # our own process wrote it, as the same user
    except EOFError:
        raise HelperError("the worker in the user's namespaces was killed", helper.last_log_line(f"{paths.run}/x", "worker")) from None
    return found


def _wait(worker: subprocess.Popen[bytes]) -> None:
    try:
        worker.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
