"""The container's first process, from clone to execve, in order. See docs/architecture.md, "Start sequence".

Runs in a forked copy of the launcher: everything it uses is loaded already, and after pivot_root nothing is imported, no
codec and no name service. Whatever fails is reported through ``channel`` and the process exits: the supervisor cleans up.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import ContainersError, IsolationError, exhausted
from ..linux import mounts, namespaces, pty, seccomp, sockets, syscalls
from ..linux.cgroups import enter
from ..linux.idmap import set_groups
from . import hooks, inside, marks
from .confine import OWN_INIT, Confinement, become, only_descriptor, only_descriptors
from .marks import mark
from .rootfs import PROPAGATION, Device, Outside

if TYPE_CHECKING:
    from .pattern import Pattern

    Receive = Callable[[int], tuple[list[int], Callable[[], "Task"]]]
    """Waits for what comes over the channel: the entrances to cgroups, and a function that gives the rest (:func:`.ahead.receive`)."""

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1  # netdevice(7)
_PERSONALITIES = {"LINUX": 0, "LINUX32": 8}  # PER_LINUX, PER_LINUX32 of <sys/personality.h>


class Waiting:
    """How the first process of a runtime's ``create`` differs from a supervised one, which these defaults are.

    ``listener``: a listening socket on which it waits for ``start`` before execve, -1 for not at all. ``preserved``: descriptors from 3 on
    that the program gets. ``death_signal``: what it gets when its parent dies. ``about``: the container's id and bundle, for hooks.
    """

    def __init__(
        self,
        *,
        listener: int = -1,
        preserved: int = 0,
        death_signal: int = signal.SIGKILL,
        keyring: bool = True,
        pivot: bool = True,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.listener, self.preserved, self.death_signal = listener, preserved, death_signal
        self.keyring, self.pivot, self.about = keyring, pivot, about or {"id": "", "bundle": ""}


class Task:
    """What a first process has to know of its container, prepared by whoever clones it.

    ``entrances``: v1 cgroups to step into. ``hierarchies``: what it sees of them (:meth:`.inside.Builder.build`). ``program``: its filter.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        outside: Outside,
        stdio: tuple[int, int, int],
        hierarchies: list[tuple[str, str]],
        *,
        entrances: Sequence[int] = (),
        program: seccomp.Filter | None = None,
        wait: Waiting | None = None,
    ) -> None:
        self.spec, self.outside, self.stdio, self.hierarchies = spec, outside, stdio, hierarchies
        self.entrances, self.program, self.wait = list(entrances), program, wait or Waiting()
        self.confinement = Confinement(spec["process"], program)
        self.confinement.signals_wait = OWN_INIT in (spec.get("annotations") or {})


