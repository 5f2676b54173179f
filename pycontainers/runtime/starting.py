"""From a spec to a first process that waits before its execve: what a supervisor and ``pycontainers-oci`` have in common.

The order of the calls is the start sequence of docs/architecture.md: :meth:`Starting.begin` → :meth:`Starting.release` → (the network,
hooks) → :meth:`Starting.mounted` → :meth:`Starting.execute`; whatever fails, :meth:`Starting.abort`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from typing import TYPE_CHECKING, Any

from ..errors import ContainersError, IsolationError
from ..linux import cgroups, namespaces, seccomp, sockets
from ..linux.idmap import write_maps
from . import hooks, rootfs
from .confine import rlimits
from .init import Init, Task, Waiting

if TYPE_CHECKING:
    from .ahead import Ahead

_PF_FORKNOEXEC = 0x40  # of the flags in proc_pid_stat(5): forked, and no execve since (<linux/sched.h>)


class Starting:
    """One start of one container.

    :param spec: the OCI runtime spec; ``roots``: what its root file system stands on (docs/architecture.md, Contracts).
    :param stage: an empty folder of ours to build mounts on. :param idmap: a user namespace whose map the mounts get.
    :param wait: for a first process that waits for ``start`` (:mod:`pycontainers.oci`), and what hooks are told.
    :param for_parent: the first process becomes a child of the calling process's own parent, which reads its exit and waits for
        ``between``, where that is not 0.
    :param ahead: a first process that is there already and, where it fits, becomes this one; else it is the caller's to end.
    :ivar pid, pidfd: the first process, once :meth:`begin` has returned. :ivar console: -1, or the terminal's master (:meth:`mounted`).
    """

    def __init__(
        self,
        spec: dict[str, Any],
        roots: dict[str, Any],
        *,
        stage: str,
        idmap: int | None,
        program: seccomp.Filter | None,
        wait: Waiting | None = None,
        for_parent: bool = False,
        ahead: Ahead | None = None,
    ) -> None:
        self.spec, self.roots, self.stage = spec, roots, stage
        self.idmap, self.program = idmap, program
        self.wait = wait or Waiting()
        self.ahead = ahead
        self.pid, self.between, self.pidfd = 0, 0, -1
        self._parenthood = namespaces.CLONE_PARENT if for_parent else 0
        self.console = -1
        self._channel: socket.socket | None = None
        self._agent: socket.socket | None = None  # who gets the seccomp listener
        self._heard = b""
        self._listener = -1
        self._outer = -1  # the mount namespace that hooks run in

    def begin(self, stdio: tuple[int, int, int], group: Any, private: bool = False) -> None:
        """Mounts made outside, then the clone. ``stdio`` is closed here, in the child it is kept.

        :param private: the calling process has entered :func:`rootfs.private_mounts` already.
        """
        if self.program is not None and self.program.listens and self.wait.listener < 0:
            self._agent = agent_of(self.spec)
        _check(self.spec["linux"])
        early = {}
        if not private:
            early = rootfs.early_binds(self.spec)
            if self.spec.get("hooks"):
                self._outer = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            rootfs.private_mounts(self.stage)
        shown = _cgroup_mounts(group)
        folders = {name: folder for name, _, folder in shown if folder}
        outside = rootfs.prepare(self.spec, self.roots, self.stage, self.idmap, early, folders)
        hierarchies = [(name, controllers) for name, controllers, _ in shown]
        entrances = group.entrances()
        task = Task(self.spec, outside, stdio, hierarchies, entrances=entrances, program=self.program, wait=self.wait)
        if self.ahead is None or group.fd is not None or not self.ahead.give(task):
            self.ahead = None
            outside.devices = rootfs.devices(self.spec["linux"], self.stage)
            self._make(task, group.fd)
        else:
            self.pid, self._channel = self.ahead.pid, self.ahead.channel
        for fd in (*stdio, *entrances):
            os.close(fd)
        outside.close()
        self.pidfd = os.pidfd_open(self.pid)

    def _make(self, task: Task, cgroup: int | None) -> None:
        """The first process, for this container."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        init = Init(theirs.fileno(), self.spec["linux"]["namespaces"])
        os.mkdir(f"{self.stage}/r")
        os.chmod(f"{self.stage}/r", 0o755)  # the child, nobody here, must be able to look at "."
        os.chdir(f"{self.stage}/r")  # the child finds itself in its own copy of this mount, where it puts its root
        self.pid = self._clone(cgroup)
        if self.pid == 0:
            ours.close()  # with a copy of it in the child, the child would never see the end of a supervisor that is killed
            init.run(task)
        os.chdir("/")
        theirs.close()
        self._channel = ours

    def _clone(self, cgroup: int | None) -> int:
        """Into all new namespaces but the cgroup one, which starts inside the cgroup (:mod:`.init`)."""
        linux = self.spec["linux"]
        found = linux["namespaces"]
        offsets = {clock: (o.get("secs", 0), o.get("nanosecs", 0)) for clock, o in (linux.get("timeOffsets") or {}).items()}
        new = [n["type"] for n in found if not n.get("path") and n["type"] != "cgroup" and not (offsets and n["type"] == "time")]
        flags = namespaces.flags_of(new) | self._parenthood
        joined = [(n["type"], _open_namespace(n)) for n in found if n.get("path")]
        try:
            if not joined and not offsets:
                return namespaces.clone(flags, cgroup)

            def enter() -> None:
                namespaces.join(joined)
                if offsets:
                    namespaces.shift_clocks(offsets)

            pid, self.between = namespaces.clone_through(enter, flags, cgroup)
            return pid
        except OSError as error:
            paths = ", ".join(f"{n['type']} {n['path']}" for n in found if n.get("path"))
            hint = f"linux.namespaces joins {paths}" if paths else "pycontainers doctor shows what this machine allows"
            raise IsolationError(f"the container's namespaces cannot be made: {error.strerror}", hint) from None
        finally:
            for _, fd in joined:
                os.close(fd)

    def release(self) -> None:
        """Synchronisation point 1: ID maps, limits and what else takes rights out here are written, the child goes on to its mounts."""
        linux, process = self.spec["linux"], self.spec["process"]
        raise_limits(self.pid, process)
        if process.get("oomScoreAdj") is not None:
            adjust_oom_score(self.pid, process["oomScoreAdj"])
        if self.ahead is not None:
            return  # it has its maps, and goes on since it was told who it is
        if any(n["type"] == "user" and not n.get("path") for n in linux["namespaces"]):
            uids, gids = ([(m["containerID"], m["hostID"], m["size"]) for m in linux[kind]] for kind in ("uidMappings", "gidMappings"))
            write_maps(self.pid, uids, gids)
        self._send(b"1")

    def mounted(self) -> dict[str, Any]:
        """Wait until the child stands in its own root; what it had to make there: ``{"made": [paths]}``.

        With ``process.terminal`` :attr:`console` is the master of its terminal from here on, and the caller's.
        """
        made = self._answer()
        if made is not None and "hooks" in made:
            for kind in ("prestart", "createRuntime"):
                self._hooks(kind, "creating")
            self._send(b"h")
            made = self._answer()
        if made is None:
            raise ContainersError("the container ended before it was set up", "")
        return made

    def execute(self) -> None:
        """Synchronisation point 2: let it go on to execve; returns when the program has been executed. :raises ContainersError:"""
        self._send(b"2")
        answer = self._answer()
        if answer is not None and answer.get("listener") and self._agent is not None:
            hand_over(self._agent, self.spec, hooks.state(self.spec, self.wait.about, "creating", self.pid), self._listener)
            answer = self._answer()
        if answer is not None:
            raise ContainersError("the container's first process answered out of order", "")
        if not _executed(self.pid):
            needed = "a seccomp profile has to allow execve, and without no-new-privileges capset and prctl"
            raise ContainersError("the container's first process ended before its program was executed", needed if self.program else "")
        assert self._channel is not None
        self._channel.close()
        self._hooks("poststart", "running")

    def park(self) -> None:
        """Synchronisation point 2 for one that is to wait (``wait.listener``): returns when it does. :raises ContainersError:"""
        self._send(b"2")
        if self._answer() is None:
            raise ContainersError("the container ended before it could wait for its start", "")
        assert self._channel is not None
        self._channel.close()

    def stopped(self) -> None:
        """Run the poststop hooks, when all that was made for the container is gone. :raises ContainersError: of one that fails."""
        if hooks.has(self.spec, "poststop"):
            about = hooks.state(self.spec, self.wait.about, "stopped", 0)
            hooks.run(self.spec, "poststop", about, mount_namespace=self._outer)

    def _hooks(self, kind: str, status: str) -> None:
        if hooks.has(self.spec, kind):
            hooks.run(self.spec, kind, hooks.state(self.spec, self.wait.about, status, self.pid), mount_namespace=self._outer)

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
        while b"\n" not in self._heard:
            chunk, fds, _, _ = socket.recv_fds(self._channel, 65536, 1, socket.MSG_CMSG_CLOEXEC)
            if not chunk:
                return None
            self._heard += chunk
            if fds and b'"listener"' in self._heard:
                self._listener = fds[0]
            elif fds:
                self.console = fds[0]
        line, _, self._heard = self._heard.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        sockets.raise_error(message)
        return message


