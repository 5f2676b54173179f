"""A tar read as a stream: fast (some microseconds a header) and strict, with names and attributes as the bytes that they are.

Formats: V7, ustar and star (POSIX.1-1988), PAX (POSIX.1-2001), GNU (long names, base-256 numbers, sparse files old and 0.0 to 1.0).
Where they leave a choice it is Go's ``archive/tar`` that decides, for Docker, podman and containerd read layers with it: a layer that
means one thing there and another here would be a way around whoever looked at it (CVE-2025-62518: whose size counts).
"""

from __future__ import annotations

import binascii
import os
import re
import struct
from collections.abc import Callable, Iterator
from zlib import adler32

from ..errors import ContainersError

BLOCK = 512
#: Kinds of entries: type flags of the ustar format.
FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, FOLDER, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"

_CHUNK = 1 << 18  # bytes that are read at once
_EXTENDED = 1 << 20  # bytes of one extended header, long name or sparse map, as Go's reader has it (CVE-2025-58183)
_TRAILING = 16 << 20  # bytes after the end: tar fills its last record (20 blocks, some thousand with -b); more is a bomb
_LARGEST = (1 << 63) - 1
_IDS = (1 << 32) - 2  # 2**32 - 1 is chown(2)'s "leave it as it is"
_ZEROS = bytes(BLOCK)
#: name, mode + uid + gid, size, mtime, checksum, type, link, magic + version, user + group name, device, prefix, rest
_HEADER = struct.Struct("100s24s12s12s8sc100s8s64s16s155s12s")
_NAMELESS = frozenset((LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, FOLDER, FIFO))  # no content follows, whatever the size says
_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?\Z")
_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
_NOT_GLOBAL = (b"path", b"linkpath", b"size", b"GNU.sparse.")  # that hold for one file, and would give every file the same


class ArchiveError(ContainersError):
    """An archive that is not whole, or not well formed."""


class Entry:
    """One entry of an archive.

    :ivar name: as it stands there. :ivar kind: :data:`FILE`, :data:`FOLDER`, …; another type flag is not known.
    :ivar mode: permission bits, set-user-id and sticky ones too. :ivar size: bytes of the file's content, holes included.
    :ivar mtime: nanoseconds. :ivar target: of a hard or symbolic link. :ivar device: (major, minor).
    :ivar attributes: extended ones, name → value. :ivar parts: of a sparse file, (offset, bytes) of what is not a hole; else None.
    :ivar stored: bytes of content in the archive.
    """

    __slots__ = ("attributes", "device", "gid", "kind", "mode", "mtime", "name", "parts", "size", "stored", "target", "uid")

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    target: bytes
    device: tuple[int, int]
    attributes: dict[bytes, bytes]
    parts: list[tuple[int, int]] | None
    stored: int

    def __init__(self, name: bytes = b"", kind: bytes = FILE) -> None:
        self.name, self.kind, self.mode = name, kind, 0o644
        self.uid = self.gid = self.size = self.mtime = self.stored = 0
        self.target, self.device, self.attributes, self.parts = b"", (0, 0), {}, None

    def __repr__(self) -> str:
        return f"<Entry {shown(self.name)} {self.kind!r} {self.mode:o} {self.uid}:{self.gid} {self.size}>"


