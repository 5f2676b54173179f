"""``cp`` and ``export``: Docker's rules for names and destinations; the container's side is done by a worker (runtime/files.py)."""

from __future__ import annotations

import contextlib
import os
import posixpath
import select
import stat
import time
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Any, BinaryIO

from ..errors import ContainersError, HelperError, NotFound, UsageError
from ..events import Event, Note, Progress, Work
from ..images import durable
from ..images.pack import Packer
from ..images.unpack import BENEATH, Unpacker
from ..linux import sockets
from ..paths import Paths
from ..runtime import client, state

_CHUNK = 1 << 18
_PERIOD = 0.1  # seconds between two events of one transfer
_PACKED = {b"\x1f\x8b": "gzip", b"BZ": "bz2", b"\xfd7": "lzma"}


class Session:
    """One worker on one container's files; it ends with the connection."""

    def __init__(self, paths: Paths, container_id: str, purpose: str) -> None:
        """:raises StateError: another command works on the container. :raises NotFound: it was removed."""
        self._conn = client.request(paths, {"op": "files", "container": container_id, "purpose": purpose})
        try:
            self._conn.settimeout(60)
            self.ready = bool(self.answer()["ready"])
            self._conn.settimeout(None)
        except BaseException:
            self._conn.close()
            raise

    def ask(self, operation: str, fd: int = -1, **values: Any) -> None:
        sockets.send(self._conn, {"op": operation, **values}, [fd] if fd >= 0 else [])

    def answer(self) -> dict[str, Any]:
        found, fds = sockets.receive(self._conn)
        sockets.close_all(fds)
        if found is None:
            raise HelperError("the worker on the container's files was killed", "try again")
        sockets.raise_error(found)
        return found

    def check(self) -> None:
        """:raises HelperError: the worker has been killed."""
        poll = select.poll()
        poll.register(self._conn, select.POLLIN)
        if poll.poll(0):
            self.answer()

    def stat(self, path: str) -> dict[str, str]:
        self.ask("stat", path=path)
        return self.answer()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._conn.close()


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """What this machine's files refuse, as one line."""
    try:
        yield
    except OSError as error:
        what = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
        raise ContainersError(f"{error.strerror or error}{what}", "") from None


def copy_out(
    paths: Paths, container_id: str, name: str, source: str, target: str | BinaryIO, *, archive: bool, follow: bool
) -> Work[int]:
    """See :meth:`pycontainers.protocol.Engine.copy_out`."""
    path, base = _clean(source)
    with _plain_errors(), Session(paths, container_id, "copy") as session:
        found = session.stat(path)
        followed = follow or path.endswith(("/", "/."))
        kind = found["real_kind"] if followed else found["kind"]
        if not kind:
            raise NotFound(f"could not find the file {source} in container {name}", "exec CONTAINER ls shows what is there")
        if path.endswith("/") and kind != "folder":
            raise UsageError(f"{source} in container {name} is not a directory", "leave out the slash at the end")
        if not isinstance(target, str):
            request = {"path": path, "follow": follow, "name": base or "."}
            return (yield from _pump(session, "pack", request, source, target))
        folder, base = _destination(kind == "folder", base, target, *_here(target))
        request = {"path": path, "follow": follow, "name": base}
        with _folder(folder) as here:
            return (yield from _receive(session, request, source, here, base, archive))


