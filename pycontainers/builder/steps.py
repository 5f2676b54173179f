"""The steps that make a layer: RUN, COPY and ADD, WORKDIR. Each knows its definition first, asks the cache, and only then has it done."""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import stat
import threading
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ..errors import BuildError, CommandNotExecutable, CommandNotFound, ImageError, near
from ..events import Event, Note, StepOutput
from ..images.store import Layer
from ..linux import trees
from . import instructions as ins
from . import remote
from .archives import marked
from .cache import BuildCache, Definition
from .certificates import Certificates
from .context import Context
from .copying import CopyWork
from .executor import Command, Executor, PrivateFile, RunFailed
from .explain import Explainer
from .history import copied
from .ignore import PatternError, has_wildcard
from .origins import Origin, Origins
from .parser import Raw
from .placed import placed
from .plan import Stage
from .run_mounts import RunMounts, Wanted
from .selecting import digest, digests, select
from .sources import CopyError, CopyItem
from .stage import StageState

_TAIL_LINES, _TAIL_BYTES = 8, 4096
_DOWNLOADS = "pycontainers:downloads"


@dataclass(frozen=True)
class Made:
    """What a step came to: whether it was cached, and why it was not (or was), where that was asked for."""

    cached: bool
    why: str = ""


Step = Generator[Event, None, Made]
Making = Generator[Event, None, Layer]


