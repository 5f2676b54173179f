"""Seccomp filters of the OCI ``linux.seccomp`` object: compiled once, kept on disk, loaded, their listener handed over (seccomp(2))."""

from __future__ import annotations

import ctypes
import json
import marshal
import os
import socket
import stat
from typing import Any

from . import seccomp_compiler, syscall_table
from .seccomp_compiler import ACTIONS, OPERATORS, compile_filter
from .sockets import reachable
from .syscall_table import ARCHITECTURES
from .syscalls import MACHINE, syscall

try:
    from _blake2 import blake2b  # what hashlib gives, without OpenSSL, which would cost each supervisor 1 MB
except ImportError:
    from hashlib import blake2b

__all__ = ["ACTIONS", "ARCHITECTURES", "FLAGS", "OPERATORS", "Filter", "Filters"]
__all__ += ["check", "compile_filter", "connect_agent", "hand_over", "load", "notifies"]

_SET_MODE_FILTER = 1
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1 << 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 1 << 5,
}
_TSYNC, _SPEC_ALLOW, _NEW_LISTENER, _TSYNC_ESRCH = 1 << 0, 1 << 2, 1 << 3, 1 << 4
_MAGIC = b"pycontainers seccomp\n"
_DIGEST = 32  # bytes
_AGENT_SECONDS = 10.0
_KEPT = 64  # programs on disk: there are as many as sets of capabilities and profiles in use


class _Program(ctypes.Structure):
    """struct sock_fprog. Here and not where it is used: making the class takes a first process 0.1 ms."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


class Filter:
    """What a process loads: the program, and the flags of seccomp(2)."""

    __slots__ = ("flags", "program")

    def __init__(self, program: bytes, flags: int = 0) -> None:
        self.program, self.flags = program, flags

    @property
    def listens(self) -> bool:
        """Whether :meth:`load` gives a listener (SCMP_ACT_NOTIFY)."""
        return bool(self.flags & _NEW_LISTENER)

    def load(self) -> int:
        """Install it on this process; the listener's descriptor, or -1."""
        return load(self.program, self.flags)


class Filters:
    """Filters of profiles: compiled at most once, kept in ``folder`` under the hash of profile, machine and compiler.

    The folder is a cache and nothing more: what cannot be read, written or verified there is compiled anew.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._known: dict[bytes, Filter] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, profile: dict[str, Any] | None) -> Filter | None:
        """The filter of a ``linux.seccomp`` object; None where there is none. :raises ValueError: a profile that makes no sense."""
        if not profile:
            return None
        key = marshal.dumps(profile)  # the cheapest faithful key: a profile has 400 names
        if key not in self._known:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[key] = self._filter(profile)
        return self._known[key]

    def _filter(self, profile: dict[str, Any]) -> Filter:
        rules = {key: profile[key] for key in ("defaultAction", "defaultErrnoRet", "architectures", "syscalls") if key in profile}
        text = json.dumps([rules, MACHINE, _compiler()], sort_keys=True).encode()
        path = f"{self._folder}/{blake2b(text, digest_size=_DIGEST).hexdigest()}"
        program = _read(path)
        if program is None:
            program = compile_filter(profile)
            _write(self._folder, path, program)
        return Filter(program, _flags(profile))


def check(profile: dict[str, Any]) -> None:
    """:raises ValueError: what no filter can be made of."""
    compile_filter(profile)
    _flags(profile)


def load(program: bytes, flags: int = 0) -> int:
    """Install the filter on the calling process. Needs no_new_privs, or CAP_SYS_ADMIN in its user namespace.

    :returns: the listener's descriptor (close-on-exec) where the flags ask for one, else -1. :raises OSError: the kernel refuses.
    """
    what = _Program(len(program) // 8, program)
    found = syscall("seccomp", _SET_MODE_FILTER, flags, ctypes.byref(what))
    return found if flags & _NEW_LISTENER else -1


def notifies(profile: dict[str, Any]) -> bool:
    """Whether a filter of this profile has a listener."""
    return any(entry.get("action") == seccomp_compiler.NOTIFY for entry in profile.get("syscalls") or ())


def connect_agent(path: str) -> socket.socket:
    """A connection to a seccomp agent. :raises OSError: nobody listens there."""
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        agent.settimeout(_AGENT_SECONDS)
        with reachable(path) as name:
            agent.connect(name)
    except OSError:
        agent.close()
        raise
    return agent


def hand_over(agent: socket.socket, state: dict[str, Any], listener: int) -> None:
    """Send the listener, closed here, with a container process state: once for a connection, which ends (config-linux, Seccomp).

    :param state: ``fds`` is added. :raises OSError: the agent does not take it.
    """
    message = json.dumps(state | {"fds": ["seccompFd"]}).encode()
    try:
        with agent:
            sent = socket.send_fds(agent, [message], [listener])
            agent.sendall(message[sent:])
    finally:
        os.close(listener)


def _flags(profile: dict[str, Any]) -> int:
    named = profile.get("flags")
    # None given (not even an empty list): no mitigation of speculative stores, as runc does and Linux itself since 5.16.
    flags = _SPEC_ALLOW if named is None else 0
    for name in named or ():
        if name not in FLAGS:
            raise ValueError(f"unknown flag {name!r}")
        flags |= FLAGS[name]
    if not notifies(profile):
        return flags
    if not profile.get("listenerPath"):
        raise ValueError(f"{seccomp_compiler.NOTIFY} needs a listenerPath")
    if any("sendmsg" in entry["names"] for entry in profile["syscalls"] if entry["action"] == seccomp_compiler.NOTIFY):
        # The process that has loaded the filter hands its listener out with this call, and would wait for its own answer.
        raise ValueError(f"{seccomp_compiler.NOTIFY} cannot be used for sendmsg")
    return flags | _NEW_LISTENER | (_TSYNC_ESRCH if flags & _TSYNC else 0)


def _compiler() -> list[int]:
    """Which compiler this is: another one's programs are not taken from the cache."""
    found = [os.stat(path) for path in (seccomp_compiler.__file__, syscall_table.__file__, syscall_table.FILE)]
    return [number for file in found for number in (file.st_mtime_ns, file.st_size)]


def _digest(path: str, program: bytes) -> bytes:
    """Of the program under this name: another profile's file, renamed, is not taken for this one."""
    return blake2b(program, digest_size=_DIGEST, key=os.path.basename(path).encode()).digest()


def _read(path: str) -> bytes | None:
    """The program in a cache file, if it is ours and whole."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return None
        data = os.read(fd, len(_MAGIC) + _DIGEST + 8 * seccomp_compiler.MAX_INSTRUCTIONS + 1)
    except OSError:
        return None
    finally:
        os.close(fd)
    start = len(_MAGIC) + _DIGEST
    program = data[start:]
    whole = data[:start] == _MAGIC + _digest(path, program)
    return program if whole and 0 < len(program) <= 8 * seccomp_compiler.MAX_INSTRUCTIONS and len(program) % 8 == 0 else None


def _write(folder: str, path: str, program: bytes) -> None:
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        names = os.listdir(folder)
        if len(names) >= _KEPT:
            for name in names:
                os.unlink(f"{folder}/{name}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, _MAGIC + _digest(path, program) + program)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError:
        pass  # a full disk or a read-only home: compiled again the next time
