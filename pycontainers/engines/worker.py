"""The process of :mod:`.inside`: this engine, with the user's namespaces joined."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from collections.abc import Generator
from io import IOBase
from pathlib import Path
from typing import Any

from ..linux import holder, sockets
from ..paths import Paths
from .inside import Stream
from .native import NativeEngine


def main(words: list[str]) -> None:
    """``words``: HOME, RUN, and the descriptor for events and result. What to do comes by stdin."""
    home, run, writer = words
    os.set_inheritable(int(writer), False)
    asked = pickle.load(sys.stdin.buffer)
    life = holder.join(run)
    sys.path[:] = asked["sys.path"]  # the image host is made of what this says
    with os.fdopen(int(writer), "wb") as results:

        def tell(kind: str, what: Any) -> None:
            pickle.dump((kind, what), results)
            results.flush()

        try:
            given = [os.fdopen(one.fd, one.mode) if isinstance(one, Stream) else one for one in asked["arguments"]]
            found = getattr(NativeEngine(Paths(Path(home), Path(run))), asked["method"])(*given)
            if isinstance(found, Generator):
                found = _events(found, tell)
            for one in given:
                if isinstance(one, IOBase):
                    one.close()
            tell("result", found)
        except BrokenPipeError:
            pass  # nobody waits for it any more
        except BaseException as error:
            with contextlib.suppress(OSError):
                tell("error", sockets.error_message(error))
    os.close(life)


def _events(steps: Generator[Any, None, Any], tell: Any) -> Any:
    with contextlib.closing(steps):
        while True:
            try:
                event = next(steps)
            except StopIteration as stop:
                return stop.value
            tell("event", event)
