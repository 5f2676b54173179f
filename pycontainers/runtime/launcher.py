"""The launcher: one small resident process per user that forks supervisors and exec workers.

Started once by socket activation with ``python -I -S`` (no site-packages, no user environment), it loads everything that
supervisors and first processes need, freezes the garbage collector so that forks share its pages, and waits. It can be killed at
any time: containers do not depend on it, the next command starts another.

Supervisors and exec workers are made ahead of need (:mod:`.spares`).
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any

from ..errors import ContainersError, UsageError
from ..linux import capabilities, cgroups, idmap, process, seccomp, server, sockets, syscalls
from . import exec as exec_worker
from . import isolation, network, rootless, state
from .marks import mark
from .pattern import Pattern
from .spares import Spares
from .stamp import VERSION
from .supervisor import Supervisor

NAME = "launcher"
IDLE_SECONDS = 600.0
_SUPERVISOR, _EXEC = range(2)  # roles of spares
_LESSONS = 8  # starts and execs after which we know what is usual here
_FILES = 1024  # INR_OPEN_CUR, the kernel's soft limit of open files


class Launcher(server.Server):
    """Requests: ``{"op": "start", "container", "attach", "stdin", "size"}`` [+ stdin]; ``{"op": "exec", "container", "command", …}``
    + stdio; ``{"op": "files", "container", "purpose"}``: a worker on its files; ``{"op": "probe"}``: what this machine allows;
    ``{"op": "remove", "trees"}``: containers' graves, in the user's namespace."""

    def __init__(self, listener: socket.socket, home: str, run: str) -> None:
        super().__init__(listener, NAME, VERSION, f"{run}/launcher.sock", IDLE_SECONDS)
        self.home, self.run_dir = home, run
        self._maps: dict[str, int] = {}
        self._filters = seccomp.Filters(f"{home}/cache/seccomp")
        self._spares = Spares((self._supervise, self._execute), self.close_inherited)
        self._learned = 0
        self._usual: Pattern | None = None
        self._unusual: list[Any] | None = None  # what the last container needed for which nothing was ready
        self._ordered: set[socket.socket] = set()  # to those who have begun, and take the time that preparing the next would take

    def handle(self, conn: socket.socket, message: dict[str, Any], fds: list[int]) -> bool:
        operation = message.get("op")
        if operation == "start":
            self._order(_SUPERVISOR, conn, message, fds)
        elif operation == "exec":
            self._order(_EXEC, conn, message, fds)
        elif operation == "files":
            self._files(conn, message)
        elif operation == "remove":
            self._remove(conn, message["trees"])
        elif operation == "network":
            self._network(conn, message["subnets"], fds)
        elif operation == "probe":
            sockets.send(conn, {"probes": isolation.probe(self.home)})
            return True
        else:
            raise UsageError(f"launcher: unknown request {operation!r}")
        return False  # the child goes on with its own copy of the connection

    def _order(self, role: int, conn: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
        container = _checked(message["container"])
        mark("launcher", "request")
        orders = self._spares.order(role, message, [conn.fileno(), *fds])
        mark("launcher", "passed on")
        self._ordered.add(orders)
        lesson = None
        if self._learned < _LESSONS:  # read now: the folder of one that removes itself is gone when it is over
            self._learned += 1
            lesson = (state.read(f"{self.home}/containers/{container}", "config.json") or {}).get("linux")
        self.watch(orders.fileno(), lambda: self._prepare_next(orders, lesson))

    def _prepare_next(self, orders: socket.socket, lesson: dict[str, Any] | None) -> None:
        """A start is over, and we take no time from it: for the next one a process, with what the first ones needed of what we keep."""
        self.unwatch(orders.fileno())
        self._ordered.discard(orders)
        try:
            said, _ = sockets.receive(orders)
            self._learn_usual((said or {}).get("pattern"))
            if lesson:
                known = len(self._maps) + len(self._filters)
                self._ingredients(lesson)
                if known != len(self._maps) + len(self._filters):
                    self._spares.renew()
            self._spares.prepare()
        except (OSError, ContainersError):
            pass  # whoever needs it is told
        finally:
            orders.close()

    def _learn_usual(self, pattern: list[Any] | None) -> None:
        """What the next first process is made with: what the last two containers that found none ready would have taken, or the first."""
        if pattern is None:
            return
        if self._usual is None or pattern == self._unusual:
            self._usual = Pattern(*pattern)
            self._spares.renew()
        self._unusual = pattern

    def _supervise(self, orders: socket.socket) -> None:
        try:
            Supervisor(self.home, self.run_dir, orders, self._ingredients, self._forget, self._usual).main()
        except BaseException as error:
            server.log(f"supervisor: {type(error).__name__}: {error}")  # it has failed in cleaning up: the client is told that it ended

    def _execute(self, orders: socket.socket) -> None:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        self._forget()
        exec_worker.rehearse()
        message, fds = sockets.receive(orders)
        if message is None:
            return  # the launcher has ended: this one was not needed
        folder = f"{self.home}/containers/{message['container']}"
        conn = socket.socket(fileno=fds[0])
        conn.settimeout(None)
        exec_worker.main(folder, message, conn, fds[1:], self._program, orders)

    def close_inherited(self) -> None:
        super().close_inherited()
        self._spares.close_inherited()
        for orders in self._ordered:
            orders.close()

    def _ingredients(self, linux: dict[str, Any]) -> tuple[int | None, seccomp.Filter | None]:
        """What a start takes from what the launcher keeps, or makes it."""
        return self._map(linux), self._program(linux.get("seccomp"))

    def _forget(self) -> None:
        """In a spare: what only a start's first steps need is not held as long as a container lives."""
        sockets.close_all(list(self._maps.values()))
        self._maps.clear()

    def _files(self, conn: socket.socket, message: dict[str, Any]) -> None:
        container, purpose = _checked(message["container"]), message["purpose"]
        spec = state.read(f"{self.home}/containers/{container}", "config.json")
        idmap_fd = self._map((spec or {}).get("linux", {}))

        def work(kept: socket.socket) -> None:
            # Not with the others: of no use to supervisors, which would carry the code of archives in their memory.
            if purpose == "freeze":
                from . import freeze

                freeze.main(f"{self.home}/containers/{container}", self.run_dir, kept)
            else:
                from . import files

                files.main(self.home, self.run_dir, container, purpose, kept, idmap_fd)

        self._in_child(conn, work)

    def _remove(self, conn: socket.socket, graves: list[str]) -> None:
        """Delete folders of ours whose content has other owners: only here, in the user's namespace, have we the right to."""

        def work(kept: socket.socket) -> None:
            rootless.remove(self.home, graves)
            sockets.send(kept, {"removed": True})

        self._in_child(conn, work)

    def _network(self, conn: socket.socket, subnets: list[str], fds: list[int]) -> None:
        """Make the network helper, which serves the listening socket that came along."""
        if len(fds) != 1:
            raise UsageError(f"launcher: the network helper takes one listening socket, not {len(fds)}")

        def work(kept: socket.socket) -> None:
            from ..network import helper  # not with the others: a start without network never pays for it

            self._forget()
            rootless.let_go()
            helper.main(self.home, self.run_dir, network.version(self.run_dir), subnets, fds[0], kept)

        self._in_child(conn, work)

    def _in_child(self, conn: socket.socket, work: Callable[[socket.socket], None]) -> None:
        """Have ``work`` done by a fork that keeps this one connection, and nothing else of the launcher's. It never comes back here:
        it would serve others beside the launcher."""
        if os.fork():
            return
        kept: socket.socket | None = None
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            kept = conn.dup()
            self.close_inherited()
            kept.settimeout(None)
            work(kept)
        except BaseException as error:
            sockets.reply_error(conn if kept is None else kept, error)
        finally:
            os._exit(0)

    def _map(self, linux: dict[str, Any]) -> int | None:
        """A user namespace with the container's ID map, for ID-mapped mounts. Making one costs a millisecond: kept."""
        if not linux.get("uidMappings") or linux["uidMappings"][0]["hostID"] == 0:
            return None  # no map, or every id on itself (rootless): the mounts are right as they are
        key = json.dumps([linux["uidMappings"], linux["gidMappings"]])
        if key not in self._maps:
            uids, gids = ([(m["containerID"], m["hostID"], m["size"]) for m in linux[kind]] for kind in ("uidMappings", "gidMappings"))
            self._maps[key] = idmap.namespace_with(uids, gids)
        return self._maps[key]

    def _program(self, profile: dict[str, Any] | None) -> seccomp.Filter | None:
        """The compiled filter of a profile."""
        try:
            return self._filters.of(profile)
        except ValueError as error:
            raise UsageError(f"seccomp profile: {error}", "mend linux.seccomp of its config.json, or create it again") from None


