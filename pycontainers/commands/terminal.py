"""A person at a session: the program's own terminal (or pipe) on one side, a process in a container on the other."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator

from ..errors import UsageError
from ..protocol import Session

DETACH = b"\x10\x11"
"""ctrl-p, ctrl-q: Docker's keys to let go of a container that runs on."""

_NAMED = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}
_CHUNK = 1 << 16


def detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` or ``a,b`` as the bytes that a terminal sends. :raises UsageError: not keys."""
    found = bytearray()
    for word in text.split(","):
        key = word.removeprefix("ctrl-")
        if key != word and len(key) == 1 and ((key.isascii() and key.isalpha()) or key in _NAMED):
            found.append(_NAMED[key] if key in _NAMED else ord(key.lower()) - 96)
        elif len(word) == 1 and word.isascii():
            found.append(ord(word))
        else:
            raise UsageError(f"--detach-keys {text!r}: {word!r} is no key", "single characters or ctrl-<letter>, separated by commas")
    return bytes(found)


def size(fd: int | None = None) -> tuple[int, int]:
    """(rows, columns) of the terminal that this process writes to. Asked, not read from the environment, which does not follow it."""
    try:
        found = os.get_terminal_size(sys.stdout.fileno() if fd is None else fd)
    except (OSError, ValueError):
        return 24, 80
    return found.lines, found.columns


def drive(session: Session, write: Callable[[str, bytes], None], stdin: int, keys: bytes = DETACH) -> None:
    """Pass ``stdin`` (a descriptor, or -1) and output on until the session is over, or the detach keys were typed.

    A terminal on both sides is put into raw mode, so that every key is the container's, and its size follows the window's.
    """
    typed = Typed(keys) if session.tty else None
    waiting = b""  # input that was not taken yet: a program that waits until its output is read takes none
    with _terminal(session, stdin) as resized:
        while not session.over:
            sources = session.sources()
            ready = _ready([resized, *sources, *[stdin] * (stdin >= 0 and not waiting)], session.sink() if waiting else -1)
            if resized in ready:
                os.read(resized, _CHUNK)
                session.resize(*size())
            for fd in sources:
                if ready.get(fd, 0) & ~select.POLLOUT:
                    for stream, data in session.receive(fd):
                        write(stream, data)
            if stdin in ready:
                data = os.read(stdin, _CHUNK)
                if not data:
                    session.end_input()
                    stdin = -1
                waiting = typed.feed(data) if typed else data
            if waiting:
                waiting = waiting[session.offer(waiting) :]
            if typed and typed.detach:
                return


def _ready(readers: list[int], writer: int) -> dict[int, int]:
    """Wait until one of them is: descriptor -> what poll(2) says. ``writer``, which may be a reader too, is -1 for none."""
    wanted = dict.fromkeys(readers, select.POLLIN)
    if writer >= 0:
        wanted[writer] = wanted.get(writer, 0) | select.POLLOUT
    poll = select.poll()
    for fd, events in wanted.items():
        poll.register(fd, events)
    return dict(poll.poll())


class Typed:
    """Looks for the detach keys in what is typed; their beginning is held back until it is clear that the rest does not follow."""

    def __init__(self, keys: bytes) -> None:
        self._keys, self._held, self.detach = keys, b"", False

    def feed(self, data: bytes) -> bytes:
        """What the container gets."""
        passed = bytearray()
        for byte in data:
            self._held += bytes([byte])
            if self._keys and self._held == self._keys:
                self.detach = True
                break
            while self._held and not (self._keys and self._keys.startswith(self._held)):
                passed += self._held[:1]
                self._held = self._held[1:]
        return bytes(passed)


@contextlib.contextmanager
def _terminal(session: Session, stdin: int) -> Iterator[int]:
    """Raw mode where there is a terminal on both sides; yields a descriptor that is readable after the window changed its size."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = None
    handler, wakeup = None, -1
    try:
        if session.tty and sys.stdout.isatty():
            handler = signal.signal(signal.SIGWINCH, lambda number, frame: None)
            wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
            session.resize(*size())
        if session.tty and stdin >= 0 and os.isatty(stdin):
            before = termios.tcgetattr(stdin)
            tty.setraw(stdin, termios.TCSANOW)
        yield reader
    finally:
        if before is not None:
            termios.tcsetattr(stdin, termios.TCSADRAIN, before)
        if handler is not None:
            signal.set_wakeup_fd(wakeup)
            signal.signal(signal.SIGWINCH, handler)
        os.close(reader)
        os.close(writer)
