"""A supervisor made ahead of need, for the launcher: what takes a start the time of two forks is done before it is asked for.

Supervisors are forked by a process that does nothing else, the *mould*. A process and its children share each page until one of them
writes to it; the launcher, which parses and answers, would leave to each of its children a copy of all that it has written since.

Mould and spare have nothing of a client's, hold no lock and no file of a container, and end with the launcher: their sockets are closed.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from typing import TYPE_CHECKING, Any

from ..linux import sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Spares:
    """``supervise``: be a supervisor that gets its orders from this socket, in a process of its own; ``leave``: let go of what is the
    launcher's, in the mould."""

    def __init__(self, supervise: Callable[[socket.socket], None], leave: Callable[[], None]) -> None:
        self._supervise, self._leave = supervise, leave
        self._mould: socket.socket | None = None
        self._spare: socket.socket | None = None
        self._mounts = os.open("/proc/self/mounts", os.O_RDONLY | os.O_CLOEXEC)
        self._changes = select.poll()
        self._changes.register(self._mounts, select.POLLPRI)

    def order(self, message: dict[str, Any], fds: Sequence[int]) -> socket.socket:
        """Have a supervisor do what ``message`` asks; returns what the supervisor closes when the start is over."""
        self.prepare()
        assert self._spare is not None
        try:
            sockets.send(self._spare, message, fds)
        except (BrokenPipeError, ConnectionResetError):  # somebody killed it
            self._drop()
            self.prepare()
            sockets.send(self._spare, message, fds)
        found, self._spare = self._spare, None
        return found

    def prepare(self) -> None:
        """Have one ready. Its starter stands in a copy of all mounts, which must not be older than the last mount or unmount."""
        if self._changes.poll(0):  # proc_mounts(5): POLLPRI when there was one since the last call
            self._drop()
        for last in (False, True):
            if self._spare is not None:
                return
            if self._mould is None:
                self._mould = self._make_mould()  # before there are sockets of the spare, which it would hold open
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                socket.send_fds(self._mould, [b"s"], [theirs.fileno()], socket.MSG_NOSIGNAL)
                self._spare = ours
            except (BrokenPipeError, ConnectionResetError):  # somebody killed it
                ours.close()
                self._mould.close()
                self._mould = None
                if last:
                    raise
            finally:
                theirs.close()

    def renew(self) -> None:
        """What the launcher keeps has changed: later supervisors are to have it too."""
        if self._mould is not None:
            self._mould.close()
            self._mould = None
        self._drop()

    def close_inherited(self) -> None:
        """In a forked child: these descriptors are the launcher's."""
        self.renew()
        os.close(self._mounts)

    def _drop(self) -> None:
        """A supervisor that has its orders goes on, one that has none ends."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _make_mould(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork():
            theirs.close()
            return ours
        try:
            ours.close()
            self._leave()
            while True:
                asked, fds, _, _ = socket.recv_fds(theirs, 1, 1, socket.MSG_CMSG_CLOEXEC)
                if not asked:
                    break
                if not os.fork():
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    theirs.close()
                    self._supervise(socket.socket(fileno=fds[0]))
                    break
                os.close(fds[0])
        finally:
            os._exit(0)
