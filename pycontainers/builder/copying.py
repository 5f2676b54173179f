"""COPY and ADD into a fresh layer, with Docker's rules for destinations (https://docs.docker.com/reference/dockerfile/#copy)."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ContainersError
from ..images.view import Node, View
from .archives import unpack
from .digests import same
from .layer_writer import LayerWriter, Owner
from .modes import made_mode, parse_mode
from .selecting import Looks
from .sources import CopyError, CopyItem, Source, attributes

_IDS = (1 << 32) - 2  # 2**32 - 1 is chown(2)'s "leave it as it is"


@dataclass(frozen=True)
class CopyWork:
    """A COPY with everything known.

    :param inline: here-documents, (name, content). :param destination: absolute, with a slash at the end where a folder is meant.
    :param chown: ``user[:group]``, "" keeps the source's rule. :param chmod: octal or symbolic, "" keeps the source's.
    :param epoch: unix seconds that no time may be later than (SOURCE_DATE_EPOCH).
    :param link: nothing of the image below is looked at: the destination's folders are made anew, no link there is followed.
    """

    items: tuple[CopyItem, ...]
    inline: tuple[tuple[str, bytes], ...]
    destination: str
    chown: str
    chmod: str
    epoch: int | None = None
    link: bool = False


def fill(view: View, tree: str, work: CopyWork, check: Callable[[], None]) -> None:
    """Put what ``work`` says into the empty layer folder ``tree`` above the image ``view``.

    :param check: called between files; it raises when the build was cancelled.
    :raises CopyError: the destination does not fit, a file cannot be read or changed meanwhile, an owner that the image does not have.
    """
    owner = parse_owner(view, work.chown, named=not work.link) if work.chown else None
    mode = parse_mode(work.chmod) if work.chmod else None
    writer = LayerWriter(view, tree, owner, mode, epoch=work.epoch, link=work.link, check=check)
    try:
        for item in work.items:
            check()
            writer.forget_links()
            writer.made = 0o755 if item.unpack else made_mode(work.chmod)
            _place(writer, item, work.destination, check)
        writer.made = made_mode(work.chmod)
        for name, content in work.inline:
            check()
            real = _destination(writer, work.destination)
            writer.write(_in_folder(real, name) if writer.is_folder(real) else real, content, writer.started)
    except OSError as error:
        where = os.fsdecode(error.filename) if error.filename is not None else work.destination
        raise CopyError(f"{error.strerror}: {where.removeprefix(tree)}", "check that the file can be read") from None
    writer.finish()


def _place(writer: LayerWriter, item: CopyItem, destination: str, check: Callable[[], None]) -> None:
    real = _destination(writer, destination)
    if item.unpack:
        _unchanged(item)
        unpack(writer, item, real, check)
        _unchanged(item)
    elif item.keep:
        _kept(writer, item, real, check)
    elif stat.S_ISDIR(item.node.stat.st_mode):
        if not writer.is_folder(real) and writer.existing(real) is not None:
            raise CopyError(f"cannot copy a folder onto {real}, which is not a folder in the image", "choose another destination")
        # Owner and mode are its own in the image, or new, and not the source's; its time is the source's: so does BuildKit.
        writer.make_folder(real, writer.started)
        writer.date_folder(real, item.node.stat.st_mtime_ns)
        _content(writer, item, real, check)
    else:
        writer.copy(item.source, item.node, _in_folder(real, item.name) if writer.is_folder(real) else real)


def _kept(writer: LayerWriter, item: CopyItem, real: str, check: Callable[[], None]) -> None:
    """``--parents``: folders on the way that are new get the source's attributes."""
    writer.make_folder(real, writer.started)
    names = item.keep.split("/")
    for depth, node in enumerate(item.above, 1):
        below = _in_folder(real, "/".join(names[:depth]))
        if not writer.is_folder(below):
            _folder(writer, item.source, node, below)
    real = _in_folder(real, item.keep)
    if stat.S_ISDIR(item.node.stat.st_mode):
        _folder(writer, item.source, item.node, real)
        _content(writer, item, real, check)
    else:
        writer.copy(item.source, item.node, real)


def _destination(writer: LayerWriter, destination: str) -> str:
    """Where the destination is; with a slash at its end it is made. Links made by what was copied before count, too."""
    real = writer.resolve(destination)
    if destination.endswith("/"):
        writer.make_folder(real, writer.started)
    return real


def _content(writer: LayerWriter, item: CopyItem, real: str, check: Callable[[], None]) -> None:
    """What is in a folder, into a folder. Those below get the source's attributes, also where the image has them."""
    looks = Looks(item)
    for entry in item.source.entries(item.node):
        looks.add(entry)
        if not entry.relative:
            continue
        check()
        target = _in_folder(real, entry.relative)
        if stat.S_ISDIR(entry.node.stat.st_mode):
            _folder(writer, item.source, entry.node, target)
        else:
            writer.copy(item.source, entry.node, target)
    looks.compare()


def _unchanged(item: CopyItem) -> None:
    """:raises CopyError: the file is not what it was when it was found."""
    if not item.node.path:
        return
    fd = item.source.open(item.node)
    try:
        if not same(os.fstat(fd), item.node.stat):
            raise CopyError(f"{item.node.real} changed while it was copied", "build again, or exclude it in .dockerignore")
    finally:
        os.close(fd)


def _folder(writer: LayerWriter, source: Source, node: Node, real: str) -> None:
    extended: list[tuple[str, bytes]] = []
    if node.path:
        fd = source.open(node)
        try:
            extended = attributes(fd)
        finally:
            os.close(fd)
    writer.set_folder(real, source.owner(node), stat.S_IMODE(node.stat.st_mode), node.stat.st_mtime_ns, extended)


def _in_folder(real: str, name: str) -> str:
    return f"{real.rstrip('/')}/{name}"


def parse_owner(view: View, text: str, named: bool = True) -> Owner:
    """(uid, gid) of ``--chown=user[:group]``, names looked up in the image. A number without a group is also the gid (Docker).

    :param named: names can be looked up. :raises ContainersError: a name that the image does not have, an id that the kernel has not.
    """
    name, _, group = text.partition(":")
    uid, gid = 0, 0
    if name:
        uid, gid = (_number(name), _number(name)) if name.isdecimal() else _row(view, "/etc/passwd", "user", name, named)
    if group:
        gid = _number(group) if group.isdecimal() else _row(view, "/etc/group", "group", group, named)[0]
    return uid, gid


def _number(text: str) -> int:
    if len(text) > 10 or not text.isascii() or int(text) > _IDS:
        raise CopyError(f"owner {text[:40]!r} is not an id", "for example: --chown=1000:1000")
    return int(text)


def _row(view: View, path: str, what: str, name: str, named: bool) -> tuple[int, int]:
    """The first two numbers of a row of passwd or group."""
    if not named:
        raise CopyError(f"{what} {name!r} cannot be looked up with --link, which does not look at the image", "use a numeric id")
    try:
        text = view.read(path).decode("utf-8", "replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        row = line.split(":")
        if row[0] == name and len(row) >= 4 and row[2].isdecimal():
            return _number(row[2]), _number(row[3]) if row[3].isdecimal() else 0
    raise ContainersError(f"{what} {name[:40]!r} is not in the image's {path}", f"use a numeric id, or a {what} that the image has")


__all__ = ["CopyError", "CopyItem", "CopyWork", "LayerWriter", "Owner", "fill", "parse_mode", "parse_owner"]