def _executed(pid: int) -> bool:
    """Whether a child of ours, perhaps dead, came as far as execve: a filter may have forbidden it to say why not, or killed it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            flags = int(file.read().rpartition(b")")[2].split()[6])
    except OSError:
        return True  # gone: nobody can tell
    return not flags & _PF_FORKNOEXEC


def agent_of(spec: dict[str, Any]) -> socket.socket:
    """A connection to the seccomp agent of the profile. :raises ContainersError: nobody listens there."""
    path = spec["linux"]["seccomp"]["listenerPath"]
    try:
        return seccomp.connect_agent(path)
    except OSError as error:
        raise ContainersError(
            f"seccomp agent {path}: {error.strerror or error}", "start the agent first"
        ) from None


def hand_over(agent: socket.socket, spec: dict[str, Any], state: dict[str, Any], listener: int, pid: int = 0) -> None:
    """The filter's listener, closed here, goes to the agent with the container process state (config-linux, Seccomp).

    ``state``: as hooks get it. ``pid``: of the filtered process, where it is not the container's first.
    :raises ContainersError: the agent does not take it.
    """
    profile = spec["linux"]["seccomp"]
    metadata = profile.get("listenerMetadata") or ""
    whole = {"ociVersion": state["ociVersion"], "pid": pid or state["pid"], "metadata": metadata, "state": state}
    try:
        seccomp.hand_over(agent, whole, listener)
    except OSError as error:
        raise ContainersError(f"seccomp agent {profile['listenerPath']}: {error.strerror or error}", "") from None


def await_program(reader: socket.socket, pid: int, agent: socket.socket | None, spec: dict[str, Any], state: dict[str, Any]) -> None:
    """Wait until an exec's process, a child of ours, has executed its program: that closes the other end of ``reader``, closed here.

    What comes through it is why that did not happen, or the listener of its filter, for the ``agent``. :raises ContainersError:
    """
    with reader:
        data, listener, _, _ = socket.recv_fds(reader, 65536, 1, socket.MSG_CMSG_CLOEXEC)
        if listener and agent is not None:
            try:
                hand_over(agent, spec, state, listener[0], pid)
            except ContainersError:
                os.kill(pid, signal.SIGKILL)  # every call that waits for an answer would fail
                raise
            data = b""
        while chunk := reader.recv(65536):
            data += chunk
    if data:
        os.waitpid(pid, 0)
        sockets.raise_error(json.loads(data))


def _open_namespace(namespace: dict[str, Any]) -> int:
    kind, path = namespace["type"], namespace["path"]
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise IsolationError(f"linux.namespaces: {kind} {path}: {error.strerror}", "the path of a living process's namespace") from None
    try:
        found = os.readlink(f"/proc/self/fd/{fd}")  # net:[4026531840]; a bind of one is named the same
    except OSError:
        found = ""
    if found and not found.startswith(namespaces.KINDS[kind][1] + ":"):
        os.close(fd)
        raise IsolationError(f"linux.namespaces: {path} is no {kind} namespace", f"it is {found}")
    return fd


def raise_limits(pid: int, process: dict[str, Any]) -> None:
    """Hard limits above ours: raised from out here, inside a user namespace nobody can. The child sets them exactly, last of all."""
    for number, _, hard in rlimits(process):
        now_soft, now_hard = resource.prlimit(pid, number)
        if now_hard != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or hard > now_hard):
            try:
                resource.prlimit(pid, number, (now_soft, hard))
            except (OSError, ValueError):
                pass  # the child says it, by name and value


def adjust_oom_score(pid: int, score: int) -> None:
    """Lowering takes CAP_SYS_RESOURCE in the first user namespace (proc_pid_oom_score_adj(5))."""
    try:
        with open(f"/proc/{pid}/oom_score_adj", "r+b", buffering=0) as file:
            if int(file.read()) != score:
                file.write(str(score).encode())
    except OSError as error:
        raise ContainersError(
            f"process.oomScoreAdj {score} cannot be set: {error.strerror}",
            "-1000 to 1000; below this process's own it takes CAP_SYS_RESOURCE",
        ) from None


def _check(linux: dict[str, Any]) -> None:
    """What this machine may not have at all: said before anything is made."""
    if linux.get("mountLabel") and not os.path.isdir("/sys/fs/selinux"):
        raise IsolationError(f"linux.mountLabel {linux['mountLabel']!r}: this kernel has no SELinux", "leave it out")
    if linux.get("intelRdt") and not os.path.isdir("/sys/fs/resctrl/info"):
        raise IsolationError("linux.intelRdt: this machine has no /sys/fs/resctrl", "leave it out, or mount resctrl")
    own = {n["type"]: n.get("path") or "" for n in linux["namespaces"]}
    if "mount" not in own:
        raise IsolationError("linux.namespaces: mount is not listed", "a container has its mounts in a mount namespace of its own")
    for kind, namespace in (("timeOffsets", "time"), ("uidMappings", "user")):
        if linux.get(kind) and namespace not in own:
            raise IsolationError(f"linux.{kind} needs a {namespace} namespace", "add it to linux.namespaces")


def _cgroup_mounts(group: Any) -> list[tuple[str, str, str]]:
    """What a container sees under /sys/fs/cgroup: [(name, v1 controllers or "" for v2, what is bound without a cgroup namespace)]."""
    layout = cgroups.layout()
    if not group.paths:
        return []  # it has no group: what would show is the one that all of this user's processes are in
    if layout.version == "v2":
        # All of it, where no namespace shows its own alone: that is what /proc/self/cgroup names the path in (Docker, runc).
        return [("", "", layout.trees[0].mountpoint)]
    found: dict[str, list[str]] = {}
    for controller, mountpoint in layout.controllers.items():
        found.setdefault(os.path.basename(mountpoint), []).append(controller)
    found.pop("unified", None)
    if "name=systemd" in group.paths:  # an init system inside, which looks for it (systemd, cg_unified)
        found["systemd"] = ["name=systemd", "none"]
    return [(name, ",".join(sorted(controllers)), group.paths.get(controllers[0], "")) for name, controllers in found.items()]
