"""One thread per kernel that keeps all live views current. It starts with the first view and ends with the last."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

_log = logging.getLogger("pycontainers.notebook")
_MOST_VIEWS = 24
"""A cell that was run again leaves a view behind that nobody sees and nothing tells us of: the oldest give way."""


class View(Protocol):
    def tick(self) -> bool:
        """Read anew and draw. False: there is nothing more to come."""
        ...

    def release(self, reason: str) -> None:
        """It will not be called again; say why."""
        ...


class Sampler:
    def __init__(self, period: float = 1.0) -> None:
        self.period = period
        self._views: list[View] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, view: View) -> None:
        with self._lock:
            self._views.append(view)
            dropped = self._views[:-_MOST_VIEWS]
            self._views = self._views[-_MOST_VIEWS:]
            if self._thread is None:
                self._wake.clear()
                self._thread = threading.Thread(target=self._run, name="pycontainers-stats", daemon=True)
                self._thread.start()
        for old in dropped:
            self._release(old, "stopped: newer plots took its place; run the cell again")

    def close(self) -> None:
        """End the thread (at unload); views stay as they are."""
        with self._lock:
            thread, views, self._views = self._thread, self._views, []
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5.0)
        for view in views:
            self._release(view, "stopped: the extension was unloaded")

    @property
    def running(self) -> bool:
        return self._thread is not None

    def _run(self) -> None:
        while not self._wake.wait(self.period):
            with self._lock:
                views = list(self._views)
            gone = [view for view in views if not self._tick(view)]
            with self._lock:
                self._views = [view for view in self._views if view not in gone]
                if not self._views:
                    self._thread = None
                    return
        with self._lock:
            self._thread = None

    def _tick(self, view: View) -> bool:
        try:
            return view.tick()
        except Exception as error:  # one broken view must not stop the others; it says so itself
            _log.debug("a live view broke", exc_info=True)
            self._release(view, f"stopped: {error}")
            return False

    def _release(self, view: View, reason: str) -> None:
        try:
            view.release(reason)
        except Exception:  # its page may be what broke it
            _log.debug("a live view could not be told: %s", reason, exc_info=True)


_sampler = Sampler()


def sampler() -> Sampler:
    return _sampler
