"""Resident helpers by socket activation: the client's half (:func:`connect`) and the helper's half (:class:`Server`).

The client binds the socket under a lock and the helper inherits it, listening: a second client that comes while the helper
still starts waits in the backlog, nobody sees a half-started one, and a helper killed with SIGKILL leaves a socket that refuses,
which the next client replaces.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import ContainersError, HelperError
from . import executable, process, sockets

LISTEN_FD = "PYCONTAINERS_LISTEN_FD"
"""Environment variable of a starting helper: the number of the listening socket."""

LOG_LIMIT = 256 * 1024
"""Bytes of a helper's log file before it begins anew."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


# --- the client's half ---


def connect(
    socket_path: str | os.PathLike[str],
    name: str,
    argv: Sequence[str],
    version: str,
    lock_dir: str | os.PathLike[str],
    timeout: float = 10.0,
    read_only: bool = False,
) -> socket.socket:
    """A connection to the helper ``name``, greeted and of this ``version``; it is started, or replaced, where needed.

    :param argv: how to start it. It gets the listening socket as an inherited descriptor, its number in ``LISTEN_FD``, a clean
        environment, ``/`` as its folder, ``/dev/null`` as stdin and stdout, and ``<name>.log`` beside the socket as stderr.
    :param timeout: seconds for everything here; also stays set on the socket.
    :param read_only: execute its program from a read-only mount (:mod:`.executable`): a helper whose forks enter containers.
    :raises HelperError: it could not be started or does not answer; the hint is the last line of its log.
    """
    path = os.fspath(socket_path)
    deadline = time.monotonic() + timeout
    while True:
        sock, child = _connect_or_start(path, name, argv, os.fspath(lock_dir), deadline, read_only)
        try:
            greeting = _greeting(sock, path, name)
            if child is not None:
                # Never wait before the greeting: it comes after the helper has cut itself loose, so this returns at once.
                _reap(child, name, path, greeting is None)
            if greeting is not None and greeting.get("version") == version:
                sock.settimeout(timeout)
                return sock
            if child is not None and greeting is not None:
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


def request(
    connected: Callable[[], socket.socket], message: dict[str, Any], fds: Sequence[int] = ()
) -> tuple[dict[str, Any], list[int], socket.socket]:
    """Send one request over ``connected()`` and return ``(reply, its descriptors, the connection)``. The caller closes them.

    A helper that leaves between its greeting and our message makes the send fail (see :meth:`Server.run`): it has not heard us,
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
    path: str, name: str, argv: Sequence[str], lock_dir: str, deadline: float, read_only: bool
) -> tuple[socket.socket, Any]:
    """``(connection, None)``, or ``(connection, Popen)`` where the helper had to be started."""
    sock = _try_connect(path, name, deadline)
    if sock is not None:
        return sock, None
    with locked(os.path.join(lock_dir, f"{name}.lock"), deadline):
        sock = _try_connect(path, name, deadline)
        if sock is not None:
            return sock, None
        with sockets.listen(path) as listener:
            child = _start(listener, path, name, argv, read_only)
        # Our copy of the listening socket is closed: a helper that dies now ends the connection instead of leaving it to wait.
        sock = _try_connect(path, name, deadline)
    if sock is None:
        child.wait()
        raise HelperError(f"the helper {name} did not start (exit code {child.returncode})", last_log_line(path, name))
    return sock, child


def _try_connect(path: str, name: str, deadline: float) -> socket.socket | None:
    try:
        return sockets.connect(path, max(0.05, deadline - time.monotonic()))
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except TimeoutError:
        raise HelperError(f"the helper {name} does not accept connections at {path}", last_log_line(path, name)) from None


def _start(listener: socket.socket, path: str, name: str, argv: Sequence[str], read_only: bool) -> Any:
    import subprocess  # only here: most calls find the helper running and do not need it

    environment = {"PATH": _PATH, "LANG": "C.UTF-8", LISTEN_FD: str(listener.fileno())}
    log = open_log(log_path(path, name))
    program, guard = executable.guarded(os.path.realpath(argv[0]), environment) if read_only else (None, -1)
    try:
        # Without preexec_fn Python starts this by vfork: the calling process, large and threaded, is never copied.
        return subprocess.Popen(
            list(argv),
            executable=program,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            close_fds=True,
            pass_fds=[listener.fileno()],
            cwd="/",
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise HelperError(f"the helper {name} could not be started: {argv[0]}: {error.strerror}") from None
    finally:
        os.close(log)
        if guard >= 0:
            os.close(guard)


def _greeting(sock: socket.socket, path: str, name: str) -> dict[str, Any] | None:
    try:
        greeting, fds = sockets.receive(sock)
    except TimeoutError:
        raise HelperError(f"the helper {name} does not greet", last_log_line(path, name)) from None
    sockets.close_all(fds)
    if greeting is not None:
        sockets.raise_error(greeting)
    return greeting


def _reap(child: Any, name: str, path: str, ended: bool) -> None:
    code = child.wait()
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


def log(text: str) -> None:
    """Write a line to a helper's log (stderr); the file begins anew when it is too long, so that it never fills a disk."""
    with contextlib.suppress(OSError):
        if os.fstat(2).st_size > LOG_LIMIT:
            os.ftruncate(2, 0)
        os.write(2, (text.rstrip("\n") + "\n").encode(errors="replace"))


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


