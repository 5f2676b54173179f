"""A container with a single id: changes of owner and of user are answered as done, since there is nobody else to be.

Package managers, tar and useradd give files to others and become them; with one id all of it fails (EINVAL), though nothing depends
on it. So the container's seccomp filter hands these calls to an *agent* (SCMP_ACT_NOTIFY, the specification's own way), a fork of
the supervisor. It records owners as attributes of the files (:mod:`pycontainers.linux.owners`), which a build turns into the owners in
its layers, and remembers for each process who it has become, so that it hears from getuid(2) what it has asked for.

None of this protects or opens anything: inside, all of it is the one id, and the agent works with the rights of the container's own
root, in the container's own root.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import stat
import struct
from typing import Any

from ..linux import mounts, namespaces, notify, owners, sockets, syscalls
from ..linux.syscall_table import ARCHITECTURES, MACHINES, numbers

MARK = "pycontainers-owners"
"""``linux.seccomp.listenerMetadata`` of a profile whose agent we are."""

_FILES = ("chown", "lchown", "fchown", "fchownat")
_USERS = (
    "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups",
    "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups",
)  # fmt: skip
_AT_FDCWD, _NOFOLLOW, _EMPTY_PATH = -100, 0x100, 0x1000
_KEEP = 0xFFFFFFFF  # (uid_t) -1
_LINKS = 40


def with_agent(profile: dict[str, Any] | None, path: str) -> dict[str, Any]:
    """The profile, with these calls handed to the agent at ``path``. What it refuses stays refused: of what it allows this is taken."""
    handed = {*_FILES, *_USERS}
    nodes, other = ("mknod", "mknodat"), ("mknod", "mknodat", "prctl")
    found: dict[str, Any] = dict(profile or {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []})
    entries: list[dict[str, Any]] = []
    allowed = set() if profile else {*handed, *other}
    for entry in found.get("syscalls") or []:
        if entry["action"] == "SCMP_ACT_ALLOW" and not entry.get("args"):
            allowed |= (handed | set(other)) & set(entry["names"])
            entry = {**entry, "names": [name for name in entry["names"] if name not in handed and name not in other]}
        if entry["names"]:
            entries.append(entry)
    entries.append({"names": sorted(handed & allowed), "action": "SCMP_ACT_NOTIFY"})
    for index, name in enumerate(nodes, 1):  # the mode is the second argument of one and the third of the other
        if name in allowed:
            for kind in (stat.S_IFCHR, stat.S_IFBLK):
                condition = {"index": index, "op": "SCMP_CMP_MASKED_EQ", "value": 0o170000, "valueTwo": kind}
                entries.append({"names": [name], "action": "SCMP_ACT_NOTIFY", "args": [condition]})
            for kind in (0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK):
                condition = {"index": index, "op": "SCMP_CMP_MASKED_EQ", "value": 0o170000, "valueTwo": kind}
                entries.append({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [condition]})
    if "prctl" in allowed:
        for op, action in (("SCMP_CMP_EQ", "SCMP_ACT_NOTIFY"), ("SCMP_CMP_NE", "SCMP_ACT_ALLOW")):
            condition = {"index": 0, "op": op, "value": syscalls.PR_SET_KEEPCAPS}
            entries.append({"names": ["prctl"], "action": action, "args": [condition]})
    return found | {"syscalls": entries, "listenerPath": path, "listenerMetadata": MARK}


def listen(path: str) -> socket.socket:
    """The agent's socket, for whoever starts a process in the container."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with sockets.reachable(path) as name:
        listener.bind(name)
    listener.listen(16)
    return listener


def forget(spec: dict[str, Any]) -> None:
    """Remove the agent's socket, where it is ours."""
    profile = spec.get("linux", {}).get("seccomp") or {}
    if profile.get("listenerMetadata") == MARK:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(profile["listenerPath"])


class Ids:
    """Whom a process takes itself for: (real, effective, saved) user and group, and groups."""

    __slots__ = ("gids", "groups", "keeps", "start", "uids")

    def __init__(self, uids: list[int], gids: list[int], groups: list[int], start: int = 0) -> None:
        self.uids, self.gids, self.groups, self.start = uids, gids, groups, start
        self.keeps = False  # PR_SET_KEEPCAPS: it stays able to change ids when it is not root any more

    def copy(self, start: int) -> Ids:
        return Ids(list(self.uids), list(self.gids), list(self.groups), start)

    @property
    def able(self) -> bool:
        return self.uids[1] == 0 or self.keeps

    def change(self, which: list[int], wanted: list[int]) -> bool:
        """setresuid(2) and setresgid(2), by their rules; False: EPERM."""
        if not self.able and any(number != _KEEP and number not in which for number in wanted):
            return False
        which[:] = [old if new == _KEEP else new for old, new in zip(which, wanted, strict=True)]
        return True


