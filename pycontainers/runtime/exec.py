"""A further process in a running container: join all its namespaces at once, fork into its cgroup, then confine as its first one.

The worker (a process of the launcher's or the supervisor's, or ``pycontainers-oci exec`` itself) joins from outside and forks inside; it
stays as the parent that reads the exit code, outside the cgroup: the container's end must not take it, or nobody would know how the program
ended. It is not dumpable and not visible in the container's pid namespace, and the program it runs is never executed by path from inside
(CVE-2019-5736: a container overwriting /proc/PID/exe of the runtime).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ..errors import ContainersError, StateError, UsageError
from ..linux import capabilities, cgroups, idmap, namespaces, process, pty, seccomp, sockets, syscalls
from ..linux.cgroups.limits import parse_cpuset
from . import hooks, state
from .confine import Confinement, become, only_descriptors
from .marks import mark
from .starting import adjust_oom_score, agent_of, await_program, raise_limits

Programs = Callable[[dict[str, Any] | None], seccomp.Filter | None]
"""From an OCI seccomp profile to its compiled filter."""

_LINGER = 0.05  # seconds: what is prepared for the next exec takes no time from a short one


def main(folder: str, request: dict[str, Any], conn: socket.socket, fds: list[int], programs: Programs, orders: socket.socket) -> None:
    """Run one exec request in a worker; answers ``{"started": pid}`` (with a terminal's master), then ``{"exit": {…}}``, or an error, on
    ``conn``. ``orders`` is closed when the next worker may be prepared. Never raises.

    ``request``: command (list), called (the container, in errors), and where given env (dict), workdir, user, tty, size (rows, columns),
    privileged.
    """
    try:
        mark("exec", "request")
        work = _of(folder, request, programs)
        work.target.give(fds[1:])
        work.start(fds)
        try:
            sockets.send(conn, {"started": work.pid}, [work.console] if work.console >= 0 else [])
        except OSError:
            pass  # the client is gone; the process goes on, as with Docker
        mark("exec", "started")
        work.let_go()
        if not process.wait_gone(work.pid, _LINGER):
            orders.close()
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
        work = _of(folder, {"command": command}, lambda profile: program, death_signal=signal.SIGKILL)
        work.target.give([writer])
        work.start([null, writer, os.dup(writer)])
        code = work.wait()["code"] if process.wait_gone(work.pid, timeout) else work.end()
    except BaseException as error:
        os.write(writer, sockets.error_message(error)["message"].encode())
    finally:
        os._exit(code)


def rehearse() -> None:
    """Go through the motions ahead of need, with this process in a container's place: the pages that a worker writes to are its own by
    then, and it has room for what it will read. That spares an exec a millisecond, and takes one megabyte while the worker waits."""
    process_ = {"args": [""], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
    profile = [{"names": [f"call {number}" for number in range(400)]}] * 2  # a specification is mostly its seccomp profile
    spec = json.loads(json.dumps({"process": process_, "linux": {"cgroupsPath": "/", "seccomp": profile}}))
    try:
        groups = [cgroups.open(spec["linux"]["cgroupsPath"])]
        target = Target(spec, process.identity(os.getpid()), called="", about={}, kinds=(), groups=groups, keyring="")
        Exec(target, _process(spec["process"], {"command": [""]}), None)
        os.close(target.pidfd)
    except (OSError, ContainersError):
        pass  # what is wrong is told to whoever needs the worker


def _of(folder: str, request: dict[str, Any], programs: Programs, death_signal: int = 0) -> Exec:
    """What a request to the launcher asks for, in one of the house's own containers."""
    identifier = os.path.basename(folder)
    called = request.get("called") or identifier[:12]
    spec, now = state.read(folder, "config.json"), state.read(folder, "state.json")
    if now and now["status"] == state.PAUSED:
        raise StateError(f"container {called} is paused", f"unpause it first: %container unpause {called}")
    if spec is None or now is None or not now.get("init") or now["status"] != state.RUNNING:
        raise StateError(f"container {called} is not running", f"start it first: %container start {called}")
    linux = spec["linux"]
    target = Target(
        spec,
        now["init"],
        called=called,
        about={"id": identifier, "bundle": folder},
        kinds=[namespace["type"] for namespace in linux["namespaces"]],
        groups=[cgroups.open(linux["cgroupsPath"])],
        keyring="_ses." + identifier[:12],
    )
    program = None if request.get("privileged") else programs(linux.get("seccomp"))
    return Exec(target, _process(spec["process"], request), program, death_signal=death_signal)


def _process(base: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """The OCI process of a request: the container's own, with what the request changes."""
    environment = dict(item.partition("=")[::2] for item in base["env"]) | (request.get("env") or {})
    if request.get("tty"):
        environment.setdefault("TERM", "xterm")
    result = dict(base)
    result.update(
        args=request["command"],
        env=[f"{key}={value}" for key, value in environment.items()],
        cwd=request.get("workdir") or base["cwd"],
        terminal=bool(request.get("tty")),
        consoleSize=dict(zip(("height", "width"), request.get("size") or (), strict=False)),
    )
    if request.get("user"):
        result["user"] = {**base["user"], "username": request["user"]}  # --group-add holds for every user (Docker)
    if request.get("privileged"):
        every = [f"CAP_{name}" for name in capabilities.NAMES[: capabilities.last() + 1]]
        result["capabilities"] = {"bounding": every, "effective": every, "permitted": every}
        result["noNewPrivileges"] = False
    return result


class Target:
    """A running container, as it is entered.

    :param init: the identity of its first process. :param called: its name in errors. :param about: as for :func:`.hooks.state`.
    :param kinds: the namespaces to join, by their OCI types. :param groups: those to go into; in the v2 tree the last one counts.
    :param keyring: the name of a new session keyring, "" to keep the caller's.
    :raises StateError: it has ended.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        init: dict[str, Any],
        *,
        called: str,
        about: dict[str, Any],
        kinds: Sequence[str],
        groups: Sequence[cgroups.Group],
        keyring: str,
    ) -> None:
        self.spec, self.init, self.called, self.about = spec, init["pid"], called, about
        self.kinds, self.groups, self.keyring = kinds, groups, keyring
        pidfd = process.open_pidfd(init)
        if pidfd is None:
            raise self.gone()
        self.pidfd = pidfd

    def gone(self) -> StateError:
        return StateError(f"container {self.called} is not running: it has just ended", "start it again")

    def give(self, pipes: Sequence[int]) -> None:
        """Pipes that were made for its process become its root's: /dev/stdout must open inside."""
        owner = (self.spec["linux"].get("uidMappings") or [{"hostID": 0}])[0]["hostID"]
        for fd in pipes:
            os.fchown(fd, owner, owner)


class Exec:
    """One exec. ``wanted``: its OCI process; ``preserved``: so many descriptors from 3 on stay open for it. :raises ContainersError:"""

    def __init__(
        self, target: Target, wanted: dict[str, Any], program: seccomp.Filter | None, *, death_signal: int = 0, preserved: int = 0
    ) -> None:
        self.target, self._wanted = target, wanted
        self._death_signal, self._preserved = death_signal, preserved
        self._what = Confinement(wanted, program)
        self._agent = agent_of(target.spec) if program is not None and program.listens else None
        self.console = -1
        self.pid = 0

    def start(self, stdio: list[int]) -> None:
        """Join, fork, and wait until the program has been executed. ``stdio``: closed here; with a terminal they are not used.

        :raises ContainersError: why it was not.
        """
        target = self.target
        try:
            reader = self._fork(stdio)
        except OSError:
            # A container that ends takes its /proc, its cgroup (ENODEV) and its pid namespace (ENOMEM, pid_namespaces(7)) away bit by bit.
            if not process.ended(target.pidfd, 1.0):
                raise
            raise target.gone() from None
        mark("exec", "forked")
        os.close(target.pidfd)
        about = hooks.state(target.spec, target.about, state.RUNNING, target.init) if self._agent else {}
        await_program(reader, self.pid, self._agent, target.spec, about)

    def _fork(self, stdio: list[int]) -> socket.socket:
        """Our end of the channel to the process inside."""
        target = self.target
        raise_limits(0, self._wanted)  # here and not inside, where nobody can; what is asked for it inherits
        if self._wanted.get("oomScoreAdj") is not None:
            adjust_oom_score(os.getpid(), self._wanted["oomScoreAdj"])
        affinity = self._wanted.get("execCPUAffinity") or {}
        _pin(affinity.get("initial"), "initial")
        entrances = [fd for group in target.groups for fd in group.entrances()]
        into = target.groups[-1].target() if target.groups else None
        reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._join()
        mark("exec", "joined")
        if self._wanted.get("terminal"):
            self.console, terminal = pty.open_inside()
            asked = self._wanted.get("consoleSize") or {}
            if asked.get("height") and asked.get("width"):
                pty.resize(self.console, asked["height"], asked["width"])
            stdio = [*stdio, terminal]
        self.pid = namespaces.clone(0, into)
        if self.pid == 0:
            self._inside(stdio, writer.fileno(), entrances, affinity.get("final"))
        writer.close()
        sockets.close_all([*stdio, *entrances, *([into] if into is not None else [])])
        return reader

    def _join(self) -> None:
        """All at once through the pidfd: no window in which only half of the namespaces are joined. User first decides rights (setns(2)).

        All but the cgroup namespace: from inside it, no process outside of it can be put in (cgroup_namespaces(7)).
        """
        target = self.target
        root = os.open(f"/proc/{target.init}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        flags = namespaces.flags_of([kind for kind in target.kinds if kind != "cgroup"])
        if flags:
            namespaces.setns(target.pidfd, flags)
        # setns puts us at the namespace's root; the container's is the one its first process has.
        os.fchdir(root)
        os.chroot(".")
        os.close(root)

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
        """Kill the program and what it has started (it leads a session), and reap it: a shell's child that hangs would stay, and at the
        next probe there would be two."""
        os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return LATE

    def _inside(self, stdio: list[int], writer: int, entrances: list[int], processors: str | None) -> NoReturn:
        target = self.target
        try:
            cgroups.enter(entrances)
            _pin(processors, "final")
            if "cgroup" in target.kinds:
                namespaces.setns(target.pidfd, namespaces.CLONE_NEWCGROUP)
            os.setsid()
            os.umask(0o022)
            if target.keyring:
                # Or it would keep the keys of whoever started the launcher (Kerberos tickets, file system keys).
                syscalls.new_session_keyring(target.keyring)
            if self._wanted.get("terminal"):
                pty.make_controlling(stdio[-1])
                stdio = [stdio[-1]] * 3
            for number, fd in enumerate(stdio):
                os.dup2(fd, number, inheritable=True)
            if "user" in target.kinds:
                idmap.set_groups([])
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # an id change may have made us dumpable again
            if self._death_signal:
                syscalls.prctl(syscalls.PR_SET_PDEATHSIG, self._death_signal)
            mark("exec", "inside")
            (writer,) = only_descriptors([writer], self._preserved)
            become(self._what, make_cwd=False, death_signal=self._death_signal, channel=writer)
        except ContainersError as error:
            _report(writer, type(error).__name__, error.message, error.hint)
        except BaseException as error:
            _report(writer, "ContainersError", f"exec failed: {error}", "")
        os._exit(126)


def _report(writer: int, kind: str, message: str, hint: str) -> None:
    os.write(writer, json.dumps({"error": kind, "message": message, "hint": hint}).encode())


def _pin(text: str | None, field: str) -> None:
    if text:
        try:
            os.sched_setaffinity(0, parse_cpuset(text, f"process.execCPUAffinity.{field}"))
        except OSError as error:
            raise UsageError(f"process.execCPUAffinity.{field} {text}: {error.strerror}") from None
