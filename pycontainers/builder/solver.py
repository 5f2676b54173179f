"""Walks the plan: looks every step up in the cache, has the rest executed, and saves the image.

The cache key of a step is a digest of what it does and the chain id of what it stands on; COPY adds a digest of the content. A chain
id names content, so equal layers made in different ways share what is built on them. Each stage is solved from the states of the
stages that it needs and nothing else; the plan's order only makes sure that those exist.

``created`` of an image is the time at which its top layer was first committed (the age of the snapshot's ``layer.json``), not of the
build: the same Dockerfile on the same content gives the same image id, cached or not.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import stat
import time
from collections import deque
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Any

from ..errors import BuildError, CommandNotExecutable, CommandNotFound, ContainersError, NotFound, RegistryError, UsageError, near
from ..events import Done, Event, Note, StepFinished, StepOutput, StepStarted, Work
from ..images.store import Image, Layer
from ..protocol import BuildRequest
from . import instructions as ins
from .context import Context, ImageSource, Source, digest, has_wildcard, select
from .copying import CopyError, CopyItem, CopyWork
from .executor import Executor, LayerStore, RunFailed, Runner
from .expansion import ExpansionError, expand
from .ignore import PatternError
from .parser import Flag, Heredoc, Raw, parse
from .plan import Plan, Stage, make_plan, platform_arguments
from .stage import PROXY_ARGUMENTS, StageState

KEY_FORMAT = 1
"""In every cache key: raise it when what a step makes changes."""

Step = Generator[Event, None, bool]
"""Yields events, returns whether the step was cached (nothing ran)."""

_TAIL_LINES, _TAIL_BYTES = 8, 4096


Pull = Callable[[str], Work[Any]]
"""Gets an image from its registry: yields events, raises NotFound or RegistryError."""


def build(request: BuildRequest, store: LayerStore, runner: Runner, pull: Pull | None = None) -> Work[Image]:
    """Build an image. Yields events, returns the image; a closed or failed build leaves finished layers (for the cache), nothing half.

    :param pull: for images that are not here.
    :raises BuildError: with the line of the Dockerfile. :raises NotFound: no such target or context folder.
    """
    started = time.perf_counter()
    plan = make_plan(ins.interpret(parse(request.dockerfile)), request.build_args, request.target)
    solver = _Solver(request, plan, store, runner, pull)
    yield from solver.notes()
    for stage in plan.stages:
        solver.states[stage.index] = yield from solver.solve(stage)
    state = solver.states[plan.stages[-1].index]
    state.set_labels(request.labels)
    image = store.save_image(state.finished(), state.layers, state.host)
    for tag in request.tags:
        store.tag(image.id, tag)
    yield Done(request.tags[0] if request.tags else image.id.removeprefix("sha256:")[:12], time.perf_counter() - started)
    return store.resolve(image.id) if request.tags else image


def _without_end(work: Work[Any]) -> Work[None]:
    """The events of a part of a build, without the one that says that all is done."""
    for event in work:
        if not isinstance(event, Done):
            yield event


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps([KEY_FORMAT, *parts], separators=(",", ":")).encode()).hexdigest()


class _Solver:
    def __init__(self, request: BuildRequest, plan: Plan, store: LayerStore, runner: Runner, pull: Pull | None) -> None:
        self.request, self.plan, self.store, self._pull = request, plan, store, pull
        self._pulled: set[str] = set()
        self.executor = Executor(store, runner)
        self.states: dict[int, StageState] = {}
        self.total = sum(1 + len(stage.instructions) for stage in plan.stages)
        self.index = 0
        self._context: Context | None = None

    def notes(self) -> Generator[Event, None, None]:
        known = self.plan.used_arguments | PROXY_ARGUMENTS | platform_arguments().keys()
        if unused := sorted(self.request.build_args.keys() - known):
            yield Note(f"build arguments that no ARG declares: {', '.join(unused)}")

    def solve(self, stage: Stage) -> Generator[Event, None, StageState]:
        """One stage, from the states of those that it needs."""
        begin = self._begin(stage, stage.start.raw)
        yield begin
        state = StageState((yield from self._base(stage)), self.plan, self.request.build_args)
        yield StepFinished(begin.index, 0.0, True)
        ran = False
        for item in stage.instructions:
            begin = self._begin(stage, item.raw)
            yield begin
            started = time.perf_counter()
            cached = yield from self._step(stage, state, item)
            ran = ran or not cached
            # A step that only changes the config runs nothing; it is shown as cached as long as all before it was.
            yield StepFinished(begin.index, time.perf_counter() - started, cached and not ran)
        return state

    def _begin(self, stage: Stage, raw: Raw) -> StepStarted:
        self.index += 1
        return StepStarted(self.index, self.total, stage.title, raw.original)

    def _base(self, stage: Stage) -> Generator[Event, None, Image | StageState]:
        if stage.base_stage is not None:
            return self.states[stage.base_stage]
        image = yield from self._image(stage.start.raw, stage.base)
        if (image.config.get("config") or {}).get("OnBuild"):
            raise stage.start.raw.error(f"{stage.base} has ONBUILD instructions, which are not supported yet", "use another base image")
        return image

    def _image(self, raw: Raw, name: str, flag: Flag | None = None) -> Work[Image]:
        if name == "scratch":
            return self.store.scratch()
        try:
            if self.request.pull and self._pull is not None and name not in self._pulled and name != "host":
                self._pulled.add(name)
                yield from _without_end(self._pull(name))
            try:
                return self.store.resolve(name)
            except NotFound as error:
                if self._pull is None or near(name, self.plan.stage_names):
                    raise
                local = error
            try:
                yield from _without_end(self._pull(name))
            except (NotFound, RegistryError) as error:
                hint = local.hint if local.hint.startswith("did you mean") else error.hint
                raise NotFound(f"{local.message} here, and it cannot be pulled: {error.message}", hint) from None
            return self.store.resolve(name)
        except (NotFound, UsageError, RegistryError) as error:
            hint = near(name, self.plan.stage_names) or error.hint
            raise raw.error(error.message, hint, flag=flag, offset=None if flag else 0) from None

    def _step(self, stage: Stage, state: StageState, item: ins.Instruction) -> Step:
        match item:
            case ins.Run():
                return (yield from self._run(state, item))
            case ins.Copy():
                return (yield from self._copy(stage, state, item))
            case ins.Workdir():
                return self._workdir(state, item)
        state.apply(item)
        if isinstance(item, ins.Maintainer):
            yield Note(f"line {item.raw.line}: MAINTAINER is deprecated; write LABEL org.opencontainers.image.authors=…")
        return True

    # -- steps that make a layer

    def _cached(self, key: str) -> Layer | None:
        return None if self.request.no_cache else self.store.cached(key)

    def _run(self, state: StageState, item: ins.Run) -> Step:
        argv = state.argv(item.command)
        env = state.run_environment()
        network = self.request.network if item.network == "default" else item.network
        key = _key("run", state.chain_id, argv, sorted(env.items()), state.workdir, state.user, network)
        layer = self._cached(key)
        cached = layer is not None
        if layer is None:
            layer = yield from self._execute(state, item.raw, argv, {**state.proxies(), **env}, network)
            self.store.remember(key, layer)
        shown = sorted(f"{name}={value}" for name, value in state.arguments.items())
        declared = [f"|{len(shown)}", *shown] if shown else []
        state.add_layer(layer, _created(layer), " ".join(["RUN", *declared, *argv]))
        return cached

    def _execute(self, state: StageState, raw: Raw, argv: list[str], env: dict[str, str], network: str) -> Generator[Event, None, Layer]:
        tail: deque[bytes] = deque()
        work = self.executor.run(state, argv, env, network)
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
                yield StepOutput(self.index, stream, data)
        except RunFailed as error:
            raise raw.error(f"RUN failed with exit code {error.code}: {_short(argv)}", _hint(error.code, b"".join(tail))) from None
        except (CommandNotFound, CommandNotExecutable, BuildError) as error:
            raise raw.error(f"RUN: {error.message}", error.hint) from None
        finally:
            work.close()

    def _workdir(self, state: StageState, item: ins.Workdir) -> bool:
        path = state.set_workdir(item.raw, item.path)
        node = state.view.lookup(path, follow=True)
        created_by = f"WORKDIR {path}"
        if node is not None:
            if not stat.S_ISDIR(node.stat.st_mode):
                raise item.raw.error(f"WORKDIR {path} is not a folder in the image", "choose another folder", offset=0)
            state.note(created_by)
            return True
        key = _key("workdir", state.chain_id, path, state.user)
        layer = self._cached(key)
        cached = layer is not None
        if layer is None:
            with _placed(item.raw):
                layer = self.executor.make_workdir(state, path)
            self.store.remember(key, layer)
        state.add_layer(layer, _created(layer), created_by)
        return cached

    def _copy(self, stage: Stage, state: StageState, item: ins.Copy) -> Step:
        raw = item.raw
        sources = [(state.expand(raw, text), max(raw.arguments.find(text), 0)) for text in item.sources]
        destination = _absolute(state.workdir, state.expand(raw, item.destination))
        chown, chmod = state.expand(raw, item.chown), state.expand(raw, item.chmod)
        inline = tuple((heredoc.name, _heredoc(state, raw, heredoc)) for heredoc in item.inline)
        source, source_chain = (yield from self._source(stage, item)) if sources else (None, "")
        paths = [_source_path(raw, text, offset, item) for text, offset in sources]
        # The quick key needs no look at the files of another stage: its chain id names their content.
        quick = _key("copy-from", state.chain_id, source_chain, paths, destination, chown, chmod) if source_chain else ""
        layer = self._cached(quick) if quick else None
        if layer is None:
            items: list[CopyItem] = []
            for path, (text, offset) in zip(paths, sources, strict=True):
                assert source is not None
                found = self._find(raw, source, path, text, offset)
                if not found:
                    yield Note(f"line {raw.line}: nothing matches {text}")
                items += found
            if item.add:
                _refuse_archives(raw, items)
            contents = [digest(copied) for copied in items]
            texts = [(name, hashlib.sha256(content).hexdigest()) for name, content in inline]
            key = _key("copy", state.chain_id, contents, texts, destination, chown, chmod)
            layer = self._cached(key)
            cached = layer is not None
            if layer is None:
                with _placed(raw):
                    layer = self.executor.copy(state, CopyWork(tuple(items), inline, destination, chown, chmod))
                self.store.remember(key, layer)
            if quick:
                self.store.remember(quick, layer)
        else:
            cached = True
        state.add_layer(layer, _created(layer), " ".join([raw.keyword, *(f"--{f.name}={f.value}" for f in raw.flags), raw.arguments]))
        return cached

    def _source(self, stage: Stage, item: ins.Copy) -> Work[tuple[Source, str]]:
        """Where the files come from, and the chain id that names its content ("" for the context)."""
        if item.source_stage:
            flag = next(flag for flag in item.raw.flags if flag.name == "from")
            number = stage.sources.get(item.source_stage)
            if number is not None:
                origin: Image | StageState = self.states[number]
            else:
                origin = yield from self._image(item.raw, item.source_stage, flag)
            return ImageSource(StageState(origin, self.plan, {}).view), origin.chain_id or "scratch"
        if not self.request.context:
            raise item.raw.error(f"{item.raw.keyword} from the build context, but this build has none",
                                 "give a context folder, or copy from a stage or image with --from", offset=0)
        if self._context is None:
            self._context = Context(self.request.context)
        return self._context, ""

    def _find(self, raw: Raw, source: Source, path: str, text: str, offset: int) -> list[CopyItem]:
        try:
            found = select(source, path)
        except (PatternError, CopyError) as error:
            raise raw.error(error.message, error.hint, offset=offset) from None
        if found or has_wildcard(path):
            return found
        if isinstance(source, Context):
            if source.ignored(path):
                raise raw.error(f"{text} is excluded by .dockerignore", f"add !{path.strip('/')} to .dockerignore", offset=offset)
            folder, name = posixpath.split(path.rstrip("/"))
            above = source.find(folder or "/")
            names = source.names(above.real) if above is not None and stat.S_ISDIR(above.stat.st_mode) else []
            raise raw.error(f"{text} is not in the build context {source.folder}",
                            near(name, names) or "paths are relative to the context folder", offset=offset)
        raise raw.error(f"{text} is not in --from", "paths are from the root of the stage or image", offset=offset)


class _placed:
    """Turns an error of copying into one with the instruction's place."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ContainersError) and not isinstance(error, BuildError):
            raise self.raw.error(f"{self.raw.keyword}: {error.message}", error.hint, offset=0) from None