def copy_in(paths: Paths, container_id: str, name: str, source: str | BinaryIO, target: str, *, archive: bool, follow: bool) -> Work[int]:
    """See :meth:`pycontainers.protocol.Engine.copy_in`."""
    path, _ = _clean(target)
    with _plain_errors(), Session(paths, container_id, "copy") as session:
        found = session.stat(path)
        kind, real = found["real_kind"], found["real"]
        if kind == "special":
            raise UsageError(f"destination {target} in container {name} must be a directory or a regular file", "")
        if not isinstance(source, str):
            if kind != "folder":
                raise UsageError(f"destination {target} in container {name} must be a directory", "a tar is unpacked into a directory")
            request = {"path": real, "name": "", "links": True, "owners": True}
            return (yield from _send(session, request, iter(lambda: source.read(_CHUNK), b""), None, target))
        parent, entry, base, is_folder = _local(source, follow)
        try:
            folder, base = _destination(is_folder, base, real, kind, real)
            if session.stat(folder)["real_kind"] != "folder":
                raise NotFound(f"could not find the directory {folder} in container {name}", "make it first, by exec")
            request = {"path": folder, "name": base, "links": False, "owners": archive}
            packer = Packer()
            with _folder(entry, parent) if not base else contextlib.nullcontext(-1) as content:
                pieces = packer.item(parent, entry, base) if base else packer.content(content)
                return (yield from _send(session, request, pieces, packer, source))
        finally:
            os.close(parent)


def export(paths: Paths, container_id: str, name: str, output: BinaryIO) -> Work[int]:
    """See :meth:`pycontainers.protocol.Engine.export`."""
    record = state.read(f"{paths.containers}/{container_id}", "container.json") or {}
    own = sorted(folder for folder in record.get("rootfs", {}).get("base", ()) if folder != "/")
    if own:
        yield Note(f"{name} stands on this machine's own system, which goes into the tar: {', '.join(own)}; commit has its changes alone")
    with _plain_errors(), Session(paths, container_id, "export") as session:
        return (yield from _pump(session, "export", {}, name, output))


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[BinaryIO]:
    """A file that gets its name when it is whole. :raises UsageError: it cannot be written."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(durable.whole(path))
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}", "") from None
        yield file


# -- names


def _clean(path: str) -> tuple[str, str]:
    """An absolute path inside, cleaned as Docker does but for what its end says (``/``, ``/.``); and its last name, "" for content."""
    if not path or "\0" in path:
        raise UsageError(f"{path!r} is not a path in a container", "CONTAINER:/PATH")
    end = "/." if path.endswith("/.") or path == "." else "/" if path.endswith("/") else ""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if clean == "/" or path.endswith("/.."):
        return clean.rstrip("/") + "/.", ""
    return clean + end, "" if end == "/." else posixpath.basename(clean)


def _local(path: str, follow: bool) -> tuple[int, str, str, bool]:
    """(its folder as a descriptor, its name there, the name that it gets ("" for content alone), whether it is a folder)."""
    content = path.endswith(("/.", "/..")) or path in (".", "..")
    base = "" if content else os.path.basename(path.rstrip("/"))
    if follow and os.path.islink(path):
        path = os.path.realpath(path)
    try:
        found = os.stat(path) if content or path.endswith("/") else os.lstat(path)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist on this machine", "give the path of a file or folder, or CONTAINER:PATH") from None
    except NotADirectoryError:
        raise UsageError(f"{path} is not a directory", "leave out the slash at the end") from None
    is_folder = stat.S_ISDIR(found.st_mode)
    folder, entry = (path, ".") if content or path.endswith("/") else (os.path.dirname(path) or ".", os.path.basename(path))
    return os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), entry, base, is_folder


def _here(target: str) -> tuple[str, str]:
    """(kind of what is at a destination on this machine, its path with links resolved). :raises UsageError: neither file nor folder."""
    real = os.path.realpath(target)
    try:
        mode = os.stat(real).st_mode
    except FileNotFoundError:
        if not os.path.isdir(os.path.dirname(real)):
            raise NotFound(f"directory {os.path.dirname(real)} does not exist on this machine", "make it first") from None
        return "", real
    except NotADirectoryError:
        raise UsageError(f"{target} is not a directory", "") from None
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise UsageError(f"destination {target} must be a directory or a regular file", "")
    return "folder" if stat.S_ISDIR(mode) else "file", real


def _destination(is_folder: bool, base: str, target: str, kind: str, real: str) -> tuple[str, str]:
    """(folder to unpack in, name that the source gets there; "" for the content of a folder).

    https://docs.docker.com/reference/cli/docker/container/cp/: the table of sources and destinations.
    """
    if kind == "folder":
        return real, base
    end = target.endswith(("/", "/."))
    if kind and is_folder:
        raise UsageError(f"cannot copy a directory onto the file {target}", "name a directory as destination")
    if kind and end:
        raise UsageError(f"{target} is not a directory", "leave out the slash at the end")
    if not is_folder and end:
        raise NotFound(f"directory {target} does not exist", "make it first, or leave out the slash at the end")
    folder, _, name = real.removesuffix("/.").rstrip("/").rpartition("/")
    return folder or "/", name


@contextlib.contextmanager
def _folder(path: str, at: int | None = None) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
    try:
        yield fd
    finally:
        os.close(fd)


# -- bytes


def _pump(session: Session, operation: str, request: dict[str, Any], what: str, output: BinaryIO) -> Work[int]:
    """The worker's archive, as it is, into a file."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(reader, "rb", 0) as file:
        try:
            session.ask(operation, writer, **request)
        finally:
            os.close(writer)
        meter, done = _Meter(what), 0
        while data := file.read(_CHUNK):
            output.write(data)
            done += len(data)
            yield from meter.moved(done)
    return int(session.answer()["bytes"])


