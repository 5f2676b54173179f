"""The last steps before execve, the same for a container's first process and for ``exec``.

The order matters: scheduling and ids while the rights for it are there, the bounding set before CAP_SETPCAP is gone → the command is looked
up with the user's rights → (a first process that waits for ``start`` does so here) → limits → capabilities → parent-death signal (an id
change clears it) → no_new_privs → seccomp, last of all, so that the filter needs to allow nothing but execve itself. Without no_new_privs
loading a filter takes CAP_SYS_ADMIN: then it comes before the capabilities are dropped, and has to allow capset and prctl. (runc loads it
before the ids change too: what starts there starts here.)
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket
import stat
from collections.abc import Callable
from typing import Any

from ..errors import CommandNotExecutable, CommandNotFound, ContainersError
from ..linux import capabilities, idmap, mounts, scheduling, seccomp, syscalls
from . import users

OWN_INIT = "io.pycontainers.init"
"""The annotation of a container whose program is :mod:`.init_program`."""


class Confinement:
    """What :func:`become` needs, computed before any fork so that nothing is imported or compiled inside.

    :param process: the OCI ``process`` object. ``user.username``, where given, is Docker's ``--user`` and read in the image's passwd;
        ``user.additionalGids`` may have names of its groups too.
    :raises ContainersError: a value that does not exist, with the name of its field.
    """

    def __init__(self, process: dict[str, Any], program: seccomp.Filter | None) -> None:
        caps = process.get("capabilities") or {}
        self.bounding, self.effective, self.permitted, self.inheritable, self.ambient = (
            _caps(caps, name) for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
        )
        self.last_cap = capabilities.last()
        #: The program is our own init, which takes signals blocked: process 1 has no default action, so one that came between execve and
        #: its first instruction would be lost if it were not blocked (kill(2), pid_namespaces(7)).
        self.signals_wait = False
        self.no_new_privileges = bool(process.get("noNewPrivileges"))
        self.program = program
        self.args: list[str] = process["args"]
        self.env: list[str] = process.get("env") or []
        self.cwd: str = process["cwd"]
        user = process["user"]
        self.named = bool(user.get("username"))
        self.user: str = user.get("username") or f"{user['uid']}:{user['gid']}"
        self.groups: list[int | str] = user.get("additionalGids") or []
        self.umask: int = user.get("umask", 0o022)
        self.rlimits = rlimits(process)
        self.scheduling = scheduling.Wanted(process)
        self.labels = [(name, process.get(field) or "") for field, name in (("apparmorProfile", "apparmor"), ("selinuxLabel", "selinux"))]


def _caps(caps: dict[str, Any], name: str) -> int:
    try:
        return capabilities.mask(caps.get(name) or [])
    except KeyError as error:
        raise ContainersError(f"process.capabilities.{name}: {error.args[0]} is not a capability", "see capabilities(7)") from None


def rlimits(process: dict[str, Any]) -> list[tuple[int, int, int]]:
    """(number, soft, hard) of ``process.rlimits``. :raises ContainersError: a limit that does not exist, or soft above hard."""
    found = []
    for limit in process.get("rlimits") or []:
        number = getattr(resource, limit["type"], None) if str(limit["type"]).startswith("RLIMIT_") else None
        soft, hard = (resource.RLIM_INFINITY if limit[key] >= 1 << 63 else limit[key] for key in ("soft", "hard"))
        if number is None:
            raise ContainersError(f"process.rlimits: {limit['type']} is no resource limit", "see setrlimit(2)")
        if hard != resource.RLIM_INFINITY and (soft > hard or soft == resource.RLIM_INFINITY):
            raise ContainersError(f"process.rlimits: the soft {limit['type']} {limit['soft']} is above the hard one {limit['hard']}", "")
        found.append((number, soft, hard))
    return found


def only_descriptor(fd: int) -> int:
    """Close every descriptor but stdio and ``fd``, which becomes 3 and ends with execve.

    Before the working directory is entered: ``-w /proc/self/fd/7`` must not find anything of ours (CVE-2024-21626).
    """
    return only_descriptors([fd], 0)[0]


def only_descriptors(keep: list[int], preserved: int) -> list[int]:
    """The same with ``preserved`` descriptors from 3 on, which the program gets, and behind them ours: their new numbers."""
    first = 3 + preserved
    for fd in range(3, first):
        os.set_inheritable(fd, True)
    # Up and out of the way first: one may sit on the number that another is to get.
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, first + len(keep)) for fd in keep]
    for number, fd in enumerate(moved, first):
        os.dup2(fd, number, inheritable=False)
    syscalls.close_range(first + len(keep))
    return list(range(first, first + len(keep)))


def become(
    what: Confinement, *, make_cwd: bool, death_signal: int, channel: int = -1, gate: Callable[[], None] | None = None
) -> None:
    """Drop to what the process may be, and execve. Only returns by raising.

    Called inside the container's root, as its root. ``make_cwd``: a missing working directory is made, as Docker does.
    ``channel``: the stream socket to our parent, which gets the listener of a seccomp filter over it; -1 where there is none.
    ``gate``: waits for the word to go on, when everything that can be found wrong has been.
    """
    uid, gid, extra, home = users.resolve(what.user) if what.named else users.numeric(what.user)
    extra += [number for number in map(users.group_id, what.groups) if number not in extra]
    environment = dict(item.partition("=")[::2] for item in what.env)
    environment.setdefault("HOME", home)
    if make_cwd:
        _make_cwd(what.cwd, uid, gid)
    what.scheduling.apply()
    _own_stdio(uid)
    capabilities.limit_bounding(what.bounding, what.last_cap)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    pretend = (uid, gid) != (0, 0) and idmap.single()  # there is nobody else to be (:mod:`.owners`)
    if pretend and uid:
        # Who is root for the kernel gets capabilities back by execve; who is not asked to be root shall not.
        syscalls.prctl(syscalls.PR_SET_SECUREBITS, syscalls.SECBIT_NOROOT | syscalls.SECBIT_NOROOT_LOCKED)
    if not pretend:
        _change_ids(uid, gid, extra)
    enter_cwd(what.cwd)  # with the user's rights, so that a folder closed to it is an error now
    paths = _candidates(what.args[0], environment.get("PATH", ""))
    if gate is not None:
        _look_up(paths, what.args[0])
        gate()
    os.umask(what.umask)
    _limit(what.rlimits)
    _default_signals(what.signals_wait)
    _label(what.labels)
    held = capabilities.permitted_mask()
    if what.program and not what.no_new_privileges:
        capabilities.regain()
        _filter(what.program, channel)
    capabilities.clear_ambient()
    # Nothing inheritable unless it is asked for (CVE-2022-27650: exec with inheritable capabilities raises file capabilities).
    # What we do not hold cannot be given: a specification may ask for more (config.md, Capabilities: no error).
    capabilities.set_caps(what.effective & held, what.permitted & held, what.inheritable & held)
    capabilities.raise_ambient(what.ambient & what.permitted & what.inheritable & held)
    if death_signal:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, death_signal)
    if what.no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        if what.program:
            _filter(what.program, channel)
    if pretend:
        _change_ids(uid, gid, extra)  # answered by the agent, now that there is a filter
    _exec(paths, what.args, environment)


def _filter(program: seccomp.Filter, channel: int) -> None:
    """From here on each call of ours is filtered too."""
    if not program.listens:
        program.load()
        return
    if channel < 0:
        raise ContainersError("SCMP_ACT_NOTIFY: nobody here could take the listener", "use a profile without it, or exec --privileged")
    with socket.socket(fileno=channel) as parent:  # made before the load: it asks the kernel what kind of socket that is
        socket.send_fds(parent, [b'{"listener": true}\n'], [program.load()])
        parent.detach()


def _change_ids(uid: int, gid: int, extra: list[int]) -> None:
    try:
        idmap.set_groups(extra)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        wanted = ", ".join(map(str, (f"{uid}:{gid}", *extra)))
        raise ContainersError(f"user {wanted} is not mapped in the container's user namespace", "use an id that is mapped") from None


def _own_stdio(uid: int) -> None:
    """Pipes and the container's own terminal become the user's, so that /dev/stdout can be opened again by it.

    Not a terminal of the host's, in the foreground of a shell: it would be the user's afterwards too.
    """
    try:
        own = os.stat("/dev/pts").st_dev
    except OSError:
        own = -1
    for fd in (0, 1, 2):
        found = os.fstat(fd)
        terminal = stat.S_ISCHR(found.st_mode) and found.st_dev == own
        if found.st_uid != uid and (terminal or stat.S_ISFIFO(found.st_mode)):
            try:
                os.fchown(fd, uid, -1)
            except OSError:
                pass  # another user namespace's: it stays as it is


def _limit(limits: list[tuple[int, int, int]]) -> None:
    """Last, since a small limit holds for us too. A hard limit above ours was raised from outside (:meth:`.starting.Starting.release`)."""
    for number, soft, hard in limits:
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError):
            name = next(name for name in dir(resource) if name.startswith("RLIMIT_") and getattr(resource, name) == number)
            most = resource.getrlimit(number)[1]
            raise ContainersError(
                f"process.rlimits: {name} cannot be {soft}:{hard}, the hard limit here is {most}", "a limit is raised with CAP_SYS_RESOURCE"
            ) from None


def _label(labels: list[tuple[str, str]]) -> None:
    """What the next execve puts the process under, of a security module (/proc/PID/attr, proc_pid_attr(5))."""
    for module, label in labels:
        if not label:
            continue
        place = "/proc/self/attr/apparmor/exec" if module == "apparmor" else "/proc/self/attr/exec"
        try:
            fd = os.open(place, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            if label == "unconfined":
                continue
            raise ContainersError(f"process: {module} label {label!r} cannot be set: this kernel has no {module}", "leave it out") from None
        try:
            if mounts.filesystem(fd) != mounts.PROC_SUPER_MAGIC:
                # An exec may find a /proc of plain files: its label would be written there and not hold (CVE-2019-16884, CVE-2025-52881).
                raise OSError(errno.ENODEV, "/proc in the container is not the kernel's")
            os.write(fd, f"exec {label}".encode() if module == "apparmor" else label.encode())
        except OSError as error:
            raise ContainersError(f"process: {module} label {label!r} is refused: {error.strerror}", "load that profile first") from None
        finally:
            os.close(fd)


def enter_cwd(path: str) -> None:
    """chdir, then make sure that the kernel can name where we are: a working directory outside the root is CVE-2024-21626."""
    try:
        os.chdir(path)
    except OSError as error:
        raise ContainersError(f"working directory {path}: {error.strerror}", "choose another with -w, or another --user") from None
    try:
        inside = os.getcwd().startswith("/")
    except OSError:
        inside = False  # glibc looks for the name itself where the kernel says "(unreachable)", and finds none
    if not inside:
        raise ContainersError(f"working directory {path} lies outside the container", "choose another with -w")


def _make_cwd(path: str, uid: int, gid: int) -> None:
    if os.path.isdir(path):
        return
    try:
        os.makedirs(path, 0o755, exist_ok=True)
        os.chown(path, uid, gid)
    except OSError as error:
        raise ContainersError(f"working directory {path}: {error.strerror}", "choose another with -w") from None


def _default_signals(blocked: bool) -> None:
    """Python ignores SIGPIPE and SIGXFSZ, and ignored signals survive execve; so does what is blocked."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() if blocked else ())


