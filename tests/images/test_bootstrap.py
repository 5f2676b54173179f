"""Real systems from real mirrors by the real tools; where no mirror answers, these are skipped with the reason."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pycontainers.errors import ContainersError, ImageError, NetworkError, NotFound, UsageError
from pycontainers.events import Done, Event, Transfer, finish
from pycontainers.images import bootstrap, suites
from pycontainers.images.store import Image, Store
from pycontainers.images.view import View
from pycontainers.protocol import BootstrapRequest

ESSENTIAL = BootstrapRequest("debian:bookworm", "small:1", variant="essential")


def work(store: Store, request: BootstrapRequest) -> tuple[Image, list[Event]]:
    seen: list[Event] = []
    steps = bootstrap.bootstrap(store, request)
    try:
        while True:
            seen.append(next(steps))
    except StopIteration as stop:
        return stop.value, seen


@pytest.fixture(scope="session")
def mirror() -> None:
    if os.geteuid() != 0 or not shutil.which("mmdebstrap", path=bootstrap.PATH):
        pytest.skip("needs root and mmdebstrap (apt-get install mmdebstrap)")
    try:
        suites.releases(suites.DISTRIBUTIONS["debian"], "bookworm", "amd64")
    except ContainersError as error:
        pytest.skip(f"no mirror of Debian's answers here: {error.message}")


def left(store: Store) -> tuple[list[str], list[str], list[str]]:
    """What is under construction, mounted, or running below this store."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounts = [line for line in file if store.root in line]
    running = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if store.root in line and int(name) != os.getpid():
                running.append(line)
    return os.listdir(store.ingest), mounts, running


def test_a_system_is_an_image_like_dockers(store: Store, mirror: None) -> None:
    image, seen = work(store, ESSENTIAL)
    assert image.names == ("small:1",) and left(store) == ([], [], [])
    assert image.config["config"] == {"Env": [f"PATH={bootstrap.PATH}"], "Cmd": ["bash"]}
    assert image.config["history"][0]["created_by"] == "bootstrap debian:bookworm --variant essential"
    view = View(image.rootfs)
    assert b"VERSION_CODENAME=bookworm" in view.read("/etc/os-release")
    assert [view.listdir(path) for path in ("/dev", "/tmp", "/var/lib/apt/lists")] == [[], [], []]
    assert [view.read(path) for path in ("/etc/hostname", "/etc/resolv.conf", "/etc/machine-id")] == [b"", b"", b""]
    assert b"force-unsafe-io" in view.read("/etc/dpkg/dpkg.cfg.d/docker-apt-speedup")
    assert b"URIs: http://deb.debian.org/debian\nSuites: bookworm" in view.read("/etc/apt/sources.list.d/debian.sources")
    mail = view.lookup("/var/mail")
    assert mail is not None and stat.S_IMODE(mail.stat.st_mode) == 0o2775 and mail.stat.st_gid == 8
    date = suites.releases(suites.DISTRIBUTIONS["debian"], "bookworm", "amd64")
    newest = max(os.lstat(f"{folder}/{name}").st_mtime for folder, folders, files in os.walk(image.layers[0].path) for name in files)
    assert newest <= max(release.date for release in date)
    # Progress: both the bytes and the packages are told, and both end where they said they would.
    phases = [(event.item, event.phase) for event in seen if isinstance(event, Transfer)]
    assert ("packages", "downloading") in phases and ("install", "installing") in phases and isinstance(seen[-1], Done)
    ends = {event.item: event for event in seen if isinstance(event, Transfer) and event.phase == "done"}
    assert ends["packages"].done == ends["packages"].total > 10_000_000 and ends["install"].done == ends["install"].total > 30
    # The same packages give the same image, whenever and under whatever name.
    again, _ = work(store, BootstrapRequest("debian:bookworm", "small:2", variant="essential"))
    assert again.id == image.id and set(again.names) == {"small:1", "small:2"}


def test_an_interrupt_leaves_no_file_no_mount_and_no_process(store: Store, mirror: None) -> None:
    for stop in ("packages", "install"):
        steps = bootstrap.bootstrap(store, ESSENTIAL)
        while not (isinstance(event := next(steps), Transfer) and event.item == stop and event.done):
            pass
        assert left(store)[0] and left(store)[2], "nothing was under way"
        with pytest.raises(KeyboardInterrupt):
            steps.throw(KeyboardInterrupt())
        assert left(store) == ([], [], []) and not store.images() and not os.listdir(f"{store.root}/snapshots")


