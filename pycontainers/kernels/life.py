"""The life of one kernel: its container from start to end, as long as the process that keeps it and the client that asked for it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any

from ..errors import ContainersError, NotFound, StateError
from ..linux import process
from ..paths import Paths
from ..protocol import ContainerConfig, ContainerInfo, Engine, ExitStatus, Mount, OnOutput, Session, exit_of
from ..text import EscapeFilter
from ..wording import failed
from . import connection
from .bridge import Bridge, Sockets
from .program import FILE, FOLDER

GRACE = 3.0
"""Seconds that a kernel has after SIGTERM. Jupyter's own patience with us is longer."""

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_SIZE = "size=1m,mode=1777"  # of the folder with its sockets: nothing else belongs there


class Ended(KeyboardInterrupt):
    """This process is asked to end, before its kernel runs. As an interrupt: what is half made is taken back."""


def of_kernel(config: ContainerConfig, name: str, file: str, environ: Mapping[str, str]) -> ContainerConfig:
    """The container of a kernel: what was asked for, and what a kernel needs.

    ``file``: the connection file of this machine that it is given. Process 1 is an init, which reaps what cells leave behind.
    """
    session = {"JPY_SESSION_NAME": environ["JPY_SESSION_NAME"]} if "JPY_SESSION_NAME" in environ else {}  # the notebook's name
    return replace(
        config,
        name=f"kernel-{name}-{secrets.token_hex(3)}",
        env={**session, **config.env},
        mounts=(
            *config.mounts,
            Mount("tmpfs", FOLDER, options=tuple(_SIZE.split(","))),
            Mount("bind", FILE, file, read_only=True),
        ),
        labels={"io.pycontainers.kernel": name, **config.labels},
        init=True,
        auto_remove=True,
        lifetime="kernel",
        stop_timeout=GRACE,
    )


class Kernel:
    """A kernel whose container runs. ``turn`` until ``over``."""

    def __init__(self, engine: Engine, info: ContainerInfo, session: Session, bridge: Bridge, output: OnOutput) -> None:
        self._engine, self.info, self._session, self._bridge, self._output = engine, info, session, bridge, output
        self._deadline: float | None = None
        self.asked = False
        for fd in session.sources():
            bridge.watch(fd, partial(self._said, fd))

    @property
    def over(self) -> bool:
        return self._session.over

    @property
    def exit(self) -> ExitStatus:
        return exit_of(self._session)

    def _said(self, fd: int) -> None:
        for stream, data in self._session.receive(fd):
            self._output(stream, data)

    def send(self, number: int) -> None:
        """Pass a signal on. SIGTERM and SIGHUP end it: first as asked, then for good."""
        if number != signal.SIGINT:
            if self._deadline is not None:
                return
            self.asked, self._deadline = True, time.monotonic() + GRACE
            number = signal.SIGTERM
        with contextlib.suppress(NotFound, StateError):  # it has just ended
            self._engine.kill(self.info.id, signal.Signals(number).name)

    def turn(self) -> None:
        self._bridge.turn(self._deadline)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._deadline = time.monotonic() + GRACE
            with contextlib.suppress(NotFound, StateError):
                self._engine.kill(self.info.id, "SIGKILL")


