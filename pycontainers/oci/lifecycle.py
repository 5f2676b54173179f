"""create, start, run, kill, delete (runtime.md, Operations): who may do what in which state, and what is left when it fails."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import time
from typing import Any

from ..errors import ContainersError, StateError, UsageError
from ..linux import cgroups, files, namespaces, process, seccomp, sockets, syscalls
from ..linux.pty import resize, size
from ..runtime import groups, hooks
from ..runtime.init import Waiting
from ..runtime.starting import Starting, agent_of, hand_over
from . import bundle, console
from .messages import Messages
from .store import CREATED, CREATING, RUNNING, STOPPED, Container, Store, now

_FORCED = 10.0  # seconds that delete --force waits for the end of what it has killed


class Caller:
    """How a command was called. ``options``: of the command; ``manager``: cgroupfs, systemd or disabled."""

    def __init__(self, store: Store, messages: Messages, options: dict[str, Any], manager: str) -> None:
        self.store, self.messages, self.options, self.manager = store, messages, options, manager

    def about(self, container: Container) -> dict[str, Any]:
        return {"id": container.id, "bundle": container.state["bundle"]}


class Created:
    """A container whose first process waits for :func:`start`. ``starting``: with its terminal's master, where nobody has taken it."""

    def __init__(self, container: Container, starting: Starting) -> None:
        self.container, self.starting = container, starting


def create(caller: Caller, name: str, *, detached: bool) -> Created:
    """Make everything but the program's execution. On any error nothing is left, and poststop hooks have run."""
    options = caller.options
    here = os.getcwd()
    folder = os.path.join(here, os.path.normpath(options.get("bundle") or "."))
    spec = bundle.load(folder, options.get("config") or "", name, messages=caller.messages, systemd=caller.manager == "systemd")
    terminal = bool(spec["process"].get("terminal"))
    console.check(options.get("console-socket") or "", terminal=terminal, detached=detached)
    container = caller.store.make(name)
    # Building the mounts takes us into a mount namespace of our own: afterwards back, where hooks and we ourselves belong.
    outer = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    group: cgroups.Group | None = None
    starting: Starting | None = None
    try:
        container.write_spec(spec)
        container.state = _first_state(spec, folder) | {"caller_keyring": bool(options.get("no-new-keyring"))}
        container.write()
        group = _make_group(caller, spec)
        container.state["cgroup"] = group.path if group.paths else ""
        container.write()  # should we be killed, delete --force knows of it
        for note in group.notes:
            caller.messages.write("info", note)
        taker = console.connect(options["console-socket"]) if options.get("console-socket") else None
        starting = _start(caller, container, spec, group, terminal)
        container.state["init"] = process.identity(starting.pid)
        container.write()
        starting.release()
        starting.mounted()
        if taker is not None:
            console.send(taker, starting.console)
            starting.console = -1
        elif terminal and os.isatty(0):
            resize(starting.console, *size(0))
        starting.park()
        container.state["ready"] = True
        container.write()
        if options.get("pid-file"):
            write_pid(os.path.join(here, options["pid-file"]), starting.pid)
        namespaces.setns(outer, namespaces.CLONE_NEWNS)
        os.close(outer)
    except BaseException:
        if starting is not None:
            starting.abort()
        namespaces.setns(outer, namespaces.CLONE_NEWNS)
        _take_away(caller, container, spec, group)
        raise
    return Created(container, starting)


def _first_state(spec: dict[str, Any], folder: str) -> dict[str, Any]:
    try:
        owner = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        owner = str(os.getuid())
    return {
        "ociVersion": spec["ociVersion"],
        "bundle": folder,
        "rootfs": spec["root"]["path"],
        "created": now(),
        "annotations": spec.get("annotations") or {},
        "owner": owner,
        "cgroup": "",
    }


def _make_group(caller: Caller, spec: dict[str, Any]) -> cgroups.Group:
    if caller.manager == "disabled":
        return cgroups.Group(spec["linux"]["cgroupsPath"], cgroups.Layout("none", []))
    return groups.make(spec)


def _start(caller: Caller, container: Container, spec: dict[str, Any], group: cgroups.Group, terminal: bool) -> Starting:
    options = caller.options
    os.chdir(container.folder)  # a socket's name has 107 bytes, a state folder may have more
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind("start.sock")
    listener.listen(1)
    os.chdir("/")
    preserved = options.get("preserve-fds", 0)
    activated = int(os.environ.get("LISTEN_FDS") or 0)
    if activated:  # systemd's socket activation (sd_listen_fds(3)), passed on
        preserved += activated
        spec["process"]["env"] += [f"LISTEN_FDS={activated}", "LISTEN_PID=1"]
    wait = Waiting(
        listener=listener.fileno(),
        preserved=preserved,
        death_signal=0,
        keyring=not options.get("no-new-keyring"),
        pivot=not options.get("no-pivot"),
        about=caller.about(container),
    )
    starting = Starting(
        spec,
        {"path": spec["root"]["path"]},
        stage=f"{container.folder}/stage",
        idmap=None,
        program=compiled(container, spec),
        wait=wait,
    )
    if terminal:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        stdio = (null, os.dup(null), os.dup(null))
    else:
        stdio = (os.dup(0), os.dup(1), os.dup(2))
    starting.begin(stdio, group)
    listener.close()
    return starting


def compiled(container: Container, spec: dict[str, Any]) -> seccomp.Filter | None:
    """The filter of its profile, kept beside the containers under a name that none of them can have."""
    try:
        return seccomp.Filters(f"{os.path.dirname(container.folder)}/~seccomp").of(spec["linux"].get("seccomp"))
    except ValueError as error:
        raise UsageError(f"linux.seccomp: {error}") from None