def _checked(container: Any) -> str:
    """A container id is part of paths: 64 hexadecimal digits and nothing else."""
    if not isinstance(container, str) or len(container) != 64 or not all(c in "0123456789abcdef" for c in container):
        raise UsageError(f"launcher: {container!r} is not a container id")
    return container


def _lift_files() -> None:
    """It serves others after whoever happened to start it: his soft limit of files below the kernel's own is not theirs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < min(_FILES, hard):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard), hard))


def _look_around() -> None:
    """What is the same for every container is found out (and kept by these modules) once, here, not in each supervisor again."""
    cgroups.layout()
    capabilities.last()
    process.boot_id()
    state.machine()


def main(home: str, run: str) -> None:
    server.daemonize()
    try:
        listener = server.inherited_listener()
        rootless.keep_namespaces()
        for folder in ("stage", "containers"):
            os.makedirs(f"{run}/{folder}", mode=0o700, exist_ok=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel: nobody waits for supervisors
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _lift_files()
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        # What a killed exec worker leaves comes to us and is reaped at once (SIGCHLD is ignored): a zombie inside, which only this
        # machine's own init could reap, would keep the container's pid namespace from ending.
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        idmap.single()  # looked up while there is a /proc of ours: files workers and first processes are forks of this one
        launcher = Launcher(listener, home, run)
        _look_around()
        gc.collect()
        gc.freeze()
        launcher.run()
    except BaseException as error:
        server.fail(error)
