"""A person's terminal in a container: a process on a pty, what it has written so far, and whoever looks at it.

The process is served by a thread of its own, so that it goes on after the cell or click that opened it. Plain representations only.
"""

from __future__ import annotations

import os
import re
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from .errors import ContainersError, StateError
from .protocol import ContainerInfo, Engine, ExecConfig, ExitStatus, Session, exit_of
from .text import EscapeFilter, TerminalFilter, clean, one_line
from .wording import exit_text

SHELL = ("sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash; fi; exec sh")
"""What runs where no command is named: the better one of the two shells that images have."""

KEPT = 256 << 10
"""Bytes of output that a page which comes later is shown."""
WINDOW = 512 << 10
"""Bytes that a page may be behind (it says what it has drawn): after that the process is read slowly, and the page asks anew later."""
CHUNK = 64 << 10
"""Bytes of one message, and of what is read in one period: 2 MB/s, more than anybody reads and less than a kernel notices."""
PERIOD = 0.03
SLOW_PERIOD = 0.25
MOST_INPUT = 4 << 20
"""Bytes that wait for a process which does not read; what comes beyond them is refused."""

_MODES = re.compile(rb"\x1b\[\?([0-9;]{1,64})([hl])")
_MOST_MODES = 64
_ANEW = "\x1b[?1049l\x1b[!p\r\n"
"""Before the output of a process that follows another: the main screen, and no mode that the other has set (DECSTR)."""

Begin = Callable[[Callable[[Session], None], tuple[int, int]], ExitStatus]
"""Run a process on a terminal of this size (rows, columns), driven by the given function, until its end."""


class Watcher(Protocol):
    """Who shows a terminal. Called on the terminal's thread, or on that of whoever calls it; must not wait."""

    def output(self, at: int, data: bytes) -> None:
        """``data``: UTF-8 without control strings; ``at``: how many bytes came before it."""
        ...

    def lost(self) -> None:
        """Something was not passed on, for nobody took it: ask for :meth:`Terminal.screen`."""
        ...

    def changed(self) -> None:
        """It has started or ended."""
        ...


