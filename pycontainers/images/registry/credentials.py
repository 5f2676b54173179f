"""Who we are at a registry: Docker's ``config.json`` with its helper programs, and podman's ``auth.json`` after it.

In each file ``credHelpers`` (a program for one registry) goes before ``credsStore`` (one for all), and that before ``auths``
(in the file itself).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ... import text
from ...errors import RegistryError

DOCKER_HUB = "https://index.docker.io/v1/"  # under this name Docker keeps what is for docker.io
_NOT_FOUND = "credentials not found in native keychain"  # docker-credential-helpers: errors are words on stdout
_TOKEN_USER = "<token>"  # a helper's user name for an identity token
_HELPER_TIME = 120.0  # seconds: it may ask its user to open a key ring


@dataclass(frozen=True)
class Credentials:
    """A user and a password, or a token in its place; never shown."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    def secrets(self) -> list[str]:
        return [word for word in (self.password, self.identity_token, self.registry_token, self.basic()) if word]

    def basic(self) -> str:
        """user:password as the scheme Basic carries it (RFC 7617); "" where there is no password."""
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode() if self.password else ""


def find(host: str, path: str = "", environ: Mapping[str, str] | None = None) -> Credentials | None:
    """What is kept for ``host[:port]``, and for ``path`` in it where podman's file says so.

    :raises RegistryError: a file is malformed, or a helper program is missing or fails.
    """
    env = os.environ if environ is None else environ
    for file in files(env):
        said = read(file)
        program = _program(said, host)
        found = _ask(program, host, env, file) if program else _kept(said, host, path, file)
        if found:
            return found
    return None


def files(environ: Mapping[str, str]) -> list[str]:
    """Where credentials may lie; the first is Docker's, which login writes to."""
    home = environ.get("HOME") or os.path.expanduser("~")
    found = [docker_file(environ)]
    if environ.get("REGISTRY_AUTH_FILE"):
        return [*found, environ["REGISTRY_AUTH_FILE"]]
    runtime = environ.get("XDG_RUNTIME_DIR")
    found.append(f"{runtime}/containers/auth.json" if runtime else f"/run/containers/{os.geteuid()}/auth.json")
    return [*found, f"{environ.get('XDG_CONFIG_HOME') or f'{home}/.config'}/containers/auth.json"]


def docker_file(environ: Mapping[str, str]) -> str:
    folder = environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".docker")
    return os.path.join(folder, "config.json")


def read(path: str) -> dict[str, Any]:
    """The file, {} where there is none. :raises RegistryError: it is not what it should be (its content is not shown)."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        said = json.loads(data) if data.strip() else {}
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}  # another user's: as with Docker, no reason to refuse a public image
    except (OSError, ValueError, RecursionError):
        raise RegistryError(f"{path} is not valid JSON", "mend it, or move it away and log in again") from None
    helpers, auths = (said.get("credHelpers"), said.get("auths")) if isinstance(said, dict) else (1, 1)
    if not isinstance(helpers, dict | None) or not isinstance(auths, dict | None):
        raise RegistryError(f"{path} has not the form of Docker's config.json", "'auths' and 'credHelpers' are objects")
    return dict(said)


def _names(host: str) -> list[str]:
    """How the key for ``host`` may be written."""
    return [DOCKER_HUB, "docker.io", "index.docker.io", "registry-1.docker.io"] if host == "docker.io" else [host]


def server(host: str) -> str:
    """The name under which Docker keeps credentials for ``host``."""
    return DOCKER_HUB if host == "docker.io" else host


def _plain(key: str) -> str:
    """``https://host/v1/`` is ``host``."""
    return re.sub(r"/v[12]/?\Z", "", re.sub(r"\Ahttps?://", "", key)).rstrip("/")


def _program(said: dict[str, Any], host: str) -> str:
    helpers = said.get("credHelpers") or {}
    for name in _names(host):
        for key, program in helpers.items():
            if key == name or _plain(key) == _plain(name):
                return str(program)
    store = said.get("credsStore") or ""
    return store if isinstance(store, str) else ""


