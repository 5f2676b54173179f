"""HTTP as registries need it: one request, again and again until there is an answer; redirects that carry no credentials away.

Nobody waits without end here: connecting, each byte and the head of an answer have limits; and :meth:`Transport.close`, from any thread,
ends what others are waiting for.
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3 import connection, connectionpool, exceptions

from ...errors import RegistryError
from ...version import __version__
from . import failures, surroundings
from .failures import Unreachable
from .settings import Settings

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 10
_BLOCK = 1 << 16  # bytes per send: each must be taken within the stall limit
Body = Callable[[], bytes | Iterable[bytes]]
"""Makes the body anew for each attempt."""


class Broken(Exception):
    """A connection that could not be made or broke. ``final``: it is of no use to try again; ``refused``: nobody listens there, or there
    is no such host."""

    def __init__(self, reason: str, hint: str = "", final: bool = False, refused: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.hint, self.final, self.refused = reason, hint, final, refused


@dataclass(frozen=True)
class Origin:
    """Where a URL leads: credentials are for one of these and no other (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """:raises Broken: not a URL that can be asked."""
        try:
            found = urlsplit(url)
            if found.scheme not in ("http", "https") or not found.hostname:
                raise ValueError
            return cls(found.scheme, found.hostname.lower(), found.port or (443 if found.scheme == "https" else 80))
        except ValueError:
            raise Broken("it names an address that cannot be asked", final=True) from None

    @property
    def netloc(self) -> str:
        """``host[:port]``, as it stands in names of images."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


def join(url: str, target: str) -> str:
    """Where a Location leads, seen from ``url``. :raises Broken: nowhere that can be asked."""
    try:
        found = urljoin(url, target)
    except ValueError:
        raise Broken("it names an address that cannot be asked", final=True) from None
    Origin.of(found)
    return found


@dataclass(frozen=True)
class Request:
    """``body`` makes its content anew each time; ``size`` is its length in bytes."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    size: int = 0
    timeout: float = 0.0  # for the answer, seconds; 0: the stall limit
    again: bool = True  # whether it may be sent twice
    authorization: str = field(default="", repr=False)


class Answer:
    """An answer whose body is still to be read. ``origin`` is who gave it, after redirects."""

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str) -> None:
        self._response = response
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers
        self.url, self.origin = url, Origin.of(url)

    def challenges(self) -> list[str]:
        return list(getattr(self._response.headers, "getlist", lambda _: [])("WWW-Authenticate"))

    def length(self) -> int | None:
        said = self.headers.get("Content-Length") or ""
        return int(said) if said.isascii() and said.isdigit() and len(said) < 20 else None

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes, what is there; b"" is the end. :raises Broken: the connection broke."""
        try:
            return self._response.read1(size, decode_content=False)
        except (exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            raise broken(error) from None

    def content(self, most: int) -> bytes:
        """The whole body; more than ``most`` bytes of it are not read, one more tells. :raises Broken: the connection broke."""
        parts, left = [], most + 1
        while left:
            part = self.read(min(left, 1 << 20))
            if not part:
                break
            parts.append(part)
            left -= len(part)
        self.close() if not left else self.release()
        return b"".join(parts)

    def finish(self) -> None:
        """Done with it; the connection is kept where little is left to read."""
        try:
            self.content(_BLOCK)
        except Broken:
            self.close()

    def release(self) -> None:
        self._response.release_conn()

    def close(self) -> None:
        """Away with the connection, whatever is still to come on it. Only by the thread that reads it."""
        self._response.close()

    def wake(self) -> None:
        """Ends the connection under a thread that is reading it: that one gets an end or an error, and closes."""
        sock = getattr(self._response, "watched_socket", None)
        if sock is not None:
            _shut(sock)


class Transport:
    """All connections of one client. Many threads may use it."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.limits = settings, settings.limits
        self._pools: dict[Origin, urllib3.PoolManager] = {}
        self._lock = threading.Lock()
        self._answered: set[Origin] = set()
        self._closed = threading.Event()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def send(self, request: Request, host: str) -> Answer:
        """The answer, whatever its status; those in :data:`.failures.AGAIN` only after several attempts.

        :param host: for messages.
        :raises Unreachable: no answer at all.
        """
        attempts = self.limits.attempts if request.again else 1
        for attempt in range(1, attempts + 1):
            try:
                answer = self.once(request)
            except Broken as error:
                self.check()
                if error.final or attempt == attempts:
                    raise self.unreachable(host, error, attempt) from None
                self.pause(attempt)
                continue
            wait = failures.retry_after(answer.headers)
            useless = (wait or 0) > self.limits.longest or failures.exhausted(answer.headers)
            if answer.status not in failures.AGAIN or attempt == attempts or useless:
                return answer
            answer.finish()
            self.pause(attempt, wait)
        raise AssertionError("there is at least one attempt")

    def once(self, request: Request) -> Answer:
        """One attempt, with its redirects. :raises Broken: no answer."""
        url, authorization, method = request.url, request.authorization, request.method
        for _ in range(_MOST_REDIRECTS):
            origin = Origin.of(url)
            answer = self._ask(origin, method, url, request, authorization)
            target = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or not target or (method not in ("GET", "HEAD") and answer.status not in (307, 308)):
                return answer
            answer.finish()
            url = join(url, target)
            new = Origin.of(url)
            if new != origin:
                authorization = ""  # and it does not come back: who redirects here again chooses what is asked with it
                if new.scheme == "http" and (origin.scheme == "https" or not self.settings.may_be_plain(new.netloc)):
                    raise Broken(f"it redirects to {new.netloc} without TLS", final=True)
                if request.body is not None:
                    raise Broken(f"it redirects an upload to {new.netloc}", final=True)
        raise Broken(f"it redirects more than {_MOST_REDIRECTS} times", final=True)

    def _ask(self, origin: Origin, method: str, url: str, request: Request, authorization: str) -> Answer:
        self.check()
        # Accept-Encoding: a digest is over the bytes as they lie there; http.client asks for identity, said here once more.
        headers = {"User-Agent": f"pycontainers/{__version__}", "Accept-Encoding": "identity", **request.headers}
        if authorization:
            headers["Authorization"] = authorization
        body = request.body() if request.body else None
        if body is not None or method in ("POST", "PUT", "PATCH"):
            headers["Content-Length"] = str(request.size)
        timeout = urllib3.Timeout(connect=self.limits.connect, read=request.timeout or self.limits.stall)
        try:
            response = self._pool(origin).urlopen(
                method, url, body=body, headers=headers, redirect=False, retries=False, preload_content=False, timeout=timeout
            )
        except (exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            found = broken(error)
            # Nobody listens there: no need to ask five times. Who has answered before may be starting again.
            found.final |= found.refused and origin not in self._answered
            raise found from None
        self._answered.add(origin)
        return Answer(response, url)

    def _pool(self, origin: Origin) -> urllib3.PoolManager:
        with self._lock:
            if origin not in self._pools:
                self._pools[origin] = self._make_pool(origin)
            return self._pools[origin]

    def _make_pool(self, origin: Origin) -> urllib3.PoolManager:
        environ = self.settings.environ
        words: dict[str, Any] = {"maxsize": 8, "blocksize": _BLOCK}
        verified = origin.netloc not in self.settings.insecure
        if origin.scheme == "https":
            words["ssl_context"] = surroundings.context(origin.netloc, environ, verified)
            words |= {} if verified else {"cert_reqs": "CERT_NONE", "assert_hostname": False}
        proxy, user = surroundings.proxy(origin.scheme, origin.host, origin.port, environ)
        if proxy:
            words["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=user) if user else {}
            if proxy.startswith("https:"):
                words["proxy_ssl_context"] = surroundings.context(Origin.of(proxy).netloc, environ)
        made = urllib3.ProxyManager(proxy, **words) if proxy else urllib3.PoolManager(**words)
        made.pool_classes_by_scheme = _watched(self._sockets, self.limits.stall, verified)
        return made

    def pause(self, attempt: int, wait: float | None = None) -> None:
        """Before attempt ``attempt`` + 1: what the server asked for, or a time that doubles; jitter, so that many do not come at once."""
        own = self.limits.pause * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
        self._closed.wait(min(max(own, wait or 0.0), self.limits.longest))
        self.check()

    def check(self) -> None:
        """:raises RegistryError: it was closed, by another thread."""
        if self._closed.is_set():
            raise RegistryError("the transfer was stopped")

    def unreachable(self, host: str, error: Broken, attempts: int) -> Unreachable:
        tried = f" ({attempts} attempts)" if attempts > 1 else ""
        return Unreachable(f"registry {host}: {error.reason}{tried}", error.hint)

    def close(self) -> None:
        """End everything, also what other threads are reading, sending or waiting for."""
        self._closed.set()
        for sock in list(self._sockets):
            _shut(sock)
        with self._lock:
            for pool in self._pools.values():
                pool.clear()


def _shut(sock: socket.socket) -> None:
    """Wakes whoever reads or writes there: close(2) alone would leave them waiting."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # of a TLS socket too: no message of farewell, which could block
    except OSError:
        pass


def _watched(sockets: weakref.WeakSet[socket.socket], stall: float, verified: bool) -> dict[str, Any]:
    """Pools whose connections can be ended from outside, and whose answers begin in time."""

    class Watched(connection.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            sockets.add(getattr(self.sock, "socket", self.sock))  # TLS inside TLS (a proxy's) wraps one
            # The time to connect is over; from here on it is how long one send may take.
            self.sock.settimeout(stall)
            if not verified:
                self.is_verified = True  # the user named it as insecure: urllib3 would warn at each connection

        def getresponse(self) -> Any:  # urllib3's own response, where http.client, which it inherits from, has another
            # A server that sends its headers a byte at a time never runs into the limit for one byte.
            late, sock = threading.Event(), getattr(self.sock, "socket", self.sock)

            def expire() -> None:
                late.set()
                _shut(sock)

            timer = threading.Timer((self.timeout or stall) + 1.0, expire)
            timer.daemon = True
            timer.start()
            try:
                found: Any = super().getresponse()
            finally:
                timer.cancel()
            if late.is_set():
                raise TimeoutError("the head of an answer")  # http.client takes an end in the middle of it for its end
            found.watched_socket = sock
            return found

    class WatchedTLS(Watched, connection.HTTPSConnection):
        pass

    class Pool(connectionpool.HTTPConnectionPool):
        ConnectionCls = Watched

    class PoolTLS(connectionpool.HTTPSConnectionPool):
        ConnectionCls = WatchedTLS

    return {"http": Pool, "https": PoolTLS}


def broken(error: Exception) -> Broken:
    """What a library's error means."""
    root: BaseException = error
    while isinstance(root, exceptions.ProxyError | exceptions.MaxRetryError) and isinstance(root.args[-1], BaseException):
        root = root.args[-1]
    through = "the proxy: " if isinstance(error, exceptions.ProxyError) else ""
    tunnel = re.search(r"Tunnel connection failed: (\d{3})", str(root))
    if tunnel:
        hint = "HTTPS_PROXY may carry a user: http://user:password@host:port" if tunnel[1] == "407" else ""
        return Broken(f"the proxy answers {tunnel[1]}", hint, final=tunnel[1].startswith("4"))
    found = _cause(root, ssl.SSLError)
    if isinstance(found, ssl.SSLCertVerificationError):
        hint = "put its authority's certificate into /etc/docker/certs.d/HOST/ca.crt, or name it in SSL_CERT_FILE"
        return Broken(f"{through}its certificate is not trusted: {found.verify_message}", hint, final=True)
    if found is not None or isinstance(root, exceptions.SSLError):
        plain = "WRONG_VERSION_NUMBER" in str(found or root)
        hint = "name it in PYCONTAINERS_INSECURE_REGISTRIES if that is meant" if plain else ""
        reason = "it speaks plain HTTP" if plain else getattr(found, "reason", None) or "it broke off"
        return Broken(f"{through}no TLS: {reason}", hint, final=plain)
    unknown = _cause(root, socket.gaierror)
    if isinstance(root, exceptions.NameResolutionError) or unknown is not None:
        nobody = isinstance(unknown, socket.gaierror) and unknown.errno == socket.EAI_NONAME  # an answer, not the want of one (EAI_AGAIN)
        return Broken(f"{through}its name is not known", "check the name, the network, and HTTPS_PROXY where one is needed", refused=nobody)
    refused = _cause(root, ConnectionRefusedError)
    if refused is not None:
        return Broken(f"{through}connection refused", "is it running, and is the port right?", refused=True)
    if isinstance(root, exceptions.ConnectTimeoutError) and not isinstance(root, exceptions.NewConnectionError):
        return Broken(f"{through}no connection in time", "check the network, and HTTPS_PROXY where one is needed")
    if isinstance(root, exceptions.ReadTimeoutError | TimeoutError):
        return Broken(f"{through}no answer in time")
    system = _cause(root, OSError)
    if isinstance(system, OSError) and system.strerror:
        return Broken(f"{through}{system.strerror.lower()}")
    if isinstance(root, exceptions.LocationParseError | exceptions.LocationValueError):
        return Broken("it names an address that cannot be asked", final=True)
    return Broken(f"{through}the connection broke")


def _cause(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """The first of ``kind`` among an error, its arguments and its causes."""
    for _ in range(8):
        if error is None or isinstance(error, kind):
            return error
        inner = [part for part in error.args if isinstance(part, BaseException)]
        error = inner[-1] if inner else error.__cause__ or error.__context__
    return None