class Init:
    """The child. It is made for a container (:meth:`run`), or ahead of need (:meth:`run_ahead`): then it learns late which one it is, and
    until then does what is the same for all of a pattern.

    :param channel: our end of a socket pair with whoever starts us. :param listed: the specification's ``linux.namespaces``.
    """

    task: Task  # once it is known

    def __init__(self, channel: int, listed: Sequence[dict[str, Any]]) -> None:
        self.channel = channel
        self.kinds = {namespace["type"]: namespace.get("path") or "" for namespace in listed}  # "" is a new one
        self.builder = inside.Builder()
        self.pid = 0  # as the host sees it

    @property
    def spec(self) -> dict[str, Any]:
        return self.task.spec

    @property
    def wait(self) -> Waiting:
        return self.task.wait

    def run(self, task: Task) -> NoReturn:
        """Steps that wait for the supervisor are its numbered synchronisation points."""

        def steps() -> None:
            enter(task.entrances)  # before anything is allocated; on v2 the clone itself did it
            mark("init", "entered")
            self._stand()
            mark("init", "mapped")
            self._become(task)

        self._report_of(steps)

    def run_ahead(self, pattern: Pattern, devices: list[Device], receive: Receive) -> NoReturn:
        """:param receive: waits for what comes over the channel."""

        def steps() -> None:
            mark("ahead", "cloned")
            self._stand()
            mark("ahead", "mapped")
            self.builder.prepare(pattern, devices)
            syscalls.close_all_but([self.channel, *self.builder.held, *marks.descriptors])
            mark("ahead", "ready")
            entrances, rest = receive(self.channel)
            enter(entrances)
            mark("init", "entered")
            self._become(rest())

        self._report_of(steps)

    def _report_of(self, steps: Callable[[], None]) -> NoReturn:
        try:
            steps()
        except ContainersError as error:
            self._report(error)
        except OSError as error:
            why, hint = f"the container could not be set up: {error}", "pycontainers doctor shows what this machine allows"
            self._report(exhausted(error) or IsolationError(why, hint))
        except BaseException as error:
            self._report(ContainersError(f"the container could not be set up: {type(error).__name__}: {error}"))
        os._exit(125)

    def _stand(self) -> None:
        """What is the same for every container with these namespaces."""
        self._await(b"1")  # 1: ID maps written
        self._become_root()
        os.umask(0o022)
        os.setsid()
        if self._is_new("network"):
            _loopback_up()

    def _become(self, task: Task) -> None:
        """All that makes it this container's, up to execve."""
        self.task = task
        self._session()
        mark("init", "session")
        self.builder.build(task.spec, task.outside, task.hierarchies)
        mark("init", "root")
        self._hooks_before_root()
        self._enter()
        mark("init", "pivoted")
        console = self._console()
        self._finish_mounts()
        mark("init", "covered")
        self._tell(json.dumps({"made": self.builder.made}).encode(), console)
        mark("init", "told")
        self._await(b"2")  # 2: network is up
        mark("init", "networked")
        self._sysctls()
        self._read_only()
        mark("init", "confining")
        self._close_descriptors()
        gate = self._gate if self.wait.listener >= 0 or hooks.has(self.spec, "startContainer") else None
        become(task.confinement, make_cwd=True, death_signal=self.wait.death_signal, channel=self.channel, gate=gate)

    # -- talking to the supervisor

    def _await(self, step: bytes) -> None:
        if os.read(self.channel, 1) != step:
            os._exit(125)  # the supervisor is gone: nobody would read our exit

    def _tell(self, message: bytes, fds: Sequence[int] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=self.channel)
        try:
            channel.sendmsg([message + b"\n"], rights)
        finally:
            channel.detach()
            for fd in fds:
                os.close(fd)

    def _report(self, error: ContainersError) -> None:
        try:
            self._tell(json.dumps(sockets.error_message(error)).encode())
        except OSError:
            pass

    # -- the steps

    def _become_root(self) -> None:
        if "user" in self.kinds:
            set_groups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        # Not dumpable: a process that gets hold of us may not ptrace us or open our /proc/PID/exe and fd (CVE-2016-9962,
        # CVE-2019-5736). The next execve makes the container's own program dumpable again.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # while setting up, whoever it is that waits for us

    def _session(self) -> None:
        for number, fd in enumerate(self.task.stdio):
            os.dup2(fd, number, inheritable=True)
        if self.wait.keyring:
            syscalls.new_session_keyring("_ses." + self.spec["linux"]["cgroupsPath"].rpartition("/")[2][:12])
        personality = self.spec["linux"].get("personality")
        if personality:
            syscalls.syscall("personality", _PERSONALITIES[personality["domain"]], detail=personality["domain"])
        if self._is_new("cgroup"):
            # Only now, inside its cgroup: the namespace's root is the cgroup in which it is unshared (cgroup_namespaces(7)).
            namespaces.unshare(namespaces.CLONE_NEWCGROUP)
        if self._is_new("uts"):
            if self.spec.get("hostname"):
                syscalls.sethostname(self.spec["hostname"])
            if self.spec.get("domainname"):
                syscalls.setdomainname(self.spec["domainname"])

    def _is_new(self, kind: str) -> bool:
        """A namespace made for this container: not one that is joined, and not the host's."""
        return self.kinds.get(kind) == ""

    def _hooks_before_root(self) -> None:
        if self.spec.get("hooks"):
            self.pid = int(os.readlink("/proc/self"))  # the host's proc still, which knows us by the host's number
        if not hooks.has(self.spec, *hooks.CREATE):
            return
        self._tell(b'{"hooks": "create"}')
        self._await(b"h")  # those outside have run
        hooks.run(self.spec, "createContainer", hooks.state(self.spec, self.wait.about, "creating", self.pid), inside=True)

    def _enter(self) -> None:
        os.fchdir(self.task.outside.root)
        if self.kinds.get("mount"):
            os.chroot(".")  # pivot_root would take the root from everybody else in a namespace that was joined
            os.chdir("/")
        elif self.wait.pivot:
            mounts.pivot_root_here()
        else:
            mounts.move_root_here()

    def _close_descriptors(self) -> None:
        kept = [self.channel] + [self.wait.listener] * (self.wait.listener >= 0)
        if len(kept) == 1 and not self.wait.preserved:
            self.channel = only_descriptor(self.channel)
        else:
            self.channel, self.wait.listener = (*only_descriptors(kept, self.wait.preserved), -1)[:2]

    def _gate(self) -> None:
        """All is well so far: say so, and wait for ``start``, whose connection takes the channel's place. Then the hooks before execve."""
        if self.wait.listener >= 0:
            # From here on nobody waits for us: whoever created us ends now, and that must not end us.
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)
            self._tell(b'{"waits": true}')
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=self.wait.listener)
            connection, _ = listener.accept()
            listener.close()
            os.dup2(connection.fileno(), self.channel, inheritable=False)
            connection.close()
            self._await(b"3")
        hooks.run(self.spec, "startContainer", hooks.state(self.spec, self.wait.about, "created", self.pid), inside=True)

    def _console(self) -> list[int]:
        """With ``process.terminal``: a terminal of the container's own devpts as stdio and controlling terminal; [its master]."""
        process = self.spec["process"]
        if not process.get("terminal"):
            return []
        try:
            master, terminal = pty.open_inside()
        except OSError as error:
            raise IsolationError(f"process.terminal: {error.strerror}", "the container needs a devpts on /dev/pts") from None
        size = process.get("consoleSize") or {}
        if size.get("height") and size.get("width"):
            pty.resize(terminal, size["height"], size["width"])
        inside.bind_console(terminal)
        pty.make_controlling(terminal)
        for number in (0, 1, 2):
            os.dup2(terminal, number, inheritable=True)
        os.close(terminal)
        return [master]

    def _finish_mounts(self) -> None:
        """Everything that images, volumes and we ourselves put in place is there: now hide and freeze parts of it."""
        linux, hidden = self.spec["linux"], {"/proc/sys", *self.builder.hidden}  # that one after the sysctls are written
        frozen, masked = linux.get("readonlyPaths") or [], linux.get("maskedPaths") or []
        inside.hide([path for path in frozen if path not in hidden], [path for path in masked if path not in self.builder.hidden])

    def _sysctls(self) -> None:
        for key, value in (self.spec["linux"].get("sysctl") or {}).items():
            try:
                fd = inside.open_sysctl(key)
                os.write(fd, value.encode())
                os.close(fd)
            except OSError as error:
                raise IsolationError(
                    f"sysctl {key}={value}: {error.strerror}", "only sysctls of the container's own namespaces can be set"
                ) from None

    def _read_only(self) -> None:
        if "/proc/sys" in (self.spec["linux"].get("readonlyPaths") or []):
            inside.freeze("/proc/sys")
        for fd in self.builder.frozen:
            mounts.set_attributes(fd, mounts.MOUNT_ATTR_RDONLY)
        propagation, recursive = PROPAGATION[self.spec["linux"].get("rootfsPropagation") or "private"]
        if propagation != mounts.MS_PRIVATE:
            mounts.set_attributes(syscalls.AT_FDCWD, propagation=propagation, recursive=recursive, path="/")


def _loopback_up() -> None:
    """A new network namespace has its loopback down (network_namespaces(7)); with --network none it is all there is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
