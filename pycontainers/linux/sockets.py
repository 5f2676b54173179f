"""``SOCK_SEQPACKET`` Unix sockets by path: one JSON object a message, descriptors by ``SCM_RIGHTS``, errors as errors.

Sequenced packets keep message borders (unix(7)), so there is no framing to get wrong and a descriptor always arrives with
the message that speaks of it. Names are paths inside a 0700 folder, never abstract ones: an abstract name can be reached from
every container that shares the host's network namespace (CVE-2020-15257).
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from .. import errors

LIMIT = 200_000
"""Bytes of one message. A packet has to fit in the sender's ``SO_SNDBUF`` (``net.core.wmem_max`` is 212992 by default)."""

_PATH_LIMIT = 100
# sun_path holds 108 bytes with the final zero (unix(7)); the temporary name in listen() needs a few of them.


def send(sock: socket.socket, obj: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send ``obj`` as one message, with copies of ``fds`` (the caller keeps and closes its own).

    :raises HelperError: the message is longer than :data:`LIMIT` bytes.
    :raises OSError: ``BrokenPipeError`` when the other side is gone: the message was not handled.
    """
    data = json.dumps(obj, separators=(",", ":")).encode()
    if len(data) > LIMIT:
        raise errors.HelperError(f"a message of {len(data)} bytes is too long (limit {LIMIT})", "pass large data as a file")
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        widen(sock)  # a socket that was not made here, e.g. a socketpair
        sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


def widen(sock: socket.socket) -> None:
    """Let ``sock`` send messages of :data:`LIMIT` bytes: the kernel refuses those beyond the send buffer with EMSGSIZE."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LIMIT)


def receive(sock: socket.socket, max_fds: int = 16) -> tuple[dict[str, Any] | None, list[int]]:
    """Receive one message: ``(object, descriptors)``; ``(None, [])`` at the end of the stream.

    The descriptors are close-on-exec and belong to the caller. A reset by the peer is an end as well: a peer that closes with
    unread messages of ours gives ECONNRESET instead of an empty read.

    :raises HelperError: not a JSON object, cut off, or more than ``max_fds`` descriptors; none stays open then.
    """
    space = socket.CMSG_SPACE(max_fds * array.array("i").itemsize)
    try:
        # MSG_CMSG_CLOEXEC: between recvmsg and a later fcntl another thread could exec with the descriptor.
        data, ancillary, flags, _ = sock.recvmsg(LIMIT + 1, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None, []
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    try:
        if flags & socket.MSG_CTRUNC and len(fds) < max_fds:  # unix(7): what would pass RLIMIT_NOFILE is closed
            raise errors.HelperError("no descriptor is free for those of a message", "close some files, or raise the limit (ulimit -n)")
        if flags & socket.MSG_CTRUNC:
            raise errors.HelperError(f"a message came with more than {max_fds} descriptors")
        if flags & socket.MSG_TRUNC or len(data) > LIMIT:
            raise errors.HelperError(f"a message is longer than {LIMIT} bytes")
        if not data:
            close_all(fds)
            return None, []
        try:
            obj = json.loads(data)
        except (ValueError, RecursionError):
            raise errors.HelperError(f"a message of {len(data)} bytes is not JSON") from None
        if not isinstance(obj, dict):
            raise errors.HelperError(f"a message is a {type(obj).__name__}, not an object")
    except errors.HelperError:
        close_all(fds)
        raise
    return obj, list(fds)


def close_all(fds: Sequence[int]) -> None:
    """Close every descriptor of ``fds``; one that is closed already is no error."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """``(pid, uid, gid)`` of the peer at the time of ``connect`` (seen by the server) or ``listen`` (seen by the client)."""
    pid, uid, gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII")))
    return pid, uid, gid


def peer_uid(sock: socket.socket) -> int:
    """The user id of the peer; 65534 when it has no id in our user namespace."""
    return peer_credentials(sock)[1]


@contextlib.contextmanager
def reachable(path: str) -> Iterator[str]:
    """``path`` in a form that fits in ``sun_path``: through ``/proc/self/fd/N/name`` of its folder where it is too long."""
    if len(os.fsencode(path)) <= _PATH_LIMIT:
        yield path
        return
    folder = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


def listen(path: str | os.PathLike[str], backlog: int = 128) -> socket.socket:
    """A listening socket at ``path``, mode 0600; a dead one that lies there is replaced.

    It is bound under a temporary name and renamed when it listens: nobody finds a socket that would refuse him.

    :raises HelperError: somebody alive listens at ``path``. Callers hold a lock, so that two do not replace each other's.
    """
    target = os.fspath(path)
    try:
        connect(target, 1.0).close()
    except (FileNotFoundError, ConnectionRefusedError):
        pass
    else:
        raise errors.HelperError(f"{target} is in use by another process")
    temporary = os.path.join(os.path.dirname(target), f".{os.getpid():x}{os.urandom(2).hex()}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with reachable(temporary) as name:
            sock.bind(name)
        try:
            os.chmod(temporary, 0o600)
            sock.listen(backlog)
            os.rename(temporary, target)
        except OSError:
            os.unlink(temporary)
            raise
    except BaseException:
        sock.close()
        raise
    return sock


def bind(path: str, backlog: int = 16) -> socket.socket:
    """A listening socket at ``path``, mode 0600, where nothing lies: for an owner that holds a lock."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    try:
        with reachable(path) as name:
            sock.bind(name)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def connect(path: str | os.PathLike[str], timeout: float) -> socket.socket:
    """Connect to ``path``. ``timeout`` (seconds) holds for connecting and stays set for what follows.

    :raises FileNotFoundError, ConnectionRefusedError: nobody listens there.
    :raises TimeoutError: the backlog stayed full for ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.setblocking(False)
        with reachable(os.fspath(path)) as name:
            while True:
                try:
                    sock.connect(name)
                    break
                except BlockingIOError:
                    # A full backlog is EAGAIN at once on a non-blocking Unix socket; there is nothing to poll for.
                    if time.monotonic() >= deadline:
                        raise TimeoutError(f"{os.fspath(path)} does not answer") from None
                    time.sleep(0.002)
        sock.settimeout(timeout)
        widen(sock)
    except BaseException:
        sock.close()
        raise
    return sock


class Reserve:
    """A descriptor kept back by who listens: a client for whom none is left is told so, instead of waiting for an answer in the backlog."""

    def __init__(self) -> None:
        self._fd = -1
        self._take()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            self._fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def turn_away(self, listener: socket.socket, who: str, why: OSError) -> None:
        """``accept`` has failed with ``why``: give the first who waits an error in the name of ``who``."""
        self.close()
        try:
            conn, _ = listener.accept()
            with conn:
                hint = f"try again when others have left, or raise its limit (prlimit -p {os.getpid()} -n)"
                reply_error(conn, errors.HelperError(f"the {who} takes no more clients: {why.strerror}", hint))
        except OSError:
            time.sleep(0.05)  # no memory either: the client stays in the backlog, and a loop would spin
        self._take()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def error_message(exc: BaseException) -> dict[str, Any]:
    """``exc`` as it travels: ``{"error": class name, "message", "hint"}``, a BuildError with its ``place``.

    Errors that are not ours travel as ContainersError.
    """
    if isinstance(exc, OSError):
        exc = errors.exhausted(exc) or exc
    if isinstance(exc, errors.ContainersError):
        # What was asked for is not wrong where the machine had nothing left to do it with: the hint is about that.
        refused = errors.exhausted(exc.__context__) if isinstance(exc.__context__, OSError) else None
        found: dict[str, Any] = {"error": type(exc).__name__, "message": exc.message, "hint": refused.hint if refused else exc.hint}
        if isinstance(exc, errors.BuildError):
            found |= {"message": exc.text, "place": {"line": exc.line, "column": exc.column, "source": exc.source, "file": exc.file}}
        return found
    return {"error": "ContainersError", "message": f"{type(exc).__name__}: {exc}", "hint": ""}


def reply_error(sock: socket.socket, exc: BaseException) -> None:
    """Send ``exc`` to the other side; a peer that is gone is no error."""
    with contextlib.suppress(OSError):
        send(sock, error_message(exc))


def raise_error(obj: dict[str, Any]) -> None:
    """Raise the error that ``obj`` carries, as the class that it had on the other side; nothing when it carries none."""
    if "error" in obj:
        _raise(obj)


def _raise(obj: dict[str, Any]) -> NoReturn:
    found = getattr(errors, str(obj["error"]), None)
    if not (isinstance(found, type) and issubclass(found, errors.ContainersError)):
        found = errors.ContainersError
    place = obj.get("place", {}) if found is errors.BuildError else {}
    raise found(str(obj.get("message", "unknown error")), str(obj.get("hint", "")), **place)
