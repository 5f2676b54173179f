"""The supervisor's loop: poll(2) with a callback for each descriptor, and named timers. Single thread, nothing else."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

READ, WRITE = select.POLLIN, select.POLLOUT
Call = Callable[[], object]


class Loop:
    """``watch`` and ``at`` register, :meth:`turn` waits once and calls. A callback may change everything, itself included."""

    __slots__ = ("_calls", "_poll", "_timers")

    def __init__(self) -> None:
        self._poll = select.poll()
        self._calls: dict[int, Call] = {}
        self._timers: dict[str, tuple[float, Call]] = {}

    def watch(self, fd: int, call: Call, events: int = READ) -> None:
        """Call ``call`` whenever ``fd`` is ready (or has ended); again with other values replaces."""
        self._poll.register(fd, events)
        self._calls[fd] = call

    def forget(self, fd: int) -> None:
        """No more calls for ``fd``; nothing when there were none. Before it is closed."""
        if self._calls.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def at(self, name: str, due: float, call: Call) -> None:
        """Call ``call`` once when the monotonic clock reaches ``due``; a timer of that name is replaced."""
        self._timers[name] = (due, call)

    def cancel(self, name: str) -> None:
        self._timers.pop(name, None)

    def turn(self) -> None:
        """Wait for the next event or timer, and serve all that are due."""
        wait = None
        if self._timers:
            first = min(due for due, _ in self._timers.values())
            wait = max(0.0, (first - time.monotonic()) * 1000)
        for fd, _ in self._poll.poll(wait):
            call = self._calls.get(fd)
            if call is not None:  # an earlier callback of this turn may have dropped it
                call()
        now = time.monotonic()
        for name, (due, call) in list(self._timers.items()):
            if due <= now and self._timers.get(name) == (due, call):
                del self._timers[name]
                call()
