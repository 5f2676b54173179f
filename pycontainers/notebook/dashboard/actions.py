"""What the dashboard's buttons do. Each action runs on a worker's thread: a stop may take its ten seconds, and callbacks return at once."""

from __future__ import annotations

import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from ...objects import Container
from ...protocol import Engine

_log = logging.getLogger("pycontainers.notebook")
_WORKERS = 6
_IDLE = 20.0  # seconds after which a worker that has nothing to do ends


_every: weakref.WeakSet[Workers] = weakref.WeakSet()


class Workers:
    """A few threads, started with the first job and ended with idleness. They are daemons: none holds up the kernel's end."""

    def __init__(self, most: int = _WORKERS) -> None:
        self._most = most
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._jobs_left = 0
        _every.add(self)

    def do(self, job: Callable[[], None]) -> None:
        with self._lock:
            self._jobs.put(job)
            self._jobs_left += 1  # those that somebody is at are among them: a job that hangs keeps no other waiting
            if len(self._threads) < min(self._jobs_left, self._most):
                self._threads.append(threading.Thread(target=self._run, name="pycontainers-dashboard-work", daemon=True))
                self._threads[-1].start()

    def close(self, seconds: float = 2.0) -> None:
        """End those that have nothing to do, and wait for that. What somebody is at goes on to its end."""
        with self._lock:
            ended, self._threads = self._threads, []
            for _ in ended:
                self._jobs.put(None)
        end = time.monotonic() + seconds
        for thread in ended:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            try:
                job = self._jobs.get(timeout=_IDLE)
            except queue.Empty:
                with self._lock:
                    if me in self._threads and not self._jobs.empty():
                        continue  # it came this moment
                    if me in self._threads:
                        self._threads.remove(me)
                    return
            if job is None:
                if me not in self._threads:
                    return
                continue  # it was meant for one of before
            try:
                job()
            except Exception:  # who asked is told by the job itself; this thread has others to do
                _log.warning("a task of the dashboard broke", exc_info=True)
            finally:
                with self._lock:
                    self._jobs_left -= 1


def close_all() -> None:
    """At unload."""
    for workers in list(_every):
        workers.close()


def _again(engine: Engine, name: str) -> None:
    Container(engine, engine.find(name)).restart()


def _remove_image(engine: Engine, ident: str) -> None:
    # Every name of it: who removes a row means the image.
    names = engine.image(ident).names
    for name in names or (ident,):
        engine.remove_image(name)


#: (tab, verb) → what it does, how it is said while it is done, and when it is done.
ACTIONS: dict[tuple[str, str], tuple[Callable[[Engine, str], Any], str, str]] = {
    ("containers", "start"): (lambda engine, name: engine.start(name), "starting", "started"),
    ("containers", "stop"): (lambda engine, name: engine.stop(name), "stopping", "stopped"),
    ("containers", "restart"): (_again, "restarting", "restarted"),
    ("containers", "pause"): (lambda engine, name: engine.pause(name), "pausing", "paused"),
    ("containers", "unpause"): (lambda engine, name: engine.unpause(name), "resuming", "resumed"),
    ("containers", "remove"): (lambda engine, name: engine.remove(name, True), "removing", "removed"),
    ("images", "remove"): (_remove_image, "removing", "removed"),
}
