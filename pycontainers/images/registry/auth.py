"""From a challenge to a header Authorization: Basic, and Bearer with Docker's token servers (distribution: auth/token, auth/oauth)."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from ...errors import RegistryError
from . import failures
from .credentials import Credentials
from .transport import Answer, Broken, Origin, Request, Transport

CLIENT = "pycontainers"
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}\Z")
_LIFE = 60.0  # seconds: of a token that says nothing (distribution: auth/token)
_MARGIN = 0.15  # part of its life in which a token is not begun with any more
_ANSWER = 1 << 20  # bytes of a token server's answer


@dataclass(frozen=True)
class Challenge:
    """One of WWW-Authenticate (RFC 9110, section 11.6.1); ``scheme`` and the names of ``words`` in lower case."""

    scheme: str
    words: dict[str, str]


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of all headers, in order; what is malformed ends its header."""
    found: list[Challenge] = []
    word = r'[ \t,]*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^ \t,"]+)'
    for header in headers:
        at = 0
        while start := re.compile(r"[ \t,]*([A-Za-z][A-Za-z0-9-]*)(?=[ \t,]|\Z)").match(header, at):
            at, words = start.end(), {}
            while pair := re.compile(word).match(header, at):
                text = pair[2]
                words[pair[1].lower()] = re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text
                at = pair.end()
            found.append(Challenge(start[1].lower(), words))
    return found


@dataclass(frozen=True)
class _Token:
    header: str
    until: float  # time.monotonic()


