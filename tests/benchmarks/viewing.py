"""What runs inside the notebook kernel for :mod:`.views`: live views, and what they cost it and the page."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from typing import Any

import pycontainers as pc
from pycontainers.engines.native import engine
from pycontainers.metrics.sample import Sample
from pycontainers.notebook.sampler import sampler
from pycontainers.notebook.widgets.stats import LiveStats
from pycontainers.usage import Stats, StatsTable


class Wire:
    """Bytes of all messages that this kernel sends while it is held open, as they stand on the wire, buffers and all."""

    def __init__(self) -> None:
        from IPython.core.getipython import get_ipython

        self.session = get_ipython().kernel.session
        self.bytes = self.messages = 0

    def __enter__(self) -> Wire:
        send, serialize = self.session.send, self.session.serialize

        def sending(*args: Any, **more: Any) -> Any:
            self.bytes += sum(len(buffer) for buffer in more.get("buffers") or ())
            self.messages += 1
            return send(*args, **more)

        def serializing(*args: Any, **more: Any) -> Any:
            frames = serialize(*args, **more)
            self.bytes += sum(len(frame) for frame in frames)
            return frames

        self.session.send, self.session.serialize = sending, serializing
        return self

    def __exit__(self, *exception: object) -> None:
        del self.session.send, self.session.serialize


def idle(seconds: float) -> float:
    """Share of one processor that the kernel takes while it does nothing, in percent."""
    begun = time.process_time()
    time.sleep(seconds)
    return 100 * (time.process_time() - begun) / seconds


def opened() -> dict[str, float]:
    """Bytes and seconds of the first live figure of all running containers."""
    begun = time.perf_counter()
    with Wire() as wire:
        view = LiveStats(StatsTable([Stats(engine(), box.id) for box in pc.ps()]))
    taken = time.perf_counter() - begun
    with Wire() as second:
        LiveStats(StatsTable([Stats(engine(), box.id) for box in pc.ps()])).widget.close()
    VIEWS.append(view)
    return {"bytes": wire.bytes, "seconds": taken, "second": second.bytes}


VIEWS: list[LiveStats] = []


def live(seconds: float) -> dict[str, float]:
    """The kernel's share of one processor in percent, and bytes a second to the page, while the figure lives."""
    sampler().add(VIEWS[-1])
    time.sleep(2)
    with Wire() as wire:
        cpu, begun = time.process_time(), time.monotonic()
        time.sleep(seconds)
        span = time.monotonic() - begun
        cpu = time.process_time() - cpu
    assert sampler().running and VIEWS[-1].widget.state == "live"
    VIEWS.pop().widget.close()
    return {"percent": 100 * cpu / span, "bytes": wire.bytes / span, "messages": wire.messages / span}


class Hours:
    """An engine whose one container has run for an hour, and then second by second for another; everything else is that of a real one."""

    def __init__(self, real: Any, ident: str) -> None:
        self._real, self._ident, self._count = real, ident, 3600

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def _sample(self, number: int) -> Sample:
        return Sample(1000.0 + number, cpu_usage=number * 10**8, memory=(number % 97) << 20, pids=number % 7, pressure=1)

    def next(self) -> None:
        self._count += 1

    def samples(self, container: str, after: float | None = None) -> list[Sample]:
        """Made when they are asked for: what lies here must not be measured."""
        first = self._count - 3600 if after is None else self._count - 20
        return [sample for sample in map(self._sample, range(first, self._count)) if after is None or sample.time > after]


def hour(ticks: int = 3600) -> dict[str, float]:
    """Growth of the kernel's memory and of what a page is given at once, over an hour of samples."""
    hours = Hours(engine(), pc.ps()[0].id)
    view = LiveStats(Stats(hours, pc.ps()[0].id))
    first = len(view.whole())
    for _ in range(100):
        hours.next()
        view.tick()
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    begun = time.thread_time()
    for _ in range(ticks):
        hours.next()
        view.tick()
    taken = time.thread_time() - begun
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    state = view.widget.get_state()
    view.widget.close()
    size = len(state["points"])
    return {"grown": after - before, "first": first, "state": size, "tick": taken / ticks, "threads": threading.active_count()}