def keep(
    engine: Engine, paths: Paths, config: ContainerConfig, name: str, document: dict[str, Any], write: Callable[[str], object]
) -> int:
    """Run a kernel until it ends, its client does, or this process is asked to; its exit code. Nothing of it is left.

    :param name: of its kernelspec. :param document: the client's connection file. :param write: takes what the kernel prints and,
        where it ended badly, why: a Jupyter server's log.
    :raises ContainersError: it could not be started.
    """
    with _signals() as signals, contextlib.ExitStack() as stack:
        listeners = connection.listen(document)
        for sock in listeners.values():
            stack.enter_context(sock)
        file = stack.enter_context(connection.kept(paths, connection.inside(document)))
        info = engine.create(of_kernel(config, name, str(file.path), os.environ))
        stack.callback(_remove, engine, info)
        session = engine.start_attached(info.id)
        stack.callback(session.close)
        output = _filtered(write)
        sockets = _sockets(engine, info, session, output)
        stack.callback(sockets.close)

        def reach(channel: str) -> socket.socket | None:
            found = sockets.connect(channel)
            if found is not None:
                file.drop()  # the kernel has read it
            return found

        bridge = Bridge({connection.socket_name(channel): sock for channel, sock in listeners.items()}, reach)
        stack.callback(bridge.close)
        kernel = Kernel(engine, info, session, bridge, output)
        bridge.watch(signals.caught(), lambda: signals.give(kernel.send))
        _follow_client(bridge, kernel, stack)
        try:
            while not kernel.over:
                kernel.turn()
        except PermissionError:
            raise ContainersError(
                "the kernel's sockets belong to a user inside that this user of the machine is not",
                "let the kernel be root inside: --user root (outside it is you)",
            ) from None
        return _said_why(kernel, config, write)


def _sockets(engine: Engine, info: ContainerInfo, session: Session, output: OnOutput) -> Sockets:
    """The folder with the kernel's sockets. :raises ContainersError: the container has ended at once."""
    try:
        return Sockets(engine.find(info.id).pid)
    except (NotFound, OSError) as error:
        for stream, data in session.stream():
            output(stream, data)
        raise failed(info.name, exit_of(session)) or ContainersError(f"container {info.name}: {error}") from None


def _filtered(write: Callable[[str], object]) -> OnOutput:
    """What a kernel prints by itself goes to a server's log, which may be somebody's terminal."""
    filters = {"stdout": EscapeFilter(), "stderr": EscapeFilter()}

    def output(stream: str, data: bytes) -> None:
        write(filters[stream].feed(data))

    return output


def _said_why(kernel: Kernel, config: ContainerConfig, write: Callable[[str], object]) -> int:
    exit = kernel.exit
    failure = None if kernel.asked else failed(kernel.info.name, exit, config.resources.memory)
    if failure is not None:
        hint = "install the kernel again with more --memory" if exit.oom_killed else failure.hint
        write(f"kernel of image {kernel.info.image}: {failure.message}\n" + (f"hint: {hint}\n" if hint else ""))
    return 1 if exit.code is None else exit.code


def _remove(engine: Engine, info: ContainerInfo) -> None:
    with contextlib.suppress(NotFound):  # --rm has done it
        engine.remove(info.id, force=True)


def _follow_client(bridge: Bridge, kernel: Kernel, stack: contextlib.ExitStack) -> None:
    """End the kernel when the process is gone that started it for a page: jupyter_client tells its pid, as ipykernel reads it."""
    told = os.environ.get("JPY_PARENT_PID", "")
    if not told.isdigit() or int(told) in (0, 1):
        return
    try:
        fd = process.open_pidfd(process.identity(int(told)))
    except OSError:
        fd = None
    if fd is None:
        if os.getppid() == 1:  # it has ended meanwhile; else its pid is one of another namespace, or of nobody
            kernel.send(signal.SIGTERM)
        return
    stack.callback(os.close, fd)

    def gone() -> None:
        bridge.unwatch(fd)
        kernel.send(signal.SIGTERM)

    bridge.watch(fd, gone)


class _Signals:
    """Signals as an interrupt until :meth:`caught` is called, from then on as bytes on a pipe."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._catching = False

    def caught(self) -> int:
        self._catching = True
        return self.reader

    def give(self, to: Callable[[int], None]) -> None:
        """Those that have come meanwhile."""
        for number in os.read(self.reader, 64):
            to(number)

    def handle(self, number: int, frame: FrameType | None) -> None:
        if not self._catching:
            raise Ended
        with contextlib.suppress(BlockingIOError):
            os.write(self.writer, bytes([number]))


@contextlib.contextmanager
def _signals() -> Iterator[_Signals]:
    found = _Signals()
    before = {number: signal.signal(number, found.handle) for number in _SIGNALS}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(found.reader)
        os.close(found.writer)
