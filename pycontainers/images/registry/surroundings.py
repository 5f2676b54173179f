"""Proxies and certificate authorities, from where other programs of the machine take them too."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import unquote, urlsplit

from ...errors import RegistryError, UsageError
from .settings import loopback


def proxy(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> tuple[str, str]:
    """URL of the proxy without its user, and ``user:password``; "" for none. Go's rules (golang.org/x/net/http/httpproxy).

    :raises UsageError: a proxy of a kind that is not supported.
    """
    name = f"{scheme}_proxy"
    found = environ.get(name) or environ.get(name.upper()) or ""
    if scheme == "http" and not environ.get(name) and environ.get("REQUEST_METHOD"):
        return "", ""  # in a CGI program HTTP_PROXY is the client's header Proxy (CVE-2016-5385)
    if not found or loopback(f"[{host}]" if ":" in host else host):
        return "", ""
    if _excepted(host, port, environ.get("no_proxy") or environ.get("NO_PROXY") or ""):
        return "", ""
    url = urlsplit(found if "://" in found else f"http://{found}")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(f"{name.upper()} names a proxy of kind {url.scheme!r}", "http://host:port or https://host:port")
    user = f"{unquote(url.username)}:{unquote(url.password or '')}" if url.username else ""
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}", user


def _excepted(host: str, port: int, rules: str) -> bool:
    """NO_PROXY: ``*``, a domain (with those below it), ``.domain`` (only those), an address, a range; with or without a port."""
    host = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for rule in rules.lower().replace(",", " ").split():
        if rule == "*":
            return True
        name, _, wanted = rule.rpartition(":") if rule.count(":") == 1 or "]:" in rule else (rule, "", "")
        if wanted and wanted != str(port):
            continue
        name = name.strip("[]").rstrip(".")
        if address is not None:
            try:
                if address in ipaddress.ip_network(name, strict=False):
                    return True
            except ValueError:
                pass
        elif name.startswith(("*.", ".")):
            if host.endswith(name.lstrip("*")):
                return True
        elif name and (host == name or host.endswith(f".{name}")):
            return True
    return False


def context(netloc: str, environ: Mapping[str, str], verify: bool = True) -> ssl.SSLContext:
    """TLS with ``host[:port]``: the system's authorities (SSL_CERT_FILE and SSL_CERT_DIR move them), those of REQUESTS_CA_BUNDLE and
    CURL_CA_BUNDLE, and the registry's own folder in certs.d with authorities (``*.crt``) and our certificate (``*.cert``, ``*.key``).

    :raises RegistryError: one of these files cannot be used.
    """
    made = ssl.create_default_context()
    if not verify:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        bundle = environ.get(name, "")
        if bundle:
            _use(made.load_verify_locations, bundle, name, **{"capath" if os.path.isdir(bundle) else "cafile": bundle})
    for folder in _folders(netloc, environ):
        for entry in sorted(os.listdir(folder)):
            path, (base, end) = f"{folder}/{entry}", os.path.splitext(entry)
            if end == ".crt":
                _use(made.load_verify_locations, path, "certificate authority", cafile=path)
            elif end == ".cert":
                key = f"{folder}/{base}.key"
                if not os.path.exists(key):
                    raise RegistryError(f"{path} has no key beside it", f"{key} is missing")
                _use(made.load_cert_chain, path, "client certificate", certfile=path, keyfile=key)
    return made


def _folders(netloc: str, environ: Mapping[str, str]) -> Iterator[str]:
    own = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
    for base in ("/etc/docker", "/etc/containers", f"{own}/docker", f"{own}/containers"):
        folder = f"{base}/certs.d/{netloc}"
        if os.path.isdir(folder):
            yield folder


def _use(load: Callable[..., None], path: str, what: str, **words: str) -> None:
    try:
        load(**words)
    except (OSError, ssl.SSLError) as error:
        raise RegistryError(f"{what} {path} cannot be used: {error.strerror or error}", "it must be in PEM form and readable") from None
