"""Walks the plan: every stage that the target needs, side by side, each step from the cache or by the executor; then saves the image.

A thread for each stage: it starts when the stage that it builds on is finished, and waits where it copies from another. What the threads
have to tell goes through one queue to whoever reads the events, in whose thread nothing slow happens: so an interrupt is heard at once.

``created`` of an image is the time at which its top layer was first committed (the age of the snapshot's ``layer.json``), not of the
build: the same Dockerfile on the same content gives the same image id, cached or not.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass

from ..errors import ContainersError, UsageError
from ..events import Done, Event, Note, StepFailed, StepFinished, StepStarted, Work
from ..images import reference
from ..images.store import Image
from ..protocol import BuildRequest
from . import instructions as ins
from . import lint
from .cache import BuildCache, Elsewhere
from .cancellation import Cancellation, Cancelled
from .executor import Executor, LayerStore, Runner
from .explain import Explainer
from .origins import Origins, Pull
from .parser import Raw, parse
from .plan import Plan, Stage, architecture, make_plan, platform_arguments, triggers, with_sources_of
from .stage import PROXY_ARGUMENTS, StageState
from .steps import Made, Steps

__all__ = ["Pull", "build"]

_DOCKERS = re.compile(r"(docker\.io/)?docker/dockerfile(-upstream)?([:@]\S*)?(\s.*)?")
"""What ``# syntax=`` names in nearly every Dockerfile: the language that is read here."""


def build(
    request: BuildRequest, store: LayerStore, runner: Runner, pull: Pull | None = None, elsewhere: Elsewhere | None = None
) -> Work[Image]:
    """Build an image. Yields events, returns the image; a closed or failed build leaves finished layers (for the cache), nothing half.

    :param pull: for images that are not here. :param elsewhere: caches beside the store's own; closed by the caller.
    :raises BuildError: with the line of the Dockerfile. :raises NotFound: no such target or context folder.
    """
    started = time.perf_counter()
    _check_platform(request)
    for tag in request.tags:
        reference.check_free(tag)  # now, and not when all is built
    dockerfile = parse(request.dockerfile)
    instructions = ins.interpret(dockerfile)
    plan = make_plan(instructions, request.build_args, request.target, contexts=request.contexts)
    checks = lint.options(dockerfile, request.build_args)
    warnings = lint.check(instructions, plan, dockerfile, build_args=request.build_args)
    yield from (Note(str(warning)) for warning in warnings)
    checks.judge(warnings)
    if (asked := dockerfile.directives.get("syntax", "")) and not _DOCKERS.fullmatch(asked):
        yield Note(f"syntax={asked} is a program of its own, which is not run: the text is read as Docker's own Dockerfiles are")
    solver = _Solver(request, plan, store, runner, pull, elsewhere, checks)
    yield from solver.notes()
    state = yield from solver.run()
    state.set_labels(request.labels)
    config, records = state.finished(), solver.cache.records
    image = store.save_image(elsewhere.config(config, records, state.layers) if elsewhere else config, state.layers, state.host)
    for tag in request.tags:
        store.tag(image.id, tag)
    if elsewhere is not None:
        yield from elsewhere.export(records, state.layers)
    yield Done(request.tags[0] if request.tags else image.id.removeprefix("sha256:")[:12], time.perf_counter() - started)
    return store.resolve(image.id) if request.tags else image


@dataclass(frozen=True)
class _Outcome:
    """What became of a stage."""

    stage: Stage
    state: StageState | None
    error: BaseException | None = None


