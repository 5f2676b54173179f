"""Registries for tests: Debian's docker-registry (plain, with passwords, with tokens, with TLS), and one that misbehaves on demand."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pycontainers.images import descriptor, manifest
from pycontainers.images.descriptor import Descriptor
from pycontainers.images.manifest import Manifest
from pycontainers.images.registry.settings import Limits, Settings

USER, PASSWORD = "alice", "secret-password"
_BCRYPT = "$2y$05$abcdefghijklmnopqrstuu8jXihDn6YyI16dkpSl33R.slyuyqYCi"  # of PASSWORD: docker-registry takes nothing else
SHORT = Limits(connect=5, stall=2, commit=10, window=1, slowest=1000, pause=0.02, longest=3)
"""Patience for tests."""


def settings(folder: Path, limits: Limits = SHORT, **environ: str) -> Settings:
    """As in a session of a user whose home is ``folder`` and who has said nothing else."""
    env = {"HOME": str(folder), "PATH": os.environ["PATH"], "PYCONTAINERS_HOME": f"{folder}/state", "XDG_RUNTIME_DIR": f"{folder}/run"}
    return Settings.load(env | environ, limits)


# -- images


@dataclass
class Image:
    """A small image as bytes."""

    manifest: Manifest
    blobs: dict[str, bytes] = field(default_factory=dict)

    def open(self, blob: Descriptor) -> io.BytesIO:
        return io.BytesIO(self.blobs[blob.digest])


def image(size: int = 1000, layers: int = 2, docker: bool = False, architecture: str = "amd64") -> Image:
    """Layers of ``size`` random bytes each, gzip."""
    blobs, ids, rows = {}, [], []
    for number in range(layers):
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as tar:
            entry = tarfile.TarInfo(f"file{number}")
            entry.size = size
            tar.addfile(entry, io.BytesIO(os.urandom(size)))
        ids.append("sha256:" + hashlib.sha256(plain.getvalue()).hexdigest())
        kind = descriptor.DOCKER_LAYER + ".gzip" if docker else descriptor.OCI_LAYER + "+gzip"
        rows.append(add(blobs, gzip.compress(plain.getvalue(), 1), kind))
    said = {"architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": ids}}
    config = add(blobs, json.dumps(said).encode(), descriptor.DOCKER_CONFIG if docker else descriptor.OCI_CONFIG)
    kind = descriptor.DOCKER_MANIFEST if docker else descriptor.OCI_MANIFEST
    return Image(manifest.make(config, rows, media_type=kind), blobs)


def add(blobs: dict[str, bytes], data: bytes, kind: str) -> Descriptor:
    digest = manifest.digest(data)
    blobs[digest] = data
    return Descriptor(kind, digest, len(data))


# -- docker-registry


@dataclass
class Server:
    """A docker-registry that runs. ``host`` is as in names of images."""

    host: str
    folder: Path
    process: subprocess.Popen[bytes]

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def requests(self, method: str) -> list[str]:
        """Paths that were asked with ``method``."""
        return re.findall(rf'"{method} (\S+) HTTP', self.log())


@contextlib.contextmanager
def docker_registry(folder: Path, auth: str = "", tls: str = "", delete: bool = True) -> Iterator[Server]:
    """:param auth: YAML below ``auth:``. :param tls: YAML below ``http: tls:``."""
    host = "127.0.0.1"
    program = shutil.which("docker-registry")
    if not program:
        pytest.skip("docker-registry is not installed (Debian: apt-get install docker-registry)")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    text = "version: 0.1\n"
    text += f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: {json.dumps(delete)}}}}}\n"
    text += f"http:\n  addr: {host}:{port}\n  secret: x\n"
    text += f"  tls: {tls}\n" if tls else ""
    text += f"auth: {auth}\n" if auth else ""
    (folder / "config.yml").write_text(text)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([program, "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 30
        while not _listens(host, port):
            assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.02)
        yield Server(f"{host}:{port}", folder, process)
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def _listens(host: str, port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((host, port)) == 0


def with_passwords(folder: Path) -> contextlib.AbstractContextManager[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "htpasswd").write_text(f"{USER}:{_BCRYPT}\n")
    return docker_registry(folder, f"{{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}")


@dataclass
class Keys:
    """A private authority, and a server's certificate for 127.0.0.1 and localhost by it."""

    authority: Path
    certificate: Path
    key: Path