class Authentication:
    """What one registry is told about us. Many threads may use it; one at a time fetches a token.

    :param find: the user's credentials, asked when the registry first wants to know (a helper program may ask its user).
    """

    def __init__(self, transport: Transport, host: str, origin: Origin, find: Callable[[], Credentials | None]) -> None:
        self._transport, self.host, self._origin, self._find = transport, host, origin, find
        self._lock = threading.Lock()
        self._known: dict[str, _Token] = {}
        self._basic = ""
        self._asked = False
        self._credentials: Credentials | None = None
        self.trouble: RegistryError | None = None
        self.refresh_token = ""  # what the token server gave in place of the password (login asks for it)

    def header(self, scope: str) -> str:
        """The header for ``scope`` if it is known already, else ""."""
        token = self._known.get(scope)
        return token.header if token and token.until > time.monotonic() else self._basic

    def renew(self, said: list[str], scope: str, refused: str, offline: bool = False) -> str:
        """Another header, after a 401 for ``refused``; "" where the challenges ask for nothing that we could answer.

        :param said: the WWW-Authenticate headers.
        :raises RegistryError: the token server refuses, or cannot be asked.
        """
        with self._lock:
            known = self.header(scope)
            if known and known != refused:
                return known  # another thread was quicker
            self._known.pop(scope, None)
            wanted = challenges(said)
            for one in wanted:
                if one.scheme == "bearer" and one.words.get("realm"):
                    token = self._fetch(one, scope, offline)
                    self._known[scope] = token
                    return token.header
            found = self.credentials()
            if any(one.scheme == "basic" for one in wanted) and found and found.basic():
                self._basic = f"Basic {found.basic()}"
                return self._basic if self._basic != refused else ""
            return ""

    def credentials(self) -> Credentials | None:
        """The user's. A helper that fails is no error yet: what is public needs none. It is told when access is denied."""
        if not self._asked:
            self._asked = True
            try:
                self._credentials = self._find()
            except RegistryError as error:
                self.trouble = error
        return self._credentials

    def secrets(self) -> list[str]:
        return [*(self._credentials.secrets() if self._credentials else []), *(t.header.partition(" ")[2] for t in self._known.values())]

    def denied(self, what: str, scope: str, status: int = 401, words: str = "") -> RegistryError:
        """The error of a registry that does not let us."""
        user = self._credentials.username or "the holder of the token" if self._credentials else "anonymous"
        hint = f"it may not exist, or {'another user may' if self._credentials else 'you must log in'}: %container login {self.host}"
        if self.trouble:
            hint = f"credentials were not found: {self.trouble.message}" + (f"; {self.trouble.hint}" if self.trouble.hint else "")
        asked = f" ({scope})" if scope else ""
        return failures.Refused(f"{self.host} denies {user} access to {what}{asked}{words}", hint, status=status)

    # -- token servers

    def _fetch(self, challenge: Challenge, scope: str, offline: bool) -> _Token:
        realm, service = challenge.words["realm"], challenge.words.get("service", "")
        try:
            place = Origin.of(realm)
        except Broken:
            raise RegistryError(f"{self.host} names a token server that cannot be asked: {realm!r:.100}") from None
        # The realm comes from the registry alone. A password goes there only where nobody on the way can read it, and from
        # a registry with TLS nothing goes on without it.
        plain = place.scheme == "http"
        if plain and (self._origin.scheme == "https" or not self._transport.settings.may_be_plain(place.netloc)):
            raise RegistryError(
                f"{self.host} names a token server without TLS: {place.netloc}",
                "its configuration is wrong; PYCONTAINERS_INSECURE_REGISTRIES names hosts that may be asked without",
            )
        found = self.credentials()
        if found and found.registry_token:
            return _Token(f"Bearer {found.registry_token}", time.monotonic() + _LIFE)
        scopes = _together(scope, challenge.words.get("scope", ""))
        request = self._request(realm, service, scopes, found, offline)
        return self._read(self._transport.send(request, self.host), place, scopes)

    def _request(self, realm: str, service: str, scopes: str, found: Credentials | None, offline: bool) -> Request:
        if found and found.identity_token:
            words = {"grant_type": "refresh_token", "service": service, "scope": scopes, "client_id": CLIENT}
            body = urlencode(words | {"refresh_token": found.identity_token}).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return Request("POST", realm, headers, lambda: body, len(body))
        pairs = [("service", service)] if service else []
        pairs += [("scope", one) for one in scopes.split()]
        authorization = ""
        if found and found.basic():
            pairs.append(("account", found.username))
            authorization = f"Basic {found.basic()}"
        if offline:
            pairs += [("offline_token", "true"), ("client_id", CLIENT)]
        url = f"{realm}{'&' if urlsplit(realm).query else '?'}{urlencode(pairs)}" if pairs else realm
        return Request("GET", url, authorization=authorization)

    def _read(self, answer: Answer, place: Origin, scopes: str) -> _Token:
        try:
            body = answer.content(_ANSWER)
        except Broken as error:
            raise self._transport.unreachable(place.netloc, error, 1) from None
        if answer.status != 200:
            if answer.status not in (400, 401, 403):
                what = f"a token for {scopes or self.host}"
                raise failures.of(answer.status, answer.headers, body, place.netloc, what, self.secrets())
            if not self._credentials or scopes:
                raise self.denied(self.host, scopes, answer.status)
            raise failures.Refused(
                f"{self.host} refuses the password of {self._credentials.username or 'the holder of the token'}",
                f"log in again: %container login {self.host}",
                status=answer.status,
            )
        said = _object(body)
        token, life = said.get("token") or said.get("access_token"), said.get("expires_in")
        if not isinstance(token, str) or not _TOKEN.match(token):
            raise RegistryError(f"the token server {place.netloc} of {self.host} gives no token")
        refresh = said.get("refresh_token")
        if isinstance(refresh, str) and _TOKEN.match(refresh):
            self.refresh_token = refresh
        seconds = float(life) if isinstance(life, int) and not isinstance(life, bool) and 0 < life < 1 << 31 else _LIFE
        return _Token(f"Bearer {token}", time.monotonic() + seconds * (1 - _MARGIN))


def _together(ours: str, theirs: str) -> str:
    """Our scopes, and what the registry asks for beyond them: not each resource twice, which some servers answer with the lesser."""
    allowed: dict[str, dict[str, None]] = {}
    for scope in f"{ours} {theirs}".split():
        resource, _, actions = scope.rpartition(":")
        allowed.setdefault(resource, {}).update(dict.fromkeys(actions.split(",")))
    return " ".join(f"{resource}:{','.join(actions)}" for resource, actions in allowed.items())


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
