"""A seccomp agent for tests (seccomp_unotify(2))."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
import threading
from typing import Any

_NOTIF_RECV, _NOTIF_SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_* of <linux/seccomp.h>


class Agent:
    """A seccomp agent: takes listeners, answers each call with EXDEV."""

    def __init__(self, path: str) -> None:
        self.states: list[dict[str, Any]] = []
        self.pids: list[int] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(path)
        self._server.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                conn, _ = self._server.accept()
            except OSError:
                return
            with conn:
                data, (listener,), _, _ = socket.recv_fds(conn, 65536, 1)
                while more := conn.recv(65536):
                    data += more
            self.states.append(json.loads(data))
            threading.Thread(target=self._answer, args=(listener,), daemon=True).start()

    def _answer(self, listener: int) -> None:
        try:
            while True:
                request = bytearray(80)  # struct seccomp_notif
                fcntl.ioctl(listener, _NOTIF_RECV, request)
                number, pid = struct.unpack_from("<QI", request)
                self.pids.append(pid)
                fcntl.ioctl(listener, _NOTIF_SEND, bytearray(struct.pack("<QqiI", number, 0, -errno.EXDEV, 0)))
        except OSError:
            os.close(listener)  # nobody is filtered by it any more

    def close(self) -> None:
        if self._server.fileno() >= 0:
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
