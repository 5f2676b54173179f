"""What the rooms above call: start a container, exec in one, wait for an end. Talks to the launcher; never forks this process."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import HelperError
from ..linux import helper, holder, process, sockets
from . import rootless, state
from .marks import mark
from .session import Attached, Executed
from .stamp import VERSION

if TYPE_CHECKING:
    from ..paths import Paths
    from .places import Places


def launcher_argv(paths: Paths | Places) -> list[str]:
    """How the launcher is started: the base interpreter, isolated, without site-packages."""
    python = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return rootless.launcher_argv(python, package, str(paths.home), str(paths.run))


def connect(paths: Paths | Places) -> socket.socket:
    """A connection to this user's launcher; started when there is none, replaced when it is of another version."""
    _renew(paths)
    return helper.connect(paths.launcher_socket, "launcher", helper.executed(launcher_argv(paths), read_only=True), VERSION, paths.locks)


def _renew(paths: Paths | Places) -> None:
    """A launcher whose namespaces have lost their holder is asked to leave: the next one makes another."""
    run = str(paths.run)
    if holder.read(run) is None or holder.alive(run) is not None:
        return
    with contextlib.suppress(OSError), sockets.connect(paths.launcher_socket, 5.0) as conn:
        sockets.receive(conn)
        sockets.send(conn, {"op": "leave"})
        while sockets.receive(conn)[0] is not None:
            pass


def start(paths: Paths, container_id: str) -> None:
    """Start a created container; returns when its program has been executed (or raises what went wrong)."""
    _start(paths, {"op": "start", "container": container_id}, -1)[0].close()


def start_attached(
    paths: Paths, container_id: str, *, stdin: int = -1, feed: bool = False, size: tuple[int, int] | None = None
) -> Attached:
    """:func:`start`, and receive its output.

    :param stdin: a descriptor that the container gets as its standard input, -1 for /dev/null, or for a pipe held by its supervisor where
        the container keeps its stdin open; ``feed``: the session gives the input.
    :param size: (rows, columns) of its terminal.
    """
    message = {"op": "start", "container": container_id, "attach": True, "stdin": feed, "size": size}
    conn, answer = _start(paths, message, stdin)
    return Attached(conn, bool(answer.get("tty")))


def request(paths: Paths | Places, message: dict[str, Any], fds: Sequence[int] = ()) -> socket.socket:
    """Send the launcher a request; the connection on which it will be answered.

    One that leaves between its greeting and our message makes the send fail (:meth:`server.Server.run`): it has not heard us.
    """
    for _ in range(5):
        conn = connect(paths)
        try:
            sockets.send(conn, message, fds)
            return conn
        except (BrokenPipeError, ConnectionResetError):
            conn.close()
        except BaseException:
            conn.close()
            raise
    raise HelperError("the launcher leaves whenever it is asked", helper.last_log_line(str(paths.launcher_socket), "launcher"))


def _start(paths: Paths, message: dict[str, Any], stdin: int) -> tuple[socket.socket, dict[str, Any]]:
    conn = request(paths, message, [stdin] if stdin >= 0 else [])
    try:
        mark("client", "asked")
        conn.settimeout(60)
        answer = reply(conn, "start")[0]
        mark("client", "started")
        return conn, answer
    except BaseException:
        conn.close()
        raise


def run_exec(paths: Paths, container_id: str, asked: dict[str, Any], *, stdin: int = -1, feed: bool = False) -> Executed:
    """Run one command in a running container; returns when it has been executed.

    :param asked: command (list), and where given env (dict), workdir, user, privileged, tty, size.
    :param stdin: a descriptor for its input, -1 for /dev/null; ``feed``: the session gives the input.
    """
    with contextlib.ExitStack() as undo:
        readers: dict[int, str] = {}
        theirs, writer = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) if stdin < 0 else os.dup(stdin)], -1
        undo.callback(lambda: sockets.close_all([*readers, writer]))
        if feed and not asked.get("tty"):
            os.close(theirs.pop())
            reader, writer = os.pipe2(os.O_CLOEXEC)
            theirs.append(reader)
        for stream in ("stdout", "stderr"):
            reader, end = os.pipe2(os.O_CLOEXEC)
            readers[reader] = stream
            theirs.append(end)
        try:
            conn = undo.enter_context(request(paths, {"op": "exec", "container": container_id, **asked}, theirs))
        finally:
            sockets.close_all(theirs)
        mark("client", "exec asked")
        conn.settimeout(None)
        _, fds = reply(conn, "exec")
        mark("client", "exec started")
        console = fds[0] if fds else -1
        if console >= 0:
            sockets.close_all([*readers])
            readers, writer = {console: "stdout"}, os.dup(console)
        undo.pop_all()
        return Executed(conn, readers, writer, console)


