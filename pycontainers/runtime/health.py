"""Health checks (Dockerfile's HEALTHCHECK): a command run inside from time to time, whose exit code says how the container is.

The status is in ``health.json``: ``{"status", "streak", "log": [{"start", "end", "code", "output"}]}`` with the last five probes, as
``docker inspect`` has them. Docker's rules (moby, daemon/health.go): the first probe comes after ``interval`` (``start_interval`` in the
start period), a probe that takes longer than ``timeout`` failed, failures in the start period do not count, one success makes healthy.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

from . import exec as exec_worker
from . import state

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, Protocol

    from ..linux import seccomp
    from .loop import Loop

    class Watched(Protocol):
        """What is checked: a container, as its supervisor has it."""

        folder: str
        loop: Loop
        paused: bool

        @property
        def program(self) -> seccomp.Filter | None: ...

        def journal(self, action: str, **attributes: object) -> None: ...

        def leave_to(self, work: Callable[[], object]) -> NoReturn: ...

_OUTPUT = 4096  # bytes kept of a probe's output
_KEPT = 5


class Health:
    """The checks of one run of one container. ``check`` is ``container.json``'s ``health``: test, interval, timeout, … in seconds."""

    def __init__(self, watched: Watched, check: dict[str, Any]) -> None:
        self._watched, self._check, self._loop = watched, check, watched.loop
        self._begun = time.monotonic()
        self._found: dict[str, Any] = {"status": "starting", "streak": 0, "log": []}
        self._pid, self._pidfd, self._reader = 0, -1, -1
        self._output = bytearray()
        self._started = 0.0
        self._write()
        self._plan()

    @property
    def command(self) -> list[str]:
        kind, *words = self._check["test"]
        return list(words) if kind == "CMD" else ["/bin/sh", "-c", *words]

    @property
    def _young(self) -> bool:
        return bool(self._found["status"] == "starting" and time.monotonic() - self._begun < self._check["start_period"])

    def close(self) -> None:
        """The container has ended, or is about to: no more probes."""
        self._loop.cancel("health")
        if self._pid:
            self._reap(kill=True)

    def interrupt(self) -> None:
        """The container is about to be killed. Its pid namespace ends when all in it have been reaped, the probe by its parent outside,
        who may hang; else by this machine's init."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)

    def _plan(self) -> None:
        wait = self._check["start_interval"] if self._young else self._check["interval"]
        self._loop.at("health", time.monotonic() + wait, self._probe)

    def _probe(self) -> None:
        if self._watched.paused:
            self._plan()
            return
        self._started, self._output = time.time(), bytearray()
        try:
            self._begin()
        except OSError as error:
            self._done(-1, f"the probe cannot be made: {error.strerror}")

    def _begin(self) -> None:
        """:raises OSError: no process, or no descriptor, is left for it."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writer, True)
        pid = 0
        try:
            pid = os.fork()
            if pid == 0:
                program, timeout = self._watched.program, self._check["timeout"]
                self._watched.leave_to(lambda: exec_worker.probe(self._watched.folder, self.command, writer, program, timeout))
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.close(reader)
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            raise
        finally:
            os.close(writer)
        self._pid, self._pidfd, self._reader = pid, pidfd, reader
        self._loop.watch(reader, self._read)
        self._loop.watch(self._pidfd, self._ended)

    def _read(self) -> None:
        try:
            data = os.read(self._reader, 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._output += data[: _OUTPUT - len(self._output)]
        if not data:
            self._loop.forget(self._reader)

    def _ended(self) -> None:
        self._read()
        code = self._reap()
        if code == exec_worker.LATE:
            self._done(-1, f"Health check exceeded timeout ({self._check['timeout']:g}s)")
        else:
            self._done(code, "")

    def _reap(self, kill: bool = False) -> int:
        if kill:
            os.kill(self._pid, signal.SIGKILL)  # the probe inside has it as its parent-death signal
        _, status = os.waitpid(self._pid, 0)
        for fd in (self._pidfd, self._reader):
            self._loop.forget(fd)
            os.close(fd)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def _done(self, code: int, error: str) -> None:
        found = self._found
        output = error or self._output.decode("utf-8", "replace")
        entry = {"start": self._started, "end": time.time(), "code": code, "output": output}
        found["log"] = [*found["log"], entry][-_KEPT:]
        before = found["status"]
        if code == 0:
            found["status"], found["streak"] = "healthy", 0
        elif not self._young:
            found["streak"] += 1
            if found["streak"] >= self._check["retries"]:
                found["status"] = "unhealthy"
        self._write()
        if found["status"] != before:
            self._watched.journal(f"health_status: {found['status']}")
        self._plan()

    def _write(self) -> None:
        try:
            state.write(self._watched.folder, "health.json", self._found)
        except OSError:
            pass  # a full disk: the next probe tries again