class Steps:
    """Does the steps of all stages, each called from its stage's thread. ``slots`` bounds how many are at work at a time.

    ``tell`` takes an event at once, also from within something that waits.
    """

    def __init__(
        self, origins: Origins, cache: BuildCache, executor: Executor, explainer: Explainer | None, slots: threading.Semaphore,
        tell: Callable[[Event], None],
    ) -> None:  # fmt: skip
        self._origins, self._cache, self._executor, self._explainer, self._slots = origins, cache, executor, explainer, slots
        self._request = origins.request
        self._mounts = RunMounts(origins, cache, executor, tell)
        self._certificates = Certificates() if self._request.host_certificates else None

    def perform(self, stage: Stage, state: StageState, item: ins.Instruction, index: int) -> Step:
        """One instruction. :raises BuildError: at its place."""
        match item:
            case ins.Run():
                return (yield from self._run(stage, state, item, index))
            case ins.Copy():
                return (yield from self._copy(stage, state, item))
            case ins.Workdir():
                return (yield from self._workdir(stage, state, item))
        state.apply(item)
        return Made(True)

    def _layer(self, stage: Stage, state: StageState, definition: Definition, work: Callable[[], Making]) -> Generator[
        Event, None, tuple[Layer, Made]
    ]:
        """The layer of a step: of this build, of the cache, or made by ``work``."""
        fresh = self._request.no_cache or stage.title in self._request.no_cache_filter
        with self._cache.alone(definition.key):
            layer = self._cache.find(definition.key, fresh, definition.parent)
            cached = layer is not None
            why = self._explainer.explain(definition, cached, fresh) if self._explainer else ""
            if layer is None:
                with self._slots:
                    self._executor.cancellation.check()
                    layer = yield from work()
                self._cache.remember(definition, layer)
        self._cache.used(definition.key, (*state.layers, layer))
        return layer, Made(cached, why)

    # -- RUN

    def _run(self, stage: Stage, state: StageState, item: ins.Run, index: int) -> Step:
        argv, env = state.argv(item.command), state.run_environment()
        network = self._request.network if item.network == "default" else item.network
        wanted = yield from self._mounts.wanted(state, item, stage.sources)
        request = self._request
        parts: dict[str, Any] = {
            "command": argv, "environment": dict(sorted(env.items())), "workdir": state.workdir, "user": state.user, "network": network,
            "mounts": [one.part() for one in wanted], **({"script": item.script.content} if item.script else {}),
            **({"epoch": request.epoch} if request.epoch is not None else {}),
            **({"surroundings": [request.extra_hosts, request.shm_size, [[one.name, one.soft, one.hard] for one in request.ulimits]]}
               if request.extra_hosts or request.shm_size or request.ulimits else {}),
        }  # fmt: skip
        definition = Definition("run", state.chain_id, parts, item.raw.original, lambda: _files(wanted))
        command = Command(
            argv, {**state.proxies(), **env}, state.workdir, state.user, network,
            extra_hosts=request.extra_hosts, shm_size=request.shm_size, ulimits=request.ulimits,
        )  # fmt: skip
        layer, made = yield from self._layer(stage, state, definition, lambda: self._execute(state, item, command, wanted, index))
        declared = [f"|{len(state.declared)}", *state.declared] if state.declared else []
        state.add_layer(layer, self.created(layer), " ".join(["RUN", *declared, *argv]))
        return made

    def _execute(
        self, state: StageState, item: ins.Run, command: Command, wanted: list[Wanted], index: int
    ) -> Generator[Event, None, Layer]:
        raw, tail = item.raw, deque[bytes]()
        with placed(raw), self._mounts.ready(wanted) as (mounts, files, env):
            if item.script is not None:
                script = PrivateFile(command.argv[-1], item.script.content.encode(), program=True, mode=0o755)
                files = [*files, script]
            if self._certificates is not None:
                mounts, env = [*mounts, self._certificates.mount], {**self._certificates.environment, **env}
            whole = Command(
                command.argv, {**command.env, **env}, command.cwd, command.user, command.network,
                tuple(mounts), tuple(files), command.extra_hosts, command.shm_size, command.ulimits,
            )  # fmt: skip
            work = self._executor.run(state, whole)
            try:
                while True:
                    try:
                        stream, data = next(work)
                    except StopIteration as stop:
                        layer: Layer = stop.value
                        return layer
                    tail.append(data[-_TAIL_BYTES:])
                    while len(tail) > 1 and sum(map(len, tail)) - len(tail[0]) >= _TAIL_BYTES:
                        tail.popleft()
                    yield StepOutput(index, stream, data)
            except RunFailed as error:
                said = f"RUN failed with exit code {error.code}: {_short(command.argv)}"
                raise raw.error(said, _hint(error.code, b"".join(tail))) from None
            except (CommandNotFound, CommandNotExecutable, BuildError) as error:
                raise raw.error(f"RUN: {error.message}", error.hint) from None
            finally:
                work.close()

    # -- WORKDIR

    def _workdir(self, stage: Stage, state: StageState, item: ins.Workdir) -> Step:
        written = state.set_workdir(item.raw, item.path)
        path = _absolute("/", written).rstrip("/") or "/"
        with placed(item.raw):
            node = state.view.lookup(path, follow=True)
        created_by = f"WORKDIR {written}"
        if node is not None:
            if not stat.S_ISDIR(node.stat.st_mode):
                raise item.raw.error(f"WORKDIR {path} is not a folder in the image", "choose another folder", offset=0)
            state.note(created_by)
            return Made(True)
        definition = Definition("workdir", state.chain_id, {"path": path, "user": state.user}, item.raw.original)

        def make() -> Generator[Event, None, Layer]:
            yield from ()
            with placed(item.raw):
                return self._executor.make_workdir(state, path)

        layer, made = yield from self._layer(stage, state, definition, make)
        state.add_layer(layer, self.created(layer), created_by)
        return made

    # -- COPY and ADD

    def _copy(self, stage: Stage, state: StageState, item: ins.Copy) -> Step:
        raw = item.raw
        written = state.expand(raw, item.destination)
        destination = _absolute(state.workdir, written)
        how: dict[str, Any] = {
            "destination": destination, "owner": state.expand(raw, item.chown), "mode": state.expand(raw, item.chmod),
            "parents": item.parents, "exclude": list(item.exclude), "link": item.link,
            **({"epoch": self._request.epoch} if self._request.epoch is not None else {}),
        }  # fmt: skip
        inline = tuple((heredoc.name, state.document(raw, heredoc)) for heredoc in item.inline)
        texts = [(name, hashlib.sha256(content).hexdigest()) for name, content in inline]
        with contextlib.ExitStack() as fetched:
            origin, places = yield from self._places(stage, state, item)
            created_by = copied(item, [place.text for place in places], written, how["owner"], how["mode"])
            if item.checksum:
                item = replace(item, checksum=state.expand(raw, item.checksum))
                if local := next((place for place in places if place.path), None):
                    raise raw.error(f"--checksum is for addresses, and {local.text} is none", "leave it out", offset=local.offset)
            # The quick definition needs no look at the files of another stage or image: its chain id names their content.
            quick = None
            if origin is not None and origin.chain and not item.add:
                told = {**how, "from": origin.chain, "paths": [place.path for place in places], "texts": texts}
                quick = Definition("copy-from", state.chain_id, told, raw.original)
                fresh = self._request.no_cache or stage.title in self._request.no_cache_filter
                layer = self._cache.find(quick.key, fresh, quick.parent)
                if layer is not None:
                    why = self._explainer.explain(quick, True, fresh) if self._explainer else ""
                    self._cache.used(quick.key, (*state.layers, layer))
                    state.add_layer(layer, self.created(layer), created_by)
                    return Made(True, why)
            items: list[CopyItem] = []
            for place in places:
                items += yield from self._items(item, origin, place, tuple(how["exclude"]), fetched)
            with placed(raw):
                contents = [digest(one, self._executor.cancellation.check) for one in items]
            definition = Definition(
                "copy", state.chain_id, {**how, "content": contents, "texts": texts}, raw.original,
                lambda: {name: value for one in items for name, value in digests(one).items()},
            )  # fmt: skip
            work = CopyWork(tuple(items), inline, destination, how["owner"], how["mode"], self._request.epoch, link=item.link)

            def copy() -> Generator[Event, None, Layer]:
                yield from ()
                with placed(raw):
                    return self._executor.copy(state, work)

            layer, made = yield from self._layer(stage, state, definition, copy)
            if quick is not None:
                self._cache.also(quick.key, layer)
        state.add_layer(layer, self.created(layer), created_by)
        return made

    def _places(self, stage: Stage, state: StageState, item: ins.Copy) -> Generator[Event, None, tuple[Origin | None, list[_Place]]]:
        """The sources as written, expanded, and the tree that they lie in: None where none does (URLs, here-documents)."""
        raw = item.raw
        places = []
        for text in item.sources:
            expanded, offset = state.expand(raw, text), max(raw.arguments.find(text), 0)
            away = item.add and bool(remote.kind(expanded))
            places.append(_Place(expanded, offset, "" if away else _source_path(raw, expanded, offset)))
        if not any(place.path for place in places):
            return None, places
        flag = next((flag for flag in raw.flags if flag.name == "from"), None)
        return (yield from self._origins.files(raw, item.source_stage, flag, stage.sources)), places

    def _items(
        self, item: ins.Copy, origin: Origin | None, place: _Place, exclude: tuple[str, ...], fetched: contextlib.ExitStack
    ) -> Generator[Event, None, list[CopyItem]]:
        if not place.path:
            return [self._fetch(item, place, exclude, fetched)]
        assert origin is not None
        raw, source = item.raw, origin.source
        try:
            found = select(source, place.path, parents=item.parents, exclude=exclude)
        except (PatternError, CopyError, ImageError) as error:  # a link that leads to itself is the image's
            raise raw.error(error.message, error.hint, offset=place.offset) from None
        if not found and has_wildcard(place.path):
            yield Note(f"line {raw.line}: nothing matches {place.text}")
        elif not found:
            raise self._missing(raw, origin, place)
        return marked(found, item.unpack) if item.add else found

    def _missing(self, raw: Raw, origin: Origin, place: _Place) -> BuildError:
        source, path = origin.source, place.path
        if isinstance(source, Context) and source.ignored(path):
            return raw.error(f"{place.text} is excluded by .dockerignore", f"add !{path.strip('/')} to .dockerignore", offset=place.offset)
        folder, name = posixpath.split(path.rstrip("/"))
        above = source.find(folder or "/")
        folder_above = above is not None and stat.S_ISDIR(above.stat.st_mode)
        names = [child.real.rpartition("/")[2] for child in source.children(above)] if above is not None and folder_above else []
        if "../" in f"{place.text}/" and isinstance(source, Context):
            return raw.error(f"{place.text} is outside of the build context", "choose a context folder further up", offset=place.offset)
        whence = "paths are relative to the context folder" if isinstance(source, Context) else "paths are from its root"
        hint = near(name, names) or whence
        return raw.error(f"{place.text} is not in {origin.title}", hint, offset=place.offset)

    def _fetch(self, item: ins.Copy, place: _Place, exclude: tuple[str, ...], fetched: contextlib.ExitStack) -> CopyItem:
        """A source that is an address: it lies in a folder of its own until the copy is done."""
        raw, check = item.raw, self._executor.cancellation.check
        tree = self._executor.store.new_layer()
        fetched.callback(trees.remove, os.path.dirname(tree))
        with placed(raw, place.offset):
            if remote.kind(place.text) == "git":
                agent = self._request.ssh.get("default", "")
                keep = item.keep_git_dir
                got = remote.clone(place.text, tree, checksum=item.checksum, keep_git_dir=keep, check=check, ssh=agent)
            else:
                kept, fd = self._executor.store.hold_cache_mount(_DOWNLOADS) or ("", -1)  # a cache as any: bounded, counted, pruned
                if fd >= 0:
                    fetched.callback(os.close, fd)
                got = remote.fetch(place.text, tree, checksum=item.checksum, epoch=self._request.epoch, check=check, cache=kept)
        return marked([CopyItem(got.name, got.node, got.source)], bool(item.unpack))[0]

    def tree(self, origin: Origin) -> Layer:
        """A tree that is no image (a folder as a named context) as a layer on nothing."""
        (item,) = select(origin.source, "/", parents=False, exclude=())
        return self._mounts.layer(origin, item)

    def created(self, layer: Layer) -> str:
        """When the layer was first committed, by RFC 3339; SOURCE_DATE_EPOCH where that was asked for."""
        seconds: float
        if self._request.epoch is not None:
            seconds = self._request.epoch
        else:
            seconds = os.stat(os.path.join(os.path.dirname(layer.path), "layer.json")).st_mtime
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True)
class _Place:
    """A source: ``text`` expanded, where it stands in the arguments, and its path in the tree, "" for an address."""

    text: str
    offset: int
    path: str


