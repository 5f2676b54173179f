"""Sources that are addresses: files by http, repositories by git; for ADD and for named contexts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import NotFound
from ..images.view import Node, Rootfs, View
from .addresses import kind
from .archives import is_archive, unpack
from .context import Context
from .layer_writer import LayerWriter
from .sources import CopyError, CopyItem, ImageSource, Source


@dataclass(frozen=True)
class Fetched:
    """What an address led to. ``name``: what it is called below a destination; ``key`` names its content."""

    source: Source
    node: Node
    name: str
    key: str


class Tree(ImageSource):
    """A folder that was made for the build: its links are resolved inside it, and all in it is root's."""

    keeps_owners = False

    def __init__(self, folder: str) -> None:
        super().__init__(View(Rootfs((), ("/",), {"/": folder})))

    def owner(self, node: Node) -> tuple[int, int]:
        return 0, 0


def fetch(url: str, folder: str, *, checksum: str, epoch: int | None, check: Callable[[], None], cache: str = "") -> Fetched:
    """An http(s) address's file into ``folder``, as Docker has it: mode 0600, with the time at which the server says it was modified.

    :param cache: a folder that keeps what was fetched for the next build. See :func:`.downloads.download` for the rest.
    """
    from . import downloads  # most builds fetch nothing, and HTTP takes longer to import than they take

    got = downloads.download(url, folder, checksum=checksum, check=check, cache=cache)
    mtime = got.mtime if epoch is None else min(got.mtime, epoch)
    os.utime(got.path, (mtime, mtime))
    return _found(folder, f"/{got.name}", got.name, f"sha256:{got.digest}")


def clone(
    url: str, folder: str, *, checksum: str, keep_git_dir: bool, check: Callable[[], None], ssh: str = "", submodules: bool = True
) -> Fetched:
    """A repository's files into ``folder``; see :func:`.git.clone`."""
    from . import git

    got = git.clone(url, folder, checksum=checksum, keep_git_dir=keep_git_dir, check=check, ssh=ssh, submodules=submodules)
    found = _found(got.path, "/" + got.subdir.strip("/"), got.name, f"git:{got.commit}:{got.subdir.strip('/')}:{int(got.kept)}")
    return found


def _found(folder: str, path: str, name: str, key: str) -> Fetched:
    source = Tree(folder)
    node = source.find(path)
    if node is None:
        raise CopyError(f"{path.strip('/')!r} is not in what {name} has", "name a folder that is there")
    return Fetched(source, node, name, key)


def of(text: str, folder: Callable[[], str], check: Callable[[], None]) -> tuple[Source, str]:
    """The tree that a named context means: a folder, a repository, or what a tar at an address has (another file is alone in it).

    :param folder: makes a fresh folder for what is fetched. :return: the tree, and what names its content ("" where only a look can tell).
    :raises NotFound: no such folder. :raises CopyError: it cannot be had.
    """
    meant = kind(text)
    if not meant and text.startswith("github.com/") and not os.path.isdir(text):
        text, meant = f"https://{text}", "git"
    if meant == "git":
        got = clone(text, folder(), checksum="", keep_git_dir=False, check=check)
        if got.node.real != "/":
            return Tree(got.node.path), got.key
        return got.source, got.key
    if meant == "http":
        got = fetch(text, folder(), checksum="", epoch=None, check=check)
        item = CopyItem(got.name, got.node, got.source)
        if not is_archive(item):
            return got.source, f"{got.key}:{got.name}"  # a tree with one file: what it is called is a part of the content
        tree = folder()
        writer = LayerWriter(View(Rootfs((), ("/",), {})), tree, None)
        unpack(writer, item, "/", check)
        writer.finish()
        return Tree(tree), got.key
    if "://" in text:
        raise NotFound(f"{text.partition('://')[0]}:// is no kind of context", "a folder, git, http(s), docker-image:// or oci-layout://")
    return Context(text), ""


__all__ = ["Fetched", "Tree", "clone", "fetch", "kind", "of"]
