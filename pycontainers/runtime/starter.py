"""The process that starts a container for its supervisor, and ends when the program runs.

Made by the supervisor, before or when it is needed. Why another process: what a start touches (the specification, mounts, encoded messages)
is memory copied from the launcher, which a supervisor that did it itself would keep as long as the container lives; and the mount namespace
in which the mounts are built goes with this process, early. The container's first process is made as the *supervisor's* child
(CLONE_PARENT): its exit status is the supervisor's to read, and its parent-death signal the supervisor's death.

It gets one message, ``{"container", "me": the supervisor's part of state.json, "size", "ports", "group": made already}`` with the three
descriptors of the container's stdio, and answers with one, ``{"pid", "supervisor": its identity, "ended": [children of the supervisor's
to wait for], "cgroup", "address", "notes", "poststop", "started", "pattern": where it is another}`` and the terminal's master, or an error.
Should it be killed, the supervisor ends whatever it has made.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from typing import TYPE_CHECKING, Any

from ..errors import ContainersError, StateError
from ..linux import cgroups, namespaces, process, sockets
from . import groups, hooks, hosts, joining, network, pattern, rootfs, state
from .ahead import Ahead
from .init import Task, Waiting
from .marks import mark
from .places import Places
from .starting import Starting

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..linux import seccomp
    from .pattern import Pattern

    Ingredients = Callable[[dict[str, Any]], tuple[int | None, seccomp.Filter | None]]
    """``linux`` of a specification -> the user namespace whose ID map the mounts get, the compiled filter."""


def main(channel: socket.socket, home: str, run: str, ingredients: Ingredients, usual: Pattern | None) -> None:
    """Make a first process with what is usual, wait for the message, do what it asks, and answer. Never raises."""
    try:
        outer = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        rootfs.private_mounts(f"{run}/stage")
        ready = None
        if usual is not None:
            with contextlib.suppress(OSError, ContainersError):  # whoever needs what is not allowed here is told
                ready = Ahead(usual, f"{run}/stage", namespaces.CLONE_PARENT)
                _rehearse(usual, f"{run}/stage")
        message, fds = sockets.receive(channel)
        if message is not None:
            found = Starter(home, run, message["container"], ingredients, outer, ready)
            console = found.start(message, (fds[0], fds[1], fds[2]))
            sockets.send(channel, found.answer, console)
    except BaseException as error:
        sockets.reply_error(channel, error)


def _rehearse(usual: Pattern, stage: str) -> None:
    """Go through the motions ahead of need, in the tmpfs at ``stage``, which nobody else sees: the pages that a start writes to are this
    process's own by then, and not copied while somebody waits."""
    me = {"machine": state.machine(), "supervisor": process.identity(os.getppid()), "address": "", "restarts": 0, "control": stage}
    state.write(stage, "config.json", usual.sample)
    state.write(stage, "state.json", {"status": state.STARTING, **me, "started": 0.0})
    spec = state.read(stage, "config.json") or {}
    state.add_made(stage, ["/dev", "/proc"])
    pattern.of(spec)
    for fd in cgroups.open(spec["linux"]["cgroupsPath"]).entrances():
        os.close(fd)
    Task(spec, rootfs.Outside(), (0, 1, 2), [])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        sockets.send(ours, me, [ours.fileno()])
        sockets.close_all(sockets.receive(theirs)[1])


