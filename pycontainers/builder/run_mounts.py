"""``RUN --mount``: what a command sees beside its layers, and what of that decides over the cache.

https://docs.docker.com/reference/dockerfile/#run---mount. A source (of the context, a stage, an image) is bound as it lies on
disk where it lies there whole, and else as a layer of its own, made once and kept like any other; what is written into a ``rw`` mount
is thrown away. Caches are folders of the store, held by flock(2) as long as the command runs.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from ..events import Event, Note
from ..images.store import Layer
from ..images.view import View
from ..linux import owners
from ..protocol import Mount
from . import instructions as ins
from .cache import BuildCache, Definition
from .copying import CopyWork, fill
from .executor import Executor, PrivateFile
from .origins import Origin, Origins
from .parser import Raw
from .placed import placed
from .selecting import digest, digests, select
from .sources import CopyItem, ImageSource
from .stage import StageState

_WAIT = 0.05
_SECRETS = "/run/secrets"
_AGENT = "/run/buildkit/ssh_agent."


@dataclass(frozen=True)
class Wanted:
    """One mount with its texts expanded. ``items``, ``origin``, ``content`` (a digest): of a source, where there is one."""

    mount: ins.RunMount
    target: str
    id: str
    source: str
    origin: Origin | None = None
    items: tuple[CopyItem, ...] = ()
    content: str = ""

    def part(self) -> list[Any]:
        """What of it goes into the step's key: the place always, content where the command may read it; a secret's value never."""
        one = self.mount
        fixed = [one.type, self.target, self.id, one.read_only, one.mode, one.uid, one.gid, one.size, one.env]
        return [*fixed, one.sharing if one.type == "cache" else "", self.content if one.type == "bind" else ""]


Ready = tuple[list[Mount], list[PrivateFile], dict[str, str]]
"""Mounts, private files, and variables of the environment."""


class RunMounts:
    """The mounts of RUN steps. ``secrets`` and ``agents``: id -> content, and id -> socket."""

    def __init__(self, origins: Origins, cache: BuildCache, executor: Executor, tell: Callable[[Event], None]) -> None:
        self._origins, self._cache, self._executor, self._tell = origins, cache, executor, tell
        self._secrets, self._agents = origins.request.secrets, origins.request.ssh

    def wanted(self, state: StageState, item: ins.Run, sources: dict[str, int]) -> Generator[Event, None, list[Wanted]]:
        """With everything known that can be wrong. :raises BuildError:"""
        found = []
        for mount in state.mounts(item):
            found.append((yield from self._wanted(state, item.raw, mount, sources)))
        places = [one.target for one in found if one.target]
        for one in found:
            if one.target and places.count(one.target) > 1:
                raise item.raw.error(f"two mounts at {one.target}", "give each a target of its own", flag=one.mount.flag)
        return found

    def _wanted(
        self, state: StageState, raw: Raw, mount: ins.RunMount, sources: dict[str, int]
    ) -> Generator[Event, None, Wanted]:
        target, source, id = mount.target, mount.source, mount.id
        if mount.type == "ssh":
            id = id or "default"
            self._check_given(raw, mount, id, self._agents, f"--ssh {id}")
        elif mount.type == "secret":
            id = id or posixpath.basename(target)
            target = target or ("" if mount.env else f"{_SECRETS}/{id}")
            self._check_given(raw, mount, id, self._secrets, f"--secret id={id},src=FILE")
        target = _absolute(state.workdir, target) if target else ""
        if mount.type == "cache":
            id = id or target
            if id.startswith("pycontainers:"):  # what ADD fetched lies there: a command could give the next build another file
                raise raw.error(f"a cache mount cannot have the id {id}", "choose another", flag=mount.flag)
        if mount.type not in ("bind", "cache") or (mount.type == "cache" and not (mount.origin or source)):
            return Wanted(mount, target, id, source)
        if mount.type == "cache" and not mount.origin:
            raise raw.error("source of a cache mount without from", "from=STAGE says whose folder it begins with", flag=mount.flag)
        path = "/" + posixpath.normpath("/" + source).lstrip("/")
        origin = yield from self._origins.files(raw, mount.origin, mount.flag, sources)
        with placed(raw):
            items = select(origin.source, path, parents=False, exclude=())
        if not items:
            raise raw.error(f"{source or '/'} is not in {origin.title}", "source is a path from its root", flag=mount.flag)
        if _holds_this_machine(items[0], mount.type == "bind" and mount.read_only):
            message = f"{path} of {origin.title} has this machine's own system in it, which would have to be copied"
            raise raw.error(message, "name a folder that was made in it: source=/srv", flag=mount.flag)
        with placed(raw):
            content = f"{origin.chain} {path}" if origin.chain else digest(items[0], self._executor.cancellation.check)
        return Wanted(mount, target, id, path, origin, tuple(items[:1]), content)

    def _check_given(self, raw: Raw, mount: ins.RunMount, id: str, given: Iterable[str], option: str) -> None:
        if mount.required and id not in given:
            raise raw.error(f"{mount.type} {id!r} is required, and this build was given none", f"build {option}", flag=mount.flag)

    @contextlib.contextmanager
    def ready(self, wanted: list[Wanted]) -> Generator[Ready, None, None]:
        """What a command is given, as long as the block runs."""
        mounts: list[Mount] = []
        files: list[PrivateFile] = []
        env: dict[str, str] = {}
        with contextlib.ExitStack() as held:
            caches = self._caches(wanted, held)
            for number, one in enumerate(wanted):
                mount = one.mount
                mode, uid, gid = mount.mode, mount.uid or 0, mount.gid or 0
                match mount.type:
                    case "tmpfs":
                        size = (f"size={mount.size}",) if mount.size else ()
                        mounts.append(Mount("tmpfs", one.target, options=("exec", *size)))
                    case "secret" if one.id in self._secrets:
                        content = self._secrets[one.id]
                        if mount.env:
                            env[mount.env] = content.decode("utf-8", "surrogateescape")
                        if one.target:
                            files.append(PrivateFile(one.target, content, mode=0o400 if mode is None else mode, uid=uid, gid=gid))
                    case "ssh" if one.id in self._agents:
                        place = one.target or f"{_AGENT}{number}"
                        agent = self._agents[one.id]
                        files.append(PrivateFile(place, agent=agent, mode=0o600 if mode is None else mode, uid=uid, gid=gid))
                        env.setdefault("SSH_AUTH_SOCK", place)
                    case "cache":
                        folder = caches[number]
                        mounts.append(Mount("bind", one.target, folder, mount.read_only, options=("bind",)))
                    case "bind":
                        folder = held.enter_context(self._copy(one)) if not mount.read_only else self._bound(one)
                        mounts.append(Mount("bind", one.target, folder, mount.read_only, options=("bind",)))
            yield mounts, files, env

    # -- sources

    def _bound(self, one: Wanted) -> str:
        """A path on this machine with the source's content, which nobody changes."""
        assert one.origin is not None
        (item,) = one.items
        whole = item.source.view.whole(item.node) if isinstance(item.source, ImageSource) else None
        if whole is not None:
            return whole
        return _inside(self.layer(one.origin, item).path, item)

    def layer(self, origin: Origin, item: CopyItem) -> Layer:
        """A file or folder as a layer of its own, made once."""
        content = f"{origin.chain} {item.node.real}" if origin.chain else digest(item, self._executor.cancellation.check)
        key = Definition("mount", "", {"content": content}, f"{origin.title} {item.node.real}", lambda: digests(item))
        with self._cache.alone(key.key):
            layer = self._cache.find(key.key, False, key.parent)
            if layer is None:
                layer = self._executor.make(lambda tree: self._fill(tree, item))
                self._cache.remember(key, layer)
        return layer

    @contextlib.contextmanager
    def _copy(self, one: Wanted) -> Generator[str, None, None]:
        """A copy that may be written to, and is gone afterwards."""
        tree = self._executor.store.new_layer()
        try:
            self._fill(tree, one.items[0])
            yield _inside(tree, one.items[0])
        finally:
            self._executor.store.discard(tree)

    def _fill(self, tree: str, item: CopyItem) -> None:
        empty = View(self._executor.store.scratch().rootfs)
        fill(empty, tree, CopyWork((item,), (), _place(item), "", ""), self._executor.cancellation.check)

    # -- caches

    def _caches(self, wanted: list[Wanted], held: contextlib.ExitStack) -> dict[int, str]:
        """The folders of the cache mounts, each held once, in the order of their ids: steps that want the same never wait in a circle."""
        asked: dict[str, list[int]] = {}
        found: dict[int, str] = {}
        for number, one in enumerate(wanted):
            if one.mount.type == "cache" and one.mount.sharing == "private":
                found[number] = self._hold(one.id, held, alone=True, private=True)
            elif one.mount.type == "cache":
                asked.setdefault(one.id, []).append(number)
        for id, numbers in sorted(asked.items()):
            folder = self._hold(id, held, alone=any(wanted[number].mount.sharing == "locked" for number in numbers))
            found.update(dict.fromkeys(numbers, folder))
        for number, folder in found.items():
            self._begin_cache(wanted[number], folder)
        return found

    def _hold(self, id: str, held: contextlib.ExitStack, *, alone: bool, private: bool = False) -> str:
        """A cache's folder, held until the step is over. Who wants it alone waits; of a private one that is taken there is another."""
        store, number, told = self._executor.store, 0, False
        while True:
            taken = store.hold_cache_mount(f"{id}#{number}" if number else id, alone)
            if taken is not None:
                held.callback(os.close, taken[1])
                return taken[0]
            if private:
                number += 1
                continue
            if not told:
                self._tell(Note(f"cache {id} is in use by another step: waiting for it"))
                told = True
            self._executor.cancellation.pause(_WAIT)

    def _begin_cache(self, one: Wanted, folder: str) -> None:
        """What an empty cache begins with. Put together where nobody else writes, and then put in its place: in the folder itself a command
        that shares it could lead us out by links while we write as root.
        """
        mount = one.mount
        mode, uid, gid = 0o755 if mount.mode is None else mount.mode, mount.uid or 0, mount.gid or 0
        fill_it = bool(one.items) and stat.S_ISDIR(one.items[0].node.stat.st_mode)
        if os.listdir(folder) or not (fill_it or (mode, uid, gid) != (0o755, 0, 0)):
            return
        tree = self._executor.store.new_layer()
        try:
            if fill_it:
                self._fill(tree, one.items[0])
            owners.give(tree, uid, gid)
            os.chmod(tree, mode)
            with contextlib.suppress(OSError):  # not empty any more: somebody else was faster
                os.rename(tree, folder)
        finally:
            self._executor.store.discard(tree)


def _holds_this_machine(item: CopyItem, to_read: bool) -> bool:
    """Whether folders of a host base are in what would be copied: gigabytes. What lies in one place is bound instead, to be read."""
    if not isinstance(item.source, ImageSource) or (to_read and item.source.view.whole(item.node) is not None):
        return False
    real = item.node.real
    return any(folder == real or folder.startswith(real.rstrip("/") + "/") for folder in item.source.view.rootfs.folders if folder != "/")


def _place(item: CopyItem) -> str:
    """Where the source lies in a tree of its own: a folder is the tree, a file lies in it."""
    return "/" if stat.S_ISDIR(item.node.stat.st_mode) else "/file"


def _inside(tree: str, item: CopyItem) -> str:
    return tree + _place(item).rstrip("/")


def _absolute(workdir: str, path: str) -> str:
    return "/" + posixpath.normpath(posixpath.join("/", workdir, path)).lstrip("/")


