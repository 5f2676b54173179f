"""A further process in a running container: join its cgroup, then all its namespaces at once, then confine as its first one.

The worker (forked from the launcher) joins from outside and forks inside; it stays as the parent that reads the exit code. It is not
dumpable and not visible in the container's pid namespace, and the program it runs is never executed by path from inside
(CVE-2019-5736: a container overwriting /proc/PID/exe of the runtime).
"""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import Any

from ..errors import ContainersError, StateError
from ..linux import cgroups, namespaces, process, sockets, syscalls
from . import state
from .confine import Confinement, become, only_descriptor


def main(folder: str, request: dict[str, Any], conn: socket.socket, fds: list[int], programs: Any) -> None:
    """Run one exec request in a forked worker; answers ``{"exit": {…}}`` or an error on ``conn``. Never raises."""
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        status = _run(folder, request, fds, programs, conn)
        sockets.send(conn, {"exit": status})
    except BaseException as error:
        sockets.reply_error(conn, error)


def _run(folder: str, request: dict[str, Any], fds: list[int], programs: Any, conn: socket.socket) -> dict[str, Any]:
    spec, now = state.read(folder, "config.json"), state.read(folder, "state.json")
    pidfd = process.open_pidfd(now["init"]) if now and now.get("init") and now["status"] == state.RUNNING else None
    if spec is None or now is None or pidfd is None:
        raise StateError(f"container {os.path.basename(folder)[:12]} is not running", "start it first")
    linux = spec["linux"]
    what = Confinement(_process(spec["process"], request), programs(linux.get("seccomp")))
    owner = (linux.get("uidMappings") or [{"hostID": 0}])[0]["hostID"]
    for fd in fds[1:]:
        os.fchown(fd, owner, owner)  # pipes of the client: /dev/stdout must open inside
    cgroups.open(linux["cgroupsPath"]).join()
    root = os.open(f"/proc/{now['init']['pid']}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    # All at once through the pidfd: no window in which only half of the namespaces are joined. User first decides rights (setns(2)).
    try:
        namespaces.setns(pidfd, namespaces.flags_of([n["type"] for n in linux["namespaces"]]))
    except ProcessLookupError:
        raise StateError(f"container {os.path.basename(folder)[:12]} is not running: it has just ended", "start it again") from None
    # setns puts us at the namespace's root; the container's is the one its first process has.
    os.fchdir(root)
    os.chroot(".")
    os.close(root)
    os.close(pidfd)
    pid = os.fork()
    if pid == 0:
        _inside(what, fds, writer, bool(linux.get("uidMappings")))
    os.close(writer)
    for fd in fds:
        os.close(fd)
    _raise_failure(reader, pid)
    try:
        sockets.send(conn, {"started": pid})
    except OSError:
        pass  # the client is gone; the process goes on, as with Docker
    _, status = os.waitpid(pid, 0)
    signalled = os.WIFSIGNALED(status)
    number = os.WTERMSIG(status) if signalled else 0
    return {"code": 128 + number if signalled else os.WEXITSTATUS(status), "signal": number}


def _process(base: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """The OCI process of this exec: the container's own, with what the request changes."""
    environment = dict(item.partition("=")[::2] for item in base["env"]) | (request.get("env") or {})
    result = dict(base)
    result.update(
        args=request["command"], env=[f"{key}={value}" for key, value in environment.items()], cwd=request.get("workdir") or base["cwd"]
    )
    if request.get("user"):
        result["user"] = {"uid": 0, "gid": 0, "username": request["user"]}
    return result


def _inside(what: Confinement, fds: list[int], writer: int, mapped: bool) -> None:
    try:
        os.setsid()
        os.umask(0o022)
        for number, fd in enumerate(fds[:3]):
            os.dup2(fd, number, inheritable=True)
        if mapped:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # an id change may have made us dumpable again
        writer = only_descriptor(writer)
        become(what, make_cwd=False, death_signal=0)
    except ContainersError as error:
        _report(writer, type(error).__name__, error.message, error.hint)
    except BaseException as error:
        _report(writer, "ContainersError", f"exec failed: {error}", "")
    os._exit(126)


def _report(writer: int, kind: str, message: str, hint: str) -> None:
    os.write(writer, json.dumps({"error": kind, "message": message, "hint": hint}).encode())


def _raise_failure(reader: int, pid: int) -> None:
    """The pipe closes by execve: then all is well. What comes through it is why it did not happen."""
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    if data:
        os.waitpid(pid, 0)
        sockets.raise_error(json.loads(data))