class Starter:
    """One start. ``answer``: what the supervisor is told when it has succeeded."""

    def __init__(self, home: str, run: str, container_id: str, ingredients: Ingredients, outer: int, ready: Ahead | None) -> None:
        self.home, self.run_dir, self.id = home, run, container_id
        self.folder = f"{home}/containers/{container_id}"
        self.answer: dict[str, Any] = {"address": "", "notes": [], "ended": []}
        self._ingredients, self._outer, self._ready = ingredients, outer, ready
        self._address = ""

    def start(self, message: dict[str, Any], stdio: tuple[int, int, int]) -> list[int]:
        """Everything up to the execution of the program; returns the terminal's master, where it has one. On any error nothing runs."""
        # First of all: from here on a sweep knows whose leftovers these are.
        self.answer["supervisor"] = process.identity(os.getppid())
        self._me = {**message["me"], "machine": state.machine(), "supervisor": self.answer["supervisor"]}
        self._address = self._me["address"]
        state.write(self.folder, "state.json", {"status": state.STARTING, **self._me, "started": 0.0})
        mark("starter", "starting")
        spec, record = state.read(self.folder, "config.json"), state.read(self.folder, "container.json")
        if not spec or not record:
            raise StateError(f"container {self.id[:12]} has no readable config.json", "remove it and create it again")
        group = self._group(spec, message["group"])
        self.answer["cgroup"] = group.path
        mark("starter", "cgroup")
        joined = joining.Joined(record.get("joins") or {}, f"{self.home}/containers")
        if joined.into(spec):
            state.write(self.folder, "config.json", spec)
        if message["size"] and record.get("tty"):
            spec["process"]["consoleSize"] = {"height": message["size"][0], "width": message["size"][1]}
        _own(stdio, (spec["linux"].get("uidMappings") or [{"hostID": 0}])[0]["hostID"])
        idmap, program = self._ingredients(spec["linux"])
        starting = Starting(
            spec,
            record["rootfs"] | {"home": self.home, "volatile": bool(record.get("auto_remove"))},
            stage=f"{self.run_dir}/stage",
            idmap=idmap,
            program=program,
            wait=Waiting(about={"id": self.id, "bundle": self.folder}),
            for_parent=True,
            ahead=self._fitting(spec),
        )
        prepared = not spec.get("hooks") and not rootfs.shared_binds(spec)
        if not prepared:  # those take the host's own mount namespace first
            namespaces.setns(self._outer, namespaces.CLONE_NEWNS)
        started = time.time()
        try:
            with joined:
                starting.begin(stdio, group, private=prepared)
            self._run(starting, record, started, message["ports"])
        except BaseException:
            starting.abort()
            raise
        self.answer |= {"pid": starting.pid, "address": self._address, "started": started}
        if starting.between:
            self.answer["ended"].append(starting.between)
        if self._ready is not None and starting.ahead is None:
            self._give_up(self._ready)
        self.answer["poststop"] = hooks.has(spec, "poststop")
        return [starting.console] if starting.console >= 0 else []

    def _run(self, starting: Starting, record: dict[str, Any], started: float, ports: list[dict[str, Any]]) -> None:
        mark("starter", "cloned")
        starting.release()
        mark("starter", "released")
        if record["network"] == "bridge":
            self._join_network(starting.pid, record)  # while the child mounts
        mark("starter", "network")
        running = {
            "status": state.RUNNING,
            **self._me,
            "address": self._address,
            "started": started,
            "init": process.identity(starting.pid),
            "ports": ports,
        }
        made = starting.mounted()
        state.add_made(self.folder, made["made"])  # a build, a commit and diff leave them out
        mark("starter", "mounted")
        starting.execute()
        mark("starter", "executed")
        state.write(self.folder, "state.json", running)
        mark("starter", "running")

    def _fitting(self, spec: dict[str, Any]) -> Ahead | None:
        """The first process that is there, if it is what this container needs; if not, the next one is to be."""
        needed = pattern.of(spec)
        if self._ready is not None and needed is not None and self._ready.pattern.data == needed.data and not rootfs.shared_binds(spec):
            return self._ready
        if needed is not None and cgroups.layout().version != "v2":
            self.answer["pattern"] = needed.data
        return None

    def _give_up(self, ready: Ahead) -> None:
        ready.end()
        self.answer["ended"].append(ready.pid)

    def _group(self, spec: dict[str, Any], made: bool) -> cgroups.Group:
        if made:  # by an earlier run
            return cgroups.open(spec["linux"]["cgroupsPath"])
        group = groups.make(spec)
        self.answer["notes"] += group.notes
        return group

    def _join_network(self, pid: int, record: dict[str, Any]) -> None:
        netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            where = Places(self.home, self.run_dir)
            found = network.attach(where, self.id, netns, hostname=record["hostname"])
        finally:
            os.close(netns)
        if self._address != found["address"]:
            self._address = found["address"]
            names = [(found["gateway"], name) for name in record.get("gateway_hosts") or []]
            hosts.write(f"{self.folder}/etc/hosts", [(self._address, record["hostname"]), *names])
        self.answer["notes"] += found.get("notes") or []


def _own(stdio: tuple[int, int, int], owner: int) -> None:
    """Pipes belong to the container's root, or a process inside could not open /dev/stdout again."""
    for fd in stdio:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, owner, owner)
