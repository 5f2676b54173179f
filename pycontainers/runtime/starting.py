"""From a spec to a first process that waits before its execve: what a supervisor and ``pycontainers-oci`` have in common.

The order of the calls is the start sequence of docs/architecture.md: :meth:`Starting.begin` → :meth:`Starting.release` → (the network,
hooks) → :meth:`Starting.mounted` → :meth:`Starting.execute`; whatever fails, :meth:`Starting.abort`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import Any

from ..errors import ContainersError
from ..linux import cgroups, namespaces, sockets
from ..linux.idmap import write_maps
from . import rootfs
from .confine import Confinement
from .init import Init


class Starting:
    """One start of one container.

    :param spec: the OCI runtime spec; ``roots``: what its root file system stands on (docs/architecture.md, Contracts).
    :param stage: an empty folder of ours to build mounts on. :param idmap: a user namespace whose map the mounts get.
    :ivar pid, pidfd: the first process, once :meth:`begin` has returned.
    """

    def __init__(self, spec: dict[str, Any], roots: dict[str, Any], *, stage: str, idmap: int | None, program: bytes | None) -> None:
        self.spec, self.roots, self.stage = spec, roots, stage
        self.idmap, self.program = idmap, program
        self.pid, self.pidfd = 0, -1
        self._channel: socket.socket | None = None

    def begin(self, stdio: tuple[int, int, int], group: Any) -> None:
        """Mounts made outside, then the clone. ``stdio`` is closed here, in the child it is kept."""
        linux = self.spec["linux"]
        confinement = Confinement(self.spec["process"], self.program)
        rootfs.private_mounts(self.stage)
        outside = rootfs.prepare(self.spec, self.roots, self.stage, self.idmap)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        entrances = group.entrances()
        init = Init(self.spec, outside, confinement, theirs.fileno(), stdio, _cgroup_mounts(), entrances)
        os.mkdir(f"{self.stage}/r")
        os.chmod(f"{self.stage}/r", 0o755)  # the child, nobody here, must be able to look at "."
        os.chdir(f"{self.stage}/r")  # the child finds itself in its own copy of this mount, where it puts its root
        kinds = [n["type"] for n in linux["namespaces"] if n["type"] != "cgroup"]
        self.pid = namespaces.clone(namespaces.flags_of(kinds), group.fd)
        if self.pid == 0:
            init.run()
        os.chdir("/")
        theirs.close()
        for fd in (*stdio, *entrances):
            os.close(fd)
        outside.close()
        self.pidfd = os.pidfd_open(self.pid)
        self._channel = ours

    def release(self) -> None:
        """Synchronisation point 1: the ID maps are written, the child goes on to build its mounts."""
        linux = self.spec["linux"]
        if linux.get("uidMappings"):
            uids, gids = ([(m["containerID"], m["hostID"], m["size"]) for m in linux[kind]] for kind in ("uidMappings", "gidMappings"))
            write_maps(self.pid, uids, gids)
        self._send(b"1")

    def mounted(self) -> dict[str, Any]:
        """Wait until the child stands in its own root; what it had to make there: ``{"made": [paths]}``."""
        made = self._answer()
        if made is None:
            raise ContainersError("the container ended before it was set up", "")
        return made

    def execute(self) -> None:
        """Synchronisation point 2: let it go on to execve; returns when the program has been executed. :raises ContainersError:"""
        self._send(b"2")
        if self._answer() is not None:
            raise ContainersError("the container's first process answered out of order", "")
        assert self._channel is not None
        self._channel.close()

    def abort(self) -> None:
        """End what was begun. The cgroup, address and ports belong to the caller."""
        if self.pid > 0:
            try:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass

    def _send(self, step: bytes) -> None:
        assert self._channel is not None
        self._channel.sendall(step)

    def _answer(self) -> dict[str, Any] | None:
        """One line from init. None when the channel closed by execve (or death). An error is raised here."""
        assert self._channel is not None
        data = b""
        while not data.endswith(b"\n"):
            chunk = self._channel.recv(65536)
            if not chunk:
                return None
            data += chunk
        message: dict[str, Any] = json.loads(data)
        sockets.raise_error(message)
        return message


def _cgroup_mounts() -> list[tuple[str, str]]:
    """What a container sees under /sys/fs/cgroup: [(folder, v1 controllers or "" for v2)], as this machine mounts them."""
    layout = cgroups.layout()
    if layout.version == "v2":
        return [("", "")]
    found: dict[str, list[str]] = {}
    for controller, mountpoint in layout.controllers.items():
        found.setdefault(os.path.basename(mountpoint), []).append(controller)
    return [(name, ",".join(sorted(controllers))) for name, controllers in found.items() if name != "unified"]
