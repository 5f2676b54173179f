"""Debian's and Ubuntu's suites: how they are called, which servers have them, and what is known of one before its packages are fetched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from ..errors import NetworkError, NotFound, UsageError, near

_SUITE = re.compile(r"[a-z][a-z0-9-]{0,40}\Z")
_NOT_IN_AN_ADDRESS = re.compile(r"[\s\[\]\\\"'`$]")  # apt reads [options] and quotes in a line of its sources
_LARGEST_RELEASE = 4 << 20
_HELPER = "/usr/lib/apt/apt-helper"
#: OCI's name of an architecture -> Debian's
ARCHITECTURES = {
    "amd64": "amd64",
    "arm64": "arm64",
    "arm/v7": "armhf",
    "arm/v5": "armel",
    "386": "i386",
    "ppc64le": "ppc64el",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "mips64le": "mips64el",
}


@dataclass(frozen=True)
class Distribution:
    """``numbers``: how its users call a release -> its suite. ``mirrors`` are tried in order where this machine's own has no such suite."""

    name: str
    default: str
    numbers: dict[str, str]
    suites: tuple[str, ...]
    mirrors: tuple[str, ...]
    security: str
    components: str
    keyring: str
    package: str  # that has the keyring

    def suite(self, word: str) -> str:
        """The suite that ``word`` means: a number, a name, or nothing. :raises UsageError: not a name at all."""
        suite = self.numbers.get(word, word) or self.default
        if not _SUITE.match(suite):
            known = [*self.suites, *self.numbers]
            raise UsageError(f"{word!r} is not a release of {self.name}", near(word, known) or f"for example {self.name}:{self.default}")
        return suite

    def extra(self, suite: str) -> list[tuple[str, str]]:
        """(suite, mirror or "" for the main one) of the updates, where there are any."""
        if suite in ("sid", "unstable", "experimental", "rc-buggy"):
            return []
        # Until buster the security suite was called SUITE/updates.
        return [(f"{suite}-updates", ""), (f"{suite}-security", self.security)]


_DEBIAN = Distribution(
    "debian",
    "stable",
    {"10": "buster", "11": "bullseye", "12": "bookworm", "13": "trixie", "latest": "stable"},
    ("buster", "bullseye", "bookworm", "trixie", "forky", "sid", "stable", "oldstable", "testing", "unstable"),
    ("http://deb.debian.org/debian", "http://archive.debian.org/debian"),
    "http://deb.debian.org/debian-security",
    "main",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "debian-archive-keyring",
)
_UBUNTU = Distribution(
    "ubuntu",
    "noble",
    {"18.04": "bionic", "20.04": "focal", "22.04": "jammy", "24.04": "noble", "25.04": "plucky", "25.10": "questing", "latest": "noble"},
    ("bionic", "focal", "jammy", "noble", "plucky", "questing"),
    ("http://archive.ubuntu.com/ubuntu", "http://ports.ubuntu.com/ubuntu-ports", "http://old-releases.ubuntu.com/ubuntu"),
    "",  # on the main mirror
    "main universe",
    "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
    "ubuntu-keyring",
)
DISTRIBUTIONS = {found.name: found for found in (_DEBIAN, _UBUNTU)}


@dataclass(frozen=True)
class Release:
    """A suite on a server. ``date``: unix seconds of this state of the archive. ``official``: the address that everybody can use."""

    suite: str
    mirror: str
    codename: str
    date: int
    architectures: tuple[str, ...]
    official: str = ""


def parse(system: str) -> tuple[Distribution, str]:
    """``debian:bookworm`` → (distribution, suite). :raises UsageError: unknown, with near names."""
    name, _, word = system.partition(":")
    found = DISTRIBUTIONS.get(name)
    if found is None:
        suites = {suite: f"{known.name}:{suite}" for known in DISTRIBUTIONS.values() for suite in known.suites}
        hint = f"did you mean {suites[name]}?" if name in suites else near(name, DISTRIBUTIONS)
        raise UsageError(
            f"bootstrap does not know the distribution {name!r}",
            hint or "debian:SUITE or ubuntu:SUITE; anything else: %container import a tar of its root file system",
        )
    return found, found.suite(word)


def check_mirror(mirror: str) -> str:
    """A mirror's address, without the last slash. :raises UsageError: not one, or with a password in it."""
    parts = urlsplit(mirror)
    known = parts.scheme == "file" or (parts.scheme in ("http", "https") and parts.hostname)
    if not known or _NOT_IN_AN_ADDRESS.search(mirror):
        raise UsageError(f"{mirror!r} is not the address of a mirror", "http://, https:// or file:// and the folder that holds dists/")
    if parts.username or parts.password:
        raise UsageError("the mirror's address has a password in it, which would stay in the image", "put it into /etc/apt/auth.conf.d")
    return mirror.rstrip("/")


