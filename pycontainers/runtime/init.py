"""The container's first process, from clone to execve, in order. See docs/architecture.md, "Start sequence".

Runs in a forked copy of the supervisor: everything it uses is loaded already, and after pivot_root nothing is imported, no
codec and no name service. Whatever fails is reported through ``channel`` and the process exits: the supervisor cleans up.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import signal
import socket
import stat
import struct
from collections.abc import Sequence
from typing import Any

from ..errors import ContainersError, IsolationError
from ..linux import mounts, namespaces, pty, syscalls
from ..linux.cgroups import enter
from ..linux.mount_options import Options
from . import defaults
from .confine import Confinement, become, only_descriptor
from .rootfs import Outside

_PROC_SUPER_MAGIC = 0x9FA0
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1  # netdevice(7)
_DEV_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
    "core": "/proc/kcore",
}


class Init:
    """Everything that the child needs, prepared by the supervisor before it is cloned."""

    def __init__(
        self,
        spec: dict[str, Any],
        outside: Outside,
        confinement: Confinement,
        channel: int,
        stdio: tuple[int, int, int],
        cgroups: list[tuple[str, str]],
        entrances: list[int],
    ) -> None:
        self.spec = spec
        self.outside = outside
        self.confinement = confinement
        self.channel = channel  # our end of a socket pair with the supervisor
        self.stdio = stdio
        self.cgroups = cgroups  # [(name of the mount under /sys/fs/cgroup, v1 controllers or "" for v2)]
        self.entrances = entrances  # v1 cgroups to step into
        self.kinds = {n["type"]: n.get("path") or "" for n in spec["linux"]["namespaces"]}  # "" is a new one
        self.frozen: list[int] = []  # file systems of a read-only root
        self.made: list[str] = []  # mount points that had to be made in the image

    def run(self) -> None:
        """Never returns. Steps that wait for the supervisor are its numbered synchronisation points."""
        try:
            enter(self.entrances)  # before anything is allocated; on v2 the clone itself did it
            self._await(b"1")  # 1: ID maps written
            self._become_root()
            self._session()
            self._build()
            self._enter()
            console = self._console()
            self._finish_mounts()
            self._tell(json.dumps({"made": self.made}).encode(), console)
            self._await(b"2")  # 2: network is up
            self._sysctls()
            self._read_only()
            self.channel = only_descriptor(self.channel)
            become(self.confinement, make_cwd=True, death_signal=signal.SIGKILL)
        except ContainersError as error:
            self._report(type(error).__name__, error.message, error.hint)
        except OSError as error:
            self._report(
                "IsolationError", f"the container could not be set up: {error}", "pycontainers doctor shows what this machine allows"
            )
        except BaseException as error:
            self._report("ContainersError", f"the container could not be set up: {type(error).__name__}: {error}", "")
        os._exit(125)

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

    def _report(self, kind: str, message: str, hint: str) -> None:
        try:
            self._tell(json.dumps({"error": kind, "message": message, "hint": hint}).encode())
        except OSError:
            pass

    # -- the steps

    def _become_root(self) -> None:
        if "user" in self.kinds:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        # Not dumpable: a process that gets hold of us may not ptrace us or open our /proc/PID/exe and fd (CVE-2016-9962,
        # CVE-2019-5736). The next execve makes the container's own program dumpable again.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)

    def _session(self) -> None:
        os.umask(0o022)
        os.setsid()
        for number, fd in enumerate(self.stdio):
            os.dup2(fd, number, inheritable=True)
        syscalls.new_session_keyring("_ses." + self.spec["linux"]["cgroupsPath"].rpartition("/")[2][:12])
        if self._is_new("cgroup"):
            # Only now, inside its cgroup: the namespace's root is the cgroup in which it is unshared (cgroup_namespaces(7)).
            namespaces.unshare(namespaces.CLONE_NEWCGROUP)
        if self._is_new("network"):
            _loopback_up()
        if self._is_new("uts"):
            if self.spec.get("hostname"):
                syscalls.sethostname(self.spec["hostname"])
            if self.spec.get("domainname"):
                syscalls.setdomainname(self.spec["domainname"])

    def _is_new(self, kind: str) -> bool:
        """A namespace made for this container: not one that is joined, and not the host's."""
        return self.kinds.get(kind) == ""

    def _build(self) -> None:
        """Place the root on the working directory (the supervisor left us in an empty folder of ours), then all mounts."""
        here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mounts.move_mount(self.outside.root, here)
        if self.spec["root"].get("readonly"):
            # Held now: a volume may cover the place of one of the root's own file systems.
            folders = self.spec.get("annotations", {}).get("io.pycontainers.folders", "").split(":")
            self.frozen = [mounts.open_in_root(self.outside.root, folder) for folder in ("/", *filter(None, folders))]
        for index, mount in enumerate(self.spec["mounts"]):
            self._mount(index, mount)

    def _mount(self, index: int, mount: dict[str, Any]) -> None:
        root, target, kind = self.outside.root, mount["destination"], mount.get("type") or ""
        options = Options(mount.get("options") or [])
        bound = self.outside.binds.get(index)
        directory = bound is None or stat.S_ISDIR(os.fstat(bound).st_mode)
        if kind in ("proc", "sysfs") or target == "/dev":
            _refuse_link(root, target)
        place = mounts.make_in_root(root, target, directory=directory, made=self.made)
        try:
            if kind not in ("proc", "sysfs") and mounts.filesystem(place) == _PROC_SUPER_MAGIC:
                # A mount inside /proc redirects what we write there (CVE-2019-16884, CVE-2023-27561).
                raise IsolationError(f"mount on {target} lies inside /proc", "choose another target")
            if bound is not None:
                mounts.move_mount(bound, place)
            elif kind == "cgroup":
                self._cgroup(place)
            else:
                with_fd = mounts.new_mount(kind, options.data, options.set, mount.get("source", ""))
                mounts.move_mount(with_fd, place)
                if target == "/dev":
                    self._devices(with_fd)
                os.close(with_fd)
        finally:
            os.close(place)

    def _cgroup(self, place: int) -> None:
        """Our own cgroups, read-only, as the cgroup namespace shows them: one v2 tree, or a folder for each v1 hierarchy."""
        bits = mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOEXEC
        if len(self.cgroups) == 1 and not self.cgroups[0][1]:
            fd = mounts.new_mount("cgroup2", [], bits)
            mounts.move_mount(fd, place)
            os.close(fd)
            return
        base = mounts.new_mount("tmpfs", [("mode", "755"), ("size", "64k")], bits & ~mounts.MOUNT_ATTR_RDONLY, "cgroup")
        mounts.move_mount(base, place)
        for name, controllers in self.cgroups:
            os.mkdir(name, 0o755, dir_fd=base)
            kind, options = ("cgroup", [(c, "") for c in controllers.split(",")]) if controllers else ("cgroup2", [])
            fd = mounts.new_mount(kind, options, bits)
            target = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base)
            mounts.move_mount(fd, target)
            os.close(target)
            os.close(fd)
        mounts.set_attributes(base, mounts.MOUNT_ATTR_RDONLY)
        os.close(base)

    def _devices(self, dev: int) -> None:
        for name, fd in self.outside.devices.items():
            found = os.fstat(fd)
            if not stat.S_ISCHR(found.st_mode) or (os.major(found.st_rdev), os.minor(found.st_rdev)) != defaults.DEVICES[name]:
                raise IsolationError(f"/dev/{name} of this machine is not the device it should be", "")
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=dev))
            place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dev)
            mounts.move_mount(fd, place)
            os.close(place)
        for name, target in _DEV_LINKS.items():
            os.symlink(target, name, dir_fd=dev)

    def _enter(self) -> None:
        os.fchdir(self.outside.root)
        mounts.pivot_root_here()

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
        _bind_console(terminal)
        pty.make_controlling(terminal)
        for number in (0, 1, 2):
            os.dup2(terminal, number, inheritable=True)
        os.close(terminal)
        return [master]

    def _finish_mounts(self) -> None:
        """Everything that images, volumes and we ourselves put in place is there: now hide and freeze parts of it."""
        linux = self.spec["linux"]
        for path in linux.get("readonlyPaths") or []:
            if path != "/proc/sys":  # after the sysctls are written
                _freeze(path)
        for path in linux.get("maskedPaths") or []:
            _mask(path)

    def _sysctls(self) -> None:
        for key, value in (self.spec["linux"].get("sysctl") or {}).items():
            try:
                fd = os.open("/proc/sys/" + key.replace(".", "/"), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                os.write(fd, value.encode())
                os.close(fd)
            except OSError as error:
                raise IsolationError(
                    f"sysctl {key}={value}: {error.strerror}", "only sysctls of the container's own namespaces can be set"
                ) from None

    def _read_only(self) -> None:
        if "/proc/sys" in (self.spec["linux"].get("readonlyPaths") or []):
            _freeze("/proc/sys")
        for fd in self.frozen:
            mounts.set_attributes(fd, mounts.MOUNT_ATTR_RDONLY)


def _loopback_up() -> None:
    """A new network namespace has its loopback down (network_namespaces(7)); with --network none it is all there is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _bind_console(terminal: int) -> None:
    """The terminal as /dev/console too: what is bound is our descriptor and not a path under /dev/pts, and what it is bound on is no
    link (CVE-2025-52565).
    """
    try:
        os.close(os.open("/dev/console", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    place = mounts.openat2(syscalls.AT_FDCWD, "/dev/console", os.O_PATH | os.O_NOFOLLOW, mounts.RESOLVE_NO_SYMLINKS)
    try:
        if stat.S_ISLNK(os.fstat(place).st_mode):
            raise IsolationError("/dev/console is a link in the image", "an image must have a file there, or nothing")
        tree = mounts.open_tree("", at=terminal)
        mounts.move_mount(tree, place)
        os.close(tree)
    finally:
        os.close(place)


def _refuse_link(root: int, target: str) -> None:
    """/proc, /sys and /dev must be folders of the image (CVE-2019-19921; CVE-2026-41579 for /dev), or not there at all."""
    try:
        os.close(mounts.openat2(root, target.lstrip("/"), os.O_PATH, mounts.RESOLVE_IN_ROOT | mounts.RESOLVE_NO_SYMLINKS))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise IsolationError(
            f"{target} is a link in the image ({error.strerror})", "an image must have a folder there, or nothing"
        ) from None


def _open_exact(path: str) -> int | None:
    try:
        return mounts.openat2(syscalls.AT_FDCWD, path, os.O_PATH, mounts.RESOLVE_NO_SYMLINKS)
    except (FileNotFoundError, NotADirectoryError):
        return None  # not on this kernel
    except OSError as error:
        # A link in the place of what must be hidden or frozen: passing over it would leave it open (CVE-2019-19921).
        raise IsolationError(f"{path} cannot be hidden or frozen: it is a link in the container ({error.strerror})", "") from None


def _freeze(path: str) -> None:
    place = _open_exact(path)
    if place is None:
        return
    tree = mounts.open_tree("", at=place, recursive=True)
    mounts.set_attributes(tree, mounts.MOUNT_ATTR_RDONLY, recursive=True)
    mounts.move_mount(tree, place)
    os.close(tree)
    os.close(place)


def _mask(path: str) -> None:
    """A file gets a /dev/null that was verified (CVE-2025-31133: it could be a link), a folder an empty read-only tmpfs."""
    place = _open_exact(path)
    if place is None:
        return
    if stat.S_ISDIR(os.fstat(place).st_mode):
        cover = mounts.new_mount("tmpfs", [("size", "0"), ("nr_inodes", "1")], mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NOSUID)
    else:
        null = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.fstat(null).st_rdev != os.makedev(*defaults.DEVICES["null"]):
            raise IsolationError("/dev/null in the container is not the null device", "")
        cover = mounts.open_tree("", at=null)
        os.close(null)
    mounts.move_mount(cover, place)
    os.close(cover)
    os.close(place)
