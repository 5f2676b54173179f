"""What the rooms above call: start a container, exec in one, wait for an end. Talks to the launcher; never forks this process."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import HelperError
from ..linux import helper, process, sockets
from ..paths import Paths
from ..version import stamp
from . import state

#: Other code, or another Python, replaces a running launcher.
VERSION = stamp("linux", "runtime", "network", "metrics")
_START = "import sys; sys.path.insert(0, sys.argv[2]); from pycontainers.runtime.launcher import main; main(sys.argv[3], sys.argv[4])"


def launcher_argv(paths: Paths) -> list[str]:
    """How the launcher is started: the base interpreter, isolated, without site-packages."""
    python = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [python, "-I", "-S", "-c", _START, "pycontainers-launcher", package, str(paths.home), str(paths.run)]


def connect(paths: Paths) -> socket.socket:
    """A connection to this user's launcher; started when there is none, replaced when it is of another version."""
    return helper.connect(paths.launcher_socket, "launcher", launcher_argv(paths), VERSION, paths.locks, read_only=True)


class Started:
    """A container that was started: in the foreground its output comes through :meth:`output`."""

    def __init__(self, conn: socket.socket, answer: dict[str, Any]) -> None:
        self._conn = conn
        self.pid: int = answer["pid"]
        self.exit: dict[str, Any] | None = None

    def output(self) -> Iterator[tuple[str, bytes]]:
        """Yield ("stdout" | "stderr", bytes) until the container has ended; then ``exit`` is its record.

        ``exit`` stays None when the supervisor was killed. Letting the iterator go detaches; the container runs on.
        """
        with self._conn:
            while True:
                try:
                    data = self._conn.recv(1 << 17)
                except ConnectionResetError:
                    return
                if not data:
                    return
                if data[0] in (1, 2):
                    yield ("stdout" if data[0] == 1 else "stderr"), data[1:]
                else:
                    import json

                    self.exit = json.loads(data)["exit"]
                    return


def start(paths: Paths, container_id: str, *, attach: bool = False, stdin: int = -1) -> Started:
    """Start a created container; returns when its program has been executed (or raises what went wrong).

    :param attach: receive its output. ``stdin``: a descriptor that the container gets as its standard input, -1 for /dev/null.
    """
    conn = connect(paths)
    try:
        sockets.send(conn, {"op": "start", "container": container_id, "attach": attach}, [stdin] if stdin >= 0 else [])
        conn.settimeout(60)
        answer = _answer(conn, "start")
        conn.settimeout(None)
    except BaseException:
        conn.close()
        raise
    if not attach:
        conn.close()
    return Started(conn, answer)


def run_exec(
    paths: Paths, container_id: str, request: dict[str, Any], stdin: int, on_output: Callable[[str, bytes], None]
) -> dict[str, Any]:
    """Run one command in a running container and stream its output; returns ``{"code", "signal"}``.

    :param request: command (list), and where given env (dict), workdir, user.
    """
    with contextlib.ExitStack() as stack:
        conn = stack.enter_context(connect(paths))
        readers: dict[int, str] = {}
        ours: list[int] = []
        for stream in ("stdout", "stderr"):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            readers[reader] = stream
            ours.append(writer)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) if stdin < 0 else -1
        try:
            sockets.send(conn, {"op": "exec", "container": container_id, **request}, [stdin if stdin >= 0 else null, *ours])
        except BaseException:
            for fd in readers:
                os.close(fd)
            raise
        finally:
            for fd in (*ours, null):
                if fd >= 0:
                    os.close(fd)
        try:
            return _stream(conn, readers, on_output)
        finally:
            for fd in readers:
                os.close(fd)


def isolation(paths: Paths, fresh: bool = False) -> list[dict[str, Any]]:
    """What this machine allows (:func:`pycontainers.runtime.isolation.probe`), measured once a boot by the launcher."""
    from .isolation import stamp

    kept = None if fresh else state.read(str(paths.run), "isolation.json")
    if kept is not None and kept.get("stamp") == stamp():
        found: list[dict[str, Any]] = kept["probes"]
        return found
    with connect(paths) as conn:
        conn.settimeout(30)
        sockets.send(conn, {"op": "probe"})
        probes: list[dict[str, Any]] = _answer(conn, "probe")["probes"]
    state.write(str(paths.run), "isolation.json", {"stamp": stamp(), "probes": probes})
    return probes


def _stream(conn: socket.socket, readers: dict[int, str], on_output: Callable[[str, bytes], None]) -> dict[str, Any]:
    """Pass output on until the exit has come. A process left in the background may keep the pipes open: not waited for."""
    conn.settimeout(None)
    poll = select.poll()
    for fd in (conn.fileno(), *readers):
        poll.register(fd, select.POLLIN)
    status: dict[str, Any] | None = None
    while status is None or readers:
        events = poll.poll(None if status is None else 0)
        if status is not None and not events:
            break
        for fd, _ in events:
            if fd == conn.fileno():
                message = _answer(conn, "exec")
                if "exit" in message:
                    status = message["exit"]
                    poll.unregister(fd)
            elif data := os.read(fd, 1 << 16):
                on_output(readers[fd], data)
            else:
                poll.unregister(fd)
                os.close(fd)
                del readers[fd]
    return status or {}


def _answer(conn: socket.socket, what: str) -> dict[str, Any]:
    answer, fds = sockets.receive(conn)
    sockets.close_all(fds)
    if answer is None:
        raise HelperError(f"{what} broke off: the helper that worked on it was killed", "try again; pycontainers ps shows what is there")
    sockets.raise_error(answer)
    return answer


def wait(folder: str, timeout: float | None = None) -> dict[str, Any] | None:
    """Wait until the container's supervisor has ended; its exit record, {} when there is none, None after ``timeout`` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        now = state.read(folder, "state.json")
        if now is None or now["status"] not in (state.STARTING, state.RUNNING, state.PAUSED):
            return state.read(folder, "exit.json") or {}
        pidfd = process.open_pidfd(now["supervisor"])
        if pidfd is None:
            again = state.read(folder, "state.json")  # it may have ended properly between the two reads
            return state.read(folder, "exit.json") or {} if again is None or again["status"] == state.EXITED else {}
        try:
            if not _readable(pidfd, deadline):
                return None
        finally:
            os.close(pidfd)


def _readable(fd: int, deadline: float | None) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if deadline is None else max(0, (deadline - time.monotonic()) * 1000)))


def signal_init(folder: str, number: int) -> bool:
    """Send a signal to the container's first process; False when it is gone."""
    now = state.read(folder, "state.json")
    return bool(now and now.get("init") and process.send_signal(now["init"], number))


def body_fd(data: bytes) -> int:
    """A descriptor from which ``data`` can be read: nobody has to feed it while the container runs."""
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    os.write(fd, data) if len(data) < 1 << 20 else _write_all(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def command_line(arguments: Sequence[str]) -> str:
    """How a command is shown to people."""
    import shlex

    return shlex.join(arguments)
