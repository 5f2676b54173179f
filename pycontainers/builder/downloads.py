"""One file from an http(s) address: whole, checked, asked for again only if it changed.

What was fetched is kept in a folder, if one is given: the next build asks whether it is still the same (``If-None-Match``), or asks nobody
where a checksum says what it must be.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit, urlunsplit

from ..errors import RegistryError
from ..images.registry.failures import AGAIN, retry_after
from ..images.registry.settings import Limits, Settings
from ..images.registry.transport import Answer, Broken, Request, Transport
from .sources import CopyError

_CHUNK = 1 << 18
_MOST_BYTES, _MOST_FILES = 2 << 30, 256  # kept between builds
_CHECKSUM = re.compile(r"(sha256|sha384|sha512):([0-9a-f]+)\Z")
UNNAMED = "__unnamed__"
"""What Docker calls a file whose address has no name in it."""


@dataclass(frozen=True)
class Download:
    """``digest``: sha256 in hex. ``mtime``: unix seconds of Last-Modified, 0 where nothing was said (Docker)."""

    path: str
    name: str
    digest: str
    mtime: float


class _Anywhere(Settings):
    """Addresses that the user wrote may be http, and lead on to http: what is to be sure has a checksum."""

    def may_be_plain(self, netloc: str) -> bool:
        return True


def download(url: str, folder: str, *, checksum: str, check: Callable[[], None], cache: str = "", limits: Limits | None = None) -> Download:
    """Into ``folder``, under its own name.

    :param checksum: ``sha256:…`` that it must have, "" for any. :param check: called all the time; it raises when nobody waits any more.
    :param cache: the folder that keeps what was fetched, "" for none.
    :raises CopyError: no answer, one that is none, or not what the checksum says.
    """
    wanted = _checksum(checksum)
    asked, shown, authorization = _address(url)
    kept = _Kept(cache, asked, check) if cache else None
    known = kept.by_digest(wanted) if kept and wanted.startswith("sha256:") else None
    if kept and known:
        name = _name(asked, {})
        return Download(kept.take(known, f"{folder}/{name}"), name, known.digest, known.mtime)
    transport = Transport(_Anywhere(limits=limits or Limits(attempts=3)))
    try:
        with _watched(check, transport):
            return _fetch(transport, asked, shown, authorization, folder, wanted, kept)
    except (Broken, RegistryError) as error:
        check()
        reason, hint = (error.reason, error.hint) if isinstance(error, Broken) else (error.message, error.hint)
        raise CopyError(f"{shown}: {reason}", hint or "check the address and the network") from None
    finally:
        transport.close()


def _fetch(
    transport: Transport, asked: str, shown: str, authorization: str, folder: str, wanted: str, kept: _Kept | None
) -> Download:
    attempts = transport.limits.attempts
    for attempt in range(1, attempts + 1):
        known = kept.by_address() if kept and wanted[:7] in ("", "sha256:") else None
        headers = known.conditions() if known else {}
        wait = None
        try:
            answer = transport.once(Request("GET", asked, headers, authorization=authorization))
            try:
                if answer.status == HTTPStatus.NOT_MODIFIED and kept and known:
                    _compare(shown, wanted, known.digest, {})
                    name = _name(asked, {})
                    return Download(kept.take(known, f"{folder}/{name}"), name, known.digest, known.mtime)
                if answer.status == HTTPStatus.OK:
                    return _store(answer, asked, shown, folder, wanted, kept)
                if answer.status not in AGAIN or attempt == attempts:
                    raise CopyError(f"{shown}: the server answers {answer.status} {_phrase(answer.status)}", _hint(answer.status))
                wait = retry_after(answer.headers)
            finally:
                answer.close()
        except Broken as error:
            transport.check()
            if error.final or attempt == attempts:
                raise
        transport.pause(attempt, wait)
    raise AssertionError("there is at least one attempt")


def _store(answer: Answer, asked: str, shown: str, folder: str, wanted: str, kept: _Kept | None) -> Download:
    name = _name(asked, answer.headers)
    path = f"{folder}/{name}"
    states = {kind: hashlib.new(kind) for kind in {"sha256", wanted.partition(":")[0] or "sha256"}}
    length, size = answer.length(), 0
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb", buffering=0) as file:
        while piece := answer.read(_CHUNK):
            for state in states.values():
                state.update(piece)
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
            size += len(piece)
    if length is not None and size != length:
        raise Broken(f"it ended after {size} of {length} bytes")
    found = {kind: state.hexdigest() for kind, state in states.items()}
    _compare(shown, wanted, found["sha256"], found)
    mtime = _modified(answer.headers)
    if kept:
        kept.keep(path, answer.headers, found["sha256"], size, mtime)
    return Download(path, name, found["sha256"], mtime)


@contextlib.contextmanager
def _watched(check: Callable[[], None], transport: Transport) -> Iterator[None]:
    """Ends what the block waits for, wherever that is, once ``check`` raises."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            try:
                check()
            except BaseException:
                transport.close()
                return

    check()
    watcher = threading.Thread(target=watch, name="download", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


# -- addresses, names, headers


def _address(url: str) -> tuple[str, str, str]:
    """What is asked for, what is shown of it, and the Authorization that the address carries."""
    try:
        found = urlsplit(url)
        user, password = unquote(found.username or ""), unquote(found.password or "")
        if not found.hostname:
            raise ValueError
    except ValueError:
        raise CopyError("that is no address", "https://HOST/PATH") from None
    netloc = found.netloc.rpartition("@")[2]
    asked = urlunsplit((found.scheme.lower(), netloc, found.path or "/", found.query, ""))
    if any(char.isspace() or not char.isprintable() for char in asked):
        raise CopyError("the address has spaces in it", "write %20")
    shown = urlunsplit((found.scheme, netloc, found.path, "…" if found.query else "", ""))
    basic = base64.b64encode(f"{user}:{password}".encode()).decode() if found.username else ""
    return asked, shown, f"Basic {basic}" if basic else ""


def _name(asked: str, headers: Mapping[str, str]) -> str:
    """The last part of the address; else what the server calls it."""
    name = unquote(urlsplit(asked).path).rstrip("/").rpartition("/")[2]
    if not _usable(name):
        message = Message()
        message["Content-Disposition"] = headers.get("Content-Disposition") or ""
        name = (message.get_filename() or "").replace("\\", "/").rpartition("/")[2]
    return name if _usable(name) else UNNAMED


def _usable(name: str) -> bool:
    return name not in ("", ".", "..") and name.isprintable() and len(os.fsencode(name)) <= 255


def _modified(headers: Mapping[str, str]) -> float:
    try:
        return max(0.0, parsedate_to_datetime(headers.get("Last-Modified") or "").timestamp())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _checksum(text: str) -> str:
    found = _CHECKSUM.match(text)
    if text and (not found or len(found[2]) != hashlib.new(found[1]).digest_size * 2):
        raise CopyError(f"--checksum={text[:100]} is not one", "sha256: and 64 hexadecimal digits in lower case")
    return text


def _compare(shown: str, wanted: str, sha256: str, found: Mapping[str, str]) -> None:
    kind, _, value = wanted.partition(":")
    got = found.get(kind) or sha256
    if wanted and got != value:
        raise CopyError(f"{shown} has {kind}:{got}, not {wanted}", "it changed, or the checksum is of something else")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _hint(status: int) -> str:
    if status in (401, 403, 407):
        return "it is not for everybody: fetch it in a RUN with --mount=type=secret"
    return "check the address" if status in (404, 410) else "try again later"


# -- what is kept


@dataclass(frozen=True)
class _Known:
    digest: str
    size: int
    etag: str
    modified: str
    mtime: float

    def conditions(self) -> dict[str, str]:
        named = {"If-None-Match": self.etag, "If-Modified-Since": "" if self.etag else self.modified}
        return {name: value for name, value in named.items() if value}


#: What a record that was not written here raises when it is read.
_NONSENSE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
_LATEST = 1 << 34  # unix seconds; the latest time of an inode of ext4 and others


class _Kept:
    """``<sha256 of the address>.json`` says what was there, ``<sha256 of the content>`` has it.

    The folder is a cache as any, which a RUN can mount: so what lies in it may be anything, links and pipes too. Only regular files count.
    """

    def __init__(self, folder: str, asked: str, check: Callable[[], None]) -> None:
        self.folder, self.check = folder, check
        self._record = f"{folder}/{hashlib.sha256(asked.encode()).hexdigest()}.json"

    def by_address(self) -> _Known | None:
        try:
            said = _said(self._record)
            known = _Known(str(said["digest"]), int(said["size"]), str(said["etag"]), str(said["modified"]), float(said["mtime"]))
        except (OSError, *_NONSENSE):
            return None
        sent = f"{known.etag}{known.modified}"
        usable = re.fullmatch("[0-9a-f]{64}", known.digest) and 0 <= known.mtime < _LATEST and (sent.isprintable() or not sent)
        return known if usable and known.conditions() and self._size(known.digest) == known.size else None

    def by_digest(self, wanted: str) -> _Known | None:
        digest = wanted.removeprefix("sha256:")
        size = self._size(digest)
        return None if size is None else _Known(digest, size, "", "", self._mtime(digest))

    def _mtime(self, digest: str) -> float:
        try:
            return os.lstat(f"{self.folder}/{digest}").st_mtime
        except OSError:
            return 0.0

    def _size(self, digest: str) -> int | None:
        """Of kept content; None where there is none, or nothing that was kept."""
        try:
            found = os.lstat(f"{self.folder}/{digest}")
        except OSError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) and found.st_size <= _MOST_BYTES else None

    def take(self, known: _Known, path: str) -> str:
        """A copy at ``path``. :raises CopyError: it went, or was damaged, meanwhile."""
        state, rest = hashlib.sha256(), known.size
        try:
            with _regular(f"{self.folder}/{known.digest}") as source, open(path, "xb") as target:
                os.fchmod(target.fileno(), 0o600)
                while rest >= 0 and (piece := source.read(_CHUNK)):  # it may grow without an end
                    self.check()
                    rest -= len(piece)
                    state.update(piece)
                    target.write(piece)
            if rest or state.hexdigest() != known.digest:
                os.unlink(f"{self.folder}/{known.digest}")
                raise FileNotFoundError
            with contextlib.suppress(OSError):
                os.utime(self._record, follow_symlinks=False)  # it was used
        except FileNotFoundError:
            raise CopyError("what was kept of a download went meanwhile", "build again") from None
        return path

    def keep(self, path: str, headers: Mapping[str, str], digest: str, size: int, mtime: float) -> None:
        """Nothing is lost where this fails (a full disk)."""
        if size > _MOST_BYTES:
            return
        known: dict[str, Any] = {"digest": digest, "size": size, "mtime": mtime}
        known |= {"etag": headers.get("ETag") or "", "modified": headers.get("Last-Modified") or ""}
        temporary = f"{self.folder}/.{os.getpid()}-{os.urandom(6).hex()}"
        try:
            os.makedirs(self.folder, 0o700, exist_ok=True)
            with open(path, "rb") as source, open(temporary, "xb") as target:
                while piece := source.read(_CHUNK):
                    self.check()
                    target.write(piece)
                target.flush()
                os.utime(target.fileno(), (mtime, mtime))
            os.replace(temporary, f"{self.folder}/{digest}")
            with open(temporary, "x", encoding="utf-8") as record:
                json.dump(known, record)
            os.replace(temporary, self._record)
            self._prune()
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            if not isinstance(error, OSError):
                raise

    def _prune(self) -> None:
        """What was used longest ago goes, until the rest is small enough; and what a killed process left."""
        needed: set[str] = set()
        now = time.time()
        found: dict[str, os.stat_result] = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                self.check()
                with contextlib.suppress(FileNotFoundError):
                    found[entry.name] = entry.stat(follow_symlinks=False)
        records = [name for name in sorted(found, key=lambda name: -found[name].st_mtime) if name.endswith(".json")]
        total = 0
        for place, name in enumerate(records):
            self.check()
            digest = ""
            if place < _MOST_FILES:
                with contextlib.suppress(OSError, *_NONSENSE):
                    digest = str(_said(f"{self.folder}/{name}")["digest"])
            size = found[digest].st_size if digest in found and digest not in needed else 0
            if digest not in found or not stat.S_ISREG(found[digest].st_mode) or total + size > _MOST_BYTES:
                with contextlib.suppress(OSError):
                    os.unlink(f"{self.folder}/{name}")
                continue
            total += size
            needed.add(digest)
        for name, status in found.items():
            self.check()
            old = now - status.st_ctime > 3600 if name.startswith(".") else name not in needed and not name.endswith(".json")
            if old:
                with contextlib.suppress(OSError):
                    os.unlink(f"{self.folder}/{name}")


def _regular(path: str) -> BinaryIO:
    """:raises FileNotFoundError: there is none, or something else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FileNotFoundError(error.errno, error.strerror, path) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, "no regular file", path)
    return open(fd, "rb")


def _said(path: str) -> Any:
    with _regular(path) as file:
        return json.loads(file.read(1 << 16))
