"""ADD of an address, from a real server on this machine: its name, owner and time, what is checked, how little is fetched again."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pycontainers.builder import remote
from pycontainers.builder.context import digest
from pycontainers.builder.copying import CopyError, CopyItem
from pycontainers.images.registry.settings import Limits
from tests.builder.placing import Image

DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


class Server(ThreadingHTTPServer):
    """``answers``: path → a function of the request handler. ``asked``: (path, headers) as they came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked = {}, []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def give(self, path: str, body: bytes, status: int = 200, **headers: str) -> str:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}

        def answer(handler):
            etag = headers.get("ETag")
            same = (etag and handler.headers.get("If-None-Match") == etag) or (
                "Last-Modified" in headers and handler.headers.get("If-Modified-Since") == headers["Last-Modified"])
            handler.reply(304 if same else status, b"" if same else body, headers)
        self.answers[path] = answer
        return self.url + path


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        answers = self.server.answers
        answers.get(self.path, answers.get("*", lambda handler: handler.reply(404, b"no", {})))(self)

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    with Server() as made:
        yield made
        made.shutdown()


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    count = iter(range(1000))

    def run(url: str, **options):
        folder = tmp_path / f"ingest{next(count)}"
        folder.mkdir()
        return remote.fetch(url, str(folder), **{"checksum": "", "epoch": None, "check": lambda: None, **options})
    return run


def content(got: remote.Fetched) -> bytes:
    return Path(got.node.path).read_bytes()


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_a_file_as_docker_has_it(server, fetch, tmp_path):
    got = fetch(server.give("/a/app%20one.tar.gz?x=1", b"data", Last_Modified=DATE))
    assert (got.name, content(got), got.key) == ("app one.tar.gz", b"data", sha256(b"data"))
    image = Image(tmp_path / "image")
    image.copy(None, items=[CopyItem(got.name, got.node, got.source)], to="/x/")
    found = image.view.lookup("/x/app one.tar.gz").stat
    assert (stat.S_IMODE(found.st_mode), found.st_mtime, found.st_uid) == (0o600, 1445412480, 0)
    assert fetch(server.url + "/a/app%20one.tar.gz?x=1", epoch=1000).node.stat.st_mtime == 1000
    assert fetch(server.give("/b", b"")).node.stat.st_mtime == 0


@pytest.mark.parametrize(("path", "headers", "name"), [
    ("/", {}, "__unnamed__"), ("/x/", {}, "x"), ("/a/..%2f..%2fetc", {}, "etc"), ("/..", {}, "__unnamed__"), ("/%00", {}, "__unnamed__"),
    ("/", {"Content_Disposition": 'attachment; filename="say so.txt"'}, "say so.txt"), ("/%2e%2e", {}, "__unnamed__"),
    ("/", {"Content_Disposition": 'attachment; filename="../../evil"'}, "evil"), ("/" + "n" * 300, {}, "__unnamed__"),
    ("/f", {"Content_Disposition": "attachment; filename=other"}, "f"),
])
def test_names(server, fetch, path, headers, name):
    server.give("*", b"1", **headers)
    got = fetch(server.url + path)
    assert got.name == name and os.path.dirname(got.node.path).rpartition("/")[2].startswith("ingest")


def test_checksums(server, fetch):
    url = server.give("/f", b"data")
    assert content(fetch(url, checksum=sha256(b"data"))) == b"data"
    assert content(fetch(url, checksum="sha512:" + hashlib.sha512(b"data").hexdigest())) == b"data"
    with pytest.raises(CopyError, match="has sha256:3a6e"):
        fetch(url, checksum=sha256(b"other"))
    for bad in ("md5:" + "0" * 32, "sha256:abc", sha256(b"").upper(), "sha256:" + "g" * 64, "x", sha256(b"") + "\n"):
        with pytest.raises(CopyError, match="is not one"):
            fetch(url, checksum=bad)


def test_redirects_keep_the_name_that_was_asked_for(server, fetch):
    target = server.give("/real/path", b"there")
    assert content(got := fetch(server.give("/named", b"", 302, Location=target))) == b"there" and got.name == "named"
    assert content(fetch(server.give("/relative", b"", 301, Location="real/path"))) == b"there"
    with pytest.raises(CopyError, match="redirects more than 10 times"):
        fetch(server.give("/round", b"", 302, Location="/round"))
    with pytest.raises(CopyError, match="cannot be asked"):
        fetch(server.give("/file", b"", 302, Location="file:///etc/passwd"))