def keys(folder: Path) -> Keys:
    folder.mkdir(parents=True, exist_ok=True)

    def run(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    run(*"req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=authority".split())
    run(*"req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost".split())
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    run(*"x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out server.crt -extfile names".split())
    return Keys(folder / "ca.crt", folder / "server.crt", folder / "server.key")


# -- a token server (distribution: auth/token, auth/oauth)


class TokenServer:
    """Gives JWTs that a docker-registry believes: USER may do anything, everybody may pull what begins with ``public/``."""

    def __init__(self, folder: Path) -> None:
        self.keys, self.asked = keys(folder), list[dict[str, Any]]()
        self.life, self.shift = 300, 0  # seconds: what a token says of its life, and by how much it ends earlier
        self.refresh_tokens = {"a-refresh-token"}
        self.field = "token"
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                words = parse_qs(urlsplit(self.path).query)
                given = self.headers.get("Authorization", "")
                server.asked.append({"method": "GET", "authorization": given, **words})
                user = ""
                if given:
                    if given != "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode():
                        return self.answer(401, {"details": "incorrect username or password"})
                    user = USER
                self.give(user, words, offline="offline_token" in words)

            def do_POST(self) -> None:
                words = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                server.asked.append({"method": "POST", **words})
                if words.get("grant_type") != ["refresh_token"] or words["refresh_token"][0] not in server.refresh_tokens:
                    return self.answer(401, {"error": "invalid_grant"})
                self.give(USER, words, name="access_token")

            def give(self, user: str, words: dict[str, list[str]], offline: bool = False, name: str = "") -> None:
                said: dict[str, Any] = {name or server.field: server.token(user, words), "expires_in": server.life}
                if offline and user:
                    said["refresh_token"] = "a-refresh-token"
                self.answer(200, said)

            def answer(self, status: int, said: dict[str, Any]) -> None:
                body = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.http = _serve(Handler)
        self.realm = f"http://127.0.0.1:{self.http.server_port}/token"

    def token(self, user: str, words: dict[str, list[str]]) -> str:
        access = []
        for scope in " ".join(words.get("scope", [])).split():
            kind, name, actions = scope.split(":")
            allowed = actions.split(",") if user else ["pull"] if name.startswith("public/") else []
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        claims: dict[str, Any] = {"iss": "tests", "sub": user, "aud": words["service"][0], "jti": "x"}
        claims |= {"exp": now + self.life - self.shift, "nbf": now - 10, "iat": now}
        chain = [base64.b64encode(ssl.PEM_cert_to_DER_cert(self.keys.certificate.read_text())).decode()]
        parts = [{"typ": "JWT", "alg": "RS256", "x5c": chain}, claims | {"access": access}]
        text = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
        argv = ["openssl", "dgst", "-sha256", "-sign", str(self.keys.key)]
        return f"{text}.{_base64url(subprocess.run(argv, input=text.encode(), capture_output=True, check=True).stdout)}"

    def auth(self) -> str:
        """What docker-registry's configuration says of it."""
        return f"{{token: {{realm: '{self.realm}', service: tests, issuer: tests, rootcertbundle: {self.keys.authority}}}}}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _serve(handler: type[BaseHTTPRequestHandler], keys: Keys | None = None) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    if keys:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(keys.certificate, keys.key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


# -- a registry that misbehaves


@dataclass
class Asked:
    """A request that came; ``headers`` with lower-case names."""

    method: str
    path: str
    headers: dict[str, str]


class Handler(BaseHTTPRequestHandler):
    """One request of :class:`Faulty`; faults use :meth:`answer` and ``wfile``."""

    protocol_version = "HTTP/1.1"
    registry: Faulty

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Headers by keyword, with ``_`` for ``-``."""
        self.send_response(status)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if not {"Content-Length", "Transfer-Encoding"} & set(names):
            names["Content-Length"] = str(len(body))
        for name, value in names.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def cut(self) -> None:
        """End the connection here."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def handle_one(self) -> None:
        registry = self.registry
        registry.asked.append(Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for fault in registry.faults:
                if fault.fits(self) and fault.act(self):
                    return
            registry.serve(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

    def log_message(self, *_: Any) -> None: ...


@dataclass
class Fault:
    """``act`` answers a request, or returns False to let it be served as usual."""

    method: str
    pattern: str
    act: Callable[[Handler], Any]
    times: int

    def fits(self, handler: Handler) -> bool:
        if self.times <= 0 or handler.command != self.method or not re.search(self.pattern, handler.path):
            return False
        self.times -= 1
        return True


class Faulty:
    """A registry in memory, by the specification except where a fault was planted. Every repository holds everything."""

    def __init__(self, keys: Keys | None = None) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}  # tag or digest -> type, bytes
        self.uploads: dict[str, bytearray] = {}
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.absolute = False  # whether Location is
        self.least = 0
        self._http = _serve(type("Bound", (Handler,), {"registry": self}), keys)
        self.host = f"127.0.0.1:{self._http.server_port}"
        self.url = f"{'https' if keys else 'http'}://{self.host}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def fault(self, method: str, pattern: str, act: Callable[[Handler], Any], times: int = 1 << 30) -> None:
        """From now on; ``act`` returning False (not None) lets the request pass."""
        self.faults.append(Fault(method, pattern, lambda handler: act(handler) is not False, times))

    def hold(self, held: Image, tag: str = "1") -> Manifest:
        self.blobs |= held.blobs
        for place in (tag, held.manifest.digest):
            self.manifests[place] = (held.manifest.media_type, held.manifest.raw)
        return held.manifest

    def hold_raw(self, raw: bytes, kind: str, tag: str = "1") -> str:
        digest = manifest.digest(raw)
        self.manifests[tag] = self.manifests[digest] = (kind, raw)
        return digest

    def paths(self, method: str) -> list[str]:
        return [one.path for one in self.asked if one.method == method]

    # -- by the book

    def serve(self, request: Handler) -> None:
        path = urlsplit(request.path).path
        if path == "/v2/":
            return request.answer(200, b"{}")
        for pattern, act in (
            (r"/v2/(.+)/manifests/([^/]+)", self._manifest),
            (r"/v2/(.+)/blobs/uploads/([^/]*)", self._upload),
            (r"/v2/(.+)/blobs/([^/]+)", self._blob),
            (r"/v2/(.+)/tags/(list)", self._tag_list),
        ):
            found = re.fullmatch(pattern, path)
            if found:
                return act(request, found[1], found[2])
        request.answer(404)

    def _manifest(self, request: Handler, repository: str, place: str) -> None:
        if request.command == "PUT":
            raw = request.body()
            digest = self.hold_raw(raw, request.headers["Content-Type"], place)
            return request.answer(201, Docker_Content_Digest=digest)
        if place not in self.manifests:
            return request.answer(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')
        kind, raw = self.manifests[place]
        request.answer(200, raw, Content_Type=kind, Docker_Content_Digest=manifest.digest(raw))

    def _blob(self, request: Handler, repository: str, digest: str) -> None:
        data = self.blobs.get(digest)
        if data is None:
            return request.answer(404, b'{"errors": [{"code": "BLOB_UNKNOWN", "message": "blob unknown"}]}')
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if asked:
            start = int(asked[1])
            return request.answer(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.answer(200, data)

    def _upload(self, request: Handler, repository: str, session: str) -> None:
        body = request.body()
        if request.command == "POST":
            session = f"s{len(self.uploads)}"
            self.uploads[session] = bytearray()
        elif session not in self.uploads:
            return request.answer(404, b'{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}')
        upload = self.uploads[session]
        if request.command == "PATCH":
            asked = re.fullmatch(r"(\d+)-(\d+)", request.headers.get("Content-Range", ""))
            if asked and int(asked[1]) != len(upload):
                return request.answer(416, Location=self._location(repository, session), Range=f"0-{max(0, len(upload) - 1)}")
        upload += body
        if request.command == "PUT":
            digest = parse_qs(urlsplit(request.path).query)["digest"][0]
            if manifest.digest(bytes(upload)) != digest:
                return request.answer(400, b'{"errors": [{"code": "DIGEST_INVALID", "message": "provided digest did not match"}]}')
            self.blobs[digest] = bytes(self.uploads.pop(session))
            return request.answer(201, Docker_Content_Digest=digest, Location=f"/v2/{repository}/blobs/{digest}")
        headers = {"Location": self._location(repository, session), "Range": f"0-{max(0, len(upload) - 1)}"}
        if self.least:
            headers["OCI_Chunk_Min_Length"] = str(self.least)
        request.answer(204 if request.command == "GET" else 202, **headers)

    def _location(self, repository: str, session: str) -> str:
        return f"{self.url if self.absolute else ''}/v2/{repository}/blobs/uploads/{session}?_state=a%3Db"

    def _tag_list(self, request: Handler, repository: str, _: str) -> None:
        words = parse_qs(urlsplit(request.path).query)
        names = sorted(name for name in self.manifests if not name.startswith("sha256:"))
        last, count = words.get("last", [""])[0], min(int(words["n"][0]), 2)
        rest = [name for name in names if name > last]
        page = rest[:count]
        link = {"Link": f'</v2/{repository}/tags/list?n={count}&last={page[-1]}>; rel="next"'} if len(rest) > count else {}
        request.answer(200, json.dumps({"name": repository, "tags": page}).encode(), **link)
