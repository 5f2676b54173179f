"""Processes made ahead of need, for the launcher: what takes a start the time of two forks, and an exec that of one, is done before it is
asked for.

They are forked by a process that does nothing else, the *mould*. A process and its children share each page until one of them
writes to it; the launcher, which parses and answers, would leave to each of its children a copy of all that it has written since.

Mould and spares have nothing of a client's, hold no lock and no file of a container, and end with the launcher: their sockets are closed.
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
    """One of each role. ``roles``: do the work of that role, with the orders that come through this socket, in a process of its own;
    ``leave``: let go of what is the launcher's, in the mould."""

    def __init__(self, roles: Sequence[Callable[[socket.socket], None]], leave: Callable[[], None]) -> None:
        self._roles, self._leave = roles, leave
        self._mould: socket.socket | None = None
        self._wanted: set[int] = set()
        self._spare: dict[int, socket.socket] = {}  # by role
        self._mounts = os.open("/proc/self/mounts", os.O_RDONLY | os.O_CLOEXEC)
        self._changes = select.poll()
        self._changes.register(self._mounts, select.POLLPRI)

    def order(self, role: int, message: dict[str, Any], fds: Sequence[int]) -> socket.socket:
        """Have a process of that role do what ``message`` asks; returns what it closes when the next one may be prepared."""
        self._wanted.add(role)
        self._refresh()
        self._have(role)
        try:
            sockets.send(self._spare[role], message, fds)
        except (BrokenPipeError, ConnectionResetError):  # somebody killed it
            self._spare.pop(role).close()
            self._have(role)
            sockets.send(self._spare[role], message, fds)
        return self._spare.pop(role)

    def prepare(self) -> None:
        """Have one ready of each role that was ever asked for: who execs nothing has no worker for it."""
        self._refresh()
        for role in self._wanted:
            self._have(role)

    def _refresh(self) -> None:
        """A supervisor's starter stands in a copy of all mounts, which must not be older than the last mount or unmount."""
        if self._changes.poll(0):  # proc_mounts(5): POLLPRI when there was one since the last call
            self._drop()

    def _have(self, role: int) -> None:
        for last in (False, True):
            if role in self._spare:
                return
            if self._mould is None:
                self._mould = self._make_mould()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                socket.send_fds(self._mould, [bytes([role])], [theirs.fileno()], socket.MSG_NOSIGNAL)
                self._spare[role] = ours
            except (BrokenPipeError, ConnectionResetError):  # somebody killed it
                ours.close()
                self._mould.close()
                self._mould = None
                if last:
                    raise
            finally:
                theirs.close()

    def renew(self) -> None:
        """What the launcher keeps has changed: later ones are to have it too."""
        if self._mould is not None:
            self._mould.close()
            self._mould = None
        self._drop()

    def close_inherited(self) -> None:
        """In a forked child: these descriptors are the launcher's."""
        self.renew()
        os.close(self._mounts)

    def _drop(self) -> None:
        """Who has orders goes on, who has none ends."""
        while self._spare:
            self._spare.popitem()[1].close()

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
                    self._roles[asked[0]](socket.socket(fileno=fds[0]))
                    break
                os.close(fds[0])
        finally:
            os._exit(0)
