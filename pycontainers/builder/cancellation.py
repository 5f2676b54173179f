"""One word that ends everything a build has under way: commands in containers, copies, downloads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from ..errors import ContainersError


class Cancelled(ContainersError):
    """The build ends (an interrupt, or another step has failed): what is under way stops. Never shown."""

    def __init__(self) -> None:
        super().__init__("the build was cancelled", "")


class Cancellation:
    """Asked for once, from any thread; heard by all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._actions: dict[object, Callable[[], object]] = {}
        self._event = threading.Event()

    @property
    def asked(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """To be called between two pieces of work. :raises Cancelled:"""
        if self.asked:
            raise Cancelled

    def pause(self, seconds: float) -> None:
        """Wait. :raises Cancelled: meanwhile, at once."""
        if self._event.wait(seconds):
            raise Cancelled

    def ask(self) -> None:
        with self._lock:
            self._event.set()
            actions = list(self._actions.values())
        for action in actions:
            with contextlib.suppress(Exception):  # what has just ended by itself need not be ended
                action()

    @contextlib.contextmanager
    def ending(self, action: Callable[[], object]) -> Iterator[None]:
        """``action`` ends what the block waits for; it is called (from another thread) when the build is cancelled meanwhile.

        :raises Cancelled: it was already.
        """
        mine = object()
        with self._lock:
            self.check()
            self._actions[mine] = action
        try:
            yield
        finally:
            with self._lock:
                del self._actions[mine]