class Terminal:
    """A process in a container on a terminal: ``write``, ``resize``, ``close``; ``text`` is what it wrote last.

    :ivar form: ``full`` for a page that draws a terminal, ``lines`` for one that shows lines (colours alone stay).
    :ivar exit: None while it runs.
    """

    def __init__(self, container: str, command: tuple[str, ...], begin: Begin, form: str = "full", again: bool = True) -> None:
        self.container, self.command, self.form, self.can_restart = container, command, form, again
        self.exit: ExitStatus | None = None
        self.error: ContainersError | None = None
        self.size = (24, 80)
        self._begin = begin
        self._lock = threading.RLock()
        self._output = _Output()
        self._watcher: Watcher | None = None
        self._seen = 0
        self._behind = False
        self._input = bytearray()
        self._resized = False
        self._closing = False
        self._wake = -1
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        what = "shell" if self.command == SHELL else " ".join(self.command)
        return f"<Terminal in {one_line(self.container)}: {one_line(what)}, {self.state}>"

    @property
    def running(self) -> bool:
        return self._thread is not None and self.exit is None and self.error is None

    @property
    def state(self) -> str:
        """``running``, or how it ended."""
        if self.error is not None:
            return one_line(self.error.message)
        return "running" if self.exit is None else "closed" if self._closing else exit_text(self.exit)

    @property
    def text(self) -> str:
        """The newest 256 KiB of its output, without escapes."""
        with self._lock:
            return clean(self._output.replay().decode("utf-8", "replace"))

    def start(self) -> Terminal:
        """Begin, or begin anew after the end. Returns when it runs. :raises ContainersError: it does not."""
        with self._lock:
            if self.running:
                return self
            self.exit, self.error, self._closing = None, None, False
            self._input.clear()
            self._ready.clear()
            self._thread = threading.Thread(target=self._run, name="pycontainers-terminal", daemon=True)
            self._thread.start()
        try:
            self._ready.wait()
        except BaseException:
            self.close()
            raise
        if self.error is not None:
            raise self.error
        return self

    def watch(self, watcher: Watcher | None) -> None:
        """Who is told from now on: one at a time."""
        with self._lock:
            self._watcher = watcher

    def held(self) -> AbstractContextManager[Any]:
        """While it is held nothing is passed on."""
        return self._lock

    def screen(self) -> tuple[int, bytes]:
        """(how many bytes there were in all, the newest of them): what draws the same picture. Whoever asks has seen everything then."""
        with self._lock:
            self._seen, self._behind = self._output.end, False
            self._wake_up()
            return self._output.end, self._output.replay()

    def redraw(self) -> None:
        """Have a full-screen program draw anew where the beginning of its picture is kept no longer: its size changes, and changes back."""
        if self._output.cut:
            rows, columns = self.size
            self.resize(rows - 1 or 2, columns)
            threading.Timer(0.1, self.resize, (rows, columns)).start()

    def seen(self, at: int) -> None:
        """A page has drawn everything up to ``at``."""
        with self._lock:
            self._seen = max(self._seen, min(at, self._output.end))
            again, self._behind = self._behind, False
            self._wake_up()
            if again and self._watcher is not None:
                self._watcher.lost()

    def write(self, data: bytes) -> bool:
        """Type ``data``. False: it was refused, for the process does not read, or has ended."""
        with self._lock:
            if not self.running or len(self._input) + len(data) > MOST_INPUT:
                return False
            self._input += data
            self._wake_up()
            return True

    def resize(self, rows: int, columns: int) -> None:
        with self._lock:
            self.size = (max(2, min(int(rows), 500)), max(2, min(int(columns), 1000)))
            self._resized = True
            self._wake_up()

    def close(self) -> None:
        """End it: its terminal hangs up (SIGHUP); the container goes on, unless it is the container's own terminal (``run -it``)."""
        with self._lock:
            self._closing = True
            self._wake_up()

    def wait(self, timeout: float | None = None) -> bool:
        """Until it has ended; False: it has not, after ``timeout`` seconds."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return not self.running

    # -- on its thread

    def _run(self) -> None:
        try:
            found = self._begin(self._drive, self.size)
            with self._lock:
                self.exit = found
        except ContainersError as error:
            self.error = error
        except Exception as error:  # whoever waits for the start must not wait for ever
            self.error = StateError(f"the terminal in {self.container} broke off: {error}", "")
        finally:
            self._ready.set()
            with self._lock:
                if self._watcher is not None:
                    self._watcher.changed()

    def _drive(self, session: Session) -> None:
        """Serve it until it is over, or is closed: then the session is let go of before its end."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with self._lock:
            self._wake = writer
        self._ready.set()
        try:
            self._serve(session, reader)
        finally:
            with self._lock:
                self._wake = -1
            os.close(writer)
            os.close(reader)

    def _serve(self, session: Session, reader: int) -> None:
        escapes: EscapeFilter = TerminalFilter() if self.form == "full" else EscapeFilter()
        pending, sent = bytearray(), 0.0
        if self._output.end:
            self._flush(_ANEW)
        while not session.over and not self._closing:
            slow = self._unread() > WINDOW
            due = sent + (SLOW_PERIOD if slow else PERIOD)
            sources = session.sources() if len(pending) < CHUNK and not (slow and time.monotonic() < due) else []
            wanted = dict.fromkeys([reader, *sources], select.POLLIN)
            sink = session.sink() if self._input else -1
            if sink >= 0:
                wanted[sink] = wanted.get(sink, 0) | select.POLLOUT
            ready = _poll(wanted, max(0.0, due - time.monotonic()) if pending or slow else None)
            if reader in ready:
                _drain(reader)
            self._pass_input(session, ready.get(sink, 0) & select.POLLOUT != 0)
            for fd in sources:
                if ready.get(fd, 0) & ~select.POLLOUT:
                    pending += b"".join(data for _, data in session.receive(fd))
            if pending and time.monotonic() >= due:
                self._flush(escapes.feed(bytes(pending)))
                pending.clear()
                sent = time.monotonic()
        self._flush(escapes.feed(bytes(pending), final=True))

    def _pass_input(self, session: Session, writable: bool) -> None:
        with self._lock:
            resized, self._resized = self._resized, False
            data = bytes(self._input[:CHUNK]) if writable else b""
        if resized:
            session.resize(*self.size)
        if data:
            taken = session.offer(data)
            with self._lock:
                del self._input[:taken]

    def _flush(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        if not data:
            return
        with self._lock:
            at = self._output.end
            self._output.add(data)
            self._behind = self._behind or self._unread() > WINDOW
            if self._watcher is not None and not self._behind:
                self._watcher.output(at, data)

    def _unread(self) -> int:
        return self._output.end - self._seen

    def _wake_up(self) -> None:
        if self._wake >= 0:
            try:
                os.write(self._wake, b".")
            except BlockingIOError:
                pass  # it is awake already


class _Output:
    """The newest pieces of output, each of which begins and ends outside of an escape, and the modes that dropped ones have set."""

    def __init__(self) -> None:
        self.end = 0
        self.cut = False
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._modes: dict[bytes, bytes] = {}

    def add(self, data: bytes) -> None:
        self._pieces.append(data)
        self.end += len(data)
        self._size += len(data)
        while self._size > KEPT and len(self._pieces) > 1:
            self._drop(self._pieces.popleft())

    def replay(self) -> bytes:
        modes = b"".join(b"\x1b[?" + mode + letter for mode, letter in self._modes.items())
        return modes + b"".join(self._pieces)

    def _drop(self, data: bytes) -> None:
        self.cut = True
        self._size -= len(data)
        for numbers, letter in _MODES.findall(data):
            for number in numbers.split(b";"):
                self._modes.pop(number, None)  # the order in which they were set counts
                self._modes[number] = letter
        while len(self._modes) > _MOST_MODES:
            del self._modes[next(iter(self._modes))]


def _poll(wanted: dict[int, int], seconds: float | None) -> dict[int, int]:
    poll = select.poll()
    for fd, events in wanted.items():
        poll.register(fd, events)
    return dict(poll.poll(None if seconds is None else seconds * 1000))


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


def in_container(engine: Engine, container: str, config: ExecConfig, form: str = "full") -> Terminal:
    """One more process in a running container (``exec -it``), started. ``config.command`` may be empty: a shell.

    :raises ContainersError: it does not start.
    """
    info = engine.find(container)
    command = config.command or SHELL
    environment = {"TERM": "xterm-256color" if form == "full" else "dumb", **config.env}
    asked = ExecConfig(command, environment, config.workdir, config.user, tty=True, privileged=config.privileged)

    def begin(drive: Callable[[Session], None], size: tuple[int, int]) -> ExitStatus:
        return engine.exec(info.id, asked, drive=drive, size=size)

    return Terminal(info.name, command, begin, form).start()


def of_container(engine: Engine, info: ContainerInfo, form: str = "full") -> Terminal:
    """A container that was created with a terminal, started and attached (``run -it``). It ends with its terminal.

    :raises ContainersError: it does not start; then it is removed, as ``run`` does.
    """

    def begin(drive: Callable[[Session], None], size: tuple[int, int]) -> ExitStatus:
        session = engine.start_attached(info.id, feed=True, size=size)
        try:
            drive(session)
        finally:
            session.close()
        if session.over:
            return exit_of(session)
        engine.stop(info.id, timeout=1.0)  # a shell that is process 1 of its container hears no signal but SIGKILL
        return ExitStatus(None)

    found = Terminal(info.name, info.command, begin, form, again=False)
    try:
        return found.start()
    except BaseException:
        try:
            engine.remove(info.id, force=True)
        except ContainersError:
            pass  # why it did not start is what the user needs to read
        raise