def test_what_a_killed_process_left_ends_and_is_swept(store: Store, mirror: None) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom pycontainers.paths import Paths\nfrom pycontainers.images.store import Store\n"
        "from pycontainers.images import bootstrap\nfrom pycontainers.protocol import BootstrapRequest\n"
        "store = Store(Paths(Path(sys.argv[1]), Path(sys.argv[2])))\n"
        "for event in bootstrap.bootstrap(store, BootstrapRequest('debian:bookworm', variant='essential')): print(event, flush=True)\n"
    )
    where = store.paths
    process = subprocess.Popen([sys.executable, "-c", script, str(where.home), str(where.run)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "install" not in process.stdout.readline():
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 20
    while left(store)[2] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left(store)[1:] == ([], [])
    store.discard(store.new_layer())
    assert left(store)[0] == []


def test_what_cannot_be_is_refused_before_anything_is_fetched(store: Store) -> None:
    cases = {
        ("debain:bookworm", "minbase", ()): "debian",
        ("bookworm", "minbase", ()): "debian:bookworm",
        ("fedora:41", "minbase", ()): "import",
        ("debian:Book/worm", "minbase", ()): "bookworm",
        ("debian:bookworm", "minibase", ()): "minbase",
        ("debian:bookworm", "minbase", ("curl;rm",)): "--include",
        ("debian:bookworm", "minbase", ("--setup-hook=x",)): "--include",
    }
    for (system, variant, include), hint in cases.items():
        with pytest.raises(UsageError) as caught:
            work(store, BootstrapRequest(system, variant=variant, include=include))
        assert hint in caught.value.hint, system
    for mirror in ("ftp://x/debian", "http://user:secret@example.com/debian", "http://x/ [trusted=yes]", "file"):
        with pytest.raises(UsageError):
            suites.check_mirror(mirror)
    with pytest.raises(UsageError, match="not an architecture"):
        work(store, BootstrapRequest("debian:bookworm", architecture="vax"))
    with pytest.raises(UsageError, match="reserved"):
        work(store, BootstrapRequest("debian:bookworm", "host"))
    assert left(store) == ([], [], [])


class Mirror(http.server.BaseHTTPRequestHandler):
    """Knows one suite, whose signature nobody trusts."""

    def do_GET(self) -> None:
        known = self.path == "/debian/dists/bookworm/InRelease"
        text = b"Suite: bookworm\nCodename: bookworm\nDate: Sat, 06 Sep 2025 10:12:11 UTC\nArchitectures: amd64 arm64\n" if known else b""
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def local() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/debian"
        server.shutdown()
        thread.join()


def test_a_suite_that_is_not_there_and_a_mirror_that_is_not_there(store: Store, local: str) -> None:
    with pytest.raises(NotFound, match="no suite 'bokworm'") as caught:
        work(store, BootstrapRequest("debian:bokworm", mirror=local))
    assert "bookworm" in caught.value.hint
    with pytest.raises(NotFound, match="not made for s390x"):
        work(store, BootstrapRequest("debian:bookworm", mirror=local, architecture="s390x"))
    with pytest.raises(NetworkError, match=r"127\.0\.0\.1:9"):
        work(store, BootstrapRequest("debian:bookworm", mirror="http://127.0.0.1:9/debian"))
    found = suites.releases(suites.DISTRIBUTIONS["debian"], "bookworm", "amd64", local)
    assert [(release.suite, release.official, release.date) for release in found] == [("bookworm", local, 1757153531)]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mmdebstrap"), reason="needs root and mmdebstrap")
def test_what_is_not_signed_does_not_become_an_image(store: Store, local: str) -> None:
    with pytest.raises(ImageError) as caught:
        work(store, BootstrapRequest("debian:bookworm", mirror=local))
    assert "InRelease" in caught.value.message or "signed" in caught.value.message, caught.value
    assert left(store) == ([], [], []) and not store.images()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("debootstrap", path=bootstrap.PATH), reason="needs root and debootstrap")
def test_debootstrap_where_mmdebstrap_is_missing(store: Store, mirror: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_which", lambda name: None if name == "mmdebstrap" else shutil.which(name, path=bootstrap.PATH))
    with pytest.raises(UsageError, match="needs mmdebstrap"):
        work(store, ESSENTIAL)
    image, seen = work(store, BootstrapRequest("debian:bookworm", include=("hello",)))
    assert View(image.rootfs).lookup("/usr/bin/hello") is not None and left(store) == ([], [], [])
    assert any(isinstance(event, Transfer) and event.phase == "installing" for event in seen)


def test_neither_tool(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_which", lambda name: None)
    with pytest.raises(NotFound, match="neither mmdebstrap nor debootstrap") as caught:
        finish(bootstrap.bootstrap(store, ESSENTIAL))
    assert "import" in caught.value.hint
