"""A registry that misbehaves: the right bytes come out of it, or one line that says what is wrong."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from pycontainers.errors import ContainersError, ImageError, NotFound, RegistryError
from pycontainers.images import descriptor, manifest, reference
from pycontainers.images.descriptor import Descriptor, Platform
from pycontainers.images.registry.client import Registry
from pycontainers.images.registry.credentials import Credentials

from .registries import PASSWORD, SHORT, USER, Faulty, Handler, image, settings

AMD64 = Platform.parse("linux/amd64")
KNOWN = Credentials(USER, PASSWORD)
Client = Callable[..., Registry]


@pytest.fixture
def client(tmp_path: Path, faulty: Faulty) -> Iterator[Client]:
    made = []

    def make(name: str = "a:1", limits: dict[str, Any] | None = None, environ: dict[str, str] | None = None, **words: Any) -> Registry:
        own = settings(tmp_path, replace(SHORT, **(limits or {})), **(environ or {}))
        made.append(Registry(f"{faulty.host}/{name}", own, **words))
        return made[-1]

    yield make
    for one in made:
        one.close()


def large(faulty: Faulty, size: int = 1 << 20) -> tuple[Descriptor, bytes]:
    data = os.urandom(size)
    blob = Descriptor(descriptor.OCI_LAYER, manifest.digest(data), size)
    faulty.blobs[blob.digest] = data
    return blob, data


def fails(act: Callable[[], Any], match: str, kind: type[ContainersError] = RegistryError) -> ContainersError:
    """One line, without any secret."""
    with pytest.raises(kind, match=match) as caught:
        act()
    error = caught.value
    assert "\n" not in error.message and "\n" not in error.hint and len(error.message) < 400
    assert PASSWORD not in str(error) and (not KNOWN.basic() or KNOWN.basic() not in str(error))
    return error


def cut_after(count: int) -> Callable[[Handler], Any]:
    """The answer by the book, ended after ``count`` bytes of body."""

    def act(request: Handler) -> None:
        data = request.registry.blobs[request.path.rpartition("/")[2]]
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        total, said = len(data), {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        request.answer(206 if start else 200, data[start : start + count], Content_Length=str(total - start), **said)
        request.cut()

    return act


# -- bodies


def test_a_body_that_breaks_off_goes_on_where_it_stopped(faulty: Faulty, client: Client) -> None:
    blob, data = large(faulty)
    faulty.fault("GET", "/blobs/", cut_after(300_000), times=1)
    assert client().open(blob).read() == data
    ranges = [one.headers.get("range") for one in faulty.asked if "/blobs/" in one.path]
    assert ranges == [None, "bytes=300000-"]


def test_a_connection_that_breaks_again_and_again_is_no_matter_while_something_comes(faulty: Faulty, client: Client) -> None:
    blob, data = large(faulty)
    faulty.fault("GET", "/blobs/", cut_after(70_000))
    assert client().open(blob).read() == data
    assert len(faulty.paths("GET")) >= len(data) // 70_000


@pytest.mark.parametrize("count", [0, 10])
def test_a_connection_that_always_breaks_is_an_error(faulty: Faulty, client: Client, count: int) -> None:
    blob, _ = large(faulty)
    faulty.fault("GET", "/blobs/", cut_after(count))
    error = fails(lambda: client().open(blob).read(), "the connection broke")
    assert blob.short in error.message and "5 attempts" in error.message
    assert len([path for path in faulty.paths("GET") if "/blobs/" in path]) == 5


def test_a_body_in_chunks_that_ends_early(faulty: Faulty, client: Client) -> None:
    blob, data = large(faulty)

    def act(request: Handler) -> None:
        request.answer(200, Transfer_Encoding="chunked")
        request.wfile.write(b"10000\r\n" + data[:65536] + b"\r\n")
        request.cut()

    faulty.fault("GET", "/blobs/", act, times=1)
    assert client().open(blob).read() == data


def test_a_body_without_a_length_that_ends_early(faulty: Faulty, client: Client) -> None:
    blob, data = large(faulty)

    def act(request: Handler) -> None:
        request.answer(200, data[:1000], Connection="close", Transfer_Encoding="identity")
        request.cut()

    faulty.fault("GET", "/blobs/", act, times=1)
    assert client().open(blob).read() == data


def test_a_server_that_ignores_range(faulty: Faulty, client: Client) -> None:
    blob, data = large(faulty)
    faulty.fault("GET", "/blobs/", cut_after(300_000), times=1)
    faulty.fault("GET", "/blobs/", lambda request: request.answer(200, data))
    assert client().open(blob).read() == data
    assert client().open(blob, 1000).read() == data[1000:]


@pytest.mark.parametrize("said", ["bytes 5-1048575/1048576", "bytes 300000-1048575/9999999", "nonsense", "", "bytes 300001-1048575/*"])
def test_a_range_that_was_not_asked_for(faulty: Faulty, client: Client, said: str) -> None:
    blob, data = large(faulty)
    faulty.fault("GET", "/blobs/", cut_after(300_000), times=1)
    faulty.fault("GET", "/blobs/", lambda request: request.answer(206, data[300_000:], Content_Range=said))
    fails(lambda: client().open(blob).read(), "asked for bytes 300000-")


def test_a_range_that_does_not_exist(faulty: Faulty, client: Client) -> None:
    blob, _ = large(faulty)
    faulty.fault("GET", "/blobs/", cut_after(300_000), times=1)
    faulty.fault("GET", "/blobs/", lambda request: request.answer(416))
    fails(lambda: client().open(blob).read(), "holds no byte 300000")


@pytest.mark.parametrize("size", [1, 1 << 19, (1 << 20) + 1])
def test_a_wrong_size_is_said_before_anything_is_read(faulty: Faulty, client: Client, size: int) -> None:
    blob, _ = large(faulty)
    faulty.blobs[blob.digest] = b"x" * size
    fails(lambda: client().open(blob), f"sends {size} bytes, the manifest says {1 << 20}")


def endless(request: Handler) -> None:
    request.answer(200, Transfer_Encoding="chunked")
    while True:
        request.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def test_an_endless_body_is_read_to_the_size_and_no_further(faulty: Faulty, client: Client) -> None:
    blob = Descriptor(descriptor.OCI_LAYER, "sha256:" + "0" * 64, 1 << 20)
    faulty.fault("GET", "/blobs/", endless)
    read, reader = 0, client().open(blob)
    with pytest.raises(RegistryError, match="sends more than its 1048576 bytes"):
        while piece := reader.read(100_000):
            read += len(piece)
    assert read <= blob.size


def test_an_endless_manifest_and_an_endless_error(faulty: Faulty, client: Client) -> None:
    faulty.hold(image())
    faulty.fault("GET", "/manifests/", endless, times=1)
    fails(lambda: client().manifest(AMD64), "sends more than 4194304 bytes")

    def error(request: Handler) -> None:
        request.answer(400, Transfer_Encoding="chunked")
        while True:
            request.wfile.write(b"1\r\nx\r\n" * 1000)

    faulty.fault("GET", "/manifests/", error)
    fails(lambda: client().manifest(AMD64), "400 Bad Request")


def test_a_wrong_digest(faulty: Faulty, client: Client) -> None:
    held, evil = image(), image()
    faulty.hold(held)
    faulty.blobs[held.manifest.config.digest] = b"x" * held.manifest.config.size
    found = client().manifest(AMD64)
    fails(lambda: client().config(found), "is not what its digest says", ImageError)
    faulty.manifests[held.manifest.digest] = (evil.manifest.media_type, evil.manifest.raw)
    fails(lambda: client().manifest(AMD64), "is not what its digest says", ImageError)
    fails(lambda: client(f"a@{held.manifest.digest}").manifest(AMD64), "is not what its digest says", ImageError)


def test_a_digest_that_the_registry_calls_otherwise(faulty: Faulty, client: Client) -> None:
    held = image()
    faulty.hold(held)
    lie = {"Content_Type": held.manifest.media_type, "Docker_Content_Digest": "sha256:" + "1" * 64}
    faulty.fault("GET", "/manifests/sha256", lambda request: request.answer(200, held.manifest.raw, **lie))
    fails(lambda: client().manifest(AMD64), "and calls it sha256:1111", ImageError)


def test_a_registry_that_says_no_digest(faulty: Faulty, client: Client) -> None:
    held = image()
    faulty.hold(held)
    faulty.fault("HEAD", "/manifests/", lambda request: request.answer(200, held.manifest.raw, Content_Type=held.manifest.media_type))
    assert client().manifest(AMD64) == held.manifest
    faulty.fault("HEAD", "/manifests/", lambda request: request.answer(405))
    assert client().manifest(AMD64) == held.manifest


# -- manifests and indexes


def test_a_manifest_that_is_an_index_too(faulty: Faulty, client: Client) -> None:
    held = image()
    both = json.loads(held.manifest.raw) | {"manifests": []}
    faulty.hold_raw(json.dumps(both).encode(), descriptor.OCI_MANIFEST)
    fails(lambda: client().manifest(AMD64), "manifest and index at once", ImageError)


def test_a_manifest_that_is_sent_as_an_index(faulty: Faulty, client: Client) -> None:
    held = image()
    faulty.hold_raw(held.manifest.raw, descriptor.OCI_INDEX)
    fails(lambda: client().manifest(AMD64), "sent as", ImageError)


def index(*rows: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": descriptor.OCI_INDEX, "manifests": rows}).encode()


def row(held: manifest.Manifest, **change: Any) -> dict[str, Any]:
    return held.descriptor.json() | {"platform": {"os": "linux", "architecture": "amd64"}} | change


def test_an_index_that_lies(faulty: Faulty, client: Client) -> None:
    held = faulty.hold(image(), "2")
    for change, word in (({"size": 3}, "bytes, not 3"), ({"mediaType": descriptor.DOCKER_MANIFEST}, "sent as|was named as|says it is")):
        faulty.hold_raw(index(row(held, **change)), descriptor.OCI_INDEX)
        fails(lambda: client().manifest(AMD64), word, ImageError)
    missing = image().manifest
    faulty.hold_raw(index(row(missing)), descriptor.OCI_INDEX)
    fails(lambda: client().manifest(AMD64), "does not exist", NotFound)


def test_indexes_in_indexes(faulty: Faulty, client: Client) -> None:
    held = faulty.hold(image(), "2")
    raw = index(row(held))
    for _ in range(2):
        faulty.hold_raw(raw, descriptor.OCI_INDEX)
        raw = index({"mediaType": descriptor.OCI_INDEX, "digest": manifest.digest(raw), "size": len(raw)})
    faulty.hold_raw(raw, descriptor.OCI_INDEX)
    assert client().manifest(AMD64) == held
    for _ in range(4):
        faulty.hold_raw(raw, descriptor.OCI_INDEX)
        raw = index({"mediaType": descriptor.OCI_INDEX, "digest": manifest.digest(raw), "size": len(raw)})
    faulty.hold_raw(raw, descriptor.OCI_INDEX)
    fails(lambda: client().manifest(AMD64), "levels deep", ImageError)


def test_schema_1(faulty: Faulty, client: Client) -> None:
    faulty.hold_raw(b'{"schemaVersion": 1, "fsLayers": []}', "application/vnd.docker.distribution.manifest.v1+prettyjws")
    fails(lambda: client().manifest(AMD64), "schema 1", ImageError)


def test_a_page_of_html(faulty: Faulty, client: Client) -> None:
    faulty.hold(image())
    faulty.fault("HEAD", "/manifests/", lambda request: request.answer(200, Content_Type="text/html"))
    faulty.fault("GET", "/manifests/", lambda request: request.answer(200, b"<html>log in</html>", Content_Type="text/html"))
    fails(lambda: client().manifest(AMD64), "not valid JSON", ImageError)


# -- who may come in


@pytest.mark.parametrize("challenge", ['Basic realm="x"', 'Bearer realm="http://{host}/token",service="x",scope="repository:a:pull"'])
def test_a_registry_that_never_lets_us_in(faulty: Faulty, client: Client, challenge: str) -> None:
    said = challenge.format(host=faulty.host)
    faulty.fault("HEAD", "/manifests/", lambda request: request.answer(401, WWW_Authenticate=said))
    faulty.fault("GET", "/token", lambda request: request.answer(200, b'{"token": "t0ken-value", "expires_in": 300}'))
    error = fails(lambda: client(credentials=KNOWN).manifest(AMD64), rf"denies {USER} access to .*/a:1 \(repository:a:pull\)")
    assert "t0ken-value" not in str(error)
    assert len(faulty.paths("HEAD")) == 2 and len([path for path in faulty.paths("GET") if "/token" in path]) <= 1


def test_several_challenges_in_one_header_and_in_two(faulty: Faulty, client: Client) -> None:
    faulty.hold(image())

    def act(request: Handler) -> Any:
        if request.headers.get("Authorization") == "Bearer abc":
            return False
        both = f'Negotiate, Digest realm="a, b", nonce="\\"q\\"", Bearer realm="http://{faulty.host}/token", service=x, Basic realm="y"'
        request.answer(401, WWW_Authenticate=both)

    faulty.fault("HEAD", "/manifests/", act)
    faulty.fault("GET", "/token", lambda request: request.answer(200, b'{"access_token": "abc"}'))
    client().manifest(AMD64)
    asked = [path for path in faulty.paths("GET") if "/token" in path]
    assert asked == ["/token?service=x&scope=repository%3Aa%3Apull"]


@pytest.mark.parametrize(
    "body",
    [b"{}", b"<html>", b'{"token": "a\\r\\nX: y"}', b'{"token": 1}', b"[]", b'{"token": ""}'],
)
def test_a_token_server_that_gives_nonsense(faulty: Faulty, client: Client, body: bytes) -> None:
    faulty.fault("HEAD", "/manifests/", lambda request: request.answer(401, WWW_Authenticate=f'Bearer realm="http://{faulty.host}/token"'))
    faulty.fault("GET", "/token", lambda request: request.answer(200, body))
    fails(lambda: client().manifest(AMD64), "gives no token")


@pytest.mark.parametrize("realm", ["http://tokens.example.com/token", "ftp://x/", "", "//", "http://[::1"])
def test_a_password_goes_to_no_token_server_that_others_can_hear(faulty: Faulty, client: Client, realm: str) -> None:
    faulty.fault("HEAD", "/manifests/", lambda request: request.answer(401, WWW_Authenticate=f'Bearer realm="{realm}"'))
    fails(lambda: client(credentials=KNOWN).manifest(AMD64), "token server|denies")


def test_a_server_that_repeats_a_secret(faulty: Faulty, client: Client) -> None:
    def act(request: Handler) -> None:
        if "Authorization" not in request.headers:
            return request.answer(401, WWW_Authenticate='Basic realm="x"')
        request.answer(400, json.dumps({"errors": [{"message": f"bad {request.headers['Authorization']} {PASSWORD}"}]}).encode())

    faulty.fault("GET", "/tags/", act)
    error = fails(lambda: client(credentials=KNOWN).tags(), "bad Basic")
    assert "***" in error.message


# -- redirects


def redirect(target: str, status: int = 307) -> Callable[[Handler], Any]:
    return lambda request: request.answer(status, Location=target + request.path)


def basic(request: Handler) -> Any:
    """Lets in who has the password."""
    if request.headers.get("Authorization") == f"Basic {KNOWN.basic()}":
        return False
    request.answer(401, WWW_Authenticate='Basic realm="x"')


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_credentials_go_to_another_host(faulty: Faulty, other: Faulty, client: Client, status: int) -> None:
    blob, data = large(faulty)
    other.blobs[blob.digest] = data
    faulty.fault("GET", "/blobs/", lambda request: redirect(other.url, status)(request) if basic(request) is False else None)
    assert client(credentials=KNOWN).open(blob).read() == data
    assert "authorization" in faulty.asked[-1].headers
    assert [one.headers.get("authorization") for one in other.asked] == [None]


def test_a_download_from_another_host_goes_on_there_through_the_registry(faulty: Faulty, other: Faulty, client: Client) -> None:
    blob, data = large(faulty)
    other.blobs[blob.digest] = data
    faulty.fault("GET", "/blobs/", redirect(other.url))
    other.fault("GET", "/blobs/", cut_after(300_000), times=2)
    assert client().open(blob).read() == data
    assert [one.headers.get("range") for one in other.asked] == [None, "bytes=300000-", "bytes=600000-"]


def test_credentials_do_not_come_back_with_a_redirect(faulty: Faulty, other: Faulty, client: Client) -> None:
    blob, _ = large(faulty)
    faulty.fault("GET", "/blobs/", lambda request: redirect(other.url)(request) if basic(request) is False else None)
    other.fault("GET", "/blobs/", lambda request: request.answer(307, Location=f"{faulty.url}/v2/secret/tags/list?n=1"))
    with contextlib.suppress(ContainersError):
        client(credentials=KNOWN).open(blob).read()
    assert [one.headers.get("authorization") for one in faulty.asked if "secret" in one.path] == [None]


def test_another_host_s_challenge_is_not_answered(faulty: Faulty, other: Faulty, client: Client) -> None:
    blob, _ = large(faulty)
    faulty.fault("GET", "/blobs/", redirect(other.url))
    other.fault("GET", "/blobs/", lambda request: request.answer(401, WWW_Authenticate='Basic realm="x"'))
    fails(lambda: client(credentials=KNOWN).open(blob), f"at {other.host}")
    assert len(other.asked) == 1


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("http://198.51.100.1", "redirects to 198.51.100.1 without TLS"),
        ("file:///etc/passwd", "cannot be asked"),
        ("http://[", "cannot be asked"),
        ("https://[::1", "cannot be asked"),
    ],
)
def test_redirects_that_lead_astray(faulty: Faulty, client: Client, target: str, word: str) -> None:
    blob, _ = large(faulty)
    faulty.fault("GET", "/blobs/", redirect(target))
    fails(lambda: client().open(blob), word)


def test_a_redirect_that_never_ends(faulty: Faulty, client: Client) -> None:
    blob, _ = large(faulty)
    faulty.fault("GET", "/blobs/", lambda request: request.answer(307, Location=request.path))
    fails(lambda: client().open(blob), "redirects more than 10 times")
    assert len(faulty.paths("GET")) <= 12


# -- too often, and trouble on its side


def answer(code: int, body: bytes = b"", **headers: str) -> Callable[[Handler], Any]:
    return lambda request: request.answer(code, body, **headers)


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_trouble_that_passes(faulty: Faulty, client: Client, code: int) -> None:
    held = faulty.hold(image())
    faulty.fault("HEAD", "/manifests/", answer(code), times=4)
    faulty.fault("GET", "/manifests/", answer(code), times=4)
    faulty.fault("GET", "/blobs/", answer(code), times=4)
    assert client().manifest(AMD64) == held
    assert client().config(held) == faulty.blobs[held.config.digest]


def test_trouble_that_stays(faulty: Faulty, client: Client) -> None:
    faulty.fault("HEAD", "/manifests/", answer(503))
    error = fails(lambda: client().manifest(AMD64), "503 Service Unavailable")
    assert "try again later" in error.hint
    assert len(faulty.paths("HEAD")) == SHORT.attempts


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(faulty: Faulty, client: Client, form: str) -> None:
    held = faulty.hold(image())
    times: list[float] = []

    def act(request: Handler) -> Any:
        times.append(time.monotonic())
        if len(times) > 1:
            return False
        request.answer(429, Retry_After="1" if form == "seconds" else formatdate(time.time() + 2.5, usegmt=True))

    faulty.fault("HEAD", "/manifests/", act)
    assert client().manifest(AMD64) == held
    assert times[1] - times[0] >= 1.0


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_wait_that_is_too_long_is_said(faulty: Faulty, client: Client, form: str) -> None:
    wanted = "7200" if form == "seconds" else formatdate(time.time() + 7300, usegmt=True)  # now, not when all tests were collected
    faulty.fault("HEAD", "/manifests/", answer(429, Retry_After=wanted))
    error = fails(lambda: client().manifest(AMD64), "limits how often it is asked")
    assert "(in 2 hours)" in error.hint and "try again at " in error.hint
    assert len(faulty.paths("HEAD")) == 1


@pytest.mark.parametrize("wanted", ["nonsense", "-5", "1e9", "9" * 30, "Thu, 99 Nov 2026 00:00:00 GMT"])
def test_a_wait_that_makes_no_sense_is_not_taken(faulty: Faulty, client: Client, wanted: str) -> None:
    held = faulty.hold(image())
    faulty.fault("HEAD", "/manifests/", answer(429, Retry_After=wanted), times=1)
    assert client().manifest(AMD64) == held


def test_docker_hub_s_rate(faulty: Faulty, client: Client) -> None:
    body = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached your pull rate limit."}]}'
    faulty.hold(image())
    faulty.fault("GET", "/manifests/", answer(429, body, ratelimit_limit="100;w=21600", ratelimit_remaining="0;w=21600"))
    error = fails(lambda: client().manifest(AMD64), "100 pulls in 6 hours: You have reached your pull rate limit")
    assert "at the latest, or log in" in error.hint
    assert len([path for path in faulty.paths("GET") if "/manifests/" in path]) == 1


def test_429_without_a_word(faulty: Faulty, client: Client) -> None:
    faulty.fault("HEAD", "/manifests/", answer(429))
    error = fails(lambda: client().manifest(AMD64), "limits how often it is asked")
    assert "some minutes" in error.hint
    assert len(faulty.paths("HEAD")) == SHORT.attempts


# -- slow


def drip(request: Handler) -> None:
    with contextlib.suppress(OSError):
        request.answer(200, Content_Length=str(1 << 20))
        for _ in range(2000):
            request.wfile.write(b"x")
            request.wfile.flush()
            time.sleep(0.01)


def test_a_drip_is_no_download(faulty: Faulty, client: Client) -> None:
    blob, _ = large(faulty)
    faulty.fault("GET", "/blobs/", drip)
    begun = time.monotonic()
    fails(lambda: client(limits={"attempts": 2}).open(blob).read(), r"it sends \d+ bytes a second")
    assert time.monotonic() - begun < 20


def test_nothing_more_comes(faulty: Faulty, client: Client) -> None:
    blob, data = large(faulty)
    faulty.fault("GET", "/blobs/", lambda request: (request.answer(200, data[:1000], Content_Length=str(len(data))), time.sleep(30)))
    begun = time.monotonic()
    fails(lambda: client(limits={"stall": 0.3, "attempts": 2}).open(blob).read(), "no answer in time")
    assert time.monotonic() - begun < 20


def test_a_head_that_drips(faulty: Faulty, client: Client) -> None:
    def act(request: Handler) -> None:
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X-A: y\r\n" * 80:
                request.connection.sendall(bytes([byte]))
                time.sleep(0.05)

    faulty.fault("HEAD", "/manifests/", act)
    begun = time.monotonic()
    fails(lambda: client(limits={"stall": 0.5, "attempts": 1}).manifest(AMD64), "connection broke|no answer|reset")
    assert time.monotonic() - begun < 10


def test_nobody_answers(faulty: Faulty, client: Client) -> None:
    faulty.fault("HEAD", "/manifests/", lambda request: time.sleep(30))
    fails(lambda: client(limits={"stall": 0.3, "attempts": 2}).manifest(AMD64), r"no answer in time \(2 attempts\)")


def test_no_http_at_all(faulty: Faulty, client: Client) -> None:
    faulty.fault("HEAD", "/manifests/", lambda request: (request.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n"), request.cut()))
    fails(lambda: client().manifest(AMD64), "connection broke")


# -- being stopped


def test_closing_ends_what_other_threads_wait_for(faulty: Faulty, client: Client) -> None:
    blob, data = large(faulty)
    faulty.fault("GET", "/blobs/", lambda request: (request.answer(200, data[:1000], Content_Length=str(len(data))), time.sleep(30)))
    faulty.fault("HEAD", "/manifests/", lambda request: time.sleep(30))
    faulty.fault("GET", "/tags/", answer(503, Retry_After="25"))
    registry = client(limits={"stall": 60, "longest": 60})
    said: list[str] = []

    def work(act: Callable[[], Any]) -> None:
        try:
            act()
        except ContainersError as error:
            said.append(error.message)

    acts = [lambda: registry.open(blob).read(), registry.resolve, registry.tags]
    threads = [threading.Thread(target=work, args=(act,), daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    while len([one for one in faulty.asked if one.path != "/v2/"]) < 3:
        time.sleep(0.01)
    time.sleep(0.2)
    begun = time.monotonic()
    registry.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert time.monotonic() - begun < 3
    assert said == ["the transfer was stopped"] * 3


@pytest.mark.parametrize("words", [{}, {"Connection": "close"}])
def test_closing_one_download_ends_who_reads_it_and_no_other(faulty: Faulty, client: Client, words: dict[str, str]) -> None:
    blob, data = large(faulty)

    def act(request: Handler) -> None:
        request.answer(200, data[:1000], Content_Length=str(len(data)), **words)
        time.sleep(30)

    faulty.fault("GET", "/blobs/", act, times=1)
    registry, said = client(limits={"stall": 60}), list[str]()
    first, second = registry.open(blob), registry.open(blob)

    def work() -> None:
        try:
            first.read()
        except ContainersError as error:
            said.append(error.message)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    time.sleep(0.3)
    begun = time.monotonic()
    first.close()
    thread.join(10)
    assert time.monotonic() - begun < 5 and said == ["the transfer was stopped"]
    assert second.read() == data


def test_ctrl_c_ends_a_download_at_once(faulty: Faulty, tmp_path: Path) -> None:
    blob, data = large(faulty)
    waiting = threading.Event()

    def act(request: Handler) -> None:
        request.answer(200, data[:1000], Content_Length=str(len(data)))
        waiting.set()
        time.sleep(30)

    faulty.fault("GET", "/blobs/", act)
    program = f"""
