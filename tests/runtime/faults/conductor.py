"""Who decides, at each step boundary of each process, whether somebody is killed there."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import struct
import threading
from pathlib import Path

from pycontainers.linux import process

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid (as this process sees it), uid, gid (unix(7))

Step = tuple[str, str]


class Conductor:
    """Hears of every step at ``RUN/faults.sock``; the process that has reached it waits for the answer.

    :ivar steps: what was reached since :meth:`arm`, in order. :ivar pids: role -> the pid of whoever spoke for it last. :ivar fired: the
        pid that was killed, 0 while nobody was.
    """

    def __init__(self, run: Path) -> None:
        self.steps: list[Step] = []
        self.pids: dict[str, int] = {}
        self.fired = 0
        self._at: Step | None = None
        self._victim = ""
        self._number = int(signal.SIGKILL)
        self._waiting: tuple[socket.socket, int] | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(f"{run}/faults.sock")
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._listener.listen(64)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake, self._waker = socket.socketpair()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def arm(self, at: Step | None = None, victim: str = "", number: int = signal.SIGKILL, **known: int) -> None:
        """Begin a case. ``at``: where; ``victim``: whose pid; ``known``: pids of those who speak no more."""
        self.steps, self.fired = [], 0
        self.pids = {role: pid for role, pid in self.pids.items() if role == "launcher"} | known
        self._victim, self._number, self._waiting = victim, number, None
        self._at = at

    def close(self) -> None:
        self._waker.send(b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                sock = key.fileobj
                if sock is self._wake:
                    return
                if sock is self._listener:
                    self._selector.register(self._listener.accept()[0], selectors.EVENT_READ)
                else:
                    self._hear(sock)  # type: ignore[arg-type]

    def _hear(self, sock: socket.socket) -> None:
        try:
            data, ancillary, _, _ = sock.recvmsg(200, socket.CMSG_SPACE(_CREDENTIALS.size))
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(sock)
            sock.close()
            return
        pid = _CREDENTIALS.unpack(ancillary[0][2])[0]
        who, step = data.decode().split("\0")
        self.pids["kernel" if who == "client" else "inside" if step == "inside" else who] = pid
        if step:
            self.steps.append((who, step))
        if step and (who, step) == self._at:
            self._at = None
            self._waiting = sock, pid
        else:
            self._answer(sock)
        # A first process that is to be killed may not have said yet which one it is.
        if self._waiting and (victim := self.pids.get(self._victim)):
            waiting, sender = self._waiting
            self._waiting = None
            self.fired = victim
            kill(victim, self._number)
            if victim != sender:
                self._answer(waiting)

    def _answer(self, sock: socket.socket) -> None:
        try:
            sock.send(b".", socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except OSError:
            pass


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Returns when it is gone (a zombie is)."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    if number == signal.SIGKILL:
        process.wait_gone(pid, 5)
