"""What a registry's refusal means: one line, with its own words in it where they help, and a hint that says what to do."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from ... import text
from ...errors import NotFound, RegistryError

AGAIN = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed later."""


class Refused(RegistryError):
    """A registry's answer that is an error. ``status`` is the HTTP status, ``code`` the registry's own (``DIGEST_INVALID``), or ""."""

    def __init__(self, message: str, hint: str = "", *, status: int, code: str = "") -> None:
        super().__init__(message, hint)
        self.status, self.code = status, code


class Unreachable(RegistryError):
    """No answer, or none that can be used, however often it was asked."""


class Missing(NotFound):
    """404: what was asked for is not there."""

    status, code = 404, ""


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that the server wants us to wait; None where it says nothing that makes sense (RFC 9110, section 10.2.3)."""
    said = (headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", said):
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - (time.time() if now is None else now))
    except (ValueError, TypeError, OverflowError):
        return None


def exhausted(headers: Mapping[str, str]) -> tuple[int, float] | None:
    """Docker Hub's pull rate: ``ratelimit-limit: 100;w=21600`` with ``ratelimit-remaining: 0;w=21600`` is (100, 21600 seconds)."""
    limit = re.match(r"(\d{1,9})(?:;w=(\d{1,9}))?", headers.get("ratelimit-limit") or "")
    left = re.match(r"0(?:;|\Z)", headers.get("ratelimit-remaining") or "")
    return (int(limit[1]), float(limit[2] or 0)) if limit and left else None


def of(status: int, headers: Mapping[str, str], body: bytes, host: str, what: str, secrets: Iterable[str] = ()) -> Refused | Missing:
    """The error for an answer.

    :param what: what was asked for (``localhost:5000/a:1``).
    :param secrets: words that must not be shown, should the server say them.
    """
    code, said = _said(body)
    for secret in secrets:
        said = said.replace(secret, "***") if len(secret) > 3 else said
    words = f": {said}" if said else ""
    if status in (401, 403):
        hint = f"it may not exist, or you must log in: %container login {host}"
        return Refused(f"{host} denies access to {what}{words}", hint, status=status, code=code)
    if status == 404:
        return Missing(f"{what} does not exist{words}", f"look at what there is: %container tags {what.partition('@')[0]}")
    if status == 405 or code == "UNSUPPORTED":
        hint = "its administrator may have switched it off"
        return Refused(f"{host} does not allow this for {what}{words}", hint, status=status, code=code)
    if status == 429:
        return Refused(f"{host} limits how often it is asked{_rate(headers)}{words}", _when(headers), status=status, code=code)
    name = f"{status} {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else str(status)
    if status >= 500:
        wait = retry_after(headers)
        hint = f"try again at {_clock(wait)}" if wait else "the trouble is on its side: try again later"
        return Refused(f"{host} answers {name} for {what}{words}", hint, status=status, code=code)
    return Refused(f"{host} answers {name} for {what}{words}", status=status, code=code)


def _rate(headers: Mapping[str, str]) -> str:
    found = exhausted(headers)
    if not found:
        return ""
    return f": {found[0]} pulls" + (f" in {text.span(found[1])}" if found[1] else "")


def _when(headers: Mapping[str, str]) -> str:
    wait, rate = retry_after(headers), exhausted(headers)
    if wait is not None:
        return f"try again at {_clock(wait)} (in {text.span(wait)})"
    if rate and rate[1]:
        return f"try again at {_clock(rate[1])} at the latest, or log in, which raises the limit"
    return "try again in some minutes, or log in, which may raise the limit"


def _clock(wait: float) -> str:
    moment = time.time() + min(wait, 3.0e8)
    return time.strftime("%H:%M:%S" if wait < 43200 else "%Y-%m-%d %H:%M", time.localtime(moment))


def _said(body: bytes) -> tuple[str, str]:
    """Code and words of an error document (distribution-spec, "Error Codes"; token servers: "details"); "" where it is none."""
    try:
        found: Any = json.loads(body)
        first = found["errors"][0] if isinstance(found.get("errors"), list) and found["errors"] else found
        code = first.get("code", "")
        words = first.get("message") or first.get("details") or first.get("error_description") or first.get("error") or ""
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return "", ""
    return (code if isinstance(code, str) else "")[:60], (text.one_line(words)[:200] if isinstance(words, str) else "")