def releases(distribution: Distribution, suite: str, architecture: str, mirror: str = "") -> list[Release]:
    """The suite and its updates, as the first server has them that knows it.

    :raises NotFound: no server has the suite (with near names), or has it for this architecture.
    :raises NetworkError: no server can be reached.
    """
    tried = [check_mirror(mirror)] if mirror else [*_own_mirrors(distribution), *distribution.mirrors]
    unreachable: list[str] = []
    found = None
    for server in dict.fromkeys(tried):
        try:
            text = _fetch(f"{server}/dists/{suite}/InRelease")
        except NetworkError as error:
            unreachable.append(error.message)
            continue
        if text is not None and (found := _release(text, suite, server)) and architecture in found.architectures:
            break
    if found is None:
        if len(unreachable) == len(dict.fromkeys(tried)):
            raise NetworkError(unreachable[0], "a mirror that can be reached: --mirror URL, or a proxy in apt's configuration")
        raise NotFound(
            f"there is no suite {suite!r} of {distribution.name} on {tried[0]}",
            near(suite, {*distribution.suites} - {suite}) or f"for example {distribution.name}:{distribution.default}",
        )
    if architecture not in found.architectures:
        raise NotFound(f"{distribution.name} {suite} is not made for {architecture}", f"it is for {', '.join(found.architectures)}")
    official = mirror or next((one for one in distribution.mirrors if "ports" not in one), found.mirror)
    found = Release(found.suite, found.mirror, found.codename, found.date, found.architectures, official or found.mirror)
    return [found, *_updates(distribution, found, mirror)]


def _updates(distribution: Distribution, main: Release, mirror: str) -> list[Release]:
    rows = []
    for suite, security in distribution.extra(main.suite):
        server = security if security and not mirror else main.mirror
        try:
            text = _fetch(f"{server}/dists/{suite}/InRelease")
        except NetworkError:
            text = None
        if text is not None and (found := _release(text, suite, server)):
            official = security or main.official
            rows.append(Release(suite, server, found.codename, found.date, found.architectures, server if mirror else official))
    return rows


def _own_mirrors(distribution: Distribution) -> list[str]:
    """Where this machine's own apt gets this distribution from: a mirror nearby, or the only one that it reaches."""
    if not shutil.which("apt-get"):
        return []
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CREATED_BY)"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    found = []
    for line in done.stdout.splitlines():
        uri, _, kind = line.partition(" ")
        parts = urlsplit(uri)
        folder = parts.path.rstrip("/").rpartition("/")[2]
        plain = parts.scheme in ("http", "https", "file") and not parts.username
        if kind == "Packages" and plain and folder in (distribution.name, f"{distribution.name}-ports"):
            found.append(uri.rstrip("/"))
    return found


def _fetch(url: str) -> str | None:
    """A small file of a mirror as apt would get it (its proxies, its authorities); None where the server has no such file.

    Nothing is decided by it but a date and the words of an error: what apt fetches afterwards, it verifies.
    """
    if url.startswith("file://"):
        path = urlsplit(url).path
        return _read(path) if os.path.exists(path) else None
    if not os.access(_HELPER, os.X_OK):
        return _fetch_plainly(url)
    with tempfile.TemporaryDirectory() as folder:
        words = [_HELPER, "download-file", url, f"{folder}/file"]
        options = ["-oAPT::Sandbox::User=root", "-oAcquire::Retries=1", "-oAcquire::http::Timeout=20", "-oAcquire::https::Timeout=20"]
        done = subprocess.run([*words, *options], capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            return _read(f"{folder}/file")
        if re.search(r"\b(404|410)\b", done.stderr):
            return None
        last = [line.removeprefix("E: ") for line in done.stderr.splitlines() if line.startswith("E: ")]
        raise NetworkError(f"{urlsplit(url).netloc}: {last[0] if last else 'cannot be reached'}", "")


def _fetch_plainly(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return str(answer.read(_LARGEST_RELEASE).decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            return None
        raise NetworkError(f"{urlsplit(url).netloc}: {error}", "") from None
    except OSError as error:
        raise NetworkError(f"{urlsplit(url).netloc}: {error}", "") from None


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(_LARGEST_RELEASE).decode("utf-8", "replace")


def _release(text: str, suite: str, mirror: str) -> Release | None:
    """What an InRelease file says; None where it is no such file (a portal's login page)."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(": ")
        if colon and not line.startswith(" "):
            fields.setdefault(name, value.strip())
        if line.startswith(("SHA256:", "MD5Sum:")):
            break
    try:
        date = int(parsedate_to_datetime(fields["Date"]).replace(tzinfo=UTC).timestamp())
    except (KeyError, ValueError):
        return None
    return Release(suite, mirror, fields.get("Codename", suite), date, tuple(fields.get("Architectures", "").split()))
