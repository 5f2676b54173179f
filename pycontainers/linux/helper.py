"""Resident helpers by socket activation: the client's half. The helper's is :mod:`.server`.

The client binds the socket under a lock and the helper inherits it, listening: a second client that comes while the helper
still starts waits in the backlog, nobody sees a half-started one, and a helper killed with SIGKILL leaves a socket that refuses,
which the next client replaces.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import HelperError, exhausted
from . import executable, process, sockets

LISTEN_FD = "PYCONTAINERS_LISTEN_FD"
"""Environment variable of a starting helper: the number of the listening socket."""

Start = Callable[[socket.socket, str], Callable[[], int]]
"""Start a helper that inherits this listening socket and writes to this log file. What is returned is called after the greeting: it waits
for what was started, where that is a child of ours, and gives its exit code."""

LOG_LIMIT = 256 * 1024
"""Bytes of a helper's log file before it begins anew."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def connect(
    socket_path: str | os.PathLike[str],
    name: str,
    start: Start,
    version: str,
    lock_dir: str | os.PathLike[str],
    timeout: float = 10.0,
) -> socket.socket:
    """A connection to the helper ``name``, greeted and of this ``version``; it is started, or replaced, where needed.

    :param start: how to start it: :func:`executed`, or as a fork of a helper that runs already.
    :param timeout: seconds for everything here; also stays set on the socket.
    :raises HelperError: it could not be started or does not answer; the hint is the last line of its log.
    """
    path = os.fspath(socket_path)
    deadline = time.monotonic() + timeout
    while True:
        sock, wait = _connect_or_start(path, name, start, os.fspath(lock_dir), deadline)
        try:
            greeting = _greeting(sock, path, name)
            if wait is not None:
                # Never wait before the greeting: it comes after the helper has cut itself loose, so this returns at once.
                _reap(wait, name, path, greeting is None)
            if greeting is not None and greeting.get("version") == version:
                sock.settimeout(timeout)
                return sock
            if wait is not None and greeting is not None:
                raise HelperError(f"the helper {name} just started is version {greeting.get('version')}, not {version}")
            if greeting is not None:
                _replace(sock, greeting, name, deadline)
        except BaseException:
            sock.close()
            raise
        # It left between our connect and its greeting (idle, or replaced by somebody else): nothing was asked yet, so ask again.
        sock.close()
        if time.monotonic() >= deadline:
            raise HelperError(f"the helper {name} does not stay", last_log_line(path, name))


def executed(argv: Sequence[str], read_only: bool = False) -> Start:
    """Start a helper as a program. It gets the listening socket as an inherited descriptor, its number in ``LISTEN_FD``, a clean
    environment, ``/`` as its folder, ``/dev/null`` as stdin and stdout, and its log as stderr.

    :param read_only: execute it from a read-only mount (:mod:`.executable`): a helper whose forks enter containers.
    """
    return lambda listener, log: _execute(listener, log, argv, read_only)


def _execute(listener: socket.socket, log: str, argv: Sequence[str], read_only: bool) -> Callable[[], int]:
    import subprocess  # only here: most calls find the helper running and do not need it

    environment = {"PATH": _PATH, "LANG": "C.UTF-8", LISTEN_FD: str(listener.fileno())}
    stderr = open_log(log)
    program, guard = executable.guarded(os.path.realpath(argv[0]), environment) if read_only else (None, -1)
    try:
        # Without preexec_fn Python starts this by vfork: the calling process, large and threaded, is never copied.
        return subprocess.Popen(
            list(argv),
            executable=program,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            close_fds=True,
            pass_fds=[listener.fileno()],
            cwd="/",
            env=environment,
            start_new_session=True,
        ).wait
    except OSError as error:
        name = os.path.basename(log).removesuffix(".log")
        refused = exhausted(error)
        hint = refused.hint if refused else ""
        raise HelperError(f"the helper {name} could not be started: {argv[0]}: {error.strerror}", hint) from None
    finally:
        os.close(stderr)
        if guard >= 0:
            os.close(guard)