from pycontainers.images.registry.client import Registry
from pycontainers.images.descriptor import Descriptor
try:
    Registry("{faulty.host}/a:1").open(Descriptor("{blob.media_type}", "{blob.digest}", {blob.size})).read()
except KeyboardInterrupt:
    print("stopped")
"""
    environ = os.environ | {"PYCONTAINERS_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environ, text=True)
    assert waiting.wait(30)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    assert process.communicate(timeout=20)[0] == "stopped\n"
    assert time.monotonic() - begun < 5


# -- sending


def send(registry: Registry, blob: Descriptor, data: bytes) -> list[int]:
    told: list[int] = []
    registry.put(blob, lambda: io.BytesIO(data), told.append)
    assert told[-1] == blob.size
    return told


def content(size: int) -> tuple[Descriptor, bytes]:
    data = os.urandom(size)
    return Descriptor(descriptor.OCI_LAYER, manifest.digest(data), size), data


@pytest.mark.parametrize("size", [1000, 3 << 20])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_place_for_the_upload_relative_or_absolute(faulty: Faulty, client: Client, size: int, absolute: bool) -> None:
    faulty.absolute = absolute
    blob, data = content(size)
    send(client(), blob, data)
    assert faulty.blobs[blob.digest] == data
    assert all("_state=a%3Db" in path for path in faulty.paths("PATCH") + faulty.paths("PUT"))


def test_an_upload_at_another_host_goes_without_credentials(faulty: Faulty, other: Faulty, client: Client) -> None:
    blob, data = content(3 << 20)
    other.uploads["s0"] = bytearray()
    where = f"{other.url}/v2/a/blobs/uploads/s0"
    faulty.fault("POST", "/uploads/", lambda request: request.answer(202, Location=where) if basic(request) is False else None)
    send(client(credentials=KNOWN), blob, data)
    assert other.blobs[blob.digest] == data
    assert all("authorization" not in one.headers for one in other.asked) and len(other.asked) == 2


@pytest.mark.parametrize("location", ["", "http://198.51.100.1/x", "ftp://x/y", "http://["])
def test_a_place_where_nothing_may_be_sent(faulty: Faulty, client: Client, location: str) -> None:
    blob, data = content(1000)
    faulty.fault("POST", "/uploads/", lambda request: request.answer(202, Location=location))
    fails(lambda: send(client(), blob, data), "upload")


@pytest.mark.parametrize("lost", [0, 100_000])
def test_an_upload_that_breaks_off_goes_on_where_the_registry_has_it(faulty: Faulty, client: Client, lost: int) -> None:
    blob, data = content(3 << 20)

    def act(request: Handler) -> None:
        got = request.rfile.read(1_000_000)
        faulty.uploads["s0"] += got[: len(got) - lost]
        request.cut()

    faulty.fault("PATCH", "/uploads/", act, times=1)
    told = send(client(), blob, data)
    assert faulty.blobs[blob.digest] == data
    asked = [one for one in faulty.asked if one.method == "PATCH"]
    assert [one.headers.get("content-range") for one in asked] == [None, f"{1_000_000 - lost}-{len(data) - 1}"]
    assert 1_000_000 - lost in told


def test_a_piece_that_the_registry_lost(faulty: Faulty, client: Client) -> None:
    """It says 202 and how much it has: less than was sent."""
    blob, data = content(3 << 20)

    def act(request: Handler) -> None:
        faulty.uploads["s0"] += request.body()[:1_500_000]
        request.answer(202, Location="/v2/a/blobs/uploads/s0", Range="0-1499999")

    faulty.fault("PATCH", "/uploads/", act, times=1)
    send(client(), blob, data)
    assert faulty.blobs[blob.digest] == data


def test_a_piece_that_was_lost_without_a_word(faulty: Faulty, client: Client) -> None:
    blob, data = content(3 << 20)

    def act(request: Handler) -> None:
        request.body()
        request.answer(202, Location=request.path, Range=f"0-{len(data) - 1}")

    faulty.fault("PATCH", "/uploads/", act, times=1)
    send(client(), blob, data)
    assert faulty.blobs[blob.digest] == data
    assert len(faulty.paths("POST")) == 2  # from the beginning
    faulty.fault("PATCH", "/uploads/", act)
    blob, data = content(3 << 20)
    fails(lambda: send(client(), blob, data), "digest did not match")


def test_an_upload_that_was_forgotten(faulty: Faulty, client: Client) -> None:
    blob, data = content(3 << 20)
    faulty.fault("PATCH", "/uploads/", lambda request: (request.body(), faulty.uploads.clear(), request.answer(404)), times=1)
    send(client(), blob, data)
    assert faulty.blobs[blob.digest] == data


@pytest.mark.parametrize("size", [1000, 3 << 20])
def test_the_answer_to_the_end_is_lost(faulty: Faulty, client: Client, size: int) -> None:
    blob, data = content(size)

    def act(request: Handler) -> None:
        request.body()
        faulty.blobs[blob.digest] = data
        request.cut()

    faulty.fault("PUT", "/uploads/", act, times=1)
    send(client(), blob, data)
    assert len(faulty.paths("PUT")) == 1


@pytest.mark.parametrize("size", [1000, 3 << 20])
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
@pytest.mark.parametrize("code", [429, 500, 503])
def test_trouble_while_sending(faulty: Faulty, client: Client, size: int, method: str, code: int) -> None:
    blob, data = content(size)
    faulty.fault(method, "/uploads/", lambda request: (request.body(), request.answer(code)), times=2)
    send(client(), blob, data)
    assert faulty.blobs[blob.digest] == data


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_trouble_while_sending_that_stays(faulty: Faulty, client: Client, method: str) -> None:
    blob, data = content(3 << 20)
    faulty.fault(method, "/uploads/", lambda request: (request.body(), request.answer(503)))
    fails(lambda: send(client(), blob, data), "503 Service Unavailable")
    assert len(faulty.paths(method)) <= 2 * SHORT.attempts


def test_requests_that_are_too_large(faulty: Faulty, client: Client) -> None:
    blob, data = content(9 << 20)
    faulty.fault("PATCH", "/uploads/", lambda request: (request.body(), request.answer(413)) if too_large(request) else False)
    send(client(), blob, data)
    assert faulty.blobs[blob.digest] == data
    asked = [one.headers["content-length"] for one in faulty.asked if one.method == "PATCH"]
    assert asked == [str(9 << 20), str(4 << 20), str(4 << 20), str(1 << 20)]


def too_large(request: Handler) -> bool:
    return int(request.headers["Content-Length"]) > 5 << 20


def test_no_piece_is_smaller_than_the_registry_wants(faulty: Faulty, client: Client) -> None:
    blob, data = content(9 << 20)
    faulty.least = 5 << 20
    faulty.fault("PATCH", "/uploads/", lambda request: (request.body(), request.answer(413)) if too_large(request) else False)
    send(client(), blob, data)
    asked = [one.headers["content-length"] for one in faulty.asked if one.method == "PATCH"]
    assert asked == [str(9 << 20), str(5 << 20), str(4 << 20)]
    faulty.faults.clear()
    faulty.fault("PATCH", "/uploads/", lambda request: (request.body(), request.answer(413)))
    blob, data = content(9 << 20)
    fails(lambda: send(client(), blob, data), "413")


def test_a_mount_that_is_refused_opens_the_upload(faulty: Faulty, client: Client) -> None:
    blob, data = content(1000)
    registry = client(origins=lambda _: [reference.parse(f"{faulty.host}/b")])
    assert not registry.has(blob)
    send(registry, blob, data)
    assert len(faulty.paths("POST")) == 1 and "mount=" in faulty.paths("POST")[0]


def test_a_manifest_that_is_stored_as_something_else(faulty: Faulty, client: Client) -> None:
    held = image()
    faulty.fault("PUT", "/manifests/", lambda request: (request.body(), request.answer(201, Docker_Content_Digest="sha256:" + "1" * 64)))
    fails(lambda: client().finish(held.manifest), "stored its manifest as sha256:1111")


# -- tags


def test_pages(faulty: Faulty, client: Client) -> None:
    held = image()
    for number in range(7):
        faulty.hold(held, f"v{number}")
    assert client().tags() == [f"v{number}" for number in range(7)]
    assert len([path for path in faulty.paths("GET") if "/tags/" in path]) == 4


def test_a_list_that_never_ends(faulty: Faulty, client: Client) -> None:
    faulty.fault("GET", "/tags/", answer(200, b'{"tags": ["a"]}', Link='</v2/a/tags/list?n=1000>; rel="next"'))
    fails(lambda: client().tags(), "does not end")


def test_a_list_that_goes_on_elsewhere(faulty: Faulty, client: Client) -> None:
    faulty.fault("GET", "/tags/", answer(200, b'{"tags": ["a"]}', Link='<https://evil.example.com/v2/a/tags/list>; rel="next"'))
    fails(lambda: client(credentials=KNOWN).tags(), "another host, evil.example.com")


@pytest.mark.parametrize("body", [b"[]", b'{"tags": [1]}', b'{"tags": "x"}', b'{"tags": ["\\u001b[2J"]}', b'{"tags": ["a/../b"]}'])
def test_a_malformed_list(faulty: Faulty, client: Client, body: bytes) -> None:
    faulty.fault("GET", "/tags/", answer(200, body))
    fails(lambda: client().tags(), "tags", ContainersError)


def test_words_of_a_registry_are_made_harmless(faulty: Faulty, client: Client) -> None:
    words = "\x1b]52;c;x\x07\x1b[2Jfirst\nsecond" + "x" * 10_000
    faulty.fault("GET", "/tags/", answer(400, json.dumps({"errors": [{"code": "X", "message": words}]}).encode()))
    error = fails(lambda: client().tags(), "first second")
    assert "\x1b" not in error.message