def _candidates(command: str, path: str) -> list[str]:
    if "/" in command:
        return [command]
    return [f"{folder or '.'}/{command}" for folder in path.split(":")]


def _look_up(paths: list[str], command: str) -> None:
    """The same verdict as :func:`_exec` would give, where waiting comes between: what is wrong is told to whoever creates."""
    found = [path for path in paths if os.path.isfile(path)]
    if not found:
        raise CommandNotFound(f"command {command!r} is not in the image", "check its name and PATH")
    if not any(os.access(path, os.X_OK) for path in found):
        raise CommandNotExecutable(f"command {command!r} cannot be executed: Permission denied", "chmod +x it")


def _exec(paths: list[str], args: list[str], environment: dict[str, str]) -> None:
    refused: OSError | None = None
    for path in paths:
        try:
            os.execve(path, args, environment)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                refused = refused or error
            elif os.path.isfile(path):
                raise CommandNotFound(
                    f"{path} exists in the image, but its interpreter or loader does not",
                    "check its #! line, or that it was built for this image's C library",
                ) from None
    if refused is None:
        raise CommandNotFound(
            f"command {args[0]!r} is not in the image",
            "check its name and PATH" if "/" not in args[0] else "check its path inside the image",
        )
    why, hint = refused.strerror, ""
    if refused.errno == errno.EACCES:
        hint = "chmod +x it"
    elif refused.errno == errno.ENOEXEC:
        why, hint = "has no #! line and is not a program", "start it through its interpreter"
    elif refused.errno == errno.E2BIG:
        sizes = [len(os.fsencode(text)) + 1 for text in (*args, *(f"{name}={value}" for name, value in environment.items()))]
        why = f"its arguments and environment are too long ({sum(sizes)} bytes, the longest {max(sizes)})"
        hint = "one may have 131072 bytes, and all a quarter of the stack's limit (execve(2)): pass it in a file or on stdin"
    raise CommandNotExecutable(f"command {args[0]!r} cannot be executed: {why}", hint)