def write_pid(path: str, pid: int, folder: int | None = None) -> None:
    """Engines read it as soon as it is there."""
    files.replace(path, str(pid).encode(), 0o644, folder)


def start(caller: Caller, container: Container) -> None:
    """:raises StateError: it is not in the state created. :raises ContainersError: the program could not be executed."""
    with container.locked():
        status = container.status()
        if status != CREATED:
            why = "already running" if status in (RUNNING, "paused") else status
            raise StateError(f"cannot start a container that is {why}: {container.id}", "only a created one is started, and once")
        spec = container.spec()
        agent = agent_of(spec) if seccomp.notifies(spec["linux"].get("seccomp") or {}) else None
        conn = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        os.chdir(container.folder)
        conn.connect("start.sock")
        os.chdir("/")
        with conn:
            conn.sendall(b"3")
            if agent is not None:
                state = hooks.state(spec, caller.about(container), CREATED, container.state["init"]["pid"])
                _pass_listener(conn, agent, spec, state)
            answer = _all(conn)
        os.unlink(container.socket)
        _raise(answer)
    if hooks.has(spec, "poststart"):
        try:
            hooks.run(spec, "poststart", hooks.state(spec, caller.about(container), RUNNING, container.state["init"]["pid"]))
        except ContainersError:
            process.send_signal(container.state["init"], signal.SIGKILL)
            raise


def _pass_listener(conn: socket.socket, agent: socket.socket, spec: dict[str, Any], state: dict[str, Any]) -> None:
    """What the first process says first, where its filter has a listener: that, with the listener, or why it did not come so far."""
    data, fds, _, _ = socket.recv_fds(conn, 65536, 1, socket.MSG_CMSG_CLOEXEC)
    if not fds:
        _raise(data + _all(conn))
        raise StateError(f"container {state['id']} ended before its seccomp filter was loaded", "")
    try:
        hand_over(agent, spec, state, fds[0])
    except ContainersError:
        os.kill(state["pid"], signal.SIGKILL)  # every call that waits for an answer would fail
        raise


def _all(conn: socket.socket) -> bytes:
    """Until the connection ends, by execve: then nothing came. What comes is why it did not happen."""
    data = b""
    while chunk := conn.recv(65536):
        data += chunk
    return data


def _raise(answer: bytes) -> None:
    if answer:
        import json

        sockets.raise_error(json.loads(answer))


def run(caller: Caller, name: str) -> int:
    """create and start; the exit code of the program, 0 when detached."""
    detached = bool(caller.options.get("detach"))
    if not detached:
        console.hold_signals()
        if not caller.options.get("no-subreaper"):
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    created = create(caller, name, detached=detached)
    container, starting = created.container, created.starting
    try:
        start(caller, container)
    except BaseException:
        starting.abort()
        _take_away(caller, container, starting.spec, container.group)
        raise
    if detached:
        return 0
    foreground = console.Foreground(starting.pidfd, starting.console)
    foreground.wait()
    _, status = os.waitpid(starting.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if not caller.options.get("keep"):
        delete(caller, container, force=True)
    return code if code >= 0 else 128 - code


def kill(caller: Caller, container: Container, number: int, *, everybody: bool) -> None:
    """:raises StateError: it does not run."""
    status = container.status()
    if everybody:
        for pid in container.group.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    elif status in (STOPPED, CREATING) or not process.send_signal(container.state["init"], number):
        raise StateError("container not running", f"{container.id} is {status}")
    if number == signal.SIGKILL and status == "paused":
        container.group.thaw()  # v1 holds SIGKILL back from what is frozen


def delete(caller: Caller, container: Container, *, force: bool) -> None:
    """:raises StateError: it runs, and ``force`` is not given. A created one is ended, as with runc."""
    with container.locked():
        status = container.status()
        if status not in (STOPPED, CREATED) and not force:
            raise StateError(f"cannot delete container {container.id} that is not stopped: {status}", "kill it first, or --force")
        if container.state.get("init"):
            _end(container)
        _take_away(caller, container, container.spec(), container.group)


def _end(container: Container) -> None:
    init = container.state["init"]
    if not process.send_signal(init, signal.SIGKILL):
        return
    with contextlib.suppress(OSError, KeyError):
        container.group.thaw()
    deadline = time.monotonic() + _FORCED
    while process.alive(init):
        if time.monotonic() > deadline:
            raise ContainersError(f"process {init['pid']} of container {container.id} does not die", "it waits in the kernel")
        process.wait_gone(init["pid"], 0.2)


def _take_away(caller: Caller, container: Container, spec: dict[str, Any], group: cgroups.Group | None) -> None:
    """Everything outside of the container's own namespaces: its cgroup with whoever is in it, its folder; then poststop hooks."""
    if group is not None and group.paths:
        try:
            group.kill()
            group.remove()
        except OSError as error:
            caller.messages.write("warning", f"cgroup {group.path} cannot be removed: {error.strerror}")
    about = hooks.state(spec, {"id": container.id, "bundle": container.state.get("bundle", "")}, STOPPED, 0)
    container.remove()
    for index in range(len((spec.get("hooks") or {}).get("poststop") or [])):
        one = {"hooks": {"poststop": [spec["hooks"]["poststop"][index]]}}
        try:
            hooks.run(one, "poststop", about)
        except ContainersError as error:
            caller.messages.write("warning", error.message)  # the others run all the same (runtime.md, Lifecycle)