class _Solver:
    def __init__(
        self, request: BuildRequest, plan: Plan, store: LayerStore, runner: Runner, pull: Pull | None, elsewhere: Elsewhere | None,
        checks: lint.Options,
    ) -> None:  # fmt: skip
        self.request, self.plan, self.store, self.checks = request, plan, store, checks
        self.cancellation = Cancellation()
        self.origins = Origins(request, plan, store, pull, self.cancellation)
        self.cache = BuildCache(store, elsewhere)
        self.told: queue.SimpleQueue[Event | _Outcome] = queue.SimpleQueue()
        self.steps = Steps(
            self.origins, self.cache, Executor(store, runner, self.cancellation, request.epoch),
            Explainer(store.cache_facts()) if request.explain else None,
            threading.Semaphore(request.parallel or max(4, os.cpu_count() or 1)), self.told.put,
        )  # fmt: skip
        self.elsewhere = elsewhere
        if elsewhere is not None:
            elsewhere.tell = self.told.put
        in_file = sorted(plan.stages, key=lambda stage: stage.index)
        counts = [1 + len(stage.instructions) for stage in in_file]
        self.total = sum(counts)
        self.first = {stage.index: 1 + sum(counts[:place]) for place, stage in enumerate(in_file)}

    def notes(self) -> Generator[Event, None, None]:
        known = self.plan.used_arguments | PROXY_ARGUMENTS | platform_arguments().keys() | {"SOURCE_DATE_EPOCH"}
        if unused := sorted(self.request.build_args.keys() - known):
            yield Note(f"build arguments that no ARG declares: {', '.join(unused)}")

    def run(self) -> Work[StageState]:
        """All stages. :returns: the target's. :raises ContainersError: the first that failed; nothing is under way any more then."""
        threads: list[threading.Thread] = []
        try:
            yield from self._all(threads)
        except ContainersError:
            self._end(threads)
            while not self.told.empty():  # how the steps ended that were cut off
                if isinstance(event := self.told.get(), Event):
                    yield event
            raise
        finally:
            self._end(threads)
            self.origins.close()
        return self.origins.stages[self.plan.stages[-1].index].result()

    def _all(self, threads: list[threading.Thread]) -> Generator[Event, None, None]:
        left = len(self.plan.stages)
        self._begin((stage for stage in self.plan.stages if stage.base_stage is None), threads)
        while left:
            told = self.told.get()
            if isinstance(told, Event):
                yield told
                continue
            if told.error is not None:
                raise told.error
            assert told.state is not None
            self.origins.stages[told.stage.index].set_result(told.state)
            left -= 1
            self._begin((stage for stage in self.plan.stages if stage.base_stage == told.stage.index), threads)

    def _begin(self, stages: Iterable[Stage], threads: list[threading.Thread]) -> None:
        for stage in stages:
            thread = threading.Thread(target=self._work, args=(stage,), name=f"pycontainers-build-{stage.title}", daemon=True)
            thread.start()
            threads.append(thread)

    def _end(self, threads: list[threading.Thread]) -> None:
        """Nobody works any more. What had finished stays in the cache."""
        self.cancellation.ask()
        if self.elsewhere is not None:
            self.elsewhere.close()  # what a thread is fetching from there ends
        for future in self.origins.stages.values():
            if not future.done():
                future.set_exception(Cancelled())
        for thread in threads:
            thread.join()

    def _work(self, stage: Stage) -> None:
        """A stage's thread: its events, then its outcome."""
        work = self._solve(stage)
        try:
            while True:
                self.told.put(next(work))
        except StopIteration as stop:
            self.told.put(_Outcome(stage, stop.value))
        except BaseException as error:  # raised again by whoever reads
            self.told.put(_Outcome(stage, None, error))

    # -- one stage

    def _solve(self, stage: Stage) -> Generator[Event, None, StageState]:
        state, cached = yield from self._from(stage)
        index = self.first[stage.index]
        for item in stage.instructions:
            index += 1
            self._wait(stage, item)
            made = yield from self._step(stage, item.raw, index, self.steps.perform(stage, state, item, index), cached)
            cached = cached and made.cached
            yield from self._undefined(state)
        return state

    def _undefined(self, state: StageState) -> Generator[Event, None, None]:
        """Variables that the last step used, and nobody defined. :raises BuildError: the Dockerfile wants no warnings."""
        found = self.checks.keep(state.undefined.values())
        state.undefined.clear()
        yield from (Note(str(warning)) for warning in found)
        self.checks.judge(found)

    def _wait(self, stage: Stage, item: ins.Instruction) -> None:
        """A step begins when the stages that it reads from are done: until then nothing of it runs, and no time of its own passes."""
        names = [item.source_stage] if isinstance(item, ins.Copy) else []
        names += [mount.origin for mount in item.mounts] if isinstance(item, ins.Run) else []
        for name in names:
            if (number := stage.sources.get(name)) is not None:
                self.origins.stages[number].result()

    def _step(
        self, stage: Stage, raw: Raw, index: int, work: Generator[Event, None, Made], so_far: bool
    ) -> Generator[Event, None, Made]:
        """A step between its first and its last event.

        :param so_far: all before it was cached: one that only changes the config runs nothing, and is shown as those before it.
        """
        self.cancellation.check()
        yield StepStarted(index, self.total, stage.title, raw.original)
        started = time.perf_counter()
        try:
            made = yield from work
        except ContainersError as error:
            yield StepFailed(index, time.perf_counter() - started, isinstance(error, Cancelled))
            raise
        yield StepFinished(index, time.perf_counter() - started, made.cached and so_far, made.why)
        return made

    def _from(self, stage: Stage) -> Generator[Event, None, tuple[StageState, bool]]:
        found: list[StageState] = []
        made = yield from self._step(stage, stage.start.raw, self.first[stage.index], self._base(stage, found), True)
        return found[0], made.cached

    def _base(self, stage: Stage, found: list[StageState]) -> Generator[Event, None, Made]:
        """What the stage begins with, and what its base wants done in every build that stands on it (ONBUILD)."""
        raw = stage.start.raw
        asked = self.request.contexts.get(stage.base, "")
        if stage.base_stage is not None:
            state = StageState(self.origins.stages[stage.base_stage].result(), self.plan, self.request.build_args)
        elif asked and not asked.startswith("docker-image://"):
            state = StageState(self.store.scratch(), self.plan, self.request.build_args)
            layer = self.steps.tree(self.origins.named(raw, stage.base, None))
            state.add_layer(layer, self.steps.created(layer), f"FROM {stage.base}")
        else:
            image = yield from self.origins.image(raw, stage.base)
            state = StageState(image, self.plan, self.request.build_args)
        state.begin()
        found.append(state)
        cached = True
        # Of a base that is a stage the plan knows them; an image's are known only now, and done as part of FROM.
        asked_for = triggers(state.settings.pop("OnBuild", None) or [], raw)
        stage = with_sources_of(stage, asked_for, self.plan)
        for item in asked_for:
            made = yield from self.steps.perform(stage, state, item, self.first[stage.index])
            cached = cached and made.cached
        return Made(cached)


def _check_platform(request: BuildRequest) -> None:
    own = f"linux/{architecture()}"
    if request.platform not in ("", own, architecture(), *([f"{own}/v8"] if own == "linux/arm64" else [])):
        raise UsageError(f"--platform {request.platform} is not this machine's platform", f"only {own} can be built here")
