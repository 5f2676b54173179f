"""A further process in a running container: join all its namespaces at once, fork into its cgroup, then confine as its first one.

The worker (forked from the launcher, or from the supervisor for a health check) joins from outside and forks inside; it stays as the parent
that reads the exit code, outside the cgroup: the container's end must not take it, or nobody would know how the program ended. It is not
dumpable and not visible in the container's pid namespace, and the program it runs is never executed by path from inside (CVE-2019-5736: a
container overwriting /proc/PID/exe of the runtime).
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, NoReturn

from ..errors import ContainersError, StateError
from ..linux import capabilities, cgroups, idmap, namespaces, process, pty, seccomp, sockets, syscalls
from . import hooks, state
from .confine import Confinement, become, only_descriptor
from .marks import mark
from .starting import agent_of, await_program

Programs = Callable[[dict[str, Any] | None], seccomp.Filter | None]
"""From an OCI seccomp profile to its compiled filter."""


def main(folder: str, request: dict[str, Any], conn: socket.socket, fds: list[int], programs: Programs) -> None:
    """Run one exec request in a forked worker; answers ``{"started": pid}`` (with a terminal's master), then ``{"exit": {…}}``, or an
    error, on ``conn``. Never raises.
    """
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        mark("exec", "request")
        work = Exec(folder, request, programs)
        work.start(fds)
        try:
            sockets.send(conn, {"started": work.pid}, [work.console] if work.console >= 0 else [])
        except OSError:
            pass  # the client is gone; the process goes on, as with Docker
        mark("exec", "started")
        work.let_go()
        status = work.wait()
        mark("exec", "ended")
        try:
            sockets.send(conn, {"exit": status})
        except OSError:
            pass
    except BaseException as error:
        sockets.reply_error(conn, error)


LATE = 254
"""Exit code of a probe that took too long."""


def probe(folder: str, command: list[str], writer: int, program: seccomp.Filter | None, timeout: float) -> NoReturn:
    """A health check, in a process forked from the supervisor: its output goes to ``writer``, and its exit code is this process's.

    After ``timeout`` seconds it is ended, and the code is :data:`LATE`. By this process, its parent: as an orphan it would have to be
    reaped by somebody else before the container's pid namespace could end (zap_pid_ns_processes in kernel/pid_namespace.c).
    """
    code = 1
    try:
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        work = Exec(folder, {"command": command}, lambda profile: program, death_signal=signal.SIGKILL)
        work.start([null, writer, os.dup(writer)])
        code = work.wait()["code"] if process.wait_gone(work.pid, timeout) else work.end()
    except ContainersError as error:
        os.write(writer, error.message.encode())
    finally:
        os._exit(code)


class Exec:
    """One exec. ``request``: command (list), and where given env (dict), workdir, user, tty, size (rows, columns), privileged."""

    def __init__(self, folder: str, request: dict[str, Any], programs: Programs, death_signal: int = 0) -> None:
        self.name = os.path.basename(folder)[:12]
        spec, now = state.read(folder, "config.json"), state.read(folder, "state.json")
        if now and now["status"] == state.PAUSED:
            raise StateError(f"container {self.name} is paused", f"unpause it first: %container unpause {self.name}")
        pidfd = process.open_pidfd(now["init"]) if now and now.get("init") and now["status"] == state.RUNNING else None
        if spec is None or now is None or pidfd is None:
            raise StateError(f"container {self.name} is not running", "start it first")
        self.linux, self._pidfd, self._init = spec["linux"], pidfd, now["init"]["pid"]
        self._death_signal = death_signal
        self._privileged = bool(request.get("privileged"))
        self._what = Confinement(self._process(spec["process"], request), None if self._privileged else programs(self.linux.get("seccomp")))
        self._agent = agent_of(spec) if self._what.program is not None and self._what.program.listens else None
        self._state = hooks.state(spec, {"id": os.path.basename(folder), "bundle": folder}, state.RUNNING, self._init)
        self._spec = spec
        self._tty, self._size = bool(request.get("tty")), request.get("size")
        self.console = -1
        self.pid = 0

    def _process(self, base: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        """The OCI process of this exec: the container's own, with what the request changes."""
        environment = dict(item.partition("=")[::2] for item in base["env"]) | (request.get("env") or {})
        if request.get("tty"):
            environment.setdefault("TERM", "xterm")
        result = dict(base)
        result.update(
            args=request["command"],
            env=[f"{key}={value}" for key, value in environment.items()],
            cwd=request.get("workdir") or base["cwd"],
            terminal=bool(request.get("tty")),
        )
        if request.get("user"):
            result["user"] = {**base["user"], "username": request["user"]}  # --group-add holds for every user (Docker)
        if self._privileged:
            every = [f"CAP_{name}" for name in capabilities.NAMES[: capabilities.last() + 1]]
            result["capabilities"] = {"bounding": every, "effective": every, "permitted": every}
            result["noNewPrivileges"] = False
        return result

    def start(self, fds: list[int]) -> None:
        """Join, fork, and wait until the program has been executed. ``fds``: stdio, closed here; with a terminal they are not used.

        :raises ContainersError: why it was not.
        """
        try:
            reader = self._fork(fds)
        except OSError:
            # A container that ends takes its /proc, its cgroup (ENODEV) and its pid namespace (ENOMEM, pid_namespaces(7)) away bit by bit.
            if not process.ended(self._pidfd, 1.0):
                raise
            raise StateError(f"container {self.name} is not running: it has just ended", "start it again") from None
        mark("exec", "forked")
        os.close(self._pidfd)
        await_program(reader, self.pid, self._agent, self._spec, self._state)

    def _fork(self, fds: list[int]) -> socket.socket:
        """Our end of the channel to the process inside."""
        owner = (self.linux.get("uidMappings") or [{"hostID": 0}])[0]["hostID"]
        for fd in fds[1:]:
            os.fchown(fd, owner, owner)  # pipes of the client: /dev/stdout must open inside
        group = cgroups.open(self.linux["cgroupsPath"])
        entrances, target = group.entrances(), group.target()
        reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        # All at once through the pidfd: no window in which only half of the namespaces are joined. User first decides rights (setns(2)).
        root = os.open(f"/proc/{self._init}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # All but the cgroup namespace: from inside it, no process outside of it can be put in (cgroup_namespaces(7)).
        kinds = [n["type"] for n in self.linux["namespaces"]]
        namespaces.setns(self._pidfd, namespaces.flags_of([kind for kind in kinds if kind != "cgroup"]))
        # setns puts us at the namespace's root; the container's is the one its first process has.
        os.fchdir(root)
        os.chroot(".")
        os.close(root)
        mark("exec", "joined")
        if self._tty:
            self.console, terminal = pty.open_inside()
            if self._size:
                pty.resize(self.console, *self._size)
            fds = [*fds, terminal]
        self.pid = namespaces.clone(0, target)
        if self.pid == 0:
            self._inside(fds, writer.fileno(), entrances, "cgroup" in kinds)
        writer.close()
        sockets.close_all([*fds, *entrances, *([target] if target is not None else [])])
        return reader

    def let_go(self) -> None:
        """The client has the terminal now: our copy would keep it open after the program has closed it."""
        if self.console >= 0:
            os.close(self.console)
            self.console = -1

    def wait(self) -> dict[str, Any]:
        """``{"code", "signal"}`` of the program."""
        _, status = os.waitpid(self.pid, 0)
        signalled = os.WIFSIGNALED(status)
        number = os.WTERMSIG(status) if signalled else 0
        return {"code": 128 + number if signalled else os.WEXITSTATUS(status), "signal": number}

    def end(self) -> int:
        """Kill the program and reap it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return LATE

    def _inside(self, fds: list[int], writer: int, entrances: list[int], own_groups: bool) -> NoReturn:
        try:
            cgroups.enter(entrances)
            if own_groups:
                namespaces.setns(self._pidfd, namespaces.CLONE_NEWCGROUP)
            os.setsid()
            os.umask(0o022)
            # Or it would keep the keys of whoever started the launcher (Kerberos tickets, file system keys).
            syscalls.new_session_keyring("_ses." + self.name)
            if self._tty:
                pty.make_controlling(fds[-1])
                fds = [fds[-1]] * 3
            for number, fd in enumerate(fds[:3]):
                os.dup2(fd, number, inheritable=True)
            if self.linux.get("uidMappings"):
                idmap.set_groups([])
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # an id change may have made us dumpable again
            if self._death_signal:
                syscalls.prctl(syscalls.PR_SET_PDEATHSIG, self._death_signal)
            mark("exec", "inside")
            writer = only_descriptor(writer)
            become(self._what, make_cwd=False, death_signal=self._death_signal, channel=writer)
        except ContainersError as error:
            _report(writer, type(error).__name__, error.message, error.hint)
        except BaseException as error:
            _report(writer, "ContainersError", f"exec failed: {error}", "")
        os._exit(126)


def _report(writer: int, kind: str, message: str, hint: str) -> None:
    os.write(writer, json.dumps({"error": kind, "message": message, "hint": hint}).encode())