def _files(wanted: list[Wanted]) -> dict[str, str]:
    looked_at = [item for one in wanted for item in one.items if one.origin is not None and not one.origin.chain]
    return {name: value for item in looked_at for name, value in digests(item).items()}


def _absolute(workdir: str, path: str) -> str:
    """A destination, clean and absolute, with a trailing slash where a folder is meant."""
    clean = posixpath.normpath(posixpath.join("/", workdir, path))
    clean = "/" + clean.lstrip("/")
    return clean.rstrip("/") + "/" if ins.is_folder_path(path) or clean == "/" else clean


def _source_path(raw: Raw, text: str, offset: int) -> str:
    if not text:
        raise raw.error(f"a source of {raw.keyword} is empty after substitution", "set the variable with ARG or ENV before", offset=offset)
    return text


def _short(argv: list[str]) -> str:
    text = " ".join(" ".join(argv).split())
    return text if len(text) <= 100 else text[:99] + "…"


def _hint(code: int, tail: bytes) -> str:
    lines = [_printable(line) for line in tail.decode("utf-8", "replace").splitlines() if line.strip()][-_TAIL_LINES:]
    if lines:
        return "its last lines were:\n" + "\n".join(f"  {line}" for line in lines)
    reasons = {126: "the command cannot be executed", 127: "the command is not in the image", 137: "it was killed (out of memory?)"}
    return reasons.get(code, "it printed nothing; RUN set -x; … shows where it stops")


def _printable(line: str) -> str:
    """Output of a container is not trusted: no terminal escapes in a message."""
    return "".join(char if char.isprintable() else " " for char in line)[:400]