def request(
    connected: Callable[[], socket.socket], message: dict[str, Any], fds: Sequence[int] = ()
) -> tuple[dict[str, Any], list[int], socket.socket]:
    """Send one request over ``connected()`` and return ``(reply, its descriptors, the connection)``. The caller closes them.

    A helper that leaves between its greeting and our message makes the send fail (see :meth:`.server.Server.run`): it has not heard us,
    so asking the next one does nothing twice. A helper that ends later, without a reply, may have acted: that is an error.

    :raises ContainersError: what the helper refused, as the class that it had there; HelperError when it broke off.
    """
    for _ in range(5):
        sock = connected()
        try:
            try:
                sockets.send(sock, message, fds)
            except (BrokenPipeError, ConnectionResetError):
                sock.close()
                continue
            reply, received = sockets.receive(sock)
            if reply is None:
                raise HelperError(f"the helper broke off during {message.get('op', 'a request')!s}", "try again")
            sockets.raise_error(reply)
            return reply, received, sock
        except TimeoutError:
            sock.close()
            raise HelperError(f"the helper does not answer {message.get('op', 'a request')!s}", "try again") from None
        except BaseException:
            sock.close()
            raise
    raise HelperError("the helper leaves whenever it is asked", "see its log")


def _connect_or_start(
    path: str, name: str, start: Start, lock_dir: str, deadline: float
) -> tuple[socket.socket, Callable[[], int] | None]:
    """``(connection, None)``, or with how to wait for what was started where the helper had to be."""
    sock = _try_connect(path, name, deadline)
    if sock is not None:
        return sock, None
    with locked(os.path.join(lock_dir, f"{name}.lock"), deadline):
        sock = _try_connect(path, name, deadline)
        if sock is not None:
            return sock, None
        with sockets.listen(path) as listener:
            wait = start(listener, log_path(path, name))
        # Our copy of the listening socket is closed: a helper that dies now ends the connection instead of leaving it to wait.
        sock = _try_connect(path, name, deadline)
    if sock is None:
        raise HelperError(f"the helper {name} did not start (exit code {wait()})", last_log_line(path, name))
    return sock, wait


def _try_connect(path: str, name: str, deadline: float) -> socket.socket | None:
    try:
        return sockets.connect(path, max(0.05, deadline - time.monotonic()))
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except TimeoutError:
        raise HelperError(f"the helper {name} does not accept connections at {path}", last_log_line(path, name)) from None


def _greeting(sock: socket.socket, path: str, name: str) -> dict[str, Any] | None:
    try:
        greeting, fds = sockets.receive(sock)
    except TimeoutError:
        raise HelperError(f"the helper {name} does not greet", last_log_line(path, name)) from None
    sockets.close_all(fds)
    if greeting is not None:
        sockets.raise_error(greeting)
    return greeting


def _reap(wait: Callable[[], int], name: str, path: str, ended: bool) -> None:
    code = wait()
    if ended:
        raise HelperError(f"the helper {name} ended before its greeting (exit code {code})", last_log_line(path, name))


def _replace(sock: socket.socket, greeting: dict[str, Any], name: str, deadline: float) -> None:
    """Ask a helper of another version to leave and wait until it is gone: it serves what it has begun, and its path is free."""
    pid = int(greeting["pid"])
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sockets.send(sock, {"op": "leave"})
        sock.settimeout(max(0.05, deadline - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            while sockets.receive(sock)[0] is not None:
                pass
    if not process.wait_gone(pid, deadline - time.monotonic()):
        raise HelperError(
            f"the helper {name} of version {greeting.get('version')} (pid {pid}) does not leave", f"end it: kill {pid}"
        )


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], deadline: float) -> Iterator[None]:
    """Hold an exclusive flock(2) on ``path`` (made 0600). ``deadline`` is on the monotonic clock. The kernel frees it on death.

    :raises HelperError: somebody else held it until the deadline.
    """
    os.makedirs(os.path.dirname(os.fspath(path)), mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise HelperError(f"{os.fspath(path)} is locked by another process") from None
                time.sleep(0.002)
        yield
    finally:
        os.close(fd)


# --- the log ---


def log_path(socket_path: str, name: str) -> str:
    return os.path.join(os.path.dirname(socket_path), f"{name}.log")


def open_log(path: str) -> int:
    """A descriptor that appends to ``path``; what was there moves to ``path.1`` when it has grown past :data:`LOG_LIMIT`."""
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path).st_size > LOG_LIMIT:
            os.replace(path, path + ".1")
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def last_log_line(socket_path: str, name: str) -> str:
    """The last line of a helper's log as a hint, "" when there is none."""
    path = log_path(socket_path, name)
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"{path} ends with: {last}" if last else ""