def _receive(session: Session, request: dict[str, Any], what: str, folder: int, base: str, archive: bool) -> Work[int]:
    """The worker's archive, unpacked into a folder of this machine.

    Without ``archive`` (and so without owners) nothing of it gets rights here: no set-user-id bits, no capabilities, no devices.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(reader, "rb", _CHUNK) as file, _folder("/proc") as proc:
        try:
            session.ask("pack", writer, **request)
        finally:
            os.close(writer)
        unpacker = Unpacker(folder, proc=proc, name=base, resolve=BENEATH, owners=archive, all=archive, devices=archive)
        meter = _Meter(what)
        try:
            for done in unpacker.extract(file):
                yield from meter.moved(done)
        except ContainersError:
            file.close()
            session.answer()  # where the archive was cut off: why
            raise
        finally:
            unpacker.close()
    session.answer()
    yield from (Note(note) for note in unpacker.notes[:20])
    return unpacker.bytes


def _send(session: Session, request: dict[str, Any], pieces: Iterator[bytes], packer: Packer | None, what: str) -> Work[int]:
    """An archive to the worker, who unpacks it."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(writer, "wb", 0) as file:
        try:
            session.ask("unpack", reader, **request)
        finally:
            os.close(reader)
        meter, done = _Meter(what), 0
        try:
            for piece in pieces if packer is not None else _plain(pieces):
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
                done += len(piece)
                yield from meter.moved(packer.bytes if packer is not None else done)
        except BrokenPipeError:
            pass  # the worker has stopped reading, and says why
    found = session.answer()
    yield from (Note(note) for note in found["notes"])
    return int(found["bytes"])


def _plain(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A tar that may be compressed, as Docker takes it; unpacked here: inside, no such code may be loaded."""
    first = next(pieces, b"")
    kind = _PACKED.get(first[:2])
    if kind is None:
        yield first
        yield from pieces
        return
    import bz2
    import lzma
    import zlib

    make = {"gzip": lambda: zlib.decompressobj(31), "bz2": bz2.BZ2Decompressor, "lzma": lzma.LZMADecompressor}[kind]
    unpacker: Any = make()
    try:
        yield unpacker.decompress(first)
        for piece in pieces:
            yield unpacker.decompress(piece)
    except (zlib.error, OSError, EOFError, lzma.LZMAError) as error:
        raise UsageError(f"the archive cannot be uncompressed: {error}", "") from None


class _Meter:
    """Events of one transfer, a few each second."""

    def __init__(self, what: str) -> None:
        self._what, self._last = what, time.monotonic()

    def moved(self, done: int) -> Generator[Event, None, None]:
        now = time.monotonic()
        if now - self._last >= _PERIOD:
            self._last = now
            yield Progress(self._what, done)