def ask(paths: Paths, container_id: str, message: dict[str, Any], timeout: float = 15.0) -> dict[str, Any] | None:
    """Ask the supervisor of a living container; None where there is none (any more). :raises ContainersError: what it refused."""
    conn = _supervisor(paths, container_id, timeout)
    if conn is None:
        return None
    with conn:
        try:
            _say(conn, message)
            mark("client", "request")
            answer, fds = sockets.receive(conn)
            mark("client", "reply")
        except TimeoutError:
            raise HelperError(f"the supervisor of container {container_id[:12]} does not answer", "try again") from None
    sockets.close_all(fds)
    if answer is not None:
        sockets.raise_error(answer)
    return answer


def attach(paths: Paths, container_id: str, *, feed: bool = False) -> Attached | None:
    """A session with a running container: output from now on, and with ``feed`` its input. None where nobody supervises it."""
    conn = _supervisor(paths, container_id, 15.0)
    if conn is None:
        return None
    try:
        _say(conn, {"op": "attach", "stdin": feed})
        answer = reply(conn, "attach")[0]
    except BaseException:
        conn.close()
        raise
    return Attached(conn, bool(answer.get("tty")))


def _supervisor(paths: Paths, container_id: str, timeout: float) -> socket.socket | None:
    """A connection to its supervisor, at the place that it wrote down: its run folder need not be ours. None where there is none."""
    now = state.read(str(paths.containers / container_id), "state.json")
    if now is None or now["status"] not in state.ACTIVE or not now.get("control"):
        return None
    try:
        return sockets.connect(now["control"], timeout)
    except (FileNotFoundError, ConnectionRefusedError):
        return None


def _say(conn: socket.socket, message: dict[str, Any]) -> None:
    """A supervisor that has closed the connection may have said why before (it takes no more clients): that is still to be received."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sockets.send(conn, message)


def isolation(paths: Paths, fresh: bool = False) -> list[dict[str, Any]]:
    """What this machine allows (:func:`pycontainers.runtime.isolation.probe`), measured once a boot by the launcher."""
    from .isolation import NEEDED, stamp

    run = str(paths.run)
    kept = None if fresh else state.read(run, "isolation.json")
    if kept is not None and kept.get("stamp") == stamp(run):
        found: list[dict[str, Any]] = kept["probes"]
        if not any(probe["errno"] and probe["level"] == NEEDED for probe in found):  # else somebody may have mended it
            return found
    with request(paths, {"op": "probe"}) as conn:
        conn.settimeout(30)
        probes: list[dict[str, Any]] = reply(conn, "probe")[0]["probes"]
    state.write(run, "isolation.json", {"stamp": stamp(run), "probes": probes})
    return probes


def clear(paths: Paths) -> None:
    """Delete what an ordinary user could not when a container was removed: files inside that belong to his subordinate ids."""
    containers = str(paths.containers)
    graves = [f"{containers}/{name}" for name in os.listdir(containers) if name.startswith(".gone-")]
    if graves:
        with request(paths, {"op": "remove", "trees": graves}) as conn:
            conn.settimeout(60)
            reply(conn, "remove")


def reply(conn: socket.socket, what: str) -> tuple[dict[str, Any], list[int]]:
    try:
        answer, fds = sockets.receive(conn)
    except TimeoutError:
        raise HelperError(f"{what} takes too long: no answer in {conn.gettimeout():.0f} s", "pycontainers ps shows what is there") from None
    if answer is None:
        raise HelperError(f"{what} broke off: the helper that worked on it was killed", "try again; pycontainers ps shows what is there")
    try:
        sockets.raise_error(answer)
    except BaseException:
        sockets.close_all(fds)
        raise
    return answer, fds


def wait(folder: str, timeout: float | None = None) -> dict[str, Any] | None:
    """Wait until the container's supervisor has ended; its exit record, {} when there is none, None after ``timeout`` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        now = state.read(folder, "state.json")
        if now is None or now["status"] not in state.ACTIVE:
            return state.ending(folder) or {}
        pidfd = process.open_pidfd(now["supervisor"])
        if pidfd is None:
            again = state.read(folder, "state.json")  # it may have ended properly between the two reads
            return state.ending(folder) or {} if again is None or again["status"] == state.EXITED else {}
        try:
            if not _readable(pidfd, deadline):
                return None
        finally:
            os.close(pidfd)


def wait_exit(paths: Paths, container_id: str, timeout: float | None = None) -> dict[str, Any] | None:
    """The exit record of a container's next end (with a restart policy it may live on then), or of its last, as :func:`wait`."""
    conn = _supervisor(paths, container_id, 15.0)
    if conn is not None:
        with conn:
            _say(conn, {"op": "wait"})
            conn.settimeout(timeout)
            try:
                answer, _ = sockets.receive(conn)
            except TimeoutError:
                return None
            if answer is not None:
                sockets.raise_error(answer)
                record: dict[str, Any] = answer["exit"]
                return record
    return wait(str(paths.containers / container_id), timeout)


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