class Reader:
    """The entries of an archive, one after the other: iterate, and read a file's :meth:`content` before going on.

    :param read: gives some bytes, at most as many as asked for; none at the end.
    :param pass_over: goes so many bytes on without reading them, where ``read`` can, past the end too: then content that is cut off is the
        caller's to notice (:attr:`position`, :attr:`Entry.stored`).
    :param defaults: whether global extended headers hold for the entries after them (POSIX), or are passed over (Go, and so Docker).
    """

    def __init__(
        self, read: Callable[[int], bytes], *, pass_over: Callable[[int], object] | None = None, defaults: bool = True
    ) -> None:
        self._read, self._pass_over = read, pass_over
        self._buffer, self._place = b"", 0
        self._given = 0  # bytes of the buffers before this one
        self._left = self._padding = 0  # of the current entry
        self._entry: Entry | None = None
        self._use_defaults, self._defaults = defaults, _Records()
        self._known: dict[bytes, tuple[int, int, int]] = {}  # mode, uid and gid as they are written → as numbers: mostly the same few

    @property
    def position(self) -> int:
        """Bytes of the archive that have been used so far."""
        return self._given + self._place

    def __iter__(self) -> Iterator[Entry]:
        """:raises ArchiveError: what is wrong, and with which entry. :raises OSError: of ``read``."""
        while (entry := self._next()) is not None:
            self._entry = entry
            yield entry
        self._entry = None

    def content(self) -> Iterator[tuple[int, memoryview]]:
        """(offset in the file, bytes there) of the current entry, in order. The bytes are valid until the next step."""
        entry = self._entry
        if entry is None or not self._left:
            return
        for offset, size in entry.parts if entry.parts is not None else ((0, self._left),):
            while size:
                if self._place == len(self._buffer) and not self._fill():
                    raise _cut(entry.name)
                piece = memoryview(self._buffer)[self._place : self._place + size]
                count = len(piece)
                self._place += count
                self._left -= count
                size -= count
                yield offset, piece
                offset += count

    def drain(self) -> None:
        """Read what follows the last entry: whoever still writes it must not find nobody there, and a digest counts it too."""
        self._given += len(self._buffer)
        self._buffer, self._place = b"", 0
        trailing = 0
        while piece := self._read(_CHUNK):
            trailing += len(piece)
            self._given += len(piece)
            if trailing > _TRAILING:
                raise ArchiveError(f"more than {_TRAILING >> 20} MiB follow the end of the archive", "it was made to be endless")

    # -- bytes

    def _fill(self) -> bool:
        self._given += len(self._buffer)
        self._place = 0
        self._buffer = self._read(_CHUNK)
        return bool(self._buffer)

    def _take(self, size: int) -> bytes:
        """Exactly ``size`` bytes, fewer only at the end."""
        taken = self._buffer[self._place : self._place + size]
        self._place += len(taken)
        while len(taken) < size and self._fill():
            more = self._buffer[: size - len(taken)]
            self._place = len(more)
            taken += more
        return taken

    def _skip(self) -> None:
        """To the next header."""
        size = self._left + self._padding
        rest = size - (len(self._buffer) - self._place)
        if rest > 0 and self._pass_over is not None:
            self._given += len(self._buffer) + rest
            self._buffer, self._place = b"", 0
            self._pass_over(rest)
            size = 0
        while size > len(self._buffer) - self._place:
            size -= len(self._buffer) - self._place
            if not self._fill():
                # Go's reader wants the content, and lets its padding be missing where nothing follows.
                if size > self._padding:
                    raise _cut(self._entry.name if self._entry else b"")
                size = 0
                break
        self._place += size
        self._left = self._padding = 0

    def _header(self) -> bytes:
        """The next block; empty at the end of the archive."""
        block = self._take(BLOCK)
        if block == _ZEROS:  # a second one, or nothing, has to follow
            block = self._take(BLOCK)
            if block and block != _ZEROS:
                raise ArchiveError(f"an empty block inside the archive, at byte {self.position - 2 * BLOCK}", "it is damaged")
            return b""
        if block and len(block) < BLOCK:
            raise ArchiveError(f"not a whole tar archive: it ends in a header, after {self.position} bytes", "get or make it again")
        return block

    def _body(self, size: int, what: str) -> bytes:
        """The content of an extended header."""
        if size > _EXTENDED:
            raise ArchiveError(f"{what} of {size} bytes", f"at most {_EXTENDED} are taken")
        body = self._take(size)
        if len(body) < size or len(self._take(-size % BLOCK)) < -size % BLOCK:
            raise ArchiveError(f"the archive ends in the middle of {what}", "it is not whole: get it again")
        return body

    # -- headers

    def _next(self) -> Entry | None:
        self._skip()
        local: _Records | None = None
        name = target = b""
        while True:
            block = self._header()
            if not block:
                if local is not None or name or target:
                    raise ArchiveError("the archive ends after an extended header", "it is not whole: get it again")
                return None
            kind = block[156:157]
            if kind in b"xXgLKV":
                checked(block)
                size = _number(block[124:136], "size")
                if kind == b"V":  # GNU: a label of the archive
                    continue
                body = self._body(size, "an extended header" if kind in b"xXg" else "a long name")
                if kind == b"g":
                    self._defaults.update(body, everywhere=True)
                elif kind in b"xX":
                    local = _Records()
                    local.update(body)
                elif kind == b"L":
                    name = body.partition(b"\0")[0]
                else:
                    target = body.partition(b"\0")[0]
                continue
            return self._file(block, local, name, target)

    def _file(self, block: bytes, local: _Records | None, long_name: bytes, long_target: bytes) -> Entry:
        entry = Entry.__new__(Entry)  # every field is set below
        name, numbers, size, mtime, checksum, kind, target, magic, _, device, prefix, rest = _HEADER.unpack(block)
        _check(block, checksum)
        name = name.partition(b"\0")[0]
        ustar = magic[:6] == b"ustar\0"
        if ustar and prefix[0]:
            if rest[8:] == b"tar\0":  # star: two times stand where the prefix would end
                prefix = prefix[:131]
            name = prefix.partition(b"\0")[0] + b"/" + name
        entry.name, entry.target = name, target.partition(b"\0")[0]
        known = self._known.get(numbers)
        if known is None:
            known = _owner(numbers, name)
            if len(self._known) < 4096:
                self._known[numbers] = known
        entry.mode, entry.uid, entry.gid = known
        entry.size, entry.mtime = _number(size, "size", name), _number(mtime, "time", name) * 1_000_000_000
        entry.kind, entry.device, entry.attributes, entry.parts = kind, (0, 0), {}, None
        if kind in b"34" and magic[:5] == b"ustar":
            entry.device = _number(device[:8], "device", name), _number(device[8:], "device", name)
        if self._use_defaults and self._defaults.values:
            self._defaults.apply(entry)
        if local is not None:
            local.apply(entry)
        entry.name, entry.target = long_name or entry.name, long_target or entry.target
        if kind == b"\0":
            entry.kind = FOLDER if entry.name.endswith(b"/") else FILE  # V7 had no folders
        elif kind == b"7":
            entry.kind = FILE  # contiguous: the same on any disk of today
        elif kind == b"D":
            entry.kind = FOLDER  # GNU: of an incremental archive, with a list of what is in it
        elif kind == b"M":
            raise ArchiveError(f"{shown(entry.name)} began in another volume of the archive", "join the volumes first")
        if not 0 <= entry.size <= _LARGEST:
            raise ArchiveError(f"{shown(entry.name)} has a size of {entry.size} bytes", "the archive is damaged")
        entry.stored = self._left = 0 if entry.kind in _NAMELESS and kind != b"D" else entry.size
        self._padding = -entry.stored % BLOCK
        if kind == b"S":
            self._old_sparse(entry, block)
        elif local is not None and entry.kind == FILE:
            self._sparse(entry, local)
        if entry.kind != FILE:
            entry.size = 0
        return entry

    # -- sparse files (the tar manual, "Storing Sparse Files")

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        """GNU's first way: four parts in the header, 21 in each block that follows it."""
        entry.kind = FILE
        entry.size = _number(block[483:495], "size", entry.name)
        numbers = [block[at : at + 12] for at in range(386, 386 + 4 * 24, 12)]
        more, blocks = block[482], 0
        while more:
            block = self._body(BLOCK, "a sparse file's map")
            blocks += 1
            if blocks * BLOCK > _EXTENDED:
                raise ArchiveError(f"{shown(entry.name)}: a map of more than {_EXTENDED} bytes", "")
            numbers += [block[at : at + 12] for at in range(0, 21 * 24, 12)]
            more = block[504]
        numbers = numbers[: next((at for at in range(0, len(numbers), 2) if not numbers[at].strip(b"\0 ")), len(numbers))]
        self._place_parts(entry, [_number(number, "map", entry.name) for number in numbers])

    def _sparse(self, entry: Entry, local: _Records) -> None:
        values = local.values
        version = values.get(b"GNU.sparse.major", b""), values.get(b"GNU.sparse.minor", b"")
        size = values.get(b"GNU.sparse.realsize", values.get(b"GNU.sparse.size", b""))
        if version == (b"1", b"0"):
            numbers = self._sparse_map(entry)
        elif version in ((b"0", b"0"), (b"0", b"1"), (b"", b"")) and (b"GNU.sparse.map" in values or local.sparse):
            map_ = values.get(b"GNU.sparse.map")
            numbers = [_decimal(number, "map") for number in (map_.split(b",") if map_ is not None else local.sparse)]
            if len(numbers) != 2 * _decimal(values.get(b"GNU.sparse.numblocks", b"%d" % (len(numbers) // 2)), "map"):
                raise ArchiveError(f"{shown(entry.name)}: a sparse file's map has other parts than it says", "the archive is damaged")
        else:
            return
        if b"GNU.sparse.name" in values:
            entry.name = values[b"GNU.sparse.name"]
        entry.size = _decimal(size, "size")
        self._place_parts(entry, numbers)

    def _sparse_map(self, entry: Entry) -> list[int]:
        """1.0: a number a line before the content, filled up to whole blocks."""
        text, lines, wanted = b"", 0, 1
        while lines < wanted:
            if self._left < BLOCK or len(text) >= _EXTENDED:
                raise ArchiveError(f"{shown(entry.name)}: a sparse file's map does not end", "the archive is damaged")
            block = self._take(BLOCK)
            if len(block) < BLOCK:
                raise _cut(entry.name)
            self._left -= BLOCK
            text += block
            lines += block.count(b"\n")
            if wanted == 1 and lines:
                wanted = 1 + 2 * _decimal(text.partition(b"\n")[0], "map")
        return [_decimal(number, "map") for number in text.split(b"\n")[1:wanted]]

    def _place_parts(self, entry: Entry, numbers: list[int]) -> None:
        parts = list(zip(numbers[::2], numbers[1::2], strict=True)) if len(numbers) % 2 == 0 else [(-1, 0)]
        end = 0
        for offset, size in parts:
            if offset < end or size < 0:
                break
            end = offset + size
        else:
            if end <= entry.size <= _LARGEST and sum(size for _, size in parts) == self._left:
                entry.parts = parts
                entry.stored = self._left
                return
        raise ArchiveError(f"{shown(entry.name)}: a sparse file's map does not fit its content", "the archive is damaged")


class _Records:
    """Extended headers in PAX's form."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.sparse: list[bytes] = []  # GNU.sparse 0.0 has these two keys again and again

    def update(self, data: bytes, everywhere: bool = False) -> None:
        place = 0
        while place < len(data):
            space = data.find(b" ", place, place + 20)
            digits = data[place:space] if space > 0 else b""
            end = place + int(digits) if digits.isdigit() else 0
            if end <= space + 1 or end > len(data) or data[end - 1] != 10:
                raise ArchiveError(f"an extended header has a record of the wrong length: {data[place : place + 40]!r}", "it is damaged")
            key, equals, value = data[space + 1 : end - 1].partition(b"=")
            if not key or not equals or b"\0" in key or (b"\0" in value and key in (b"path", b"linkpath", b"GNU.sparse.name")):
                raise ArchiveError(f"an extended header has a record that says nothing: {data[place : place + 40]!r}", "it is damaged")
            place = end
            if everywhere and key.startswith(_NOT_GLOBAL):
                continue
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                if (key == b"GNU.sparse.numbytes") != (len(self.sparse) % 2 == 1):
                    raise ArchiveError("a sparse file's map is out of order", "the archive is damaged")
                self.sparse.append(value)
            else:
                self.values[key] = value

    def apply(self, entry: Entry) -> None:
        for key, value in self.values.items():
            if key.startswith(b"SCHILY.xattr."):
                entry.attributes[_attribute(key[13:])] = value
            elif not value:
                continue  # POSIX: what the header says holds
            elif key == b"path":
                entry.name = value
            elif key == b"linkpath":
                entry.target = value
            elif key == b"size":
                entry.size = _decimal(value, "size")
            elif key == b"mtime":
                entry.mtime = _time(value)
            elif key == b"uid":
                entry.uid = _id(value)
            elif key == b"gid":
                entry.gid = _id(value)
            elif key.startswith(b"LIBARCHIVE.xattr."):
                _libarchive(entry, key[17:], value)


def shown(name: bytes) -> str:
    """A name for a message."""
    return repr(os.fsdecode(name if len(name) <= 300 else name[:150] + b"..." + name[-150:]))


def _cut(name: bytes) -> ArchiveError:
    return ArchiveError(f"the archive ends in the middle of {shown(name)}", "it is not whole: get it again")


def checked(block: bytes) -> None:
    """:raises ArchiveError: the sum of a header is wrong."""
    _check(block, block[148:156])


def sum_of(block: bytes) -> int:
    """The sum of a header's bytes. Adler-32's lower half is the sum plus one, modulo 65521: of 256 bytes that is exact, and ten times as
    fast as adding in Python.
    """
    return (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2


def _check(block: bytes, field: bytes) -> None:
    """The sum counts spaces where it stands itself."""
    digits = field.strip(b"\0 ")
    total = sum_of(block) - (adler32(field) & 0xFFFF) + 257
    try:
        wanted = int(digits, 8) if digits.isdigit() else -1
    except ValueError:
        wanted = -1
    if wanted == total:
        return
    signed = block[:148] + b"        " + block[156:]
    if wanted != total - 256 * sum(byte > 127 for byte in signed):  # some old tars added signed bytes
        what = f"not a tar archive, or a damaged one: a header's checksum is {field!r}, its sum {total:o}"
        raise ArchiveError(what, "make it again with tar")


def _number(field: bytes, what: str, name: bytes = b"") -> int:
    if field[0] & 0x80:  # GNU: base 256, two's complement below the first bit
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        bits = 8 * len(field) - 1
        value = value - (1 << bits) if value >> (bits - 1) else value
        if not -_LARGEST <= value <= _LARGEST:
            raise ArchiveError(f"{shown(name)}: {what} {value} is out of range", "the archive is damaged")
        return value
    text = field.partition(b"\0")[0].strip(b" ") or field.strip(b"\0 ")
    if not text:
        return 0
    try:
        if text.isdigit():
            return int(text, 8)
    except ValueError:
        pass
    raise ArchiveError(f"{shown(name)}: {what} {field!r} is no number", "the archive is damaged")


def _owner(numbers: bytes, name: bytes) -> tuple[int, int, int]:
    mode, uid, gid = (_number(numbers[at : at + 8], what, name) for at, what in ((0, "mode"), (8, "owner"), (16, "group")))
    if not 0 <= uid <= _IDS or not 0 <= gid <= _IDS:
        raise ArchiveError(f"{shown(name)} belongs to {uid}:{gid}", f"ids are numbers from 0 to {_IDS}")
    return mode & 0o7777, uid, gid


def _decimal(value: bytes, what: str) -> int:
    if not value.isdigit() or len(value) > 19 or int(value) > _LARGEST:
        raise ArchiveError(f"an extended header has a {what} that is no number: {value[:40]!r}", "the archive is damaged")
    return int(value)


def _id(value: bytes) -> int:
    number = _decimal(value, "owner")
    if number > _IDS:
        raise ArchiveError(f"a file belongs to {number}", f"ids are numbers from 0 to {_IDS}")
    return number


def _time(value: bytes) -> int:
    """Nanoseconds, exactly. The kernel brings what a file system cannot hold to what it can."""
    found = _TIME.match(value)
    if not found:
        raise ArchiveError(f"an extended header has a time that is none: {value[:40]!r}", "the archive is damaged")
    nanoseconds = int(found[2]) * 1_000_000_000 + int((found[3] or b"")[:9].ljust(9, b"0"))
    return -nanoseconds if found[1] else nanoseconds


def _attribute(name: bytes) -> bytes:
    if not name or len(name) > 255:
        raise ArchiveError(f"an extended attribute's name has {len(name)} bytes", "xattr(7): 1 to 255")
    return name


def _libarchive(entry: Entry, name: bytes, value: bytes) -> None:
    """bsdtar's older form, which it still writes beside the other: the name as in a URL, the value in base 64."""
    name = _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), name)
    try:
        entry.attributes.setdefault(_attribute(name), binascii.a2b_base64(value + b"=" * (-len(value) % 4), strict_mode=True))
    except binascii.Error:
        raise ArchiveError(f"{shown(entry.name)}: attribute {name!r} is not in base 64", "the archive is damaged") from None