def test_a_password_goes_to_whom_it_is_for_and_is_never_shown(server, fetch):
    with Server() as other:
        target = other.give("/f", b"1")
        server.give("/away", b"", 302, Location=target)
        fetch(server.url.replace("//", "//me:s3cr%3At@") + "/away")
        assert server.asked[0][1]["Authorization"] == "Basic bWU6czNjcjp0" and "Authorization" not in other.asked[0][1]
        with pytest.raises(CopyError) as caught:
            fetch(server.url.replace("//", "//me:s3cret@") + "/nothing?token=hidden")
        assert "s3cret" not in str(caught.value) and "hidden" not in str(caught.value) and "404 Not Found" in str(caught.value)
        other.shutdown()


def test_what_breaks_is_tried_again(server, fetch):
    tries = []

    def short(handler) -> None:
        tries.append(1)
        if len(tries) < 3:
            handler.reply(200, b"ha", {"Content-Length": "4"})
            handler.close_connection = True
        else:
            handler.reply(200, b"half", {})
    server.answers["/short"] = short
    assert content(fetch(server.url + "/short")) == b"half" and len(tries) == 3
    server.answers["/busy"] = lambda handler: handler.reply(200 if len(server.asked) > 5 else 503, b"ok", {})
    assert content(fetch(server.url + "/busy")) == b"ok"
    with pytest.raises(CopyError, match="500 Internal"):
        fetch(server.give("/broken", b"", 500))
    with pytest.raises(CopyError, match="connection refused"):
        fetch("http://127.0.0.1:1/f")


@pytest.mark.parametrize("url", ["http://", "http:///f", "http://[::1/f", "http://host:99999/f", "http://a b/f", "http://127.0.0.1:1/a\nb"])
def test_addresses_that_are_none(fetch, url):
    with pytest.raises(CopyError):
        fetch(url)


# -- what is kept


@pytest.mark.parametrize("headers", [{"ETag": '"1"'}, {"Last_Modified": DATE}])
def test_what_did_not_change_is_not_sent_again(server, fetch, tmp_path, headers):
    cache = str(tmp_path / "cache")
    url = server.give("/f", b"data" * 1000, **headers)
    first, second = fetch(url, cache=cache), fetch(url, cache=cache)
    assert content(first) == content(second) == b"data" * 1000 and first.key == second.key
    assert first.node.stat.st_mtime == second.node.stat.st_mtime and stat.S_IMODE(second.node.stat.st_mode) == 0o600
    assert [name for _, asked in server.asked for name in asked if name.startswith("If-")] in (["If-None-Match"], ["If-Modified-Since"])
    server.give("/f", b"new", ETag='"2"')
    assert content(fetch(url, cache=cache)) == b"new"
    assert content(first) == b"data" * 1000  # a copy, not the kept file itself


def test_without_a_validator_everything_is_sent_again(server, fetch, tmp_path):
    url = server.give("/f", b"1")
    assert [content(fetch(url, cache=str(tmp_path / "cache"))) for _ in range(2)] == [b"1", b"1"]
    server.give("/f", b"2")
    assert content(fetch(url, cache=str(tmp_path / "cache"))) == b"2"


def test_with_a_checksum_nobody_is_asked(server, fetch, tmp_path):
    url, cache = server.give("/f", b"data", ETag="x"), str(tmp_path / "cache")
    fetch(url, cache=cache)
    assert content(fetch(url, cache=cache, checksum=sha256(b"data"))) == b"data" and len(server.asked) == 1
    with pytest.raises(CopyError, match="has sha256"):
        fetch(url, cache=cache, checksum=sha256(b"else"))