def _absolute(workdir: str, path: str) -> str:
    """A destination, clean and absolute, with a trailing slash where a folder is meant."""
    clean = posixpath.normpath(posixpath.join("/", workdir, path))
    clean = "/" + clean.lstrip("/")
    return clean.rstrip("/") + "/" if ins.is_folder_path(path) or clean == "/" else clean


def _source_path(raw: Raw, text: str, offset: int, item: ins.Copy) -> str:
    if not text:
        raise raw.error(f"a source of {raw.keyword} is empty after substitution", "set the variable with ARG or ENV before", offset=offset)
    relative = posixpath.normpath(text.lstrip("/") or ".")
    if relative == ".." or relative.startswith("../"):
        where = "--from" if item.source_stage else "the build context"
        raise raw.error(f"{text} is outside of {where}", "copy it into the context folder, or choose a context further up", offset=offset)
    return "/" if relative == "." else f"/{relative}"


def _heredoc(state: StageState, raw: Raw, heredoc: Heredoc) -> bytes:
    if not heredoc.expand:
        return heredoc.content.encode()
    try:
        return expand(heredoc.content, state.values, raw.escape, keep_quotes=True).encode()
    except ExpansionError as error:
        raise raw.error(f"here-document {heredoc.name}: {error.message[:200]}", error.hint) from None


_ARCHIVES = ((0, b"\x1f\x8b"), (0, b"BZh"), (0, b"\xfd7zXZ\0"), (0, b"\x28\xb5\x2f\xfd"), (257, b"ustar"))


def _refuse_archives(raw: Raw, items: list[CopyItem]) -> None:
    """ADD unpacks local archives, recognised by content (tar, gzip, bzip2, xz, zstd). Copying them as they are would be a lie."""
    for item in items:
        name = item.name
        if stat.S_ISREG(item.node.stat.st_mode):
            fd = item.source.open(item.node)
            try:
                head = os.read(fd, 512)
            finally:
                os.close(fd)
            if any(head.startswith(magic, at) for at, magic in _ARCHIVES):
                raise raw.error(f"ADD of an archive is not supported yet: {name}", f"COPY {name}, then RUN tar -xf {name}", offset=0)


def _created(layer: Layer) -> str:
    """When the layer was first committed, by RFC 3339."""
    seconds = os.stat(os.path.join(os.path.dirname(layer.path), "layer.json")).st_mtime
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


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