class Agent:
    """Answers for one container until ``control`` ends."""

    def __init__(self, listener: socket.socket, control: int) -> None:
        self.listener, self.control = listener, control
        self.poll = select.poll()
        for fd in (listener.fileno(), control):
            self.poll.register(fd, select.POLLIN)
        self.inside = False
        self.people: dict[int, Ids] = {}
        self.names = {
            (ARCHITECTURES[architecture][0], calls[name]): name
            for architecture, calls in numbers(MACHINES[syscalls.MACHINE]).items()
            for name in (*_FILES, *_USERS, "mknod", "mknodat", "prctl")
            if name in calls
        }

    def run(self) -> None:
        while True:
            for fd, events in self.poll.poll():
                if fd == self.control:
                    return
                if fd == self.listener.fileno():
                    self._accept()
                elif events & select.POLLIN:
                    self._serve(fd)
                else:  # nobody is under this filter any more
                    self.poll.unregister(fd)
                    os.close(fd)

    def _accept(self) -> None:
        """A container process state with the listener of its filter (config-linux, Seccomp)."""
        connection, _ = self.listener.accept()
        data, fds = b"", []
        with connection:
            while chunk := socket.recv_fds(connection, 65536, 4, socket.MSG_CMSG_CLOEXEC):
                data += chunk[0]
                fds += chunk[1]
                if not chunk[0]:
                    break
        if not self.inside:
            self._enter(int(json.loads(data)["pid"]))
        for fd in fds:
            self.poll.register(fd, select.POLLIN)

    def _enter(self, pid: int) -> None:
        """Into the container's user and mount namespace and root, with the right of its root, and no more. Our working directory stays
        the machine's /proc: ``PID/mem`` and ``self/fd/N`` are looked up there."""
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        pidfd = os.pidfd_open(pid)
        namespaces.setns(pidfd, namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        os.fchdir(root)
        os.chroot(".")
        os.fchdir(proc)
        for fd in (root, pidfd, proc):
            os.close(fd)
        self.inside = True

    def _serve(self, fd: int) -> None:
        call = notify.receive(fd)
        if call is None:
            return
        name = self.names.get((call.arch, call.number))
        try:
            if name is None:
                notify.answer(fd, call, error=errno.ENOSYS)
            elif name in _FILES:
                self._chown(fd, call, name)
                notify.answer(fd, call)
            elif name in ("mknod", "mknodat"):
                self._mknod(fd, call, name)
                notify.answer(fd, call)
            elif name == "prctl":
                self._ids(call.pid).keeps = bool(call.arguments[1])
                notify.let_through(fd, call)
            else:
                notify.answer(fd, call, self._user(call, name))
        except OSError as error:
            notify.answer(fd, call, error=error.errno or errno.EPERM)
        except Exception:
            notify.answer(fd, call, error=errno.EPERM)

    # -- files

    def _chown(self, fd: int, call: notify.Call, name: str) -> None:
        a = call.arguments
        if name == "fchown":
            target, uid, gid = os.open(f"{call.pid}/fd/{a[0]}", os.O_PATH | os.O_CLOEXEC), a[1], a[2]
        elif name == "fchownat":
            target = self._open(call.pid, _signed(a[0]), a[1], follow=not a[4] & _NOFOLLOW, empty=bool(a[4] & _EMPTY_PATH))
            uid, gid = a[2], a[3]
        else:
            target, uid, gid = self._open(call.pid, _AT_FDCWD, a[0], follow=name == "chown"), a[1], a[2]
        try:
            if not notify.valid(fd, call):
                return
            owners.record(f"self/fd/{target}", os.fstat(target).st_mode, _id(uid), _id(gid))
        finally:
            os.close(target)

    def _mknod(self, fd: int, call: notify.Call, name: str) -> None:
        """A device node is a plain empty file: nobody could open it as a device anyway, and what made it goes on (dpkg, tar)."""
        folder, path, mode = (_AT_FDCWD, *call.arguments[:2]) if name == "mknod" else (_signed(call.arguments[0]), *call.arguments[1:3])
        text = self._text(call.pid, path)
        parent, _, last = text.rstrip("/").rpartition("/")
        base = self._base(call.pid, folder, text)
        try:
            where = mounts.openat2(base, parent.lstrip("/") or ".", os.O_PATH | os.O_DIRECTORY, _within(text))
        finally:
            os.close(base)
        try:
            if notify.valid(fd, call):
                os.close(os.open(last, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, mode & 0o777, dir_fd=where))
        finally:
            os.close(where)

    def _open(self, pid: int, folder: int, address: int, *, follow: bool, empty: bool = False) -> int:
        """What a path in a process's memory means to it, as an O_PATH descriptor."""
        text = self._text(pid, address)
        if not text:
            if not empty:
                raise FileNotFoundError(errno.ENOENT, "empty path")
            return os.open(f"{pid}/cwd" if folder == _AT_FDCWD else f"{pid}/fd/{folder}", os.O_PATH | os.O_CLOEXEC)
        base = self._base(pid, folder, text)
        try:
            flags = os.O_PATH | (0 if follow else os.O_NOFOLLOW)
            return mounts.openat2(base, text.lstrip("/") or ".", flags, _within(text))
        finally:
            os.close(base)

    def _base(self, pid: int, folder: int, text: str) -> int:
        """Where a path starts: the process's own root (it may have changed it), its working directory, or a folder that it has open."""
        name = f"{pid}/root" if text.startswith("/") else f"{pid}/cwd" if folder == _AT_FDCWD else f"{pid}/fd/{folder}"
        return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _text(self, pid: int, address: int) -> str:
        mem = os.open(f"{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(mem, 4096, address)
        finally:
            os.close(mem)
        text, end, _ = data.partition(b"\0")
        if not end:
            raise OSError(errno.ENAMETOOLONG, "path")
        return os.fsdecode(text)

    # -- users

    def _user(self, call: notify.Call, name: str) -> int:
        a, me = [number & 0xFFFFFFFF for number in call.arguments], self._ids(call.pid)
        group = "gid" in name
        which = me.gids if group else me.uids
        if name in ("getuid", "getgid"):
            return which[0]
        if name in ("geteuid", "getegid"):
            return which[1]
        if name in ("getresuid", "getresgid"):
            for number, address in zip(which, call.arguments, strict=False):
                self._write(call.pid, address, struct.pack("=I", number))
            return 0
        if name == "getgroups":
            if a[0]:
                if a[0] < len(me.groups):
                    raise OSError(errno.EINVAL, name)
                self._write(call.pid, call.arguments[1], struct.pack(f"={len(me.groups)}I", *me.groups))
            return len(me.groups)
        if name in ("setfsuid", "setfsgid"):
            return which[1]  # the effective one before; nothing follows from it
        if name == "setgroups":
            if not me.able:
                raise OSError(errno.EPERM, name)
            me.groups = self._numbers(call.pid, call.arguments[1], a[0])
            return 0
        if name in ("setuid", "setgid"):
            wanted = [a[0]] * 3 if me.able else [_KEEP, a[0], _KEEP]
        elif name in ("setreuid", "setregid"):
            effective = which[1] if a[1] == _KEEP else a[1]
            wanted = [a[0], a[1], effective if a[0] != _KEEP or effective != which[0] else _KEEP]
        else:
            wanted = a[:3]
        if not me.change(which, wanted):
            raise OSError(errno.EPERM, name)
        return 0

    def _ids(self, thread: int) -> Ids:
        """Those of a thread's process; of one not heard of yet, its nearest ancestor's that was."""
        status = _status(thread)
        tgid, start = status["Tgid"], _start(status["Tgid"])
        known = self.people.get(tgid)
        if known is None or known.start != start:
            ancestor = self._ancestor(status["PPid"])
            known = ancestor.copy(start) if ancestor else Ids([0] * 3, [0] * 3, [], start)
            self.people[tgid] = known
            if len(self.people) > 4096:
                self.people = {pid: ids for pid, ids in self.people.items() if os.path.exists(str(pid))}
        return known

    def _ancestor(self, pid: int) -> Ids | None:
        while pid > 1:
            known = self.people.get(pid)
            try:
                if known is not None and known.start == _start(pid):
                    return known
                pid = _status(pid)["PPid"]
            except OSError:
                return None
        return None

    def _write(self, pid: int, address: int, data: bytes) -> None:
        mem = os.open(f"{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(mem, data, address)
        finally:
            os.close(mem)

    def _numbers(self, pid: int, address: int, count: int) -> list[int]:
        if count > 65536:
            raise OSError(errno.EINVAL, "setgroups")
        mem = os.open(f"{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return list(struct.unpack(f"={count}I", os.pread(mem, 4 * count, address))) if count else []
        finally:
            os.close(mem)


def _status(pid: int) -> dict[str, int]:
    with open(f"{pid}/status", encoding="utf-8", errors="replace") as file:
        return {line.split(":")[0]: int(line.split()[1]) for line in file if line.startswith(("Tgid:", "PPid:"))}


def _start(pid: int) -> int:
    """When it started (field 22 of proc_pid_stat(5)), by the machine's own /proc."""
    with open(f"{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def _within(text: str) -> int:
    """An absolute path stays in the process's root; a relative one is bounded by ours, which is the container's."""
    return mounts.RESOLVE_IN_ROOT if text.startswith("/") else 0


def _id(number: int) -> int:
    number &= 0xFFFFFFFF
    return -1 if number == _KEEP else number


def _signed(number: int) -> int:
    """A file descriptor argument: the low 32 bits, signed."""
    return (number & 0xFFFFFFFF) - (1 << 32) if number & 0x80000000 else number & 0xFFFFFFFF
