"""Resident helpers by socket activation: the helper's half. The client's is :mod:`.helper`."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from ..errors import ContainersError, HelperError, exhausted
from . import sockets
from .helper import LISTEN_FD, LOG_LIMIT


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
        self._reserve = sockets.Reserve()
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
        self._reserve.close()
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
        self._reserve.close()
        self._selector.close()

    def _accept(self) -> bool:
        try:
            conn, _ = self.listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                log(f"{self.name}: accept: {error}")
                self._reserve.turn_away(self.listener, self.name, error)
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
    refused = exhausted(error) if isinstance(error, OSError) else None
    if refused is not None:
        log(f"{refused.message} ({refused.hint})")
    else:
        log(error.message if isinstance(error, ContainersError) else f"{type(error).__name__}: {error}")
    sys.exit(1)


def log(text: str) -> None:
    """Write a line to a helper's log (stderr); the file begins anew when it is too long, so that it never fills a disk."""
    with contextlib.suppress(OSError):
        if os.fstat(2).st_size > LOG_LIMIT:
            os.ftruncate(2, 0)
        os.write(2, (text.rstrip("\n") + "\n").encode(errors="replace"))
