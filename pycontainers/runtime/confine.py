"""The last steps before execve, the same for a container's first process and for ``exec``.

The order matters: bounding set while CAP_SETPCAP is there → ids → capabilities → parent-death signal (an id change clears it) →
no_new_privs → seccomp, last of all, so that the filter needs to allow nothing but execve itself.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import Any

from ..errors import CommandNotExecutable, CommandNotFound, ContainersError
from ..linux import capabilities, seccomp, syscalls
from . import users


class Confinement:
    """What :func:`become` needs, computed before any fork so that nothing is imported or compiled inside."""

    def __init__(self, process: dict[str, Any], program: bytes | None) -> None:
        caps = process.get("capabilities") or {}
        self.bounding = capabilities.mask(caps.get("bounding") or [])
        self.effective = capabilities.mask(caps.get("effective") or [])
        self.permitted = capabilities.mask(caps.get("permitted") or [])
        self.last_cap = capabilities.last()
        self.no_new_privileges = bool(process.get("noNewPrivileges"))
        self.program = program
        self.args: list[str] = process["args"]
        self.env: list[str] = process["env"]
        self.cwd: str = process["cwd"]
        user = process["user"]
        self.user: str = user.get("username") or f"{user['uid']}:{user['gid']}"


def only_descriptor(fd: int) -> int:
    """Close every descriptor but stdio and ``fd``, which becomes 3 and ends with execve.

    Before the working directory is entered: ``-w /proc/self/fd/7`` must not find anything of ours (CVE-2024-21626).
    """
    if fd != 3:
        os.dup2(fd, 3, inheritable=False)
    syscalls.close_range(4)
    return 3


def become(what: Confinement, *, make_cwd: bool, death_signal: int) -> None:
    """Drop to what the process may be, and execve. Only returns by raising.

    Called inside the container's root, as its root. ``make_cwd``: a missing working directory is made, as Docker does.
    """
    uid, gid, extra, home = users.resolve(what.user)
    environment = dict(item.partition("=")[::2] for item in what.env)
    environment.setdefault("HOME", home)
    environment.setdefault("HOSTNAME", os.uname().nodename)
    if make_cwd:
        _make_cwd(what.cwd, uid, gid)
    capabilities.limit_bounding(what.bounding, what.last_cap)
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.setgroups(extra)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    enter_cwd(what.cwd)  # with the user's rights, so that a folder closed to it is an error now
    capabilities.clear_ambient()
    # Nothing inheritable, ever (CVE-2022-27650: exec with inheritable capabilities raises file capabilities).
    capabilities.set_caps(what.effective, what.permitted, 0)
    _default_signals()
    if death_signal:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, death_signal)
    if what.no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    paths = _candidates(what.args[0], environment.get("PATH", ""))
    if what.program:
        seccomp.load(what.program)
    _exec(paths, what.args, environment)


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


def _default_signals() -> None:
    """Python ignores SIGPIPE and SIGXFSZ, and ignored signals survive execve."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _candidates(command: str, path: str) -> list[str]:
    if "/" in command:
        return [command]
    return [f"{folder or '.'}/{command}" for folder in path.split(":")]


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
    why = "has no #! line and is not a program" if refused.errno == errno.ENOEXEC else refused.strerror
    raise CommandNotExecutable(
        f"command {args[0]!r} cannot be executed: {why}",
        "chmod +x it" if refused.errno == errno.EACCES else "start it through its interpreter",
    )
