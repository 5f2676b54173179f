"""The way to a registry: Docker's names, mirrors, proxies, authorities; and what is never asked without TLS."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pycontainers.errors import ContainersError, NotFound, RegistryError, UsageError
from pycontainers.images import descriptor, manifest
from pycontainers.images.descriptor import Descriptor, Platform
from pycontainers.images.registry import surroundings
from pycontainers.images.registry.client import Registry
from pycontainers.images.registry.credentials import Credentials
from pycontainers.images.registry.settings import Settings, loopback

from .registries import PASSWORD, SHORT, USER, Faulty, Keys, free_port, image, keys, settings

AMD64 = Platform.parse("linux/amd64")
Client = Callable[..., Registry]


class Proxy:
    """An HTTP proxy that leads every tunnel and request to one place, whatever is asked for; it remembers the heads of requests."""

    def __init__(self, target: str, user: str = "") -> None:
        self.target, self.user, self.heads = target, user, list[str]()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._lead, args=(self._socket.accept()[0],), daemon=True).start()

    def _lead(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError), near:
            head = b""
            while b"\r\n\r\n" not in head:
                head += near.recv(65536)
            self.heads.append(head.decode("latin-1"))
            if self.user and f"Basic {base64.b64encode(self.user.encode()).decode()}" not in self.heads[-1]:
                near.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            host, _, port = self.target.rpartition(":")
            far = socket.create_connection((host, int(port)))
            if head.startswith(b"CONNECT"):
                near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                method, url, rest = head.split(b" ", 2)
                far.sendall(b" ".join([method, b"/" + url.split(b"/", 3)[3], rest]))
            with far:
                self._both(near, far)

    @staticmethod
    def _both(near: socket.socket, far: socket.socket) -> None:
        while True:
            for ready in select.select([near, far], [], [], 30)[0]:
                data = ready.recv(65536)
                if not data:
                    return
                (far if ready is near else near).sendall(data)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """For any name that these tests use."""
    folder = tmp_path_factory.mktemp("keys")
    found = keys(folder)
    names = "subjectAltName=DNS:registry-1.docker.io,DNS:auth.docker.io,DNS:registry.example.com,DNS:localhost,IP:127.0.0.1\n"
    (folder / "names").write_text(names)
    sign = "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out server.crt -extfile names"
    subprocess.run(["openssl", *sign.split()], cwd=folder, check=True, capture_output=True)
    return found


@pytest.fixture
def mirror(other: Faulty) -> Faulty:
    return other


@pytest.fixture
def tls(certificates: Keys) -> Iterator[Faulty]:
    found = Faulty(certificates)
    yield found
    found.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    made = []

    def make(name: str, environ: dict[str, str] | None = None, limits: dict[str, Any] | None = None, **words: Any) -> Registry:
        made.append(Registry(name, settings(tmp_path, replace(SHORT, **(limits or {})), **(environ or {})), **words))
        return made[-1]

    yield make
    for one in made:
        one.close()


def pull(registry: Registry) -> dict[str, bytes]:
    found = registry.manifest(AMD64)
    return {found.config.digest: registry.config(found)} | {blob.digest: registry.open(blob).read() for blob in found.layers}


# -- Docker Hub, through a proxy that leads to ourselves


def test_debian_is_asked_for_at_docker_hub(tls: Faulty, client: Client, certificates: Keys) -> None:
    held = image()
    tls.hold(held, "latest")

    def guard(request: Any) -> Any:
        if request.headers.get("Authorization") == "Bearer abc":
            return False
        realm = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull"'
        request.answer(401, WWW_Authenticate=realm)

    for method in ("HEAD", "GET"):
        tls.fault(method, "/v2/library/", guard)
    tls.fault("GET", "^/token", lambda request: request.answer(200, b'{"token": "abc", "expires_in": 300}'))
    proxy = Proxy(tls.host)
    environ = {"HTTPS_PROXY": proxy.url, "REQUESTS_CA_BUNDLE": str(certificates.authority)}
    assert pull(client("debian", environ)) == held.blobs
    asked = {head.split(" ")[1] for head in proxy.heads}
    assert asked == {"registry-1.docker.io:443", "auth.docker.io:443"}
    assert all(path.startswith(("/v2/library/debian/", "/token?")) for path in tls.paths("GET"))
    proxy.close()


# -- proxies


def test_a_proxy_with_a_password(tls: Faulty, client: Client, certificates: Keys) -> None:
    held = image()
    tls.hold(held)
    proxy = Proxy(tls.host, "pu:p w@")
    url = proxy.url.replace("//", "//pu:p%20w%40@")
    environ = {"https_proxy": url, "CURL_CA_BUNDLE": str(certificates.authority)}
    assert pull(client("registry.example.com/a:1", environ)) == held.blobs
    with pytest.raises(RegistryError, match="proxy") as caught:
        client("registry.example.com/a:1", environ | {"https_proxy": url.replace("p%20w", "wrong-word")}, {"attempts": 1}).tags()
    assert "wrong-word" not in str(caught.value) and "the proxy answers 407" in caught.value.message
    proxy.close()


def test_plain_http_through_a_proxy(faulty: Faulty, client: Client) -> None:
    held = image()
    faulty.hold(held)
    proxy = Proxy(faulty.host)
    environ = {"http_proxy": proxy.url, "PYCONTAINERS_INSECURE_REGISTRIES": "registry.lan.test:5000"}
    assert pull(client("registry.lan.test:5000/a:1", environ)) == held.blobs
    assert proxy.heads[0].startswith("GET http://registry.lan.test:5000/v2/ HTTP/1.1")
    proxy.close()


def test_this_machine_is_never_asked_through_a_proxy(faulty: Faulty, client: Client) -> None:
    faulty.hold(image())
    assert client(f"{faulty.host}/a:1", {"HTTP_PROXY": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1"}).tags() == ["1"]


@pytest.mark.parametrize(
    ("rules", "host", "through"),
    [
        ("", "a.example.com", True),
        ("*", "a.example.com", False),
        ("example.com", "a.example.com", False),
        ("example.com", "example.com", False),
        ("example.com", "notexample.com", True),
        (".example.com", "example.com", True),
        (".example.com", "a.example.com", False),
        ("*.example.com", "a.example.com", False),
        ("a.example.com:443", "a.example.com", False),
        ("a.example.com:444", "a.example.com", True),
        ("10.0.0.0/8,x", "10.1.2.3", False),
        ("10.0.0.0/8", "11.1.2.3", True),
        ("10.1.2.3", "10.1.2.3", False),
        ("fd00::/8", "fd00::1", False),
        ("other, EXAMPLE.com", "a.Example.com", False),
    ],
)
def test_no_proxy(rules: str, host: str, through: bool) -> None:
    found = surroundings.proxy("https", host, 443, {"HTTPS_PROXY": "proxy.test:3128", "NO_PROXY": rules})
    assert found == (("http://proxy.test:3128", "") if through else ("", ""))


def test_proxies_that_are_not_taken() -> None:
    assert surroundings.proxy("http", "a.test", 80, {"HTTP_PROXY": "http://x:1", "REQUEST_METHOD": "GET"}) == ("", "")
    assert surroundings.proxy("https", "a.test", 80, {"HTTP_PROXY": "http://x:1"}) == ("", "")
    with pytest.raises(UsageError, match="'socks5'") as caught:
        surroundings.proxy("https", "a.test", 80, {"HTTPS_PROXY": f"socks5://u:{PASSWORD}@x:1"})
    assert PASSWORD not in str(caught.value)


# -- what is asked without TLS, and what is not


def test_only_this_machine_and_whom_the_user_names_are_asked_without_tls(client: Client, tmp_path: Path) -> None:
    for text, plain in (("localhost:5000", True), ("127.9.9.9", True), ("[::1]:5000", True), ("localhost.example.com", False)):
        assert loopback(text) is plain
    assert not loopback("127.0.0.1.example.com") and not loopback("10.0.0.1:5000") and not loopback("0.0.0.0")
    # Port 9 of an address that is for documentation (RFC 5737): nobody is there, and plain HTTP was never tried.
    registry = client("registry.example.com:9/a", {"HTTPS_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"})
    with pytest.raises(RegistryError, match="proxy"):
        registry.tags()
    assert registry._own.base == "https://registry.example.com:9"


def test_a_registry_that_speaks_plain_http_where_it_may_not(faulty: Faulty, client: Client) -> None:
    proxy = Proxy(faulty.host)
    with pytest.raises(RegistryError, match=r"plain HTTP|no TLS|broke") as caught:
        client("registry.example.com/a", {"HTTPS_PROXY": proxy.url}, {"attempts": 1}).tags()
    assert "\n" not in caught.value.message and not faulty.paths("GET")
    proxy.close()


def test_a_redirect_out_of_tls(tls: Faulty, faulty: Faulty, client: Client, certificates: Keys) -> None:
    blob = Descriptor(descriptor.OCI_LAYER, manifest.digest(b"x"), 1)
    faulty.blobs[blob.digest] = b"x"
    tls.fault("GET", "/blobs/", lambda request: request.answer(307, Location=f"{faulty.url}{request.path}"))
    with pytest.raises(RegistryError, match="without TLS"):
        client(f"{tls.host}/a", {"REQUESTS_CA_BUNDLE": str(certificates.authority)}).open(blob)
    tls.fault("POST", "/uploads/", lambda request: request.answer(202, Location=f"http://{tls.host}/v2/a/blobs/uploads/x"))
    registry = client(f"{tls.host}/a", {"REQUESTS_CA_BUNDLE": str(certificates.authority)})
    with pytest.raises(RegistryError, match="upload without TLS") as caught:
        registry.put(blob, lambda: open(os.devnull, "rb"), lambda _: None)
    assert "X-Forwarded-Proto" in caught.value.hint
    assert not faulty.asked


def test_a_token_server_without_tls_of_a_registry_with_it(tls: Faulty, faulty: Faulty, client: Client, certificates: Keys) -> None:
    tls.fault("GET", "/tags/", lambda request: request.answer(401, WWW_Authenticate=f'Bearer realm="{faulty.url}/token"'))
    known = Credentials(USER, PASSWORD)
    with pytest.raises(RegistryError, match="token server without TLS"):
        client(f"{tls.host}/a", {"REQUESTS_CA_BUNDLE": str(certificates.authority)}, credentials=known).tags()
    assert not faulty.asked


def test_a_certificate_of_another_name(tmp_path: Path, client: Client) -> None:
    own = keys(tmp_path / "own")
    server = Faulty(own)
    proxy = Proxy(server.host)
    environ = {"HTTPS_PROXY": proxy.url, "REQUESTS_CA_BUNDLE": str(own.authority)}
    with pytest.raises(RegistryError, match="certificate is not trusted"):
        client("other.example.com/a", environ).tags()
    assert not server.asked
    proxy.close()
    server.close()


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_bundle_that_is_not_there(client: Client, variable: str, certificates: Keys, tls: Faulty) -> None:
    with pytest.raises(RegistryError, match=f"{variable} /nowhere.pem cannot be used"):
        client(f"{tls.host}/a", {variable: "/nowhere.pem"}).tags()


# -- mirrors


def test_a_mirror_answers_and_the_registry_is_left_alone(faulty: Faulty, mirror: Faulty, client: Client) -> None:
    held = image()
    mirror.hold(held)
    assert pull(client(f"{faulty.host}/a:1", {"PYCONTAINERS_REGISTRY_MIRRORS": f"{faulty.host}={mirror.url}/cache/hub"})) == held.blobs
    assert not faulty.asked
    assert all(one.path.startswith("/v2/cache/hub/a/") for one in mirror.asked)


@pytest.mark.parametrize("trouble", ["missing", "broken", "gone", "lying", "locked"])
def test_what_a_mirror_cannot_the_registry_can(faulty: Faulty, mirror: Faulty, client: Client, trouble: str) -> None:
    held = image()
    faulty.hold(held)
    url = f"http://127.0.0.1:{free_port()}" if trouble == "gone" else mirror.url
    if trouble in ("broken", "locked"):
        for method in ("HEAD", "GET"):
            mirror.fault(method, "/", lambda request: request.answer(502 if trouble == "broken" else 401))
    if trouble == "lying":
        mirror.hold(held)
        mirror.fault("GET", "/manifests/", lambda request: request.answer(200, b"{}", Content_Type=descriptor.OCI_MANIFEST))
    assert pull(client(f"{faulty.host}/a:1", {"PYCONTAINERS_REGISTRY_MIRRORS": f"{faulty.host}={url}"})) == held.blobs
    assert len(mirror.asked) < 10


def test_a_mirror_that_breaks_in_the_middle(faulty: Faulty, mirror: Faulty, client: Client) -> None:
    held = image(size=2 << 20, layers=1)
    faulty.hold(held)
    mirror.hold(held)
    layer = held.manifest.layers[0]

    def act(request: Any) -> None:
        request.answer(200, held.blobs[layer.digest][: 1 << 20], Content_Length=str(layer.size))
        request.cut()

    mirror.fault("GET", layer.digest, act, times=1)
    mirror.fault("GET", layer.digest, lambda request: request.cut())
    assert pull(client(f"{faulty.host}/a:1", {"PYCONTAINERS_REGISTRY_MIRRORS": f"{faulty.host}={mirror.url}"})) == held.blobs
    assert [one.headers.get("range") for one in faulty.asked if layer.digest in one.path] == [f"bytes={1 << 20}-"]


def test_what_neither_has(faulty: Faulty, mirror: Faulty, client: Client) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        client(f"{faulty.host}/a:1", {"PYCONTAINERS_REGISTRY_MIRRORS": f"{faulty.host}={mirror.url}"}).manifest(AMD64)


def test_the_registry_s_password_does_not_go_to_its_mirror(faulty: Faulty, mirror: Faulty, client: Client, tmp_path: Path) -> None:
    faulty.hold(image())
    mirror.fault("HEAD", "/", lambda request: request.answer(401, WWW_Authenticate='Basic realm="x"'))
    (tmp_path / ".docker").mkdir()
    auth = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
    (tmp_path / ".docker" / "config.json").write_text(json.dumps({"auths": {faulty.host: auth}}))
    client(f"{faulty.host}/a:1", {"PYCONTAINERS_REGISTRY_MIRRORS": f"{faulty.host}={mirror.url}"}).resolve()
    assert mirror.asked and all("authorization" not in one.headers for one in mirror.asked)


def test_nothing_is_pushed_to_a_mirror(faulty: Faulty, mirror: Faulty, client: Client) -> None:
    held = image()
    registry = client(f"{faulty.host}/a:1", {"PYCONTAINERS_REGISTRY_MIRRORS": f"{faulty.host}={mirror.url}"})
    for blob in (*held.manifest.layers, held.manifest.config):
        assert not registry.has(blob)
        registry.put(blob, lambda blob=blob: held.open(blob), lambda _: None)
    registry.finish(held.manifest)
    assert faulty.manifests["1"][1] == held.manifest.raw and not mirror.asked


def test_settings_from_the_file_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "registries.json").write_text(json.dumps({"mirrors": {"docker.io": ["https://one.test/"]}, "insecure": ["r.lan:5000"]}))
    environ = {"PYCONTAINERS_HOME": str(tmp_path), "PYCONTAINERS_REGISTRY_MIRRORS": "docker.io=two.test/x ghcr.io=http://three.test"}
    found = Settings.load(environ | {"PYCONTAINERS_INSECURE_REGISTRIES": "a.lan, http://b.lan:80"})
    assert found.mirrors == {"docker.io": ("https://one.test", "https://two.test/x"), "ghcr.io": ("http://three.test",)}
    assert found.insecure == {"r.lan:5000", "a.lan", "b.lan:80"}


@pytest.mark.parametrize(
    "said",
    [
        *('{"mirrors": []}', '{"mirrors": {"a": "b"}}', '{"insecure": "x"}', "[]", "{"),
        *('{"mirrors": {"a": ["ftp://x"]}}', '{"mirrors": {"a": ["https://u:p@x"]}}'),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, said: str) -> None:
    (tmp_path / "registries.json").write_text(said)
    with pytest.raises(ContainersError) as caught:
        Settings.load({"PYCONTAINERS_HOME": str(tmp_path)})
    assert "u:p" not in str(caught.value)
    with pytest.raises(UsageError, match="has no '='"):
        Settings.load({"PYCONTAINERS_HOME": "/nowhere", "PYCONTAINERS_REGISTRY_MIRRORS": "https://x.test"})


# -- helpers and the registry together


def test_a_helper_that_is_missing_matters_only_where_a_password_is_wanted(faulty: Faulty, client: Client, tmp_path: Path) -> None:
    faulty.hold(image())
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text('{"credsStore": "desktop-that-is-gone"}')
    assert client(f"{faulty.host}/a:1").tags() == ["1"]
    faulty.fault("GET", "/tags/", lambda request: request.answer(401, WWW_Authenticate='Basic realm="x"'))
    with pytest.raises(RegistryError, match="denies anonymous") as caught:
        client(f"{faulty.host}/a:1").tags()
    assert "docker-credential-desktop-that-is-gone is not installed" in caught.value.hint


