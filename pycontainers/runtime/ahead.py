"""A first process that is made ahead of need: what does not depend on the container is done before anybody asks for one.

It is cloned into the namespaces of a :class:`.pattern.Pattern`, gets its ID maps, mounts what shows them in a root of its own, and waits.
It has no descriptor but its channel and nothing of the machine's mounts; nobody knows of it. What a container is then comes in one message,
with its root and whatever else was mounted outside as descriptors. A container that does not fit ends it, and gets one of its own.
"""

from __future__ import annotations

import array
import contextlib
import marshal
import os
import select
import signal
import socket
import struct
from typing import Any

from ..linux import namespaces, seccomp
from ..linux.idmap import write_maps
from . import rootfs
from .init import Init, Task
from .pattern import Pattern

_MOST = 200  # descriptors in one message: SCM_MAX_FD is 253
_HEAD = struct.Struct("<III")  # bytes that follow, descriptors, how many of these are entrances to cgroups
_UNKNOWN = ("seccomp", "resources")  # parts of ``linux`` that are of no use to a first process, and large


class Ahead:
    """:ivar pid: of the process. ``channel``: our end of the socket pair with it. ``pattern``: what fits it."""

    def __init__(self, pattern: Pattern, stage: str, flags: int) -> None:
        """Make it. Called after :func:`.rootfs.private_mounts`; ``flags``: more of clone(2).

        :raises OSError, ContainersError: this machine does not allow it; nothing is left. What goes wrong later :meth:`give` tells.
        """
        self.pattern = pattern
        listed = [{"type": kind} for kind in pattern.kinds]
        devices = rootfs.devices({"namespaces": listed}, stage)
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        os.mkdir(f"{stage}/a", 0o755)
        os.chdir(f"{stage}/a")
        try:
            new = [kind for kind in pattern.kinds if kind != "cgroup"]
            self.pid = namespaces.clone(namespaces.flags_of(new) | flags)
            if self.pid == 0:
                self.channel.close()
                Init(theirs.fileno(), listed).run_ahead(pattern, devices, receive)
        finally:
            os.chdir("/")
            theirs.close()
            for device in devices:
                if device.fd >= 0:
                    os.close(device.fd)
        try:
            if "user" in pattern.kinds:
                users, groups = ([(m["containerID"], m["hostID"], m["size"]) for m in maps] for maps in (pattern.users, pattern.groups))
                write_maps(self.pid, users, groups)
            self.channel.send(b"1", socket.MSG_NOSIGNAL)
        except OSError:
            self.end()

    def give(self, task: Task) -> bool:
        """Tell it which container it is. False where it has ended, or was given up before it was ready: it is of no use."""
        fds = [*task.entrances, *task.stdio, task.outside.root, *task.outside.binds.values(), *task.outside.cgroups.values()]
        if len(fds) > _MOST or self._speaks():
            return False
        linux = {key: value for key, value in task.spec["linux"].items() if key not in _UNKNOWN}
        outside = list(task.outside.binds), list(task.outside.cgroups)
        program = None if task.program is None else (task.program.program, task.program.flags)
        data = marshal.dumps(({**task.spec, "linux": linux}, outside, task.hierarchies, program))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            self.channel.sendmsg([_HEAD.pack(len(data), len(fds), len(task.entrances))], rights, socket.MSG_NOSIGNAL)
            self.channel.sendall(data, socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _speaks(self) -> bool:
        """It has nothing to say before it is asked, but why it cannot go on."""
        if self.channel.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def end(self) -> None:
        """Its exit is its parent's to read."""
        self.channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def receive(channel: int) -> tuple[list[int], Any]:
    """In the process: wait for the message. Returns the entrances to its cgroups, to be passed before anything is allocated, and a
    function that gives the rest."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=channel)
    head, fds, _, _ = socket.recv_fds(sock, _HEAD.size, _MOST, socket.MSG_CMSG_CLOEXEC | socket.MSG_WAITALL)
    sock.detach()
    if len(head) < _HEAD.size:
        os._exit(125)  # who could have told has ended
    size, count, entrances = _HEAD.unpack(head)
    if len(fds) != count:
        os._exit(125)

    def rest() -> Task:
        data = bytearray()
        while len(data) < size:
            chunk = os.read(channel, size - len(data))
            if not chunk:
                os._exit(125)
            data += chunk
        spec, (binds, folders), hierarchies, program = marshal.loads(data)
        outside = rootfs.Outside()
        outside.root = fds[entrances + 3]
        trees = fds[entrances + 4 :]
        outside.binds = dict(zip(binds, trees, strict=False))
        outside.cgroups = dict(zip(folders, trees[len(binds) :], strict=True))
        stdio = fds[entrances], fds[entrances + 1], fds[entrances + 2]
        return Task(spec, outside, stdio, hierarchies, program=None if program is None else seccomp.Filter(*program))

    return fds[:entrances], rest
