"""Calls of a function in containers: one call in one container of its own, or many calls on a few that stay."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import ContainersError, UsageError
from ..protocol import ContainerConfig, Engine
from . import failures
from .cell import Settings, first_message, values
from .packing import Parcel
from .worker import Hooks, Worker, attend

_PAUSE = 1.0
"""Seconds until another container is tried after one that could not start, while others go on."""
_GRACE = 2.0
"""Seconds in which a Python that has nothing more to do may end by itself."""

Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]
Progress = Callable[[int, int, int], None]
"""Called with how many calls are done, how many of these failed, and how many there are."""


def call(
    engine: Engine,
    config: ContainerConfig,
    function: Callable[..., Any],
    arguments: Arguments,
    settings: Settings,
    hooks: Callable[[], Hooks],
) -> Any:
    """What ``function`` returns, in a container of its own. ``hooks`` makes those of a container.

    :raises ContainedError: what it raised. :raises ContainerFailed: it was ended. An interrupt ends the container and goes on.
    """
    with _Pool(engine, config, function, settings, hooks, [arguments], 1) as pool:
        pool.run(lambda done, failed, count: None, stop=True)
        return pool.results[0]


def map_calls(
    engine: Engine,
    config: ContainerConfig,
    function: Callable[..., Any],
    items: Sequence[Any],
    settings: Settings,
    hooks: Callable[[], Hooks],
    *,
    workers: int,
    keep_errors: bool,
    progress: Progress,
) -> list[Any]:
    """``function`` of each item, in the order of the items. A container that ends costs its item an error, and is replaced.

    :param hooks: makes those of a container: what one writes must not reach into what another does.
    :param keep_errors: errors stand in the list; else the first one ends everything and is raised.
    """
    calls: list[Arguments] = [((item,), {}) for item in items]
    with _Pool(engine, config, function, settings, hooks, calls, workers) as pool:
        progress(0, 0, len(calls))
        pool.run(progress, stop=not keep_errors)
        return pool.results


class _Pool:
    """A few containers with one function. ``results`` has a place for each call: its value, or its error."""

    def __init__(
        self,
        engine: Engine,
        config: ContainerConfig,
        function: Callable[..., Any],
        settings: Settings,
        hooks: Callable[[], Hooks],
        calls: Sequence[Arguments],
        workers: int,
    ) -> None:
        self._engine, self._config, self._settings, self._hooks, self._calls = engine, config, settings, hooks, calls
        self._function = getattr(function, "__contained__", function)
        self._name = getattr(self._function, "__name__", "the function")
        self._many = len(calls) > 1
        self._count = max(1, min(workers, len(calls)))
        self._workers: list[Worker] = []
        self._at: dict[Worker, tuple[int, float]] = {}  # which call it has, and since when
        self._new: set[Worker] = set()  # who has not been told the function yet
        self._left = deque(range(len(calls)))
        self._early: list[int] = []  # calls that have an outcome already, without a container
        self._began = False  # a container has started
        self._again = 0.0  # no other container is tried before this time: one has not started
        self._files: set[str] = set()
        self.results: list[Any] = [None] * len(calls)
        Parcel(settings.arrow, settings.pickled).tree(self._function, self._name)  # what cannot go is said before anything starts

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers:
            worker.close()

    def run(self, progress: Progress, stop: bool) -> None:
        """:param stop: raise the first error instead of keeping it."""
        done = failed = 0
        while self._left or self._at:
            self._give()
            deadlines = [worker.deadline(self._settings.timeout, since) for worker, (_, since) in self._at.items()]
            attend(self._workers, time.monotonic() if self._early else min(filter(None, deadlines), default=None))
            for index in self._finished():
                done += 1
                error = self.results[index]
                if isinstance(error, _Failed):
                    failed += 1
                    self.results[index] = error.error
                    if stop:
                        self._finish()
                        raise error.error
                progress(done, failed, len(self._calls))
        self._finish()

    def _finish(self) -> None:
        """Who has answered and has nothing more to do ends: what was printed may still be on its way, and files are not closed yet."""
        idle = [worker for worker in self._workers if worker not in self._at]
        for worker in idle:
            worker.hang_up()
        until = time.monotonic() + _GRACE
        while time.monotonic() < until and any(not worker.over for worker in idle):
            attend(idle, until)

    def _give(self) -> None:
        """Every container that has nothing to do gets a call; as long as there are calls, there are as many as were asked for."""
        while self._left and len(self._workers) < min(self._count, len(self._left) + len(self._at)) and time.monotonic() >= self._again:
            try:
                worker = Worker(self._engine, self._config, self._settings.python, self._settings.limit, self._hooks())
            except ContainersError as error:
                if not self._began:
                    raise  # nothing can run
                if self._workers:
                    self._again = time.monotonic() + _PAUSE
                else:
                    self._fail(self._left.popleft(), error)
                break
            self._began = True
            self._workers.append(worker)
            self._new.add(worker)
            worker.send(first_message(worker, self._settings, "calls"), [])
        for worker in self._workers:
            if self._left and worker not in self._at and not worker.over:
                self._send(worker, self._left.popleft())

    def _send(self, worker: Worker, index: int) -> None:
        arguments, keywords = self._calls[index]
        parcel = Parcel(self._settings.arrow, self._settings.pickled)
        try:
            what = f"argument of call {index}" if self._many else "an argument"
            fields: dict[str, Any] = {"arguments": ["tuple", [parcel.tree(tuple(arguments), what), parcel.tree(dict(keywords), what)]]}
            if worker in self._new:
                fields["function"] = parcel.tree(self._function, self._name)
        except UsageError as error:
            self._fail(index, error)
            return
        self._at[worker] = (index, time.monotonic())
        self._new.discard(worker)
        self._files |= parcel.files
        worker.ask({**fields, **parcel.fields}, parcel.buffers, index)

    def _finished(self) -> list[int]:
        """The calls that have an outcome now. Containers that are of no more use are put away."""
        found, self._early = self._early, []
        now = time.monotonic()
        for worker, (index, since) in list(self._at.items()):
            until = worker.deadline(self._settings.timeout, since)
            item = index if self._many else None
            what = f"call {index} of {self._name}" if self._many else self._name
            if worker.answer is not None:
                self.results[index] = self._outcome(*worker.answer, item)
                worker.answer = None
            elif worker.broken:
                self.results[index] = _Failed(worker.broken)
            elif worker.over:
                ended = failures.ended(what, worker.exit, worker.memory)
                early = ContainersError(f"{what} ended before it gave back anything", "its Python ended early: os._exit?")
                self.results[index] = _Failed(ended or early)
            elif until is not None and now >= until:
                worker.kill()
                self.results[index] = _Failed(failures.timed_out(what, self._settings.timeout or 0.0, worker.exit))
            else:
                continue
            found.append(index)
            del self._at[worker]
        for worker in [worker for worker in self._workers if worker.over or worker.broken]:
            worker.close()
            self._workers.remove(worker)
            self._new.discard(worker)
        return found

    def _fail(self, index: int, error: ContainersError) -> None:
        """A call that comes to no container."""
        self.results[index] = _Failed(error)
        self._early.append(index)

    def _outcome(self, fields: dict[str, Any], buffers: list[memoryview], item: int | None) -> Any:
        op = fields.get("op")
        try:
            if op == "raised":
                return _Failed(failures.raised(fields.get("error"), files=self._files, item=item))
            if op == "unfit":
                return _Failed(failures.unfit("", False, str(fields.get("why"))))
            return values(fields, buffers, self._settings.pickled, self._settings.limit)[""]
        except ContainersError as error:
            return _Failed(error)
        except Exception:  # whatever an answer that nobody should have given leads to: it costs its item, and no other
            return _Failed(ContainersError(f"{self._name} gave back nothing that can be read", "code inside has written to the connection"))


class _Failed:
    """An error in the place of a value, told apart from an error that a function has returned."""

    def __init__(self, error: ContainersError) -> None:
        self.error = error


def counted(items: Iterable[Any]) -> Sequence[Any]:
    """Items whose number is known: the progress bar needs it."""
    return items if isinstance(items, Sequence) else list(items)