# --- the helper's half ---


def inherited_listener() -> socket.socket:
    """The listening socket that the client bound for us, no longer inheritable; the variable is taken out of the environment."""
    value = os.environ.pop(LISTEN_FD, "")
    if not value.isdigit():
        raise HelperError(f"{LISTEN_FD}={value!r} is not a descriptor", "helpers are started by their clients, not by hand")
    listener = socket.socket(fileno=int(value))
    listener.set_inheritable(False)
    return listener


def daemonize() -> None:
    """Cut loose from the client that started us: it reaps the parent half at once and has no zombie later.

    Call it before anything heavy is loaded. The client has made the session (``start_new_session``), so the child of this one
    fork leads no session and can never get a terminal.
    """
    if os.fork():
        os._exit(0)


class Server:
    """The accept loop of a helper: single thread, many connections, one request at a time.

    Subclasses override :meth:`handle`, and :meth:`busy` when there are reasons to stay.

    :param path: where ``listener`` can be found; unlinked on leaving. "" when nobody should unlink it.
    :param idle_seconds: leave after so many seconds without a message; None: stay.
    """

    REPLY_SECONDS = 5.0
    """How long a reply may wait for a client that does not read."""

    def __init__(
        self, listener: socket.socket, name: str, version: str, path: str = "", idle_seconds: float | None = 120.0
    ) -> None:
        self.listener, self.name, self.version, self.path = listener, name, version, path
        self.idle_seconds = idle_seconds
        self.connections: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._leaving = False
        self._inode = _inode(path)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def handle(self, conn: socket.socket, message: dict[str, Any], fds: list[int]) -> bool:
        """Answer one request. Return False to close the connection.

        The loop closes ``fds`` afterwards (dup what is kept) and sends an exception back as an error.
        """
        raise NotImplementedError

    def busy(self) -> bool:
        """Whether there is a reason to stay although nobody asks anything."""
        return False

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever ``fd`` is readable (a pidfd, a wake-up pipe)."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def unwatch(self, fd: int) -> None:
        self._selector.unregister(fd)

    def leave(self) -> None:
        """End :meth:`run` after the current request."""
        self._leaving = True

    def close_inherited(self) -> None:
        """In a forked child: close what belongs to the loop. A child that kept the listener would hold clients that nobody serves.

        A connection that the child goes on with has to be duplicated or detached before.
        """
        self._selector.close()
        self.listener.close()
        for conn in self.connections:
            conn.close()
        self.connections.clear()

    def run(self) -> None:
        """Serve until idle or asked to leave; then give the path back and finish what has arrived."""
        last = time.monotonic()
        while not self._leaving:
            wait = None if self.idle_seconds is None else max(0.0, last + self.idle_seconds - time.monotonic())
            ready = self._selector.select(wait)
            for key, _ in ready:
                key.data()
            if ready or self.busy():
                last = time.monotonic()
            elif self.idle_seconds is not None and time.monotonic() - last >= self.idle_seconds:
                self._leaving = True
        self._finish()

    def _finish(self) -> None:
        """Leave without losing anybody.

        1. Unlink the path, if it is still ours: later clients start another helper.
        2. Greet everybody who waits in the backlog; who comes even later finds the stream ended before a greeting and asks again.
        3. Shut the reading side of every connection: from then on a client's send fails with EPIPE, so it knows that it was not
           heard, and all that was sent before is read and answered.
        """
        if self.path and self._inode is not None and _inode(self.path) == self._inode:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        while self._accept():
            pass
        for conn in list(self.connections):
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RD)
            while conn in self.connections:
                self._serve(conn)
        self.listener.close()
        self._selector.close()

    def _accept(self) -> bool:
        try:
            conn, _ = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                log(f"{self.name}: accept: {error}")
                time.sleep(0.05)  # the connection stays in the backlog and the selector would spin
                return False
            raise
        conn.settimeout(self.REPLY_SECONDS)
        try:
            if not self.check_peer(conn):
                conn.close()
                return True
            self.greet(conn)
        except OSError:  # gone already
            conn.close()
            return True
        self.connections.add(conn)
        self._selector.register(conn, selectors.EVENT_READ, lambda: self._serve(conn))
        return True

    def greet(self, conn: socket.socket) -> None:
        """The first message: who we are and which version, so that an upgrade replaces us."""
        sockets.widen(conn)
        sockets.send(conn, {"hello": self.name, "version": self.version, "pid": os.getpid()})

    def check_peer(self, conn: socket.socket) -> bool:
        """Only our own user and root may ask; others get an error. The folder is 0700 already: this holds when it is not."""
        uid = sockets.peer_uid(conn)
        if uid in (os.geteuid(), 0):
            return True
        sockets.reply_error(conn, ContainersError(f"uid {uid} may not use the {self.name} helper of uid {os.geteuid()}"))
        return False

    def _serve(self, conn: socket.socket) -> None:
        keep = False
        fds: list[int] = []
        try:
            message, fds = sockets.receive(conn)
            if message is not None:
                if message.get("op") == "leave":
                    self._leaving = True
                else:
                    keep = self.handle(conn, message, fds)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass  # the client is gone, or does not read
        except ContainersError as error:
            sockets.reply_error(conn, error)
            keep = True
        except Exception as error:
            import traceback  # only here: launcher and supervisors stay 1.5 MB smaller without it

            log(f"{self.name}: {traceback.format_exc()}")
            sockets.reply_error(conn, error)
            keep = True
        finally:
            sockets.close_all(fds)
        if not keep:
            self._drop(conn)

    def _drop(self, conn: socket.socket) -> None:
        self.connections.discard(conn)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(conn)
        conn.close()


