"""exec: a further process in a container, from an OCI process or from the container's own with what the options change.

All that is reached by a path of the host (console socket, pid file, log) is opened before the container's mount namespace is joined.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any, NoReturn

from ..errors import CommandNotExecutable, ContainersError, StateError, UsageError
from ..linux import cgroups, namespaces, process, pty, syscalls
from ..linux.cgroups.limits import parse_cpuset
from ..runtime import hooks
from ..runtime.confine import Confinement, become, only_descriptors
from ..runtime.starting import adjust_oom_score, agent_of, await_program, raise_limits
from . import bundle, console
from .lifecycle import Caller, compiled
from .store import CREATED, PAUSED, RUNNING, Container


def execute(caller: Caller, container: Container, command: list[str]) -> int:
    """The exit code of the process, 0 when detached. :raises ContainersError: it could not be executed."""
    options = caller.options
    status = container.status()
    if status == PAUSED and not options.get("ignore-paused"):
        raise StateError(f"cannot exec in a paused container: {container.id}", "resume it first, or --ignore-paused")
    if status not in (CREATED, RUNNING, PAUSED):
        raise StateError(f"cannot exec in a container that is {status}: {container.id}", "start it first")
    spec = container.spec()
    wanted = _process(spec["process"], options, command)
    bundle.process(wanted, "process", caller.messages)
    terminal, detached = bool(wanted.get("terminal")), bool(options.get("detach"))
    console.check(options.get("console-socket") or "", terminal=terminal, detached=detached)
    return _Work(caller, container, spec, wanted).run(detached)


def _process(base: dict[str, Any], options: dict[str, Any], command: list[str]) -> dict[str, Any]:
    if options.get("process"):
        try:
            with open(options["process"], encoding="utf-8") as file:
                found: dict[str, Any] = json.load(file)
        except (OSError, ValueError) as error:
            raise UsageError(f"--process {options['process']}: {error}", "a file with an OCI process") from None
    else:
        if not command:
            raise UsageError("exec needs a command or --process", "pycontainers-oci exec ID COMMAND …")
        found = dict(base, args=command, terminal=False)
        found.pop("consoleSize", None)
    for key in ("capabilities", "rlimits", "apparmorProfile", "selinuxLabel", "oomScoreAdj"):
        if found.get(key) is None and base.get(key) is not None:
            found[key] = base[key]  # what an exec does not say is as for the first process
    found["terminal"] = bool(found.get("terminal") or options.get("tty"))
    found["env"] = [*(found.get("env") or []), *options.get("env", [])]
    if options.get("cwd"):
        found["cwd"] = options["cwd"]
    if options.get("user"):
        uid, _, gid = options["user"].partition(":")
        if not uid.isdigit() or (gid and not gid.isdigit()):
            raise UsageError(f"--user {options['user']!r} is not UID[:GID]", "numbers: a runtime knows no names")
        found["user"] = {"uid": int(uid), "gid": int(gid or 0)}
    if options.get("additional-gids"):
        found["user"] = (found.get("user") or {}) | {"additionalGids": [int(number) for number in options["additional-gids"]]}
    if options.get("cap"):
        caps = dict(found.get("capabilities") or {})
        for kind in ("bounding", "effective", "permitted"):
            caps[kind] = [*(caps.get(kind) or []), *options["cap"]]
        found["capabilities"] = caps
    if options.get("no-new-privs"):
        found["noNewPrivileges"] = True
    for option, field in (("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if options.get(option):
            found[field] = options[option]
    return found


class _Work:
    """One exec: joined from outside, forked inside. This process stays outside of the pid namespace, as the parent."""

    def __init__(self, caller: Caller, container: Container, spec: dict[str, Any], wanted: dict[str, Any]) -> None:
        self._wanted, self._options = wanted, (options := caller.options)
        self._what = Confinement(wanted, compiled(container, spec))
        self._spec, self._state = spec, hooks.state(spec, caller.about(container), RUNNING, container.state["init"]["pid"])
        self._agent = agent_of(spec) if self._what.program is not None and self._what.program.listens else None
        pidfd = process.open_pidfd(container.state["init"])
        if pidfd is None:
            raise StateError("container not running", f"{container.id} has just ended")
        self._pidfd, self._init = pidfd, container.state["init"]["pid"]
        self._group = container.state.get("cgroup") or ""
        self._taker = console.connect(options["console-socket"]) if options.get("console-socket") else None
        self._pid_file = options.get("pid-file") or ""
        where = os.path.dirname(os.path.abspath(self._pid_file)) if self._pid_file else ""
        self._pid_folder = os.open(where, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if where else -1
        self._mapped = False
        self._keyring = "" if container.state.get("caller_keyring") else f"_ses.{container.id[:12]}"

    def run(self, detached: bool) -> int:
        from .lifecycle import write_pid

        if not detached:
            console.hold_signals()
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        raise_limits(0, self._wanted)
        if self._wanted.get("oomScoreAdj") is not None:
            adjust_oom_score(os.getpid(), self._wanted["oomScoreAdj"])
        affinity = self._wanted.get("execCPUAffinity") or {}
        _pin(affinity.get("initial"), "initial")
        self._join_group()
        _pin(affinity.get("final"), "final")
        self._join()
        master = terminal = -1
        if self._wanted.get("terminal"):
            master, terminal = self._terminal()
        reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        pid = os.fork()
        if pid == 0:
            self._inside(terminal, writer.fileno())
        writer.close()
        if terminal >= 0:
            os.close(terminal)
        await_program(reader, pid, self._agent, self._spec, self._state)
        if self._taker is not None:
            console.send(self._taker, master)
            master = -1
        if self._pid_file:
            write_pid(os.path.basename(self._pid_file), pid, self._pid_folder)
        if detached:
            return 0
        foreground = console.Foreground(os.pidfd_open(pid), master)
        foreground.wait()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return code if code >= 0 else 128 - code

    def _terminal(self) -> tuple[int, int]:
        master, terminal = pty.open_inside()
        asked = self._wanted.get("consoleSize") or {}
        if asked.get("height") and asked.get("width"):
            pty.resize(terminal, asked["height"], asked["width"])
        return master, terminal

    def _join_group(self) -> None:
        if not self._group:
            return
        for below in self._options.get("cgroup") or [""]:
            place = below.rpartition(":")[2].strip("/")
            path = f"{self._group}/{place}" if place else self._group
            if ".." in path.split("/"):
                raise UsageError(f"--cgroup {below!r} leads out of the container's group")
            group = cgroups.open(path)
            if not group.paths:
                raise UsageError(f"--cgroup {below!r} does not exist", "the process makes its groups itself")
            group.join()

    def _join(self) -> None:
        """All namespaces at once that are not ours already: no window in which only half of them are joined."""
        theirs, ours = namespaces.links(self._init), namespaces.links()
        flags = namespaces.flags_of([kind for kind, link in theirs.items() if link != ours.get(kind)])
        self._mapped = theirs.get("user") != ours.get("user")
        root = os.open(f"/proc/{self._init}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            namespaces.setns(self._pidfd, flags)
        except ProcessLookupError:
            raise StateError("container not running", "it has just ended") from None
        os.fchdir(root)
        os.chroot(".")
        os.close(root)
        os.close(self._pidfd)

    def _inside(self, terminal: int, writer: int) -> NoReturn:
        try:
            os.setsid()
            os.umask(0o022)
            if self._keyring:
                syscalls.new_session_keyring(self._keyring)  # or it would keep its caller's keys (Kerberos tickets, file system keys)
            if terminal >= 0:
                pty.make_controlling(terminal)
                for number in (0, 1, 2):
                    os.dup2(terminal, number, inheritable=True)
            if self._mapped:
                os.setgroups([])
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # an id change may have made us dumpable again
            (writer,) = only_descriptors([writer], self._options.get("preserve-fds", 0))
            become(self._what, make_cwd=False, death_signal=0, channel=writer)
        except ContainersError as error:
            _report(writer, type(error).__name__, error.message, error.hint)
        except BaseException as error:
            _report(writer, CommandNotExecutable.__name__, f"exec failed: {error}", "")
        os._exit(126)


def _report(writer: int, kind: str, message: str, hint: str) -> None:
    os.write(writer, json.dumps({"error": kind, "message": message, "hint": hint}).encode())


def _pin(text: str | None, field: str) -> None:
    if text:
        try:
            os.sched_setaffinity(0, parse_cpuset(text, f"process.execCPUAffinity.{field}"))
        except OSError as error:
            raise UsageError(f"process.execCPUAffinity.{field} {text}: {error.strerror}") from None