def _kept(said: dict[str, Any], host: str, path: str, file: str) -> Credentials | None:
    auths = said.get("auths") or {}
    parts = path.split("/") if path else []
    places = [f"{host}/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1)]  # podman: the longest that fits
    for name in [*places, *_names(host)]:
        for key, value in auths.items():
            if (key == name or _plain(key) == _plain(name)) and isinstance(value, dict):
                found = _decode(value, key, file)
                if found:
                    return found
    return None


def _decode(value: dict[str, Any], key: str, file: str) -> Credentials | None:
    fields = {name: value.get(name) or "" for name in ("username", "password", "auth", "identitytoken", "registrytoken")}
    if not all(isinstance(word, str) for word in fields.values()):
        raise RegistryError(f"{file}: what stands under {key!r} is malformed", "log in again")
    user, password = fields["username"], fields["password"]
    if fields["auth"]:
        try:
            user, colon, password = base64.b64decode(fields["auth"], validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            colon = ""
        if not colon:
            raise RegistryError(f"{file}: 'auth' under {key!r} is malformed", "log in again")
    found = Credentials(user, password.strip("\0"), fields["identitytoken"], fields["registrytoken"])  # Docker pads with NULs
    return found if found.secrets() else None


# -- helper programs (docker-credential-helpers: the request on stdin, JSON or an error's words on stdout)


def _ask(program: str, host: str, environ: Mapping[str, str], file: str) -> Credentials | None:
    for name in _names(host):
        answer = helper(program, "get", name, environ, file)
        if answer is None:
            continue
        try:
            said = json.loads(answer)
            user, secret = said["Username"], said["Secret"]
            if not isinstance(user, str) or not isinstance(secret, str):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise RegistryError(f"docker-credential-{program} get: its answer is malformed", f"it is named in {file}") from None
        if secret:
            return Credentials(identity_token=secret) if user == _TOKEN_USER else Credentials(user, secret)
    return None


def helper(program: str, verb: str, request: str, environ: Mapping[str, str], file: str) -> str | None:
    """Run ``docker-credential-PROGRAM VERB``; its output, None where it has no such credentials.

    :raises RegistryError: it is missing, fails or does not end.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", program):
        raise RegistryError(f"{file} names a credential helper {program!r:.60}", "a program docker-credential-NAME on the PATH")
    argv = [f"docker-credential-{program}", verb]
    try:
        done = subprocess.run(
            argv, input=request.encode(), capture_output=True, check=False, timeout=_HELPER_TIME, env=dict(environ), start_new_session=True
        )
    except (FileNotFoundError, PermissionError):
        raise RegistryError(f"{argv[0]} is not installed", f"{file} names it: install it, or take it out there and log in again") from None
    except subprocess.TimeoutExpired:
        raise RegistryError(f"{argv[0]} {verb} did not answer in {_HELPER_TIME:.0f} seconds", f"it is named in {file}") from None
    said = done.stdout.decode(errors="replace").strip()
    if done.returncode == 0:
        return said
    if _NOT_FOUND in said:
        return None
    # stdout of a failed `get` is its message; of no other verb is it trusted not to repeat what it was given.
    words = text.one_line(said if verb == "get" else done.stderr.decode(errors="replace"))[:200]
    if verb == "store":
        words = ""
    raise RegistryError(f"{argv[0]} {verb} failed ({done.returncode}){': ' if words else ''}{words}", f"it is named in {file}")


# -- writing


def keep(host: str, found: Credentials, environ: Mapping[str, str]) -> str:
    """Store credentials where Docker would; where that is (``docker-credential-x``, or the file's path).

    :raises RegistryError: it cannot be written, or the helper fails.
    """
    file = docker_file(environ)
    with _changing(file) as said:
        program = _program(said, host)
        auths = said.setdefault("auths", {}) if said.get("auths") is not None or not program else {}
        if program:
            user, secret = (_TOKEN_USER, found.identity_token) if found.identity_token else (found.username, found.password)
            request = json.dumps({"ServerURL": server(host), "Username": user, "Secret": secret})
            helper(program, "store", request, environ, file)
            auths[server(host)] = {}  # Docker leaves this mark, so that the registry is listed
            said["auths"] = auths
            return f"docker-credential-{program}"
        if said["auths"] is None:
            auths = said["auths"] = {}
        entry: dict[str, str] = {}
        if found.identity_token:
            entry["auth"] = base64.b64encode(f"{found.username}:".encode()).decode()
            entry["identitytoken"] = found.identity_token
        else:
            entry["auth"] = found.basic()
        auths[server(host)] = entry
        return file


def forget(host: str, environ: Mapping[str, str]) -> bool:
    """Take them away from where :func:`keep` puts them; whether there were any."""
    file = docker_file(environ)
    there = False
    if not os.path.exists(file):
        return False
    with _changing(file) as said:
        program = _program(said, host)
        if program:
            for name in _names(host):
                if helper(program, "get", name, environ, file) is not None:
                    helper(program, "erase", name, environ, file)
                    there = True
        auths = said.get("auths") or {}
        wanted = {_plain(name) for name in _names(host)}
        for key in [key for key in auths if _plain(key) in wanted]:
            there = there or bool(auths[key])
            del auths[key]
    return there


@contextlib.contextmanager
def _changing(file: str) -> Iterator[dict[str, Any]]:
    """The file's content, written back whole and private; a link is followed, as Docker does; two who change it wait for each other."""
    real = os.path.realpath(file)
    folder = os.path.dirname(real)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(real) and not os.access(real, os.R_OK):
                raise PermissionError(13, "Permission denied", real)  # nobody's unknown fields are thrown away
            said = read(real)
            before = json.dumps(said)
            yield said
            if json.dumps(said) != before:
                _write(real, said)
        finally:
            os.close(lock)
    except OSError as error:
        raise RegistryError(f"{error.filename or file}: {error.strerror}", "DOCKER_CONFIG names another folder for it") from None


def _write(real: str, said: dict[str, Any]) -> None:
    temporary = f"{real}.{secrets.token_hex(6)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "w", encoding="utf-8") as out:
            json.dump(said, out, indent="\t")
            out.write("\n")
            out.flush()
            os.fsync(out.fileno())
        if os.path.exists(real):
            owner = os.stat(real)
            if owner.st_uid != os.geteuid():
                os.chown(temporary, owner.st_uid, owner.st_gid)  # root's `sudo` login must not lock its owner out
        os.rename(temporary, real)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
