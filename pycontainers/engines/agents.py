"""An agent's socket for a build step: what connects to it in the container is connected to this user's own agent.

The agent's own socket cannot be bound: ssh-agent(1) answers to its user and to root alone (getpeereid(3)), and who is root inside is
neither of them outside.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Iterable

from ..errors import NotFound

_CHUNK = 1 << 16
_MOST = 64  # connections at a time


class Agent:
    """A listening socket at ``path``, served by a thread until the block ends; ``agent`` is the socket that it leads to.

    :raises NotFound: nobody listens there.
    """

    def __init__(self, path: str, agent: str) -> None:
        self._agent = agent
        _connected(agent).close()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._listener.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")  # a path of any length: sun_path has 108 bytes
        finally:
            os.close(folder)
        self._listener.listen()
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="pycontainers-agent", daemon=True)

    def __enter__(self) -> Agent:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.close()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as open_ones:
            selector.register(self._stopped, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            peers: dict[socket.socket, socket.socket] = {}
            open_ones.callback(_close_all, peers)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._stopped:
                        self._stopped.close()
                        return
                    if key.fileobj is self._listener:
                        self._accept(selector, peers)
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in peers:
                        _pass_on(key.fileobj, selector, peers)

    def _accept(self, selector: selectors.BaseSelector, peers: dict[socket.socket, socket.socket]) -> None:
        client, _ = self._listener.accept()
        if len(peers) >= 2 * _MOST:
            client.close()
            return
        try:
            agent = _connected(self._agent)
        except NotFound:
            client.close()
            return
        peers[client], peers[agent] = agent, client
        for one in (client, agent):
            selector.register(one, selectors.EVENT_READ)


def _pass_on(source: socket.socket, selector: selectors.BaseSelector, peers: dict[socket.socket, socket.socket]) -> None:
    """What has come, to the other side. An agent answers request by request, and both are small: waiting for the other is no danger."""
    target = peers[source]
    with contextlib.suppress(OSError):
        if data := source.recv(_CHUNK):
            target.settimeout(10)
            target.sendall(data)
            return
    for one in (source, target):
        selector.unregister(one)
        del peers[one]
        one.close()


def _close_all(peers: Iterable[socket.socket]) -> None:
    for one in peers:
        one.close()


def _connected(path: str) -> socket.socket:
    conn = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        conn.connect(path)
    except OSError as error:
        conn.close()
        raise NotFound(f"no ssh agent at {path}: {error.strerror}", "start ssh-agent, and ssh-add a key") from None
    return conn
