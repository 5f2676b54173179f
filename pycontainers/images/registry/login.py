"""login and logout, as Docker has them."""

from __future__ import annotations

import re

from ...errors import RegistryError, UsageError
from .. import reference
from . import credentials, failures
from .credentials import Credentials
from .endpoint import Endpoint
from .settings import Settings
from .transport import Transport


def check_host(host: str) -> str:
    """``host[:port]`` of a registry, as it stands in names; "" and Docker's own URLs mean docker.io. :raises UsageError: it is none."""
    plain = re.sub(r"/(v[12]/?)?\Z", "", re.sub(r"\Ahttps?://", "", host.strip()))
    if plain in ("", "docker.io", "index.docker.io", "registry-1.docker.io"):
        return "docker.io"
    return reference.check_host(plain)


def login(host: str, username: str, password: str, settings: Settings | None = None) -> list[str]:
    """Check user and password at the registry, then keep them where Docker does. What the user should read.

    :raises RegistryError: it refuses them or cannot be reached; nothing was kept then.
    """
    if not username or not password or "\0" in username + password:
        raise UsageError("login needs a user and a password", "the password of a token is the token")
    settings = settings or Settings.load()
    host = check_host(host)
    transport = Transport(settings)
    try:
        given = Credentials(username, password)
        endpoint = Endpoint(transport, host, "", known=given)
        open_to_all = _check(endpoint, username)
        token = endpoint.auth.refresh_token
    finally:
        transport.close()
    kept = Credentials(username, identity_token=token) if token else given
    place = credentials.keep(host, kept, settings.environ)
    said = [f"Login succeeded: {username} at {host}"]
    if open_to_all:
        said.append(f"{host} asks nobody for a password: yours was not checked")
    if place.startswith("docker-credential-"):
        return [*said, f"kept by {place}"]
    what = "a token" if token else "the password"
    return [*said, f"WARNING: {what} is stored unencrypted in {place}; a credential helper (credsStore there) would keep it safe"]


def _check(endpoint: Endpoint, username: str) -> bool:
    """Whether the registry lets anybody in. :raises RegistryError: it refuses this user."""
    try:
        answer, _ = endpoint.get("/v2/", "", endpoint.host, 1 << 16, offline=True)
    except failures.Missing:
        raise RegistryError(f"{endpoint.host} is not a registry: it has no /v2/", "check the name and the port") from None
    except failures.Refused as error:
        if error.status not in (401, 403):
            raise
        hint = "check both; some registries want a token instead of the password"
        raise failures.Refused(f"{endpoint.host} refuses user {username} with this password", hint, status=error.status) from None
    return not endpoint.auth.header("") and answer.status < 400


def logout(host: str, settings: Settings | None = None) -> list[str]:
    """Forget what is kept for ``host``. What the user should read. :raises RegistryError: it cannot be removed."""
    settings = settings or Settings.load()
    host = check_host(host)
    there = credentials.forget(host, settings.environ)
    said = [f"Removed the login for {host}" if there else f"There was no login for {host}"]
    if credentials.find(host, environ=settings.environ):
        said.append(f"{host} still has one in podman's auth.json: podman logout {host}")
    return said
