"""Threads that work on the layers of an image side by side, and whoever has made them, who hears how far they are."""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from ..events import Event, Transfer, Work
from .records import Records

PERIOD = 0.05  # seconds between two events of one layer
POLL = 0.1  # seconds between two looks whether something has happened
_PATIENCE = 0.8  # seconds for which threads that were told to stop are waited for
_RENEW = 60.0  # seconds between two renewals of the leases

Job = TypeVar("Job")
Made = TypeVar("Made")
_Events = queue.SimpleQueue[Event | BaseException | None]  # None: a thread has ended


class Stopped(Exception):
    """Somebody has let go of the work, or another thread has failed."""


class Tell:
    """Events of one layer, a few each second."""

    def __init__(self, crew: Crew, label: str) -> None:
        self._tell, self._label = crew.tell, label
        self._phase, self._last = "", 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase != self._phase or now - self._last >= PERIOD:
            self._phase, self._last = phase, now
            self._tell(Transfer(self._label, phase, done, total))


class Crew:
    """The threads. Daemons: one that hangs in a network must not keep a notebook's kernel from ending.

    :ivar leased: folders and blobs of the store that the work counts on: until :meth:`close` they are ``holder``'s. ``stop``: is set when
        the threads are to end. ``tell``: where events go; another place than ``events`` for who works without :meth:`run`.
    """

    def __init__(self, store: Records, name: str) -> None:
        self._records, self._name = store, name
        self.holder = f"{name[0]}{secrets.token_hex(4)}"
        self.events: _Events = queue.SimpleQueue()
        self.tell: Callable[[Event], object] = self.events.put
        self.stop = threading.Event()
        self.leased: set[str] = set()
        self._threads: list[threading.Thread] = []

    def each(self, jobs: Sequence[Job], do: Callable[[Job], Made], at_once: int) -> Work[list[Made]]:
        """Do all of ``jobs``, so many at once; what came of them, in the same order."""
        made: dict[int, Made] = {}
        left, lock = iter(enumerate(jobs)), threading.Lock()

        def work() -> None:
            while not self.stop.is_set():
                with lock:
                    found = next(left, None)
                if found is None:
                    return
                made[found[0]] = do(found[1])

        yield from self.run(work, min(at_once, len(jobs)))
        return [made[index] for index in range(len(jobs))]

    def run(self, work: Callable[[], object], count: int = 1) -> Iterator[Event]:
        """Have so many threads do ``work``; what they tell, until all have ended. What one of them raises is raised here."""

        def guarded() -> None:
            try:
                work()
                self.events.put(None)
            except Stopped:
                self.events.put(None)
            except BaseException as error:
                self.stop.set()
                self.events.put(error)

        threads = [threading.Thread(target=guarded, name=self._name, daemon=True) for _ in range(count)]
        self._threads += threads
        for thread in threads:
            thread.start()
        running, renewed = count, time.monotonic()
        while running:
            with contextlib.suppress(queue.Empty):
                found = self.events.get(timeout=POLL)
                if isinstance(found, BaseException):
                    raise found
                if found is None:
                    running -= 1
                else:
                    yield found
            if time.monotonic() - renewed > _RENEW:
                renewed = time.monotonic()
                for path in list(self.leased):
                    self._records.lease(path, self.holder)

    def close(self, hurry: Callable[[], object]) -> None:
        """Stop, wait a little, and give up the leases. ``hurry``: ends what a thread may hang in, such as a network."""
        self.stop.set()
        if any(thread.is_alive() for thread in self._threads):
            hurry()
        end = time.monotonic() + _PATIENCE
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))
        self._records.release(list(self.leased), self.holder)
