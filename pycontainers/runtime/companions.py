"""Processes beside a supervisor that do one thing for the container: what would hold up the log, or take memory all the time.

Each ends with its run, and with the supervisor (parent-death signal).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn

from ..network import ports
from .loop import Loop

Leave = Callable[[Callable[[], object]], NoReturn]
"""In a forked child: let go of everything that is the supervisor's, do the work, and end."""


class Companion:
    """One such process. ``work`` gets the reading end of a pipe, whose end says that it is to go. :ivar pid: of the process."""

    def __init__(self, leave_to: Leave, work: Callable[[int], object]) -> None:
        reader, self._writer = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._writer)
            leave_to(lambda: work(reader))
        os.close(reader)

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.reap()

    def reap(self) -> None:
        """It has ended, or is about to."""
        os.close(self._writer)
        os.waitpid(self.pid, 0)


class Doors:
    """The published ports of a container: bound for its whole life, so that between two runs nobody else can take one, and served by a
    relay that is made when somebody comes.
    """

    def __init__(self, loop: Loop, leave_to: Leave) -> None:
        self._loop, self._leave_to = loop, leave_to
        self._bound: list[ports.Bound] = []
        self._relay: Companion | None = None
        self._life = -1  # a pidfd of it

    @property
    def published(self) -> list[dict[str, Any]]:
        """What is published, with the ports of this machine that were given."""
        return [vars(port) for port, _ in self._bound]

    def bind(self, wanted: list[dict[str, Any]]) -> None:
        """Once. Early clients wait in the kernel's backlog. :raises PortInUse:"""
        if wanted and not self._bound:
            self._bound = ports.bind([ports.Published(**port) for port in wanted])

    def open(self, serve: Callable[[list[ports.Bound], int], object]) -> None:
        """From now on ``serve`` is run, in a relay of its own, as soon as somebody comes."""
        for _, sock in self._bound:
            self._loop.watch(sock.fileno(), lambda: self._come(serve))

    def rest(self) -> None:
        """The run has ended: who comes now waits in the backlog."""
        self._unwatch()
        self._lose()
        if self._relay is not None:
            self._relay.end()
            self._relay = None

    def close(self) -> None:
        self.rest()
        ports.close(self._bound)
        self._bound = []

    def forget(self) -> None:
        """The relay was ended by somebody else."""
        self._lose()
        self._relay = None

    def _come(self, serve: Callable[[list[ports.Bound], int], object]) -> None:
        self._unwatch()
        self._relay = Companion(self._leave_to, lambda control: serve(self._bound, control))
        self._life = os.pidfd_open(self._relay.pid)
        self._loop.watch(self._life, lambda: self._killed(serve))

    def _killed(self, serve: Callable[[list[ports.Bound], int], object]) -> None:
        """It does not end by itself. The connections that it had are cut; whoever comes next gets another."""
        self._lose()
        if self._relay is not None:
            self._relay.reap()
            self._relay = None
        self.open(serve)

    def _lose(self) -> None:
        if self._life >= 0:
            self._loop.forget(self._life)
            os.close(self._life)
            self._life = -1

    def _unwatch(self) -> None:
        for _, sock in self._bound:
            self._loop.forget(sock.fileno())
