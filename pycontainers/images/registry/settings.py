"""What a user may say about registries: mirrors, those that may be asked without TLS, and how patient we are.

``PYCONTAINERS_REGISTRY_MIRRORS="docker.io=https://mirror.example.com/prefix"``,
``PYCONTAINERS_INSECURE_REGISTRIES="registry.lan:5000"`` (several with spaces or commas), or the file ``registries.json`` in the home:
``{"mirrors": {"docker.io": ["https://…"]}, "insecure": ["…"]}``.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ...errors import UsageError
from ...paths import paths


@dataclass(frozen=True)
class Limits:
    """Patience, in seconds and bytes."""

    connect: float = 10.0
    stall: float = 30.0  # without a byte, while something is being read or sent
    commit: float = 600.0  # until an upload is acknowledged: a registry may copy it to its storage first
    slowest: int = 1024  # bytes per second, over `window`: below it a transfer counts as broken
    window: float = 30.0
    attempts: int = 5  # in a row without progress (Docker's number)
    progress: int = 1 << 16  # bytes since the last break that count as progress
    pause: float = 0.5  # before the second attempt; doubled each time, with jitter
    longest: float = 60.0  # the longest pause that a server may ask for; if it wants more, the user is told when to try again


@dataclass(frozen=True)
class Settings:
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    insecure: frozenset[str] = frozenset()
    limits: Limits = Limits()
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, limits: Limits | None = None) -> Settings:
        """From the environment and the home. :raises UsageError: what is said there makes no sense."""
        env = os.environ if environ is None else environ
        mirrors, insecure = _from_file(str(paths(env).home / "registries.json"))
        for word in _words(env.get("PYCONTAINERS_REGISTRY_MIRRORS", "")):
            host, equals, url = word.partition("=")
            if not equals:
                raise UsageError(f"PYCONTAINERS_REGISTRY_MIRRORS: {word!r} has no '='", "for example docker.io=https://mirror.example.com")
            mirrors.setdefault(host, []).append(url)
        insecure += _words(env.get("PYCONTAINERS_INSECURE_REGISTRIES", ""))
        checked = {host: tuple(_mirror(url) for url in urls) for host, urls in mirrors.items()}
        return cls(checked, frozenset(_host(name) for name in insecure), limits or Limits(), env)

    def may_be_plain(self, netloc: str) -> bool:
        """Whether ``host[:port]`` may be spoken to without TLS: this machine, or what the user named."""
        return loopback(netloc) or netloc in self.insecure


def loopback(netloc: str) -> bool:
    host = urlsplit(f"//{netloc}").hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _host(name: str) -> str:
    return urlsplit(name).netloc if "://" in name else name.rstrip("/")


def _mirror(url: str) -> str:
    found = urlsplit(url if "://" in url else f"https://{url}")
    if found.scheme not in ("http", "https") or not found.netloc or "@" in found.netloc or found.query or found.fragment:
        raise UsageError(f"registry mirror {found.hostname or url!r} is not valid", "https://host[:port][/prefix], without a user")
    return found.geturl().rstrip("/")


def _from_file(path: str) -> tuple[dict[str, list[str]], list[str]]:
    try:
        with open(path, "rb") as file:
            said: Any = json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return {}, []
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "it is JSON: see docs/images.md") from None
    mirrors, insecure = (said.get("mirrors", {}), said.get("insecure", [])) if isinstance(said, dict) else ([], [])
    if not isinstance(mirrors, dict) or not all(_texts(urls) for urls in mirrors.values()) or not _texts(insecure):
        hint = 'for example {"mirrors": {"docker.io": ["https://mirror.example.com"]}, "insecure": ["registry.lan:5000"]}'
        raise UsageError(f"{path} has not the right form", hint)
    return {host: list(urls) for host, urls in mirrors.items()}, list(insecure)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
