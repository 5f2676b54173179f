"""One place that answers for a registry: the registry itself, or a mirror. It finds out how to speak to it, and says who we are."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from urllib.parse import urljoin, urlsplit

from ...errors import RegistryError
from . import credentials, failures
from .auth import Authentication
from .credentials import Credentials
from .transport import Answer, Body, Broken, Origin, Request, Transport, join

HUB = "registry-1.docker.io"  # who answers for docker.io
_DOCUMENT = 1 << 16  # bytes of an error's words


class Endpoint:
    """``host[:port]`` as in names of images.

    :param mirror: the URL of a mirror that answers in its place, perhaps with a prefix of its repositories.
    :param known: credentials to use instead of the user's.
    """

    def __init__(self, transport: Transport, host: str, path: str, mirror: str = "", known: Credentials | None = None) -> None:
        self.transport, self.mirror = transport, mirror
        place = urlsplit(mirror)
        self.host = place.netloc or host
        self.repository = f"{place.path.strip('/')}/{path}".strip("/")
        self._known = known
        self._lock = threading.Lock()
        self._base = mirror.removesuffix(place.path) if mirror else ""
        self._auth: Authentication | None = None

    # -- how to speak to it

    @property
    def base(self) -> str:
        """``https://host[:port]``: TLS, and without only where that is allowed and it answers."""
        with self._lock:
            if not self._base:
                self._base = self._find_base()
            if self._base.startswith("http:") and not self.transport.settings.may_be_plain(self.host):
                hint = "PYCONTAINERS_INSECURE_REGISTRIES names those that may be asked without TLS"
                raise RegistryError(f"registry {self.host} would be asked without TLS", hint)
            return self._base

    def _find_base(self) -> str:
        if not self.transport.settings.may_be_plain(self.host):
            return f"https://{HUB if self.host == 'docker.io' else self.host}"
        try:
            # Plain first: a TLS server ends such a request at once, while a plain one may wait for the end of a TLS greeting.
            answer = self.transport.once(Request("GET", f"http://{self.host}/v2/", timeout=self.transport.limits.connect))
        except Broken:
            return f"https://{self.host}"
        answer.finish()
        if answer.origin.scheme == "https" and answer.origin.host == Origin.of(f"http://{self.host}").host:
            return f"https://{answer.origin.netloc}"
        # 400 is what Go's and nginx's TLS servers say to a plain request.
        return f"{'https' if answer.status == 400 else 'http'}://{self.host}"

    @property
    def auth(self) -> Authentication:
        base = self.base
        with self._lock:
            if self._auth is None:
                self._auth = Authentication(self.transport, self.host, Origin.of(base), self._credentials)
            return self._auth

    def _credentials(self) -> Credentials | None:
        return self._known or credentials.find(self.host, self.repository, self.transport.settings.environ)

    # -- asking

    def ask(
        self,
        method: str,
        where: str,
        scope: str,
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        size: int = 0,
        timeout: float = 0.0,
        again: bool = True,
        accept: Collection[int] = (),
        offline: bool = False,
    ) -> Answer:
        """The answer to a request, with its body still to be read.

        :param where: ``/v2/…``, or a URL that the registry named; another host gets no credentials.
        :param scope: what a token must allow: ``repository:a:pull``.
        :param what: for messages: what is asked for.
        :param accept: statuses from 400 on that are no errors.
        :raises RegistryError: it refuses or cannot be reached. :raises NotFound: 404.
        """
        url = urljoin(self.base, where)
        own = Origin.of(url) == Origin.of(self.base)
        header, fresh = self.auth.header(scope) if own else "", False
        while True:
            request = Request(method, url, headers or {}, body, size, timeout, again, header)
            answer = self.transport.send(request, self.host)
            if answer.status != 401 or not own or answer.origin != Origin.of(self.base):
                break
            challenges = answer.challenges()
            answer.finish()
            if fresh:
                raise self.auth.denied(what, scope)
            header, fresh = self.auth.renew(challenges, scope, header, offline), True
            if not header:
                raise self.auth.denied(what, scope)
        if answer.status < 400 or answer.status in accept:
            return answer
        raise self._failure(answer, what, scope)

    def _failure(self, answer: Answer, what: str, scope: str) -> Exception:
        try:
            words = answer.content(_DOCUMENT)
        except Broken:
            words = b""
        host = self.host if answer.origin == Origin.of(self.base) else f"{self.host} (at {answer.origin.netloc})"
        error = failures.of(answer.status, answer.headers, words, host, what, self.auth.secrets())
        if answer.status in (401, 403) and answer.origin == Origin.of(self.base):
            said = error.message.partition(f"access to {what}")[2]
            return self.auth.denied(what, scope, answer.status, said)
        return error

    def get(
        self, where: str, scope: str, what: str, most: int, headers: Mapping[str, str] | None = None, offline: bool = False
    ) -> tuple[Answer, bytes]:
        """A whole body of at most ``most`` bytes; asked again when it breaks off. :raises RegistryError: larger, or as :meth:`ask`."""
        limits = self.transport.limits
        for attempt in range(1, limits.attempts + 1):
            answer = self.ask("GET", where, scope, what, headers=headers, offline=offline)
            try:
                body = answer.content(most)
            except Broken as error:
                answer.close()
                if attempt == limits.attempts:
                    raise self.transport.unreachable(self.host, error, attempt) from None
                self.transport.pause(attempt)
                continue
            if len(body) > most:
                raise RegistryError(f"{self.host} sends more than {most} bytes for {what}", "that is no answer of a registry")
            return answer, body
        raise AssertionError("there is at least one attempt")

    def follow(self, answer: Answer, location: str) -> str:
        """Where an upload goes on, absolute. :raises RegistryError: nowhere, or where anybody could read it."""
        try:
            url = join(answer.url, location)
            place = Origin.of(url) if location else None
        except Broken:
            place = None
        if place is None:
            raise RegistryError(f"{self.host} does not say where an upload goes on (Location {location!r:.60})")
        if place.scheme == "http" and (self.base.startswith("https:") or not self.transport.settings.may_be_plain(place.netloc)):
            raise RegistryError(
                f"{self.host} wants an upload without TLS, at {place.netloc}",
                "behind a proxy it needs the headers Host and X-Forwarded-Proto",
            )
        return url
