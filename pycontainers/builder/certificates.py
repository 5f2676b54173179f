"""``--host-certificates``: RUN steps trust the certificate authorities that this machine trusts (a company's proxy, a private mirror).

The bundle is bound beside the image, and the usual programs are told of it by the environment; neither is kept in a layer or a config.
"""

from __future__ import annotations

import os

from ..errors import NotFound
from ..protocol import Mount

TARGET = "/run/pycontainers/ca-certificates.crt"
#: Debian and Ubuntu, Fedora and RHEL, openSUSE, Alpine (the paths of Go's crypto/x509)
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
)  # fmt: skip
#: OpenSSL (and what is built on it), curl, git, requests, pip, Node.js, the AWS tools, cargo
_VARIABLES = (
    "SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
)  # fmt: skip


class Certificates:
    """:raises NotFound: this machine has no bundle of certificate authorities."""

    def __init__(self) -> None:
        given = [os.environ.get("SSL_CERT_FILE", ""), *_BUNDLES]
        found = next((os.path.realpath(path) for path in given if path and os.path.isfile(path)), "")
        if not found:
            raise NotFound("this machine has no bundle of certificate authorities", "install ca-certificates, or set SSL_CERT_FILE")
        self.mount = Mount("bind", TARGET, found, read_only=True, options=("bind",))
        self.environment = dict.fromkeys(_VARIABLES, TARGET)