@pytest.mark.parametrize("damage", ["content", "record", "gone"])
def test_a_damaged_cache(server, fetch, tmp_path, damage):
    url, cache = server.give("/f", b"data", ETag="x"), tmp_path / "cache"
    fetch(url, cache=str(cache))
    blob, = (path for path in cache.iterdir() if path.suffix != ".json")
    record, = cache.glob("*.json")
    if damage == "content":
        blob.write_bytes(b"evil")
        with pytest.raises(CopyError, match="build again"):
            fetch(url, cache=str(cache))
    elif damage == "record":
        record.write_text('{"digest": "../../../etc/passwd", "size": 1, "etag": "x", "modified": "", "mtime": 0}')
    else:
        blob.unlink()
    assert content(fetch(url, cache=str(cache))) == b"data"


@pytest.mark.parametrize("odd", ["pipe", "link", "folder", "nested", "endless", "late", "header"])
@pytest.mark.parametrize("which", ["record", "content"])
def test_a_hostile_cache(server, fetch, tmp_path, which, odd):
    """A RUN can mount it."""
    url, cache = server.give("/f", b"data", ETag="x"), tmp_path / "cache"
    fetch(url, cache=str(cache))
    record, = cache.glob("*.json")
    said = json.loads(record.read_text())
    path = record if which == "record" else cache / said["digest"]
    if odd == "late":
        record.write_text(json.dumps(said | {"mtime": float("inf")}))
    elif odd == "header":
        record.write_text(json.dumps(said | {"etag": "x\r\nEvil: 1"}))
    else:
        path.unlink()
    if odd == "pipe":
        os.mkfifo(path)
    elif odd == "link":
        (tmp_path / "outside").write_bytes(b"data" if which == "content" else json.dumps(said).encode())
        path.symlink_to(tmp_path / "outside")
    elif odd == "folder":
        path.mkdir()
    elif odd == "nested":
        path.write_bytes(b"[" * 60_000)
    elif odd == "endless":
        with open(path, "wb") as file:
            file.truncate(1 << 40)
    for checksum in ("", sha256(b"data")):
        if odd == "nested" and which == "content" and checksum and path.read_bytes() != b"data":
            continue
        assert content(fetch(url, cache=str(cache), checksum=checksum)) == b"data"
    assert all("Evil" not in headers for _, headers in server.asked)


def test_taking_from_the_cache_can_be_cancelled(server, fetch, tmp_path):
    data, cache = bytes(3 << 20), tmp_path / "cache"
    fetch(server.give("/f", data, ETag="x"), cache=str(cache))
    calls = iter(range(5))

    def check() -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(f"{server.url}/f", cache=str(cache), checksum=sha256(data), check=check)


def test_the_cache_is_bounded(server, fetch, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr("pycontainers.builder.downloads._MOST_BYTES", 2500)
    for number in range(5):
        fetch(server.give(f"/{number}", bytes([number]) * 1000, ETag=f"{number}"), cache=str(cache))
        time.sleep(0.01)
    assert len(list(cache.glob("*.json"))) == 2 and len(list(cache.iterdir())) == 4
    asked = len(server.asked)
    assert content(fetch(f"{server.url}/4", cache=str(cache), checksum=sha256(b"\4" * 1000))) == b"\4" * 1000 and len(server.asked) == asked


# -- how it ends


@pytest.mark.parametrize("phase", ["head", "body"])
def test_a_cancelled_download_ends_at_once(server, fetch, phase):
    def slow(handler) -> None:
        if phase == "body":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000000")
            handler.end_headers()
            handler.wfile.write(b"x" * 1000)
            handler.wfile.flush()
        time.sleep(20)
    server.answers["/slow"] = slow
    asked = threading.Event()

    def check() -> None:
        if asked.is_set():
            raise KeyboardInterrupt
    threading.Timer(0.3, asked.set).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url + "/slow", check=check)
    assert time.monotonic() - began < 1


def test_a_server_that_says_nothing(server, tmp_path):
    from pycontainers.builder.downloads import download
    server.answers["/mute"] = lambda handler: time.sleep(5)
    with pytest.raises(CopyError, match="no answer in time"):
        download(server.url + "/mute", str(tmp_path), checksum="", check=lambda: None, limits=Limits(stall=0.3, attempts=2, pause=0.01))


def test_digests_of_what_was_fetched(server, fetch):
    got = [fetch(server.give("/f", data)) for data in (b"1", b"1", b"2")]
    values = [digest(CopyItem(one.name, one.node, one.source)) for one in got]
    assert values[0] == values[1] != values[2]