class _FunctionServer(Server):
    def __init__(self, function: Callable[[socket.socket, dict[str, Any], list[int]], bool], *args: Any) -> None:
        super().__init__(*args)
        self._function = function

    def handle(self, conn: socket.socket, message: dict[str, Any], fds: list[int]) -> bool:
        return self._function(conn, message, fds)


def serve(
    listener: socket.socket,
    name: str,
    version: str,
    handle: Callable[[socket.socket, dict[str, Any], list[int]], bool],
    path: str = "",
    idle_seconds: float | None = 120.0,
) -> None:
    """:meth:`Server.run` with a function in place of a subclass."""
    _FunctionServer(handle, listener, name, version, path, idle_seconds).run()


def _inode(path: str) -> tuple[int, int] | None:
    """What lies at ``path``. (``fstat`` of a socket tells of sockfs, not of the file that names it.)"""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def refuse(listener: socket.socket, error: ContainersError, seconds: float = 5.0) -> None:
    """Tell whoever has started us why we cannot serve, in place of a greeting, and end."""
    log(f"{error.message} ({error.hint})")
    listener.settimeout(seconds)
    with contextlib.suppress(OSError):
        conn, _ = listener.accept()
        sockets.widen(conn)
        sockets.reply_error(conn, error)
        conn.close()
    sys.exit(1)


def fail(error: BaseException) -> None:
    """Say in the log why a helper could not start; its client shows the last line as a hint."""
    log(error.message if isinstance(error, ContainersError) else f"{type(error).__name__}: {error}")
    sys.exit(1)
